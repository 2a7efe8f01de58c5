"""The background class: cut into windows, trained on, and scored on its own."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
import soundfile
from conftest import CACHE, command, small_config
from manifests import read as read_layout
from sklearn.metrics import accuracy_score, f1_score

import meljax
from meljax.commands import evaluate
from meljax.config import DataConfig
from meljax.data.background import cut_background
from meljax.data.dataset import load
from meljax.data.manifest import Item
from meljax.data.split import split_items
from meljax.evaluation import metrics, statistics
from meljax.evaluation.scores import Predicted, Scored
from meljax.main import main
from meljax.runs.info import require_info
from meljax.runs.load_model import load_model
from meljax.runs.predictions import calibration_of
from meljax.util.errors import UserError

NOISE = "_background_noise_"


@pytest.fixture
def noisy(recordings, tmp_path):
    """The recordings, and four of noise of 2 s each."""
    root = tmp_path / "noisy"
    shutil.copytree(recordings, root)
    (root / NOISE).mkdir()
    for i in range(4):
        samples = 0.1 * np.random.default_rng(i).normal(size=16_000 + i)
        soundfile.write(root / NOISE / f"{i}.wav", samples, 8000)
    return root


def load_noisy(root, **keys):
    return load(small_config(data__path=str(root), data__background=NOISE, **keys), CACHE)


def test_without_the_key_the_folder_is_no_class(noisy):
    found = load(small_config(data__path=str(noisy)), CACHE)
    assert NOISE not in found.classes
    (note,) = [note for note in found.notes if NOISE in note]
    assert "4 files in it left out; data.background=_background_noise_ trains on it" in note


def test_the_background_is_cut_into_windows_that_stay_in_one_split(noisy):
    found = load_noisy(noisy)
    assert found.classes == (NOISE, "voice0", "voice1", "voice2")
    assert found.unscored == (NOISE,)
    voices = [
        len(array)
        for item, array in zip(found.items, found.arrays, strict=True)
        if item.label != NOISE
    ]
    window = int(np.median(voices))
    parts = [i for i, item in enumerate(found.items) if item.label == NOISE]
    assert len(parts) == 4 * (16_000 // window)
    splits = {}
    for i in parts:
        item, samples = found.items[i], found.arrays[i]
        whole, _ = soundfile.read(noisy / item.path, dtype="int16")
        first = round(item.start * 8000)
        np.testing.assert_array_equal(samples, whole[first : first + window])
        assert round(item.end * 8000) == first + window
        splits.setdefault(item.path, set()).add(found.splits[i])
    assert sorted(map(len, splits.values())) == [1, 1, 1, 1]
    assert set.union(*splits.values()) == {"train", "val"}
    note = f"background {NOISE!r}: 4 recordings cut into {len(parts)} windows of"
    assert any(line.startswith(note) for line in found.notes)


def test_the_window_is_that_of_the_voices(noisy):
    assert len(load_noisy(noisy, data__window=0.5).arrays) == 42 + 4 * 4


def test_short_recordings_segments_and_other_classes_are_not_cut():
    items = [Item("a", "x"), Item("b", "noise"), Item("c", "noise", start=0.0, end=9.0)]
    items += [Item("d", "x"), Item("e", "noise")]
    arrays = [np.arange(n, dtype=np.int16) for n in (900, 150, 999, 100, 250)]
    data = DataConfig(background="noise", window=1.0)
    cut, digests, parts, notes = cut_background(items, list("abcde"), arrays, data, 100)
    assert [item.path for item in cut] == list("abcdee")
    assert digests == list("abcdee")
    assert [len(part) for part in parts] == [900, 150, 999, 100, 100, 100]
    assert [(item.start, item.end) for item in cut[4:]] == [(0.0, 1.0), (1.0, 2.0)]
    assert notes == ["background 'noise': 1 recording cut into 2 windows of 1.00 s"]
    assert cut_background(items[:2], list("ab"), arrays[:2], data, 100)[3] == []


def test_given_splits_leave_the_background_to_be_split(noisy):
    """As in Speech Commands: lists name files of the classes only."""
    for c in range(3):
        files = sorted((noisy / f"voice{c}").iterdir())
        with open(noisy / "validation_list.txt", "a") as lists:
            lists.writelines(f"voice{c}/{file.name}\n" for file in files[:3])
    found = load_noisy(noisy)
    assert found.split_rule == "as given; 0.1 of the background, seed 0"
    sides = {
        (item.label == NOISE, split): item.path
        for item, split in zip(found.items, found.splits, strict=True)
    }
    assert set(sides) == {(True, "train"), (True, "val"), (False, "train"), (False, "val")}
    for path in sorted((noisy / NOISE).iterdir())[1:]:
        path.unlink()
    found = load_noisy(noisy)
    noise = [s for item, s in zip(found.items, found.splits, strict=True) if item.label == NOISE]
    assert set(noise) == {"train"}
    assert any("without validation items" in line for line in found.warnings)


def test_held_out_groups_leave_the_background_to_be_split(noisy):
    keys = {"data__pattern": r"(?P<label>[^/]+)/(?P<group>\d)\d", "data__holdout": "1"}
    found = load_noisy(noisy, **keys)
    assert found.split_rule == "groups held out: 1; 0.1 of the background, seed 0"
    pairs = list(zip(found.items, found.splits, strict=True))
    assert {split for item, split in pairs if item.label == NOISE} == {"train", "val"}
    assert {item.group for item, split in pairs if split == "val"} == {"1", ""}


def test_the_share_of_the_background_is_that_of_its_own_items():
    items = [Item(f"{i}", "voice", split="val" if i < 9 else "train") for i in range(180)]
    items += [Item(f"n{i}", "noise") for i in range(20)]
    items += [Item(f"g{i}", "noise", group="den") for i in range(5)]
    found = split_items(items, [""] * 205, DataConfig(background="noise", holdout=""), seed=0)
    assert found.splits[180:].count("val") in (2, 3)
    assert len(set(found.splits[200:])) == 1  # a group stays together
    assert "" not in found.splits


def test_a_recording_of_two_windows_is_cut():
    items = [Item("a", "x"), Item("b", "noise")]
    arrays = [np.zeros(100, np.int16), np.zeros(200, np.int16)]
    data = DataConfig(background="noise", window=1.0)
    assert len(cut_background(items, ["a", "b"], arrays, data, 100)[0]) == 3


def test_a_background_that_is_no_class_is_refused(noisy, recordings, image_folder):
    with pytest.raises(UserError, match=r"there is no class 'voice9' \(the nearest is 'voice"):
        load(small_config(data__path=str(recordings), data__background="voice9"), CACHE)
    for name in ("voice1", "voice2"):
        shutil.rmtree(noisy / name)
    with pytest.raises(UserError):
        load_noisy(noisy)
    with pytest.raises(UserError, match=r"data\.background is for files and sets"):
        load(small_config(data__background="voice01", mel__sample_rate=16_000), CACHE)
    images = load(small_config(data__path=str(image_folder), data__background="voice1"), CACHE)
    assert images.unscored == ("voice1",)


def test_a_class_of_a_folder_can_be_the_background(touch):
    folder = touch("train/a/1.wav", "train/b/1.wav", "test/a/2.wav", f"{NOISE}/x.wav")
    manifest = read_layout(folder, background=NOISE)
    (noise,) = [item for item in manifest.items if item.label == NOISE]
    assert (noise.path, noise.split) == (f"{NOISE}/x.wav", "")
    assert f"{NOISE!r} is the background, with 1 file" in manifest.notes
    assert "background recordings" not in manifest.left_out


def predicted(**attributes):
    """Five classes on 400 items; the first is the background."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 400)
    probabilities = rng.dirichlet(np.ones(5), 400) + 0.3 * np.eye(5)[labels]
    probabilities /= probabilities.sum(1, keepdims=True)
    return Predicted("val", 3, True, labels, (), probabilities, **attributes)


def test_scores_leave_out_the_items_of_the_background():
    scores = predicted(unscored=(0,), background=0)
    rest = scores.labels != 0
    true, found = scores.labels[rest], scores.predictions[rest]
    assert scores.accuracy == pytest.approx(accuracy_score(true, found))
    expected = f1_score(true, found, average=None, labels=range(1, 5)).mean()
    assert scores.macro_f1 == pytest.approx(expected)
    right = int((true == found).sum())
    assert scores.accuracy_interval.bounds == statistics.wilson(right, int(rest.sum()))
    only = metrics.without(scores.confusion, (0,))
    assert scores.macro_f1_interval.bounds == statistics.bootstrap_macro_f1(only, (0,))
    shares = scores.background_shares
    assert shares.files == int((~rest).sum())
    assert shares.others == int(rest.sum())
    assert shares.recognized == int((scores.predictions[~rest] == 0).sum())
    assert shares.taken == int((found == 0).sum())
    assert predicted().background_shares is None
    assert predicted().accuracy != scores.accuracy


def test_calibration_and_loss_leave_out_the_background():
    rng = np.random.default_rng(0)
    item = np.sort(np.concatenate([np.arange(60), rng.integers(0, 60, 40)]))
    labels = rng.integers(0, 5, 60)
    logits = rng.normal(size=(100, 5)) + 2 * np.eye(5)[labels[item]]
    scores = Scored("val", 1, True, labels, logits, item, 1.5, unscored=(0,), background=0)
    rest = labels != 0
    kept = rest[item]
    number = np.unique(item[kept], return_inverse=True)[1]
    alone = Scored("val", 1, True, labels[rest], logits[kept], number, 1.5)
    assert scores.loss == alone.loss
    assert calibration_of(scores) == calibration_of(alone)
    assert calibration_of(alone) != calibration_of(dataclasses.replace(scores, unscored=()))
    assert alone.only_counted is alone


def test_a_run_reports_its_background_on_its_own_line(noisy, tmp_path, capsys):
    run = tmp_path / "run"
    keys = {"train__epochs": 3, "data__background": NOISE}
    assert main(command("cnn", noisy, run, **keys)) == 0
    printed = capsys.readouterr().out
    assert "background (best epoch): " in printed
    with open(run / "predictions.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["weights"] == "best"]
    voices = [row for row in rows if row["label"] != NOISE]
    noise = [row for row in rows if row["label"] == NOISE]
    assert (len(noise), len(voices)) == (require_info(run).data.class_counts[NOISE][1], 4)
    accuracy = np.mean([row["label"] == row["prediction"] for row in voices])
    history = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = next(row for row in history if row["epoch"] == int(rows[0]["epoch"]))
    assert best["val_accuracy"] == accuracy
    trained = load_model(run)
    assert trained.background == trained.model.classes.index(NOISE) == 0
    scores = tmp_path / "scores.json"
    assert evaluate.main([str(run), "--json", str(scores)]) == 0
    assert "background  " in capsys.readouterr().out
    found = json.loads(scores.read_text())
    assert found["accuracy"] == accuracy
    assert found["background"]["files"] == len(noise)
    expected = {row["path"]: float(row["probability"]) for row in voices}
    items = {each["path"].split("noisy/")[1]: each["probability"] for each in found["items"]}
    assert len(items) == len(rows)
    for path, probability in expected.items():
        assert items[path] == probability
    windows = sorted(float(row["probability"]) for row in noise)
    assert windows == sorted(items[path] for path in items if path.startswith(NOISE))
    rows = meljax.load(run).predict(noisy)
    assert {row["status"] for row in rows} <= {"ok", "background"}
    for row, probabilities in zip(rows, rows.probabilities, strict=True):
        of_noise = rows.classes[probabilities.argmax()] == NOISE
        assert (row["status"], row["label"] is None) == (
            ("background", True) if of_noise else ("ok", False)
        )
        assert row["probability"] == probabilities.max()
    assert "background" in {row["status"] for row in rows}
    # On other data, a whole recording of noise is one item.
    assert evaluate.main([str(run), str(noisy), "--json", str(scores)]) == 0
    assert json.loads(scores.read_text())["background"]["files"] == 4


def test_validation_items_of_the_background_alone_are_refused(noisy):
    keys = {"data__pattern": r"(?P<label>[^/]+)/(?P<group>\d)\d", "data__small_classes": "keep"}
    for c in range(3):
        for file in list((noisy / f"voice{c}").iterdir())[1:]:
            file.unlink()
    with pytest.raises(UserError, match="no validation items to score"):
        load_noisy(noisy, **keys)
