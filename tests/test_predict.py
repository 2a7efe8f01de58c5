"""Training, evaluation, prediction and export give a file the same probabilities."""

import csv
import dataclasses
import io
import json
import os
import re
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
from conftest import FIGURE_BORDERS, ROOT, WINDOW, tone
from PIL import Image
from pyarrow import parquet

from meljax.commands import evaluate, predict
from meljax.commands import export as export_command
from meljax.config import MelConfig
from meljax.data.decode import decoder, long_recording, sound_source
from meljax.data.decode.long_recording import LongRecording
from meljax.evaluation import scorer
from meljax.evaluation.scorer import ScoredItem
from meljax.evaluation.spans import spans_of
from meljax.export import onnx_graph
from meljax.export.classifier import classifier
from meljax.features.frontend import Frontend
from meljax.features.windows import starts
from meljax.outputs.rows import row_of
from meljax.runs.load_model import load_model
from meljax.util.errors import BadFileError
from meljax.workflows import predict as predict_workflow
from meljax.workflows.predict import find_sources


def predicted(run, *arguments) -> list[dict]:
    """The rows of `meljax predict`, from JSON lines."""
    with tempfile.NamedTemporaryFile("r", suffix=".jsonl") as out:
        code = predict.main([str(run), *map(str, arguments), "--out", out.name])
        table = [json.loads(line) for line in out]
    assert code == int(any(row["error"] for row in table))
    return table


def recorded(run) -> dict[str, dict]:
    """Returns the rows of the best weights in predictions.csv, by path."""
    with open(run / "predictions.csv", newline="") as file:
        table = [row for row in csv.DictReader(file) if row["weights"] == "best"]
    return {row["path"]: row for row in table}


@pytest.mark.parametrize(
    ("run", "data"),
    [("audio_run", "recordings"), ("image_run", "image_folder"), ("square_run", "figures")],
)
def test_training_evaluate_and_predict_give_the_same_bits(run, data, request, tmp_path):
    root, run = request.getfixturevalue(data), request.getfixturevalue(run)
    of_training = recorded(run)
    assert len(of_training) >= 3
    table = predicted(run, root, "--top", 3)
    in_bulk = {row["path"]: row for row in table}
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


def test_a_long_recording_has_the_mean_of_its_windows(audio_run, tmp_path):
    file = tmp_path / "long.wav"
    soundfile.write(file, tone(400, 1.0, 7), 8000)
    window = load_model(audio_run).model.frontend.window / 8000
    table = predicted(audio_run, file, "--windows", "--top", 3)
    assert table[0]["start"] == 0
    assert table[-1]["end"] == 1.0
    assert all(row["end"] - row["start"] == pytest.approx(window) for row in table)
    gaps = np.diff([row["start"] for row in table])
    assert (gaps <= window).all()
    assert (gaps >= window / 2 - 1e-9).all()
    assert len(table) == 1 + int((1 - window) / (window / 2))
    (whole,) = predicted(audio_run, file, "--top", 3)
    assert (whole["start"], whole["end"]) == (0, 1)
    for k in ("", "_2", "_3"):
        name = whole[f"label{k}"]
        of_windows = [
            row[f"probability{j}"]
            for row in table
            for j in ("", "_2", "_3")
            if row[f"label{j}"] == name
        ]
        assert whole[f"probability{k}"] == pytest.approx(np.mean(of_windows), rel=1e-12)


@pytest.fixture
def parts(monkeypatch):
    """Makes recordings of more than 0.8 s long ones, which are read in parts."""
    monkeypatch.setattr(long_recording, "MAX_AT_ONCE", 6400)


def long_voice(recordings) -> tuple[np.ndarray, int]:
    """A recording of several seconds with a silent second in it, and its sample rate."""
    voices = [soundfile.read(path) for path in sorted(recordings.rglob("*.wav"))[:6]]
    silence = np.zeros(voices[0][1])
    return np.concatenate([voices[0][0], silence, *(voice for voice, _ in voices)]), voices[0][1]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_recording_read_in_parts_has_the_rows_of_the_whole(
    suffix, audio_run, recordings, tmp_path, monkeypatch
):
    voice, rate = long_voice(recordings)
    file = tmp_path / f"voice.{suffix}"
    soundfile.write(file, np.stack([voice, voice / 2], 1), rate * 2)  # resampled, two channels
    whole = (
        predicted(audio_run, file),
        predicted(audio_run, file, "--windows", "--top", 2),
        predicted(audio_run, file, "--merge", "--top", 3),
    )
    assert 2 < len(whole[2]) < len(whole[1])
    read = []
    monkeypatch.setattr(long_recording, "MAX_AT_ONCE", 6400)
    original = LongRecording.read_spans
    monkeypatch.setattr(
        LongRecording,
        "read_spans",
        lambda *given, **keys: read.append(given) or original(*given, **keys),
    )
    assert (
        predicted(audio_run, file),
        predicted(audio_run, file, "--windows", "--top", 2),
        predicted(audio_run, file, "--merge", "--top", 3),
    ) == whole
    assert len(read) == 3
    assert len(read[0][1]) > 4
    assert {row["status"] for row in whole[1]} == {"ok", "silence"}


def test_rows_of_a_long_recording_come_as_they_are_scored(audio_run, recordings, parts, tmp_path):
    voice, rate = long_voice(recordings)
    soundfile.write(tmp_path / "voice.wav", np.tile(voice, 20), rate)
    model = load_model(audio_run).model
    taken = []
    original = scorer._long_parts

    def counted(*given):
        for part in original(*given):
            taken.append(part)
            yield part

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "_long_parts", counted)
        sources, _ = find_sources([str(tmp_path)], model)
        first = next(scorer.score_stream(model, sources))
        assert not first.last
        assert taken[-1].begin < 0.03 * taken[-1].length
    results = list(scorer.score_stream(model, sources))
    assert [result.last for result in results] == [False] * (len(results) - 1) + [True]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scorer, "track", lambda given, total, what, done: map(done, given))
        done = list(scorer.track_items(results, 1, "predicting"))
    assert done == sorted(done)
    assert done[0] < 0.05
    assert done[len(done) // 2] == pytest.approx(0.5, abs=0.1)
    assert done[-1] == 1
    assert len(results) > 40
    (whole,) = scorer.whole_items(results)
    assert len(whole.starts) + len(whole.silent) == len(starts(whole.length, model.frontend.window))


def test_a_long_recording_that_is_damaged_at_the_end_keeps_its_rows(
    audio_run, recordings, parts, tmp_path, monkeypatch
):
    monkeypatch.setattr(sound_source, "_PART", 1000)
    voice, rate = long_voice(recordings)
    voice[-10] = np.nan
    soundfile.write(tmp_path / "a.wav", voice, rate, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", voice[:8000], rate)
    table = predicted(audio_run, tmp_path, "--windows")
    errors = [row["error"] for row in table]
    assert errors.count(None) == len(errors) - 1
    assert errors.index("not finite") > 5
    assert [row["path"] for row in table] == sorted(row["path"] for row in table)
    error, after = predicted(audio_run, tmp_path)
    assert (error["status"], error["error"], error["label"]) == ("error", "not finite", None)
    assert after["status"] == "ok"


SOUND = Frontend("audio", 1600, 0, 1, 0, MelConfig(sample_rate=8000))
IMAGE = Frontend("image", 10, 20, 3, 0, MelConfig())
SQUARE = Frontend("image", 24, 24, 3, 24, MelConfig())


@pytest.mark.parametrize(
    ("frontend", "length", "starts", "spans"),
    [
        (SOUND, 3200, [0, 800, 1600], [(0, 0.2), (0.1, 0.3), (0.2, 0.4)]),
        (SOUND, 1000, [-300], [(0, 0.125)]),
        (IMAGE, 20, [0, 5, 10], [(0, 10), (5, 15), (10, 20)]),
        (IMAGE, 7, [-2], [(0, 7)]),
        (SQUARE, 24, [0], [(None, None)]),
    ],
)
def test_rows_have_the_most_probable_classes_first_and_the_scored_part(
    frontend, length, starts, spans
):
    """In seconds for recordings, in columns for images, empty for resized images."""
    classes = ("ann", "bob", "cy")
    logits = np.array([[0, 8, 4], [2, 4, 0], [6, 4, 0]], np.float32)[: len(starts)]
    item = ScoredItem("x", length, np.array(starts), logits, np.zeros(0, int))
    windows = np.exp(logits / 2.0) / np.exp(logits / 2.0).sum(1, keepdims=True)
    for by_window, given in ((True, windows), (False, windows.mean(0, keepdims=True))):
        found = [row_of(span, classes, 3) for span in spans_of(frontend, 2.0, item, by_window)]
        ends = spans if by_window else [(spans[0][0], spans[-1][1])]
        assert [(row["start"], row["end"]) for row in found] == ends
        for row, probabilities in zip(found, given, strict=True):
            order = np.argsort(-probabilities)
            names = [row[f"label{k}"] for k in ("", "_2", "_3")]
            assert names == [classes[number] for number in order]
            assert [row[f"probability{k}"] for k in ("", "_2", "_3")] == pytest.approx(
                probabilities[order]
            )


def test_the_end_of_a_short_recording_is_its_length(audio_run, tmp_path):
    file = tmp_path / "short.wav"
    soundfile.write(file, tone(400, 0.1, 7), 8000)
    for flag in ([], ["--windows"]):
        (row,) = predicted(audio_run, file, *flag)
        assert (row["start"], row["end"]) == (0, 0.1)


def test_bad_files_have_rows_and_the_others_are_scored(audio_run, recordings, tmp_path, capsys):
    folder = tmp_path / "mixed"
    shutil.copytree(recordings / "voice1", folder)
    (folder / "00a.wav").write_bytes(b"")
    (folder / "13a.flac").write_bytes(b"not a recording")
    (folder / "notes.txt").write_text("ours")
    table = predicted(audio_run, folder, tmp_path / "nowhere.wav", ROOT / "LICENSE")
    assert [row["path"] for row in table[:2]] == [str(folder / "00.wav"), str(folder / "00a.wav")]
    errors = {row["path"].split("/")[-1]: row["error"] for row in table if row["error"]}
    assert errors.keys() == {"00a.wav", "13a.flac", "nowhere.wav", "LICENSE"}
    assert errors["00a.wav"] == "empty file"
    assert errors["nowhere.wav"] == "No such file or directory"
    assert errors["LICENSE"] == "text, not a recording"
    assert len(table) == 18
    assert all((row["label"] is None) == bool(row["error"]) for row in table)
    assert "18 recordings, 3.7 s of sound, in " in capsys.readouterr().err


def test_silent_windows_have_a_status_and_no_label(audio_run, recordings, tmp_path, capsys):
    voice, rate = soundfile.read(recordings / "voice1" / "00.wav")
    silence = np.full(len(voice) * 2, 1e-5)
    soundfile.write(tmp_path / "voice.wav", voice, rate)
    soundfile.write(tmp_path / "both.wav", np.concatenate([voice, silence]), rate)
    soundfile.write(tmp_path / "silence.wav", silence, rate)
    both, silent, alone = predicted(audio_run, tmp_path)
    assert (silent["status"], silent["label"], silent["error"]) == ("silence", None, None)
    assert (both["status"], alone["status"]) == ("ok", "ok")
    rows = predicted(audio_run, tmp_path / "both.wav", "--windows")
    statuses = [row["status"] for row in rows]
    assert set(statuses) == {"ok", "silence"}
    assert [row["start"] for row in rows] == sorted(row["start"] for row in rows)
    assert all((row["label"] is None) == (row["status"] == "silence") for row in rows)
    assert predict.main([str(audio_run), str(tmp_path)]) == 0
    assert "(silence)" in capsys.readouterr().out


def test_all_formats_have_the_same_content(audio_run, recordings, tmp_path, capsys):
    folder = tmp_path / "voices"
    shutil.copytree(recordings / "voice1", folder)
    (folder / "bad,\nname.wav").write_bytes(b"")
    lines = predicted(audio_run, folder, "--top", 2)
    capsys.readouterr()
    assert predict.main([str(audio_run), str(folder), "--top", "2", "--format", "csv"]) == 1
    decoder = csv.DictReader(capsys.readouterr().out.splitlines(keepends=True))
    columns = ["path", "start", "end", "label", "probability", "label_2", "probability_2"]
    assert decoder.fieldnames == [*columns, "status", "error"]
    for row, line in zip(decoder, lines, strict=True):
        assert row == {key: _csv_field(value) for key, value in line.items()}
    assert predict.main([str(audio_run), str(folder)]) == 1
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 16
    assert table[0].split() == ["path", "start", "end", "label", "probability"]
    assert f"{lines[0]['probability']:.1%}" in table[1]
    assert "ERROR: empty file" in table[-1]


def _csv_field(value) -> str:
    return "" if value is None else str(round(value, 4) if isinstance(value, float) else value)


@pytest.mark.parametrize(
    ("run", "paths", "message"),
    [
        ("audio_run", ["image_folder"], "was trained on recordings; no recordings in"),
        ("image_run", ["recordings"], "was trained on images; no images in"),
        ("audio_run", ["image_folder/voice0/00.png"], "e.g."),
    ],
)
def test_files_of_the_other_kind_are_refused(run, paths, message, request, capsys):
    root, *rest = paths[0].split("/", 1)
    path = "/".join([str(request.getfixturevalue(root)), *rest])
    assert predict.main([str(request.getfixturevalue(run)), path]) == 2
    answer = capsys.readouterr().err
    assert message in answer
    assert answer.count("\n") == 1


def test_an_unsuitable_image_has_a_reason(image_run, square_run, tmp_path):
    file = tmp_path / "tall.png"
    Image.new("RGB", (30, 33), (9, 8, 7)).save(file)
    (row,) = predicted(image_run, file)
    assert row["error"] == "33 pixels high, but the model was trained on images of 20"
    (row,) = predicted(square_run, file)
    assert row["label"]
    assert row["start"] is None


def test_a_color_model_takes_gray_images_but_not_the_reverse(image_run, image_folder, tmp_path):
    Image.open(image_folder / "voice0" / "00.png").convert("L").save(tmp_path / "gray.png")
    (row,) = predicted(image_run, tmp_path / "gray.png")
    assert row["label"]
    frontend = dataclasses.replace(load_model(image_run).model.frontend, channels=1)
    colored = np.zeros((18, frontend.height, 3), np.uint8)
    with pytest.raises(BadFileError, match="colored, but the model was trained on gray images"):
        decoder.fit(colored, frontend)
    assert decoder.fit(colored[..., :1], frontend).shape == (18, frontend.height, 1)


def test_a_row_has_start_and_end_of_the_scored_part(audio_run, tmp_path):
    file = tmp_path / "longer.wav"
    soundfile.write(file, tone(400, WINDOW + 0.04, 7), 8000)
    for flag in ([], ["--windows"]):
        (row,) = predicted(audio_run, file, *flag)
        assert (row["start"], row["end"]) == pytest.approx((0.02, WINDOW + 0.02))


def test_loudness_has_no_effect(audio_run, tmp_path):
    """A quiet 24-bit recording gets the result of a loud one, also from an exported model."""
    voice = tone(400, WINDOW, 7)
    for name, gain in (("loud", 1), ("quiet", 1e-3)):
        soundfile.write(tmp_path / f"{name}.wav", gain * voice, 8000, subtype="FLOAT")
    loud, quiet = (predicted(audio_run, tmp_path / f"{n}.wav")[0] for n in ("loud", "quiet"))
    assert loud["label"] == quiet["label"]
    assert loud["probability"] == pytest.approx(quiet["probability"], abs=1e-4)
    classify = jax.jit(classifier(load_model(audio_run)))
    own, soft = np.asarray(classify(jnp.stack([voice, 1e-3 * voice])))
    np.testing.assert_allclose(own, soft, atol=1e-4)
    assert own.max() == pytest.approx(loud["probability"], abs=1e-3)


def test_an_unknown_suffix_is_refused(audio_run, recordings, tmp_path, capsys):
    out = tmp_path / "names.json"
    assert predict.main([str(audio_run), str(recordings), "--out", str(out)]) == 2
    assert "give --format" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("top", [0, 4])
def test_top_beyond_the_number_of_classes_is_refused(top, audio_run, recordings, capsys):
    assert predict.main([str(audio_run), str(recordings), "--top", str(top)]) == 2
    assert "--top must be 1 to 3" in capsys.readouterr().err


def test_an_unwritable_output_is_reported_in_one_line(audio_run, recordings, capsys):
    assert predict.main([str(audio_run), str(recordings), "--out", "/dev/null/x"]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0


def test_rows_are_printed_one_by_one(audio_run, recordings):
    """The command ends without a traceback when the reader stops after the first rows."""
    arguments = [sys.executable, "-m", "meljax", "predict", audio_run, *[recordings] * 60]
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
    """Returns the input of an exported model, prepared as its description says."""
    if frontend.kind == "audio":
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
    if not side:
        return np.array(image)[None]
    left, top, right, bottom = frontend.crop
    image = image.crop((left, top, image.width - right, image.height - bottom))
    return np.array(image.resize((side, side), Image.Resampling.BILINEAR))[None]


@pytest.mark.accelerator
@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
@pytest.mark.parametrize("kind", ["audio", "image", "square", "figure"])
def test_an_exported_model_gives_the_same_probabilities(kind, form, request, tmp_path, capsys):
    run = request.getfixturevalue(f"{kind}_run")
    data = {"audio": "recordings", "image": "image_folder"}
    root = request.getfixturevalue(data.get(kind, "figures"))
    out = tmp_path / f"model.{form}"
    assert export_command.main([str(run), "--format", form, "--out", str(out)]) == 0
    assert re.search("3 classes, (within|equal)", capsys.readouterr().out)
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
    frontend = load_model(run).model.frontend
    assert about["input"].get("crop", [0, 0, 0, 0]) == list(frontend.crop)
    # Files of one window: short recordings, and images that are as wide as a window.
    names = [0, 1, 2] if kind == "audio" else [2, 7, 12]
    suffix = "wav" if kind == "audio" else "png"
    files = [root / f"voice{c}" / f"{i:02}.{suffix}" for c in range(3) for i in names]
    inputs = np.concatenate([raw_input(file, frontend) for file in files])
    assert inputs.dtype == about["input"]["dtype"]
    assert list(inputs.shape[1:]) == about["input"]["shape"][1:]
    together = np.asarray(call(inputs))
    np.testing.assert_allclose(call(inputs[2:3])[0], together[2], atol=1e-5)
    table = predicted(run, *files, "--top", 3)
    tolerance = {"stablehlo": 1e-5, "onnx": 1e-4}[form]
    for row, given in zip(table, together, strict=True):
        for k in ("", "_2", "_3"):
            number = about["classes"].index(row[f"label{k}"])
            assert given[number] == pytest.approx(row[f"probability{k}"], abs=tolerance)


def test_a_missing_onnx_extra_is_reported(audio_run, tmp_path, monkeypatch, capsys):
    for package in ("onnx", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            arguments = [str(audio_run), "--format", "onnx", "--out", str(tmp_path / "x.onnx")]
            assert export_command.main(arguments) == 2
        assert "pip install '.[onnx]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_wrong_export_is_not_written(audio_run, tmp_path, monkeypatch, capsys):
    real = onnx_graph.onnx_model
    monkeypatch.setattr(onnx_graph, "onnx_model", lambda model, temperature: real(model, 1.5))
    assert load_model(audio_run).temperature != 1.5
    out = tmp_path / "model.onnx"
    assert export_command.main([str(audio_run), "--format", "onnx", "--out", str(out)]) == 2
    assert "nothing was written" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_names_with_line_breaks_are_preserved(audio_run, recordings, tmp_path, capsys):
    names = ["a\nb.wav", "a\rb.wav", "a\u2028b.wav"]
    for name in names:
        shutil.copy(recordings / "voice0" / "00.wav", tmp_path / name)
    assert predict.main([str(audio_run), str(tmp_path), "--format", "csv"]) == 0
    table = csv.DictReader(io.StringIO(capsys.readouterr().out, newline=""))
    assert sorted(row["path"] for row in table) == sorted(str(tmp_path / name) for name in names)


def test_pipes_and_folders_have_error_rows_without_waiting(audio_run, recordings, tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "gone.wav").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.wav").mkdir()
    table = predicted(audio_run, tmp_path, tmp_path / "pipe.wav", recordings / "voice0" / "00.wav")
    assert [row["error"] for row in table] == ["no such file", "not a file", None]


def test_an_unreadable_folder_does_not_affect_other_files(
    audio_run, recordings, tmp_path, monkeypatch
):
    shutil.copytree(recordings / "voice0", tmp_path / "good")
    (tmp_path / "locked").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    table = predicted(audio_run, tmp_path)
    assert len(table) == 15
    assert table[-1]["path"].endswith("locked")
    assert table[-1]["error"] == "Permission denied"


def test_out_and_summary_are_two_files(audio_run, recordings, tmp_path, capsys):
    given = ["--out", f"{tmp_path}/a.csv", "--summary", f"{tmp_path}/../{tmp_path.name}/a.csv"]
    assert predict.main([str(audio_run), str(recordings), *given]) == 2
    assert "--out and --summary are the same file" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--out", "--summary"])
def test_the_table_of_thresholds_is_not_overwritten(
    option, audio_run, recordings, tmp_path, capsys
):
    file = tmp_path / "a.csv"
    file.write_text("class,threshold\nvoice0,0.5\n")
    given = ["--thresholds", str(file), option, str(file)]
    assert predict.main([str(audio_run), str(recordings), *given]) == 2
    assert f"{option} and --thresholds are the same file" in capsys.readouterr().err
    assert file.read_text() == "class,threshold\nvoice0,0.5\n"


@pytest.mark.parametrize("own", ["input", "run"])
def test_out_never_overwrites_an_input(own, audio_run, recordings, tmp_path, capsys):
    run, file = tmp_path / "run", tmp_path / "a.wav"
    shutil.copytree(audio_run, run)
    shutil.copy(recordings / "voice0" / "00.wav", file)
    out = file if own == "input" else run / "config.json"
    before = out.read_bytes()
    arguments = [str(run), str(file), "--out", str(out), "--format", "csv"]
    assert predict.main(arguments) == 2
    assert "use another file" in capsys.readouterr().err
    assert out.read_bytes() == before


@pytest.fixture
def site(recordings, tmp_path):
    """A folder with recordings of two hours, silence and a broken file."""
    folder = tmp_path / "site"
    folder.mkdir()
    voice, rate = long_voice(recordings)
    soundfile.write(folder / "20240517_045959.WAV", voice, rate, format="WAV")
    soundfile.write(folder / "20240517_050010.WAV", 0 * voice, rate, format="WAV")
    (folder / "20240517_051000.WAV").write_bytes(b"RIFF")
    return folder


@pytest.mark.parametrize("form", ["raven", "audacity"])
def test_errors_are_told_where_a_format_has_no_row_for_them(
    form, audio_run, site, tmp_path, capsys
):
    out = tmp_path / "out"
    arguments = [str(audio_run), str(site), "--windows", "--format", form, "--out", str(out)]
    assert predict.main(arguments) == 1
    said = capsys.readouterr().err
    assert f"WARNING: {site}/20240517_051000.WAV: " in said
    assert "1 could not be used" in said
    written = out if form == "raven" else out / "20240517_045959.txt"
    assert "voice" in written.read_text()
    assert form == "raven" or len(list(out.iterdir())) == 2


@pytest.mark.parametrize("form", ["raven", "audacity"])
def test_models_of_images_have_no_selections(form, image_run, image_folder, capsys):
    assert predict.main([str(image_run), str(image_folder), "--format", form]) == 2
    assert "are for recordings, and the model was trained on images" in capsys.readouterr().err


def test_label_tracks_do_not_mix_with_the_recordings(audio_run, site, capsys):
    for out in (site, site.parent):
        arguments = [str(audio_run), str(site), "--format", "audacity", "--out", str(out)]
        assert predict.main(arguments) == 2
        assert "holds files to be scored; use another folder" in capsys.readouterr().err
    assert len(list(site.iterdir())) == 3


def test_rows_and_summary_have_times_of_day(audio_run, site, tmp_path):
    summary = tmp_path / "summary.csv"
    rows = predicted(audio_run, site, "--merge", "--summary", summary)
    assert rows[0]["time"] == "2024-05-17T04:59:59.000"
    assert {row["time"][:13] for row in rows} == {"2024-05-17T04", "2024-05-17T05"}
    with open(summary, encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert sum(int(row["rows"]) for row in table) == len(rows)
    assert {row["hour"] for row in table} == {"04", "05"}
    assert {row["status"] for row in table} == {"ok", "silence", "error"}
    ok = [row for row in rows if row["status"] == "ok"]
    seconds = sum(float(row["seconds"]) for row in table if row["status"] == "ok")
    assert seconds == pytest.approx(sum(row["end"] - row["start"] for row in ok), rel=0.2)


def test_merged_rows_of_one_class_are_the_row_of_the_file(audio_run, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(400, 1.0, 7), 8000)
    merged = predicted(audio_run, tmp_path, "--merge", "--top", 3)
    windows = predicted(audio_run, tmp_path, "--windows")
    assert len({row["label"] for row in windows}) == len(merged) == 1
    assert merged == predicted(audio_run, tmp_path, "--top", 3)


def test_a_stopped_command_leaves_parquet_and_summary_complete(
    audio_run, recordings, tmp_path, monkeypatch
):
    out, summary, made = tmp_path / "rows.parquet", tmp_path / "summary.csv", []

    def stopped(*given):
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append(row_of(*given))
        return made[-1]

    monkeypatch.setattr(predict_workflow, "row_of", stopped)
    arguments = [str(audio_run), str(recordings), "--out", str(out), "--summary", str(summary)]
    assert predict.main(arguments) == 128 + signal.SIGINT
    assert parquet.read_table(out)["path"].to_pylist() == [row["path"] for row in made]
    with open(summary, encoding="utf-8-sig", newline="") as file:
        assert sum(int(row["rows"]) for row in csv.DictReader(file)) == 5


def test_written_rows_survive_a_kill(audio_run, recordings, tmp_path):
    out = tmp_path / "rows.csv"
    arguments = [
        sys.executable,
        "-m",
        "meljax",
        "predict",
        audio_run,
        *[recordings] * 200,
        "--out",
        out,
    ]
    with subprocess.Popen(
        [*map(str, arguments)], cwd=ROOT, text=True, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None and not (out.exists() and out.read_text().count("\n") > 5):
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
        assert "meljax: stopped" in process.stderr.read()
    table = list(csv.DictReader(out.read_text(encoding="utf-8-sig").splitlines()))
    assert 5 <= len(table) < 200 * 42
    assert all(row["label"] for row in table)


def test_a_missing_temperature_is_a_warning(audio_run, recordings, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(audio_run, run)
    (run / "calibration.json").unlink()
    file = str(recordings / "voice0" / "00.wav")
    assert predict.main([str(run), file, "--format", "csv"]) == 0
    captured = capsys.readouterr()
    assert "not calibrated" in captured.err
    assert captured.out.startswith("path,")
    for damage in ('{"epoch": 1, "temperature": 1e-320}', '{"epoch": 1, "temperature": true}', "["):
        (run / "calibration.json").write_text(damage)
        assert predict.main([str(run), file]) == 2
        assert "calibration.json is damaged" in capsys.readouterr().err


def test_a_damaged_best_checkpoint_is_replaced_by_another(audio_run, recordings, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(audio_run, run)
    best = load_model(run)
    (folder,) = (run / "checkpoints").glob(str(best.step))
    (folder / "meta" / "metadata").write_text('{"epoch": 8}')
    assert predict.main([str(run), str(recordings / "voice0" / "00.wav")]) == 0
    assert f"checkpoint {best.step} is damaged" in capsys.readouterr().err


def test_predict_refuses_tfds_sets(audio_run, capsys):
    assert predict.main([str(audio_run), "tfds:voices"]) == 2
    assert "evaluate scores TFDS sets" in capsys.readouterr().err


def test_predict_and_evaluate_crop_as_training_did(figure_run, figures, tmp_path):
    """Borders of other colors have no effect; columns are those of the whole image."""
    left, top, right, bottom = FIGURE_BORDERS
    copies = shutil.copytree(figures, tmp_path / "copies")
    for file in copies.glob("*/*.png"):
        with Image.open(file) as image:
            inner = np.array(image)[top:-bottom, left:-right]
        border = ((top, bottom), (left, right), (0, 0))
        Image.fromarray(np.pad(inner, border, constant_values=99)).save(file)
    one, other = predicted(figure_run, figures), predicted(figure_run, copies)
    assert [row["probability"] for row in one] == [row["probability"] for row in other]
    # Images of 21 and 22 columns are scored by one window of 20 columns, in their middle.
    places = {(row["start"] - left, row["end"] - left) for row in one}
    assert places == {(0, 18), (0, 19), (0, 20), (1, 21)}
    of_training = recorded(figure_run)
    in_bulk = {row["path"]: row for row in one}
    for path, row in of_training.items():
        assert in_bulk[str(figures / path)]["probability"] == float(row["probability"])
    assert evaluate.main([str(figure_run), str(copies)]) == 0


def test_an_image_that_is_cropped_away_is_an_error_row(figure_run, tmp_path):
    Image.new("RGB", (9, 30)).save(tmp_path / "narrow.png")
    Image.new("RGB", (29, 28)).save(tmp_path / "short.png")
    narrow, short = predicted(figure_run, tmp_path)
    assert narrow["error"] == (
        "data.crop='6,4,3,5' leaves nothing of its 9 x 30 pixels (width x height)"
    )
    assert short["error"] == (
        "19 pixels high after data.crop, but the model was trained on images of 20"
    )


def test_an_exported_model_takes_parts_of_a_wider_image_with_its_borders(figure_run, tmp_path):
    """The windows are those that the description gives; columns are those of the whole image."""
    left, top, right, bottom = FIGURE_BORDERS
    rng = np.random.default_rng(0)
    inner, window = 47, load_model(figure_run).model.frontend.window
    wide = rng.integers(0, 256, (20 + top + bottom, inner + left + right, 3), np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    out = tmp_path / "model.stablehlo"
    assert export_command.main([str(figure_run), "--format", "stablehlo", "--out", str(out)]) == 0
    call = jax.export.deserialize(bytearray(out.read_bytes())).call
    starts = np.rint(np.linspace(0, inner - window, 1 + (inner - window) // (window // 2)))
    parts = [wide[:, int(s) : int(s) + left + window + right] for s in starts]
    (row,) = predicted(figure_run, tmp_path / "wide.png")
    number = load_model(figure_run).model.classes.index(row["label"])
    assert np.asarray(call(np.stack(parts)))[:, number].mean() == pytest.approx(
        row["probability"], abs=1e-5
    )
    assert (row["start"], row["end"]) == (left, left + inner)
