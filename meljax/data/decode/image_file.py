"""Decodes PNG, JPEG, BMP, WebP, TIFF and GIF files to RGB."""

import contextlib
import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from meljax.data.decode import file_content, image_checks
from meljax.features.frontend import Crop
from meljax.util.errors import BadFileError
from meljax.util.native_output import hidden

MAX_PIXELS = 50_000_000
"""Maximum size of an image; 150 MB as RGB, and up to 1 GB while a WebP is decoded."""
_BLOCK = 1 << 20
"""Pixels that are converted to RGB at once."""
GRAY_16_BIT = ("I", "I;16", "I;16B", "I;16L", "I;16N")
COLOR = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LA", "PA", "RGBA")

ORIENTATION = 0x0112
"""The EXIF tag that tells how a viewer turns the image."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Image.open would warn about large images before their size can be checked; the plugins do not.
PLUGINS = {
    b"\x89PNG": PngImageFile,
    b"\xff\xd8\xff": JpegImageFile,
    b"BM": BmpImageFile,
    b"RIFF": WebPImageFile,
    b"GIF8": GifImageFile,
    b"II*\0": TiffImageFile,
    b"MM\0*": TiffImageFile,
    b"II+\0": TiffImageFile,  # larger than 4 GB
    b"MM\0+": TiffImageFile,
}


def read_image(data: bytes) -> UInt8[np.ndarray, "height width 3"]:
    """Returns the first page or frame of an image file as RGB, as a viewer shows it.

    The content decides the format, whatever the suffix. Images are turned as their EXIF orientation
    says, palettes are applied, transparency is blended with black, and 16-bit gray is scaled to 8
    bits, so that an image gives the same array in every lossless mode. Safe to call from threads.

    Raises:
      BadFileError: not an image, truncated, damaged, larger than `MAX_PIXELS`, or in a mode that
        has no meaning as RGB.
    """
    if not data:
        raise BadFileError("empty file")
    plugin = next((plugin for magic, plugin in PLUGINS.items() if data.startswith(magic)), None)
    if plugin is None:
        raise _not_an_image(data)
    try:
        image_checks.check_bytes(data)
        with hidden() if plugin is TiffImageFile else contextlib.nullcontext():
            image = plugin(io.BytesIO(data))
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadFileError(f"too large: {width}x{height} pixels")
            image_checks.check(image, data)
            image.load()
            image_checks.check_loaded(image, data)
        return _rgb(_upright(image))
    except BadFileError:
        raise
    except Image.DecompressionBombError as error:
        raise BadFileError(f"too large: more than {MAX_PIXELS} pixels") from error
    except Exception as error:  # Pillow raises nearly any type for damaged files
        if "runcated" in str(error):
            raise BadFileError("truncated") from error
        raise _not_an_image(data) from error


def _not_an_image(data: bytes) -> BadFileError:
    """Returns the error for a file that no plugin reads."""
    return BadFileError(file_content.refusal(data, "an image") or "not an image that can be read")


def _upright(image: Image.Image) -> Image.Image:
    """Returns an image as its EXIF orientation says; damaged EXIF data are ignored, as by viewers.

    Pillow has already turned a TIFF.
    """
    if isinstance(image, TiffImageFile):
        return image
    try:
        turn = _TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:  # Pillow raises nearly any type for damaged data
        return image
    return image if turn is None else image.transpose(turn)


def is_gray(image: UInt8[np.ndarray, "height width channel"]) -> bool:
    """Returns whether all channels are equal everywhere."""
    return bool((image[..., 1:] == image[..., :1]).all())


def crop(
    image: UInt8[np.ndarray, "height width channel"], sides: Crop
) -> UInt8[np.ndarray, "_ _ channel"]:
    """Returns an image without `sides` pixels on its left, top, right and bottom.

    Raises:
      BadFileError: nothing would be left.
    """
    left, top, right, bottom = sides
    height, width = image.shape[:2]
    if left + right >= width or top + bottom >= height:
        raise BadFileError(
            f"data.crop='{left},{top},{right},{bottom}' leaves nothing of its {width} x {height} "
            "pixels (width x height)"
        )
    return image[top : height - bottom, left : width - right]


def resize(
    image: UInt8[np.ndarray, "height width channel"], size: int
) -> UInt8[np.ndarray, "{size} {size} channel"]:
    """Returns an image of 1 or 3 channels, scaled bilinearly with antialiasing."""
    channels = image.shape[-1]
    pil_image = Image.fromarray(image[..., 0] if channels == 1 else image)
    scaled = pil_image.resize((size, size), Image.Resampling.BILINEAR)
    return np.array(scaled).reshape(size, size, channels)


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    if image.mode not in (*COLOR, *GRAY_16_BIT):
        raise BadFileError(f"mode {image.mode} is not supported")
    width, height = image.size
    rows = max(1, _BLOCK // width)
    if rows >= height:
        return _rgb_at_once(image)
    rgb = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, rows):
        part = image.crop((0, top, width, min(top + rows, height)))
        rgb[top : top + rows] = _rgb_at_once(part)
    return rgb


def _rgb_at_once(image: Image.Image) -> UInt8[np.ndarray, "height width 3"]:
    if image.mode in GRAY_16_BIT:
        gray = np.asarray(image)
        if gray.min() < 0 or gray.max() > 65535:
            raise BadFileError("gray values outside 0 to 65535 are not supported")
        gray = ((gray.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
        return np.repeat(gray[..., None], 3, axis=-1)
    if not image.has_transparency_data:
        return np.array(image.convert("RGB"))
    rgba = np.asarray(image.convert("RGBA"))
    over_black = rgba[..., :3].astype(np.uint16) * rgba[..., 3:]
    return ((over_black + 127) // 255).astype(np.uint8)
