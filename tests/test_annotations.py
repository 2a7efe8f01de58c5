"""Raven selection tables and Audacity label files, alone and in folders."""

from pathlib import Path

import pytest
from manifests import error_message, paths, read, splits

from meljax.config import DataConfig
from meljax.data.manifest import Bad, Item
from meljax.data.sources import read_manifest

RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tAnnotation\n"
    "1\tWaveform 1\t1\t0.5\t1.5\t100\towl\n"
    "1\tSpectrogram 1\t1\t0.5\t1.5\t100\towl\n"
    "2\tSpectrogram 1\t1\t2\t3.25\t100\twren\n"
    "3\tSpectrogram 1\t1\t4\t5\t100\t\n"
)
AUDACITY = "0.500000\t1.500000\towl\n\\\t100.0\t200.0\n2,0\t3,25\twren\n4\t4\tpoint\n5\t6\t\n"
TWO = ((0.5, 1.5, "owl"), (2.0, 3.25, "wren"))


@pytest.fixture
def folder(touch, tmp_path):
    """Writes files with text, and empty ones; returns their folder."""

    def folder(*empty, of, encoding="utf-8"):
        path = touch(*empty)
        for name, text in of.items():
            file = tmp_path / "set" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(text.encode(encoding))
        return path

    return folder


def segments(manifest):
    return tuple((item.start, item.end, item.label) for item in manifest.items)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("day.Table.1.selections.txt", RAVEN),
        ("day.selections.txt", RAVEN),
        ("day.wav.txt", RAVEN),
        ("day.BirdNET.selection.table.txt", RAVEN.replace("Annotation", "Common Name")),
        ("day.csv", RAVEN.replace("\t", ",").replace("Annotation", "SPECIES")),
        ("day.tsv", RAVEN.replace("Begin Time (s)", "begin time (S)")),
        ("day.txt", AUDACITY),
        ("day_labels.txt", AUDACITY),
        ("day.wav.labels.txt", AUDACITY),
    ],
)
def test_a_file_belongs_to_the_recording_of_its_stem(folder, name, text, encoding, end):
    text = text.replace("\n", end)
    path = folder("day.wav", "other.wav", of={name: text}, encoding=encoding)
    manifest = read(f"{path}/{name}")
    assert segments(manifest) == TWO
    assert set(paths(manifest)) == {"day.wav"}
    assert segments(read(path)) == TWO


def test_notes_say_what_was_read_and_left_out(folder):
    texts = {"raven/a.Table.1.selections.txt": RAVEN, "b.txt": AUDACITY}
    path = folder("audio/a.wav", "audio/b.wav", "audio/c.wav", "README.md", of=texts)
    manifest = read(path)
    assert segments(manifest) == TWO * 2
    assert manifest.root == path
    unlabeled = "segments without label or duration"
    assert manifest.left_out == {".wav": 1, ".md": 1, unlabeled: 3}
    assert manifest.notes == (
        "column 'Annotation' of Raven tables holds the classes",
        "read 1 Audacity label file with 2 segments",
        "read 1 Raven selection table with 2 segments",
        "1 recording without labeled segments left out",
        f"2 of 2 files were found by searching for their names below {path!r}",
    )


def test_recordings_may_be_elsewhere(folder):
    path = folder("audio/2024/day.wav", of={"notes/day.selections.txt": RAVEN})
    for source in ("notes", "notes/day.selections.txt"):
        manifest = read(f"{path}/{source}", root=f"{path}/audio")
        assert segments(manifest) == TWO
        assert set(paths(manifest)) == {"2024/day.wav"}


def test_raven_names_recordings_by_path_or_file_and_offset(folder):
    header = (
        "Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tBegin Path\tCode"
    )
    rows = [
        "1\t100.5\t101\tp.wav\t0.5\tC:\\field\\site1\\p.wav\tx",
        "2\t200\t201\tq.wav\t3\t\ty",
        "3\t300\t301\tr.wav\t\tD:\\gone.wav\ty",
    ]
    texts = {"all.txt": "\n".join([header, *rows])}
    path = folder("site1/p.wav", "site2/p.wav", "site2/q.wav", of=texts)
    manifest = read(path)
    assert manifest.items == (
        Item("site1/p.wav", "x", start=0.5, end=1.0),
        Item("site2/q.wav", "y", start=3.0, end=4.0),
    )
    assert manifest.bad == (Bad("r.wav", "no such file"),)
    message = error_message(path, label="Spezies")
    assert all(word in message for word in ("data.label", "'Spezies'", "'Code'"))
    assert read(path, label="begin file").items[0].label == "p.wav"


def test_sites_are_searched_for_the_recording_beside_a_table(folder):
    texts = {f"site{i}/rec.Table.1.selections.txt": RAVEN for i in (1, 2)}
    manifest = read(folder("site1/rec.wav", "site2/rec.wav", of=texts))
    assert set(paths(manifest)) == {"site1/rec.wav", "site2/rec.wav"}
    texts = {"tables/rec.txt": RAVEN}
    message = error_message(folder("site1/rec.wav", "site2/rec.wav", of=texts) + "/tables/rec.txt")
    assert "none of the files" in message


def test_two_recordings_of_the_stem_stop_the_run(folder):
    path = folder("a/rec.wav", "b/rec.wav", of={"rec.txt": RAVEN})
    message = error_message(path)
    assert all(word in message for word in ("'a/rec.wav'", "'b/rec.wav'", "line 2"))


def test_split_folders_give_the_splits(folder):
    texts = {f"{split}/{i}.txt": AUDACITY for split in ("train", "dev") for i in (1, 2)}
    recordings = [f"{split}/{i}.wav" for split in ("train", "dev") for i in (1, 2)]
    manifest = read(folder(*recordings, of=texts))
    assert splits(manifest) == {
        path: "train" if path.startswith("train") else "val" for path in recordings
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (RAVEN + "4\tS\t1\t9\t8\t0\towl\n", ["line 6", "after"]),
        (RAVEN + "4\tS\t1\tx\t8\t0\towl\n", ["line 6", "'x'", "'Begin Time (s)'"]),
        (RAVEN + "4\tS\t1\t2\t3.25\t0\towl\n", ["line 6", "again", "line 4"]),
        (RAVEN.replace("Annotation", "Q"), ["data.label", "no column 'label'", "'Q'"]),
        (RAVEN.replace("owl", "").replace("wren", ""), ["no labeled segments", "4 without label"]),
        (AUDACITY + "7\t6\tx\n", ["line 6", "after"]),
        (AUDACITY + "-7\t6\tx\n", ["line 6", "'-7'"]),
        (AUDACITY + "owl\n", ["line 6", "'owl'"]),
        (AUDACITY.replace("wren", "owl"), ["one class only"]),
        (AUDACITY + "7\t8\towl;wren\n", ["several classes", "line 6"]),
        ("0\t1\t\n", ["no labeled segments"]),
    ],
)
def test_wrong_annotations_have_an_error_message(folder, text, words):
    path = folder("day.wav", of={"day.txt": text})
    for source in (path, path + "/day.txt"):
        message = error_message(source)
        assert all(word in message for word in words), message


def test_class_folders_with_text_files_stay_class_folders(folder):
    texts = {"owl/0.txt": AUDACITY, "owl/1.txt": "a transcript", "README.txt": "1 2 3"}
    recordings = [f"{name}/{i}.wav" for name in ("owl", "wren") for i in range(3)]
    manifest = read(folder(*recordings, of=texts))
    assert paths(manifest) == recordings
    assert {item.start for item in manifest.items} == {None}


def test_keys_of_columns_read_a_raven_table_as_any_table(folder):
    text = RAVEN.replace("\tView", "\tfile").replace("Waveform 1", "a.wav")
    text = text.replace("Spectrogram 1", "b.wav").replace("100\t\n", "100\towl\n")
    path = folder("a.wav", "b.wav", of={"all.txt": text})
    keys = {"start_column": "Begin Time (s)", "end_column": "End Time (s)"}
    manifest = read(path + "/all.txt", label="Annotation", **keys)
    assert len(manifest.items) == 4


@pytest.mark.parametrize("text", ["0.05\t0.45\t1\n0.5\t0.9\t0\n", "0.1\t220.5\t0.98\n"])
def test_numbers_beside_class_folders_are_not_labels(touch, text):
    folder = Path(touch("dog/1.wav", "dog/2.wav", "cat/1.wav", "cat/2.wav"))
    for recording in folder.rglob("*.wav"):
        recording.with_suffix(".txt").write_text(text)
    assert {item.label for item in read(str(folder)).items} == {"dog", "cat"}


def test_a_few_raven_tables_beside_class_folders_stop_the_run(touch):
    folder = Path(touch(*(f"{c}/{i}.wav" for c in ("dog", "cat") for i in "12345")))
    table = "Selection\tBegin Time (s)\tEnd Time (s)\tSpecies\n1\t0\t1\tx\n"
    (folder / "dog" / "1.Table.1.selections.txt").write_text(table)
    assert "holds class folders and a few Raven tables" in error_message(str(folder))


def test_a_missing_recording_that_a_table_names_is_not_taken_for_another(touch):
    folder = Path(touch("r1.wav", "r2.wav"))
    header = "Selection\tBegin Time (s)\tEnd Time (s)\tBegin File\tSpecies\n"
    rows = "1\t0\t1\tgone.wav\tx\n2\t1\t2\tr2.wav\ty\n"
    (folder / "r1.Table.1.selections.txt").write_text(header + rows)
    found = read_manifest(DataConfig(path=str(folder)), training=False)
    assert [item.path for item in found.items] == ["r2.wav"]
    assert found.bad == (Bad("gone.wav", "no such file"),)


def test_a_mistyped_group_of_a_raven_table_is_an_error(touch):
    folder = Path(touch("r1.wav"))
    header = "Selection\tBegin Time (s)\tEnd Time (s)\tSite\tSpecies\n"
    (folder / "r1.txt").write_text(header + "1\t0\t1\tnorth\tx\n2\t1\t2\tnorth\ty\n")
    assert "data.group" in error_message(str(folder), group="Sites")


def test_a_missing_recording_is_not_another_one_of_its_name(folder):
    texts = {"a/rec.txt": AUDACITY, "a/other.txt": AUDACITY}
    manifest = read(folder("a/other.wav", "b/rec.wav", of=texts))
    assert set(paths(manifest)) == {"a/other.wav"}
    (bad,) = manifest.bad
    assert (bad.path, bad.reason[:26]) == ("a/rec", "no recording of this name;")


def test_the_folders_of_recordings_with_annotations_are_no_classes(folder):
    texts = {f"{name}.txt": AUDACITY for name in ("cat/1", "dog/2")}
    manifest = read(folder("cat/1.wav", "dog/2.wav", of=texts))
    assert segments(manifest) == TWO * 2
    assert (
        "labels come from the annotation files, not from the folders 'cat', 'dog'" in manifest.notes
    )


def test_a_file_that_is_not_named_like_a_recording_says_so(folder):
    message = error_message(folder("rec.wav", of={"labels.txt": AUDACITY}))
    assert "an annotation file is named like its recording" in message


@pytest.mark.parametrize(
    ("table", "recordings"),
    [
        ("siteA/rec.selections.txt", ("siteA/x.wav", "siteB/rec.wav")),
        ("labels/D1/rec.txt", ("audio/D2/rec.wav", "audio/D2/x.wav")),
    ],
)
def test_the_recording_of_another_place_is_not_taken(folder, table, recordings):
    text = RAVEN.replace("Channel", "Begin File").replace("\t1\t", "\trec.wav\t")
    text = AUDACITY if table.startswith("labels") else text
    message = error_message(folder(*recordings, of={table: text}))
    assert "no such file" in message or "no recording of this name;" in message


def test_an_image_of_the_same_name_is_no_recording(folder):
    path = folder("day.wav", "day.png", of={"day.txt": AUDACITY})
    assert set(paths(read(path))) == {"day.wav"}
    assert set(paths(read(f"{path}/day.txt"))) == {"day.wav"}


def test_annotations_are_found_among_many_other_texts(folder):
    texts = {f"a{i:02}.txt": "notes" for i in range(30)}
    assert segments(read(folder("day.wav", of=texts | {"day.txt": AUDACITY}))) == TWO


def test_annotations_are_found_behind_links(folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "day.txt").write_text(AUDACITY)
    path = folder("day.wav", of={})
    Path(path, "labels").symlink_to(elsewhere)
    assert segments(read(path)) == TWO


def test_a_column_may_hold_the_splits(folder):
    header, *rows = RAVEN.splitlines()
    texts = {
        f"{name}.selections.txt": "\n".join([f"{header}\tUse", *(f"{row}\t{use}" for row in rows)])
        for name, use in (("a", "train"), ("b", "val"))
    }
    path = folder("a.wav", "b.wav", of=texts)
    assert splits(read(path, split_column="Use")) == {"a.wav": "train", "b.wav": "val"}


@pytest.mark.parametrize("key", ["label", "split_column", "group"])
def test_label_files_have_no_columns_for_the_keys(folder, key):
    path = folder("day.wav", of={"day.txt": AUDACITY})
    assert f"data.{key}" in error_message(path, **{key: "Species"})
