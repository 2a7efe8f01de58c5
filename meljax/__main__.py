"""Runs a command:

python -m meljax COMMAND [ARGUMENTS]
"""

import importlib
import sys
from collections.abc import Sequence

from meljax.util import console

COMMANDS = {
    "predict": "predict the classes of recordings or images",
    "evaluate": "score a trained model on labeled files",
    "report": "write the page of one run, or compare several",
    "export": "write a trained model as StableHLO, ONNX or PyTorch weights",
    "build-tfds": "make a TFDS set from a folder or CSV",
    "convert-weights": "convert and check ResNet-18 weights",
}
"""Each command and what it does. Training is `python -m meljax.main`."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` names; returns its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    lines = "\n".join(f"  {name:16} {purpose}" for name, purpose in COMMANDS.items())
    parser = console.parser("COMMAND", f"Commands:\n{lines}\n\nTo train: python -m meljax.main")
    parser.usage = "python -m meljax COMMAND [ARGUMENTS]"
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    command = parser.parse_args(argv[:1]).command
    # Only one command is imported, so that wrong arguments are reported without delay.
    module = importlib.import_module(f"meljax.commands.{command.replace('-', '_')}")
    return module.main(argv[1:])


if __name__ == "__main__":
    console.leave(main())
