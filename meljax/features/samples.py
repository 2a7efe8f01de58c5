"""Samples of recordings: int16 or float32, with full scale at 32768 or 1."""

import numpy as np
from jaxtyping import Array, Float32, Shaped

from meljax.util.errors import BadFileError

FULL_SCALE = 32768
"""The int16 value, never reached, that stands for 1."""
MAX_AMPLITUDE = 2**32
"""Larger samples are damage: even 32-bit integers are smaller. Their power may overflow."""


def check_samples(samples: Float32[np.ndarray, "..."]) -> None:
    """Raises `BadFileError` if samples are infinite, NaN or larger than `MAX_AMPLITUDE`."""
    if not samples.size:
        return
    largest = max(float(samples.max()), -float(samples.min()))
    if not largest <= MAX_AMPLITUDE:  # also if it is NaN
        finite = np.isfinite(samples).all()
        raise BadFileError(
            f"samples up to {largest:.0e}; full scale is 1" if finite else "not finite"
        )


def to_float(
    samples: Shaped[np.ndarray | Array, "*shape"],
) -> Shaped[np.ndarray | Array, "*shape"]:
    """Returns samples as float32, where 1 is full scale; exact for int16.

    float32 samples are unchanged, and may exceed 1.
    """
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / np.float32(FULL_SCALE)
    return samples


def narrowed(samples: Float32[np.ndarray, " _"]) -> Shaped[np.ndarray, " _"]:
    """Returns samples as int16 if that loses nothing, else unchanged."""
    if len(samples) and np.abs(samples).max() > 1:
        return samples
    scaled = samples * np.float32(FULL_SCALE)
    for part in (scaled[:64], scaled):  # most samples that do not fit show it at once
        if (part != np.rint(part)).any() or (np.abs(part + 0.5) > FULL_SCALE).any():
            return samples
    return scaled.astype(np.int16)


def is_silent(samples: Shaped[np.ndarray, " _"]) -> bool:
    """Returns whether all samples are within one 16-bit step of their mean."""
    step = 1 if samples.dtype == np.int16 else 1 / FULL_SCALE
    low, high = float(samples.min()), float(samples.max())
    if high - low > 2 * step:
        return False
    mean = float(samples.mean(dtype=np.float64))
    return max(high - mean, mean - low) <= step
