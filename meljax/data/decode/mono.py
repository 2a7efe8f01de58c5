"""From the channels of a recording to one."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float32

FIRST_SECONDS = 60
"""Length of the start that decides which channel is used."""
CANCELS = 0.01
"""If the mean of the channels has less than this part of the loudest one's power, they cancel."""


def choose_channel(parts: Iterable[Float32[np.ndarray, "_ channels"]]) -> int | None:
    """Returns the channel to use for a recording, given its start; `None`: the mean of all.

    The loudest channel is taken if the channels cancel, as stereo in opposite phase does, or if
    most are silent.
    """
    powers, mean_power = 0.0, 0.0
    for part in parts:
        precise = part.astype(np.float64)
        powers = powers + (precise**2).sum(0)
        mean_power += (precise.mean(1) ** 2).sum()
    loudest = int(np.argmax(powers))
    return loudest if mean_power < CANCELS * np.max(powers) else None


def to_mono(
    part: Float32[np.ndarray, "_ channels"], channel: int | None
) -> Float32[np.ndarray, " _"]:
    """Returns a channel, or the mean of all if `channel` is `None`."""
    if channel is not None:
        return part[:, channel]
    if part.shape[1] == 1:
        return part[:, 0]
    return part.mean(1, dtype=np.float64).astype(np.float32)
