"""Predicts the classes of recordings or images, with probabilities:

    meljax predict RUN PATH... [--top K] [--windows] [--format FORMAT] [--out FILE]

Writes a row per file: path, start, end, label, probability, status, error. start and end delimit
the scored part, in seconds of a recording or columns of an image; they are empty for resized
images, which are scored whole. A file shorter than one and a half windows is scored on one window
in its middle. A longer file is scored on overlapping windows from start to end, and its
probabilities are the mean over its windows that are not silent; with --windows each window has its
own row. The status is ok, silence (without label and probability) or error. For an unusable file,
the column error holds the reason; the other files are still scored, and the exit code is 1. The
weights are those of the run's best epoch.
"""

from collections.abc import Sequence

from meljax.util import console, table
from meljax.util.console import Parser, path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code (1: there were unusable files)."""
    parser = Parser(__doc__)
    parser.add_argument("run", metavar="RUN", type=path, help="directory of a run")
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="a file, or a folder with its sub-folders"
    )
    top_help = "number of classes per row, in columns label_2, probability_2, … (default: 1)"
    parser.add_argument("--top", metavar="K", type=int, default=1, help=top_help)
    parser.add_argument("--windows", action="store_true", help="a row for each window")
    parser.add_argument(
        "--format", choices=table.FORMATS, help="default: by the suffix of --out, else table"
    )
    parser.add_argument("--out", metavar="FILE", type=path, help="default: standard output")

    def run(_: console.StopRequest) -> int:
        arguments = parser.parse(argv)
        from meljax.workflows.predict import predict

        unusable = predict(
            arguments.run,
            arguments.paths,
            top=arguments.top,
            by_window=arguments.windows,
            form=arguments.format,
            out=arguments.out,
        )
        return 1 if unusable else 0

    return console.run(run)
