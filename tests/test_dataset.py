"""Images, recordings and embedded voices as a `Dataset`."""

import io
import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import CACHE, small_config
from PIL import Image

from meljax.data import read_files
from meljax.data.dataset import load
from meljax.data.manifest import Item, Manifest
from meljax.data.read_files import read_all
from meljax.util.errors import UserError


def draw(folder: Path, name: str, mode: str, seed: int, size: tuple[int, int] = (12, 10)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    gray = np.random.default_rng(seed).integers(0, 256, size[::-1]).astype(np.uint8)
    Image.fromarray(gray).convert(mode).save(folder / name)


def drawn(root: Path, modes: str) -> Path:
    """Draws two classes of four images, with the modes in turn."""
    for c in range(2):
        for i in range(4):
            draw(root / f"voice{c}", f"{i}.png", modes.split()[i % len(modes.split())], 10 * c + i)
    return root


def read(path: Path, **keys):
    return load(small_config(data__path=str(path), **keys), CACHE)


@pytest.mark.parametrize("modes", ["L", "L RGB P RGBA"])
def test_images_that_are_all_gray_have_one_channel(tmp_path, modes):
    dataset = read(drawn(tmp_path, modes))
    assert {array.shape for array in dataset.arrays} == {(12, 10, 1)}
    original = np.random.default_rng(0).integers(0, 256, (10, 12)).astype(np.uint8)
    np.testing.assert_array_equal(dataset.arrays[0][:, :, 0], original.T)


def test_one_colored_image_makes_all_images_rgb(tmp_path):
    root = drawn(tmp_path, "L")
    Image.new("RGB", (12, 10), (200, 10, 30)).save(root / "voice0" / "red.png")
    dataset = read(root)
    assert {array.shape for array in dataset.arrays} == {(12, 10, 3)}
    np.testing.assert_array_equal(dataset.arrays[0][:, :, 0], dataset.arrays[0][:, :, 2])


def test_images_of_different_heights_need_a_size(tmp_path):
    root = drawn(tmp_path, "L")
    draw(root / "voice1", "tall.png", "L", 99, size=(12, 14))
    with pytest.raises(UserError, match=r"differ in height.*set data\.image_size"):
        read(root)
    assert {array.shape for array in read(root, data__image_size=8).arrays} == {(8, 8, 1)}


def test_a_window_is_refused_for_resized_images(tmp_path):
    with pytest.raises(UserError, match=r"data\.window"):
        read(drawn(tmp_path, "L"), data__image_size=8, data__window=4.0)


def test_identical_files_share_a_split_and_conflicts_are_reported(tmp_path):
    root = drawn(tmp_path, "L")
    for i in range(3):
        shutil.copy(root / "voice0" / "0.png", root / "voice0" / f"copy{i}.png")
    shutil.copy(root / "voice0" / "1.png", root / "voice1" / "other.png")
    for seed in range(5):
        dataset = read(root, train__seed=seed, data__val_fraction=0.3)
        split = dict(zip((item.path for item in dataset.items), dataset.splits, strict=True))
        copies = ["voice0/0.png", *(f"voice0/copy{i}.png" for i in range(3))]
        assert len({split[path] for path in copies}) == 1
        assert split["voice0/1.png"] == split["voice1/other.png"]
        assert len(dataset.warnings) == 1
        assert "different labels" in dataset.warnings[0]


def test_the_fingerprint_depends_on_contents_and_splits(tmp_path):
    root = drawn(tmp_path / "a", "L")
    first = read(root).fingerprint
    assert read(root).fingerprint == first
    moved = tmp_path / "b"
    shutil.copytree(root, moved)
    assert read(moved).fingerprint == first, "the fingerprint must not depend on the folder"
    assert read(root, train__seed=3, data__val_fraction=0.4).fingerprint != first
    draw(moved / "voice0", "0.png", "L", 77)
    assert read(moved).fingerprint != first


def test_the_fingerprint_depends_on_labels_and_groups(tmp_path):
    root, fingerprints = drawn(tmp_path, "L"), set()
    for label, speaker in ((0, "ann"), (0, "ann"), (0, "bob"), (1, "ann")):
        rows = ["path,label,split,group"]
        for c in range(2):
            splits = ("train", "train", "train", "val")
            rows += [f"voice{c}/{i}.png,{c},{split},{i}" for i, split in enumerate(splits)]
        rows[1] = f"voice0/0.png,{label},train,{speaker}"
        (root / "list.csv").write_text("\n".join(rows))
        fingerprints.add(read(root / "list.csv").fingerprint)
    assert len(fingerprints) == 3


@pytest.mark.parametrize("key", ["label", "group", "pattern", "root", "split_column"])
def test_settings_for_files_are_refused_for_the_embedded_voices(key):
    keys = {f"data__{key}": "word"}
    with pytest.raises(UserError, match=rf"data\.{key} is for files"):
        load(small_config(mel__sample_rate=16000, **keys), CACHE)


def test_the_embedded_voices_have_one_sample_rate():
    with pytest.raises(UserError, match=r"mel\.sample_rate must be 16000"):
        load(small_config(), CACHE)


def test_the_seed_and_the_fraction_reach_the_split(tmp_path):
    root = drawn(tmp_path, "L")
    for c in range(2):
        for i in range(4, 10):
            draw(root / f"voice{c}", f"{i}.png", "L", 100 * c + i)
    assert len({read(root, train__seed=seed).splits for seed in range(5)}) > 1
    for fraction in (0.2, 0.5):
        assert read(root, data__val_fraction=fraction).splits.count("val") == 20 * fraction


def test_files_are_decoded_with_as_many_threads_as_there_are_cores(monkeypatch):
    monkeypatch.setattr(read_files, "cores", lambda: 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    items = tuple(Item(f"{i}.wav", "a") for i in range(40))
    lock, running, most = threading.Lock(), 0, 0

    def decode(item: Item, opened: read_files.OpenFile) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return len(opened().read())

    manifest = Manifest(
        source="set",
        root="/",
        kind="audio",
        items=items,
        left_out={},
        bad=(),
        open=lambda item: io.BytesIO(item.path.encode()),
        stamp=lambda item: "",
    )
    results = read_all(manifest, items, decode)
    assert [result.value for result in results] == [len(item.path) for item in items]
    assert most == 3


def test_images_are_read_as_a_viewer_shows_them_whatever_their_suffix(tmp_path):
    rng = np.random.default_rng(0)
    for c in range(2):
        folder = tmp_path / f"voice{c}"
        folder.mkdir()
        for i, (form, suffix) in enumerate(
            [("JPEG", "jfif"), ("JPEG", "jpe"), ("GIF", "gif"), ("JPEG", "png"), ("PNG", "JPG")]
        ):
            image, exif = Image.fromarray(rng.integers(0, 256, (10, 24), np.uint8)), Image.Exif()
            if form == "JPEG":
                image = image.transpose(Image.Transpose.ROTATE_90)
                exif[0x0112] = 6
            image.save(folder / f"{i}.{suffix}", form, exif=exif)
    dataset = read(tmp_path)
    assert len(dataset.items) == 10
    assert {array.shape for array in dataset.arrays} == {(24, 10, 1)}


def test_files_that_only_look_like_images_are_named(tmp_path):
    root = drawn(tmp_path, "L")
    (root / "voice0" / "a.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (root / "voice1" / "b.gif").write_bytes(b"<!doctype html><title>404</title>")
    with pytest.raises(UserError) as caught:
        read(root)
    assert caught.value.details == (
        "voice0/a.jpg: a Git LFS pointer, not an image; run 'git lfs pull'",
        "voice1/b.gif: a web page (HTML), not an image; download the file again",
    )


def test_images_are_cropped(tmp_path):
    root = drawn(tmp_path, "L")
    whole = read(root)
    cropped = read(root, data__crop="1, 2,3,4")
    for one, other in zip(whole.arrays, cropped.arrays, strict=True):
        np.testing.assert_array_equal(one[1:-3, 2:-4], other)
    assert {array.shape for array in read(root).arrays} == {(12, 10, 1)}


@pytest.mark.parametrize("crop", ["12,0,0,0", "0,5,0,5"])
def test_a_crop_that_leaves_nothing_names_key_and_sizes(tmp_path, crop):
    with pytest.raises(UserError) as caught:
        read(drawn(tmp_path, "L"), data__crop=crop)
    message = str(caught.value)
    assert message.startswith(f"data.crop='{crop}' leaves nothing of its 12 x 10 pixels")
    assert message.endswith("in 8 images, e.g. voice0/0.png; cut less")


def test_a_crop_is_refused_for_recordings(recordings):
    with pytest.raises(UserError, match=r"data\.crop is for images, but .* has recordings"):
        read(recordings, data__crop="1,1,1,1")
    with pytest.raises(UserError, match=r"data\.crop is for files and sets"):
        load(small_config(data__crop="1,1,1,1", mel__sample_rate=16000), CACHE)
