"""The report command on small real runs."""

import csv
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import WINDOW, edit_info
from samples import Page, inlined, section_under, table_under

from meljax.commands import report
from meljax.runs.directory import CALIBRATION, CONFIG, METRICS, PREDICTIONS, SPLIT, locked
from meljax.runs.history import read_history
from meljax.runs.info import read_info, require_info
from meljax.util.errors import UserError
from meljax.workflows.train import train


@pytest.fixture
def run(audio_run, tmp_path):
    shutil.copytree(audio_run, tmp_path / "run")
    return tmp_path / "run"


def contents(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def edit(run, **changes):
    changed = {key.replace("__", "."): value for key, value in changes.items()}
    edit_info(run, lambda info: info["config"].update(changed))


def refused(arguments, capsys):
    """Returns the error message of a refused command."""
    assert report.main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


def test_report_rewrites_the_files_that_training_wrote(audio_run, run, capsys):
    for name in ("predictions.csv", "calibration.json", "report.html"):
        (run / name).unlink()
    assert report.main([str(run)]) == 0
    for name in ("predictions.csv", "calibration.json", "config.json", "metrics.jsonl"):
        assert (run / name).read_bytes() == (audio_run / name).read_bytes()
    old, new = ((folder / "report.html").read_text() for folder in (audio_run, run))
    assert new == old.replace("audio – meljax", "run – meljax").replace("<h1>audio<", "<h1>run<")
    out = capsys.readouterr().out
    assert "last epoch (3): validation accuracy" in out
    assert f"report: {run / 'report.html'}" in out


def test_a_run_is_named_after_its_folder_however_it_is_given(run, monkeypatch, capsys):
    monkeypatch.chdir(run)
    assert report.main([".", f"--out={run}"]) == 0
    assert "<h1>run</h1>" in (run / "report.html").read_text()
    assert report.main([".", "--out=checkpoints/.."]) == 0
    assert capsys.readouterr().out.count("report: report.html") == 2


def test_a_page_in_another_folder_leaves_the_run_unchanged_and_links_to_it(
    muddled_run, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(muddled_run, run)
    edit(run, train__epochs=9)  # makes it unfinished
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4')  # as while it is trained
    (run / "predictions.csv").unlink()
    before, out = contents(run), tmp_path / "pages" / "of run"
    assert report.main([str(run), f"--out={out}"]) == 0
    assert contents(run) == before
    seen = Page((out / "report.html").read_text())
    assert seen.links == [f"../../run/{name}" for name in runs_files(run)]
    assert all((out / link).exists() for link in seen.links)
    assert "After 3 epochs it" in seen.shown
    assert "This run is not finished. It was stopped after epoch 3 of 9" in seen.shown
    # 8 of 12 validation files are certain to be wrong.
    section = section_under("Worst mistakes", (out / "report.html").read_text())
    shown = re.search(r'<div class="grid">(.*?)</div>', section, re.DOTALL)[1]
    assert shown.count("<figure>") == 6
    assert "2 more" in section


def in_16_bits(file: Path) -> np.ndarray:
    """Returns the samples of a recording as a 16-bit WAV file has them."""
    samples, rate = soundfile.read(file, dtype="float32")
    copy = io.BytesIO()
    soundfile.write(copy, samples, rate, format="WAV", subtype="PCM_16")
    copy.seek(0)
    return soundfile.read(copy, dtype="int16")[0]


def test_the_worst_mistakes_are_those_of_the_best_epoch_on_validation_files(muddled_run, muddle):
    with open(muddled_run / "predictions.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["label"] != row["prediction"]]
    wrong = [row for row in rows if (row["weights"], row["split"]) == ("best", "val")]
    surest = sorted(wrong, key=lambda row: -float(row["probability"]))
    text = (muddled_run / "report.html").read_text().split("that only the last epoch")[0]
    cells = re.findall("<figure>(.*?)</figure>", text, re.DOTALL)
    cells = [Page(cell) for cell in cells if "<audio" in cell]
    for cell, row in zip(cells, surest, strict=True):
        share = f"{float(row['probability']):.1%}"
        words = f"{row['label']} → {row['prediction']} ({share}) {row['path']}"
        assert cell.shown.startswith(words)
        (audio,) = cell.recordings
        heard, rate = soundfile.read(io.BytesIO(inlined(audio)), dtype="int16")
        original = in_16_bits(muddle / row["path"])
        assert rate == 8000
        # What was seen is what plays: a window of it, or all of it in silence.
        window = re.search(r"window from ([0-9.]+) s to", cell.shown)
        if window:
            start = float(window[1]) * rate
            near = range(round(start) - 40, round(start) + 41)  # the page rounds to 0.01 s
            assert any(np.array_equal(original[max(0, i) :][: len(heard)], heard) for i in near)
        else:
            assert f"the whole recording, padded to {WINDOW} s" in cell.shown
            assert original.tobytes() in heard.tobytes()


def test_the_page_has_the_scores_of_the_best_and_the_last_epoch(muddled_run):
    rows = read_history(muddled_run, require_info(muddled_run))
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"], -row["epoch"]))
    page = (muddled_run / "report.html").read_text()
    header, *table = table_under("Scores", page)
    seen = [dict(zip(header, row, strict=True)) for row in table]
    wanted = [(row, split) for split in ("validation", "test") for row in (rows[-1], best)]
    if best is rows[-1]:
        wanted = wanted[::2]
    for shown, (row, split) in zip(seen, wanted, strict=True):
        assert shown["epoch"] == str(row["epoch"])
        assert shown["files"] == f"{split}, {12 if split == 'validation' else 6}"
        assert shown["accuracy"].startswith("33.3% (")
        if split == "validation":
            assert shown["loss"] == f"{row['val_loss']:.3f}"
            assert shown["macro-F1"].startswith(f"{row['val_f1']:.1%} (")
    info = json.loads((muddled_run / "calibration.json").read_text())
    assert info["epoch"] == best["epoch"]
    assert info["before"]["loss"] == pytest.approx(best["val_loss"], rel=1e-5)


def runs_files(run):
    names = (CONFIG, SPLIT, METRICS, PREDICTIONS, CALIBRATION)
    return [name for name in names if (run / name).exists()]


def test_a_damaged_checkpoint_is_skipped_and_left_unchanged(run, tmp_path, capsys):
    # Of three short epochs, the first, the best and the last are saved.
    steps = sorted(int(path.name) for path in (run / "checkpoints").glob("[0-9]*"))
    latest = run / "checkpoints" / str(steps[-1])
    shutil.rmtree(latest / "state")
    (latest / "state").mkdir()
    before = contents(run)
    assert report.main([str(run), f"--out={tmp_path / 'out'}"]) == 0
    assert contents(run) == before
    assert "is damaged" in capsys.readouterr().err
    epochs = {row["step"]: row["epoch"] for row in read_history(run, require_info(run))}
    sentence = f"After {epochs[steps[-2]]} epoch"
    assert sentence in Page((tmp_path / "out" / "report.html").read_text()).shown


def test_a_run_that_is_being_trained_is_read_but_not_written_to(run, tmp_path, capsys):
    edit(run, train__epochs=9)
    (run / ".lock").touch()
    before = contents(run)
    with locked(run, read_info(run)):
        answer = refused([run], capsys)
        assert "another process is training" in answer
        assert "--out report" in answer
        assert report.main([str(run), f"--out={tmp_path / 'out'}"]) == 0
        with pytest.raises(UserError, match="another process"), locked(run, read_info(run)):
            pass  # the report has not released the lock
    assert {n: c[1] for n, c in contents(run).items()} == {n: c[1] for n, c in before.items()}
    shown = Page((tmp_path / "out" / "report.html").read_text()).shown
    assert (
        "This run is not finished. It is being trained; these are the results of epoch 3 of 9."
        in shown
    )
    assert (
        "not finished: being trained; these are the results of epoch 3 of 9"
        in capsys.readouterr().out
    )
    assert report.main([str(run), f"--out={tmp_path / 'out'}"]) == 0
    assert "not finished: stopped after epoch 3 of 9" in capsys.readouterr().out


def test_a_report_on_a_stopped_run_changes_nothing_when_it_is_resumed(
    recordings, audio_run, tmp_path
):
    class StopError(Exception):
        pass

    def stop(row):
        raise StopError

    workdir, config = tmp_path / "run", read_info(audio_run).settings()
    with pytest.raises(StopError):
        train(config, workdir, epoch_done=stop)
    assert report.main([str(workdir)]) == 0
    shown = Page((workdir / "report.html").read_text()).shown
    assert "It was stopped after epoch 1 of 3; run the same command again to resume." in shown
    train(config, workdir)
    for name in ("predictions.csv", "calibration.json"):
        assert (workdir / name).read_bytes() == (audio_run / name).read_bytes()
    assert "not finished" not in Page((workdir / "report.html").read_text()).shown


def test_missing_or_changed_data_are_reported(run, recordings, tmp_path, capsys):
    edit(run, data__path=str(tmp_path / "gone"))
    answer = refused([run], capsys)
    assert f"the data of {run} cannot be read" in answer
    assert "does not exist" in answer
    shutil.copytree(recordings, tmp_path / "gone")
    shutil.copy(recordings / "voice0" / "00.wav", tmp_path / "gone" / "voice0" / "99.wav")
    assert "the data changed" in refused([run, f"--out={tmp_path / 'out'}"], capsys)
    assert not (tmp_path / "out").exists()


def test_a_run_without_epochs_is_refused(run, tmp_path, capsys):
    assert "is not a run" in refused([tmp_path], capsys)
    shutil.rmtree(run / "checkpoints")
    assert "has not finished an epoch" in refused([run], capsys)
    assert not (run / "checkpoints").exists()
    (run / "config.json").write_text("{}")
    assert "config.json is damaged" in refused([run], capsys)


def test_two_runs_are_compared_without_data_or_weights(run, audio_run, tmp_path, capsys):
    edit(run, data__path=str(tmp_path / "gone"))
    shutil.rmtree(run / "checkpoints")
    assert report.main([str(run), str(audio_run), f"--out={tmp_path / 'out'}"]) == 0
    seen = Page((tmp_path / "out" / "report.html").read_text())
    assert "run got 0 files right that audio got wrong" in seen.shown
    assert "data.path" in seen.shown
    assert "both got" in capsys.readouterr().out


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_shows_the_page_with_all_its_images(audio_run, tmp_path):
    """A script is added to a copy of the page and reports which images were loaded."""
    script = (
        "<script>addEventListener('load', () => { const shown = [...document.images].filter("
        "i => i.naturalWidth > 0).length; document.title = `${shown} of "
        "${document.images.length}, ${document.body.scrollWidth} wide`; })</script></body>"
    )
    page = (audio_run / "report.html").read_text().replace("</body>", script)
    (tmp_path / "report.html").write_text(page)
    shown = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--no-first-run", "--window-size=600,900"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000"),
            *("--dump-dom", f"file://{tmp_path / 'report.html'}"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout
    title = re.search("<title>(.*?)</title>", shown)[1]
    images = len(Page(page).images)
    assert title.startswith(f"{images} of {images}, ")
    assert int(title.split()[-2]) <= 600
