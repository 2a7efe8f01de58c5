"""Writes a trained model for use elsewhere:

    python -m meljax.export RUN --format torch --out FILE

torch: the weights of the run's best epoch as safetensors, under torchvision's names and in its
layout, for PyTorch's ResNet-18 with as many classes as the run has.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from meljax import saved
from meljax.errors import UserError
from meljax.models.normalise import IMAGENET_MEAN, IMAGENET_STD
from meljax.models.pretrained import to_torch
from meljax.models.weights import write_weights


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code (2: something the caller can mend)."""
    parser = argparse.ArgumentParser(
        prog="python -m meljax.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="directory of a run")
    parser.add_argument("--format", choices=["torch"], required=True)
    parser.add_argument("--out", metavar="FILE", type=Path, required=True)
    arguments = parser.parse_args(argv)
    try:
        model = saved.load(arguments.run)
        export_torch(model, arguments.out)
    except UserError as error:
        print(f"meljax: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.out}: epoch {model.epoch}, {len(model.classes)} classes")
    return 0


def export_torch(model: saved.SavedModel, file: Path) -> None:
    """Writes the weights for PyTorch; class names and the input stand in the file's metadata.

    Raises:
      UserError: the network has no counterpart, or the file cannot be written.
    """
    if model.config.model.name != "resnet18":
        raise UserError(
            "--format torch is for model.name='resnet18': torchvision has no network "
            f"like {model.config.model.name!r}"
        )
    metadata = {
        "classes": json.dumps(model.classes),
        "mean": json.dumps(IMAGENET_MEAN),
        "std": json.dumps(IMAGENET_STD),
    }
    write_weights(file, to_torch(model.variables, model.step), metadata)


if __name__ == "__main__":
    sys.exit(main())
