"""What `meljax app` shows of a file, without the page."""

import csv
import dataclasses
import io
import itertools
import re
import shutil

import numpy as np
import pytest
import soundfile
from conftest import WINDOW, tone

from meljax.commands import predict
from meljax.evaluation.spans import Span
from meljax.reports import answer as parts
from meljax.reports import timeline
from meljax.runs.load_model import load_model
from meljax.util.errors import UserError
from meljax.workflows.answer import answer_example, answer_file, find_examples


@pytest.fixture(scope="module")
def trained(audio_run):
    return load_model(audio_run)


@pytest.fixture(scope="module")
def long_file(tmp_path_factory):
    """A tone, silence, and another tone."""
    file = tmp_path_factory.mktemp("long") / "long.wav"
    quiet = np.zeros(4000)
    samples = [tone(150, 1, 1), quiet, tone(900, 0.7, 2)]
    soundfile.write(file, np.concatenate(samples), 8000)
    return file


@pytest.fixture(scope="module")
def long_answer(trained, long_file):
    return answer_file(trained, str(long_file))


def predicted(run, *arguments) -> list[dict]:
    """The rows of `meljax predict`."""
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", out)
        assert (
            predict.main([str(run), *map(str, arguments), "--format", "csv", "--digits", "17"]) == 0
        )
    return list(csv.DictReader(io.StringIO(out.getvalue())))


@pytest.mark.parametrize(("run", "data"), [("audio_run", "recordings"), ("square_run", "figures")])
def test_probabilities_are_those_of_predict(run, data, request):
    run, data = request.getfixturevalue(run), request.getfixturevalue(data)
    file = sorted((data / "voice1").iterdir())[3]
    found = answer_file(load_model(run), str(file))
    (row,) = predicted(run, file, "--top", 3)
    for place in ("", "_2", "_3"):
        number = found.classes.index(row[f"label{place}"])
        assert found.whole.probabilities[number] == float(row[f"probability{place}"])
    assert found.explanation.target == row["label"]
    assert f"{float(row['probability']):.1%}" in parts.verdict(found, 0.0)


def test_windows_are_those_of_predict(audio_run, long_file, long_answer):
    rows = predicted(audio_run, long_file, "--windows")
    assert [row["status"] for row in rows] == [window.status for window in long_answer.windows]
    assert "silence" in {row["status"] for row in rows}
    for row, window in zip(rows, long_answer.windows, strict=True):
        assert (float(row["start"]), float(row["end"])) == (window.start, window.end)
        if window.status == "ok":
            assert float(row["probability"]) == window.probabilities.max()


def test_examples_are_validation_files(trained, audio_run, recordings):
    examples = find_examples(audio_run, trained)
    with open(audio_run / "split.csv", newline="") as file:
        held_out = {row["path"] for row in csv.DictReader(file) if row["split"] == "val"}
    assert {f"{each.label}/{each.name}" for each in examples} == held_out
    assert {each.label for each in examples[:3]} == {"voice0", "voice1", "voice2"}
    first = examples[0]
    assert first.text == f"{first.label}: {first.name}"
    found = answer_example(trained, first)
    of_file = answer_file(trained, str(recordings / first.label / first.name))
    np.testing.assert_array_equal(found.whole.probabilities, of_file.whole.probabilities)
    assert f"The true class is <b>{first.label}</b>" in parts.verdict(found, 0.0)


def test_a_run_whose_data_moved_has_no_examples(trained, audio_run, tmp_path):
    data = dataclasses.replace(trained.config.data, path=str(tmp_path / "moved"))
    moved = trained._replace(config=dataclasses.replace(trained.config, data=data))
    assert find_examples(audio_run, moved) == []
    shutil.copy(audio_run / "config.json", tmp_path)
    assert find_examples(tmp_path, trained) == []
    (tmp_path / "split.csv").write_text("path,split\n")
    assert find_examples(tmp_path, trained) == []


def test_unusable_files_are_explained_in_one_line(trained, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"RIFF\x10\0\0\0WAVEfmt nonsense")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0), 8000)
    (tmp_path / "image.png").write_bytes(b"x")
    for name, reason in {
        "broken.wav": "cannot read it",
        "empty.wav": "no samples",
        "image.png": "not a recording; the model was trained on recordings",
        "missing.wav": "No such file",
    }.items():
        with pytest.raises(UserError, match=reason) as error:
            answer_file(trained, str(tmp_path / name))
        assert str(error.value).startswith(f"{name}: ")
        assert len(str(error.value).splitlines()) == 1


def test_silence_has_no_class(trained, tmp_path):
    soundfile.write(tmp_path / "silence.wav", np.zeros(4000), 8000)
    found = answer_file(trained, str(tmp_path / "silence.wav"))
    assert found.whole.probabilities is None
    assert "Silence" in parts.verdict(found, 0.0)
    assert parts.evidence(found) == ""
    assert "silence" in parts.csv(found.classes, parts.parts_of(found, 0.0))


def test_a_short_recording_is_classified_with_a_remark(trained, tmp_path):
    soundfile.write(tmp_path / "short.wav", tone(400, 0.02, 1), 8000)
    found = answer_file(trained, str(tmp_path / "short.wav"))
    assert f"0.02 s long, and a window {WINDOW} s" in parts.verdict(found, 0.0)
    assert parts.segments(found, 0.0) == ""


def test_below_the_threshold_the_answer_is_unknown(long_answer):
    best = float(long_answer.whole.probabilities.max())
    label = long_answer.classes[int(long_answer.whole.probabilities.argmax())]
    assert label_of(parts.verdict(long_answer, best)).startswith(label)
    assert label_of(parts.verdict(long_answer, best + 1e-6)) == "unknown"
    assert {part.status for part in parts.parts_of(long_answer, 1.0)} <= {"unknown", "silence"}


def test_the_background_is_no_class(long_answer):
    number = int(long_answer.whole.probabilities.argmax())
    found = dataclasses.replace(long_answer, background=number)
    html = parts.verdict(found, 0.0)
    assert label_of(html) == "background"
    assert f"The most probable class, {found.classes[number]}, is the background." in html
    labels = {row["label"] for row in csv.DictReader(io.StringIO(table(found, 0.0)))}
    assert found.classes[number] not in labels
    assert "background" in table(found, 0.0)


def table(answer, threshold: float) -> str:
    return parts.csv(answer.classes, parts.parts_of(answer, threshold))


def label_of(html: str) -> str:
    return re.search(r'class="label">(.*?)[<\n]', html)[1].strip()


def test_the_table_joins_successive_windows(long_answer):
    rows = list(
        csv.DictReader(
            io.StringIO(parts.csv(long_answer.classes, parts.parts_of(long_answer, 0.0)))
        )
    )
    kinds = [(row["label"], row["status"]) for row in rows]
    assert all(one != following for one, following in itertools.pairwise(kinds))
    assert ("", "silence") in kinds
    assert (float(rows[0]["start"]), float(rows[-1]["end"])) == (0, 2.2)
    html = parts.segments(long_answer, 0.0)
    assert html.count("<tr>") == 1 + len(rows)
    assert 'download="long.csv"' in html


def test_names_are_not_markup(long_answer):
    odd = dataclasses.replace(
        long_answer, name='<i>"x"', classes=["<b>", "$x$", "&"], true_class="<b>"
    )
    for html in (parts.verdict(odd, 0.0), parts.evidence(odd), parts.segments(odd, 0.0)):
        assert "<b>$" not in html
        assert "<b>" not in html.replace("The true class is <b>&lt;b&gt;</b>", "")
        assert "<i>" not in html
    assert "<script>" not in parts.problem("<script>")


def test_each_bar_ends_halfway_to_the_next_window():
    windows = [Span("x", "silence", start, start + 2.0) for start in (0.0, 1.0, 3.0)]
    np.testing.assert_array_equal(timeline.bar_edges(windows), [0, 1.5, 3, 5])


def test_times_of_long_recordings_have_minutes():
    assert timeline.place(5, 9000) == "5"
    assert timeline.place(61.5, 70.0) == "61.50"
    assert timeline.place(61.5, 3000.0) == "1:01.50"
    assert timeline.place(3605.0, 4000.0) == "1:00:05.00"
    assert timeline.clock(59.999, 2) == "1:00.00"


def test_a_timeline_of_many_classes_has_a_color_for_the_others():
    rng = np.random.default_rng(0)
    windows = [
        Span("x", "ok", float(i), i + 2.0, probabilities=rng.dirichlet(np.ones(9)))
        for i in range(200)
    ]
    figure = timeline.timeline(windows, [f"class {i}" for i in range(9)], 0.5, audio=True)
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend[-1] == "other classes"
    assert len(legend) == 1 + len(timeline.COLORS)
    assert figure.axes[0].get_xlabel() == "time, min:s"
