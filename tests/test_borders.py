"""Borders of figures are found and measured; ordinary spectrograms have none."""

import numpy as np
import pytest
from conftest import CACHE, small_config
from PIL import Image

from meljax.data.borders import border_warnings, shared_borders
from meljax.data.dataset import load


def noise(number: int, columns: int = 60, rows: int = 50, channels: int = 3) -> list[np.ndarray]:
    """Different images of levels 40 to 199, in which no line is constant."""
    rng = np.random.default_rng(0)
    return [rng.integers(40, 200, (columns, rows, channels), np.uint8) for _ in range(number)]


def framed(images, borders=(6, 4, 3, 5), color=255, ticks=True):
    """Returns images with a border of `color` and two marks beside the image."""
    left, top, right, bottom = borders
    out = []
    for image in images:
        padded = np.pad(image, ((left, right), (top, bottom), (0, 0)), constant_values=color)
        if ticks:
            padded[left - 2 : left, top + 3 : top + 5] = 9
        out.append(padded)
    return out


def test_borders_with_ticks_are_measured_exactly():
    assert shared_borders(framed(noise(8))) == (6, 4, 3, 5)
    assert shared_borders(framed(noise(8, channels=1))) == (6, 4, 3, 5)


@pytest.mark.parametrize("color", [255, 0])
def test_plain_margins_are_measured(color):
    assert shared_borders(framed(noise(8), color=color, ticks=False)) == (6, 4, 3, 5)


@pytest.mark.parametrize("side", range(4))
def test_a_white_margin_on_one_side_is_enough(side):
    borders = tuple(5 if i == side else 0 for i in range(4))
    images = [np.pad(i, _pads(borders), constant_values=255) for i in noise(8)]
    assert shared_borders(images) == borders


def _pads(borders):
    left, top, right, bottom = borders
    return (left, right), (top, bottom), (0, 0)


@pytest.mark.parametrize("borders", [(0, 9, 0, 0), (0, 9, 0, 4), (5, 0, 5, 0), (0, 0, 30, 0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_silence_is_not_a_border(borders, channels):
    """Band limits leave rows, and padding leaves columns of the darkest color."""
    images = [np.pad(i, _pads(borders), constant_values=0) for i in noise(8, channels=channels)]
    assert shared_borders(images) is None


def test_a_color_that_is_common_inside_is_not_a_border():
    """In reversed gray, silence is white."""
    images = noise(8)
    for image in images:
        image[::3, ::3] = 255
    assert shared_borders(framed(images, ticks=False)) is None


def test_sets_without_shared_borders_have_none():
    images = noise(8)
    assert shared_borders(images) is None
    assert shared_borders([]) is None
    assert shared_borders(framed(noise(4))) is None  # too few
    assert shared_borders([images[0]] * 8) is None  # all the same
    assert shared_borders([np.zeros((9, 9, 1), np.uint8)] * 8) is None
    assert shared_borders(framed(images, (1, 1, 1, 1), ticks=False)) is None  # too narrow
    assert shared_borders([*framed(images[:7]), images[7]]) is None  # other sizes
    assert shared_borders([*framed(images), *framed(noise(1), color=254)]) is None
    other = noise(1, 69, 59)
    assert shared_borders([*framed(images), *other]) is None


def test_the_border_ends_where_one_image_differs():
    images = framed(noise(8))
    images[5][2, 7, 1] = 0  # third column, below the top border
    assert shared_borders(images) == (2, 4, 3, 5)


def test_tiny_images_are_no_problem():
    for shape in [(1, 1, 1), (1, 9, 3), (9, 1, 1), (2, 2, 1), (3, 3, 3)]:
        rng = np.random.default_rng(1)
        images = [rng.integers(0, 256, shape, np.uint8) for _ in range(9)]
        assert shared_borders(images) is None


def test_earlier_cropping_is_added():
    (line,) = border_warnings(framed(noise(8)), (10, 20, 30, 40), None)
    assert "data.crop='16,24,33,45'" in line
    assert "\n" not in line


def test_two_images_show_that_a_large_set_has_no_borders():
    images = iter(noise(9))
    assert shared_borders(images) is None
    assert len(list(images)) == 7


@pytest.mark.parametrize("size", [0, 24])
def test_a_set_of_figures_has_a_warning_with_the_key(size, tmp_path):
    for i, figure in enumerate(framed(noise(42, 20, 20))):
        (tmp_path / f"voice{i % 3}").mkdir(exist_ok=True)
        rows_first = figure.transpose(1, 0, 2)
        Image.fromarray(rows_first).save(tmp_path / f"voice{i % 3}" / f"{i}.png")
    crop = "6,4,3,5"
    settings = {"data__path": str(tmp_path), "data__image_size": size}
    (line,) = load(small_config(**settings), CACHE).warnings
    assert f"data.crop='{crop}'" in line
    assert not load(small_config(**settings, data__crop=crop), CACHE).warnings
    (line,) = load(small_config(**settings, data__crop="1,0,3,0"), CACHE).warnings
    assert f"data.crop='{crop}'" in line


def test_ordinary_images_have_no_warning(image_folder):
    for size in (0, 24):
        config = small_config(data__path=str(image_folder), data__image_size=size)
        assert not load(config, CACHE).warnings


def test_resized_images_of_different_sizes_have_no_warning(tmp_path):
    """Scaled alike, but no single crop fits."""
    for i, image in enumerate(noise(10, 48, 48, 1)):
        side = 64 if i % 2 else 128
        figure = framed([image], (8, 8, 8, 8), ticks=False)[0][..., 0]
        scaled = Image.fromarray(figure).resize((side, side), Image.Resampling.NEAREST)
        (tmp_path / f"voice{i // 5}").mkdir(exist_ok=True)
        scaled.save(tmp_path / f"voice{i // 5}" / f"{i}.png")
    assert not load(small_config(data__path=str(tmp_path), data__image_size=16), CACHE).warnings
