"""Checks that an image file holds all pixels that its header declares; Pillow does not.

Otherwise a file of a few bytes could take much memory or time, and its missing rows would be black.
"""

import math
import zlib
from collections.abc import Iterator

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from meljax.util.errors import BadFileError

_DEFLATE = 1032
"""Maximum number of bytes that a byte of deflate expands to; PNG compresses with it."""
_LZW = 4096 * 8 // 12
"""Maximum number of pixels that a byte of LZW expands to; GIF compresses with it."""
_MAX_REFINED = 10**9
"""Maximum number of pixels in all scans of a JPEG; usual ones have ten scans at most."""
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Number of values per pixel, by the color type of a PNG."""
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
_ADAM7 += ((1, 0, 2, 1),)
"""First row and column, and the steps to the next ones, in the passes of an interlaced PNG."""
_PIECE = 1 << 16
_WIDTH, _LENGTH, _STRIP_OFFSETS, _ROWS_PER_STRIP = 256, 257, 273, 278
_TILE_WIDTH, _TILE_LENGTH, _TILE_OFFSETS = 322, 323, 324
"""Numbers of TIFF tags."""


def check_bytes(data: bytes) -> None:
    """Raises `BadFileError` if a WebP or TIFF is cut off."""
    end = 0
    if data.startswith(b"RIFF"):
        end = 8 + int.from_bytes(data[4:8], "little")
    if data.startswith((b"II*\0", b"MM\0*")):
        order = "little" if data.startswith(b"II") else "big"
        directory = int.from_bytes(data[4:8], order)
        entries = int.from_bytes(data[directory : directory + 2], order)
        end = directory + 2 + 12 * entries
    if len(data) < end:
        raise BadFileError("truncated")


def check(image: Image.Image, data: bytes) -> None:
    """Raises `BadFileError` if a file is too small for its image, before that is decoded."""
    area = image.width * image.height
    match image:
        case PngImageFile():
            enough = _png_size(data) <= _DEFLATE * len(data)
        case GifImageFile():
            enough = _covered(image) <= _LZW * len(data)
        case TiffImageFile():
            enough = _covered(image) >= area and _has_all_parts(image)
        case BmpImageFile():
            if image.tile[0].codec_name == "bmp_rle":  # read in Python, slowly
                raise BadFileError("a compressed BMP, which is not supported; convert it to PNG")
            enough = True
        case JpegImageFile():
            enough = data.count(b"\xff\xda") * area <= _MAX_REFINED
        case _:
            enough = True
    if not enough:
        raise _too_few()


def check_loaded(image: Image.Image, data: bytes) -> None:
    """Raises `BadFileError` if the data of a PNG end before its last row.

    They are counted only if that row is black or may be incomplete.
    """
    if not isinstance(image, PngImageFile):
        return
    last = image.crop((0, image.height - 1, *image.size))
    interlaced = data[28]
    if (interlaced or not last.getbbox(alpha_only=False)) and _inflated(data) < _png_size(data):
        raise _too_few()


def _too_few() -> BadFileError:
    return BadFileError("truncated: it has fewer pixels than its header says")


def _covered(image: Image.Image) -> int:
    """Returns the number of pixels in the strips or tiles of a file."""
    boxes = [tile.extents or (0, 0, *image.size) for tile in image.tile]
    return sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)


def _has_all_parts(image: TiffImageFile) -> bool:
    """Returns whether a TIFF has a place in the file for each of its strips or tiles."""
    tags = image.tag_v2
    width, height = tags[_WIDTH], tags[_LENGTH]  # before it is turned
    if _STRIP_OFFSETS in tags:
        across, down = width, tags.get(_ROWS_PER_STRIP, height)
        places = tags[_STRIP_OFFSETS]
    else:
        across, down = tags[_TILE_WIDTH], tags[_TILE_LENGTH]
        places = tags[_TILE_OFFSETS]
    return len(places) >= math.ceil(width / across) * math.ceil(height / down)


def _png_size(data: bytes) -> int:
    """Returns the number of bytes of a PNG's pixels, without compression."""
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    bits = data[24] * _PNG_CHANNELS[data[25]]
    passes = _ADAM7 if data[28] else ((0, 0, 1, 1),)
    size = 0
    for top, left, down, across in passes:
        rows, columns = math.ceil((height - top) / down), math.ceil((width - left) / across)
        if rows > 0 and columns > 0:
            size += rows * (1 + math.ceil(columns * bits / 8))  # a byte gives the row's filter
    return size


def _inflated(data: bytes) -> int:
    """Returns the number of bytes that a PNG's data expand to."""
    inflate, size = zlib.decompressobj(), 0
    for chunk in _image_chunks(data):
        while chunk and not inflate.eof:
            size += len(inflate.decompress(chunk, _PIECE))
            chunk = inflate.unconsumed_tail
    return size + len(inflate.flush())


def _image_chunks(data: bytes) -> Iterator[bytes]:
    at = 8
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] == b"IDAT":
            yield data[at + 8 : at + 8 + size]
        at += 12 + size
