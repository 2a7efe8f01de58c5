"""What is said about the data before training, and `meljax inspect`."""

import re

import pytest
from samples import make_info

from meljax import __main__
from meljax.reports import data_summary


def summary(classes=("ann", "bob"), **data):
    return data_summary.text(make_info(classes, **data).data).splitlines()


def test_classes_split_window_lengths_and_left_out_files_are_listed():
    counts = {"ann": (40, 4, 0), "bob": (1050, 6, 0)}
    files = {"train": 1090, "val": 10, "test": 0}
    assert summary(class_counts=counts, files=files, notes=("start and end are ignored",)) == [
        "data: 2 classes, 1,100 recordings",
        "  class    train      val",
        "  ann         40        4",
        "  bob      1,050        6",
        "  all      1,090       10",
        "split: 0.1 of each class for validation, seed 0",
        "window: 1.50 s, the median length of the training recordings",
        "lengths: 0.50 s to 2.25 s, median 1.50 s",
        "left out: 3 .txt",
        "note: start and end are ignored",
    ]


def test_segments_are_counted_as_such():
    files = {"train": 1090, "val": 10, "test": 0}
    first, *_ = summary(files=files, recordings=6)
    assert first == "data: 2 classes, 1,100 segments of 6 recordings"


def test_many_classes_are_summed_up():
    names = [f"class{i:02}" for i in range(13)]
    counts = {name: (30 + (i == 12), 3, 0) for i, name in enumerate(names)}
    lines = summary(names, class_counts=counts)
    assert [line.split()[0] for line in lines[2:12]] == names[:10]
    assert lines[12] == "  … 3 more classes, each 30 to 31 train, 3 val"
    assert len(summary(names[:12])) == len(lines) + 1


def test_a_test_split_has_a_column_and_left_out_files_are_sorted_by_number():
    lines = summary(
        files={"train": 1, "val": 1, "test": 7},
        left_out={".txt": 1, "hidden": 12, ".csv": 1},
        skipped=("a.wav: empty file",),
    )
    assert lines[1].split() == ["class", "train", "val", "test"]
    assert "left out: 12 hidden, 1 .csv, 1 .txt, 1 unusable" in lines
    assert "left out: nothing" in summary(left_out={})


def test_lengths_of_images_are_columns():
    assert "lengths: 8 columns to 1,200 columns, median 90 columns" in summary(
        kind="image", lengths=(8.0, 90.0, 1200.0)
    )


@pytest.mark.parametrize("name", ["two\nlines", "x" * 300])
def test_odd_names_keep_a_row_in_one_line(name):
    lines = summary((name, "bob"))
    assert len(lines) == len(summary())
    assert max(map(len, lines)) < 100


def test_inspect_tells_what_training_would_use_and_writes_nothing(
    recordings, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert __main__.main(["inspect", str(recordings), "--sample_rate=8000", "--window=0.25"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("data: 3 classes, 42 recordings\n  class     train      val\n")
    assert "window: 0.25 s, set by data.window" in out
    assert re.search(r"left out: .*\d", out)
    assert not list(tmp_path.iterdir())


def test_inspect_of_unusable_data_is_one_line(tmp_path, capsys):
    assert __main__.main(["inspect", str(tmp_path / "nothing")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_inspect_of_images_names_their_size(image_folder, capsys):
    assert __main__.main(["inspect", str(image_folder), "--image_size=16"]) == 0
    assert "window: whole images, resized to 16 × 16" in capsys.readouterr().out
