"""What was decoded once is taken from the cache, and never when it is no longer true."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import assert_same, small_config
from PIL import Image

from meljax.data import cache, files, load, reader
from meljax.errors import UserError


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Sizes of the files that were decoded. What was written a moment ago counts as settled."""
    sizes = []
    make = reader.make_reader

    def counting(*arguments):
        read = make(*arguments)

        def one(data):
            sizes.append(len(data))
            return read(data)

        return one

    monkeypatch.setattr(reader, "make_reader", counting)
    monkeypatch.setattr(files, "COARSE_NS", 0)
    return sizes


def read(path, cached, **keys) -> load.VoiceSet:
    return load.load(small_config(data__path=str(path), **keys), cached)


@pytest.mark.parametrize("name", ["sounds", "pictures"])
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
def test_other_settings_are_decoded_anew(pictures, tmp_path, decoded, keys):
    read(pictures, tmp_path)
    voices = read(pictures, tmp_path, **keys)
    assert len(decoded) == 84
    size = keys.get("data__image_size", 20)
    assert voices.arrays[0].shape[1] == size


def test_another_version_of_a_decoder_decodes_anew(pictures, tmp_path, decoded, monkeypatch):
    read(pictures, tmp_path)
    monkeypatch.setattr(reader, "decoders", lambda: "pillow 99")
    read(pictures, tmp_path)
    assert len(decoded) == 84


def test_a_file_that_changes_is_decoded_anew_and_the_others_are_not(pictures, tmp_path, decoded):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    read(folder, tmp_path / "cache")
    del decoded[:]
    changed = folder / "voice1" / "03.png"
    status = changed.stat()
    image = np.asarray(Image.open(changed))
    Image.fromarray(255 - image).save(changed)
    # As bad as it gets: as long as before, and with the same time of writing.
    content = changed.read_bytes()
    changed.write_bytes(content.ljust(status.st_size, b"\0")[: max(status.st_size, len(content))])
    os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
    (folder / "voice0" / "00.png").rename(folder / "voice0" / "zz.png")
    (folder / "voice2" / "05.png").unlink()
    voices = read(folder, tmp_path / "cache")
    assert len(decoded) == 2
    assert len(voices.items) == 41
    (place,) = (i for i, item in enumerate(voices.items) if item.path == "voice1/03.png")
    np.testing.assert_array_equal(voices.arrays[place], (255 - image).swapaxes(0, 1))
    assert_same(voices, read(folder, tmp_path / "another"))


def test_what_was_written_a_moment_ago_is_not_trusted(pictures, tmp_path, decoded, monkeypatch):
    folder = tmp_path / "pictures"
    shutil.copytree(pictures, folder)
    monkeypatch.setattr(files, "COARSE_NS", 3600 * 10**9)
    read(folder, tmp_path / "cache")
    read(folder, tmp_path / "cache")
    assert len(decoded) == 84


def test_bad_files_are_looked_at_again(sounds, tmp_path, decoded):
    folder = tmp_path / "sounds"
    shutil.copytree(sounds, folder)
    bad = folder / "voice0" / "00.wav"
    bad.write_bytes(b"RIFF")
    for _ in range(2):
        with pytest.raises(UserError):
            read(folder, tmp_path / "cache")
    assert len(decoded) == 43
    shutil.copy(sounds / "voice0" / "00.wav", bad)
    assert_same(read(folder, tmp_path / "cache"), read(sounds, tmp_path / "other"))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "garbage", "a folder"])
def test_a_damaged_cache_is_made_anew(pictures, tmp_path, decoded, damage):
    first = read(pictures, tmp_path)
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
    assert_same(read(pictures, tmp_path), first)
    assert len(decoded) == 84
    if damage != "a folder":
        assert_same(read(pictures, tmp_path), first)
        assert len(decoded) == 84


def test_without_room_or_permission_all_is_decoded(pictures, tmp_path, decoded, monkeypatch):
    (tmp_path / "file").write_text("")
    first = read(pictures, tmp_path / "file")
    monkeypatch.setattr(cache, "MOST_BYTES", 1000)
    assert_same(read(pictures, tmp_path / "cache"), first)
    assert not (tmp_path / "cache").exists()


def test_what_was_not_used_for_longest_makes_room(pictures, sounds, tmp_path, decoded, monkeypatch):
    read(pictures, tmp_path)
    (oldest,) = (tmp_path / "decoded").iterdir()
    os.utime(oldest, (1, 1))
    size = oldest.stat().st_size
    monkeypatch.setattr(cache, "MOST_BYTES", 2 * size + 1000)
    read(pictures, tmp_path, mel__sample_rate=9000)
    assert oldest.exists()
    read(pictures, tmp_path, mel__sample_rate=10000)
    assert not oldest.exists()
    assert len(list((tmp_path / "decoded").iterdir())) == 2


def test_the_same_pictures_under_two_paths_do_not_meet(pictures, tmp_path, decoded):
    read(pictures, tmp_path / "cache")
    shutil.copytree(pictures, tmp_path / "copy")
    read(tmp_path / "copy", tmp_path / "cache")
    assert len(decoded) == 84


def test_a_relative_path_means_the_folder_it_meant(pictures, tmp_path, decoded, monkeypatch):
    for name, source in (("one", pictures), ("two", pictures)):
        shutil.copytree(source, tmp_path / name / "data")
    monkeypatch.chdir(tmp_path / "one")
    read("data", tmp_path / "cache")
    monkeypatch.chdir(tmp_path / "two")
    read("data", tmp_path / "cache")
    assert len(decoded) == 84
    assert Path("data").is_dir()
