"""Decoded files come from the cache unless the file has changed."""

import os
import shutil
import time
import tracemalloc

import numpy as np
import pytest
from conftest import assert_same, small_config
from PIL import Image

from meljax.data import dataset as dataset_module
from meljax.data import decoded_cache, manifest
from meljax.data.dataset import Dataset, load
from meljax.data.decode import decoder
from meljax.util.errors import UserError
from meljax.util.files import TEMPORARY_PREFIX


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Lists the sizes of decoded files; lets files written just now be cached."""
    sizes = []
    make = decoder.make_decoder

    def counting(*arguments, **keys):
        decode = make(*arguments, **keys)

        def count_and_decode(opened):
            sizes.append(len(opened().read()))
            return decode(opened)

        return count_and_decode

    monkeypatch.setattr(decoder, "make_decoder", counting)
    monkeypatch.setattr(manifest, "TIMESTAMP_RESOLUTION_NS", 0)
    return sizes


def read(path, cached, **keys) -> Dataset:
    return load(small_config(data__path=str(path), **keys), cached)


@pytest.mark.parametrize("name", ["recordings", "image_folder"])
def test_nothing_is_decoded_twice(request, name, tmp_path, decoded):
    folder = request.getfixturevalue(name)
    first = read(folder, tmp_path)
    assert len(decoded) == 42
    again = read(folder, tmp_path)
    assert len(decoded) == 42
    assert_same(first, again)
    assert len(list((tmp_path / "decoded").iterdir())) == 1


@pytest.mark.parametrize(
    "keys", [{"data__image_size": 8}, {"data__image_size": 9}, {"mel__sample_rate": 9000}]
)
def test_other_settings_decode_again(image_folder, tmp_path, decoded, keys):
    read(image_folder, tmp_path)
    dataset = read(image_folder, tmp_path, **keys)
    assert len(decoded) == 84
    size = keys.get("data__image_size", 20)
    assert dataset.arrays[0].shape[1] == size


def test_another_version_of_a_decoder_decodes_again(image_folder, tmp_path, decoded, monkeypatch):
    read(image_folder, tmp_path)
    monkeypatch.setattr(dataset_module, "versions", lambda packages: {"pillow": "99"})
    read(image_folder, tmp_path)
    assert len(decoded) == 84


def test_only_changed_files_are_decoded_again(image_folder, tmp_path, decoded):
    folder = tmp_path / "images"
    shutil.copytree(image_folder, folder)
    read(folder, tmp_path / "cache")
    del decoded[:]
    changed = folder / "voice1" / "03.png"
    status = changed.stat()
    image = np.asarray(Image.open(changed))
    Image.fromarray(255 - image).save(changed)
    # The hardest case: same length and same modification time as before.
    content = changed.read_bytes()
    changed.write_bytes(content.ljust(status.st_size, b"\0")[: max(status.st_size, len(content))])
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    (folder / "voice0" / "00.png").rename(folder / "voice0" / "zz.png")
    (folder / "voice2" / "05.png").unlink()
    dataset = read(folder, tmp_path / "cache")
    assert len(decoded) == 2
    assert len(dataset.items) == 41
    (index,) = (i for i, item in enumerate(dataset.items) if item.path == "voice1/03.png")
    np.testing.assert_array_equal(dataset.arrays[index], (255 - image).swapaxes(0, 1))
    assert_same(dataset, read(folder, tmp_path / "another"))


def test_files_written_just_now_are_not_cached(image_folder, tmp_path, decoded, monkeypatch):
    folder = tmp_path / "images"
    shutil.copytree(image_folder, folder)
    monkeypatch.setattr(manifest, "TIMESTAMP_RESOLUTION_NS", 3600 * 10**9)
    read(folder, tmp_path / "cache")
    read(folder, tmp_path / "cache")
    assert len(decoded) == 84


def test_a_file_that_was_given_an_old_time_just_now_is_not_cached(tmp_path, monkeypatch):
    """Copying may keep the time of the last write; another copy may follow at once."""
    file = tmp_path / "a.png"
    file.write_bytes(b"x")
    os.utime(file, (1e9, 1e9))
    monkeypatch.setattr(manifest, "TIMESTAMP_RESOLUTION_NS", 3600 * 10**9)
    assert manifest.file_stamp(str(file)) == ""
    monkeypatch.setattr(manifest, "TIMESTAMP_RESOLUTION_NS", 0)
    assert manifest.file_stamp(str(file)) != ""


def test_bad_files_are_read_again(recordings, tmp_path, decoded):
    folder = tmp_path / "recordings"
    shutil.copytree(recordings, folder)
    bad = folder / "voice0" / "00.wav"
    bad.write_bytes(b"RIFF")
    for _ in range(2):
        with pytest.raises(UserError):
            read(folder, tmp_path / "cache")
    assert len(decoded) == 43
    shutil.copy(recordings / "voice0" / "00.wav", bad)
    assert_same(read(folder, tmp_path / "cache"), read(recordings, tmp_path / "other"))


def test_a_set_larger_than_half_of_the_cache_is_not_cached(tmp_path, monkeypatch):
    monkeypatch.setattr(decoded_cache, "MAX_BYTES", 1000)
    for size, kept in ((501, []), (500, ["a"])):
        item = decoded_cache.CachedItem("stamp", "digest", np.zeros(size, np.uint8))
        decoded_cache.save(tmp_path / "file.decoded", {"a": item})
        assert list(decoded_cache.load(tmp_path / "file.decoded")) == kept


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "garbage", "a folder"])
def test_a_damaged_cache_file_is_replaced(image_folder, tmp_path, decoded, damage):
    first = read(image_folder, tmp_path)
    (file,) = (tmp_path / "decoded").iterdir()
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        del content[-100:]
    elif damage == "flipped":
        content[-100] ^= 1
    elif damage == "garbage":
        content[20:40] = b"x" * 20
    elif damage == "emptied":
        content.clear()
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    else:
        file.write_bytes(content)
    assert_same(read(image_folder, tmp_path), first)
    assert len(decoded) == 84
    if damage != "a folder":
        assert_same(read(image_folder, tmp_path), first)
        assert len(decoded) == 84


def test_without_room_or_permission_everything_is_decoded(
    image_folder, tmp_path, decoded, monkeypatch
):
    (tmp_path / "file").write_text("")
    first = read(image_folder, tmp_path / "file")
    monkeypatch.setattr(decoded_cache, "MAX_BYTES", 1000)
    assert_same(read(image_folder, tmp_path / "cache"), first)
    assert not (tmp_path / "cache").exists()


def test_the_least_recently_used_file_is_evicted(
    image_folder, recordings, tmp_path, decoded, monkeypatch
):
    read(image_folder, tmp_path)
    (oldest,) = (tmp_path / "decoded").iterdir()
    os.utime(oldest, (1, 1))
    size = oldest.stat().st_size
    monkeypatch.setattr(decoded_cache, "MAX_BYTES", 2 * size + 1000)
    read(image_folder, tmp_path, mel__sample_rate=9000)
    assert oldest.exists()
    read(image_folder, tmp_path, mel__sample_rate=10000)
    assert not oldest.exists()
    assert len(list((tmp_path / "decoded").iterdir())) == 2


def test_a_file_in_frequent_use_stays(image_folder, tmp_path, decoded, monkeypatch):
    folder, found = tmp_path / "decoded", []
    for age, rate in ((1, 9000), (2, 10000)):
        read(image_folder, tmp_path, mel__sample_rate=rate)
        found += [file for file in folder.iterdir() if file not in found]
        os.utime(found[-1], (age, age))
    frequent, rare = found
    read(image_folder, tmp_path, mel__sample_rate=9000)
    monkeypatch.setattr(decoded_cache, "MAX_BYTES", 2 * frequent.stat().st_size + 1000)
    read(image_folder, tmp_path, mel__sample_rate=11000)
    assert frequent.exists()
    assert not rare.exists()
    del decoded[:]
    read(image_folder, tmp_path, mel__sample_rate=9000)
    assert not decoded


def test_no_more_is_evicted_than_needed(image_folder, tmp_path, decoded, monkeypatch):
    rates = (9000, 10000, 11000)
    for rate in rates:
        read(image_folder, tmp_path, mel__sample_rate=rate)
    files = list((tmp_path / "decoded").iterdir())
    monkeypatch.setattr(decoded_cache, "MAX_BYTES", 3 * files[0].stat().st_size + 1000)
    read(image_folder, tmp_path, mel__sample_rate=12000)
    assert len(files) == 3
    assert len(list((tmp_path / "decoded").iterdir())) == 3


def test_half_written_files_are_removed_after_an_hour_and_count_before(
    image_folder, tmp_path, decoded, monkeypatch
):
    read(image_folder, tmp_path)
    (cached,) = (tmp_path / "decoded").iterdir()
    size = cached.stat().st_size
    stale, fresh = (cached.parent / f"{TEMPORARY_PREFIX}{n}-abc" for n in (1, 2))
    for file in (stale, fresh):
        file.write_bytes(b"x" * size)
    hour_ago = time.time() - 3700
    os.utime(stale, (hour_ago, hour_ago))
    monkeypatch.setattr(decoded_cache, "MAX_BYTES", 2 * size + 1000)
    read(image_folder, tmp_path, mel__sample_rate=9000)
    assert not stale.exists()
    assert fresh.exists(), "another process may still be writing it"
    assert not cached.exists(), "the fresh file needs room too"
    assert len(list(cached.parent.iterdir())) == 2


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    items = {"a": decoded_cache.CachedItem("1", "2", np.zeros(1000, np.int16))}
    with pytest.raises(KeyboardInterrupt):
        decoded_cache.save(tmp_path / "x.decoded", items)
    assert not list(tmp_path.iterdir())


def test_writing_needs_little_memory_beside_the_set(tmp_path):
    arrays = [np.full((1000, 1000), i, np.int16) for i in range(20)]
    items = {str(i): decoded_cache.CachedItem("s", "d", array) for i, array in enumerate(arrays)}
    tracemalloc.start()
    decoded_cache.save(tmp_path / "x.decoded", items)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < arrays[0].nbytes
    for i, (path, item) in enumerate(decoded_cache.load(tmp_path / "x.decoded").items()):
        assert path == str(i)
        np.testing.assert_array_equal(item.array, arrays[i])


def test_the_same_images_in_two_folders_are_cached_separately(image_folder, tmp_path, decoded):
    read(image_folder, tmp_path / "cache")
    shutil.copytree(image_folder, tmp_path / "copy")
    read(tmp_path / "copy", tmp_path / "cache")
    assert len(decoded) == 84


def test_a_relative_path_depends_on_the_current_folder(
    image_folder, tmp_path, decoded, monkeypatch
):
    for name in ("one", "two"):
        shutil.copytree(image_folder, tmp_path / name / "data")
    monkeypatch.chdir(tmp_path / "one")
    read("data", tmp_path / "cache")
    monkeypatch.chdir(tmp_path / "two")
    read("data", tmp_path / "cache")
    assert len(decoded) == 84
