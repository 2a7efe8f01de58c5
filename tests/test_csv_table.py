"""CSVs as data sets, and the error messages for other CSVs."""

import os
from pathlib import Path

import pytest
from manifests import error_message, paths, read, splits

from meljax.data.manifest import Bad, Item


@pytest.fixture
def table(touch):
    """Writes a CSV beside the files it names; returns its path."""

    def table(text, files=("a.wav", "b.wav", "c.wav", "d.wav"), encoding="utf-8"):
        path = os.path.join(touch(*files), "list.CSV")
        with open(path, "w", encoding=encoding, newline="") as file:
            file.write(text)
        return path

    return table


def test_a_csv_gives_paths_labels_and_groups_as_text(table, touch):
    text = "path,label,group,note\r\nb.wav, 01 ,s1,x\r\na.wav,00,s2,\r\nc.wav,1,s1,\r\n\r\n"
    manifest = read(table(text, encoding="utf-8-sig"))
    assert manifest.items == (
        Item("a.wav", "00", "s2"),
        Item("b.wav", "01", "s1"),
        Item("c.wav", "1", "s1"),
    )
    assert (manifest.root, manifest.kind, manifest.ignored) == (touch(), "audio", 0)


def test_label_and_group_may_be_other_columns(table):
    path = table("who,path,word\n1,a.wav,x\n1,b.wav,y\n2,c.wav,x\n2,d.wav,y\n")
    assert {(i.label, i.group) for i in read(path, "word", "who").items} == {
        (word, who) for word in "xy" for who in "12"
    }
    assert {item.group for item in read(path, "word").items} == {""}


def test_an_empty_group_reads_no_groups(table):
    path = table("path,label,group\na.wav,x,1\nb.wav,y,2\nc.wav,y,1\n")
    assert {item.group for item in read(path, group="").items} == {""}


def test_absolute_paths_and_parent_folders_are_allowed(table, touch):
    other = os.path.join(touch("a.wav"), "a.wav")
    manifest = read(table(f"path,label\n{other},x\n./b.wav,y\n../set/c.wav,y\n"))
    assert sorted(paths(manifest)) == sorted([other, "b.wav", "../set/c.wav"])
    assert all((Path(manifest.root) / path).is_file() for path in paths(manifest))


def test_rows_without_a_usable_file_are_bad_entries(table):
    manifest = read(table("path,label\na.wav,x\nb.wav,y\nlist.CSV,y\n9.wav,x\n"))
    assert paths(manifest) == ["a.wav", "b.wav"]
    assert manifest.bad == (
        Bad("9.wav", "no such file"),
        Bad("list.CSV", "not an image or recording"),
    )


def test_a_given_split_is_read_in_any_spelling(table):
    manifest = read(
        table("path,label,split\na.wav,x,Train\nb.wav,y,train\nc.wav,x,VALID\nd.wav,y,test\n")
    )
    assert splits(manifest) == {"a.wav": "train", "b.wav": "train", "c.wav": "val", "d.wav": "test"}


@pytest.mark.parametrize("train", ["", "train"])
def test_without_val_the_split_of_training_rows_is_open(table, train):
    manifest = read(table(f"path,label,split\na.wav,x,{train}\nb.wav,y,{train}\nc.wav,x,test\n"))
    assert splits(manifest) == {"a.wav": "", "b.wav": "", "c.wav": "test"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label,split\na.wav,x,dev\nb.wav,y,\n", ["line 2", "'dev'"]),
        ("path,label,split\na.wav,x,train\nb.wav,y,\nc.wav,x,val\n", ["line 3", "no split"]),
        ("path,label,split\na.wav,x,test\nb.wav,y,val\n", ["no rows for training"]),
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
def test_a_wrong_csv_has_an_error_message(table, text, words):
    message = error_message(table(text))
    assert all(word in message for word in words), message


def test_groups_that_repeat_the_label_are_refused_whatever_the_column(table):
    path = table("path,label,group\na.wav,x,1\nb.wav,y,2\nc.wav,y,1\n")
    assert "data.group" in error_message(path, group="label")
    assert "data.group" in error_message(path, label="group")
    assert "'speaker'" in error_message(path, group="speaker")


def test_mixed_kinds_in_a_csv_are_refused(table):
    message = error_message(table("path,label\na.wav,x\nb.png,y\n", files=("a.wav", "b.png")))
    assert "1 image (" in message
    assert "1 recording (" in message


def test_a_csv_that_is_not_utf8_is_refused(table):
    assert "UTF-8" in error_message(table("path,label\na.wav,é\n", encoding="latin-1"))
    assert "UTF-8" in error_message(table("path,label\na.wav,x\n", encoding="utf-16"))
