"""Where the windows of an item lie, and the windows cut from it on the host."""

import numpy as np
from jaxtyping import Int, Shaped, UInt8


def starts(length: int, window: int) -> Int[np.ndarray, " windows"]:
    """Returns the places at which an item is seen when it is scored, in samples or columns.

    One window in the middle of what is shorter than a window and a half; it begins before the item,
    at a negative place, where the item is shorter than the window. Of what is longer, windows from
    its very beginning to its very end, evenly spaced and at least half a window apart: any two
    neighbours touch or overlap, so that nothing is left out.
    """
    spare = length - window
    count = 1 + max(0, spare) // max(1, window // 2)
    if count == 1:
        return np.array([spare // 2])
    return np.rint(np.linspace(0, spare, count)).astype(np.int64)


def cut(
    item: Shaped[np.ndarray, "length ..."],
    start: int,
    window: int,
    floor: UInt8[np.ndarray, " channel"] | None,
) -> Shaped[np.ndarray, "{window} ..."]:
    """Returns a window of an item; outside the item lies its floor.

    The same as `feed.cut` on the device.

    Args:
      item: int16 [samples] or uint8 [columns, height, channel].
      start: place of the window; may be negative.
      window: its length.
      floor: colour of silence of a picture; `None` for sound, whose silence is 0.
    """
    inside = item[max(start, 0) : start + window]
    if len(inside) == window:
        return inside
    whole = np.empty((window, *item.shape[1:]), item.dtype)
    whole[...] = 0 if floor is None else floor
    before = max(-start, 0)
    whole[before : before + len(inside)] = inside
    return whole
