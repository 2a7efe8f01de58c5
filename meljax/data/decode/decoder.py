"""Chooses and applies the decoder of a file, for training, evaluation and prediction."""

from collections.abc import Callable
from io import IOBase
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from meljax.data.decode import image_file, mono
from meljax.data.decode.audio_file import AudioFacts, AudioFile
from meljax.data.decode.resample import resample
from meljax.features.frontend import NO_CROP, Crop, Frontend, Kind
from meljax.features.samples import check_samples, narrowed
from meljax.util.errors import BadFileError


class Decoded(NamedTuple):
    """The content of a file: int16 or float32 [samples], or uint8 [columns, height, channel]."""

    array: Shaped[np.ndarray, "_ ..."]  # time is first
    facts: AudioFacts | None = None  # about a recording


Decoder = Callable[[Callable[[], IOBase]], Decoded]
"""Returns the content of a file, given a function that opens it; raises `BadFileError`."""


def make_decoder(kind: Kind, image_size: int, sample_rate: int, crop: Crop = NO_CROP) -> Decoder:
    """Returns the decoder for files of `kind`.

    Images lose `crop` pixels on each side and are resized to `image_size` pixels square (0: not
    resized); recordings are resampled to `sample_rate` Hz.
    """
    if kind == "audio":
        return lambda open_file: _decode_audio(open_file, sample_rate)

    def decode(open_file: Callable[[], IOBase]) -> Decoded:
        with open_file() as file:
            image = image_file.read_image(file.read())
        return Decoded(prepare_image(image, image_size, crop))

    return decode


def prepare_image(
    image: UInt8[np.ndarray, "height width 3"], image_size: int, crop: Crop
) -> UInt8[np.ndarray, "_ _ channel"]:
    """Returns an image cropped and resized as in `make_decoder`, [columns, height, channel].

    It has one channel if it is gray.
    """
    image = image_file.crop(image, crop)
    if image_file.is_gray(image):
        image = image[:, :, :1]
    if image_size:
        image = image_file.resize(image, image_size)
    return np.ascontiguousarray(image.swapaxes(0, 1))


def prepare_samples(
    samples: Float32[np.ndarray, "_ channels"], rate: int, new_rate: int
) -> Shaped[np.ndarray, " samples"]:
    """Returns a recording that was decoded elsewhere as `AudioFile.read` does.

    `rate` is its sample rate, `new_rate` that of the result, in Hz.

    Raises:
      BadFileError: `check_samples` refuses the samples.
    """
    check_samples(samples)
    start = samples[: mono.FIRST_SECONDS * rate]
    channel = mono.choose_channel([start]) if samples.shape[1] > 1 else None
    one = mono.to_mono(samples, channel)
    if rate != new_rate:
        one = np.concatenate(list(resample([one], rate, new_rate)))
    return narrowed(one)


def _decode_audio(open_file: Callable[[], IOBase], sample_rate: int) -> Decoded:
    file = AudioFile(open_file, sample_rate)
    samples = file.read()
    return Decoded(samples, file.facts)


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
        cropped = " after data.crop" if any(frontend.crop) else ""
        raise BadFileError(
            f"{height} pixels high{cropped}, but the model was trained on images of "
            f"{frontend.height}"
        )
    return with_channels(array, frontend.channels)
