"""From a window of raw data to what the network sees: the one preprocessing path.

Training, evaluation, prediction and export all go through `pictures()`, and a `Frontend` travels
with every saved model. Normalisation belongs to the networks.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int16, UInt8

from meljax.config import MelConfig
from meljax.melspec import log_mel


@dataclasses.dataclass(frozen=True)
class Frontend:
    """All that shapes the picture; hashable, so that it can be static under `jit`.

    Attributes:
      kind: 'sound' or 'image'.
      window: length seen at once, in samples (sound) or columns (image).
      height: rows of the pictures as they are read; 0 for sound.
      channels: 1 (grey, and sound) or 3 (RGB).
      image_size: side in pixels of the square that pictures are resized to; 0: as they are.
      mel: settings of the spectrogram, for sound.
    """

    kind: Literal["sound", "image"]
    window: int
    height: int
    channels: int
    image_size: int
    mel: MelConfig

    def windows(self, batch: int) -> jax.ShapeDtypeStruct:
        """Returns shape and type of `batch` windows of raw data, as `pictures` takes them."""
        if self.kind == "sound":
            return jax.ShapeDtypeStruct((batch, self.window), jnp.int16)
        shape = (batch, self.window, self.height, self.channels)
        return jax.ShapeDtypeStruct(shape, jnp.uint8)


def pictures(
    frontend: Frontend,
    windows: Int16[Array, "batch window"] | UInt8[Array, "batch window height channel"],
) -> Float[Array, "batch rows columns channel"]:
    """Returns pictures in 0…1, low frequencies at the bottom (the last row).

    A recording becomes its log-mel spectrogram, 0 at `top_db` below its maximum and 1 at the
    maximum, so that it agrees with a picture drawn that way; digital silence is 0 throughout.
    """
    if frontend.kind == "image":
        # Images are resized as they are read, by Pillow, whole.
        return jnp.swapaxes(windows, 1, 2).astype(jnp.float32) / 255
    return spectrograms(frontend, windows.astype(jnp.float32) / 32768)


def spectrograms(
    frontend: Frontend, waveform: Float[Array, "batch window"]
) -> Float[Array, "batch rows columns 1"]:
    """Returns the pictures of recordings; see `pictures`.

    Each is brought to a peak of 1 first, so that loudness plays no part: else a quiet one would
    come near the smallest power that is told from silence.
    """
    peak = jnp.abs(waveform).max(1, keepdims=True)
    decibel = log_mel(waveform / jnp.where(peak == 0, 1, peak), **dataclasses.asdict(frontend.mel))
    silent = (peak == 0)[:, :, None]
    bright = jnp.where(silent, 0.0, jnp.maximum(1 + decibel / frontend.mel.top_db, 0))
    upright = bright[:, ::-1, :, None]
    if frontend.image_size == 0:
        return upright
    shape = (waveform.shape[0], frontend.image_size, frontend.image_size, 1)
    # Like Pillow's and torchvision's bilinear filter: widened when it shrinks. At most a blend of
    # its neighbours, so it stays within 0…1.
    return jax.image.resize(upright, shape, "linear", antialias=True)
