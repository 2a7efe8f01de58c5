"""Files of weights by torch's names: `.pth` and `.safetensors` in, `.safetensors` out."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from jaxtyping import Shaped

from meljax.errors import BadFileError, UserError
from meljax.models.torchfile import read_torch

Weights = dict[str, Shaped[np.ndarray, "..."]]
"""Arrays by torch's names, in torch's layout: convolutions [out, in, rows, columns]."""


def read_weights(path: Path) -> tuple[Weights, str]:
    """Returns the arrays of a file and its sha256, hexadecimal.

    A zip and torch's older format are told from safetensors by their first bytes.

    Raises:
      UserError: the file cannot be read, or holds what is no number.
    """
    try:
        data = path.read_bytes()
        weights = _parse(data)
    except BadFileError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    for name, array in weights.items():
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {name} holds values that are no finite numbers")
    return weights, hashlib.sha256(data).hexdigest()


def _parse(data: bytes) -> Weights:
    if not data:
        raise BadFileError("empty file")
    # safetensors begin with the length of a JSON header, eight bytes, then its brace.
    if data[8:9] != b"{":
        return read_torch(data)
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise BadFileError(f"damaged safetensors ({error})") from None


def write_weights(path: Path, weights: Weights, metadata: Mapping[str, str]) -> None:
    """Writes a `.safetensors` file, whole or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    whole = {name: np.asarray(array, order="C") for name, array in weights.items()}
    data = safetensors.numpy.save(whole, metadata=dict(metadata))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None
