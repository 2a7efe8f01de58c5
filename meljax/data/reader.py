"""One file's bytes → the array that the rest works on: the same in training and in prediction."""

import importlib.metadata
from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import Shaped, UInt8

import meljax
from meljax.data import audio, images
from meljax.errors import BadFileError
from meljax.frontend import Frontend

Reader = Callable[[bytes], Shaped[np.ndarray, "_ ..."]]
"""From a file's bytes to int16 [samples] or uint8 [columns, height, channel]; `BadFileError`."""


def make_reader(kind: Literal["sound", "image"], image_size: int, sample_rate: int) -> Reader:
    """Returns what reads a file of `kind`.

    Args:
      kind: of the file.
      image_size: side of the square that a picture is resized to; 0: it stays as it is.
      sample_rate: that a recording is brought to, in Hz.
    """
    if kind == "sound":
        return lambda data: audio.read_audio(data, sample_rate)

    def read(data: bytes) -> UInt8[np.ndarray, "columns height channel"]:
        image = images.read_image(data)
        if images.is_grey(image):
            image = image[:, :, :1]
        if image_size:
            image = images.resize(image, image_size)
        return np.ascontiguousarray(image.swapaxes(0, 1))

    return read


def decoders() -> str:
    """Returns what decodes, with versions: another one may make other arrays of the same files."""
    packages = ("pillow", "soundfile", "soxr")
    versions = (f"{name} {importlib.metadata.version(name)}" for name in packages)
    return ", ".join((f"meljax {meljax.__version__}", *versions))


def with_channels(
    image: UInt8[np.ndarray, "columns height channel"], channels: int
) -> UInt8[np.ndarray, "columns height {channels}"]:
    """Returns a picture with `channels` channels; grey ones become RGB by repetition."""
    return np.broadcast_to(image, (*image.shape[:2], channels))


def fit(array: Shaped[np.ndarray, "_ ..."], frontend: Frontend) -> Shaped[np.ndarray, "_ ..."]:
    """Returns what was read, in the form a trained model takes.

    Raises:
      BadFileError: the model cannot take it; the message says why.
    """
    if frontend.kind == "sound":
        return array
    _, height, channels = array.shape
    if channels > frontend.channels:
        raise BadFileError("coloured, but the model was trained on grey pictures")
    if height != frontend.height:
        raise BadFileError(
            f"{height} pixels high, but the model was trained on pictures of {frontend.height}"
        )
    return with_channels(array, frontend.channels)
