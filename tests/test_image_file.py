"""Every format decodes to the same array; bad files have a reason."""

import contextlib
import io
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
from PIL import Image

from meljax.config import MelConfig
from meljax.data.decode import decoder, image_checks, image_file
from meljax.data.decode.image_file import MAX_PIXELS, crop, is_gray, read_image, resize
from meljax.features.frontend import Frontend
from meljax.features.windows import floor_color
from meljax.util.errors import BadFileError


def encode(image, form="PNG", **options):
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def gray():
    """A smooth image with every level from 0 to 255."""
    levels = np.add.outer(np.arange(40), np.arange(56)) * 255 / 94
    return np.rint(levels).astype(np.uint8)


@pytest.fixture(scope="module")
def color(gray):
    """A smooth image with few colors, as a color map draws it."""
    return np.stack([gray // 4 * 4, 255 - gray // 8 * 8, gray // 16 * 16], axis=-1)


def as_color(gray):
    return np.repeat(gray[..., None], 3, axis=-1)


def refusal(data):
    with pytest.raises(BadFileError) as caught:
        read_image(data)
    return str(caught.value)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_agree(color, form):
    options = {"lossless": True} if form == "WEBP" else {}
    image = read_image(encode(Image.fromarray(color), form, **options))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, color)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_color_modes_agree(color, mode, form):
    if (mode, form) == ("CMYK", "PNG"):
        pytest.skip("PNG has no CMYK")
    image = Image.fromarray(color)
    if mode == "P":
        image = image.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        color = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_image(encode(image.convert(mode), form)), color)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_gray_modes_agree(gray, mode, form):
    data = encode(Image.fromarray(gray).convert(mode), form)
    np.testing.assert_array_equal(read_image(data), as_color(gray))


@pytest.mark.parametrize(
    ("form", "kind"), [("PNG", "<u2"), ("TIFF", "<u2"), ("TIFF", ">u2"), ("TIFF", "<i4")]
)
def test_16_bit_gray_is_rounded_to_8_bits(gray, form, kind):
    deep = gray.astype(np.int32) * 257
    wobble = np.clip(deep + np.resize([-128, 0, 128], deep.shape), 0, 65535)
    for levels in (deep, wobble):
        data = encode(Image.fromarray(levels.astype(kind)), form)
        np.testing.assert_array_equal(read_image(data), as_color(gray))


def test_black_and_white_reads_as_0_and_255(gray):
    bits = gray > 127
    np.testing.assert_array_equal(
        read_image(encode(Image.fromarray(bits))), as_color(bits.astype(np.uint8) * 255)
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_decodes_to_nearly_the_same_image(gray, mode):
    image = read_image(encode(Image.fromarray(gray).convert(mode), "JPEG", quality=95))
    assert np.abs(image.astype(int) - as_color(gray)).max() <= 8


def test_transparency_is_blended_with_black(color):
    alpha = np.resize(np.arange(256, dtype=np.uint8), color.shape[:2])
    image = read_image(encode(Image.fromarray(np.dstack([color, alpha]))))
    exact = color * (alpha[..., None] / 255)
    assert np.abs(image - exact).max() <= 0.5
    assert image[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_a_transparent_palette_entry_is_black(transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250])
    image = read_image(encode(image, transparency=transparency))
    assert image.tolist() == [[[250, 0, 0], [0, 0, 0], [0, 0, 250]]]


def test_a_transparent_color_is_black():
    image = Image.fromarray(np.array([[[9, 8, 7], [1, 2, 3]]], np.uint8))
    assert read_image(encode(image, transparency=(9, 8, 7))).tolist() == [[[0, 0, 0], [1, 2, 3]]]


def turned(array, orientation):
    """Returns `array` as a viewer shows it, by the EXIF standard."""
    rows = {
        1: array,
        2: array[:, ::-1],
        3: array[::-1, ::-1],
        4: array[::-1],
        5: array.swapaxes(0, 1),
        6: np.rot90(array, -1),
        7: np.rot90(array, 2).swapaxes(0, 1),
        8: np.rot90(array),
    }
    return rows[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_exif_orientation_is_applied(color, form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    image = read_image(encode(Image.fromarray(color), form, exif=exif, **options))
    if form == "JPEG":
        stored = read_image(encode(Image.fromarray(color), form))
        np.testing.assert_array_equal(image, turned(stored, orientation))
    else:
        np.testing.assert_array_equal(image, turned(color, orientation))


@pytest.mark.parametrize("mode", ["L", "P", "LA", "RGBA", "1", "I;16"])
def test_every_mode_can_be_turned(gray, mode):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.fromarray(gray.astype(np.uint16) * 257) if mode == "I;16" else None
    image = image or Image.fromarray(gray).convert(mode)
    plain = read_image(encode(image))
    np.testing.assert_array_equal(read_image(encode(image, exif=exif)), np.rot90(plain, -1))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # as `console.run` does
@pytest.mark.parametrize(
    "exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"nonsense" * 9]
)
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_damaged_exif_data_are_ignored(color, form, exif):
    plain = read_image(encode(Image.fromarray(color), form))
    np.testing.assert_array_equal(
        read_image(encode(Image.fromarray(color), form, exif=exif)), plain
    )


def test_an_unknown_orientation_changes_nothing(color):
    for orientation in (0, 9, 65535):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image = read_image(encode(Image.fromarray(color), exif=exif))
        np.testing.assert_array_equal(image, color)


@pytest.mark.parametrize("interlace", [0, 1])
def test_a_gif_decodes_to_its_palette_colors(color, interlace):
    image = Image.fromarray(color).quantize(200, Image.Quantize.FASTOCTREE)
    data = encode(image, "GIF", interlace=interlace)
    np.testing.assert_array_equal(read_image(data), np.asarray(image.convert("RGB")))


def test_a_gray_gif_decodes_to_the_same_array(gray):
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(gray), "GIF")), as_color(gray))


def test_the_first_frame_of_several_is_read(gray):
    frames = [Image.fromarray(np.roll(gray, 7 * n, axis=1)) for n in range(3)]
    for form in ("GIF", "TIFF", "PNG", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = encode(frames[0], form, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(read_image(data), as_color(gray))


def test_the_transparent_color_of_a_gif_is_black():
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([250, 0, 0, 0, 250, 0, 0, 0, 250])
    image = read_image(encode(image, "GIF", transparency=1))
    assert image.tolist() == [[[250, 0, 0], [0, 0, 0], [0, 0, 250]]]


def test_several_threads_decode_the_same_arrays(color):
    files = [encode(Image.fromarray(np.roll(color, n, axis=0))) for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for n, image in enumerate(pool.map(read_image, files)):
            np.testing.assert_array_equal(image, np.roll(color, n, axis=0))


@pytest.mark.parametrize(
    "data", [b"\0" * 99, b"BM\0", b"II*\0\x08\0\0\0\0\0", b"\x89PNG", b"GIF89a"]
)
def test_other_files_are_refused(data):
    assert refusal(data) == "not an image that can be read"


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2\nsize 12345\n"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (LFS, "a Git LFS pointer, not an image; run 'git lfs pull'"),
        (b"hello, world" * 9, "text, not an image"),
        (b"BMW,white\n", "text, not an image"),
        ("Größe\n".encode(), "text, not an image"),
        ("\ufeffa,b\n".encode("utf-16"), "text, not an image"),
        (("ä" * 5000).encode()[:4097], "text, not an image"),
        (b"<!DOCTYPE html><html>", "a web page (HTML), not an image; download the file again"),
        (
            b"\n<!-- x -->\n<HTML lang=de>",
            "a web page (HTML), not an image; download the file again",
        ),
        (b"<?xml version='1.0'?><svg/>", "an SVG drawing, not an image; convert it to PNG"),
        (b"RIFF\x04\0\0\0WAVE", "a recording (WAV), not an image"),
        (b"fLaC\0\0\0\x22", "a recording (FLAC), not an image"),
        (b"OggS\0\x02", "a recording (Ogg), not an image"),
        (b"ID3\x03\0", "a recording (MP3), not an image"),
        (b"\xff\xfb\x90\x64\0", "a recording (MP3), not an image"),
        (b"FORM\0\0\0\x04AIFF", "a recording (AIFF), not an image"),
        (b"%PDF-1.7\n", "a PDF document, not an image"),
        (b"\0\0\0\x1cftypavif", "an AVIF image, which is not supported; convert it to PNG"),
    ],
)
def test_the_reason_names_what_a_file_is_instead(data, reason):
    assert refusal(data) == reason


def test_a_recording_names_its_kind():
    for form, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")):
        file = io.BytesIO()
        soundfile.write(file, np.zeros(800), 8000, subtype, format=form)
        name = "Ogg" if form == "OGG" else form
        assert refusal(file.getvalue()) == f"a recording ({name}), not an image"


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
        ("GIF", {}),
    ],
)
def test_a_truncated_file_never_decodes_to_another_image(color, form, options):
    data = encode(Image.fromarray(color), form, **options)
    whole = read_image(data)
    assert refusal(data[: len(data) * 9 // 10]) == "truncated"
    assert refusal(data[: len(data) // 2]) == "truncated"
    for length in range(1, len(data), 7):
        try:
            image = read_image(data[:length])
        except BadFileError:
            continue
        assert length > len(data) - 21  # after the last pixel: checksums, padding, end marks
        np.testing.assert_array_equal(image, whole)


def test_a_tiff_that_ends_in_its_directory_is_truncated(gray):
    data = encode(Image.fromarray(gray), "TIFF", compression="tiff_lzw")
    directory = int.from_bytes(data[4:8], "little")
    end = directory + 2 + 12 * int.from_bytes(data[directory : directory + 2], "little")
    for length in (directory + 1, directory + 30, end - 1):
        assert refusal(data[:length]) == "truncated"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF"])
def test_damaged_files_raise_only_bad_file_error(color, form):
    rng = np.random.default_rng(0)
    data = np.frombuffer(encode(Image.fromarray(color), form), np.uint8)
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
    """Returns a PNG whose header gives a size but which holds no pixels."""
    return png([(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", b"x")])


def png(chunks):
    """Returns a PNG of (name, body) of its chunks."""
    parts = [
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_a_palette_image_without_its_palette_is_refused(gray):
    data = encode(Image.fromarray(gray).convert("P"))
    start = data.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    assert refusal(data[:start] + data[end:]) == "not an image that can be read"


@pytest.mark.parametrize("size", [(5_001, 10_000), (15_000, 10_000), (100_000, 100_000)])
def test_a_decompression_bomb_is_refused_before_decoding(size):
    assert size[0] * size[1] > MAX_PIXELS
    assert refusal(png_header(*size)) == f"too large: {size[0]}x{size[1]} pixels"


def test_a_large_image_below_the_limit_raises_no_warning():
    assert refusal(png_header(5_000, 10_000)) == TOO_FEW


TOO_FEW = "truncated: it has fewer pixels than its header says"


def taller(data, form, height=2_000_000):
    """Returns an image file whose header says another height."""
    data = bytearray(data)
    if form == "PNG":
        data[20:24] = struct.pack(">I", height)
        data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    elif form == "GIF":
        place = data.index(b"\x2c\0\0\0\0")  # the image of 56 x 40 pixels
        data[8:10] = data[place + 7 : place + 9] = struct.pack("<H", height)
    else:
        place = data.index(struct.pack("<H", 257), int.from_bytes(data[4:8], "little"))
        data[place : place + 12] = struct.pack("<HHII", 257, 4, 1, height)
    return bytes(data)


@pytest.mark.parametrize(
    ("form", "options", "height"),
    [
        ("PNG", {}, 500_000),
        ("PNG", {}, 41),
        ("GIF", {}, 65_535),
        ("TIFF", {}, 500_000),
        ("TIFF", {"compression": "tiff_lzw"}, 500_000),
        ("TIFF", {}, 41),
    ],
)
def test_a_file_with_fewer_pixels_than_its_header_says_is_refused(color, form, options, height):
    """Pillow reads it with black rows, and takes 500 MB for a kilobyte."""
    data = encode(Image.fromarray(color), form, **options)
    assert refusal(taller(data, form, height)) == TOO_FEW
    assert read_image(taller(data, form, 40)).shape == (40, 56, 3)


def interlaced(image):
    """Returns a PNG with the seven passes of Adam7."""
    rows = b""
    for top, left, down, across in image_checks._ADAM7:
        rows += b"".join(
            b"\0" + row.tobytes() for row in image[top::down, left::across] if row.size
        )
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 2, 0, 0, 1)
    return [(b"IHDR", header), (b"IDAT", rows)]


@pytest.mark.parametrize("size", [(40, 56), (1, 1), (3, 2), (5, 9), (8, 8)])
def test_an_interlaced_png_is_read_or_truncated(color, size):
    image = color[: size[0], : size[1]]
    header, (name, rows) = interlaced(image)
    whole = png([header, (name, zlib.compress(rows)), (b"IEND", b"")])
    np.testing.assert_array_equal(read_image(whole), image)
    for missing in (1, len(rows) // 2):
        part = png([header, (name, zlib.compress(rows[:-missing])), (b"IEND", b"")])
        assert refusal(part) in (TOO_FEW, "truncated", "not an image that can be read")


def test_a_png_with_a_black_last_row_is_read(color):
    color = color.copy()
    color[-1] = 0
    np.testing.assert_array_equal(read_image(encode(Image.fromarray(color))), color)


def test_a_compressed_bmp_is_refused():
    """Pillow reads it byte by byte in Python, and takes gigabytes for a false offset."""
    header = struct.pack("<IiiHHIIiiII", 40, 2, 1, 1, 8, 1, 4, 0, 0, 256, 0)
    data = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + header + bytes(1024) + b"\2\0\0\1"
    assert "compressed BMP" in refusal(data)


def test_a_jpeg_with_very_many_scans_is_refused():
    """Each scan takes as long as decoding the whole image."""
    data = encode(Image.new("L", (6000, 6000)), "JPEG", progressive=True)
    assert read_image(data).shape == (6000, 6000, 3)
    last = data[data.rindex(b"\xff\xda") : -2]
    assert refusal(data[:-2] + 40 * last + data[-2:]) == TOO_FEW


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "LA"])
def test_a_large_image_is_converted_in_blocks(color, mode, monkeypatch):
    data = encode(Image.fromarray(color).convert(mode))
    whole = read_image(data)
    monkeypatch.setattr(image_file, "_BLOCK", 7 * 56)
    np.testing.assert_array_equal(read_image(data), whole)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "group4"])
def test_what_libtiff_prints_about_damage_is_not_shown(compression, color, capfd):
    image = Image.fromarray(color).convert("1" if compression == "group4" else "RGB")
    data = bytearray(encode(image, "TIFF", compression=compression))
    data[8:60] = bytes(range(200, 252))
    with contextlib.suppress(BadFileError):
        read_image(bytes(data))
    print("shown", file=sys.stderr)
    assert capfd.readouterr().err == "shown\n"


def test_modes_without_a_meaning_as_rgb_are_refused(gray):
    assert refusal(encode(Image.fromarray(gray.astype(np.float32)), "TIFF")) == (
        "mode F is not supported"
    )
    beyond = Image.fromarray(np.full((2, 2), 70_000, np.int32))
    assert refusal(encode(beyond, "TIFF")) == "gray values outside 0 to 65535 are not supported"


def test_is_gray_distinguishes_gray_from_color(gray, color):
    assert is_gray(as_color(gray)) is True
    assert is_gray(gray[..., None]) is True
    assert is_gray(color) is False
    one = as_color(gray)
    one[3, 4, 2] ^= 1
    assert is_gray(one) is False


def test_floor_color_is_the_first_darkest_pixel():
    image = np.full((3, 3, 3), 200, np.uint8)
    image[1, 2] = [5, 0, 9]
    image[2, 0] = [9, 5, 0]
    floor = floor_color(image)
    assert floor.tolist() == [5, 0, 9]
    assert floor.dtype == np.uint8
    assert floor_color(image[..., :1]).tolist() == [5]
    floor[:] = 0
    assert image[1, 2].tolist() == [5, 0, 9]


def test_resize_scales_the_whole_image_to_a_square(color, gray):
    image = resize(color, 16)
    assert (image.shape, image.dtype) == ((16, 16, 3), np.uint8)
    np.testing.assert_array_equal(resize(as_color(gray), 20)[..., :1], resize(gray[..., None], 20))
    assert np.abs(image.mean((0, 1)) - color.mean((0, 1))).max() < 1.5
    np.testing.assert_array_equal(resize(color[:40, :40], 40), color[:40, :40])


def test_an_image_of_another_height_does_not_fit_a_model():
    frontend = Frontend("image", 12, height=20, channels=3, image_size=0, mel=MelConfig())
    assert decoder.fit(np.zeros((30, 20, 1), np.uint8), frontend).shape == (30, 20, 3)
    for height in (19, 21):
        with pytest.raises(BadFileError, match=f"^{height} pixels high, .* of 20$"):
            decoder.fit(np.zeros((30, height, 3), np.uint8), frontend)


def test_resize_averages_when_shrinking():
    checks = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    assert np.abs(resize(checks[..., None].astype(np.uint8), 8).astype(int) - 127).max() <= 8


def test_resize_interpolates_linearly_when_enlarging():
    row = np.array([[0, 100]], np.uint8)
    assert resize(np.repeat(row, 2, 0)[..., None], 4)[0, :, 0].tolist() == [0, 25, 75, 100]


def test_crop_cuts_each_side(color):
    np.testing.assert_array_equal(crop(color, (3, 5, 7, 2)), color[5:-2, 3:-7])
    np.testing.assert_array_equal(crop(color, (0, 0, 0, 0)), color)
    assert crop(color, (55, 39, 0, 0)).shape == (1, 1, 3)


@pytest.mark.parametrize("sides", [(56, 0, 0, 0), (30, 0, 26, 0), (0, 20, 0, 20), (0, 0, 0, 999)])
def test_cropping_everything_away_is_refused(color, sides):
    text = ",".join(map(str, sides))
    with pytest.raises(BadFileError, match=rf"^data\.crop='{text}' leaves nothing of its 56 x 40 "):
        crop(color, sides)


def test_images_are_cropped_before_they_are_resized(color):
    data = encode(Image.fromarray(color))
    decoded = decoder.make_decoder("image", 10, 0, crop=(3, 5, 7, 2))(
        lambda: io.BytesIO(data)
    ).array
    np.testing.assert_array_equal(decoded.swapaxes(0, 1), resize(color[5:-2, 3:-7], 10))
