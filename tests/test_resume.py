"""Runs that are stopped, killed or damaged, and resumed."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT, WINDOW, command
from data.make_run import KEYS
from test_train import history, last_weights, restore, start

from meljax.commands import predict
from meljax.evaluation import metrics
from meljax.main import main
from meljax.reports import run_page
from meljax.runs.directory import CALIBRATION, METRICS, PREDICTIONS
from meljax.training import checkpoint_policy, loop
from meljax.util import devices
from meljax.workflows import train


def assert_same_run(one: Path, other: Path) -> None:
    """Asserts that two runs differ only in times, sessions and names."""
    assert history(one) == history(other)
    assert last_weights(one) == last_weights(other)
    for name in (PREDICTIONS, CALIBRATION):
        assert (one / name).read_bytes() == (other / name).read_bytes()
    assert page(one) == page(other)


def page(run: Path) -> str:
    """Returns the report of a run without times."""
    text = (run / "report.html").read_text()
    begin = text.rindex(">", 0, text.index(" s in total, "))
    end = text.index(" images/s in training (median)", begin)
    return text[:begin] + text[end:]


def at_step(number: int, action, monkeypatch) -> None:
    """Calls `action` when step `number` of a run in this process has been dispatched."""
    taken = []
    step = loop.train_step

    def counted(*arguments):
        state = step(*arguments)
        taken.append(None)
        if len(taken) == number:
            action()
        return state

    monkeypatch.setattr(loop, "train_step", counted)


@pytest.mark.parametrize(("number", "step"), [(signal.SIGTERM, 7), (signal.SIGINT, 10)])
def test_a_signal_saves_the_current_step_from_which_the_run_resumes(
    audio_run, recordings, tmp_path, monkeypatch, capsys, number, step
):
    """Step 7 is the second of epoch 2, step 10 the last one, before the validation."""
    run = tmp_path / "audio"
    arguments = command("cnn", recordings, run, data__window=WINDOW, train__epochs=3)
    with monkeypatch.context() as patch:
        at_step(step, lambda: os.kill(os.getpid(), number), patch)
        assert main(arguments) == 128 + number
    place = "step 2 of 5 of epoch 2" if step == 7 else "epoch 2"
    message = f"stopped; saved up to {place}; run the same command again to resume there"
    assert message in capsys.readouterr().err
    assert len(history(run)) == 1
    assert main(arguments) == 0
    assert f"resuming after {place}" in capsys.readouterr().out
    assert_same_run(run, audio_run)


def test_long_epochs_are_saved_in_between(recordings, tmp_path, monkeypatch):
    """A kill then loses at most the steps since the last save."""
    run = tmp_path / "run"
    arguments = command(
        "cnn", recordings, run, data__window=WINDOW, train__epochs=2, train__save_every=1e-3
    )
    with monkeypatch.context() as patch:

        def killed():
            raise ZeroDivisionError

        at_step(8, killed, patch)
        patch.setattr(checkpoint_policy.Saver, "close", lambda self: self._checkpoints.wait())
        with pytest.raises(ZeroDivisionError):
            main(arguments)
    steps = {int(path.name) for path in (run / "checkpoints").iterdir() if path.name.isdigit()}
    assert steps == {5, 7}
    assert main([*arguments, "--config.train.save_every=600"]) == 0
    assert len(history(run)) == 2


def test_a_program_of_many_steps_trains_the_same_and_is_short_enough_to_stop(
    audio_run, recordings, tmp_path, monkeypatch, capsys
):
    """As on an accelerator; on CPUs, XLA rounds slightly differently in such a program.

    The number of steps in a program does not change the result.
    """
    monkeypatch.setattr(devices, "steps_in_one_program", lambda: True)
    whole, run = tmp_path / "whole" / "run", tmp_path / "run"
    fetched, fetch = [], metrics.fetch
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "fetch", lambda *each: fetched.append(len(each)) or fetch(*each))
        assert main(command("cnn", recordings, whole, data__window=WINDOW, train__epochs=2)) == 0
    assert fetched == [2, 2]  # both splits at once, after each epoch
    for ours, theirs in zip(history(whole), history(audio_run)[:2], strict=True):
        assert (ours["epoch"], ours["step"]) == (theirs["epoch"], theirs["step"])
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-2)
    arguments = command("cnn", recordings, run, data__window=WINDOW, train__epochs=2)
    steps = loop.train_steps
    with monkeypatch.context() as patch:
        patch.setattr(loop._Pace, "adapt", lambda self, *_: setattr(self, "steps", 2))

        def stopped(*arguments):
            state = steps(*arguments)
            if int(state.step) == 7:
                os.kill(os.getpid(), signal.SIGTERM)
            return state

        patch.setattr(loop, "train_steps", stopped)
        assert main(arguments) == 143
        assert "saved up to step 2 of 5 of epoch 2" in capsys.readouterr().err
    assert main(arguments) == 0
    assert_same_run(run, whole)


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(audio_run, recordings, tmp_path):
    killed = tmp_path / "audio"
    arguments = command("cnn", recordings, killed, data__window=WINDOW, train__epochs=3)
    with start(arguments) as process:
        for line in process.stdout:
            if line.startswith("epoch 2/3"):
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert main(arguments) == 0
    assert_same_run(killed, audio_run)


@pytest.mark.parametrize("moment", ["make_device_sets", "train_epochs", "write_report"])
def test_a_run_interrupted_anywhere_can_be_resumed(
    recordings, tmp_path, moment, monkeypatch, capsys
):
    def cut_off(*_, **__):
        raise KeyboardInterrupt

    arguments = command("cnn", recordings, tmp_path / "run", data__window=WINDOW, train__epochs=1)
    with monkeypatch.context() as patch:
        owner = {"write_report": run_page}.get(moment, train)
        patch.setattr(owner, moment, cut_off)
        assert main(arguments) == 130
    hint = {
        "make_device_sets": "nothing was trained; run the same command again",
        "train_epochs": "nothing was saved; run the same command again to start over",
        "write_report": "all epochs are saved; run the same command again to write the report",
    }
    assert f"meljax: stopped; {hint[moment]}\n" in capsys.readouterr().err
    assert main(arguments) == 0
    begun = "resuming after epoch 1" if moment == "write_report" else "starting over"
    assert begun in capsys.readouterr().out
    assert (tmp_path / "run" / "report.html").is_file()


def test_two_processes_do_not_share_a_directory(recordings, tmp_path, capsys):
    arguments = command(
        "cnn", recordings, tmp_path / "run", data__window=WINDOW, train__epochs=1000
    )
    with start(arguments) as process:
        for line in process.stdout:
            if line.startswith("epoch 1/"):
                break
        assert main(arguments) == 2
        assert "another process is training" in capsys.readouterr().err
        process.kill()


def test_ctrl_c_prints_how_to_resume(recordings, tmp_path):
    with start(
        command("cnn", recordings, tmp_path / "run", data__window=WINDOW, train__epochs=1000)
    ) as process:
        for line in process.stdout:
            if line.startswith("epoch 2/"):
                process.send_signal(signal.SIGINT)
                sent = time.monotonic()
                break
        rest = process.communicate(timeout=60)[0]
    assert process.returncode == 130, rest
    assert time.monotonic() - sent < 10  # 5 s are promised, on a machine that is not busy
    assert re.search(r"meljax: stopped; saved up to .*; run the same command again", rest)
    assert "Traceback" not in rest
    done = re.findall(r"^epoch (\d+)/", line + rest, re.MULTILINE)
    saved = len(restore(tmp_path / "run")["meta"]["content"]["meta"]["history"])
    assert saved >= int(done[-1])


STUCK = """
import sys, time
from meljax.util import console, stop
stop.STOP_SECONDS = 0.3
def body(request):
    request.hint = lambda: "the rest is repeated"
    print("ready", flush=True)
    with request.deferred():  # as in a long step, or in code that never returns to Python
        time.sleep(60)
console.leave(console.run(body))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_process_that_does_not_answer(number):
    with subprocess.Popen(
        [sys.executable, "-c", STUCK], cwd=ROOT, stdout=-1, stderr=-1, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        errors = process.communicate(timeout=30)[1]
    assert process.returncode == 128 + number
    assert errors == "\nmeljax: stopped; the rest is repeated\n"


def test_the_signal_handlers_are_restored(audio_run, recordings):
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    wakeup = signal.set_wakeup_fd(-1)
    assert main(command("cnn", recordings, audio_run, data__window=WINDOW, train__epochs=3)) == 0
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == wakeup == -1


# Damage


@pytest.mark.parametrize("damage", ["removed", "garbage", "a line less", "another value"])
def test_a_damaged_history_is_written_again_from_the_checkpoint(
    audio_run, recordings, tmp_path, damage
):
    workdir = tmp_path / "run"
    shutil.copytree(audio_run, workdir)
    file = workdir / METRICS
    lines = file.read_text().splitlines(keepends=True)
    if damage == "removed":
        file.unlink()
    else:
        kept = {
            "garbage": "garbage{",
            "a line less": lines[0] + lines[2],
            "another value": "".join(lines).replace("0.", "1.", 1),
        }
        file.write_text(kept[damage])
    (workdir / "report.html").unlink()
    assert main(command("cnn", recordings, workdir, data__window=WINDOW, train__epochs=3)) == 0
    assert file.read_text() == "".join(lines)


@pytest.mark.parametrize("text", ["[]", "garbage", '{"config": 3, "data": 3, "weights": 3}'])
def test_a_damaged_record_is_refused(text, audio_run, recordings, tmp_path, capsys):
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(text)
    assert main(command("cnn", recordings, workdir)) == 2
    assert "config.json is damaged" in capsys.readouterr().err


def test_a_removed_directory_is_named_in_one_line(recordings, tmp_path, monkeypatch, capsys):
    """The same command then starts over."""
    run = tmp_path / "run"
    arguments = command("cnn", recordings, run, data__window=WINDOW, train__epochs=2)

    def remove():
        while run.exists():  # a checkpoint is being written
            shutil.rmtree(run, ignore_errors=True)

    with monkeypatch.context() as patch:
        at_step(7, remove, patch)
        assert main(arguments) == 2
    answer = capsys.readouterr().err
    assert answer == (
        f"meljax: {run} was removed or moved during training; to start over, run the same command "
        "again\n"
    )
    assert main(arguments) == 0


# Infinite and NaN values


def nan_at_steps(numbers: set[int], monkeypatch) -> list[np.ndarray]:
    """Makes the steps `numbers` of a run in this process see NaN instead of the recordings.

    Returns a list with the order of the epoch for each step that was dispatched.
    """
    taken = []
    step = loop.train_step

    def spoiled(task, state, data, *rest):
        taken.append(np.asarray(rest[0]))
        if len(taken) in numbers:
            buffer = jax.device_put(jnp.full_like(data.buffer, jnp.nan), data.buffer.sharding)
            data = data.replace(buffer=buffer)
        return step(task, state, data, *rest)

    monkeypatch.setattr(loop, "train_step", spoiled)
    return taken


def test_a_nan_stops_a_run_names_its_items_and_the_run_can_resume(
    muddle, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    arguments = command("cnn", muddle, run, train__epochs=2, data__window=WINDOW)
    with monkeypatch.context() as patch:
        taken = nan_at_steps({4, 5}, patch)
        assert main(arguments) == 2
    assert len(taken) == 5  # one more than the bad one, not the rest of the epoch
    *lines, line = capsys.readouterr().err.splitlines()
    names = lines[lines.index("items of the step:") + 1 :]
    assert names == [f"train/voice{item // 6}/{item % 6:02}.wav" for item in taken[3][0]]
    assert line == (
        "meljax: the loss, a gradient or a running statistic is infinite or NaN after "
        "epoch 1 (saved up to epoch 1); try a smaller train.learning_rate than 0.003, in a new "
        "--workdir, or run the same command with train.on_nan=skip"
    )
    assert main([*arguments, "--config.train.on_nan=skip"]) == 0
    assert [row["train_skipped"] for row in history(run)] == [0, 0]


def test_bad_steps_are_skipped_and_counted(muddle, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    keys = {"train__epochs": 3, "train__on_nan": "skip", "data__window": WINDOW}
    arguments = command("cnn", muddle, run, **keys)
    nan_at_steps({1, 3, 4, 7, 8, 9}, monkeypatch)  # 9 is the last step of the last epoch
    assert main(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "meljax: the loss, a gradient or a running statistic is infinite or NaN after "
        "step 2 of 3 of epoch 3, the third such step in a row (saved up to step 2 of 3 of epoch "
        "3); try a smaller train.learning_rate than 0.003, in a new --workdir"
    )
    assert [row["train_skipped"] for row in history(run)] == [2, 1]
    leaves = jax.tree.leaves(restore(run)["state"])
    assert all(np.isfinite(leaf).all() for leaf in leaves)


@pytest.mark.parametrize("batch", [8, 64])
def test_an_infinite_value_is_reported_before_it_is_saved(recordings, tmp_path, capsys, batch):
    """With one step per epoch it is in the validation, otherwise in the second step."""
    run = tmp_path / "run"
    keys = {"train__learning_rate": 1e30, "train__batch_size": batch}
    assert main(command("cnn", recordings, run, **keys)) == 2
    answer = capsys.readouterr().err
    what = {
        8: "a gradient or a running statistic is infinite or NaN after step 1 of 5 of epoch 1",
        64: "the validation loss of epoch 1 is infinite or NaN (saved up to epoch 1)",
    }
    assert what[batch] in answer
    assert not (run / METRICS).exists()
    leaves = jax.tree.leaves(restore(run)["state"])
    assert all(np.isfinite(leaf).all() for leaf in leaves)


@pytest.mark.parametrize("form", [2])
def test_a_run_of_each_format_resumes_predicts_and_reports(form, tmp_path, capsys):
    """Later formats must read this run: never make it again."""
    source = ROOT / "tests" / "data" / f"run_{form}"
    run, voices = tmp_path / "run", source / "voices"
    shutil.copytree(source / "run", run)
    assert predict.main([str(run), str(voices), "--format", "jsonl", "--digits", "17"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = {row["path"].removeprefix(f"{voices}/"): row for row in rows}
    with open(run / PREDICTIONS, newline="") as file:
        recorded = [row for row in csv.DictReader(file) if row["weights"] == "best"]
    assert len(recorded) == 3
    for row in recorded:
        assert found[row["path"]]["label"] == row["prediction"]
        probability = float(row["probability"])
        assert found[row["path"]]["probability"] == pytest.approx(probability, abs=1e-5)
    config = f"--config={ROOT / 'configs' / 'cnn.py'}"
    keys = [f"--config.{key}={value}" for key, value in (KEYS | {"train.epochs": 3}).items()]
    assert main([config, f"--workdir={run}", f"--config.data.path={voices}", *keys]) == 0
    assert "resuming after epoch 2" in capsys.readouterr().out
    assert len(history(run)) == 3
    assert (run / "report.html").is_file()
