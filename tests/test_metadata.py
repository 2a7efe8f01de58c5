"""Hugging Face's audiofolder and imagefolder."""

import json
import os

import pytest
from manifests import error_message, paths, read, splits

FILES = ("data/a.wav", "data/b.wav", "data/c.wav", "data/d.wav")
CSV = "file_name,label,who\ndata/a.wav,x,1\ndata/b.wav,y,1\ndata/c.wav,x,2\ndata/d.wav,y,2\n"


@pytest.fixture
def folder(touch):
    """Writes texts and empty files; returns their folder."""

    def folder(texts, files=FILES, encoding="utf-8"):
        path = touch(*files)
        for name, text in texts.items():
            os.makedirs(os.path.dirname(os.path.join(path, name)), exist_ok=True)
            with open(os.path.join(path, name), "w", encoding=encoding) as file:
                file.write(text)
        return path

    return folder


def lines(text: str) -> str:
    header, *rows = (line.split(",") for line in text.split())
    return "\n".join(json.dumps(dict(zip(header, row, strict=True))) for row in rows)


@pytest.mark.parametrize(
    "texts",
    [
        {"metadata.csv": CSV},
        {"Metadata.CSV": CSV.replace(",", ";")},
        {"metadata.jsonl": lines(CSV)},
        {"metadata.csv": CSV.replace("file_name", "audio_file_name")},
        {"metadata.csv": CSV.replace("data/", "data\\")},
        {"metadata.csv": CSV.replace("data/", "")},
        {"metadata.csv": CSV.replace("label", "Label").replace("file_name", "File_Name")},
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_metadata_at_the_root_are_read_when_the_folder_is_named(folder, texts, encoding):
    manifest = read(folder(texts, encoding=encoding), group="who")
    assert paths(manifest) == list(FILES)
    assert [item.label for item in manifest.items] == ["x", "y", "x", "y"]
    assert [item.group for item in manifest.items] == ["1", "1", "2", "2"]
    assert manifest.notes[0] == f"read {min(texts)}"
    assert manifest.left_out == {}


def test_metadata_in_the_only_folder_are_read(folder):
    files = [f"archive/{name}" for name in FILES]
    manifest = read(folder({"archive/metadata.csv": CSV, "archive/README.md": ""}, files))
    assert paths(manifest) == files
    assert manifest.notes[0] == "read archive/metadata.csv"


def test_the_column_file_name_comes_before_longer_names(folder):
    text = CSV.replace("file_name", "original_file_name,file_name").replace(
        "\ndata/", "\nold,data/"
    )
    assert paths(read(folder({"metadata.csv": text}))) == list(FILES)


def test_metadata_in_other_folders_stop_the_run(folder):
    texts = {f"{name}/metadata.csv": "file_name,label\n1.wav,x\n2.wav,y\n" for name in ("a", "b")}
    message = error_message(folder(texts, [f"{a}/{i}.wav" for a in "ab" for i in "12"]))
    assert "which is not a split folder" in message


def test_images_are_read_too(folder):
    files = [name.replace("wav", "png") for name in FILES]
    manifest = read(folder({"metadata.csv": CSV.replace("wav", "png")}, files))
    assert (manifest.kind, paths(manifest)) == ("image", files)


def test_files_that_are_not_listed_are_counted(folder):
    manifest = read(folder({"metadata.csv": CSV}, (*FILES, "data/e.wav", "f.txt", ".git/x")))
    assert manifest.left_out == {".wav": 1, ".txt": 1, "hidden": 1}
    assert manifest.notes[1] == "1 file not listed, e.g. 'data/e.wav', left out"


@pytest.mark.parametrize("above", ["", "data/", "archive/my set/"])
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_metadata_in_split_folders_give_the_split(folder, above, name):
    text = "file_name,label,split\na.wav,x,?\nb.wav,y,?\n"
    text = text if name.endswith("csv") else lines(text)
    names = ("train", "validation", "test")
    files = [f"{above}{split}/{file}.wav" for split in names for file in "ab"]
    manifest = read(folder({f"{above}{split}/{name}": text for split in names}, files))
    assert splits(manifest) == {
        path: {"v": "val"}.get(path.removeprefix(above)[0]) or path.split("/")[-2] for path in files
    }
    assert manifest.notes[0].count(name) == 3


def test_metadata_at_the_root_may_list_files_of_split_folders(folder):
    rows = ["train/a.wav,x", "train/b.wav,y", "test/c.wav,x"]
    texts = {"metadata.csv": "\n".join(["file_name,label", *rows])}
    files = ["train/a.wav", "train/b.wav", "test/c.wav"]
    assert splits(read(folder(texts, files))) == {files[0]: "", files[1]: "", files[2]: "test"}
    texts = {"metadata.csv": "file_name,label,split\n" + "".join(f"{row},train\n" for row in rows)}
    assert set(splits(read(folder(texts, files))).values()) == {""}


def test_class_folders_give_the_labels_that_metadata_lack(folder):
    files = [f"{name}/{i}.wav" for name in ("owl", "wren") for i in (1, 2)]
    rows = "".join(f"{file},{file[-5]}\n" for file in files[:3])
    manifest = read(folder({"metadata.csv": "file_name,who\n" + rows}, files), group="who")
    assert [(item.label, item.group) for item in manifest.items] == [
        ("owl", "1"),
        ("owl", "2"),
        ("wren", "1"),
        ("wren", ""),
    ]
    assert manifest.notes[-1].startswith("read metadata.csv, which has no column 'label'")


@pytest.mark.parametrize(
    ("texts", "keys", "words"),
    [
        ({"metadata.csv": "file_name,transcription\ndata/a.wav,x\n"}, {}, ["'transcription'"]),
        ({"metadata.csv": CSV}, {"label": "klass"}, ["data.label", "'klass'", "'who'"]),
        ({"metadata.csv": CSV, "metadata.jsonl": lines(CSV)}, {}, ["keep one"]),
        ({"metadata.csv": "file_name,label\n"}, {}, ["no rows"]),
        ({"metadata.csv": CSV + "data/a.wav,x,1\n"}, {}, ["line 6", "again", "line 2"]),
        ({"metadata.csv": CSV.replace("data/a", "x")}, {"group": "label"}, ["data.group"]),
        ({"metadata.csv": CSV.replace(",x,", ",x;y,")}, {}, ["line 2", "several classes"]),
        ({"metadata.csv": CSV + "https://x.org/e.wav,x,3\n"}, {}, ["line 6", "local"]),
    ],
)
def test_wrong_metadata_have_an_error_message(folder, texts, keys, words):
    message = error_message(folder(texts), **keys)
    assert all(word in message for word in words), message


def test_metadata_of_other_programs_are_not_read(folder):
    """A table without file_name leaves class folders what they are, whatever its encoding."""
    files = [f"{name}/{i}.wav" for name in ("owl", "wren") for i in (1, 2)]
    path = folder({"metadata.csv": "file,label\nowl/1.wav,é\n"}, files, encoding="latin-1")
    assert [item.label for item in read(path).items] == ["owl", "owl", "wren", "wren"]
    path = folder({"metadata.csv": "file,label\nowl/1.wav,x\nwren/1.wav,y\n"}, files)
    manifest = read(path, file_column="file")
    assert [item.label for item in manifest.items] == ["x", "y"]


@pytest.mark.parametrize(
    ("column", "keys"), [("Split", {}), ("subset", {"split_column": "subset"})]
)
def test_the_split_of_metadata_at_the_root_is_used(touch, column, keys):
    folder = touch("1.wav", "2.wav", "3.wav", "4.wav")
    rows = ["1.wav,x,train", "2.wav,y,train", "3.wav,x,validation", "4.wav,y,validation"]
    text = f"file_name,label,{column}\n" + "\n".join(rows) + "\n"
    with open(os.path.join(folder, "metadata.csv"), "w") as file:
        file.write(text)
    assert [item.split for item in read(folder, **keys).items] == ["train", "train", "val", "val"]
