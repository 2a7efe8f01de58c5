"""The background: a class for all other sounds, such as noise, cut into windows."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Shaped

from meljax.config import DataConfig
from meljax.data.manifest import Item
from meljax.features.windows import default_window
from meljax.util.errors import UserError
from meljax.util.phrases import count, nearest


def check_background(items: Sequence[Item], name: str) -> None:
    """Raises `UserError` unless `name` is '' or a class, with at least two others."""
    labels = {item.label for item in items}
    if not name:
        return
    if name not in labels:
        raise UserError(
            f"data.background: there is no class {name!r}{nearest(name, labels)}; it must be one "
            "of the classes, or a folder such as '_background_noise_'"
        )
    if len(labels) < 3:
        raise UserError(f"data.background: {name!r} leaves one class; at least two are needed")


def cut_background(
    items: Sequence[Item],
    digests: Sequence[str],
    arrays: Sequence[Shaped[np.ndarray, "_ ..."]],
    data: DataConfig,
    rate: int,
) -> tuple[list[Item], list[str], list[Shaped[np.ndarray, "_ ..."]], list[str]]:
    """Cuts long recordings of the background into windows.

    A window is as long as `data.window`, or as the median of the other recordings (at most 30 s).
    Windows do not overlap; a rest at the end is dropped. Segments, and recordings shorter than two
    windows, stay as they are.

    Args:
      items: recordings.
      digests: SHA-256 of each item's file.
      arrays: samples of each item, at `rate` Hz.
      data: settings.
      rate: sample rate.

    Returns:
      The new items, digests and arrays, and notes.
    """
    others = [
        len(array)
        for item, array in zip(items, arrays, strict=True)
        if item.label != data.background
    ]
    window = round(data.window * rate) or default_window(others, rate)
    cut = {
        i
        for i, item in enumerate(items)
        if item.label == data.background and item.start is None and len(arrays[i]) >= 2 * window
    }
    if not cut:
        return list(items), list(digests), list(arrays), []
    parts = []
    for i, item in enumerate(items):
        if i not in cut:
            parts.append((item, digests[i], arrays[i]))
            continue
        for start in range(0, len(arrays[i]) - window + 1, window):
            end = start + window
            part = dataclasses.replace(item, start=start / rate, end=end / rate)
            parts.append((part, digests[i], arrays[i][start:end]))
    windows = len(parts) - (len(items) - len(cut))
    note = (
        f"background {data.background!r}: {count(len(cut), 'recording')} cut into "
        f"{count(windows, 'window')} of {window / rate:.2f} s"
    )
    items, digests, arrays = map(list, zip(*parts, strict=True))
    return items, digests, arrays, [note]
