"""Segments of recordings as items: read, split, trained on, scored and evaluated."""

import csv
import json

import numpy as np
import pytest
import soundfile
from conftest import CACHE, command, small_config, tone

from meljax.commands import build_tfds, evaluate
from meljax.data.dataset import load
from meljax.data.decode import long_recording
from meljax.data.decode.audio_file import AudioFile
from meljax.features.samples import to_float
from meljax.main import main
from meljax.util.errors import UserError

RATE = 8000


@pytest.fixture(scope="session")
def days(tmp_path_factory):
    """Twelve recordings of six half-second calls each, and a table that lists the calls."""
    folder = tmp_path_factory.mktemp("days")
    lines = ["path,start,end,label"]
    for day in range(12):
        calls = []
        for n in range(6):
            label = (day + n) % 3
            calls.append(tone((150, 400, 900)[label], 0.5, seed=10 * day + n))
            lines.append(f"day{day:02}.wav,{n / 2},{n / 2 + 0.5},voice{label}")
        soundfile.write(folder / f"day{day:02}.wav", np.concatenate(calls), RATE)
    (folder / "calls.csv").write_text("\n".join(lines) + "\n")
    return folder / "calls.csv"


def read(table, **keys):
    return load(small_config(data__path=str(table), **keys), CACHE)


def test_each_row_is_an_item_and_a_file_is_decoded_once(days, monkeypatch):
    decoded = []
    blocks = AudioFile.blocks
    monkeypatch.setattr(
        AudioFile, "blocks", lambda file, *start: decoded.append(1) or blocks(file, *start)
    )
    found = read(days, mel__fmax=3999.0, mel__sample_rate=RATE)
    assert len(found.items) == 72
    assert len(decoded) <= 12
    whole, _ = soundfile.read(days.parent / "day03.wav", dtype="int16")
    index = [i for i, item in enumerate(found.items) if item.path == "day03.wav"]
    assert [found.items[i].start for i in index] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    for n, i in enumerate(index):
        np.testing.assert_array_equal(found.arrays[i], whole[4000 * n : 4000 * (n + 1)])
    files = {}
    for item, split in zip(found.items, found.splits, strict=True):
        files.setdefault(item.path, set()).add(split)
    assert {len(splits) for splits in files.values()} == {1}


@pytest.mark.parametrize("suffix", ["wav", "ogg"])
def test_segments_of_long_recordings_are_those_of_the_whole_file(
    suffix, days, tmp_path, monkeypatch
):
    """Segments that overlap, far apart, at another rate, of a file that may not be seekable."""
    for day in range(4):
        whole, _ = soundfile.read(days.parent / f"day{day:02}.wav")
        soundfile.write(tmp_path / f"day{day}.{suffix}", np.tile(whole, 4), 11_025)
    spans = [(0.1, 0.4), (0.2, 1.9), (0.3, 0.35), (5.0, 5.5), (5.25, 6.1), (8.2, 8.707)]
    lines = [
        f"day{day}.{suffix},{start},{end},voice{i % 2}"
        for day in range(4)
        for i, (start, end) in enumerate(spans)
    ]
    (tmp_path / "calls.csv").write_text("path,start,end,label\n" + "\n".join(lines) + "\n")
    table = str(tmp_path / "calls.csv")
    config = small_config(data__path=table, mel__sample_rate=RATE, mel__fmax=4000.0)
    whole = load(config, tmp_path / "one")
    monkeypatch.setattr(long_recording, "MAX_AT_ONCE", 6000)
    parts = load(config, tmp_path / "other")
    again = load(config, tmp_path / "other")
    for one, other, cached in zip(whole.arrays, parts.arrays, again.arrays, strict=True):
        assert one.base is other.base is None  # the rest of the recording is not kept
        np.testing.assert_array_equal(to_float(one), to_float(other))
        np.testing.assert_array_equal(other, cached)
    assert [len(array) for array in whole.arrays[:2]] == [2400, 13_600]


def test_segments_of_a_long_recording_stay_16_bit(days, tmp_path, monkeypatch):
    monkeypatch.setattr(long_recording, "MAX_AT_ONCE", 6000)
    config = small_config(data__path=str(days), mel__sample_rate=RATE, mel__fmax=4000.0)
    assert {array.dtype for array in load(config, tmp_path).arrays} == {np.dtype(np.int16)}


def test_the_fingerprint_depends_on_the_segments(days, tmp_path):
    other = days.parent / "other.csv"
    other.write_text(days.read_text().replace("day00.wav,0.0,0.5", "day00.wav,0.0,0.45"))
    assert read(days).fingerprint != read(other).fingerprint


def test_a_segment_past_the_end_stops_the_run_and_names_the_keys(days):
    late = days.parent / "late.csv"
    text = days.read_text().replace("day04.wav,2.5,3.0", "day04.wav,2.5,4.0")
    late.write_text(text.replace("day05.wav,2.5,3.0", "day05.wav,2.5,3.04"))  # rounded: accepted
    with pytest.raises(UserError, match=r"data\.start_column and data\.end_column") as caught:
        read(late)
    assert caught.value.details == (
        "day04.wav [2.5–4 s]: outside of the recording, which has 3.00 s",
    )


def test_a_run_on_segments_is_trained_scored_and_evaluated(days, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    assert main(command("cnn", days, run, train__epochs=8, train__learning_rate=3e-3)) == 0
    assert "each row is a segment" in capsys.readouterr().out
    with open(run / "split.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 72
    held = [row for row in rows if row["split"] == "val"]
    assert {row["end"] for row in held} == {"0.5", "1.0", "1.5", "2.0", "2.5", "3.0"}
    with open(run / "predictions.csv", newline="") as file:
        last = [row for row in csv.DictReader(file) if row["weights"] == "best"]
    assert [(r["path"], r["start"]) for r in last] == [(r["path"], r["start"]) for r in held]
    assert [r["group"] for r in last] == [r["path"] for r in held]
    few = "1 recording: too few for an interval"
    assert few in (run / "report.html").read_text()
    assert evaluate.main([str(run), "--json", str(tmp_path / "own.json")]) == 0
    scores = json.loads((tmp_path / "own.json").read_text())
    assert [item["probability"] for item in scores["items"]] == [
        float(row["probability"]) for row in last
    ]
    assert scores["accuracy_interval"] is None
    assert scores["accuracy_interval_method"] == few
    assert evaluate.main([str(run), str(days), "--json", str(tmp_path / "all.json")]) == 0
    scores = json.loads((tmp_path / "all.json").read_text())
    assert (scores["files"], scores["trained_on"]) == (72, 72 - len(held))
    assert scores["accuracy"] > 0.9
    assert scores["groups"] == {"name": "recording", "number": 12}
    assert "over 12 recordings" in scores["accuracy_interval_method"]
    assert "0.5–1 s]" in scores["items"][1]["path"]
    monkeypatch.setattr(long_recording, "MAX_AT_ONCE", 6000)  # now all files are long
    assert evaluate.main([str(run), str(days), "--json", str(tmp_path / "parts.json")]) == 0
    assert json.loads((tmp_path / "parts.json").read_text()) == scores


def test_segments_cannot_become_a_tfds_set(days, tmp_path, capsys):
    arguments = [str(days), "--name", "calls", "--tfds_dir", str(tmp_path)]
    assert build_tfds.main(arguments) == 2
    assert "a whole file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_segments_of_images_are_refused(image_folder, tmp_path):
    table = tmp_path / "table.csv"
    rows = [f"{image_folder}/voice{c}/00.png,{i},{i + 1},{c}" for c in range(3) for i in range(4)]
    table.write_text("path,start,end,label\n" + "\n".join(rows) + "\n")
    with pytest.raises(UserError, match="has segments of images"):
        read(table)


def test_segments_of_a_single_recording_cannot_be_split(days):
    alone = days.parent / "alone.csv"
    lines = days.read_text().splitlines()
    alone.write_text("\n".join([lines[0], *(line for line in lines if "day07" in line)]) + "\n")
    with pytest.raises(UserError, match=r"'voice0' \(2 segments in 1 group\)"):
        read(alone)
    with pytest.raises(UserError, match="no validation split is possible"):
        read(alone, data__small_classes="keep")
