"""Reads `.pth` and `.safetensors` files with torch's names; writes `.safetensors`."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Shaped

from meljax.models.pretrained.torch_file import read_torch
from meljax.util.errors import BadFileError, UserError
from meljax.util.files import write_atomically

Weights = dict[str, Shaped[np.ndarray, "..."]]
"""Arrays by torch's names, in torch's layout: convolutions are [out, in, rows, columns]."""

MAX_BYTES = 2**30
"""Far above the size of any ResNet-18."""


def read_weights(path: Path) -> tuple[Weights, str]:
    """Returns the arrays of a file, see `parse_weights`, and its sha256 in hexadecimal."""
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a file")
        if path.is_file() and path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: too large for ResNet-18")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    return parse_weights(data, str(path)), hashlib.sha256(data).hexdigest()


def parse_weights(data: bytes, name: str) -> Weights:
    """Returns the arrays of a `.pth` or `.safetensors` file; `name` is its name in errors.

    They are float32, except `num_batches_tracked`, which is int64.

    Raises:
      UserError: it is not a weights file, or a weight is not a finite float32 number.
    """
    try:
        return {key: _checked(key, array) for key, array in _arrays(data).items()}
    except BadFileError as error:
        raise UserError(f"{name}: {error}") from None


def _arrays(data: bytes) -> Weights:
    if not data:
        raise BadFileError("empty file")
    # A safetensors file starts with the length of its JSON header (8 bytes) and a brace.
    if data[8:9] != b"{":
        return read_torch(data)
    try:
        return safetensors.numpy.load(data)
    except KeyError as error:
        raise BadFileError(
            f"number type {error} is not supported; save the weights as float32"
        ) from None
    except (safetensors.SafetensorError, ValueError, TypeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadFileError(f"damaged safetensors ({reason})") from None


def _checked(name: str, array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Returns an array as float32, or `num_batches_tracked` as int64, after checking its values."""
    shown = repr(name)[:80]
    if name.endswith("num_batches_tracked"):
        if array.shape != () or array.dtype.kind not in "iu":
            raise BadFileError(f"{shown} is not a single whole number")
        return array.astype(np.int64)
    if array.dtype.kind != "f":
        raise BadFileError(f"{shown} is of type {array.dtype}, not floating point")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise BadFileError(f"{shown} holds values that are not finite float32 numbers")
    if name.endswith("running_var") and (array < 0).any():
        raise BadFileError(f"{shown} holds negative variances")
    return array


def write_weights(path: Path, weights: Weights, metadata: Mapping[str, str]) -> None:
    """Writes a `.safetensors` file atomically; raises `UserError` if that fails."""
    write_atomically(path, to_safetensors(weights, metadata))


def to_safetensors(weights: Weights, metadata: Mapping[str, str]) -> bytes:
    """Returns the content of a `.safetensors` file."""
    contiguous = {name: np.asarray(array, order="C") for name, array in weights.items()}
    return safetensors.numpy.save(contiguous, metadata=dict(metadata))
