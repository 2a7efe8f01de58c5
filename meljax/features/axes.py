"""The axes of the images that the network sees: seconds and hertz, or columns."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from meljax.features.frontend import Frontend
from meljax.features.mel_spectrogram import band_centers


class ImageAxes(NamedTuple):
    """What the columns and rows of an image stand for.

    Attributes:
      left: position of the left edge, in seconds of a recording or columns of an image.
      right: position of the right edge.
      bands: center frequency of each mel band, in Hz, lowest first; bands are evenly spaced over
        the height. `None` if the items are images.
    """

    left: float
    right: float
    bands: Float[np.ndarray, " bands"] | None


def image_axes(frontend: Frontend, start: int) -> ImageAxes:
    """Returns the axes of the image of a window that starts at sample or column `start`."""
    if frontend.kind == "image":
        left = start + frontend.crop[0]
        return ImageAxes(left, left + frontend.window, None)
    mel = frontend.mel
    frames = 1 + frontend.window // mel.hop_length
    hop = mel.hop_length / mel.sample_rate
    left = start / mel.sample_rate - hop / 2  # the first frame is centered on the first sample
    bands = band_centers(mel.n_mels, mel.fmin, mel.fmax or mel.sample_rate / 2)
    return ImageAxes(left, left + frames * hop, bands)
