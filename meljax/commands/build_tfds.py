"""Builds a TFDS set from a folder or CSV, without TensorFlow:

    python -m meljax build-tfds SOURCE --name NAME [--out DIR] [--version VERSION]

SOURCE is a folder with one sub-folder per class, a folder with such folders train/, val/ and test/,
or a CSV. The set is written to DIR/NAME/VERSION in array_record format. An example holds the bytes
of the image or recording, its class (`label`), its `group`, which stays in one split, and the
`path` and `sha256` of its file. Any program can read the set with tensorflow-datasets. Training on
it gives the same weights as training on SOURCE:

    python -m meljax.main --config configs/cnn.py --config.data.path=tfds:NAME

The set is built again only if something changed. An incomplete set is never left behind.
"""

from collections.abc import Sequence

from meljax.util import console


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = console.parser("build-tfds", __doc__)
    parser.add_argument("source", metavar="SOURCE", help="a folder or a CSV")
    parser.add_argument("--name", required=True, help="name of the set, e.g. voices_2")
    parser.add_argument(
        "--out", metavar="DIR", default="", help="default: $TFDS_DATA_DIR or ~/tensorflow_datasets"
    )
    parser.add_argument("--version", default="1.0.0", help="default: 1.0.0")
    parser.add_argument("--description", metavar="TEXT", default="", help="text for people")
    parser.add_argument("--label", metavar="COLUMN", default="label", help="CSV column: the class")
    help_group = "CSV column: items that share a value, e.g. the speaker, stay in one split"
    parser.add_argument("--group", metavar="COLUMN", default="group", help=help_group)
    parser.add_argument(
        "--on-bad-file", choices=("stop", "skip"), default="stop", help="default: stop"
    )
    arguments = parser.parse_args(argv)

    def run(_: console.StopRequest) -> int:
        from meljax.workflows.build_tfds import build_tfds

        build_tfds(**vars(arguments))
        return 0

    return console.run(run)
