"""Files of weights by torch's names: `.pth` and `.safetensors` in, `.safetensors` out."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Shaped

from meljax.errors import BadFileError, UserError
from meljax.models.torchfile import read_torch
from meljax.paths import write_whole

Weights = dict[str, Shaped[np.ndarray, "..."]]
"""Arrays by torch's names, in torch's layout: convolutions [out, in, rows, columns]."""

MOST_BYTES = 2**30
"""No ResNet-18 is larger; a device or an endless file is not read."""


def read_weights(path: Path) -> tuple[Weights, str]:
    """Returns the arrays of a file and its sha256, hexadecimal; see `parse_weights`.

    Raises:
      UserError: the file cannot be read, or holds what no weights are.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a file")
        if path.is_file() and path.stat().st_size > MOST_BYTES:
            raise UserError(f"{path}: larger than any ResNet-18")
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    return parse_weights(data, str(path)), hashlib.sha256(data).hexdigest()


def parse_weights(data: bytes, name: str) -> Weights:
    """Returns the arrays in the bytes of a file: float32, but for torch's counts of batches, int64.

    A zip and torch's older format are told from safetensors by their first bytes.

    Args:
      data: the file.
      name: what an error calls it.

    Raises:
      UserError: it is no file of weights, or some are no finite float32.
    """
    try:
        return {key: _checked(key, array) for key, array in _arrays(data).items()}
    except BadFileError as error:
        raise UserError(f"{name}: {error}") from None


def _arrays(data: bytes) -> Weights:
    if not data:
        raise BadFileError("empty file")
    # safetensors begin with the length of a JSON header, eight bytes, then its brace.
    if data[8:9] != b"{":
        return read_torch(data)
    try:
        return safetensors.numpy.load(data)
    except KeyError as error:
        raise BadFileError(f"its type {error} is not supported; save it as float32") from None
    except (safetensors.SafetensorError, ValueError, TypeError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadFileError(f"damaged safetensors ({reason})") from None


def _checked(name: str, array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Returns an array in the one type it is used in."""
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
        raise BadFileError(f"{shown} holds values that are no finite float32 numbers")
    if name.endswith("running_var") and (array < 0).any():
        raise BadFileError(f"{shown} holds negative variances")
    return array


def write_weights(path: Path, weights: Weights, metadata: Mapping[str, str]) -> None:
    """Writes a `.safetensors` file, whole or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    whole = {name: np.asarray(array, order="C") for name, array in weights.items()}
    try:
        write_whole(path, safetensors.numpy.save(whole, metadata=dict(metadata)))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
