"""Whole runs, small ones, from files to report."""

import csv
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import ROOT, command

from meljax import backend, metrics, runs, tasks, train
from meljax.main import main
from meljax.pages import run as report

TIMES = {"seconds", "images_per_second"}


def history(workdir: Path) -> list[dict]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "meljax.main", *arguments[1:]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_run_leaves_what_it_promises(sound_run):
    facts = json.loads((sound_run / "config.json").read_text())
    assert facts["config"]["train.epochs"] == 3
    assert facts["data"]["files"] == {"train": 38, "val": 4, "test": 0}
    assert facts["data"]["ignored"] == 2
    assert len(facts["sessions"]) == 1
    assert facts["device_count"] == 4
    assert {"device_kind", "seed", "weights", "versions"} <= facts.keys()
    rows = [json.loads(line) for line in (sound_run / "metrics.jsonl").read_text().splitlines()]
    names = ["epoch", "step"]
    names += [f"{s}_{name}" for s in ("train", "val") for name in ("loss", "accuracy", "f1")]
    assert [list(row) for row in rows] == [[*names, "seconds", "images_per_second"]] * 3
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 5), (2, 10), (3, 15)]
    assert rows[2]["train_loss"] < rows[0]["train_loss"]
    assert list(sound_run.glob("events.out.tfevents.*"))
    assert "</html>" in (sound_run / "report.html").read_text()
    with open(sound_run / "split.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 42
    assert {row["split"] for row in table} == {"train", "val"}


def test_a_checkpoint_holds_what_using_it_needs(sound_run):
    meta = restore(sound_run)["meta"]
    assert meta["classes"] == ["voice0", "voice1", "voice2"]
    assert meta["config"]["train.epochs"] == 3
    assert meta["frontend"]["mel"]["n_mels"] == 20
    assert meta["epoch"] == 3


def test_a_finished_run_says_so_and_changes_nothing(sound_run, sounds, capsys):
    before = {path: path.stat().st_mtime_ns for path in sound_run.rglob("*")}
    assert main(command("cnn", sounds, sound_run, train__epochs=3)) == 0
    assert "finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in sound_run.rglob("*")} == before


def test_epochs_in_one_program_train_the_same_and_fetch_once(
    sound_run, sounds, tmp_path, monkeypatch
):
    """As on an accelerator; here XLA's rounding differs a little between the two."""
    fetched = []
    fetch = metrics.fetch
    monkeypatch.setattr(backend, "steps_in_one_program", lambda: True)
    monkeypatch.setattr(metrics, "fetch", lambda *m: fetched.append(len(m)) or fetch(*m))
    assert main(command("cnn", sounds, tmp_path, train__epochs=2)) == 0
    assert fetched == [2, 2]
    rows = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[:2]]
        for run in (tmp_path, sound_run)
    ]
    for ours, theirs in zip(*rows, strict=True):
        assert (ours["epoch"], ours["step"]) == (theirs["epoch"], theirs["step"])
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-2)


def test_a_run_from_before_a_key_was_there_goes_on(sound_run, sounds, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(sound_run, run)
    facts = json.loads((run / "config.json").read_text())
    del facts["config"]["data.tfds_dir"]
    (run / "config.json").write_text(json.dumps(facts))
    assert main(command("cnn", sounds, run, train__epochs=3)) == 0
    assert "finished at epoch 3" in capsys.readouterr().out


def test_other_settings_are_refused_with_the_keys_that_differ(sound_run, sounds, capsys):
    arguments = command("cnn", sounds, sound_run, train__epochs=3, train__seed=5, mask__fill=0.5)
    assert main(arguments) == 2
    answer = capsys.readouterr().err
    assert "mask.fill (was 0.0, now 0.5), train.seed (was 0, now 5)" in answer
    assert "train.epochs" not in answer


def test_more_epochs_continue_a_finished_run(sound_run, sounds, tmp_path):
    longer = tmp_path / "longer"
    shutil.copytree(sound_run, longer)
    assert main(command("cnn", sounds, longer, train__epochs=5)) == 0
    whole = tmp_path / "whole"
    assert main(command("cnn", sounds, whole, train__epochs=5)) == 0
    assert history(longer)[:3] == history(sound_run)
    assert history(longer) == history(whole)


def test_changed_data_are_refused(sound_run, sounds, tmp_path, capsys):
    copy, run = tmp_path / "copy", tmp_path / "run"
    shutil.copytree(sounds, copy)
    shutil.copytree(sound_run, run)
    record = (run / "config.json").read_text()
    (run / "config.json").write_text(record.replace(str(sounds), str(copy)))
    shutil.copy(copy / "voice0" / "00.wav", copy / "voice1" / "99.wav")
    assert main(command("cnn", copy, run, train__epochs=4)) == 2
    assert "the data changed" in capsys.readouterr().err
    assert len(history(run)) == 3


@pytest.mark.parametrize("kill_after", [1, 2])
def test_a_killed_run_ends_like_an_uninterrupted_one(sound_run, sounds, tmp_path, kill_after):
    killed = tmp_path / "killed"
    arguments = command("cnn", sounds, killed, train__epochs=3)
    with start(arguments) as process:
        for line in process.stdout:
            if line.startswith(f"epoch {kill_after}/3"):
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert main(arguments) == 0
    assert history(killed) == history(sound_run)
    assert last_weights(killed) == last_weights(sound_run)


def restore(workdir: Path) -> ocp.args.Composite:
    """The last checkpoint as it lies on the disk."""
    with ocp.CheckpointManager((workdir / runs.CHECKPOINTS).absolute()) as manager:
        args = {"state": ocp.args.StandardRestore(), "meta": ocp.args.JsonRestore()}
        return manager.restore(manager.latest_step(), args=ocp.args.Composite(**args))


def last_weights(workdir: Path) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(restore(workdir)["state"])]


def test_pictures_train_too_at_any_size(picture_run, square_run):
    assert len(history(picture_run)) == 1
    facts = json.loads((square_run / "config.json").read_text())
    assert facts["weights"].startswith("random: ImageNet")
    assert "not pretrained" in (square_run / "report.html").read_text()


def test_recordings_can_be_resized_to_a_square_and_masks_be_off(sounds, tmp_path):
    off = {"mask__freq_count": 0, "mask__time_count": 0}
    arguments = command("cnn", sounds, tmp_path / "run", train__epochs=1, data__image_size=24)
    assert (
        main([*arguments, *(f"--config.{k.replace('__', '.')}={v}" for k, v in off.items())]) == 0
    )
    assert not list((tmp_path / "run" / "figures").glob("mask*"))


def test_a_test_split_is_scored_and_never_trained_or_chosen_on(sounds, tmp_path, capsys):
    data = tmp_path / "data"
    for path in sorted(sounds.glob("*/*.wav")):
        side = {"00": "test", "01": "val"}.get(path.stem, "train")
        target = data / side / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    assert main(command("cnn", data, tmp_path / "run", train__epochs=1)) == 0
    assert "test accuracy" in capsys.readouterr().out
    facts = json.loads((tmp_path / "run" / "config.json").read_text())
    assert facts["data"]["files"] == {"train": 36, "val": 3, "test": 3}


def test_a_csv_trains_with_groups_apart(sounds, tmp_path):
    table = tmp_path / "voices.csv"
    rows = [["path", "word", "speaker"]]
    rows += [
        [str(path), f"0{path.parent.name[-1]}", f"s{int(path.stem) // 2}"]
        for path in sorted(sounds.glob("*/*.wav"))
    ]
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    keys = {"train__epochs": 1, "data__label": "word", "data__group": "speaker"}
    assert main(command("cnn", table, tmp_path / "run", **keys)) == 0
    with open(tmp_path / "run" / "split.csv", newline="") as file:
        split = list(csv.DictReader(file))
    assert {row["label"] for row in split} == {"00", "01", "02"}
    sides = {row["group"]: set() for row in split}
    for row in split:
        sides[row["group"]].add(row["split"])
    assert all(len(side) == 1 for side in sides.values())


def test_bad_files_stop_a_run_before_it_begins_or_are_left_out(sounds, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(sounds, data)
    (data / "voice1" / "empty.wav").write_bytes(b"")
    (data / "voice2" / "noise.flac").write_bytes(b"no sound at all")
    assert main(command("cnn", data, tmp_path / "run", train__epochs=1)) == 2
    answer = capsys.readouterr().err.splitlines()
    assert answer[0].startswith("voice1/empty.wav: empty file")
    assert answer[1].startswith("voice2/noise.flac: ")
    assert "--config.data.on_bad_file=skip" in answer[2]
    assert len(answer) == 3
    assert not (tmp_path / "run").exists()
    arguments = command("cnn", data, tmp_path / "run", train__epochs=1, data__on_bad_file="skip")
    assert main(arguments) == 0
    facts = json.loads((tmp_path / "run" / "config.json").read_text())
    assert [line.split(":")[0] for line in facts["data"]["skipped"]] == [
        "voice1/empty.wav",
        "voice2/noise.flac",
    ]


def test_a_loss_that_is_no_number_is_diagnosed(sounds, tmp_path, capsys):
    arguments = command(
        "cnn", sounds, tmp_path / "run", train__learning_rate=1e30, train__batch_size=64
    )
    assert main(arguments) == 2
    answer = capsys.readouterr().err
    assert "no longer a finite number in epoch 1" in answer
    assert "train.learning_rate" in answer
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_an_infinite_validation_loss_is_diagnosed_before_it_is_saved(sounds, tmp_path, capsys):
    """One step at 1e30 leaves a finite training loss behind and weights that score no number."""
    arguments = command(
        "cnn",
        sounds,
        tmp_path / "run",
        train__learning_rate=1e30,
        train__batch_size=64,
        train__epochs=1,
    )
    assert main(arguments) == 2
    assert "no longer a finite number" in capsys.readouterr().err
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("moment", ["make_device_sets", "_run_epochs", "write_report"])
def test_a_run_that_is_cut_off_at_any_moment_can_be_started_again(
    sounds, tmp_path, moment, monkeypatch, capsys
):
    def cut_off(*_):
        raise KeyboardInterrupt

    arguments = command("cnn", sounds, tmp_path / "run", train__epochs=1)
    with monkeypatch.context() as patch:
        owner = {"make_device_sets": tasks, "write_report": report}.get(moment, train)
        patch.setattr(owner, moment, cut_off)
        assert main(arguments) == 130
    assert main(arguments) == 0
    begun = "going on after epoch 1" if moment == "write_report" else "beginning anew"
    assert begun in capsys.readouterr().out
    assert (tmp_path / "run" / "report.html").is_file()


def test_two_processes_do_not_share_a_directory(sounds, tmp_path, capsys):
    arguments = command("cnn", sounds, tmp_path / "run", train__epochs=1000)
    with start(arguments) as process:
        for line in process.stdout:
            if line.startswith("epoch 1/"):
                break
        assert main(arguments) == 2
        assert "another process is training" in capsys.readouterr().err
        process.kill()


@pytest.mark.parametrize("damage", ["removed", "garbage", "a line less", "another epoch"])
def test_a_history_that_does_not_fit_is_refused_and_left_alone(
    sound_run, sounds, tmp_path, damage, capsys
):
    workdir = tmp_path / "run"
    shutil.copytree(sound_run, workdir)
    file = workdir / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    if damage == "removed":
        file.unlink()
    else:
        kept = {"garbage": "garbage{", "a line less": lines[0] + lines[2]}
        file.write_text(kept.get(damage, lines[0] + lines[0] + lines[2]))
    before = file.read_text() if file.exists() else None
    assert main(command("cnn", sounds, workdir, train__epochs=4)) == 2
    assert "does not hold the 3 epochs" in capsys.readouterr().err
    assert (file.read_text() if file.exists() else None) == before


@pytest.mark.parametrize("text", ["[]", "garbage", '{"config": 3, "data": 3, "weights": 3}'])
def test_a_damaged_record_is_refused(text, sound_run, sounds, tmp_path, capsys):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(text)
    assert main(command("cnn", sounds, workdir)) == 2
    assert "config.json is damaged" in capsys.readouterr().err


def test_a_finished_run_without_its_report_makes_it_again(sound_run, sounds, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(sound_run, workdir)
    page = (workdir / "report.html").read_text()
    (workdir / "report.html").unlink()
    assert main(command("cnn", sounds, workdir, train__epochs=3)) == 0
    assert len((workdir / "report.html").read_text()) > 0.9 * len(page)
    assert history(workdir) == history(sound_run)


def test_a_batch_larger_than_the_set_is_the_set(sounds, tmp_path):
    arguments = command("cnn", sounds, tmp_path / "run", train__epochs=1, train__batch_size=65_536)
    assert main(arguments) == 0
    assert history(tmp_path / "run")[0]["step"] == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data__window": 1e-9}, "data.window must be at least"),
        ({"data__window": 100}, "data.window must be at most"),
        ({"mel__n_mels": 200}, "bands without a frequency"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(sounds, tmp_path, keys, message, capsys):
    assert main(command("cnn", sounds, tmp_path / "run", **keys)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["a file", "a folder"])
def test_a_directory_that_is_no_run_is_left_alone(content, sounds, tmp_path, capsys):
    workdir = tmp_path / "precious"
    if content == "a file":
        workdir.write_text("letter")
    else:
        workdir.mkdir()
        (workdir / "letter.txt").write_text("letter")
    assert main(command("cnn", sounds, workdir)) == 2
    assert "--workdir" in capsys.readouterr().err


def test_progress_is_plain_lines_and_nothing_heavy_is_imported(sounds, tmp_path):
    code = (
        "import sys; from meljax.main import main; main(sys.argv); "
        "print('loaded', [m for m in ('tensorflow', 'torch', 'tensorboard') if m in sys.modules])"
    )
    arguments = command("cnn", sounds, tmp_path / "run", train__epochs=2)
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "loaded []" in result.stdout
    output = result.stdout + result.stderr
    lines = [line for line in output.splitlines() if line.startswith("epoch")]
    assert len(lines) == 2
    assert "images/s" in lines[0]
    assert "left" in lines[0]
    assert "\r" not in output
    assert "last epoch (2): validation accuracy" in output
    assert "best epoch" in output
    assert str(tmp_path / "run" / "report.html") in output


def test_ctrl_c_says_how_to_go_on(sounds, tmp_path):
    with start(command("cnn", sounds, tmp_path / "run", train__epochs=1000)) as process:
        for line in process.stdout:
            if line.startswith("epoch 2/"):
                process.send_signal(signal.SIGINT)
                break
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130, rest
    assert "goes on after the last epoch that was saved" in rest
    assert "Traceback" not in rest
    done = re.findall(r"^epoch (\d+)/", line + rest, re.MULTILINE)
    assert restore(tmp_path / "run")["meta"]["epoch"] >= int(done[-1])
