import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from conftest import command, tone
from sklearn.metrics import f1_score, precision_recall_fscore_support, top_k_accuracy_score

from meljax import evaluate, saved, streaming
from meljax.config import DataConfig
from meljax.data import voices
from meljax.main import main


def scores(run, tmp_path, *arguments, code=0) -> dict:
    out = tmp_path / "scores.json"
    assert evaluate.main([str(run), *map(str, arguments), "--json", str(out)]) == code
    return json.loads(out.read_text())


def test_the_validation_split_has_the_scores_of_training(sound_run, tmp_path, capsys):
    found = scores(sound_run, tmp_path)
    best = max(
        map(json.loads, (sound_run / "metrics.jsonl").read_text().splitlines()),
        key=lambda row: (row["val_accuracy"], -row["val_loss"]),
    )
    assert found["epoch"] == best["epoch"]
    assert found["accuracy"] == pytest.approx(best["val_accuracy"])
    assert found["macro_f1"] == pytest.approx(best["val_f1"])
    assert found["uncalibrated"]["loss"] == pytest.approx(best["val_loss"], rel=1e-5)
    stored = json.loads((sound_run / "calibration.json").read_text())
    assert stored["temperature"] == found["temperature"] != 1
    assert stored["before"] == found["uncalibrated"]
    assert stored["after"]["loss"] == found["loss"]
    printed = capsys.readouterr().out
    assert f"accuracy    {found['accuracy']:.1%} (" in printed
    assert "chosen on these same files" in printed
    assert f"at temperature {found['temperature']:.2f}" in printed


def test_scores_of_other_files_are_scikit_learns(sound_run, sounds, tmp_path, capsys):
    found = scores(sound_run, tmp_path, "--data", sounds)
    assert found["files"] == 42
    true = [item["label"] for item in found["items"]]
    predicted = [item["prediction"] for item in found["items"]]
    assert found["accuracy"] == np.mean(np.array(true) == np.array(predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"))
    expected = precision_recall_fscore_support(true, predicted, zero_division=0)
    for i, row in enumerate(found["per_class"].values()):
        for score, name in zip(expected, ("precision", "recall", "f1", "files"), strict=True):
            assert (row[name] or 0) == pytest.approx(score[i])
    assert np.sum(found["confusion"]) == 42
    assert found["top_k"].keys() == {"1"}
    with open(sound_run / "split.csv", newline="") as file:
        train = sum(row["split"] == "train" for row in csv.DictReader(file))
    assert found["trained_on"] == train
    assert f"{train} of these files are byte-identical" in capsys.readouterr().out


def test_top_k_is_scikit_learns():
    rng = np.random.default_rng(0)
    probabilities, labels = rng.uniform(size=(50, 6)), rng.integers(0, 6, 50)
    for k in (1, 3, 5):
        found = evaluate.calibration.top_accuracy(probabilities, labels, k)
        expected = top_k_accuracy_score(labels, probabilities, k=k, labels=np.arange(6))
        assert found == pytest.approx(expected)


def test_some_of_the_classes_are_enough_and_the_others_are_named(
    sound_run, sounds, tmp_path, capsys
):
    folder = tmp_path / "some"
    shutil.copytree(sounds / "voice1", folder / "voice1")
    (folder / "voice1" / "broken.wav").write_bytes(b"")
    found = scores(sound_run, tmp_path, "--data", folder, code=1)
    assert found["missing_classes"] == ["voice0", "voice2"]
    assert found["files"] == 14
    assert [error["error"] for error in found["errors"]] == ["empty file"]
    assert found["per_class"]["voice0"]["recall"] is None
    printed = capsys.readouterr()
    assert "no files of 2 of the classes: voice0, voice2" in printed.out
    assert "broken.wav: empty file; left out" in printed.err


def test_a_table_is_read_by_its_columns_and_split(sound_run, sounds, tmp_path, capsys):
    table = sounds.parent / "evaluate.csv"
    rows = [
        ["path", "label", "split"],
        *(
            [f"{sounds.name}/voice{c}/0{i}.wav", f"voice{c}", "test" if i < 2 else ""]
            for c in range(3)
            for i in range(5)
        ),
    ]
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert scores(sound_run, tmp_path, "--data", table)["files"] == 15
    text = table.read_text()
    table.write_text(text.replace("path,label", "path,voice"))
    assert evaluate.main([str(sound_run), "--data", str(table)]) == 2
    assert "--label: " in capsys.readouterr().err
    assert scores(sound_run, tmp_path, "--data", table, "--label", "voice")["files"] == 15
    table.write_text(text)
    found = scores(sound_run, tmp_path, "--data", table, "--split", "test")
    assert found["files"] == 6
    assert found["split"] == "test"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("unknown", "'voice11' (the nearest is 'voice1')"),
        ("kind", "holds pictures, and the model was trained on recordings"),
        ("gone", "does not exist"),
        ("flat", "expected one sub-folder per class"),
        ("split", "has no split 'test'"),
    ],
)
def test_a_folder_that_does_not_fit_is_explained(
    change, message, sound_run, sounds, pictures, tmp_path, capsys
):
    data = tmp_path / "data"
    if change == "kind":
        data = pictures
    elif change == "flat":
        data = sounds / "voice0"
    elif change != "gone":
        name = "voice11" if change == "unknown" else "voice1"
        shutil.copytree(sounds / "voice1", data / name)
    split = ["--split", "test"] if change == "split" else []
    assert evaluate.main([str(sound_run), "--data", str(data), *split]) == 2
    answer = capsys.readouterr().err
    assert message in answer
    assert "--data" in answer
    assert "data.path" not in answer
    assert answer.count("\n") == 1


def test_a_file_that_changed_since_training_is_left_out(sounds, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(sounds, data)
    assert main(command("cnn", data, run, train__epochs=1)) == 0
    with open(run / "split.csv", newline="") as file:
        held = [row["path"] for row in csv.DictReader(file) if row["split"] == "val"]
    shutil.copy(sounds / "voice0" / "00.wav", data / held[-1])
    (data / held[0]).unlink()
    errors = scores(run, tmp_path, code=1)["errors"]
    assert {error["error"] for error in errors} <= {
        "changed since the model was trained",
        "No such file or directory",
    }
    assert len(errors) == 2


def test_a_run_without_such_a_split_or_with_a_damaged_one_is_answered(sound_run, tmp_path, capsys):
    assert evaluate.main([str(sound_run), "--split", "test"]) == 2
    assert "has no test files" in capsys.readouterr().err
    broken = tmp_path / "broken"
    shutil.copytree(sound_run, broken)
    (broken / "split.csv").write_text("path,label\n")
    assert evaluate.main([str(broken)]) == 2
    (broken / "calibration.json").write_text("{}")
    assert evaluate.main([str(broken)]) == 2
    assert "calibration.json is damaged" in capsys.readouterr().err


def test_the_embedded_voices_are_found_without_a_folder(sound_run, monkeypatch):
    """Whatever the clips are; here short ones stand in for those it would take long to make."""
    clips = tuple((9000 * tone(150, 0.3, i)).astype(np.int16) for i in range(3))
    names = tuple(f"voice0/{i:02}" for i in range(3))
    made = voices.Voices(names, ("voice0",) * 3, clips)
    monkeypatch.setattr(voices, "load", lambda cache, progress: made)
    model = saved.load(sound_run)
    config = dataclasses.replace(model.config, data=DataConfig())
    row = {"path": names[1], "label": "voice0", "split": "val", "sha256": "0"}
    found = evaluate.own_files(sound_run, model._replace(config=config), [row], "val")
    scored, used, bad = evaluate.score(model, found, "val")
    assert used == [(names[1], "voice0")]
    assert not bad
    (alone,) = streaming.score(model, [streaming.Source("x", lambda: clips[1])])
    np.testing.assert_array_equal(scored.logits, alone.logits)


def test_without_the_split_other_files_are_scored_and_missing_ones_count(
    sound_run, sounds, tmp_path, capsys
):
    run, table = tmp_path / "run", tmp_path / "table.csv"
    shutil.copytree(sound_run, run)
    (run / "split.csv").unlink()
    table.write_text(f"path,label\n{sounds}/voice0/00.wav,voice0\n{sounds}/nowhere.wav,voice0\n")
    found = scores(run, tmp_path, "--data", table, code=1)
    assert found["files"] == 1
    assert [error["error"] for error in found["errors"]] == ["no such file"]
    assert "not recognised" in capsys.readouterr().err
    assert evaluate.main([str(run), "--data", str(table), "--json", "/nowhere/x.json"]) == 2
    captured = capsys.readouterr()
    assert f"accuracy    {found['accuracy']:.1%}" in captured.out
    assert "--json /nowhere/x.json" in captured.err
