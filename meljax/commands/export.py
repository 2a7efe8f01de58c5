"""Exports a trained model for use outside meljax:

    meljax export RUN --format FORMAT --out FILE

stablehlo: from a waveform or an image to probabilities, for JAX on CPU, CUDA and TPU.
onnx: the same, for onnxruntime and others (needs the extra: pip install '.[onnx]').
torch: only the network's weights, as safetensors with torchvision's names and layout.

The weights are those of the run's best epoch. FILE.json describes classes, input and output.
"""

from collections.abc import Sequence

from meljax.util import console
from meljax.util.console import Parser, path


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = Parser(__doc__)
    parser.add_argument("run", metavar="RUN", type=path, help="directory of a run")
    forms = ("stablehlo", "onnx", "torch")
    parser.add_argument("--format", choices=forms, required=True, help="see above")
    parser.add_argument("--out", metavar="FILE", type=path, required=True, help="the file to write")

    def run(_: console.StopRequest) -> int:
        arguments = parser.parse(argv)
        from meljax.workflows.export import export

        export(arguments.run, arguments.format, arguments.out)
        return 0

    return console.run(run)
