"""One file, one answer: training, evaluation, prediction and export agree on it."""

import csv
import dataclasses
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
import soundfile
from conftest import ROOT, tone
from PIL import Image

from meljax import evaluate, export, predict, rows, saved
from meljax.data import reader
from meljax.errors import BadFileError


def predicted(run, *arguments) -> list[dict]:
    """The rows of `meljax.predict`, from JSON lines."""
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as out:
        code = predict.main([str(run), *map(str, arguments), "--out", out.name])
        rows = [json.loads(line) for line in out]
    assert code == int(any(row["error"] for row in rows))
    return rows


def recorded(run) -> dict[str, dict]:
    """What training wrote of the best weights, by path."""
    with open(run / "predictions.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["weights"] == "best"]
    return {row["path"]: row for row in rows}


@pytest.mark.parametrize("run", ["window_run", "picture_run", "square_run"])
def test_every_way_to_a_files_probabilities_gives_the_same_bits(run, request, tmp_path):
    root = request.getfixturevalue("sounds" if run == "window_run" else "pictures")
    run = request.getfixturevalue(run)
    of_training = recorded(run)
    assert len(of_training) >= 3
    rows = predicted(run, root, "--top", 3)
    in_bulk = {row["path"]: row for row in rows}
    assert len(in_bulk) == 42
    report = tmp_path / "scores.json"
    assert evaluate.main([str(run), "--json", str(report)]) == 0
    of_evaluation = {item["path"]: item for item in json.loads(report.read_text())["items"]}
    first = next(iter(of_training))
    assert predicted(run, root / first, "--top", 3) == [in_bulk[str(root / first)]]
    for path, row in of_training.items():
        file = str(root / path)
        alone = in_bulk[file]
        assert alone["label"] == row["prediction"] == of_evaluation[file]["prediction"]
        assert alone["probability"] == float(row["probability"])
        assert alone["probability"] == of_evaluation[file]["probability"]
        for k in ("", "_2", "_3"):
            assert alone[f"probability{k}"] == float(row[f"p:{alone[f'label{k}']}"])


def test_a_long_recording_is_scored_window_by_window_and_on_average(window_run, tmp_path):
    file = tmp_path / "long.wav"
    soundfile.write(file, tone(400, 1.0, 7), 8000)
    window = saved.load(window_run).frontend.window / 8000
    rows = predicted(window_run, file, "--windows", "--top", 3)
    assert rows[0]["start"] == 0
    assert rows[-1]["end"] == 1.0
    assert all(row["end"] - row["start"] == pytest.approx(window) for row in rows)
    gaps = np.diff([row["start"] for row in rows])
    assert (gaps <= window).all()
    assert (gaps >= window / 2 - 1e-9).all()
    assert len(rows) == 1 + int((1 - window) / (window / 2))
    (whole,) = predicted(window_run, file, "--top", 3)
    assert (whole["start"], whole["end"]) == (0, 1)
    for k in ("", "_2", "_3"):
        name = whole[f"label{k}"]
        of_windows = [
            row[f"probability{j}"]
            for row in rows
            for j in ("", "_2", "_3")
            if row[f"label{j}"] == name
        ]
        assert whole[f"probability{k}"] == pytest.approx(np.mean(of_windows), rel=1e-12)


def test_a_short_recording_ends_where_it_ends(window_run, tmp_path):
    file = tmp_path / "short.wav"
    soundfile.write(file, tone(400, 0.1, 7), 8000)
    for flag in ([], ["--windows"]):
        (row,) = predicted(window_run, file, *flag)
        assert (row["start"], row["end"]) == (0, 0.1)


def test_bad_files_are_rows_and_the_rest_is_scored(window_run, sounds, tmp_path, capsys):
    folder = tmp_path / "mixed"
    shutil.copytree(sounds / "voice1", folder)
    (folder / "00a.wav").write_bytes(b"")
    (folder / "13a.flac").write_bytes(b"no sound at all")
    (folder / "notes.txt").write_text("ours")
    rows = predicted(window_run, folder, tmp_path / "nowhere.wav", ROOT / "LICENSE")
    assert [row["path"] for row in rows[:2]] == [str(folder / "00.wav"), str(folder / "00a.wav")]
    errors = {row["path"].split("/")[-1]: row["error"] for row in rows if row["error"]}
    assert errors.keys() == {"00a.wav", "13a.flac", "nowhere.wav", "LICENSE"}
    assert errors["00a.wav"] == "empty file"
    assert errors["nowhere.wav"] == "No such file or directory"
    assert "not a recording" in errors["LICENSE"]
    assert len(rows) == 18
    assert all((row["label"] is None) == bool(row["error"]) for row in rows)
    assert "18 recordings in" in capsys.readouterr().err


def test_formats_say_the_same(window_run, sounds, tmp_path, capsys):
    folder = tmp_path / "voices"
    shutil.copytree(sounds / "voice1", folder)
    (folder / "bad,\nname.wav").write_bytes(b"")
    lines = predicted(window_run, folder, "--top", 2)
    capsys.readouterr()
    assert predict.main([str(window_run), str(folder), "--top", "2", "--format", "csv"]) == 1
    reader = csv.DictReader(capsys.readouterr().out.splitlines(keepends=True))
    columns = ["path", "start", "end", "label", "probability", "error"]
    assert reader.fieldnames == [*columns, "label_2", "probability_2"]
    for row, line in zip(reader, lines, strict=True):
        assert row == {key: "" if value is None else str(value) for key, value in line.items()}
    assert predict.main([str(window_run), str(folder)]) == 1
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 16
    assert table[0].split() == ["path", "start", "end", "label", "probability"]
    assert f"{lines[0]['probability']:.1%}" in table[1]
    assert "ERROR: empty file" in table[-1]


@pytest.mark.parametrize(
    ("run", "paths", "message"),
    [
        ("window_run", ["pictures"], "was trained on recordings, and there is no recording"),
        ("picture_run", ["sounds"], "was trained on pictures, and there is no picture"),
        ("window_run", ["pictures/voice0/00.png"], "such as"),
    ],
)
def test_files_of_the_other_kind_are_refused(run, paths, message, request, capsys):
    root, *rest = paths[0].split("/", 1)
    path = "/".join([str(request.getfixturevalue(root)), *rest])
    assert predict.main([str(request.getfixturevalue(run)), path]) == 2
    answer = capsys.readouterr().err
    assert message in answer
    assert answer.count("\n") == 1


def test_a_picture_the_model_cannot_take_says_why(picture_run, square_run, tmp_path):
    file = tmp_path / "tall.png"
    Image.new("RGB", (30, 33), (9, 8, 7)).save(file)
    (row,) = predicted(picture_run, file)
    assert row["error"] == "33 pixels high, but the model was trained on pictures of 20"
    (row,) = predicted(square_run, file)
    assert row["label"]
    assert row["start"] is None


def test_grey_pictures_pass_where_coloured_ones_were_learned_and_not_the_reverse(
    picture_run, pictures, tmp_path
):
    Image.open(pictures / "voice0" / "00.png").convert("L").save(tmp_path / "grey.png")
    (row,) = predicted(picture_run, tmp_path / "grey.png")
    assert row["label"]
    frontend = dataclasses.replace(saved.load(picture_run).frontend, channels=1)
    coloured = np.zeros((18, frontend.height, 3), np.uint8)
    with pytest.raises(BadFileError, match="coloured, but the model was trained on grey pictures"):
        reader.fit(coloured, frontend)
    assert reader.fit(coloured[..., :1], frontend).shape == (18, frontend.height, 1)


def test_a_row_tells_which_part_was_seen(window_run, tmp_path):
    file = tmp_path / "longer.wav"
    soundfile.write(file, tone(400, 0.2, 7), 8000)
    for flag in ([], ["--windows"]):
        (row,) = predicted(window_run, file, *flag)
        assert (row["start"], row["end"]) == (0.02, 0.18)


def test_loudness_plays_no_part(window_run, tmp_path):
    """A quiet recording of 24 bits is told like a loud one, by the model and by what it exports."""
    voice = tone(400, 0.16, 7)
    for name, gain in (("loud", 1), ("quiet", 1e-3)):
        soundfile.write(tmp_path / f"{name}.wav", gain * voice, 8000, subtype="FLOAT")
    loud, quiet = (predicted(window_run, tmp_path / f"{n}.wav")[0] for n in ("loud", "quiet"))
    assert loud["label"] == quiet["label"]
    assert loud["probability"] == pytest.approx(quiet["probability"], abs=1e-4)
    classify = export.classifier(saved.load(window_run))
    own, soft = np.asarray(classify(jnp.stack([voice, 1e-3 * voice])))
    np.testing.assert_allclose(own, soft, atol=1e-4)
    assert own.max() == pytest.approx(loud["probability"], abs=1e-3)


def test_a_suffix_that_says_nothing_is_refused(window_run, sounds, tmp_path, capsys):
    out = tmp_path / "names.json"
    assert predict.main([str(window_run), str(sounds), "--out", str(out)]) == 2
    assert "give --format" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("top", [0, 4])
def test_more_names_than_classes_are_refused(top, window_run, sounds, capsys):
    assert predict.main([str(window_run), str(sounds), "--top", str(top)]) == 2
    assert "--top must be 1 to 3" in capsys.readouterr().err


def test_what_cannot_be_written_is_answered_in_one_line(window_run, sounds, capsys):
    assert predict.main([str(window_run), str(sounds), "--out", "/dev/null/x"]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0


def test_rows_come_as_they_are_known(window_run, sounds):
    """Whoever stops reading after the first rows ends the command, without a traceback."""
    arguments = [sys.executable, "-m", "meljax.predict", window_run, *[sounds] * 60]
    with subprocess.Popen(
        [*map(str, arguments)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline().startswith("path")
        assert "voice0/00.wav" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 128 + signal.SIGPIPE
        assert "Traceback" not in process.stderr.read()


def raw_input(file, frontend) -> np.ndarray:
    """What an exported model is given, made as its description says."""
    if frontend.kind == "sound":
        waveform, rate = soundfile.read(file, dtype="float32")
        assert rate == frontend.mel.sample_rate
        spare = frontend.window - len(waveform)
        start = (-spare) // 2
        return (
            np.pad(waveform, (-start, spare + start))[None]
            if spare > 0
            else (waveform[None, start : start + frontend.window])
        )
    image = Image.open(file).convert("RGB")
    side = frontend.image_size
    return np.array(image.resize((side, side), Image.Resampling.BILINEAR))[None]


@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
@pytest.mark.parametrize("kind", ["sound", "square"])
def test_an_exported_model_gives_the_same_probabilities(kind, form, request, tmp_path, capsys):
    run = request.getfixturevalue(f"{kind}_run")
    root = request.getfixturevalue("sounds" if kind == "sound" else "pictures")
    out = tmp_path / f"model.{form}"
    assert export.main([str(run), "--format", form, "--out", str(out)]) == 0
    assert "3 classes, within" in capsys.readouterr().out
    about = json.loads((tmp_path / f"model.{form}.json").read_text())
    assert about["classes"] == ["voice0", "voice1", "voice2"]
    if form == "stablehlo":
        exported = jax.export.deserialize(bytearray(out.read_bytes()))
        assert exported.platforms == ("cpu", "cuda", "tpu")
        call = exported.call
    else:
        session = onnxruntime.InferenceSession(out.read_bytes())
        assert [each.name for each in session.get_inputs()] == [about["input"]["name"]]
        call = lambda x: session.run(["probabilities"], {about["input"]["name"]: x})[0]  # noqa: E731
    frontend = saved.load(run).frontend
    files = [
        root / f"voice{c}" / f"0{i}.{'wav' if kind == 'sound' else 'png'}"
        for c in range(3)
        for i in range(3)
    ]
    inputs = np.concatenate([raw_input(file, frontend) for file in files])
    assert inputs.dtype == about["input"]["dtype"]
    assert list(inputs.shape[1:]) == about["input"]["shape"][1:]
    together = np.asarray(call(inputs))
    np.testing.assert_allclose(call(inputs[2:3])[0], together[2], atol=1e-5)
    rows = predicted(run, *files, "--top", 3)
    tolerance = {"stablehlo": 1e-5, "onnx": 1e-4}[form]
    for row, given in zip(rows, together, strict=True):
        for k in ("", "_2", "_3"):
            number = about["classes"].index(row[f"label{k}"])
            assert given[number] == pytest.approx(row[f"probability{k}"], abs=tolerance)


def test_without_the_extra_the_command_says_what_to_install(
    window_run, tmp_path, monkeypatch, capsys
):
    for package in ("onnx", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            arguments = [str(window_run), "--format", "onnx", "--out", str(tmp_path / "x.onnx")]
            assert export.main(arguments) == 2
        assert "pip install 'meljax[onnx]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_export_that_is_off_is_not_written(window_run, tmp_path, monkeypatch, capsys):
    real = export.onnx_model
    monkeypatch.setattr(
        export,
        "onnx_model",
        lambda *arguments: real(*arguments[:3], 1.5 * arguments[3], arguments[4]),
    )
    out = tmp_path / "model.onnx"
    assert export.main([str(window_run), "--format", "onnx", "--out", str(out)]) == 2
    assert "nothing was written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_names_with_ends_of_lines_come_back(window_run, sounds, tmp_path, capsys):
    names = ["a\nb.wav", "a\rb.wav", "a\u2028b.wav"]
    for name in names:
        shutil.copy(sounds / "voice0" / "00.wav", tmp_path / name)
    assert predict.main([str(window_run), str(tmp_path), "--format", "csv"]) == 0
    rows = csv.DictReader(io.StringIO(capsys.readouterr().out, newline=""))
    assert sorted(row["path"] for row in rows) == sorted(str(tmp_path / name) for name in names)


def test_what_is_no_file_is_a_row_and_keeps_nobody_waiting(window_run, sounds, tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.wav").mkdir()
    rows = predicted(window_run, tmp_path, tmp_path / "pipe.wav", sounds / "voice0" / "00.wav")
    assert [row["error"] for row in rows] == ["no such file", "not a file", None]


def test_a_folder_that_cannot_be_read_costs_nothing_else(window_run, sounds, tmp_path, monkeypatch):
    shutil.copytree(sounds / "voice0", tmp_path / "good")
    (tmp_path / "locked").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    rows = predicted(window_run, tmp_path)
    assert len(rows) == 15
    assert rows[-1]["path"].endswith("locked")
    assert rows[-1]["error"] == "Permission denied"


@pytest.mark.parametrize("own", ["input", "run"])
def test_out_does_not_destroy_what_is_read(own, window_run, sounds, tmp_path, capsys):
    run, file = tmp_path / "run", tmp_path / "a.wav"
    shutil.copytree(window_run, run)
    shutil.copy(sounds / "voice0" / "00.wav", file)
    out = file if own == "input" else run / "config.json"
    before = out.read_bytes()
    arguments = [str(run), str(file), "--out", str(out), "--format", "csv"]
    assert predict.main(arguments) == 2
    assert "give another one" in capsys.readouterr().err
    assert out.read_bytes() == before


def test_a_row_is_on_its_way_before_the_next_one_is_known(tmp_path):
    out = tmp_path / "rows.csv"
    with rows.writer("csv", out, ["path", "label"], ["a.wav"]) as write:
        write({"path": "a.wav", "label": "ann"})
        assert out.read_text() == "path,label\na.wav,ann\n"


def test_rows_that_were_written_outlive_a_kill(window_run, sounds, tmp_path):
    out = tmp_path / "rows.csv"
    arguments = [sys.executable, "-m", "meljax.predict", window_run, *[sounds] * 200, "--out", out]
    with subprocess.Popen(
        [*map(str, arguments)], cwd=ROOT, text=True, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None and not (out.exists() and out.read_text().count("\n") > 5):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        assert "meljax: stopped" in process.stderr.read()
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert 5 <= len(rows) < 200 * 42
    assert all(row["label"] for row in rows)


def test_a_run_without_a_temperature_says_so(window_run, sounds, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(window_run, run)
    (run / "calibration.json").unlink()
    file = str(sounds / "voice0" / "00.wav")
    assert predict.main([str(run), file, "--format", "csv"]) == 0
    captured = capsys.readouterr()
    assert "not calibrated" in captured.err
    assert captured.out.startswith("path,")
    for damage in ('{"epoch": 1, "temperature": 1e-320}', '{"epoch": 1, "temperature": true}', "["):
        (run / "calibration.json").write_text(damage)
        assert predict.main([str(run), file]) == 2
        assert "calibration.json is damaged" in capsys.readouterr().err


def test_a_damaged_best_checkpoint_gives_way_to_another(sound_run, sounds, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(sound_run, run)
    best = saved.load(run)
    (folder,) = (run / "checkpoints").glob(str(best.step))
    (folder / "meta" / "metadata").write_text('{"epoch": 8}')
    assert predict.main([str(run), str(sounds / "voice0" / "00.wav")]) == 0
    assert f"checkpoint {best.step} is damaged" in capsys.readouterr().err


def test_a_set_is_not_for_predict(sound_run, capsys):
    assert predict.main([str(sound_run), "tfds:voices"]) == 2
    assert "evaluate --data scores sets" in capsys.readouterr().err
