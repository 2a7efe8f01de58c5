"""meljax: trains classifiers of recordings and uses them.

meljax COMMAND [ARGUMENTS]
meljax --version
"""

import importlib
import sys
from collections.abc import Sequence

from meljax.util import console
from meljax.util.console import Parser
from meljax.util.phrases import nearest
from meljax.util.version import __version__

COMMANDS = {
    "train": "train a classifier, or resume a run",
    "inspect": "show what is understood of a data set",
    "predict": "predict the classes of recordings or images",
    "evaluate": "score a trained model on labeled files",
    "app": "try a trained model in a browser",
    "report": "write the page of one run, or compare several",
    "export": "write a trained model as StableHLO, ONNX or PyTorch weights",
    "build-tfds": "make a TFDS set from a folder or table",
    "convert-weights": "convert and check ResNet-18 weights",
}
"""Each command and what it does."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` names; returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if argv == ["--version"]:
        print(f"meljax {__version__}")
        return 0
    if argv[0] not in COMMANDS:
        return console.run(lambda _: _no_command(argv[:1]))
    # Only one command is imported, so that wrong arguments are reported without delay.
    module = importlib.import_module(f"meljax.commands.{argv[0].replace('-', '_')}")
    return module.main(argv[1:])


def _no_command(argv: Sequence[str]) -> int:
    """Prints the help if `argv` asks for it; otherwise raises `UserError`."""
    parser = Parser(__doc__)
    lines = "\n".join(f"  {name:16} {purpose}" for name, purpose in COMMANDS.items())
    parser.epilog = f"commands:\n{lines}\n\n'meljax COMMAND --help' describes a command."
    if not argv[0].startswith("-"):
        parser.error(f"unknown command {argv[0]!r}{nearest(argv[0], COMMANDS)}")
    parser.parse(argv)
    return 0


def script() -> None:
    """Runs the console script `meljax`."""
    console.leave(main())


if __name__ == "__main__":
    script()
