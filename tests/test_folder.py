"""Folders as data sets, and the error messages for other folders."""

import os
from pathlib import Path

import pytest
from manifests import error_message, paths, read, splits

from meljax.data.manifest import Bad, Item


def test_classes_are_the_sub_folders_and_files_may_be_at_any_depth(touch):
    manifest = read(touch("b/deep/er/2.flac", "b/1.wav", "a/x.wav"))
    assert manifest.items == (
        Item("a/x.wav", "a"),
        Item("b/1.wav", "b"),
        Item("b/deep/er/2.flac", "b"),
    )
    assert (manifest.kind, manifest.left_out, manifest.bad) == ("audio", {}, ())
    assert all((Path(manifest.root) / path).is_file() for path in paths(manifest))


@pytest.mark.parametrize(
    "suffix", ["png", "jpg", "jpeg", "bmp", "webp", "tif", "tiff", "PNG", "JpG"]
)
def test_images_are_recognized_by_suffix(touch, suffix):
    assert read(touch(f"a/x.{suffix}", f"b/x.{suffix}")).kind == "image"


@pytest.mark.parametrize(
    "suffix", ["wav", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "WAV", "Mp3"]
)
def test_recordings_are_recognized_by_suffix(touch, suffix):
    assert read(touch(f"a/x.{suffix}", f"b/x.{suffix}")).kind == "audio"


def test_other_files_are_ignored_and_counted(touch):
    junk = ("LICENSE", "manifest.csv", "loose.wav", "a/._1.wav", "a/Thumbs.db", "a/.DS_Store")
    folder = touch("a/1.wav", "b/1.wav", "__MACOSX/a/1.wav", ".git/a/1.wav", *junk)
    manifest = read(folder)
    assert paths(manifest) == ["a/1.wav", "b/1.wav"]
    assert manifest.left_out == {
        "hidden": 4,
        "no suffix": 1,
        ".csv": 1,
        ".wav": 1,
        ".db": 1,
    }
    assert manifest.bad == ()


def test_items_are_sorted_by_path_as_text(touch):
    manifest = read(touch("a/z.wav", "a-b/1.wav", "B/1.wav", "a/é.wav", "a/10.wav", "a/9.wav"))
    assert paths(manifest) == sorted(paths(manifest))
    assert paths(manifest)[0] == "B/1.wav"


def test_links_to_folders_are_followed_and_loops_end(touch, tmp_path):
    folder = touch("a/1.wav", "b/1.wav")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.wav").touch()
    os.symlink(tmp_path / "elsewhere", os.path.join(folder, "a", "more"))
    os.symlink(folder, os.path.join(folder, "b", "loop"))
    assert paths(read(folder)) == ["a/1.wav", "a/more/2.wav", "b/1.wav"]


def test_a_dangling_link_is_a_bad_entry(touch):
    folder = touch("a/1.wav", "b/1.wav")
    os.symlink("nowhere.wav", os.path.join(folder, "a", "2.wav"))
    assert read(folder).bad == (Bad("a/2.wav", "no such file"),)


def test_file_names_that_are_not_utf8_are_listed(touch):
    folder = touch("a/1.wav", "b/1.wav")
    try:
        open(os.path.join(os.fsencode(folder), b"a", b"\xff.wav"), "wb").close()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert paths(read(folder))[-2:] == [os.fsdecode(b"a/\xff.wav"), "b/1.wav"]


def test_an_empty_class_folder_is_a_bad_entry(touch):
    manifest = read(touch("a/1.png", "b/1.png", "c/readme.txt", "d/deep/.x.png"))
    reason = "class folder holds no images"
    assert manifest.bad == (Bad("c", reason), Bad("d", reason))
    assert paths(manifest) == ["a/1.png", "b/1.png"]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_train_and_val_folders_are_a_given_split(touch, val):
    manifest = read(touch("train/a/1.wav", "train/b/x/1.wav", f"{val}/a/2.wav", "test/b/3.wav"))
    assert splits(manifest) == {
        "train/a/1.wav": "train",
        "train/b/x/1.wav": "train",
        f"{val}/a/2.wav": "val",
        "test/b/3.wav": "test",
    }
    assert [item.label for item in manifest.items if item.split != "val"] == ["b", "a", "b"]


def test_without_val_the_split_of_training_files_is_open(touch):
    manifest = read(touch("train/a/1.wav", "train/b/1.wav", "test/b/3.wav"))
    assert splits(manifest) == {"train/a/1.wav": "", "train/b/1.wav": "", "test/b/3.wav": "test"}


def test_a_lone_train_folder_is_not_a_class(touch):
    manifest = read(touch("train/a/1.wav", "train/b/1.wav", "train/loose.wav"))
    assert {(item.label, item.split) for item in manifest.items} == {("a", ""), ("b", "")}
    assert sum(manifest.left_out.values()) == 1


@pytest.mark.parametrize("files", [("train/1.png", "bus/1.png"), ("train/deep/1.png", "bus/1.png")])
def test_a_class_may_be_called_train(touch, files):
    manifest = read(touch(*files))
    assert {(item.label, item.split) for item in manifest.items} == {("train", ""), ("bus", "")}
    assert manifest.notes == ("'train' is a class, as no folder beside it looks like a split",)


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        (("train/1.png", "test/1.png"), {"train", "test"}),
        (("val/a/1.png", "test/a/1.png"), {"val", "test"}),
    ],
)
def test_names_of_splits_are_classes_only_if_that_is_allowed(touch, files, labels):
    assert "splits" in error_message(touch(*files))
    manifest = read(touch(*files), allow_split_names=True)
    assert {item.label for item in manifest.items} == labels
    assert {item.split for item in manifest.items} == {""}
    assert "data.allow_split_names" in manifest.notes[0]


def test_two_folders_for_one_split_are_refused(touch):
    message = error_message(touch("train/a/1.wav", "train/b/1.wav", "val/a/1.wav", "valid/a/2.wav"))
    assert "'val'" in message
    assert "'valid'" in message


def test_a_class_missing_in_train_is_named_with_the_nearest(touch):
    message = error_message(touch("train/dog/1.wav", "train/cat/1.wav", "val/dgo/1.wav"))
    assert "'dgo'" in message
    assert "'dog'" in message


def test_a_split_without_class_folders_is_refused(touch):
    message = error_message(touch("train/a/1.wav", "train/b/1.wav", "val/1.wav"))
    assert "sub-folder per class" in message
    assert "val/1.wav" in message


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("1.wav", "2.wav"), "2 files directly, e.g. '1.wav'; expected one sub-folder per class"),
        (("1.wav", "a/1.wav"), "one class only, 'a'"),
        (("a/1.wav",), "one class only, 'a'"),
        (("a/1.wav", "b/notes.txt"), "one class only, 'a'"),
        (("all/a/1.wav", "all/b/1.wav", "all/2.wav"), "did you mean"),
        (("all/a/1.wav", "all/b/1.wav", "c/1.xyz"), "did you mean"),
        (("a/1.xyz", "b/1.xyz"), "2 other files, e.g. 'a/1.xyz'"),
        (("a/1.wav", "b/1.wav", "b/x.png"), "1 image (e.g. 'b/x.png') with 2 recordings"),
    ],
)
def test_a_wrong_folder_has_an_error_message(touch, files, words):
    message = error_message(touch(*files)).replace(" and ", " with ")
    assert words in message
    assert "data.path" in message


def test_other_paths_have_an_error_message(touch, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no recordings or images" in error_message(str(tmp_path / "empty"))
    assert "does not exist" in error_message(str(tmp_path / "missing"))
    assert "is neither a folder nor a" in error_message(os.path.join(touch("set.zip"), "set.zip"))
    assert "data.path is empty" in error_message("")


def test_the_home_folder_may_be_a_tilde(touch, monkeypatch):
    monkeypatch.setenv("HOME", os.path.dirname(touch("set/a/1.wav", "set/b/1.wav")))
    manifest = read(f"~/{os.path.basename(touch())}/set")
    assert paths(manifest) == ["a/1.wav", "b/1.wav"]
    assert manifest.read(manifest.items[0]) == b""


def test_names_with_line_breaks_keep_the_message_on_one_line(touch):
    assert r"'a\nb'" in error_message(touch("a\nb/1.wav"))


@pytest.mark.parametrize("column", [{"label": "speaker"}, {"group": "speaker"}])
def test_columns_are_refused_for_a_folder(touch, column):
    folder = touch("a/1.wav", "b/1.wav", "manifest.csv")
    message = error_message(folder, **column)
    assert f"data.{next(iter(column))}='speaker'" in message
    assert "manifest.csv" in message
    assert len(read(folder, group="").items) == 2
