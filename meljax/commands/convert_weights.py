"""Converts ResNet-18 weights to safetensors with torchvision's names, and checks them:

    meljax convert-weights IN OUT [--check NPZ]

IN is torchvision's .pth file, in PyTorch's zip or legacy format, or a .safetensors file with the
same names. Code in it is not executed, and PyTorch is not needed. NPZ holds `images`, uint8 [n,
rows, columns, 3], and PyTorch's `logits` [n, classes]. The largest difference between the logits is
printed. If it is above 1e-3, OUT is not written and the exit code is 1.
"""

from collections.abc import Sequence

from meljax.util import console
from meljax.util.console import Parser, path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code (1: the check failed)."""
    parser = Parser(__doc__)
    parser.add_argument("source", metavar="IN", type=path, help="the weights to convert")
    parser.add_argument("out", metavar="OUT", type=path, help="the .safetensors file to write")
    parser.add_argument("--check", metavar="NPZ", type=path, help="images and their logits")

    def run(_: console.StopRequest) -> int:
        arguments = parser.parse(argv)
        from meljax.workflows.convert_weights import convert_weights

        return 0 if convert_weights(arguments.source, arguments.out, arguments.check) else 1

    return console.run(run)
