import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import CACHE, small_config
from PIL import Image

from meljax.data.load import load
from meljax.errors import UserError


def draw(folder: Path, name: str, mode: str, seed: int, size: tuple[int, int] = (12, 10)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    grey = np.random.default_rng(seed).integers(0, 256, size[::-1]).astype(np.uint8)
    Image.fromarray(grey).convert(mode).save(folder / name)


def drawn(root: Path, modes: str) -> Path:
    """Two classes of four pictures; modes are given out in turn."""
    for c in range(2):
        for i in range(4):
            draw(root / f"voice{c}", f"{i}.png", modes.split()[i % len(modes.split())], 10 * c + i)
    return root


def read(path: Path, **keys):
    return load(small_config(data__path=str(path), **keys), CACHE)


@pytest.mark.parametrize("modes", ["L", "L RGB P RGBA"])
def test_pictures_that_are_all_grey_stay_one_channel(tmp_path, modes):
    voices = read(drawn(tmp_path, modes))
    assert {array.shape for array in voices.arrays} == {(12, 10, 1)}
    original = np.random.default_rng(0).integers(0, 256, (10, 12)).astype(np.uint8)
    np.testing.assert_array_equal(voices.arrays[0][:, :, 0], original.T)


def test_one_coloured_picture_makes_all_of_them_rgb(tmp_path):
    root = drawn(tmp_path, "L")
    Image.new("RGB", (12, 10), (200, 10, 30)).save(root / "voice0" / "red.png")
    voices = read(root)
    assert {array.shape for array in voices.arrays} == {(12, 10, 3)}
    np.testing.assert_array_equal(voices.arrays[0][:, :, 0], voices.arrays[0][:, :, 2])
    assert voices.floors[0].shape == (3,)


def test_pictures_of_differing_height_need_a_size(tmp_path):
    root = drawn(tmp_path, "L")
    draw(root / "voice1", "tall.png", "L", 99, size=(12, 14))
    with pytest.raises(UserError, match=r"differ in height.*set data\.image_size"):
        read(root)
    assert {array.shape for array in read(root, data__image_size=8).arrays} == {(8, 8, 1)}


def test_a_window_is_refused_where_pictures_are_seen_whole(tmp_path):
    with pytest.raises(UserError, match=r"data\.window"):
        read(drawn(tmp_path, "L"), data__image_size=8, data__window=4.0)


def test_identical_files_share_a_side_and_conflicts_are_reported(tmp_path):
    root = drawn(tmp_path, "L")
    for i in range(3):
        shutil.copy(root / "voice0" / "0.png", root / "voice0" / f"copy{i}.png")
    shutil.copy(root / "voice0" / "1.png", root / "voice1" / "other.png")
    for seed in range(5):
        voices = read(root, train__seed=seed, data__val_fraction=0.3)
        side = dict(zip((item.path for item in voices.items), voices.sides, strict=True))
        copies = ["voice0/0.png", *(f"voice0/copy{i}.png" for i in range(3))]
        assert len({side[path] for path in copies}) == 1
        assert side["voice0/1.png"] == side["voice1/other.png"]
        assert len(voices.warnings) == 1
        assert "different labels" in voices.warnings[0]


def test_the_fingerprint_knows_contents_labels_and_sides(tmp_path):
    root = drawn(tmp_path / "a", "L")
    first = read(root).fingerprint
    assert read(root).fingerprint == first
    moved = tmp_path / "b"
    shutil.copytree(root, moved)
    assert read(moved).fingerprint == first, "where the folder lies is of no consequence"
    assert read(root, train__seed=3, data__val_fraction=0.4).fingerprint != first
    draw(moved / "voice0", "0.png", "L", 77)
    assert read(moved).fingerprint != first


def test_settings_of_files_are_refused_for_the_embedded_voices():
    with pytest.raises(UserError, match=r"data\.label and data\.group"):
        load(small_config(data__label="word", mel__sample_rate=16000), CACHE)
    with pytest.raises(UserError, match=r"mel\.sample_rate must be 16000"):
        load(small_config(), CACHE)
