import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import WINDOW, command, edit_info, rewrite, tone
from samples import confused
from sklearn.metrics import f1_score, precision_recall_fscore_support, top_k_accuracy_score

from meljax.commands import evaluate, predict
from meljax.config import DataConfig
from meljax.data import synthetic
from meljax.evaluation import calibration, metrics
from meljax.evaluation.aggregation import item_probabilities
from meljax.evaluation.calibration import Temperature
from meljax.evaluation.scorer import Source, score_stream
from meljax.main import main
from meljax.reports import evaluation_text
from meljax.runs.info import require_info
from meljax.runs.load_model import load_model
from meljax.runs.predictions import read_temperature
from meljax.workflows import evaluate as workflow


def scores(run, tmp_path, *arguments, code=0) -> dict:
    out = tmp_path / "scores.json"
    assert evaluate.main([str(run), *map(str, arguments), "--json", str(out)]) == code
    return json.loads(out.read_text())


def test_the_validation_scores_are_those_of_training(audio_run, tmp_path, capsys):
    found = scores(audio_run, tmp_path)
    best = max(
        map(json.loads, (audio_run / "metrics.jsonl").read_text().splitlines()),
        key=lambda row: (row["val_accuracy"], -row["val_loss"]),
    )
    assert found["epoch"] == best["epoch"]
    assert found["accuracy"] == pytest.approx(best["val_accuracy"])
    assert found["macro_f1"] == pytest.approx(best["val_f1"])
    assert found["uncalibrated"]["loss"] == pytest.approx(best["val_loss"], rel=1e-5)
    stored = json.loads((audio_run / "calibration.json").read_text())
    assert stored["temperature"] == found["temperature"] == 1
    assert stored["note"] == found["calibration_note"] == "4 validation items, at least 50 needed"
    assert stored["before"] == found["uncalibrated"]
    assert stored["after"]["loss"] == found["loss"] == stored["before"]["loss"]
    printed = capsys.readouterr().out
    assert f"accuracy    {found['accuracy']:.1%} (" in printed
    assert "chosen on these files" in printed
    assert f"expected error; not calibrated: {stored['note']}" in printed


def test_scores_of_other_files_equal_scikit_learn(audio_run, recordings, tmp_path, capsys):
    found = scores(audio_run, tmp_path, recordings)
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
    with open(audio_run / "split.csv", newline="") as file:
        train = sum(row["split"] == "train" for row in csv.DictReader(file))
    assert found["trained_on"] == train
    assert f"the model was trained on {train} of these 42 files" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["val", "test"])
def test_each_split_is_scored_on_its_own_files_as_in_training(
    muddled_run, muddle, tmp_path, split, capsys
):
    found = scores(muddled_run, tmp_path, "--split", split)
    with open(muddled_run / "predictions.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["weights"] == "best"]
    rows = [row for row in rows if row["split"] == split]
    assert found["split"] == split
    assert [tuple(item.values()) for item in found["items"]] == [
        (
            str(muddle / row["path"]),
            row["label"],
            row["prediction"],
            float(row["probability"]),
            row["group"],
        )
        for row in rows
    ]
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert {str(found["epoch"])} == {row["epoch"] for row in rows}
    assert ("chosen on these files" in capsys.readouterr().out) == (split == "val")


def test_top_k_equals_scikit_learn():
    rng = np.random.default_rng(0)
    probabilities, labels = rng.uniform(size=(50, 6)), rng.integers(0, 6, 50)
    for k in (1, 3, 5):
        found = metrics.top_accuracy(probabilities, labels, k)
        expected = top_k_accuracy_score(labels, probabilities, k=k, labels=np.arange(6))
        assert found == pytest.approx(expected)


def test_text_and_json_have_the_right_numbers():
    """Of 10 files of ann, 6 are predicted right; 8 files are predicted as ann."""
    confusion = [[6, 3, 1, 0], [0, 8, 0, 0], [2, 0, 4, 0], [0, 0, 0, 0]]
    scored = confused(confusion, epoch=2, chosen=True, temperature=0.5)
    classes = ("ann", "bob", "cy", "di")
    used = [(f"{i}.wav", classes[label]) for i, label in enumerate(scored.labels)]
    results = evaluation_text.Evaluation("r", "d", classes, scored, used, 0, False, [])
    info = evaluation_text.numbers(results)
    assert json.loads(json.dumps(info["confusion"])) == confusion
    assert info["missing_classes"] == ["di"]
    assert info["per_class"]["ann"] == pytest.approx(
        {"files": 10, "predicted": 8, "precision": 0.75, "recall": 0.6, "f1": 2 / 3}
    )
    nothing = dict.fromkeys(("precision", "recall", "f1"))
    assert info["per_class"]["di"] == {"files": 0, "predicted": 0} | nothing
    wrong = [item for item in info["items"] if item["label"] != item["prediction"]]
    assert [(item["path"], item["label"], item["prediction"]) for item in wrong] == [
        *((f"{i}.wav", "ann", "bob") for i in (6, 7, 8)),
        ("9.wav", "ann", "cy"),
        *((f"{i}.wav", "cy", "ann") for i in (18, 19)),
    ]
    rank = np.argsort(-scored.probabilities, axis=1, kind="stable")
    within = [scored.labels[i] in rank[i, :3] for i in range(24)]
    assert info["top_k"] == {1: 0.75, 3: pytest.approx(np.mean(within))}
    before, after = (item_probabilities(scored.logits, scored.item, t) for t in (1.0, 0.5))
    loss, error = calibration.log_loss, calibration.calibration_error
    assert info["uncalibrated"]["loss"] == loss(before, scored.labels) != info["loss"]
    assert info["loss"] == loss(after, scored.labels)
    text = evaluation_text.text(results, info)
    assert (
        f"loss        {loss(after, scored.labels):.3f} nats "
        f"(without the temperature {loss(before, scored.labels):.3f})" in text
    )
    assert (
        f"calibration {error(after, scored.labels):.1%} expected error at temperature 0.50 "
        f"(without {error(before, scored.labels):.1%})" in text
    )
    rows = [line.split() for line in text.splitlines()]
    first = rows.index(["class", "files", "precision", "recall", "F1", "most", "confused", "with"])
    assert rows[first + 1 : first + 4] == [
        ["ann", "10", "75.0%", "60.0%", "66.7%", "bob", "(3)"],
        ["cy", "6", "80.0%", "66.7%", "72.7%", "ann", "(2)"],
        ["bob", "8", "72.7%", "100.0%", "84.2%"],
    ]
    assert "classes without files: 1 (di)" in text


def test_missing_classes_are_allowed_and_listed(audio_run, recordings, tmp_path, capsys):
    folder = tmp_path / "some"
    shutil.copytree(recordings / "voice1", folder / "voice1")
    (folder / "voice1" / "broken.wav").write_bytes(b"")
    found = scores(audio_run, tmp_path, folder, code=1)
    assert found["missing_classes"] == ["voice0", "voice2"]
    assert found["files"] == 14
    assert [error["error"] for error in found["errors"]] == ["empty file"]
    assert found["per_class"]["voice0"]["recall"] is None
    printed = capsys.readouterr()
    assert "classes without files: 2 (voice0, voice2)" in printed.out
    assert "broken.wav: empty file; skipped" in printed.err


def test_a_csv_is_read_by_column_and_split(audio_run, recordings, tmp_path, capsys):
    shutil.copytree(recordings, tmp_path / "set" / recordings.name)
    table = tmp_path / "set" / "evaluate.csv"
    rows = [
        ["path", "label", "split"],
        *(
            [f"{recordings.name}/voice{c}/0{i}.wav", f"voice{c}", "test" if i < 2 else ""]
            for c in range(3)
            for i in range(5)
        ),
    ]
    with open(table, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert scores(audio_run, tmp_path, table)["files"] == 15
    text = table.read_text()
    table.write_text(text.replace("path,label", "path,voice"))
    assert evaluate.main([str(audio_run), str(table)]) == 2
    assert "data.label: " in capsys.readouterr().err
    assert scores(audio_run, tmp_path, table, "--label", "voice")["files"] == 15
    table.write_text(text)
    found = scores(audio_run, tmp_path, table, "--split", "test")
    assert found["files"] == 6
    assert found["split"] == "test"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("unknown", "'voice11' (the nearest is 'voice1')"),
        ("kind", "holds images, but the model was trained on recordings"),
        ("gone", "does not exist"),
        ("flat", "expected one sub-folder per class"),
        ("split", "has no split 'test'"),
    ],
)
def test_unsuitable_data_are_refused_with_a_reason(
    change, message, audio_run, recordings, image_folder, tmp_path, capsys
):
    data = tmp_path / "data"
    if change == "kind":
        data = image_folder
    elif change == "flat":
        data = recordings / "voice0"
    elif change != "gone":
        name = "voice11" if change == "unknown" else "voice1"
        shutil.copytree(recordings / "voice1", data / name)
    split = ["--split", "test"] if change == "split" else []
    assert evaluate.main([str(audio_run), str(data), *split]) == 2
    answer = capsys.readouterr().err
    assert message in answer
    assert "data.path: " in answer
    assert answer.count("\n") == 1


def test_a_file_that_changed_since_training_is_skipped(recordings, tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(recordings, data)
    assert main(command("cnn", data, run, data__window=WINDOW, train__epochs=1)) == 0
    with open(run / "split.csv", newline="") as file:
        held = [row["path"] for row in csv.DictReader(file) if row["split"] == "val"]
    shutil.copy(recordings / "voice0" / "00.wav", data / held[-1])
    (data / held[0]).unlink()
    errors = scores(run, tmp_path, code=1)["errors"]
    assert {error["error"] for error in errors} <= {
        "changed since the model was trained",
        "no such file",
    }
    assert len(errors) == 2


def test_a_missing_split_and_a_damaged_split_file_are_reported(audio_run, tmp_path, capsys):
    assert evaluate.main([str(audio_run), "--split", "test"]) == 2
    assert "has no test files" in capsys.readouterr().err
    broken = tmp_path / "broken"
    shutil.copytree(audio_run, broken)
    (broken / "split.csv").write_text("path,label\n")
    assert evaluate.main([str(broken)]) == 2
    (broken / "calibration.json").write_text("{}")
    assert evaluate.main([str(broken)]) == 2
    assert "calibration.json is damaged" in capsys.readouterr().err


def test_the_temperature_of_another_epoch_is_ignored_with_a_warning(
    audio_run, recordings, tmp_path, capsys
):
    run, file = tmp_path / "run", str(recordings / "voice0" / "00.wav")
    shutil.copytree(audio_run, run)
    few = "4 validation items, at least 50 needed"
    info = json.loads((run / "calibration.json").read_text())
    epoch = info["epoch"]
    assert read_temperature(run, require_info(run), epoch) == Temperature(1.0, few)
    assert predict.main([str(run), file]) == 0
    assert f"the probabilities are not calibrated: {few}\n" in capsys.readouterr().err
    fitted = info | {"temperature": 0.7, "note": ""}
    rewrite(run, "calibration.json", json.dumps(fitted))
    assert read_temperature(run, require_info(run), epoch) == Temperature(0.7)
    assert predict.main([str(run), file]) == 0
    assert "not calibrated" not in capsys.readouterr().err
    found = scores(run, tmp_path)
    assert found["temperature"] == 0.7
    assert not found["cross_fitted"]
    words = "on the files that the temperature was fitted to; 4 files: too few for cross-fitting"
    assert words in capsys.readouterr().out
    rewrite(run, "calibration.json", json.dumps(fitted | {"epoch": epoch + 1}))
    assert load_model(run).temperature == 1
    assert predict.main([str(run), file]) == 0
    warning = capsys.readouterr().err
    assert f"no temperature for epoch {epoch}; to fit one: meljax report {run}" in warning
    (run / "calibration.json").unlink()
    assert read_temperature(run, require_info(run), epoch).value == 1
    assert "no temperature for epoch" in read_temperature(run, require_info(run), epoch).note


def test_a_run_on_the_embedded_voices_is_evaluated_on_them(audio_run, monkeypatch):
    """Short clips replace the embedded voices, which take long to synthesize."""
    clips = tuple((9000 * tone(150, 0.3, i)).astype(np.int16) for i in range(3))
    names = tuple(f"voice0/{i:02}" for i in range(3))
    made = synthetic.Voices(names, ("voice0",) * 3, ("",) * 3, clips)
    monkeypatch.setattr(synthetic, "load", lambda cache: made)
    trained = load_model(audio_run)
    config = dataclasses.replace(trained.config, data=DataConfig())
    row = {"path": names[1], "start": "", "group": "", "label": "voice0"}
    row |= {"split": "val", "sha256": "0"}
    found = workflow.own_files(audio_run, trained._replace(config=config), [row], "val", {})
    scored, used, bad = workflow.score(trained, found, "val", ())
    assert used == [(names[1], "voice0")]
    assert not bad
    (alone,) = score_stream(trained.model, [Source("x", lambda: clips[1])])
    np.testing.assert_array_equal(scored.logits, alone.logits)


def test_without_split_file_other_files_are_scored_and_unreadable_ones_counted(
    audio_run, recordings, tmp_path, capsys
):
    run, table = tmp_path / "run", tmp_path / "table.csv"
    shutil.copytree(audio_run, run)
    (run / "split.csv").unlink()
    table.write_text(
        f"path,label\n{recordings}/voice0/00.wav,voice0\n{recordings}/nowhere.wav,voice0\n"
    )
    found = scores(run, tmp_path, table, code=1)
    assert found["files"] == 1
    assert [error["error"] for error in found["errors"]] == ["no such file"]
    assert "not recognized" in capsys.readouterr().err
    assert evaluate.main([str(run), str(table), "--json", "/nowhere/x.json"]) == 2
    captured = capsys.readouterr()
    assert f"accuracy    {found['accuracy']:.1%}" in captured.out
    assert "--json /nowhere/x.json" in captured.err


def test_training_files_are_counted_in_every_split(muddled_run, muddle, tmp_path, capsys):
    """Copies of a training file count too, as does the run's own training split."""
    found = scores(muddled_run, tmp_path, "--split", "train")
    assert found["trained_on"] == found["files"] == 18
    assert "the model was trained on 18 of these 18 files" in capsys.readouterr().out
    for i in range(3):
        folder = tmp_path / "copies" / "voice0"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(muddle / "train" / "voice0" / "00.wav", folder / f"{i}.wav")
    found = scores(muddled_run, tmp_path, tmp_path / "copies")
    assert found["trained_on"] == found["files"] == 3


def with_data_keys(run: Path, copy: Path, **keys) -> Path:
    """Returns a copy of a run whose config has other keys of the data group."""
    shutil.copytree(run, copy)
    changed = {f"data.{key}": value for key, value in keys.items()}
    edit_info(copy, lambda info: info["config"].update(changed))
    return copy


def test_a_folder_with_metadata_is_read_by_the_column_of_the_run(audio_run, recordings, tmp_path):
    run = with_data_keys(audio_run, tmp_path / "run", label="voice")
    folder = tmp_path / "hub"
    shutil.copytree(recordings / "voice0", folder / "data")
    names = sorted(path.name for path in (folder / "data").glob("*.wav"))
    rows = [f"data/{name},{i},voice0" for i, name in enumerate(names)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,label,voice", *rows]))
    assert scores(run, tmp_path, folder)["files"] == len(names)
    assert scores(run, tmp_path, recordings)["files"] > len(names)


def test_a_pattern_of_the_run_that_does_not_match_is_named(audio_run, recordings, tmp_path, capsys):
    run = with_data_keys(audio_run, tmp_path / "run", pattern=r"(?P<label>\w+)_x")
    assert evaluate.main([str(run), str(recordings)]) == 2
    assert "the pattern is the run's" in capsys.readouterr().err
    assert scores(run, tmp_path, recordings, "--pattern", "")["files"] > 1


def test_a_label_without_other_data_is_refused(audio_run, capsys):
    assert evaluate.main([str(audio_run), "--label", "word"]) == 2
    assert "data.label is for other data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("column", "run_column", "options", "name"),
    [
        ("speaker", "group", ["--group", "speaker"], "speaker"),
        ("speaker", "speaker", [], "speaker"),
        ("group", "speaker", [], "group"),
        ("person", "speaker", [], None),
    ],
)
def test_groups_of_other_data_decide_the_intervals(
    column, run_column, options, name, audio_run, recordings, tmp_path, capsys
):
    """Two persons say each class 14 times; the run's own column of groups is `run_column`."""
    run = with_data_keys(audio_run, tmp_path / "run", group=run_column)
    table = tmp_path / "table.csv"
    rows = [
        f"{recordings}/voice{c}/{i:02}.wav,voice{c},p{i % 9}" for c in range(3) for i in range(14)
    ]
    table.write_text("\n".join([f"path,label,{column}", *rows, ""]))
    found = scores(run, tmp_path, table, *options)
    assert found["groups"] == (name and {"name": name, "number": 9})
    over = f"over 9 {name}s"
    assert (over in found["accuracy_interval_method"]) == bool(name)
    assert [item["group"] for item in found["items"]] == [
        f"p{i % 9}" if name else "" for _ in range(3) for i in range(14)
    ]
    printed = capsys.readouterr().out
    assert (f"(95 % interval {over}: " in printed) == bool(name)


def test_a_person_per_class_is_a_group_too(audio_run, recordings, tmp_path):
    """Training refuses such a column; to evaluation it says that there are three persons."""
    table = tmp_path / "table.csv"
    rows = [f"{recordings}/voice{c}/{i:02}.wav,voice{c},p{c}" for c in range(3) for i in range(4)]
    table.write_text("\n".join(["path,label,group", *rows, ""]))
    found = scores(audio_run, tmp_path, table)
    assert found["accuracy_interval"] is found["macro_f1_interval"] is None
    assert found["macro_f1_interval_method"] == "3 groups: too few for an interval"
