"""Chooses and applies the decoder of a file, for training, evaluation and prediction."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Shaped, UInt8

from meljax.data.decode import audio_file, image_file
from meljax.features.frontend import Frontend, Kind
from meljax.util.errors import BadFileError

Decoder = Callable[[bytes], Shaped[np.ndarray, "_ ..."]]
"""Turns a file's bytes into int16 [samples] or uint8 [columns, height, channel]: time is first.
Raises `BadFileError`."""


def make_decoder(kind: Kind, image_size: int, sample_rate: int) -> Decoder:
    """Returns the decoder for files of `kind`.

    Images are resized to `image_size` pixels square (0: not resized); recordings are resampled to
    `sample_rate` Hz.
    """
    if kind == "audio":
        return lambda data: audio_file.read_audio(data, sample_rate)

    def decode(data: bytes) -> UInt8[np.ndarray, "columns height channel"]:
        image = image_file.read_image(data)
        if image_file.is_gray(image):
            image = image[:, :, :1]
        if image_size:
            image = image_file.resize(image, image_size)
        return np.ascontiguousarray(image.swapaxes(0, 1))

    return decode


def with_channels(
    image: UInt8[np.ndarray, "columns height channel"], channels: int
) -> UInt8[np.ndarray, "columns height {channels}"]:
    """Returns an image with `channels` channels; gray becomes RGB by repetition."""
    return np.broadcast_to(image, (*image.shape[:2], channels))


def fit(array: Shaped[np.ndarray, "_ ..."], frontend: Frontend) -> Shaped[np.ndarray, "_ ..."]:
    """Returns a decoded array with the channels that a trained model takes.

    Raises:
      BadFileError: the image is colored, or has another height than the model's training images.
    """
    if frontend.kind == "audio":
        return array
    _, height, channels = array.shape
    if channels > frontend.channels:
        raise BadFileError("colored, but the model was trained on gray images")
    if height != frontend.height:
        raise BadFileError(
            f"{height} pixels high, but the model was trained on images of {frontend.height}"
        )
    return with_channels(array, frontend.channels)
