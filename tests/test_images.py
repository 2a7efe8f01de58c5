"""Every way of storing a picture reads alike, and a bad file says why."""

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from meljax.data.images import MAX_PIXELS, floor_colour, is_grey, read_image, resize
from meljax.errors import BadFileError


def encode(picture, form="PNG", **options):
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def grey():
    """A smooth picture with every level from 0 to 255."""
    levels = np.add.outer(np.arange(40), np.arange(56)) * 255 / 94
    return np.rint(levels).astype(np.uint8)


@pytest.fixture(scope="module")
def colour(grey):
    """A smooth picture of few colours, as a colour map draws it."""
    return np.stack([grey // 4 * 4, 255 - grey // 8 * 8, grey // 16 * 16], axis=-1)


def as_colour(grey):
    return np.repeat(grey[..., None], 3, axis=-1)


def refusal(data):
    with pytest.raises(BadFileError) as caught:
        read_image(data)
    return str(caught.value)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_of_a_picture_agree(colour, form):
    options = {"lossless": True} if form == "WEBP" else {}
    image = read_image(encode(Image.fromarray(colour), form, **options))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, colour)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_colour_modes_of_a_picture_agree(colour, mode, form):
    if (mode, form) == ("CMYK", "PNG"):
        pytest.skip("PNG has no CMYK")
    picture = Image.fromarray(colour)
    if mode == "P":
        picture = picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        colour = np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(read_image(encode(picture.convert(mode), form)), colour)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_modes_of_a_picture_agree(grey, mode, form):
    data = encode(Image.fromarray(grey).convert(mode), form)
    np.testing.assert_array_equal(read_image(data), as_colour(grey))


@pytest.mark.parametrize(
    ("form", "kind"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("TIFF", "<i4")]
)
def test_16_bit_grey_is_rounded_to_8_bits(grey, form, kind):
    deep = grey.astype(np.int32) * 257
    wobble = np.clip(deep + np.resize([-128, 0, 128], deep.shape), 0, 65535)
    for levels in (deep, wobble):
        data = encode(Image.fromarray(levels.astype(kind)), form)
        np.testing.assert_array_equal(read_image(data), as_colour(grey))


def test_black_and_white_reads_as_0_and_255(grey):
    bits = grey > 127
    np.testing.assert_array_equal(
        read_image(encode(Image.fromarray(bits))), as_colour(bits.astype(np.uint8) * 255)
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_reads_to_nearly_the_same_picture(grey, mode):
    image = read_image(encode(Image.fromarray(grey).convert(mode), "JPEG", quality=95))
    assert np.abs(image.astype(int) - as_colour(grey)).max() <= 8


def test_transparency_is_laid_over_black(colour):
    alpha = np.resize(np.arange(256, dtype=np.uint8), colour.shape[:2])
    image = read_image(encode(Image.fromarray(np.dstack([colour, alpha]))))
    exact = colour * (alpha[..., None] / 255)
    assert np.abs(image - exact).max() <= 0.5
    assert image[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_a_transparent_palette_entry_is_black(transparency):
    picture = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    picture.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250])
    image = read_image(encode(picture, transparency=transparency))
    assert image.tolist() == [[[250, 0, 0], [0, 0, 0], [0, 0, 250]]]


def test_a_transparent_colour_is_black():
    picture = Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8))
    assert read_image(encode(picture, transparency=(9, 8, 7))).tolist() == [[[0, 0, 0], [1, 2, 3]]]


def test_threads_read_what_one_reads(colour):
    files = [encode(Image.fromarray(np.roll(colour, n, axis=0))) for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for n, image in enumerate(pool.map(read_image, files)):
            np.testing.assert_array_equal(image, np.roll(colour, n, axis=0))


@pytest.mark.parametrize(
    "data", [b"hello, world" * 9, b"\0" * 99, b"BM", b"II", b"\x89PNG", b"GIF89a"]
)
def test_what_is_no_picture_is_refused(data):
    assert refusal(data) == "not a picture that can be read"


def test_an_empty_file_is_refused():
    assert refusal(b"") == "empty file"


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("BMP", {}),
        ("WEBP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_a_truncated_file_never_reads_to_another_picture(colour, form, options):
    data = encode(Image.fromarray(colour), form, **options)
    whole = read_image(data)
    assert refusal(data[: len(data) * 9 // 10]) == "truncated"
    assert refusal(data[: len(data) // 2]) == "truncated"
    for length in range(1, len(data), 7):
        try:
            image = read_image(data[:length])
        except BadFileError:
            continue
        assert length > len(data) - 21  # behind the last pixel: checksums, padding, end marks
        np.testing.assert_array_equal(image, whole)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP", "TIFF"])
def test_damage_raises_nothing_but_bad_file_error(colour, form):
    rng = np.random.default_rng(0)
    data = np.frombuffer(encode(Image.fromarray(colour), form), np.uint8)
    refused = 0
    for _ in range(100):
        damaged = data.copy()
        damaged[rng.integers(len(data), size=20)] = rng.integers(256, size=20)
        damaged[rng.integers(64, size=2)] = rng.integers(256, size=2)
        try:
            read_image(damaged.tobytes())
        except BadFileError:
            refused += 1
    assert refused > 10


def png_header(width, height):
    """A PNG that promises any number of pixels and holds none."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"x")]
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("size", [(10_001, 10_000), (15_000, 10_000), (100_000, 100_000)])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(size):
    assert size[0] * size[1] > MAX_PIXELS
    assert refusal(png_header(*size)) == f"decompression bomb: {size[0]}x{size[1]} pixels"


def test_a_large_picture_below_the_limit_raises_no_warning():
    assert refusal(png_header(10_000, 10_000)) == "truncated"


def test_modes_without_a_meaning_as_colour_are_refused(grey):
    assert refusal(encode(Image.fromarray(grey.astype(np.float32)), "TIFF")) == (
        "mode F is not supported"
    )
    beyond = Image.fromarray(np.full((2, 2), 70_000, np.int32))
    assert refusal(encode(beyond, "TIFF")) == "grey values outside 0 to 65535 are not supported"


def test_is_grey_tells_a_grey_picture_from_a_coloured_one(grey, colour):
    assert is_grey(as_colour(grey)) is True
    assert is_grey(grey[..., None]) is True
    assert is_grey(colour) is False
    one = as_colour(grey)
    one[3, 4, 2] ^= 1
    assert is_grey(one) is False


def test_floor_colour_is_that_of_the_first_darkest_pixel():
    image = np.full((3, 3, 3), 200, np.uint8)
    image[1, 2] = [5, 0, 9]
    image[2, 0] = [9, 5, 0]
    floor = floor_colour(image)
    assert floor.tolist() == [5, 0, 9]
    assert floor.dtype == np.uint8
    assert floor_colour(image[..., :1]).tolist() == [5]
    floor[:] = 0
    assert image[1, 2].tolist() == [5, 0, 9]


def test_resize_gives_the_whole_picture_as_a_square(colour, grey):
    image = resize(colour, 16)
    assert (image.shape, image.dtype) == ((16, 16, 3), np.uint8)
    np.testing.assert_array_equal(resize(as_colour(grey), 20)[..., :1], resize(grey[..., None], 20))
    assert np.abs(image.mean((0, 1)) - colour.mean((0, 1))).max() < 1.5
    np.testing.assert_array_equal(resize(colour[:40, :40], 40), colour[:40, :40])


def test_resize_averages_where_it_shrinks():
    checks = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    assert np.abs(resize(checks[..., None].astype(np.uint8), 8).astype(int) - 127).max() <= 8


def test_resize_interpolates_linearly_where_it_grows():
    row = np.array([[0, 100]], np.uint8)
    assert resize(np.repeat(row, 2, 0)[..., None], 4)[0, :, 0].tolist() == [0, 25, 75, 100]
