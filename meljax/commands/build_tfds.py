"""Builds a TFDS set from a folder or table, without TensorFlow:

    meljax build-tfds DATA --name NAME [--version VERSION] [--description TEXT] [--KEY=VALUE ...]

DATA is a folder with one sub-folder per class, a folder with such folders train/, val/ and test/,
or a table. The set is written to <data.tfds_dir>/NAME/VERSION in array_record format. An example
holds the bytes of the image or recording, its class (`label`), its `group`, which stays in one
split, and the `path` and `sha256` of its file. Any program can read the set with
tensorflow-datasets. Training on it gives the same weights as training on DATA:

    meljax train tfds:NAME --config cnn

The set is built again only if something changed. An incomplete set is never left behind.
"""

from collections.abc import Sequence

from meljax.commands.keys import add_keys, given_keys
from meljax.config import from_flat
from meljax.util import console
from meljax.util.console import Parser

KEYS = (
    *("data.path", "data.tfds_dir", "data.root", "data.label", "data.group", "data.file_column"),
    *("data.split_column", "data.pattern", "data.allow_split_names", "data.on_bad_file"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = Parser(__doc__)
    parser.add_argument("data", metavar="DATA", nargs="?", help="a folder or a table")
    parser.add_argument("--name", required=True, help="name of the set, e.g. voices_2")
    parser.add_argument("--version", default="1.0.0", help="default: 1.0.0")
    parser.add_argument("--description", metavar="TEXT", default="", help="text stored in the set")
    add_keys(parser, KEYS, "keys, each with its default", hidden=["data.path"])

    def run(_: console.StopRequest) -> int:
        arguments = parser.parse(argv)
        from meljax.workflows.build_tfds import build_tfds

        settings = from_flat(given_keys(parser, arguments))
        build_tfds(settings.data, arguments.name, arguments.version, arguments.description)
        return 0

    return console.run(run)
