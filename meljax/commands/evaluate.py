"""Scores a trained model on labeled files:

    meljax evaluate RUN [DATA] [--split SPLIT] [--json FILE] [--thresholds FILE [--precision P]]
        [--KEY=VALUE ...]

DATA is a folder, table or TFDS set with the layout of training data; without it, the run's own
files are scored. SPLIT is train, val or test; the default is val for the run's own files, and all
files for DATA. The weights are those of the run's best epoch, as in predict. Unusable files are
listed and skipped, and the exit code is then 1.

--thresholds writes a threshold per class, for predict: the lowest one with which at least the share
P of the files predicted as the class is right.
"""

from collections.abc import Sequence

from meljax.commands.keys import add_keys, given_keys
from meljax.util import console
from meljax.util.console import Parser, path

KEYS = (
    *("data.path", "data.tfds_dir", "data.root", "data.label", "data.group"),
    *("data.file_column", "data.split_column", "data.start_column", "data.end_column"),
    *("data.pattern", "data.allow_split_names"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code (1: there were unusable files)."""
    parser = Parser(__doc__)
    parser.add_argument("run", metavar="RUN", type=path, help="directory of a run")
    parser.add_argument("data", metavar="DATA", nargs="?", help="folder, table or tfds:NAME")
    parser.add_argument("--split", choices=("train", "val", "test"), help="the files to score")
    parser.add_argument("--json", metavar="FILE", type=path, help="write all scores as JSON")
    parser.add_argument("--thresholds", metavar="FILE", type=path, help="write thresholds as CSV")
    parser.add_argument(
        "--precision", metavar="P", help="precision of the thresholds (default: 0.95)"
    )
    add_keys(parser, KEYS, "keys, by default those of the run", hidden=["data.path"])

    def run(_: console.StopRequest) -> int:
        arguments = parser.parse(argv)
        if arguments.precision and not arguments.thresholds:
            parser.error("--precision is for --thresholds; give the file to write")
        from meljax.runs.thresholds import parse_precision
        from meljax.workflows.evaluate import evaluate

        unusable = evaluate(
            arguments.run,
            given_keys(parser, arguments),
            arguments.split,
            arguments.json,
            arguments.thresholds,
            parse_precision(arguments.precision or "0.95"),
        )
        return 1 if unusable else 0

    return console.run(run)
