"""The command on real small runs: pages made anew from weights and data, in place or elsewhere."""

import json
import re
import shutil
import subprocess

import pytest
import soundfile
from samples import Page

from meljax import report, runs


@pytest.fixture
def run(sound_run, tmp_path):
    shutil.copytree(sound_run, tmp_path / "run")
    return tmp_path / "run"


def contents(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def edit(run, **changes):
    facts = json.loads((run / "config.json").read_text())
    facts["config"] |= {key.replace("__", "."): value for key, value in changes.items()}
    (run / "config.json").write_text(json.dumps(facts))


def refused(arguments, capsys):
    """The one line in which a command was refused."""
    assert report.main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    return captured.err


def test_an_old_run_gets_its_predictions_and_the_page_that_training_wrote(sound_run, run, capsys):
    for name in ("predictions.csv", "calibration.json", "report.html"):
        (run / name).unlink()
    shutil.rmtree(run / "figures")
    assert report.main([str(run)]) == 0
    for name in ("predictions.csv", "calibration.json", "config.json", "metrics.jsonl"):
        assert (run / name).read_bytes() == (sound_run / name).read_bytes()
    old, new = ((folder / "report.html").read_text() for folder in (sound_run, run))
    assert new == old.replace("sound – meljax", "run – meljax").replace("<h1>sound<", "<h1>run<")
    out = capsys.readouterr().out
    assert "last epoch (3): validation accuracy" in out
    assert f"report: {run / 'report.html'}" in out


def test_elsewhere_nothing_of_the_run_changes_and_links_lead_back(run, tmp_path, capsys):
    edit(run, train__epochs=9)  # so that it is unfinished
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 4')  # and being trained
    (run / "predictions.csv").unlink()
    before, out = contents(run), tmp_path / "pages" / "of run"
    assert report.main([str(run), f"--out={out}"]) == 0
    assert contents(run) == before
    seen = Page((out / "report.html").read_text())
    links = [link for link in seen.links if not link.startswith("figures/")]
    assert links == [f"../../run/{name}" for name in runs_files(run)]
    assert all((out / link).exists() for link in links)
    assert "After 3 epochs it" in seen.shown
    for name in seen.images + seen.sounds:
        assert (out / name).is_file()
    for name in seen.sounds:
        assert soundfile.info(out / name).samplerate == 8000
    assert len(seen.sounds) == sum("mistake" in name for name in seen.images) / 2 > 0


def runs_files(run):
    names = (runs.CONFIG, runs.SPLIT, runs.METRICS, runs.PREDICTIONS, runs.CALIBRATION)
    return [name for name in names if (run / name).exists()]


def test_a_damaged_checkpoint_is_passed_over_and_left_alone(run, tmp_path, capsys):
    # Of three short epochs the first is saved, the last, and the best.
    steps = sorted(int(path.name) for path in (run / "checkpoints").glob("[0-9]*"))
    latest = run / "checkpoints" / str(steps[-1])
    shutil.rmtree(latest / "state")
    (latest / "state").mkdir()
    before = contents(run)
    assert report.main([str(run), f"--out={tmp_path / 'out'}"]) == 0
    assert contents(run) == before
    assert "is damaged" in capsys.readouterr().err
    epochs = {row["step"]: row["epoch"] for row in runs.read_history(run, 3)}
    told = f"After {epochs[steps[-2]]} epoch"
    assert told in Page((tmp_path / "out" / "report.html").read_text()).shown


def test_a_run_that_is_being_trained_is_not_written_to(run, tmp_path, capsys):
    before = contents(run)
    with runs.locked(run, runs.recorded(run)):
        assert "another process is training" in refused([run], capsys)
        assert {n: c for n, c in contents(run).items() if n != ".lock"} == {
            n: c for n, c in before.items() if n != ".lock"
        }
        assert report.main([str(run), f"--out={tmp_path / 'out'}"]) == 0


def test_data_that_are_gone_or_others_are_said_to_be(run, sounds, tmp_path, capsys):
    edit(run, data__path=str(tmp_path / "gone"))
    answer = refused([run], capsys)
    assert f"the data of {run} cannot be read" in answer
    assert "does not exist" in answer
    shutil.copytree(sounds, tmp_path / "gone")
    shutil.copy(sounds / "voice0" / "00.wav", tmp_path / "gone" / "voice0" / "99.wav")
    assert "the data changed" in refused([run, f"--out={tmp_path / 'out'}"], capsys)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_epochs_is_not_reported(run, tmp_path, capsys):
    assert "is no run" in refused([tmp_path], capsys)
    shutil.rmtree(run / "checkpoints")
    assert "has not finished an epoch" in refused([run], capsys)
    assert not (run / "checkpoints").exists()
    (run / "config.json").write_text("{}")
    assert "config.json is damaged" in refused([run], capsys)


def test_two_runs_stand_beside_each_other_without_data_or_weights(run, sound_run, tmp_path, capsys):
    edit(run, data__path=str(tmp_path / "gone"))
    shutil.rmtree(run / "checkpoints")
    assert report.main([str(run), str(sound_run), f"--out={tmp_path / 'out'}"]) == 0
    seen = Page((tmp_path / "out" / "report.html").read_text())
    assert "run got 0 files right that sound got wrong" in seen.shown
    assert "data.path" in seen.shown
    assert "both got" in capsys.readouterr().out


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_shows_the_page_with_all_its_pictures(sound_run, tmp_path):
    """Scripts are none of the page's; one is added to a copy, to tell what became of its parts."""
    shutil.copytree(sound_run / "figures", tmp_path / "figures")
    told = (
        "<script>addEventListener('load', () => { const shown = [...document.images].filter("
        "i => i.naturalWidth > 0).length; document.title = `${shown} of "
        "${document.images.length}, ${document.body.scrollWidth} wide`; })</script></body>"
    )
    page = (sound_run / "report.html").read_text().replace("</body>", told)
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
