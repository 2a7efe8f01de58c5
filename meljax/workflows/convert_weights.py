"""Converts ResNet-18 weights to safetensors and checks them against PyTorch's logits."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PyTree, UInt8

from meljax.evaluation.forward import forward
from meljax.models.pretrained.name_map import from_torch
from meljax.models.pretrained.weights_file import read_weights, write_weights
from meljax.models.resnet import ResNet18
from meljax.util.errors import UserError
from meljax.util.progress import say

TOLERANCE = 1e-3
"""The largest accepted difference of a logit."""


def convert_weights(source: Path, out: Path, reference: Path | None = None) -> bool:
    """Writes the weights to `out` unless the check fails; returns whether it wrote them.

    Args:
      source: torchvision's `.pth` file, or safetensors with the same names.
      out: the safetensors file.
      reference: an `.npz` file with `images`, uint8 [n, rows, columns, 3], and PyTorch's `logits`
        [n, classes], which the check compares; `None`: no check.

    Raises:
      UserError: a file cannot be read or written, or has the wrong content.
    """
    weights, digest = read_weights(source)
    network = ResNet18(classes=max(1, weights.get("fc.bias", np.empty(0)).size))
    shapes = jax.eval_shape(
        lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.ones(1), False)
    )
    try:
        variables = from_torch(weights, shapes, new_head=False)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    if reference:
        difference = compare_logits(network, variables, reference)
        if not difference <= TOLERANCE:
            say(f"{out} was not written: the difference is above {TOLERANCE:g}")
            return False
    write_weights(out, weights, {"source": source.name, "sha256": digest})
    say(f"{out}: {len(weights)} arrays")
    return True


def compare_logits(network: ResNet18, variables: PyTree, reference: Path) -> float:
    """Prints and returns the largest difference of the logits from the reference file."""
    images, expected = _read_reference(reference, network.classes)
    with jax.default_matmul_precision("highest"):
        scaled = jnp.asarray(images, jnp.float32) / 255
        logits = np.asarray(jax.jit(forward, static_argnums=0)(network, variables, scaled))
    difference = float(np.abs(logits - expected).max())
    same = int((logits.argmax(1) == expected.argmax(1)).sum())
    say(f"max |Δ logits| {difference:.2e}, the same class for {same} of {len(images)} images")
    return difference


def _read_reference(
    file: Path, classes: int
) -> tuple[UInt8[np.ndarray, "n rows columns 3"], Float[np.ndarray, "n classes"]]:
    try:
        with np.load(file) as stored:
            images, logits = stored["images"], stored["logits"]
    except Exception as error:  # NumPy raises many types for a damaged file
        raise UserError(f"{file}: not a file with images and logits ({error!r:.200})") from None
    count = len(images) if images.ndim == 4 and images.shape[3] == 3 else 0
    if not count or images.dtype != np.uint8 or logits.shape != (count, classes):
        raise UserError(
            f"{file}: images must be uint8 [n, rows, columns, 3] and logits [n, {classes}], "
            f"not {images.dtype} {images.shape} and {logits.shape}"
        )
    return images, logits
