"""Finds borders that all images of a set share, such as the axes and margins of figures."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import UInt8

from meljax.features.frontend import Crop

Image = UInt8[np.ndarray, "_ _ _"]
"""An image as it is decoded, [columns, height, channel]."""

MIN_IMAGES = 5
"""Fewer images may agree by chance."""
MIN_SHARE = 0.03
"""Minimum width of a border on one side, as a fraction of the image's width or height."""
COMMON = 0.01
"""A color of at least this fraction of the central pixels belongs to the spectrograms."""
SAMPLE = 16
"""Number of original images that are decoded again if the images of a set were resized."""


def border_warnings(
    images: Sequence[Image], crop: Crop, originals: Callable[[list[int]], Iterable[Image]] | None
) -> list[str]:
    """Returns a line with the value of data.crop that removes the borders; [] without borders.

    Args:
      images: decoded images of a set.
      crop: pixels that were cut off already.
      originals: yields the images at some indices before they were resized; `None`: they were not.
    """
    borders = shared_borders(images)
    if borders and originals:
        chosen = np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(int).tolist()
        borders = shared_borders(originals(chosen))
    if not borders:
        return []
    proposed = ",".join(str(cut + found) for cut, found in zip(crop, borders, strict=True))
    left, top, right, bottom = borders
    return [
        f"all images have the same borders ({left} pixels left, {top} top, {right} right, {bottom} "
        f"bottom), like figures with axes or margins; set data.crop='{proposed}' to cut them off"
    ]


def shared_borders(images: Iterable[Image]) -> Crop | None:
    """Returns the border of each side that has the same pixels in every image, in pixels.

    `None` if the images differ in size or are fewer than `MIN_IMAGES`, if no border reaches
    `MIN_SHARE`, or if all images are the same.
    """
    images = iter(images)
    first = next(images, None)
    if first is None:
        return None
    # Most sets have no borders, which the second image already shows.
    columns, rows = first.shape[0], first.shape[1]
    borders, number, cores = (columns, rows, columns, rows), 1, [_core(first)]
    for number, image in enumerate(images, 2):
        if image.shape != first.shape:
            return None
        borders = _agreeing(first, image, borders)
        if not _large(borders, first):
            return None
        if number <= SAMPLE:
            cores.append(_core(image))
    left, top, right, bottom = borders
    if number < MIN_IMAGES or left + right >= columns or top + bottom >= rows:
        return None
    borders = _without_silence(first, borders, np.concatenate(cores))
    return borders if _large(borders, first) else None


def _core(image: Image) -> UInt8[np.ndarray, "pixels channel"]:
    """Returns the pixels of the central quarter of an image, which is inside of any borders."""
    columns, rows, channels = image.shape
    core = image[columns // 4 : -(columns // 4) or None, rows // 4 : -(rows // 4) or None]
    return core.reshape(-1, channels)


def _large(borders: Crop, image: Image) -> bool:
    """Returns whether a border reaches `MIN_SHARE`, and more than one pixel."""
    left, top, right, bottom = borders
    columns, rows = image.shape[:2]
    share = max(max(left, right) / columns, max(top, bottom) / rows)
    return share >= MIN_SHARE and max(borders) > 1


def _agreeing(one: Image, other: Image, limits: Crop) -> Crop:
    """Returns the number of equal lines at each side of two images, at most `limits`."""
    left, top, right, bottom = limits
    upright = one.swapaxes(0, 1), other.swapaxes(0, 1)
    return (
        _equal_lines(one[:left], other[:left]),
        _equal_lines(*(image[:top] for image in upright)),
        _equal_lines(*(image[::-1][:right] for image in (one, other))),
        _equal_lines(*(image[::-1][:bottom] for image in upright)),
    )


def _equal_lines(one: Image, other: Image) -> int:
    """Returns how many lines at the beginning are equal."""
    if not len(one) or (one[0] != other[0]).any():
        return 0
    if np.array_equal(one, other):  # much faster than to compare line by line
        return len(one)
    return int((one != other).any((1, 2)).argmax())


def _without_silence(
    image: Image, borders: Crop, core: UInt8[np.ndarray, "pixels channel"]
) -> Crop:
    """Returns `borders` without sides of a single color that may be silence.

    Band limits and padding leave such sides. Their color is common inside of the images too, or is
    dark and on two sides at most.
    """
    left, top, right, bottom = borders
    columns, rows = image.shape[:2]
    strips = (image[:left], image[:, :top], image[columns - right :], image[:, rows - bottom :])
    colors = [_single_color(strip) for strip in strips]
    darkest = core.sum(1, dtype=np.int64).min()

    def is_silence(color: UInt8[np.ndarray, " channel"]) -> bool:
        alike = sum(other is not None and bool((other == color).all()) for other in colors)
        dark = color.sum(dtype=np.int64) <= darkest
        return bool((core == color).all(1).mean() >= COMMON or (dark and alike < 3))

    kept = (
        0 if color is not None and is_silence(color) else border
        for border, color in zip(borders, colors, strict=True)
    )
    left, top, right, bottom = kept
    return left, top, right, bottom


def _single_color(strip: Image) -> UInt8[np.ndarray, " channel"] | None:
    """Returns the color of all pixels; `None` if there are several, or no pixel."""
    pixels = strip.reshape(-1, strip.shape[2])
    return pixels[0] if len(pixels) and (pixels == pixels[0]).all() else None
