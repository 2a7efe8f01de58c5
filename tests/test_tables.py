"""Tables as data sets, and the error messages for other tables."""

import json
import os
import unicodedata
from pathlib import Path

import pytest
from manifests import error_message, paths, read, splits

from meljax.config import DataConfig
from meljax.data.manifest import Bad, Item
from meljax.data.sources import read_manifest
from meljax.data.tables.labels import several_classes

FILES = ("a.wav", "b.wav", "c.wav", "d.wav")


@pytest.fixture
def table(touch):
    """Writes a table beside the files it names; returns its path."""

    def table(text, files=FILES, encoding="utf-8", name="list.CSV"):
        path = os.path.join(touch(*files), name)
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
    assert (manifest.root, manifest.kind, manifest.left_out) == (
        touch(),
        "audio",
        {".wav not in the table": 1},
    )


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
    inside = os.path.join(touch("a.wav"), "a.wav")
    outside = Path(touch()).parent / "e.wav"
    outside.touch()
    text = f"path,label\n{inside},x\n./b.wav,y\n../set/c.wav,y\n../e.wav,x\n"
    manifest = read(table(text))
    assert paths(manifest) == ["../e.wav", "a.wav", "b.wav", "c.wav"]
    assert all((Path(manifest.root) / path).is_file() for path in paths(manifest))
    manifest = read(table(f"path,label\n{outside},x\na.wav,y\n"))
    assert paths(manifest) == [str(outside), "a.wav"]


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
        ("path,label,split\na.wav,x,banana\nb.wav,y,\n", ["line 2", "'banana'"]),
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
        ("sonido,label\na.wav,x\nb.wav,y\n", ["data.file_column=sonido", "no column 'path'"]),
        ("path,label,label\na.wav,x,x\nb.wav,y,y\n", ["more than one column 'label'"]),
        ("path,label\na.wav,x\nb.wav,x\n", ["one class only", "'x'"]),
        ("path,label\n8.wav,x\n9.wav,y\n", ["none of the files", "no such file", "relative to"]),
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
    assert "UTF-8" in error_message(table("path,label\na.wav,x\n", encoding="utf-16-le"))


TWO = (("a.wav", "x", ""), ("b.wav", "y", ""))
"""Path, label and group of the items of the tables below."""


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("path;label\na.wav;x\nb.wav;y\n", {}),
        ("path\tlabel\na.wav\tx\nb.wav\ty\n", {}),
        ("path|label\na.wav|x\nb.wav|y\n", {}),
        ("sep=;\r\npath;label\r\na.wav;x\r\nb.wav;y\r\n", {}),
        ('"sep=|"\npath|label\na.wav|x\nb.wav|y\n', {}),
        ("sep=\t\npath\tlabel\na.wav\tx\nb.wav\ty\n", {}),
        ("SEP=,\npath,label\na.wav,x\nb.wav,y\n", {}),
        ("path,label\ra.wav,x\rb.wav,y\r", {}),
        ("Path,LABEL\na.wav,x\nb.wav,y\n", {}),
        (' path ,"label "\na.wav, x\nb.wav, "y"\n', {}),
        ("'path','label'\na.wav,x\nb.wav,y\n", {}),
        ("path,label,\na.wav,x,\nb.wav,y,\n", {}),
        ("path,label\na.wav,x,\nb.wav,y,,\n", {}),
        ("path,label,,\na.wav,x\nb.wav,y\n", {}),
        (",path,label\n0,a.wav,x\n1,b.wav,y\n", {}),
        ("path;label;note\na.wav;x;1,5, 2\nb.wav;y;2,5, 3\n", {}),
        ("path;label;start, end\na.wav;x;1\nb.wav;y;2\n", {}),
        ("\n\npath,label\n\na.wav,x\n , \nb.wav,y", {}),
        ("File,label\na.wav,x\nb.wav,y\n", {}),
        ("label,FileName\nx,a.wav\ny,b.wav\n", {}),
        ("id,name,label\n1,a.wav,x\n2,b.wav,y\n", {}),
        ("path,fname,label\n/gone/1,a.wav,x\n/gone/2,b.wav,y\n", {}),
        ("name,label,sound\ntom,x,a.wav\nann,y,b.wav\n", {"file_column": "sound"}),
        ("path,file,label\nb.wav,a.wav,x\na.wav,b.wav,y\n", {"file_column": "FILE"}),
        ("path,Word,word\na.wav,1,x\nb.wav,2,y\n", {"label": "word"}),
        ("path,label,set\na.wav,x,train\nb.wav,y,train\n", {"split_column": "set"}),
        (".\\a.wav".join(("path,label\n", ",x\n")) + "C:\\new\\b.wav,y\n", {}),
        ("path,label\n/old/place/a.wav,x\n../../b.wav,y\n", {}),
        ("path,label\nfile:///old/a.wav,x\nfile://b.wav,y\n", {}),
        ("path,label\na,x\nsub/../b,y\n", {}),
        ("fname,label\nold/a,x\nb,y\n", {}),
    ],
)
def test_tables_of_other_forms_are_read(table, text, keys):
    items = read(table(text), **keys).items
    assert tuple((item.path, item.label, item.group) for item in items) == TWO


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", 'path\tlabel\tsentence\na.wav\tx\t"No" she said\nb.wav\ty\t"open\n'),
        ("a.TSV", "path\tlabel, first\tlabel\na.wav\t1, 2\tx\nb.wav\t1, 2\ty\n"),
        ("a.tab", "path\tlabel\na.wav\tx\nb.wav\ty\n"),
        ("a.txt", "path,label\na.wav,x\nb.wav,y\n"),
        ("a.jsonl", '{"path": "a.wav", "label": "x"}\n\n{"label": "y", "path": "b.wav"}\r\n'),
        ("a.ndjson", '{"file": "a.wav", "label": ["x"]}\n{"file": "b.wav", "label": "y"}'),
        ("a.json", '[{"path": "a.wav", "label": "x"},\n {"path": "b.wav", "label": "y"}]'),
        ("b.json", '{"path": "a.wav", "label": "x"}\n{"path": "b.wav", "label": "y"}\n'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tsv_and_json_are_read_in_their_encodings(table, name, text, encoding):
    manifest = read(table(text, name=name, encoding=encoding))
    assert tuple((item.path, item.label, item.group) for item in manifest.items) == TWO


def test_json_values_become_text_as_they_are_written(table):
    rows = [("a.wav", 1), ("b.wav", 1.0), ("c.wav", True), ("d.wav", "é ")]
    lines = [json.dumps({"path": path, "label": label, "group": 7}) for path, label in rows]
    manifest = read(table("\n".join(lines), name="a.jsonl"))
    assert [item.label for item in manifest.items] == ["1", "1.0", "true", "é"]
    assert {item.group for item in manifest.items} == {"7"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '{"path": "a.wav", "label": "x"}\n{"path": "b.wav", "label": null}\n',
            ["line 2", "label"],
        ),
        ('{"path": "a.wav", "label": "x"}\n\n{"path": "b.wav"}\n', ["line 3", "no label"]),
        ('{"path": "a.wav", "label": "x"}\n["b.wav", "y"]\n', ["line 2", "object"]),
        ('{"path": "a.wav", "label": "x"}\n{"path": "b.wav"\n', ["line 2", "not valid JSON"]),
        ('{"path": "a.wav",\n"label": "x"}\n', ["line 1", "one object per line"]),
        ('[{"path": "a.wav", "label": "x"}, {"path": "b.wav"}]', ["entry 2", "no label"]),
        ('[{"path": "a.wav"},\n{"path": "b.wav"', ["line 2", "not valid JSON"]),
        ('{"path": "a.wav", "label": ["x", "y"]}\n', ["several classes", "line 1"]),
        ('{"path": "a.wav", "label": {"x": 1}}\n', ["several classes", "line 1"]),
        ('{"a.wav": "x", "b.wav": "y"}', ["data.label", "'a.wav'"]),
        ('{"path": {"0": "a.wav"}, "label": {"0": "x"}}', ["the values of each column", "records"]),
        ('{"path": ["a.wav"], "label": ["x"]}', ["the values of each column", "records"]),
        ("", ["no rows"]),
    ],
)
def test_wrong_json_has_an_error_message(table, text, words):
    message = error_message(table(text, name="a.json"))
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("text", "keys", "words"),
    [
        ("a.wav,x\nb.wav,y\n", {}, ["no header", "'a.wav'"]),
        ("wo,label\na.mp3,x\nb.mp3,y\n", {}, ["data.file_column", "'wo'"]),
        ("path,label\na.wav,x\n", {"file_column": "pth"}, ["no column 'pth'", "nearest is 'path'"]),
        ("path,Label,LABEL\na.wav,x,x\n", {}, ["data.label", "more than one column"]),
        ("path,Class\na.wav,x\nb.wav,y\n", {}, ["set data.label=Class;"]),
        ("path,common species,species\na.wav,x,z\n", {}, ["set data.label=species;"]),
        ("path,class,target\na.wav,x,1\n", {}, ["data.label=class or data.label=target"]),
        ("path,class\na.wav,x\n", {"label": "clas"}, ["no column 'clas'", "nearest is 'class'"]),
        ("path,label\na.wav,x\n", {"split_column": "set"}, ["data.split_column", "'set'"]),
        ("path,label\na.wav,x\n", {"root": "/nowhere"}, ["data.root", "does not exist"]),
        ("path,label\na.wav,x\n", {"pattern": "(?P<label>.)"}, ["data.pattern", "table"]),
        ("path,label\ns3://a/a.wav,x\nb.wav,y\n", {}, ["line 2", "local", "data.root"]),
        ("path,label\na.wav,x\nb.wav,y\nc.wav,x;y\n", {}, ["line 4", "'x;y'", "several classes"]),
        ("path,label\na.wav,x\n/d/a.wav,x\nb.wav,y\n/e/b,y\n", {}, ["no such file"]),
        ("id,label\na,x\na.wav,y\n", {}, ["line 3", "again", "line 2", "keep one"]),
        (
            "id,label,Onset,offset\na,x,0,1\na,y,2,3\n",
            {},
            ["again", "set data.start_column=Onset data.end_column=offset"],
        ),
        (
            "path,label\na.wav,x\n9.wav,y\n",
            {},
            ["one class", "1 files or folders cannot be used", "9.wav"],
        ),
        ("path,label\n", {"label": ""}, ["no rows"]),
        ("path,label,\na.wav,x,1\nb.wav,y,2\n", {"label": ""}, ["no column ''"]),
        ("path," + ",".join(f"c{i}" for i in range(99)) + "\na.wav" + ",1" * 99, {}, ["80 more"]),
    ],
)
def test_a_table_that_does_not_fit_the_keys_has_an_error_message(table, text, keys, words):
    if words == ["no such file"]:  # a file that another row names directly is not searched for
        assert {str(bad) for bad in read(table(text), **keys).bad} == {
            "/d/a.wav: no such file",
            "/e/b: no such file",
        }
        return
    message = error_message(table(text), **keys)
    assert all(word in message for word in words), message


def test_files_are_searched_below_the_root(table, touch, monkeypatch):
    touch("sounds/1/p.wav", "sounds/2/q.flac", "sounds/1/r.wav", "sounds/2/r.wav")
    monkeypatch.chdir(Path(touch()).parent)
    manifest = read(table("fname,label\np.wav,x\nq,y\n"), root="set/sounds")
    assert paths(manifest) == ["1/p.wav", "2/q.flac"]
    assert manifest.root == "set/sounds"
    assert manifest.notes == (
        "list.CSV: column 'fname' names the files",
        "2 of 2 files were found by searching for their names below 'set/sounds'",
        "1 file is named without suffix: 'q' is '2/q.flac'",
    )
    # Folders tell files of one name apart.
    windows = table("path,label\nC:\\old\\1\\r.wav,x\nC:\\old\\2\\r.wav,y\n")
    assert paths(read(windows, root="set/sounds")) == ["1/r.wav", "2/r.wav"]
    message = error_message(table("path,label\nr.wav,x\np.wav,y\n"), root="set/sounds")
    assert all(word in message for word in ("line 2", "'1/r.wav'", "'2/r.wav'", "data.root"))
    touch("sounds/1/q.wav")
    message = error_message(table("path,label\np.wav,x\nq,y\n"), root="set/sounds")
    assert "'1/q.wav' and '2/q.flac'" in message


@pytest.mark.parametrize(("disk", "cells"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_may_differ_in_their_unicode_form(table, touch, disk, cells):
    name = unicodedata.normalize(disk, "käfer/ö.wav")
    text = unicodedata.normalize(cells, "päth,läbel\nkäfer/ö.wav,x\n")
    manifest = read(
        table(text + "b.wav,y\n", files=(name, "b.wav")),
        label=unicodedata.normalize(disk, "läbel"),
        file_column=unicodedata.normalize(disk, "päth"),
    )
    assert paths(manifest) == ["b.wav", name]
    assert manifest.notes == ()


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (["a", "b", "a;b"], "a;b"),
        (["a", "b", "a, b"], "a, b"),
        (["a", "b", "a|c"], "a|c"),
        (["a", "b", "a + b"], "a + b"),
        (["dog", "cat", "dog/cat"], "dog/cat"),
        (["dog", "cat", "cat dog", "dog cat"], "cat dog"),
        (["sea", "lion", "sea lion"], ""),
        (["dog", "cat", "cat & dog"], "cat & dog"),
        (["a;b", "b;c", "a;c"], "a;b"),
        (["Dog", "cat", "dog,Cat"], "dog,Cat"),
        (["music", "piano,music", "guitar,strings,music"], ""),
        (["music", "strings,music", "guitar,strings,music"], "strings,music"),
        (["x", "['a', 'b']"], "['a', 'b']"),
        (["x", "['a' 'b']"], "['a' 'b']"),
        (["x", '["a", "b"]'], '["a", "b"]'),
        (["Smith, John", "Doe; Jane", "Smith, Jane", "Doe"], "Doe; Jane"),
        (["Smith, John", "Smith, Jane", "Doe, John", "Doe, Jane"], ""),
        (["Gull, Herring", "Gull", "Gull, Herring, young"], ""),
        (["low; male", "low; female", "high; male", "high; female"], ""),
        (["a;", "a", "b"], ""),
        (["[a]", "(a, b)", "a/b", "a+b", "a"], ""),
    ],
)
def test_labels_that_name_several_classes_are_told_from_names_with_separators(labels, found):
    assert several_classes(labels) == found


SEGMENTS = "path,start,end,label\na.wav,10,11,y\na.wav,0,1.5,x\nb.wav,0,2,x\n"


def test_each_row_of_a_file_is_a_segment(table):
    manifest = read(table(SEGMENTS))
    assert manifest.items == (
        Item("a.wav", "x", start=0.0, end=1.5),
        Item("a.wav", "y", start=10.0, end=11.0),
        Item("b.wav", "x", start=0.0, end=2.0),
    )
    assert manifest.notes == ("each row is a segment (start to end) of one of 2 files",)
    assert manifest.items[0].name == "a.wav [0–1.5 s]"


def test_start_and_end_are_ignored_if_each_file_has_one_row(table):
    text = "path,Start,end,label\na.wav,2020-01-01,?,x\nb.wav,1,0,y\n"
    manifest = read(table(text))
    assert [item.start for item in manifest.items] == [None, None]
    assert manifest.notes == ("columns Start and end are ignored: each file has one row",)
    assert "2020-01-01" in error_message(table(text), start_column="Start")
    manifest = read(table("path,start,label\na.wav,1,x\nb.wav,2,y\n"))
    assert manifest.notes == ("column start is ignored: each file has one row",)
    manifest = read(table("path,Onset,offset,label\na.wav,1,2,x\nb.wav,2,3,y\n"))
    assert manifest.notes == ("columns Onset and offset are ignored: each file has one row",)


def test_columns_of_segments_that_are_named_are_always_used(table):
    text = "path;on;off;label\na.wav;0,5;1,25;x\nb.wav;1;2;y\n"
    items = read(table(text), start_column="on", end_column="off").items
    assert [(item.start, item.end) for item in items] == [(0.5, 1.25), (1, 2)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,start,label\na.wav,1,x\na.wav,2,y\n", ["data.end_column", "no column 'end'"]),
        ("path,end,label\na.wav,1,x\na.wav,2,y\n", ["data.start_column", "no column 'start'"]),
        (SEGMENTS + "./a.wav,0,1.50,y\n", ["line 5", "again", "line 3", "0.0 to 1.5 s"]),
        (SEGMENTS + "c.wav,2,1,y\n", ["line 5", "after"]),
        (SEGMENTS + "c.wav,2,2,y\n", ["line 5", "without duration"]),
        (SEGMENTS + "c.wav,-1,2,y\n", ["line 5", "'-1'", "'start'"]),
        (SEGMENTS + "c.wav,1,,y\n", ["line 5", "''", "'end'"]),
        (SEGMENTS + "c.wav,1,inf,y\n", ["line 5", "'inf'"]),
        (SEGMENTS + "c.wav,1,0:03,y\n", ["line 5", "'0:03'"]),
        (SEGMENTS.replace("wav", "png"), ["segments of images"]),
    ],
)
def test_wrong_segments_have_an_error_message(table, text, words):
    message = error_message(table(text, (*FILES, "a.png", "b.png")))
    assert all(word in message for word in words), message


def test_rows_of_one_file_share_a_given_split(table):
    rows = ["a.wav,0,1,x,train", "a.wav,1,2,y,val", "b.wav,0,1,y,train"]
    message = error_message(table("\n".join(["path,start,end,label,split", *rows])))
    assert all(word in message for word in ("line 3", "line 2", "'a.wav'", "one split"))


def test_two_missing_files_are_not_taken_for_one_of_their_name(touch):
    folder = touch("c/rec.wav", "c/other.wav")
    table = os.path.join(folder, "calls.csv")
    with open(table, "w") as file:
        file.write("path,start,end,label\na/rec.wav,0,1,x\nb/rec.wav,1,2,y\nother.wav,0,1,x\n")
    assert [bad.path for bad in read_manifest(DataConfig(path=table), training=False).bad] == [
        "a/rec.wav",
        "b/rec.wav",
    ]


@pytest.mark.parametrize("name", ["set", "subset", "Partition"])
def test_a_column_of_splits_that_is_not_used_is_noted(touch, name):
    table = os.path.join(touch("1.wav", "2.wav", "3.wav", "4.wav"), "list.csv")
    rows = ["1.wav,x,train", "2.wav,y,train", "3.wav,x,test", "4.wav,y,test"]
    with open(table, "w") as file:
        file.write(f"path,label,{name}\n" + "\n".join(rows) + "\n")
    assert f"set data.split_column={name}" in read(table).notes[0]
    assert {item.split for item in read(table, split_column=name).items} == {"", "test"}


@pytest.mark.parametrize(
    ("files", "cells"),
    [
        (("dog/1.wav", "dog/3.wav", "cat/1.wav"), ("dog/1.wav", "cat/1.wav", "cat/3.wav")),
        (("test/1.wav", "a.wav", "b.wav"), ("a.wav", "b.wav", "train/1.wav")),
        (("2020/r.wav", "a.wav", "b.wav"), ("a.wav", "b.wav", "D:\\data\\2021\\r.wav")),
        (("siteB/r.wav", "a.wav", "b.wav"), ("a.wav", "b.wav", "siteA/r.wav")),
    ],
)
def test_a_missing_file_is_not_another_one_of_its_name(table, files, cells):
    rows = [f"{cell},{'xyz'[i % 2]}" for i, cell in enumerate(cells)]
    manifest = read(table("\n".join(["path,label", *rows]), files))
    assert [bad.reason for bad in manifest.bad] == ["no such file"]
    assert len(manifest.items) == 2


@pytest.mark.parametrize(
    ("files", "cells"),
    [
        (("wavs/part1/1.wav", "wavs/part1/2.wav"), ("wavs/1.wav", "wavs/2.wav")),
        (("clips/1.wav", "clips/2.wav"), ("/elsewhere/sounds/1.wav", "/elsewhere/sounds/2.wav")),
        (("new/train/1.wav", "new/train/2.wav"), ("old/train/1.wav", "old/train/2.wav")),
    ],
)
def test_a_file_that_moved_is_found(table, files, cells):
    rows = [f"{cell},{'xy'[i]}" for i, cell in enumerate(cells)]
    assert paths(read(table("\n".join(["path,label", *rows]), files))) == list(files)


def test_of_two_columns_of_files_the_one_that_names_them_exactly_is_read(table):
    files = ("raw/r0.wav", "raw/r1.wav", "r0_a.wav", "r1_a.wav")
    text = "recording,clip,label\nr0,r0_a.wav,x\nr1,r1_a.wav,y\n"
    assert paths(read(table(text, files))) == ["r0_a.wav", "r1_a.wav"]


@pytest.mark.parametrize("comments", ["# made by hand\n", "# one\n# two, with a comma\n"])
def test_comments_above_the_header_are_passed_over(table, comments):
    manifest = read(table(f"{comments}path,label\na.wav,x\nb.wav,y\n"))
    assert paths(manifest) == ["a.wav", "b.wav"]
    message = error_message(table(f"{comments}path,label\na.wav,x\nb.wav,\n"))
    assert f"line {3 + comments.count(chr(10))}" in message


@pytest.mark.parametrize("values", ["train test", "train  test", "train test extra", "tr te va"])
def test_a_column_of_splits_that_is_not_used_is_named(table, values):
    rows = [f"{'abcd'[i]}.wav,{'xyxy'[i]},{v}" for i, v in enumerate(values.split(" "))]
    (note,) = read(table("\n".join(["path,label,subset", *rows]))).notes
    assert "data.split_column=subset" in note


def test_a_group_column_of_splits_stops_the_run(table):
    path = table("path,label,group\na.wav,x,train\nb.wav,y,test\nc.wav,x,test\nd.wav,y,train\n")
    assert "data.split_column=group data.group=''" in error_message(path)
    assert splits(read(path, group="", split_column="group"))["b.wav"] == "test"
