"""Writes a page with figures about one run, or a comparison of several:

    meljax report RUN [RUN ...] [--out DIR]

One run, finished or stopped: scores, calibration, confusions and worst mistakes are computed again
from its weights and data. Without --out the page is written to RUN, with predictions.csv and
calibration.json. While RUN is being trained, give --out. Several runs: the saved results are
compared, by default in the folder 'report'.
"""

from collections.abc import Sequence

from meljax.util import console, progress
from meljax.util.console import Parser, path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = Parser(__doc__)
    parser.add_argument("runs", metavar="RUN", type=path, nargs="+", help="directory of a run")
    parser.add_argument("--out", metavar="DIR", type=path, help="folder for report.html")

    def run(_: console.StopRequest) -> int:
        arguments = parser.parse(argv)
        from meljax.workflows.report import report

        progress.say(f"report: {report(arguments.runs, arguments.out)}")
        return 0

    return console.run(run)
