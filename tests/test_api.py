"""The Python interface gives what the commands give."""

import base64
import csv
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from conftest import SMALL, WINDOW
from PIL import Image

import meljax
from meljax.commands import evaluate as evaluate_command
from meljax.commands import predict as predict_command
from meljax.data.decode import long_recording
from meljax.util.errors import UserError


def test_importing_is_quick_and_changes_nothing():
    """JAX is imported with the first function that is used."""
    program = (
        "import signal, sys, meljax; assert 'jax' not in sys.modules; "
        "assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL; "
        "assert {'train', 'load', 'inspect', 'compare'} <= set(dir(meljax)); "
        "print(sum(name.split('.')[0] == 'numpy' for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "0\n"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'meljax' has no attribute 'trian'"):
        meljax.trian  # noqa: B018


def test_train_calls_back_after_each_epoch_and_can_be_resumed(recordings, tmp_path):
    rows = []
    keys = SMALL | {"train.epochs": 2, "data.window": WINDOW}
    run = meljax.train(
        recordings, config="cnn", workdir=tmp_path / "run", callback=rows.append, **keys
    )
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows == run.history
    assert run.report.is_file()
    assert repr(run) == f"<run {tmp_path / 'run'}, 2 epochs>"
    again = meljax.train(
        recordings,
        config="cnn",
        workdir=tmp_path / "run",
        callback=rows.append,
        **keys | {"train.epochs": 3},
    )
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert len(again.history) == 3
    assert again.model.classes == ("voice0", "voice1", "voice2")


def test_a_callback_may_stop_the_training(recordings, tmp_path):
    class StopError(Exception):
        pass

    def callback(row):
        raise StopError

    with pytest.raises(StopError):
        meljax.train(
            recordings,
            config="cnn",
            workdir=tmp_path,
            callback=callback,
            **SMALL | {"train.epochs": 5, "data.window": WINDOW},
        )
    assert len(meljax.Run(tmp_path).history) == 1


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"epoch": 3}, "unknown key epoch; did you mean train.epochs?"),
        ({"epochs": 3, "train.epochs": 4}, "train.epochs is given twice"),
        ({"epochs": "many"}, "train.epochs must be a whole number"),
        ({"path": "other"}, "data.path is given twice"),
    ],
)
def test_wrong_settings_are_refused(keys, message, recordings, tmp_path):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        meljax.train(recordings, workdir=tmp_path, **keys)
    assert meljax.UserError is UserError


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ([], {}),
        (["--windows"], {"windows": True}),
        (["--merge", "--min-probability", "1"], {"merge": True, "min_probability": 1.0}),
    ],
)
def test_predict_gives_the_rows_of_the_command(options, arguments, audio_run, recordings, tmp_path):
    out = tmp_path / "rows.jsonl"
    (recordings_of := tmp_path / "in").mkdir()
    for path in sorted(recordings.rglob("*.wav"))[:4]:
        (recordings_of / path.name).write_bytes(path.read_bytes())
    (recordings_of / "broken.wav").write_bytes(b"RIFF")
    soundfile.write(recordings_of / "silence.wav", np.zeros(8000), 8000)
    (recordings_of / "20240517_043000.wav").write_bytes(path.read_bytes())
    command = [str(audio_run), str(recordings_of), "--top", "2", "--out", str(out)]
    assert predict_command.main([*command, *options]) == 1
    expected = [json.loads(line) for line in out.read_text().splitlines()]
    model = meljax.load(audio_run)
    found = model.predict(recordings_of, top=2, **arguments)
    assert list(found) == expected
    assert [list(row) for row in found] == [list(row) for row in expected]
    found.to_csv(tmp_path / "api.csv")
    command[-1] = str(tmp_path / "command.csv")
    assert predict_command.main([*command, *options]) == 1
    assert (tmp_path / "api.csv").read_bytes() == (tmp_path / "command.csv").read_bytes()
    assert found.probabilities.shape == (len(expected), 3)
    for row, probabilities in zip(found, found.probabilities, strict=True):
        if row["status"] in ("ok", "unknown"):
            assert probabilities.max() == row["probability"]
            best = found.classes[probabilities.argmax()]
            assert row["label"] == (best if row["status"] == "ok" else None)
        else:
            assert np.isnan(probabilities).all()
    scored = "unknown" if "min_probability" in arguments else "ok"
    assert {row["status"] for row in found} == {scored, "silence", "error"}
    assert {row["time"][:19] for row in found if row["time"]} == {"2024-05-17T04:30:00"}
    assert "voice" in found._repr_html_()
    assert found.labels == [row["label"] for row in expected]


def test_rows_are_in_the_order_of_the_inputs(audio_run, recordings):
    model, (one, other) = meljax.load(audio_run), sorted(recordings.rglob("*.wav"))[:2]
    sound = np.random.default_rng(0).normal(size=4000)
    found = model.predict([sound, one, sound / 2, str(other)], sample_rate=8000)
    assert [row["path"] for row in found] == ["array 0", str(one), "array 2", str(other)]
    np.testing.assert_array_equal(found.probabilities[1], model.predict(one).probabilities[0])


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_arrays_of_samples_give_the_probabilities_of_files(dtype, audio_run, recordings):
    file = min(recordings.rglob("*.wav"))
    samples, rate = soundfile.read(file, dtype="int16" if dtype == np.int16 else "float64")
    model = meljax.load(audio_run)
    expected = model.predict(file).probabilities
    for array in (samples.astype(dtype), np.stack([samples.astype(dtype)] * 2, 1)):
        found = model.predict([array, str(file)], sample_rate=rate)
        np.testing.assert_array_equal(found.probabilities, np.concatenate([expected] * 2))
    assert [row["path"] for row in found] == ["array 0", str(file)]


def test_arrays_are_resampled_as_files_are(audio_run, recordings, tmp_path):
    samples, rate = soundfile.read(min(recordings.rglob("*.wav")), dtype="int16")
    soundfile.write(tmp_path / "fast.wav", samples, 3 * rate)
    model = meljax.load(audio_run)
    np.testing.assert_array_equal(
        model.predict(samples, sample_rate=3 * rate).probabilities,
        model.predict(tmp_path / "fast.wav").probabilities,
    )


def test_arrays_of_images_give_the_probabilities_of_files(square_run, figures):
    file = min(figures.rglob("*.png"))
    model = meljax.load(square_run)
    expected = model.predict(file).probabilities
    array = np.asarray(Image.open(file).convert("RGB"))
    np.testing.assert_array_equal(model.predict(array).probabilities, expected)


@pytest.mark.parametrize(
    ("array", "rate", "message"),
    [
        (np.zeros(8000), None, "sample_rate is missing"),
        (np.zeros((2, 3, 4)), 8000, r"\[samples, channels\], not \[2, 3, 4\]"),
        (np.zeros(0), 8000, r"not \[0\]"),
        (np.ones((2, 8000)), 8000, r"not \[2, 8000\]; transpose it"),
        (np.zeros(8, np.uint8), 8000, "float or int16, not uint8"),
        (np.full(8, np.nan), 8000, "not finite"),
    ],
)
def test_wrong_arrays_are_refused(array, rate, message, audio_run):
    with pytest.raises(UserError, match=message):
        meljax.load(audio_run).predict(array, sample_rate=rate)


@pytest.mark.parametrize("rate", [0, -1, 249, 800_001, True])
def test_wrong_sample_rates_are_refused(rate, audio_run):
    with pytest.raises(UserError, match="whole number from 250 to 800,000 Hz"):
        meljax.load(audio_run).predict(np.ones(800), sample_rate=rate)


def test_compare_takes_at_least_two_runs(audio_run, tmp_path):
    for runs in ([], [audio_run]):
        with pytest.raises(UserError, match="at least two runs"):
            meljax.compare(runs, tmp_path)


def test_nothing_to_predict_is_refused(audio_run):
    with pytest.raises(UserError, match="nothing to score"):
        meljax.load(audio_run).predict([])
    with pytest.raises(UserError, match="top must be 1 to 3"):
        meljax.load(audio_run).predict(np.zeros(8), 8000, top=4)


def test_evaluate_gives_the_scores_of_the_command(audio_run, recordings, tmp_path, capsys):
    model = meljax.load(audio_run)
    for data in ([], [str(recordings)]):
        out = tmp_path / "scores.json"
        assert evaluate_command.main([str(audio_run), *data, "--json", str(out)]) == 0
        expected = json.loads(out.read_text())
        found = model.evaluate(*data)
        assert found.scored.accuracy == expected["accuracy"]
        assert (found.accuracy, found.macro_f1) == (expected["accuracy"], expected["macro_f1"])
        assert found.confusion.tolist() == expected["confusion"]
        assert found.chosen_on == expected["chosen_on"] == (not data)
        assert repr(found) in capsys.readouterr().out.strip()
        assert ("chosen on these files" in repr(found)) == (not data)


def test_explain_shows_the_clearest_window_of_a_file(audio_run, recordings, monkeypatch):
    """Read in parts or whole, it is the window with the highest probability of the class."""
    file = max(recordings.rglob("*.wav"))
    model = meljax.load(audio_run)
    rows = model.predict(file, windows=True)
    for label in (None, *model.classes):
        found = model.explain(file, label=label)
        place = rows.classes.index(found.label)
        best = rows.rows[rows.probabilities[:, place].argmax()]
        assert found.start == best["start"]
        whole = model.predict(file).probabilities[0]
        assert found.probability == whole[place]
        assert label in (None, found.label)
        assert whole.max() == found.probability or label
    samples, rate = soundfile.read(file, dtype="float32")
    first = round(found.start * rate)
    np.testing.assert_array_equal(found.samples, samples[first : first + len(found.samples)])
    assert (found.sample_rate, len(found.samples)) == (8000, 8000 * WINDOW)
    assert found.image.shape[:2] == found.evidence.shape
    monkeypatch.setattr(long_recording, "MAX_AT_ONCE", 1000)
    again = model.explain(file, label=found.label)
    for name in ("start", "probability"):
        assert getattr(again, name) == getattr(found, name)
    for name in ("image", "evidence", "samples"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))


def test_a_notebook_shows_an_explanation_as_images_and_sound(audio_run, square_run, figures):
    samples = np.random.default_rng(0).normal(size=8000)
    found = meljax.load(audio_run).explain(samples, 8000)
    shown = found._repr_html_()
    assert (shown.count("<img"), shown.count("<audio")) == (2, 1)
    assert repr(found).startswith(f"<array 0: {found.label} ")
    sound = base64.b64decode(re.search('data:audio/wav;base64,([^"]*)', shown)[1])
    heard, rate = soundfile.read(io.BytesIO(sound), dtype="float32")
    assert rate == 8000
    loudest = np.abs(found.samples).max()
    np.testing.assert_allclose(heard, found.samples / loudest, atol=1e-4)
    (axes,) = found.figure().axes
    assert axes.get_xlim() == pytest.approx((found.start, found.start + WINDOW), abs=0.03)
    image = meljax.load(square_run).explain(min(figures.rglob("*.png")))
    shown = image._repr_html_()
    assert (shown.count("<img"), shown.count("<audio")) == (2, 0)
    assert image.samples is image.sample_rate is None


def test_what_cannot_be_explained_is_refused(audio_run, recordings, tmp_path):
    model = meljax.load(audio_run)
    soundfile.write(tmp_path / "silence.wav", np.zeros(8000), 8000)
    for item, label, message in [
        (recordings, None, "is a folder; explain takes a single file"),
        (tmp_path / "no.wav", None, "no.wav: No such file"),
        (tmp_path / "silence.wav", None, "silence; there is nothing to explain"),
        (min(recordings.rglob("*.wav")), "voice", "unknown class 'voice'"),
    ]:
        with pytest.raises(UserError, match=message):
            model.explain(item, label=label)


def test_libraries_log_nothing_and_keep_their_verbosity(audio_run):
    program = (
        "import logging, meljax; from absl import logging as absl; absl.set_verbosity(absl.INFO); "
        f"meljax.load({str(audio_run)!r}); assert absl.get_verbosity() == absl.INFO"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_export_writes_by_suffix(audio_run, tmp_path):
    model = meljax.load(audio_run)
    out = model.export(tmp_path / "model.stablehlo")
    assert out.stat().st_size > 1000
    assert json.loads((tmp_path / "model.stablehlo.json").read_text())["classes"]
    with pytest.raises(UserError, match="use the suffix"):
        model.export(tmp_path / "model.bin")


def test_inspect_shows_what_the_command_prints(recordings, capsys):
    found = meljax.inspect(recordings, config="cnn", **SMALL)
    assert "3 classes, 42 recordings" in repr(found)
    assert found.info.classes == ("voice0", "voice1", "voice2")


def test_compare_writes_a_page(audio_run, tmp_path):
    copy = shutil.copytree(audio_run, tmp_path / "copy")
    page = meljax.compare([audio_run, meljax.Run(copy)], tmp_path / "page")
    assert page.is_file()


def test_the_history_is_that_of_the_file(audio_run):
    with open(audio_run / "predictions.csv", newline="") as file:
        assert list(csv.DictReader(file))
    assert meljax.Run(audio_run).history[0]["epoch"] == 1
