"""Names of classes that are warned of, and classes that are too small to split."""

import shutil
import unicodedata

import numpy as np
import pytest
from conftest import CACHE, command, small_config

from meljax.data.classes import suspicious_classes
from meljax.data.dataset import load
from meljax.data.manifest import Item
from meljax.evaluation import metrics
from meljax.main import main
from meljax.runs.info import require_info
from meljax.util.errors import UserError


def warnings(*labels):
    return suspicious_classes([Item(f"{i}.wav", label) for i, label in enumerate(labels)])


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["low", "LOW", "low"], "'LOW' (1) and 'low' (2)"),
        (["a b", "a  b", "A_b"], "'A_b' (1) and 'a  b' (1) and 'a b' (1)"),
        (["Straße", "STRASSE"], "'STRASSE' (1) and 'Straße' (1)"),
        (
            [unicodedata.normalize(form, "käfer") for form in ("NFC", "NFD")],
            r"'ka\u0308fer' (1) and 'käfer' (1)",
        ),
        (["ﬁn", "fin"], "'fin' (1) and 'ﬁn' (1)"),
        (["0", "0.0", "00"], "equal numbers: '0' (1) and '0.0' (1) and '00' (1)"),
        (["1e3", "1000"], "'1000' (1) and '1e3' (1)"),
    ],
)
def test_twins_are_named_with_their_counts(labels, words):
    (line,) = warnings(*labels, "other")
    assert words in line


@pytest.mark.parametrize("label", ["nan", "NaN", "None", "null", "N/A", " ", "?", "-", "#N/A"])
def test_labels_that_look_missing_are_named(label):
    (line,) = warnings(label, label, "bird", "cat")
    assert line == f"the class {label!r} (2 files) looks like a missing label"


def test_ordinary_classes_are_not_warned_of():
    assert warnings("ann", "anna", "1", "2", "12", "nancy", "no call", "_", "a-1", "a-2") == []


def test_many_twins_are_summed_up():
    names = [f"{letter}{i}" for i in range(9) for letter in "aA"]
    (line,) = warnings(*names)
    assert line.endswith("; and 4 more")


@pytest.fixture
def rare(recordings, tmp_path):
    """Three classes, and two more of one file each."""
    shutil.copytree(recordings, tmp_path / "set")
    for number in range(2):
        folder = tmp_path / "set" / f"rare{number}"
        folder.mkdir()
        shutil.copy(recordings / "voice0" / f"0{number}.wav", folder / "x.wav")
        with open(folder / "x.wav", "ab") as file:
            file.write(b"\0" * (number + 1))  # other bytes than the copied file
    return tmp_path / "set"


def read(path, **keys):
    return load(small_config(data__path=str(path), **keys), CACHE)


def test_all_small_classes_are_named_at_once(rare):
    with pytest.raises(UserError, match=r"'rare0' \(1 file\), 'rare1' \(1 file\)") as caught:
        read(rare)
    assert "data.small_classes" in str(caught.value)


def test_small_classes_can_be_skipped(rare, recordings):
    found, plain = read(rare, data__small_classes="skip"), read(recordings)
    assert found.classes == plain.classes
    assert found.splits == plain.splits
    assert found.unscored == ()
    assert "too small to split, skipped: 'rare0' (1 file)" in found.warnings[0]


def test_small_classes_can_be_kept_in_training_without_being_scored(rare, tmp_path, capsys):
    found = read(rare, data__small_classes="keep")
    assert found.unscored == ("rare0", "rare1")
    held = {item.label for item, s in zip(found.items, found.splits, strict=True) if s == "val"}
    assert held == {"voice0", "voice1", "voice2"}
    run = tmp_path / "run"
    assert main(command("cnn", rare, run, train__epochs=1, data__small_classes="keep")) == 0
    assert require_info(run).data.unscored == ("rare0", "rare1")
    assert "trained on, but not scored" in (run / "report.html").read_text()


def test_macro_f1_leaves_unscored_classes_out():
    confusion = np.array([[8, 0, 2], [0, 9, 0], [0, 0, 0]])
    plain = metrics.macro_f1(confusion)
    scored = metrics.macro_f1(confusion, [2])
    f1 = metrics.class_scores(confusion)[2]
    assert plain == pytest.approx(f1.sum() / 3)
    assert scored == pytest.approx(f1[:2].mean())


def test_skipping_every_small_class_is_refused(rare):
    for name in ("voice0", "voice1"):
        shutil.rmtree(rare / name)
    with pytest.raises(UserError, match="fewer than two are left"):
        read(rare, data__small_classes="skip")
    shutil.rmtree(rare / "voice2")
    for choice in ("stop", "keep", "skip"):
        with pytest.raises(UserError, match="no validation split is possible") as caught:
            read(rare, data__small_classes=choice)
        assert "'rare0' (1 file), 'rare1' (1 file)" in str(caught.value)
        assert caught.value.details == ("read 2 recordings in 2 classes: 'rare0' (1), 'rare1' (1)",)


def test_held_out_groups_need_no_two_groups_of_a_class(recordings, tmp_path):
    table = tmp_path / "held.csv"
    rows = [f"{recordings}/voice{c}/{i:02}.wav,{c},g{i % 2}" for c in range(2) for i in range(6)]
    rows.append(f"{recordings}/voice2/00.wav,2,g0")
    table.write_text("path,label,group\n" + "\n".join(rows) + "\n")
    found = read(table, data__holdout="g1")
    assert [found.splits.count(split) for split in ("train", "val")] == [7, 6]
    assert not any("too small" in line for line in found.warnings)
