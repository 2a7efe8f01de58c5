"""One picture's bytes → an array, and the errors that a bad picture gets."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from meljax.errors import BadFileError

MAX_PIXELS = 100_000_000  # 300 MB as RGB
DEEP_GREY = ("I", "I;16", "I;16B", "I;16L", "I;16N")
COLOUR = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LA", "PA", "RGBA")
# Image.open warns of large pictures through the process-wide warning filter before it tells their
# size; the readers themselves leave the limit to us.
READERS = {
    b"\x89PNG": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
    b"BM": BmpImageFile,
    b"RIFF": WebPImageFile,
    b"II": TiffImageFile,
    b"MM": TiffImageFile,
}


def read_image(data: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """Decode a PNG, JPEG, BMP, WebP or TIFF, whatever its suffix, to RGB.

    Palettes are applied, transparency is laid over black, 16-bit grey is scaled to 8 bits: one
    picture stored in any lossless mode reads to the same array. Of several pages or frames the
    first counts. Threads may call it together.

    Raises:
      BadFileError: no picture, a truncated or damaged one, one of more than `MAX_PIXELS`, or one in
        a mode that has no meaning as RGB.
    """
    if not data:
        raise BadFileError("empty file")
    if _ends_early(data):
        raise BadFileError("truncated")
    image = _open(data)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadFileError(f"decompression bomb: {width}x{height} pixels")
    try:
        image.load()
    except Exception as error:  # damaged data raise nearly anything in Pillow's decoders
        reason = "truncated" if "runcated" in str(error) else "not a picture that can be read"
        raise BadFileError(reason) from error
    return _rgb(image)


def is_grey(image: UInt8[np.ndarray, "height width channel"]) -> bool:
    """Whether all channels are equal everywhere."""
    return bool((image[..., 1:] == image[..., :1]).all())


def floor_colour(image: UInt8[np.ndarray, "height width channel"]) -> UInt8[np.ndarray, " channel"]:
    """The colour of silence: that of the first pixel with the smallest sum over its channels."""
    pixels = image.reshape(-1, image.shape[-1])
    # Channel by channel: NumPy's sum over a short last axis takes ten times as long.
    total = sum(pixels[:, channel].astype(np.uint32) for channel in range(image.shape[-1]))
    return pixels[total.argmin()].copy()


def resize(
    image: UInt8[np.ndarray, "height width channel"], size: int
) -> UInt8[np.ndarray, "{size} {size} channel"]:
    """Scale the whole picture, of 1 or 3 channels, to a square of `size` pixels a side.

    Bilinear, and antialiased where it shrinks.
    """
    channels = image.shape[-1]
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    scaled = picture.resize((size, size), Image.Resampling.BILINEAR)
    return np.array(scaled).reshape(size, size, channels)


def _open(data: bytes) -> ImageFile:
    reader = next((reader for magic, reader in READERS.items() if data.startswith(magic)), None)
    if reader is None:
        raise BadFileError("not a picture that can be read")
    try:
        return reader(io.BytesIO(data))
    except Image.DecompressionBombError as error:
        raise BadFileError(f"decompression bomb: more than {MAX_PIXELS} pixels") from error
    except Exception as error:  # damaged headers raise nearly anything in Pillow's readers
        reason = "truncated" if "runcated" in str(error) else "not a picture that can be read"
        raise BadFileError(reason) from error


def _ends_early(data: bytes) -> bool:
    """Whether a WebP or TIFF is shorter than its header says; Pillow has no clear word for it."""
    if data.startswith(b"RIFF"):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data.startswith((b"II*\0", b"MM\0*")):
        order = "little" if data.startswith(b"II") else "big"
        directory = int.from_bytes(data[4:8], order)
        entries = int.from_bytes(data[directory : directory + 2], order)
        return len(data) < directory + 2 + 12 * entries
    return False


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    if image.mode in DEEP_GREY:
        return _from_deep_grey(np.asarray(image))
    if image.mode not in COLOUR:
        raise BadFileError(f"mode {image.mode} is not supported")
    if not image.has_transparency_data:
        return np.array(image.convert("RGB"))
    rgba = np.asarray(image.convert("RGBA"))
    over_black = rgba[..., :3].astype(np.uint16) * rgba[..., 3:]
    return ((over_black + 127) // 255).astype(np.uint8)


def _from_deep_grey(grey: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
    if grey.min() < 0 or grey.max() > 65535:
        raise BadFileError("grey values outside 0 to 65535 are not supported")
    grey = ((grey.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
    return np.repeat(grey[..., None], 3, axis=-1)
