"""Scores a trained model on labeled files:

    python -m meljax evaluate RUN [--data PATH] [--label COLUMN] [--split SPLIT] [--json FILE]

By default it scores the validation files of the run; with --data any folder, CSV or TFDS set with
the layout of training data, all of it or one split. The weights are those of the run's best epoch,
as in predict. Unreadable files are listed and skipped, and the exit code is then 1.
"""

from collections.abc import Sequence
from pathlib import Path

from meljax.util import console


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code (1: there were unusable files)."""
    parser = console.parser("evaluate", __doc__)
    parser.add_argument("run", metavar="RUN", type=Path, help="directory of a run")
    parser.add_argument("--data", metavar="PATH", help="folder, CSV or tfds:NAME of labeled files")
    parser.add_argument(
        "--tfds-dir", metavar="DIR", help="folder of TFDS sets; default: as in training"
    )
    parser.add_argument(
        "--label",
        metavar="COLUMN",
        help="CSV column or TFDS feature with the class; default: as in training",
    )
    parser.add_argument(
        "--split",
        choices=("train", "val", "test"),
        help="default: val of the run's own files, all files of --data",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="file for all numbers")
    arguments = parser.parse_args(argv)

    def run(_: console.StopRequest) -> int:
        from meljax.workflows.evaluate import evaluate

        unusable = evaluate(
            arguments.run,
            data=arguments.data,
            tfds_dir=arguments.tfds_dir,
            label=arguments.label,
            split=arguments.split,
            json_file=arguments.json,
        )
        return 1 if unusable else 0

    return console.run(run)
