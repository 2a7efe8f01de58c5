"""What a folder or a CSV may look like, and how a wrong one is explained."""

import os
from pathlib import Path

import pytest

from meljax.data.files import Bad, Item, scan
from meljax.errors import UserError


@pytest.fixture
def touch(tmp_path):
    """Create empty files below a fresh folder; return the folder as text."""

    def touch(*paths):
        for path in paths:
            file = tmp_path / "set" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return str(tmp_path / "set")

    return touch


@pytest.fixture
def table(touch):
    """Write a CSV beside the files it names; return its path."""

    def table(text, files=("a.wav", "b.wav", "c.wav", "d.wav"), encoding="utf-8"):
        path = os.path.join(touch(*files), "list.CSV")
        with open(path, "w", encoding=encoding, newline="") as file:
            file.write(text)
        return path

    return table


def complaint(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        scan(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


def paths(listing):
    return [item.path for item in listing.items]


def splits(listing):
    return {item.path: item.split for item in listing.items}


def test_classes_are_the_sub_folders_and_files_are_found_at_any_depth(touch):
    listing = scan(touch("b/deep/er/2.flac", "b/1.wav", "a/x.wav"))
    assert listing.items == (
        Item("a/x.wav", "a"),
        Item("b/1.wav", "b"),
        Item("b/deep/er/2.flac", "b"),
    )
    assert (listing.kind, listing.ignored, listing.bad) == ("sound", 0, ())
    assert all((Path(listing.root) / path).is_file() for path in paths(listing))


@pytest.mark.parametrize(
    "suffix", ["png", "jpg", "jpeg", "bmp", "webp", "tif", "tiff", "PNG", "JpG"]
)
def test_pictures_are_known_by_suffix(touch, suffix):
    assert scan(touch(f"a/x.{suffix}", f"b/x.{suffix}")).kind == "image"


@pytest.mark.parametrize(
    "suffix", ["wav", "flac", "ogg", "oga", "opus", "mp3", "aif", "aiff", "aifc", "WAV", "Mp3"]
)
def test_recordings_are_known_by_suffix(touch, suffix):
    assert scan(touch(f"a/x.{suffix}", f"b/x.{suffix}")).kind == "sound"


def test_everything_else_is_ignored_and_counted(touch):
    junk = ("LICENSE", "manifest.csv", "loose.wav", "a/._1.wav", "a/Thumbs.db", "a/.DS_Store")
    folder = touch("a/1.wav", "b/1.wav", "__MACOSX/a/1.wav", ".git/a/1.wav", *junk)
    listing = scan(folder)
    assert paths(listing) == ["a/1.wav", "b/1.wav"]
    assert listing.ignored == len(junk) + 2
    assert listing.bad == ()


def test_items_are_in_plain_string_order_not_in_order_of_folders(touch):
    listing = scan(touch("a/z.wav", "a-b/1.wav", "B/1.wav", "a/é.wav", "a/10.wav", "a/9.wav"))
    assert paths(listing) == sorted(paths(listing))
    assert paths(listing)[0] == "B/1.wav"


def test_linked_folders_are_followed_and_loops_end(touch, tmp_path):
    folder = touch("a/1.wav", "b/1.wav")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.wav").touch()
    os.symlink(tmp_path / "elsewhere", os.path.join(folder, "a", "more"))
    os.symlink(folder, os.path.join(folder, "b", "loop"))
    assert paths(scan(folder)) == ["a/1.wav", "a/more/2.wav", "b/1.wav"]


def test_a_dangling_link_is_a_bad_entry(touch):
    folder = touch("a/1.wav", "b/1.wav")
    os.symlink("nowhere.wav", os.path.join(folder, "a", "2.wav"))
    assert scan(folder).bad == (Bad("a/2.wav", "no such file"),)


def test_file_names_that_are_not_utf8_are_listed(touch):
    folder = touch("a/1.wav", "b/1.wav")
    try:
        open(os.path.join(os.fsencode(folder), b"a", b"\xff.wav"), "wb").close()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert paths(scan(folder))[-2:] == [os.fsdecode(b"a/\xff.wav"), "b/1.wav"]


def test_an_empty_class_folder_is_a_bad_entry(touch):
    listing = scan(touch("a/1.png", "b/1.png", "c/readme.txt", "d/deep/.x.png"))
    reason = "class folder holds no picture"
    assert listing.bad == (Bad("c", reason), Bad("d", reason))
    assert paths(listing) == ["a/1.png", "b/1.png"]


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_train_and_val_folders_are_a_given_split(touch, val):
    listing = scan(touch("train/a/1.wav", "train/b/x/1.wav", f"{val}/a/2.wav", "test/b/3.wav"))
    assert splits(listing) == {
        "train/a/1.wav": "train",
        "train/b/x/1.wav": "train",
        f"{val}/a/2.wav": "val",
        "test/b/3.wav": "test",
    }
    assert [item.label for item in listing.items if item.split != "val"] == ["b", "a", "b"]


def test_without_val_the_training_files_are_still_to_be_decided(touch):
    listing = scan(touch("train/a/1.wav", "train/b/1.wav", "test/b/3.wav"))
    assert splits(listing) == {"train/a/1.wav": "", "train/b/1.wav": "", "test/b/3.wav": "test"}


def test_train_alone_is_no_class(touch):
    listing = scan(touch("train/a/1.wav", "train/b/1.wav", "train/loose.wav"))
    assert {(item.label, item.split) for item in listing.items} == {("a", ""), ("b", "")}
    assert listing.ignored == 1


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        (("train/1.png", "bus/1.png"), {"train", "bus"}),
        (("train/deep/1.png", "bus/1.png"), {"train", "bus"}),
        (("train/1.png", "test/1.png"), {"train", "test"}),
        (("val/a/1.png", "test/a/1.png"), {"val", "test"}),
    ],
)
def test_classes_may_be_called_train_and_test(touch, files, labels):
    listing = scan(touch(*files))
    assert {item.label for item in listing.items} == labels
    assert {item.split for item in listing.items} == {""}


def test_two_names_of_one_side_are_refused(touch):
    message = complaint(touch("train/a/1.wav", "train/b/1.wav", "val/a/1.wav", "valid/a/2.wav"))
    assert "'val'" in message
    assert "'valid'" in message


def test_a_class_that_train_lacks_is_named_with_the_nearest(touch):
    message = complaint(touch("train/dog/1.wav", "train/cat/1.wav", "val/dgo/1.wav"))
    assert "'dgo'" in message
    assert "'dog'" in message


def test_a_side_without_class_folders_is_explained(touch):
    message = complaint(touch("train/a/1.wav", "train/b/1.wav", "val/1.wav"))
    assert "sub-folder per class" in message
    assert "val/1.wav" in message


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ("1.wav", "2.wav"),
            "2 files directly, such as '1.wav': expected one sub-folder per class",
        ),
        (("a/1.wav",), "one class only, 'a'"),
        (("a/1.wav", "b/notes.txt"), "one class only, 'a'"),
        (("all/a/1.wav", "all/b/1.wav"), "did you mean"),
        (("a/1.m4a", "b/1.m4a"), "2 other files, such as 'a/1.m4a'"),
        (("a/1.wav", "b/1.wav", "b/x.png"), "1 pictures (such as 'b/x.png') with 2 recordings"),
    ],
)
def test_a_wrong_folder_is_explained(touch, files, words):
    message = complaint(touch(*files)).replace(" and ", " with ")
    assert words in message
    assert "data.path" in message


def test_paths_that_are_no_set_are_explained(touch, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "holds no picture or recording" in complaint(str(tmp_path / "empty"))
    assert "does not exist" in complaint(str(tmp_path / "missing"))
    assert "neither a folder nor a .csv" in complaint(os.path.join(touch("set.zip"), "set.zip"))
    assert "data.path is empty" in complaint("")


def test_names_with_line_breaks_keep_the_message_on_one_line(touch):
    assert r"'a\nb'" in complaint(touch("a\nb/1.wav"))


@pytest.mark.parametrize("column", [{"label": "speaker"}, {"group": "speaker"}])
def test_columns_mean_nothing_for_a_folder(touch, column):
    folder = touch("a/1.wav", "b/1.wav", "manifest.csv")
    message = complaint(folder, **column)
    assert f"data.{next(iter(column))}='speaker'" in message
    assert "manifest.csv" in message
    assert len(scan(folder, group="").items) == 2


def test_a_csv_gives_paths_labels_and_groups_as_text(table, touch):
    text = "path,label,group,note\r\nb.wav, 01 ,s1,x\r\na.wav,00,s2,\r\nc.wav,1,s1,\r\n\r\n"
    listing = scan(table(text, encoding="utf-8-sig"))
    assert listing.items == (
        Item("a.wav", "00", "s2"),
        Item("b.wav", "01", "s1"),
        Item("c.wav", "1", "s1"),
    )
    assert (listing.root, listing.kind, listing.ignored) == (touch(), "sound", 0)


def test_other_columns_are_named_by_the_arguments(table):
    path = table("who,path,word\n1,a.wav,x\n1,b.wav,y\n2,c.wav,x\n2,d.wav,y\n")
    assert {(i.label, i.group) for i in scan(path, "word", "who").items} == {
        (word, who) for word in "xy" for who in "12"
    }
    assert {item.group for item in scan(path, "word").items} == {""}


def test_no_groups_are_read_when_none_are_wanted(table):
    path = table("path,label,group\na.wav,x,1\nb.wav,y,2\nc.wav,y,1\n")
    assert {item.group for item in scan(path, group="").items} == {""}


def test_absolute_paths_and_parent_folders_are_allowed(table, touch):
    other = os.path.join(touch("a.wav"), "a.wav")
    listing = scan(table(f"path,label\n{other},x\n./b.wav,y\n../set/c.wav,y\n"))
    assert sorted(paths(listing)) == sorted([other, "b.wav", "../set/c.wav"])
    assert all((Path(listing.root) / path).is_file() for path in paths(listing))


def test_rows_without_a_usable_file_are_bad_entries(table):
    listing = scan(table("path,label\na.wav,x\nb.wav,y\nlist.CSV,y\n9.wav,x\n"))
    assert paths(listing) == ["a.wav", "b.wav"]
    assert listing.bad == (
        Bad("9.wav", "no such file"),
        Bad("list.CSV", "not a picture or recording"),
    )


def test_a_given_split_is_read_in_any_spelling(table):
    listing = scan(
        table("path,label,split\na.wav,x,Train\nb.wav,y,train\nc.wav,x,VALID\nd.wav,y,test\n")
    )
    assert splits(listing) == {"a.wav": "train", "b.wav": "train", "c.wav": "val", "d.wav": "test"}


@pytest.mark.parametrize("train", ["", "train"])
def test_a_split_without_val_is_still_to_be_decided(table, train):
    listing = scan(table(f"path,label,split\na.wav,x,{train}\nb.wav,y,{train}\nc.wav,x,test\n"))
    assert splits(listing) == {"a.wav": "", "b.wav": "", "c.wav": "test"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label,split\na.wav,x,dev\nb.wav,y,\n", ["line 2", "'dev'"]),
        ("path,label,split\na.wav,x,train\nb.wav,y,\nc.wav,x,val\n", ["line 3", "no split"]),
        ("path,label,split\na.wav,x,test\nb.wav,y,val\n", ["no row for training"]),
        (
            "path,label,split\na.wav,x,train\nb.wav,y,train\nc.wav,xx,val\n",
            ["'xx'", "not in train"],
        ),
        ("path,label\na.wav,x\nb.wav, \n", ["line 3", "no label"]),
        ("path,label\na.wav,x\n,y\n", ["line 3", "no path"]),
        ("path,label\na.wav,x\nb.wav,y\n./a.wav,x\n", ["line 4", "line 2", "a.wav"]),
        ("path,label\na.wav,x\nb.wav\n", ["line 3", "1 fields", "2"]),
        ("path,label\na.wav,x\nb.wav,y,z\n", ["line 3", "3 fields"]),
        ('path,label\na.wav,x\nb.wav,"y\n', ["line 3", "quotes"]),
        (
            "path,labels\na.wav,x\nb.wav,y\n",
            ["data.label", "no column 'label'", "'labels'", "'path'"],
        ),
        ("file,label\na.wav,x\nb.wav,y\n", ["data.path", "no column 'path'", "'file'"]),
        ("path,label,label\na.wav,x,x\nb.wav,y,y\n", ["more than one column 'label'"]),
        ("path;label\na.wav;x\nb.wav;y\n", ["'path;label'", "commas"]),
        ("path,label\na.wav,x\nb.wav,x\n", ["one class only", "'x'"]),
        ("path,label\n8.wav,x\n9.wav,y\n", ["none of the 2 files", "no such file", "relative to"]),
        ("path,label\n", ["no rows"]),
        ("", ["no rows"]),
        ("path,label,group\na.wav,x,x\nb.wav,y,y\n", ["data.group", "same as the label"]),
        (
            "path,label,group\na.wav,x,1\nb.wav,y,2\nc.wav,x,1\n",
            ["data.group", "same as the label"],
        ),
    ],
)
def test_a_wrong_csv_is_explained(table, text, words):
    message = complaint(table(text))
    assert all(word in message for word in words), message


def test_groups_that_repeat_the_label_are_refused_whatever_the_column(table):
    path = table("path,label,group\na.wav,x,1\nb.wav,y,2\nc.wav,y,1\n")
    assert "data.group" in complaint(path, group="label")
    assert "data.group" in complaint(path, label="group")
    assert "'speaker'" in complaint(path, group="speaker")


def test_mixed_kinds_in_a_csv_are_refused(table):
    message = complaint(table("path,label\na.wav,x\nb.png,y\n", files=("a.wav", "b.png")))
    assert "1 pictures" in message
    assert "1 recordings" in message


def test_a_csv_that_is_not_utf8_is_explained(table):
    assert "UTF-8" in complaint(table("path,label\na.wav,é\n", encoding="latin-1"))
    assert "UTF-8" in complaint(table("path,label\na.wav,x\n", encoding="utf-16"))
