"""Labels, groups and splits from the names of files."""

import re

import pytest
from manifests import error_message, paths, read, splits

from meljax.data.manifest import Item

DIGITS = r"(?P<label>\d+)_(?P<group>\w+)_\d+"


def test_label_and_group_come_from_the_name_without_suffix(touch):
    manifest = read(touch("7_jackson_32.wav", "0_theo_1.WAV", "x/0_jackson_2.wav"), pattern=DIGITS)
    assert manifest.items == (
        Item("0_theo_1.WAV", "0", "theo"),
        Item("7_jackson_32.wav", "7", "jackson"),
        Item("x/0_jackson_2.wav", "0", "jackson"),
    )
    assert (manifest.left_out, manifest.bad, manifest.notes) == ({}, (), ())


def test_a_pattern_with_a_slash_matches_the_path(touch):
    folder = touch("fold1/a-1.wav", "fold1/b-2.wav", "fold2/a-3.wav", "fold2/b-4.wav")
    manifest = read(folder, pattern=r"(?P<group>[^/]+)/(?P<label>\w)-\d")
    assert [(item.label, item.group) for item in manifest.items] == [
        ("a", "fold1"),
        ("b", "fold1"),
        ("a", "fold2"),
        ("b", "fold2"),
    ]


def test_splits_are_read_by_any_usual_word(touch):
    folder = touch("Training/a1.wav", "Training/b1.wav", "dev/a2.wav", "Test Set/b2.wav")
    manifest = read(folder, pattern=r"(?P<split>[^/]+)/(?P<label>[ab])\d")
    assert list(splits(manifest).values()) == ["test", "train", "train", "val"]


def test_without_val_the_split_of_training_files_is_open(touch):
    folder = touch("a-train-1.wav", "b-train-1.wav", "a-test-1.wav")
    pattern = r"(?P<label>\w)-(?P<split>\w+)-\d"
    assert list(splits(read(folder, pattern=pattern)).values()) == ["test", "", ""]


def test_an_optional_group_may_be_absent(touch):
    manifest = read(touch("a_1.wav", "b_1.wav"), pattern=r"(?P<label>\w)(_(?P<group>[x]))?_\d")
    assert [item.group for item in manifest.items] == ["", ""]


def test_hidden_and_other_files_need_not_match(touch):
    folder = touch("a1.wav", "b1.wav", "README", ".x.wav", "_background_noise_/hum.wav")
    manifest = read(folder, pattern=r"(?P<label>\w)\d")
    assert paths(manifest) == ["a1.wav", "b1.wav"]
    assert manifest.left_out == {"no suffix": 1, "hidden": 1, "background recordings": 1}
    (note,) = manifest.notes
    assert note.startswith("'_background_noise_' is not a class; 1 file in it left out")


def test_names_match_as_they_are(touch):
    folder = touch("Käse.1.wav", "kase.2.wav")
    assert {item.label for item in read(folder, pattern=r"(?P<label>\w+)\.\d").items} == {
        "Käse",
        "kase",
    }


def test_files_that_do_not_match_are_named(touch):
    folder = touch("a1.wav", "b1.wav", *(f"z-{i}.wav" for i in range(1, 6)))
    message = error_message(folder, pattern=r"(?P<label>\w)\d")
    assert "does not match 5 of 7 files: 'z-1.wav', 'z-2.wav', 'z-3.wav', …" in message
    assert "without suffix" in message


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(?P<label>", "not a valid regular expression"),
        (r"(?P<label>\w){99999999999}", "not a valid regular expression"),
        (r"\w\d", "no group 'label'"),
        (r"(?P<lable>\w)\d", "unknown group 'lable' (the nearest is 'label')"),
        (r"(?P<label>\w)\d(?P<speaker>x?)", "unknown group 'speaker'"),
        (r"(?P<label>x?)\w\d", "the label of 'a1.wav' is empty"),
        (r"(x(?P<label>a))?\w\d", "the label of 'a1.wav' is empty"),
        (r"(?P<label>(?P<split>\w))\d", "'a1.wav' has the split 'a'"),
        (r"(?P<label>(?P<group>\w))\d", "the group is the same as the label"),
        (r"(?P<label>\w)\d\.wav", "without suffix"),
        (r"(?P<label>\w)", "does not match 2 of 2 files"),
        (r"(?P<label>\w\n?)\d", "one class only"),
    ],
)
def test_a_wrong_pattern_has_an_error_message(touch, pattern, words):
    folder = touch("a1.wav", "b1.wav") if "class" not in words else touch("a1.wav", "a2.wav")
    message = error_message(folder, pattern=pattern)
    assert words in message
    assert "data.pa" in message


def test_splits_must_be_given_for_all_training_files_or_none(touch):
    folder = touch("a-train.wav", "b-train.wav", "a.wav")
    message = error_message(folder, pattern=r"(?P<label>\w)(-(?P<split>\w+))?")
    assert "'a.wav' has no split" in message


@pytest.mark.parametrize(
    ("files", "labels"),
    [
        (("7_jackson_1", "7_theo_2", "3_jackson_3", "3_theo_4"), "2 classes: '3', '7'"),
        (("cat.1", "cat.2", "dog.1", "dog.2"), "2 classes: 'cat', 'dog'"),
        (("low01", "low02", "mid01", "mid02"), "2 classes: 'low', 'mid'"),
        (("a-1-x", "a-2", "b-1", "b-2-y"), "2 classes: 'a', 'b'"),
        (("a_b c", "a_d c", "b_b", "b_d"), "2 classes: 'a', 'b'"),
        (("7af", "xyz", "q", "pp"), "names such as 7_jackson_32.wav"),
        (("1", "2"), "names such as 7_jackson_32.wav"),
    ],
)
def test_a_flat_folder_is_answered_with_a_pattern_that_reads_it(touch, files, labels):
    folder = touch(*(f"{name}.wav" for name in files))
    message = error_message(folder)
    assert labels in message
    if pattern := re.search(r"data\.pattern='(.*)' finds", message):
        manifest = read(folder, pattern=pattern[1])
        assert f"{len({item.label for item in manifest.items})} classes" in message


def test_no_pattern_is_proposed_that_would_be_refused(touch):
    names = ["XC1 - Blackbird - Turdus merula", "XC2 - Blackbird - Turdus merula"]
    names += ["XC3 - Robin - Erithacus rubecula", "XC4 - Robin - Erithacus rubecula"]
    folder = touch(*(f"{name}.mp3" for name in names))
    pattern = re.search(r"data\.pattern='(.*)' finds 2 classes", error_message(folder))[1]
    assert len(read(folder, pattern=pattern).items) == 4


def test_numbers_alone_are_not_proposed_as_classes(touch):
    folder = touch(*(f"{fold}/{i}.wav" for fold in ("fold1", "fold2") for i in range(4)))
    assert "finds" not in error_message(folder)


@pytest.mark.parametrize(
    "files",
    [
        ("train/a.1", "train/b.1", "test/a.2", "test/b.2"),
        ("audio/fold1/a.1", "audio/fold1/b.1", "audio/fold2/a.2", "audio/fold2/b.2"),
        ("fold1/a/1", "fold1/b/1", "fold2/a/2", "fold2/b/2"),
        ("a+b (1)/part1/x-1", "a+b (1)/part1/y-1", "a+b (1)/part2/x-2", "a+b (1)/part2/y-3"),
    ],
)
def test_flat_splits_and_folds_are_answered_with_a_pattern_that_reads_them(touch, files):
    folder = touch(*(f"{name}.wav" for name in files))
    pattern = re.search(r"data\.pattern='(.*)' finds 2 classes", error_message(folder))[1]
    manifest = read(folder, pattern=pattern)
    assert len(manifest.items) == 4
    assert {item.group or item.split for item in manifest.items} in (
        {"", "test"},
        {"fold1", "fold2"},
        {"part1", "part2"},
    )
