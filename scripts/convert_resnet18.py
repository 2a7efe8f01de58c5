"""Converts ResNet-18 weights to safetensors under torchvision's names, and checks them.

    python scripts/convert_resnet18.py IN OUT [--check NPZ]

IN is torchvision's .pth (either format; nothing in it is executed, PyTorch is not needed) or a
.safetensors file with the same names. NPZ holds `images` (uint8, [n, 224, 224, 3]) and PyTorch's
`logits` ([n, classes]); the largest difference is printed, and where it is above 1e-3, nothing is
written and 1 returned. meljax must be installed.
"""

import argparse
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from meljax.errors import UserError
from meljax.models.pretrained import from_torch
from meljax.models.resnet import ResNet18
from meljax.models.weights import Weights, read_weights, write_weights

TOLERANCE = 1e-3


def main() -> int:
    """Converts, and returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", metavar="IN", type=Path)
    parser.add_argument("target", metavar="OUT", type=Path)
    parser.add_argument("--check", metavar="NPZ", type=Path)
    arguments = parser.parse_args()
    try:
        weights, digest = read_weights(arguments.source)
        network, variables = as_network(weights, arguments.source)
        if arguments.check and not check(network, variables, arguments.check) <= TOLERANCE:
            print(f"above {TOLERANCE:g}: {arguments.target} is not written", file=sys.stderr)
            return 1
        write_weights(
            arguments.target, weights, {"source": arguments.source.name, "sha256": digest}
        )
    except UserError as error:
        print(f"convert_resnet18: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.target}: {len(weights)} arrays")
    return 0


def as_network(weights: Weights, source: Path) -> tuple[ResNet18, dict]:
    """Returns the network that the weights are for, and its variables.

    Raises:
      UserError: names or shapes are not ResNet-18's.
    """
    bias = weights.get("fc.bias", np.empty(0))
    network = ResNet18(classes=max(1, bias.size))
    shapes = jax.eval_shape(
        lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.ones(1), False)
    )
    try:
        return network, from_torch(weights, shapes, new_head=False)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def check(network: ResNet18, variables: dict, file: Path) -> float:
    """Prints how far the logits are from the stored ones; returns the largest difference."""
    try:
        with np.load(file) as stored:
            images, expected = stored["images"], stored["logits"]
    except Exception as error:  # a damaged archive meets every kind
        raise UserError(f"{file}: not a file with images and logits ({error!r:.200})") from None
    shape = (len(images) if images.ndim == 4 else 0, network.classes)
    if not shape[0] or images.dtype != np.uint8 or expected.shape != shape:
        raise UserError(
            f"{file}: images must be uint8 [n, rows, columns, 3] and logits [n, "
            f"{network.classes}], not {images.dtype} {images.shape} and {expected.shape}"
        )
    with jax.default_matmul_precision("highest"):
        apply = jax.jit(network.apply, static_argnums=3)
        pictures = jnp.asarray(images, jnp.float32) / 255
        logits = np.asarray(apply(variables, pictures, jnp.ones(len(images)), False))
    difference = float(np.abs(logits - expected).max())
    same = int((logits.argmax(1) == expected.argmax(1)).sum())
    print(f"max |Δ logits| {difference:.2e}, the same class for {same} of {len(images)} images")
    return difference


if __name__ == "__main__":
    sys.exit(main())
