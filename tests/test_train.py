"""Small complete runs, from files to report."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import soundfile
from conftest import ROOT, WINDOW, command, edit_info, tone
from sklearn.metrics import f1_score
from test_logs import events

from meljax.main import main
from meljax.runs.directory import CHECKPOINTS, TENSORBOARD
from meljax.runs.info import require_info
from meljax.training import loop
from meljax.workflows import finish

TIMES = {"seconds", "images_per_second"}


def history(workdir: Path) -> list[dict]:
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def start(arguments: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "meljax.main", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_run_writes_all_files(audio_run):
    info = json.loads((audio_run / "config.json").read_text())
    assert info["config"]["train.epochs"] == 3
    assert info["data"]["files"] == {"train": 38, "val": 4, "test": 0}
    assert sum(info["data"]["left_out"].values()) == 2
    assert len(info["sessions"]) == 1
    assert info["sessions"][0]["device_count"] == 4
    named = {"device_kind", "platform", "device_count", "versions", "commits"}
    assert info["sessions"][0].keys() == named
    assert info["weights"]["kind"] == "random"
    assert info["parameters"] > 0
    rows = [json.loads(line) for line in (audio_run / "metrics.jsonl").read_text().splitlines()]
    names = ["epoch", "step"]
    names += [f"{s}_{name}" for s in ("train", "val") for name in ("loss", "accuracy", "f1")]
    names += ["train_skipped", "seconds", "images_per_second"]
    assert [list(row) for row in rows] == [names] * 3
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 5), (2, 10), (3, 15)]
    assert rows[2]["train_loss"] < rows[0]["train_loss"]
    assert list((audio_run / TENSORBOARD).rglob("events.out.tfevents.*"))
    assert "</html>" in (audio_run / "report.html").read_text()
    with open(audio_run / "split.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 42
    assert {row["split"] for row in table} == {"train", "val"}


def test_a_checkpoint_has_everything_needed_to_use_it(audio_run):
    saved = restore(audio_run)["meta"]
    meta = saved["content"]["meta"]
    assert meta["classes"] == ["voice0", "voice1", "voice2"]
    assert meta["config"]["train.epochs"] == 3
    assert meta["frontend"]["mel"]["n_mels"] == 20
    assert saved["format"] == 2
    rows = (audio_run / "metrics.jsonl").read_text().splitlines()
    assert meta["history"] == [json.loads(line) for line in rows]


def test_a_finished_run_says_so_and_changes_nothing(audio_run, recordings, capsys):
    before = {path: path.stat().st_mtime_ns for path in audio_run.rglob("*")}
    assert main(command("cnn", recordings, audio_run, data__window=WINDOW, train__epochs=3)) == 0
    assert "finished" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in audio_run.rglob("*")} == before


def test_a_run_older_than_a_key_is_resumed(audio_run, recordings, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(audio_run, run)
    edit_info(run, lambda info: info["config"].pop("data.tfds_dir"))
    assert main(command("cnn", recordings, run, data__window=WINDOW, train__epochs=3)) == 0
    assert "finished at epoch 3" in capsys.readouterr().out


def test_other_settings_are_refused_with_the_keys_that_differ(audio_run, recordings, capsys):
    arguments = command(
        "cnn",
        recordings,
        audio_run,
        data__window=WINDOW,
        train__epochs=3,
        train__seed=5,
        mask__fill=0.5,
    )
    assert main(arguments) == 2
    answer = capsys.readouterr().err
    assert "mask.fill (was 0.0, now 0.5), train.seed (was 0, now 5)" in answer
    assert "train.epochs" not in answer


def test_more_epochs_continue_a_finished_run(audio_run, recordings, tmp_path):
    longer = tmp_path / "longer"
    shutil.copytree(audio_run, longer)
    assert main(command("cnn", recordings, longer, data__window=WINDOW, train__epochs=5)) == 0
    whole = tmp_path / "whole"
    assert main(command("cnn", recordings, whole, data__window=WINDOW, train__epochs=5)) == 0
    assert history(longer)[:3] == history(audio_run)
    assert history(longer) == history(whole)


def test_fewer_epochs_end_at_the_last_trained_one_with_its_report(
    audio_run, recordings, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(audio_run, run)
    assert main(command("cnn", recordings, run, data__window=WINDOW, train__epochs=2)) == 0
    assert "finished at epoch 3" in capsys.readouterr().out
    (run / "report.html").unlink()
    assert main(command("cnn", recordings, run, data__window=WINDOW, train__epochs=1)) == 0
    out = capsys.readouterr().out
    assert "3 epochs are trained already, not 1: ending at epoch 3" in out
    assert "last epoch (3)" in out
    assert (run / "report.html").is_file()
    assert history(run) == history(audio_run)
    assert require_info(run).config["train.epochs"] == 3


def test_a_finished_run_is_not_mistaken_for_one_of_other_data(
    audio_run, recordings, tmp_path, capsys
):
    run, other = tmp_path / "run", tmp_path / "elsewhere" / recordings.name
    shutil.copytree(audio_run, run)
    shutil.copytree(recordings, other)
    assert main(command("cnn", other, run, data__window=WINDOW, train__epochs=3)) == 0
    assert "finished at epoch 3" in capsys.readouterr().out
    next(other.glob("*/*.wav")).unlink()
    assert main(command("cnn", other, run, data__window=WINDOW, train__epochs=3)) == 2
    message = capsys.readouterr().err
    assert "the data changed" in message
    assert str(recordings) in message


def test_data_that_moved_are_recognized_by_their_contents(audio_run, recordings, tmp_path, capsys):
    run, moved = tmp_path / "run", tmp_path / "elsewhere" / "birds"
    shutil.copytree(audio_run, run)
    shutil.copytree(recordings, moved)
    assert main(command("cnn", moved, run, data__window=WINDOW, train__epochs=4)) == 0
    assert history(run)[:3] == history(audio_run)
    assert require_info(run).config["data.path"] == str(moved)
    shutil.rmtree(moved / "voice2")
    assert main(command("cnn", moved, run, data__window=WINDOW, train__epochs=5)) == 2
    assert "the data changed" in capsys.readouterr().err


def test_a_mistyped_path_is_reported_before_other_settings(audio_run, tmp_path, capsys):
    arguments = command("cnn", tmp_path / "nowhere", audio_run, train__seed=9)
    assert main(arguments) == 2
    answer = capsys.readouterr().err
    assert "nowhere' does not exist" in answer
    assert "train.seed" not in answer


def test_changed_data_are_refused(audio_run, recordings, tmp_path, capsys):
    copy, run = tmp_path / "copy", tmp_path / "run"
    shutil.copytree(recordings, copy)
    shutil.copytree(audio_run, run)
    edit_info(run, lambda info: info["config"].update({"data.path": str(copy)}))
    shutil.copy(copy / "voice0" / "00.wav", copy / "voice1" / "99.wav")
    assert main(command("cnn", copy, run, data__window=WINDOW, train__epochs=4)) == 2
    assert "the data changed" in capsys.readouterr().err
    assert len(history(run)) == 3


def restore(workdir: Path) -> ocp.args.Composite:
    """Returns the last checkpoint on disk."""
    with ocp.CheckpointManager((workdir / CHECKPOINTS).absolute()) as manager:
        args = {"state": ocp.args.StandardRestore(), "meta": ocp.args.JsonRestore()}
        return manager.restore(manager.latest_step(), args=ocp.args.Composite(**args))


def last_weights(workdir: Path) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(restore(workdir)["state"])]


def test_images_train_with_and_without_resizing(image_run, square_run):
    assert len(history(image_run)) == 1
    info = json.loads((square_run / "config.json").read_text())
    assert info["weights"]["kind"] == "random"
    assert info["weights"]["reason"].startswith("ImageNet")
    assert "not pretrained" in (square_run / "report.html").read_text()


@pytest.mark.parametrize("split", ["val", "test"])
def test_held_out_files_have_no_effect_on_training(muddled_run, muddle, tmp_path, split, capsys):
    """They are only scored. Some are replaced by other recordings of the same length."""
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(muddle, data)
    for path in (data / split).rglob("*.wav"):
        samples, rate = soundfile.read(path)
        seed = int(path.stem) + 10 * int(path.parent.name[-1])
        soundfile.write(path, tone(150 + 40 * seed, len(samples) / rate, seed), rate)
    assert main(command("cnn", data, run, train__epochs=3, data__window=WINDOW)) == 0
    assert "test accuracy" in capsys.readouterr().out
    info = json.loads((run / "config.json").read_text())
    assert info["data"]["files"] == {"train": 18, "val": 12, "test": 6}
    assert last_weights(run) == last_weights(muddled_run)
    ours, theirs = history(run), history(muddled_run)
    for row, other in zip(ours, theirs, strict=True):
        assert {name: row[name] for name in row if "val" not in name} == {
            name: other[name] for name in other if "val" not in name
        }
    assert (ours == theirs) == (split == "test")
    if split == "test":
        same = [(each / "calibration.json").read_text() for each in (run, muddled_run)]
        assert same[0] == same[1]
        assert predictions(run, "val") == predictions(muddled_run, "val")
        assert predictions(run, "test") != predictions(muddled_run, "test")


def predictions(workdir: Path, split: str) -> list[dict]:
    with open(workdir / "predictions.csv", newline="") as file:
        return [row for row in csv.DictReader(file) if row["split"] == split]


def test_predictions_are_of_the_last_and_best_epoch_on_the_files_of_each_split(muddled_run):
    rows = history(muddled_run)
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"], -row["epoch"]))
    for split, count in (("val", 4), ("test", 2)):
        table = predictions(muddled_run, split)
        paths = [f"{split}/voice{c}/{i:02}.wav" for c in range(3) for i in range(count)]
        assert [row["path"] for row in table] == 2 * paths
        for weights, epoch in (("last", 3), ("best", best["epoch"])):
            own = [row for row in table if row["weights"] == weights]
            assert {row["epoch"] for row in own} == {str(epoch)}
            for row in own:
                shares = {f"voice{c}": float(row[f"p:voice{c}"]) for c in range(3)}
                assert row["label"] == row["path"].split("/")[1]
                assert row["prediction"] == max(shares, key=shares.get)
                assert float(row["probability"]) == max(shares.values())
            if split == "val":
                labels, predicted = ([row[key] for row in own] for key in ("label", "prediction"))
                f1 = f1_score(labels, predicted, average="macro", labels=sorted(set(labels)))
                assert rows[epoch - 1]["val_f1"] == pytest.approx(f1)


class Draws(NamedTuple):
    """The random draws of a run."""

    weights: list[bytes]
    orders: list[np.ndarray]
    masks: set[bytes]
    shown: list[bytes]


def draws(muddle, workdir: Path, monkeypatch, **keys) -> Draws:
    """Runs without training steps or output; returns the random draws."""
    states, orders, masks = [], [], []

    def no_step(task, state, data, order, masks_key):
        states.append(state.params)
        orders.append(order)
        masks.append(masks_key)
        done = state.metrics
        done = done.replace(count=done.count + 1, confusion=done.confusion + 1)
        return state.replace(step=state.step + 1, metrics=done)

    def cut_off(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", no_step)
        patch.setattr(finish, "finish", cut_off)
        assert main(command("cnn", muddle, workdir, data__window=WINDOW, **keys)) == 130
    log = events(workdir / TENSORBOARD / "train")
    images = {v.tag: v.image for event in log for v in event.summary.value}
    return Draws(
        weights=[np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(states[0])],
        orders=[np.asarray(order) for order in orders[::3]],
        masks={np.asarray(jax.random.key_data(each)).tobytes() for each in masks},
        shown=[p.encoded_image_string for tag, p in images.items() if "augmented" in tag],
    )


def test_every_epoch_has_a_different_order_and_the_seed_changes_all_draws(
    muddle, tmp_path, monkeypatch
):
    one = draws(muddle, tmp_path / "one", monkeypatch, train__epochs=2)
    two = draws(muddle, tmp_path / "two", monkeypatch, train__epochs=1, train__seed=1)
    first, second = one.orders
    (other,) = two.orders
    for order in (first, second, other):
        assert sorted(order[order >= 0]) == list(range(18))
    assert (first != second).any()
    assert (first != other).any()
    assert one.weights != two.weights
    assert len(one.masks) == len(two.masks) == 1
    assert one.masks != two.masks
    assert one.shown
    assert one.shown != two.shown
    assert json.loads((tmp_path / "two" / "config.json").read_text())["config"]["train.seed"] == 1


def test_a_csv_trains_resized_and_without_masks_in_one_step_per_epoch(recordings, tmp_path):
    """No group is in two splits. The batch size is above the number of items."""
    table = tmp_path / "voices.csv"
    rows = [["path", "word", "speaker"]]
    rows += [
        [str(path), f"0{path.parent.name[-1]}", f"s{int(path.stem) // 2}"]
        for path in sorted(recordings.glob("*/*.wav"))
    ]
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    keys = {"train__epochs": 1, "data__label": "word", "data__group": "speaker"}
    keys |= {"data__image_size": 24, "train__batch_size": 65_536}
    keys |= {"mask__freq_count": 0, "mask__time_count": 0}
    assert main(command("cnn", table, tmp_path / "run", **keys)) == 0
    assert "<h2>Masking</h2>" not in (tmp_path / "run" / "report.html").read_text()
    assert history(tmp_path / "run")[0]["step"] == 1
    with open(tmp_path / "run" / "split.csv", newline="") as file:
        split = list(csv.DictReader(file))
    assert {row["label"] for row in split} == {"00", "01", "02"}
    splits = {row["group"]: set() for row in split}
    for row in split:
        splits[row["group"]].add(row["split"])
    assert all(len(split) == 1 for split in splits.values())


def test_bad_files_stop_a_run_or_are_skipped(recordings, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(recordings, data)
    (data / "voice1" / "empty.wav").write_bytes(b"")
    (data / "voice2" / "noise.flac").write_bytes(b"not a recording")
    assert main(command("cnn", data, tmp_path / "run", train__epochs=1)) == 2
    answer = capsys.readouterr().err.splitlines()
    assert answer[0].startswith("voice1/empty.wav: empty file")
    assert answer[1].startswith("voice2/noise.flac: ")
    assert "data.on_bad_file=skip" in answer[2]
    assert len(answer) == 3
    assert not (tmp_path / "run").exists()
    arguments = command("cnn", data, tmp_path / "run", train__epochs=1, data__on_bad_file="skip")
    assert main(arguments) == 0
    info = json.loads((tmp_path / "run" / "config.json").read_text())
    assert [line.split(":")[0] for line in info["data"]["skipped"]] == [
        "voice1/empty.wav",
        "voice2/noise.flac",
    ]


def test_a_finished_run_without_its_report_rewrites_it(audio_run, recordings, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(audio_run, workdir)
    page = (workdir / "report.html").read_text()
    (workdir / "report.html").unlink()
    assert main(command("cnn", recordings, workdir, data__window=WINDOW, train__epochs=3)) == 0
    assert len((workdir / "report.html").read_text()) > 0.9 * len(page)
    assert history(workdir) == history(audio_run)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"data__window": 1e-9}, "data.window must be at least"),
        ({"data__window": 100}, "data.window must be at most"),
        ({"mel__n_mels": 200}, "bands without a frequency"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_refused(recordings, tmp_path, keys, message, capsys):
    assert main(command("cnn", recordings, tmp_path / "run", **keys)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", ["a file", "a folder"])
def test_a_directory_with_other_files_is_refused_and_kept(content, recordings, tmp_path, capsys):
    workdir = tmp_path / "precious"
    if content == "a file":
        workdir.write_text("letter")
    else:
        workdir.mkdir()
        (workdir / "letter.txt").write_text("letter")
    assert main(command("cnn", recordings, workdir)) == 2
    assert "--workdir" in capsys.readouterr().err


def test_progress_is_plain_lines_and_no_heavy_package_is_imported(recordings, tmp_path):
    code = (
        "import sys; from meljax.main import main; main(sys.argv[1:]); "
        "print('loaded', [m for m in ('tensorflow', 'torch', 'tensorboard') if m in sys.modules])"
    )
    arguments = command("cnn", recordings, tmp_path / "run", data__window=WINDOW, train__epochs=2)
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
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
