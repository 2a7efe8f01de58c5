"""An independent package, crowsetta, reads the files for Raven and Audacity.

Needs the extra `test-interop`.
"""

import csv

import pytest
import soundfile
from conftest import tone

from meljax.commands import predict
from meljax.config import DataConfig
from meljax.data.tables.annotations import scan_annotation_file

crowsetta = pytest.importorskip("crowsetta")
pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword:DeprecationWarning")


@pytest.fixture
def folder(recordings, tmp_path):
    """Two recordings of several windows and one of silence."""
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "20240517_043000.WAV", tone(400, 1.0, 1), 8000, format="WAV")
    soundfile.write(folder / "silence.wav", 0 * tone(400, 1.0, 1), 8000)
    soundfile.write(folder / "z.wav", tone(150, 1.5, 2), 8000)
    return folder


def rows_of(run, folder, out) -> list[dict]:
    """Returns the rows with a label, from CSV."""
    file = out / "rows.csv"
    arguments = [str(run), str(folder), "--merge", "--out", str(file), "--digits", "17"]
    assert predict.main(arguments) == 0
    with open(file, encoding="utf-8-sig", newline="") as opened:
        return [row for row in csv.DictReader(opened) if row["status"] == "ok"]


def test_crowsetta_and_meljax_read_a_raven_table(audio_run, folder, tmp_path):
    rows = rows_of(audio_run, folder, tmp_path)
    file = tmp_path / "all.selections.txt"
    assert predict.main([str(audio_run), str(folder), "--merge", "--out", str(file)]) == 0
    boxes = crowsetta.formats.bbox.Raven.from_file(file).to_bbox()
    assert len(boxes) == len(rows) >= 2
    for box, row in zip(boxes, rows, strict=True):
        before = 0.0 if "20240517" in row["path"] else 1.0  # the first recording has 1 s
        assert box.label == row["label"]
        assert box.onset == pytest.approx(before + float(row["start"]), abs=1e-5)
        assert box.offset == pytest.approx(before + float(row["end"]), abs=1e-5)
        assert (box.low_freq, box.high_freq) == (0, 4000)
    manifest = scan_annotation_file(file, DataConfig(), training=False)
    found = [(item.label, item.start, item.end) for item in manifest.items]
    given = [(r["label"], float(r["start"]), float(r["end"])) for r in rows]
    assert [each[0] for each in found] == [each[0] for each in given]
    for one, other in zip(found, given, strict=True):
        assert one[1:] == pytest.approx(other[1:], abs=1e-5)


def test_crowsetta_reads_label_tracks(audio_run, folder, tmp_path):
    rows = rows_of(audio_run, folder, tmp_path)
    out = tmp_path / "tracks"
    arguments = [str(audio_run), str(folder), "--merge", "--format", "audacity", "--out", str(out)]
    assert predict.main(arguments) == 0
    assert {each.name for each in out.iterdir()} == {"20240517_043000.txt", "silence.txt", "z.txt"}
    assert (out / "silence.txt").read_text() == ""
    for stem in ("20240517_043000", "z"):
        # By default crowsetta rounds times to milliseconds.
        opened = crowsetta.formats.seq.AudSeq.from_file(out / f"{stem}.txt")
        track = opened.to_seq(round_times=False)
        given = [row for row in rows if f"/{stem}." in row["path"]]
        assert list(track.labels) == [row["label"] for row in given]
        assert track.onsets_s == pytest.approx([float(row["start"]) for row in given], abs=1e-5)
        assert track.offsets_s == pytest.approx([float(row["end"]) for row in given], abs=1e-5)


def test_pandas_reads_csv_and_parquet(audio_run, folder, tmp_path):
    import pandas

    for name in ("rows.csv", "rows.parquet"):
        arguments = [str(folder), "--out", str(tmp_path / name), "--digits", "17"]
        assert predict.main([str(audio_run), *arguments]) == 0
    text = pandas.read_csv(tmp_path / "rows.csv", parse_dates=["time"])
    typed = pandas.read_parquet(tmp_path / "rows.parquet")
    assert list(text) == list(typed)
    for column in ("path", "start", "end", "time", "label", "status"):
        assert text[column].dropna().tolist() == typed[column].dropna().tolist()
    assert typed["time"][0] == pandas.Timestamp("2024-05-17 04:30")
