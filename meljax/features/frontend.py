"""Preprocessing: from a window of raw data to the image that the network sees.

Training, evaluation, prediction and export all use it, and a `Frontend` is saved with every model.
The networks normalize the images themselves.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from meljax.config import MelConfig
from meljax.features.mel_spectrogram import log_mel

Kind = Literal["audio", "image"]
"""What the items of a data set are: recordings or images."""

Crop = tuple[int, int, int, int]
"""Pixels to cut from the left, top, right and bottom of an image."""

NO_CROP: Crop = (0, 0, 0, 0)


def crop_of(text: str) -> Crop:
    """Returns the value of the key data.crop: 'left,top,right,bottom', or '' for `NO_CROP`."""
    if not text:
        return NO_CROP
    left, top, right, bottom = map(int, text.split(","))
    return left, top, right, bottom


@dataclasses.dataclass(frozen=True)
class Frontend:
    """All settings of the preprocessing; hashable, so it can be static under `jit`.

    Attributes:
      kind: 'audio' or 'image'.
      window: length of a window, in samples (audio) or columns (image).
      height: rows of the images as they are read and cropped; 0 for audio.
      channels: 1 (gray images, and audio) or 3 (RGB).
      image_size: side in pixels of the square that images are resized to; 0: not resized.
      mel: settings of the spectrogram, for audio.
      skip_silence: whether silent windows are not scored; see `windows.scored_starts`.
      crop: pixels to cut from each image before it is resized.
    """

    kind: Kind
    window: int
    height: int
    channels: int
    image_size: int
    mel: MelConfig
    skip_silence: bool = True
    crop: Crop = NO_CROP

    def windows(self, batch: int) -> jax.ShapeDtypeStruct:
        """Returns shape and dtype of `batch` windows of raw data, the input of `to_images`."""
        if self.kind == "audio":
            return jax.ShapeDtypeStruct((batch, self.window), jnp.float32)
        shape = (batch, self.window, self.height, self.channels)
        return jax.ShapeDtypeStruct(shape, jnp.uint8)


def to_images(
    frontend: Frontend,
    windows: Float[Array, "batch window"] | UInt8[Array, "batch window height channel"],
) -> Float[Array, "batch rows columns channel"]:
    """Returns images in 0…1 with low frequencies at the bottom (the last row).

    A recording becomes its log-mel spectrogram: 1 at its maximum, 0 at `top_db` below it. Digital
    silence is 0 everywhere.
    """
    if frontend.kind == "image":
        # Images are cropped and resized when they are decoded.
        return jnp.swapaxes(windows, 1, 2).astype(jnp.float32) / 255
    return spectrograms(frontend, windows)


def spectrograms(
    frontend: Frontend, waveform: Float[Array, "batch window"]
) -> Float[Array, "batch rows columns 1"]:
    """Returns the images of recordings; see `to_images`.

    Each waveform is first scaled to a peak of 1, so loudness has no effect: otherwise `log_mel`
    would clip a quiet recording at its power floor.
    """
    peak = jnp.abs(waveform).max(1, keepdims=True)
    decibel = log_mel(waveform / jnp.where(peak == 0, 1, peak), **dataclasses.asdict(frontend.mel))
    silent = (peak == 0)[:, :, None]
    bright = jnp.where(silent, 0.0, jnp.maximum(1 + decibel / frontend.mel.top_db, 0))
    upright = bright[:, ::-1, :, None]
    if frontend.image_size == 0:
        return upright
    shape = (waveform.shape[0], frontend.image_size, frontend.image_size, 1)
    # The antialiased bilinear filter of Pillow and torchvision. It averages, so 0…1 is kept.
    return jax.image.resize(upright, shape, "linear", antialias=True)
