"""Folders as people lay them out: read right, or stopped with one line that says what to do."""

import os

import pytest
from manifests import error_message, read

FOUR = ("cat/1", "cat/2", "dog/1", "dog/2")


def below(*folders: str, files: tuple[str, ...] = FOUR) -> list[str]:
    return [f"{folder}/{file}" for folder in folders for file in files]


def summary(manifest) -> str:
    """Returns the number of items of each class by split: 'train: cat 2 dog 2, val: …'."""
    parts = []
    for split in ("", "train", "val", "test"):
        labels = [item.label for item in manifest.items if item.split == split]
        counts = " ".join(f"{label} {labels.count(label)}" for label in sorted(set(labels)))
        parts += [f"{split or 'open'}: {counts}"] if labels else []
    return ", ".join(parts)


OPEN = "open: cat 2 dog 2"
THREE = "train: cat 2 dog 2, val: cat 2 dog 2, test: cat 2 dog 2"
TRAIN_TEST = "open: cat 2 dog 2, test: cat 2 dog 2"
READ = {
    "splits in capitals": (below("TRAIN", "VALID", "TEST"), THREE),
    "dev and eval": (below("train", "dev", "eval"), THREE),
    "words with more words": (below("Training Set", "Validation Set", "Test Set"), THREE),
    "underscores": (below("train_images", "val_images", "test_images"), THREE),
    "name of the set in front": (below("pets_train", "pets_test"), TRAIN_TEST),
    "numbers in front": (below("1.Training", "2.Validation", "3.Test"), THREE),
    "German": (below("Trainingsdaten", "Validierungsdaten", "Testdaten"), THREE),
    "Spanish": (below("entrenamiento", "validación", "prueba"), THREE),
    "Chinese": (below("训练集", "验证集", "测试集"), THREE),
    "Korean": (below("훈련", "검증", "테스트"), THREE),
    "Kaggle's doubled folders": (
        below("training_set/training_set", "test_set/test_set"),
        TRAIN_TEST,
    ),
    "a zip in a folder": (below("archive/dataset/train", "archive/dataset/test"), TRAIN_TEST),
    "the same wrapper twice": (below("data/data"), OPEN),
    "a wrapper in each split": (
        below("dev/aac", "train/aac"),
        "train: cat 2 dog 2, val: cat 2 dog 2",
    ),
    "a wrapper with a fold's name": (below("fold1"), OPEN),
    "a wrapper beside labels": ([*below("images"), "labels/cat/1.txt", "README.md"], OPEN),
    "splits beside labels": (
        [*below("images/train", "images/val"), "labels/train/1.txt", "labels/val/2.txt"],
        "train: cat 2 dog 2, val: cat 2 dog 2",
    ),
    "classes beside metadata": ([*FOUR, "meta/labels.csv"], OPEN),
    "splits below classes": (
        [*below("cat", "dog", files=("train/1", "train/2", "Test/3", "Test/4"))],
        TRAIN_TEST,
    ),
    "all three below classes": (
        below("cat", "dog", files=("train/a/1", "train/2", "dev/3", "dev/4", "eval/5", "eval/6")),
        THREE,
    ),
    "splits below classes in a wrapper": (
        below("x/cat", "x/dog", files=("train/1", "train/2", "test/3", "test/4")),
        TRAIN_TEST,
    ),
    "a class without test": (
        ["cat/train/1", "cat/train/2", "cat/test/3", "dog/train/1", "dog/train/2"],
        "open: cat 2 dog 2, test: cat 1",
    ),
    "deeper folders": (["cat/a/1", "cat/b/c/2", "dog/1", "dog/x/2"], OPEN),
    "split as one part of a class": (
        ["rail/train/1", "rail/tram/2", "road/bus/1", "road/car/2"],
        "open: rail 2 road 2",
    ),
    "digits": (["0/1", "1/1", "10/1"], "open: 0 1 1 1 10 1"),
    "digits in splits": (["train/0/1", "train/1/1", "test/0/2"], "open: 0 1 1 1, test: 0 1"),
    "vehicles": (["train/1", "bus/1", "tram/1"], "open: bus 1 train 1 tram 1"),
    "vehicles in splits": (
        ["train/train/1", "train/bus/1", "test/train/2", "test/bus/2"],
        "open: bus 1 train 1, test: bus 1 train 1",
    ),
    "kinds of trains": (
        ["steam_train/1", "freight_train/1", "bus/1"],
        "open: bus 1 freight_train 1 steam_train 1",
    ),
    "valid and invalid": (["valid/1", "invalid/1"], "open: invalid 1 valid 1"),
    "unlabeled test": ([*below("train"), "test/1", "test/2"], OPEN),
    "unlabeled test in a folder": ([*below("train"), "Test/audio/1"], OPEN),
    "validation and unlabeled test": (
        [*below("train", "val"), "test/1"],
        "train: cat 2 dog 2, val: cat 2 dog 2",
    ),
    "background": ([*FOUR, "_background_noise_/1"], OPEN),
    "background beside splits": ([*below("train"), "_background_noise_/1"], OPEN),
    "background in a split": (
        [*below("train/audio"), "train/audio/_background_noise_/1", "test/audio/1"],
        OPEN,
    ),
    "a class of background": (
        [*FOUR, "background_noise/1"],
        "open: background_noise 1 cat 2 dog 2",
    ),
    "loose files": ([*FOUR, "1", "2"], OPEN),
}


@pytest.mark.parametrize("layout", READ)
def test_layouts_that_are_read(touch, layout):
    files, expected = READ[layout]
    manifest = read(touch(*(name if "." in name[-4:] else f"{name}.wav" for name in files)))
    assert summary(manifest) == expected
    assert manifest.bad == ()
    assert all("\n" not in note for note in manifest.notes)


STOPPED = {
    "flat splits": (["train/1", "test/1"], "splits or folds, not classes: 'test', 'train'"),
    "flat splits of other words": (["Training/1", "Testing/1"], "'Testing', 'Training'"),
    "flat splits in a wrapper": (["x/train/1", "x/val/1"], "set/x' has folders that are splits"),
    "a flat train only": (["train/1"], "splits or folds, not classes: 'train'"),
    "flat test1 of Kaggle": (["train/1", "test1/1"], "'test1', 'train'"),
    "flat train, test with classes": ([*below("test"), "train/1"], "1 file directly"),
    "flat val": ([*below("train"), "val/1"], "'val' that holds 1 file directly"),
    "flat folds": (["fold1/1", "fold2/1"], "'fold1', 'fold2'"),
    "folds with classes": (below("fold1", "fold2"), "data.pattern='(?P<group>[^/]+)/(?P<label>"),
    "folds with splits": (
        below("fold1/train", "fold2/test"),
        "reads names such as 7_jackson_32.wav",
    ),
    "a flat val beside classes": ([*FOUR, "val/1"], "splits or folds, not classes: 'val'"),
    "one fold beside classes": ([*FOUR, "fold3/1"], "'fold3'"),
    "folds in a split": (below("train", files=("fold1/1", "fold2/1")), "'fold1', 'fold2'"),
    "parts": (["part1/1", "part2/1"], "'part1', 'part2'"),
    "split and class in names": (["cat_train/1", "cat_test/1"], "'cat_test', 'cat_train'"),
    "splits without train": (below("val", "test"), "none for training"),
    "two for val": (below("train", "val", "dev"), "2 folders for one split, 'dev', 'val'"),
    "two for test": (below("train", "test", "eval"), "2 folders for one split, 'eval', 'test'"),
    "two for train": (below("train_curated", "train_noisy"), "2 folders for one split"),
    "one folder more": ([*below("train", "test"), "background/1"], "beside them 'background'"),
    "classes beside splits": ([*FOUR, *below("train", "test")], "beside them 'cat', 'dog'"),
    "train and one more": ([*below("train"), "background/1"], "beside it 'background'"),
    "splits in some classes": (
        ["cat/train/1", "cat/test/1", "dog/1"],
        "class 'dog' also holds files outside of splits",
    ),
    "test inside all classes": (
        ["cat/1", "cat/test/2", "dog/1", "dog/test/2"],
        "splits inside classes, e.g. 'cat/test'",
    ),
    "two sets with splits": (
        below("raw/train", "raw/test", "cut/train", "cut/test"),
        "several folders with splits of their own ('cut', 'raw')",
    ),
    "two folders for a class's val": (
        below("cat", "dog", files=("train/1", "val/1", "dev/1")),
        "two folders for one split in class 'cat'",
    ),
    "an empty split": ([*below("train"), "val/1.xyz"], "a split 'val' without readable files"),
    "flat": (["1", "2"], "2 files directly"),
    "flat in a folder": (["x/1", "x/2"], "one class only, 'x'"),
    "one class with folders": (["cat/a/1", "cat/b/1", "dog/x.xyz"], "did you mean"),
    "nothing": (["README.md"], "holds no recordings or images"),
    "background only": (["_background_noise_/1"], "holds no recordings or images"),
}


@pytest.mark.parametrize("layout", STOPPED)
def test_layouts_that_stop(touch, layout):
    files, words = STOPPED[layout]
    message = error_message(touch(*(n if "." in n[-4:] else f"{n}.wav" for n in files)))
    assert words in message
    assert message.startswith("data.path: ")


def test_wrappers_are_named(touch):
    manifest = read(touch("a/b/cat/1.wav", "a/b/dog/1.wav"))
    assert manifest.notes == ("entered 'a/b', the only sub-folder with recordings or images",)


def test_splits_are_named_with_their_folders(touch):
    manifest = read(touch("x/TRAIN/TRAIN/a/1.wav", "x/TRAIN/TRAIN/b/1.wav", "x/Dev/a/1.wav"))
    assert manifest.notes[1:] == (
        "split train: folder 'x/TRAIN' (in 'x/TRAIN/TRAIN')",
        "split val: folder 'x/Dev'",
    )


@pytest.mark.parametrize("training", [True, False])
def test_unlabeled_files_are_counted_and_left_to_predict(touch, training):
    from meljax.config import DataConfig
    from meljax.data.sources import read_manifest

    folder = touch("train/a/1.wav", "train/b/1.wav", "test/1.wav", "test/2.wav", "test/x.txt")
    manifest = read_manifest(DataConfig(path=folder), training)
    assert {item.split for item in manifest.items} == {"" if training else "train"}
    assert manifest.left_out == {"unlabeled recordings": 2, ".txt": 1}
    assert "'test' holds 2 unlabeled files" in manifest.notes[1]
    assert "meljax predict" in manifest.notes[1]


def test_test_alone_can_be_evaluated_but_not_trained_on(touch):
    from meljax.config import DataConfig
    from meljax.data.sources import read_manifest

    folder = touch("test/a/1.wav", "test/b/1.wav")
    assert "none for training" in error_message(folder)
    items = read_manifest(DataConfig(path=folder), training=False).items
    assert [(item.label, item.split) for item in items] == [("a", "test"), ("b", "test")]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["fold1/1", "fold2/1"], "open: fold1 1 fold2 1"),
        (["train/a/1", "bus/b/1", "bus/c/1", "train/d/1"], "open: bus 2 train 2"),
        (["cat/train/1", "cat/test/1", "dog/1"], "open: cat 2 dog 1"),
        (["train/part1/1", "train/part2/1"], "open: part1 1 part2 1"),
        (["train/1", "test/a/1", "test/b/1"], "open: test 2 train 1"),
    ],
)
def test_split_names_are_classes_if_that_is_allowed(touch, files, expected):
    folder = touch(*(f"{file}.wav" for file in files))
    error_message(folder)
    assert summary(read(folder, allow_split_names=True)) == expected


def write(folder: str, name: str, *lines: str, encoding: str = "utf-8") -> None:
    os.makedirs(os.path.dirname(os.path.join(folder, name)), exist_ok=True)
    with open(os.path.join(folder, name), "w", encoding=encoding, newline="") as file:
        file.write("\r\n".join(lines))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_lists_of_files_give_the_splits(touch, encoding):
    folder = touch(*(f"{name}.wav" for name in (*FOUR, "cat/5")), "_background_noise_/hum.wav")
    write(folder, "validation_list.txt", "cat/1.wav", r"dog\1.wav", "", encoding=encoding)
    write(folder, "testing_list.txt", "./cat/2.wav", "cat/3.wav", "bird/1.wav", encoding=encoding)
    manifest = read(folder)
    assert summary(manifest) == "train: cat 1 dog 1, val: cat 1 dog 1, test: cat 1"
    assert manifest.left_out == {".txt": 2, "background recordings": 1}
    assert manifest.warnings == (
        "2 lines of 'testing_list.txt' ignored: no such file in a class, e.g. 'cat/3.wav'",
    )


def test_a_list_for_test_alone_leaves_the_rest_open(touch):
    folder = touch(*(f"{name}.wav" for name in FOUR))
    write(folder, "test.txt", "cat/1.wav")
    assert summary(read(folder)) == "open: cat 1 dog 2, test: cat 1"


def test_lists_may_stand_above_the_classes(touch):
    folder = touch(*(f"train/audio/{name}.wav" for name in FOUR), "test/audio/1.wav")
    write(folder, "train/validation_list.txt", "cat/1.wav", "dog/1.wav")
    assert summary(read(folder)) == "train: cat 1 dog 1, val: cat 1 dog 1"


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("val.txt", ("cat/1", "dog/1")),
        ("meta/val.txt", ("cat/1.wav cat", "dog/1.wav dog")),
        ("lists/dev.lst", ("cat/1.wav,0", "dog/1.wav,1")),
        ("splits/validation_01.txt", ("cat/1.wav\t0", "dog/1.wav\t1")),
        ("../val_list.txt", ("set/cat/1.wav", "set/dog/1.wav")),
        ("../validation_list.txt", ("cat/1.wav", "dog/1.wav")),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lists_as_people_write_them(touch, name, lines, encoding):
    folder = touch(*(f"{name}.wav" for name in FOUR))
    write(folder, name, *lines, encoding=encoding)
    manifest = read(folder)
    assert summary(manifest) == "train: cat 1 dog 1, val: cat 1 dog 1"
    assert manifest.notes == (f"split val: 2 files listed in {name!r}",)


def test_files_in_no_list_are_left_out_if_there_is_a_list_for_training(touch):
    folder = touch(*(f"{name}.wav" for name in (*FOUR, "cat/3", "dog/3")))
    write(folder, "train.txt", "cat/1", "dog/1")
    write(folder, "test.txt", "cat/2", "dog/2")
    manifest = read(folder)
    assert summary(manifest) == "open: cat 1 dog 1, test: cat 1 dog 1"
    assert "2 files in no list left out" in manifest.notes
    assert manifest.left_out == {".wav": 2, ".txt": 2}
    write(folder, "val.txt", "cat/3", "dog/3")
    assert summary(read(folder)) == "train: cat 1 dog 1, val: cat 1 dog 1, test: cat 1 dog 1"


def test_a_list_for_training_beside_split_folders_keeps_the_other_splits(touch):
    folder = touch(*(f"{name}.wav" for name in below("train", "val")))
    write(folder, "train.txt", "train/cat/1.wav", "train/dog/1.wav")
    assert summary(read(folder)) == "train: cat 1 dog 1, val: cat 2 dog 2"


@pytest.mark.parametrize("name", ["test.txt", "test_list.txt", "lists/test.txt"])
def test_a_list_does_not_move_files_out_of_split_folders(touch, name):
    folder = touch(*(f"{name}.wav" for name in below("train", "test")))
    write(folder, name, "cat/1.wav", "dog/1.wav")
    assert summary(read(folder)) == "open: cat 2 dog 2, test: cat 2 dog 2"
    write(folder, "test.txt", "cat/1.wav", "dog/1.wav")
    assert summary(read(f"{folder}/train")) == OPEN


def test_lists_with_other_labels_than_the_folders_stop_the_run(touch):
    folder = touch(*(f"{name}.wav" for name in (*FOUR, "cat/3")))
    write(folder, "val.txt", "cat/1 happy", "cat/2 sad")
    assert "in class folder 'cat' different labels ('happy' and 'sad')" in error_message(folder)
    write(folder, "val.txt", "7 cat/1", "7 cat/2", "5 dog/1")
    assert "val: cat 2 dog 1" in summary(read(folder))


def test_a_list_that_names_no_file_is_warned_of(touch):
    folder = touch(*(f"{name}.wav" for name in FOUR))
    write(folder, "val.txt", "1.wav", "2.wav")
    (warning,) = read(folder).warnings
    assert "2 lines of 'val.txt' ignored" in warning


def test_several_lists_for_one_split_are_not_read(touch):
    folder = touch(*(f"{name}.wav" for name in FOUR))
    for fold in "12":
        write(folder, f"lists/testlist0{fold}.txt", "cat/1.wav")
    assert summary(read(folder)) == OPEN


def test_a_file_in_two_lists_is_warned_of(touch):
    folder = touch(*(f"{name}.wav" for name in (*FOUR, "cat/3")))
    write(folder, "dev_list.txt", "cat/1.wav")
    write(folder, "eval_list.txt", "cat/1.wav", "cat/2.wav")
    manifest = read(folder)
    assert summary(manifest) == "train: cat 1 dog 2, val: cat 1, test: cat 1"
    assert manifest.warnings == ("1 line of 'eval_list.txt' ignored: its file is in another split",)


def test_other_texts_are_no_lists(touch):
    folder = touch(*(f"{name}.wav" for name in FOUR))
    write(folder, "test.txt", "This folder was tested.")
    write(folder, "notes.txt", "cat/1.wav")
    manifest = read(folder)
    assert (summary(manifest), manifest.warnings) == (OPEN, ())


def test_a_table_in_the_folder_is_named(touch):
    folder = touch(*(f"{name}.wav" for name in FOUR))
    write(folder, "meta/info.csv", "file,class", "1.wav,x")
    table = os.path.join(folder, "meta", "info.csv")
    assert read(folder).notes == (f"labels come from the folders; {table!r} was not read",)


@pytest.mark.parametrize("start", ["", "audio"])
def test_a_table_inside_or_above_is_named_with_its_keys(touch, start):
    folder = touch("audio/fold1/x1.wav", "audio/fold2/x2.wav", "audio/other.csv")
    write(folder, "metadata/sounds.csv", "slice;fold;class", "x1.wav;1;dog", "x2.wav;2;cat")
    path = os.path.join(folder, start) if start else folder
    table = os.path.join(folder, "metadata", "sounds.csv")
    expected = f"did you mean data.path={table!r} data.root={path!r} data.label=class?"
    assert expected in error_message(path)


def test_a_table_whose_paths_are_its_own_needs_no_root(touch):
    folder = touch("1.wav", "2.wav")
    write(folder, "labels.csv", "path,label", "1.wav,a", "2.wav,b")
    assert error_message(folder).endswith(
        f"did you mean data.path={os.path.join(folder, 'labels.csv')!r}?"
    )


def test_a_table_that_contradicts_the_folders_stops_the_run(touch):
    folder = touch(*(f"{s}/{s}{i}.wav" for s in ("anna", "ben") for i in "1234"))
    rows = [
        f"{s}{i}.wav,{'happy' if i in '12' else 'sad'}" for s in ("anna", "ben") for i in "1234"
    ]
    write(folder, "labels.csv", "file,label", *rows)
    message = error_message(folder)
    assert "gives the files of one folder different classes" in message
    assert message.count("did you mean data.path=") == 1
    write(folder, "labels.csv", "file,label", *(f"{row.split('.')[0][:-1]}/{row}" for row in rows))
    assert "different classes" in error_message(folder)
    same = [f"{s}{i}.wav,{number}" for s, number in (("anna", 0), ("ben", 1)) for i in "1234"]
    write(folder, "labels.csv", "file,label", *same)
    assert summary(read(folder)) == "open: anna 4 ben 4"


def test_recordings_and_images_of_the_same_items_stop_the_run(touch):
    files = [
        f"{a}/{c}/{i}.{s}" for a, s in (("x", "wav"), ("y", "png")) for c in "ab" for i in "12"
    ]
    assert "mixes 4 images" in error_message(touch(*files))


def test_of_several_tables_the_one_for_training_is_named(touch):
    folder = touch("clips/1.wav", "clips/2.wav", "clips/3.wav")
    for name, row in (("test", "1.wav,x"), ("dev", "2.wav,x"), ("train", "3.wav,x")):
        write(folder, f"{name}.csv", "file,class", row)
    assert "train.csv' data.root=" in error_message(folder)


def test_a_table_above_that_lists_other_files_is_not_named(touch):
    folder = touch(*(f"x/{name}.wav" for name in FOUR))
    write(folder, "results.csv", "file,label", "7.wav,a")
    write(folder, "scores.csv", "1,2,3")
    assert read(os.path.join(folder, "x")).notes == ()


def test_a_table_above_that_lists_the_files_is_named(touch):
    folder = touch(*(f"x/{name}.wav" for name in FOUR))
    write(folder, "labels.tsv", "file\tlabel", "x\\cat\\1.wav\ta")
    assert "labels.tsv' was not read" in read(os.path.join(folder, "x")).notes[0]


def test_lists_of_files_that_are_in_split_folders_agree(touch):
    folder = touch(*(f"{name}.wav" for name in below("train", "val")))
    write(folder, "val_list.txt", "val/cat/1.wav", "val/cat/2.wav", "val/dog/1.wav")
    manifest = read(folder)
    assert (summary(manifest), manifest.warnings) == ("train: cat 2 dog 2, val: cat 2 dog 2", ())


@pytest.mark.parametrize(
    ("folders", "splits"),
    [
        (("IRMAS-TrainingData", "IRMAS-TestingData-Part1"), {"", "test"}),
        (("ASVspoof_train_LA", "ASVspoof_eval_PA"), {"", "test"}),
        (("train_english", "dev_german"), {"train", "val"}),
    ],
)
def test_splits_with_other_words_beside_the_split(touch, folders, splits):
    manifest = read(touch(*(f"{f}/{c}/{i}.wav" for f in folders for c in "ab" for i in "123")))
    assert {item.label for item in manifest.items} == {"a", "b"}
    assert {item.split for item in manifest.items} == splits


@pytest.mark.parametrize("names", ["training-a training-b training-c", "train_real train_fake"])
def test_siblings_that_all_name_a_split_are_no_classes(touch, names):
    message = error_message(touch(*(f"{n}/{i}.wav" for n in names.split() for i in "123")))
    assert "not classes" in message


def test_a_copy_of_the_set_inside_it_is_no_class(touch):
    files = [f"{above}{c}/{i}.wav" for above in ("", "copy/") for c in ("ox", "cow") for i in "12"]
    assert "'copy', with folders named like the classes beside it" in error_message(touch(*files))


@pytest.mark.parametrize(
    ("above", "classes"),
    [
        (("session1", "session2"), ("ox", "cow")),
        (("anna", "ben"), ("0", "1")),
        (("audio", "augmented"), ("ox", "cow")),
        (("set/raw", "set/clean"), ("ox", "cow")),
        (("train/audio", "train/augmented", "test/audio"), ("ox", "cow")),
    ],
)
def test_folders_of_the_same_names_stop_the_run(touch, above, classes):
    files = [f"{a}/{c}/{i}.wav" for a in above for c in classes for i in "12"]
    folder = touch(*files)
    message = error_message(folder)
    assert "either may be the classes" in message
    for labels in (classes, {each.split("/")[-1] for each in above}):
        _, _, message = message.partition("data.pattern='")
        pattern = message.partition("'")[0]
        assert {item.label for item in read(folder, pattern=pattern).items} == {*labels}


@pytest.mark.parametrize(
    "parts", ["s1 s2", "day_01 day_02", "2023-01 2023-02", "original augmented"]
)
def test_numbered_folders_inside_classes_are_parts_of_them(touch, parts):
    folder = touch(
        *(f"{c}/{p}/{i}.wav" for c in ("ox", "cow") for p in parts.split() for i in "12")
    )
    manifest = read(folder)
    assert {item.label for item in manifest.items} == {"ox", "cow"}
    (note,) = manifest.notes
    pattern = note.partition("data.pattern='")[2].strip("'")
    assert {i.group for i in read(folder, pattern=pattern).items} == {*parts.split()}


@pytest.mark.parametrize("above", ["2sec norm", "2sec/2seconds norm/norm"])
def test_versions_with_splits_of_their_own_stop_the_run(touch, above):
    splits = [f"{a}/{split}" for a in above.split() for split in ("training", "testing")]
    folder = touch(*(f"{s}/{c}/{i}.wav" for s in splits for c in ("fake", "real") for i in "12"))
    assert "splits" in error_message(folder)
    message = error_message(folder, allow_split_names=True)
    assert "('fake', 'real') inside" in message


@pytest.mark.parametrize(
    "files",
    [
        ["RecA/robin", "RecA/wren", "RecB/wren", "RecB/owl", "RecC/robin", "RecC/owl"],
        ["RecA/robin", "RecA/wren", "RecB/wren", "RecB/owl"],
        ["anna/yes", "ben/yes", "carl/no"],
        ["anna/yes", "anna/no", "ben/YES", "ben/NO"],
        ["train/anna/yes", "train/ben/yes", "train/carl/no", "test/anna/yes"],
        ["anna/audio/yes", "anna/audio/no", "ben/audio/yes", "ben/audio/no"],
        ["north/2021/robin", "north/2021/wren", "south/2021/robin", "south/2021/wren"],
        ["anna/day1/yes", "anna/day2/no", "ben/day1/yes", "ben/day2/no"],
        ["anna/class1", "anna/class2", "ben/class1", "ben/class2"],
    ],
)
def test_either_level_may_be_the_classes(touch, files):
    message = error_message(touch(*(f"{file}/{i}.wav" for file in files for i in "12")))
    assert "either may be the classes" in message


def test_the_proposed_pattern_enters_folders_as_the_layout_does(touch):
    files = [f"{s}/wav/{a}/{c}" for s in ("train", "dev") for a in ("anna", "ben") for c in "yn"]
    folder = touch(*(f"{file}/{i}.wav" for file in files for i in "12"))
    pattern = error_message(folder).partition("data.pattern='")[2].partition("'")[0]
    manifest = read(folder, pattern=pattern)
    assert {(item.label, item.group) for item in manifest.items} == {
        (label, group) for label in "yn" for group in ("anna", "ben")
    }


@pytest.mark.parametrize("names", ["raw processed", "AudioWAV AudioMP3", "2024-05-01 2024-05-02"])
def test_parts_and_versions_are_no_classes(touch, names):
    folder = touch(*(f"{name}/{i}.wav" for name in names.split() for i in "12"))
    assert "parts or versions" in error_message(folder)
    assert len(read(folder, allow_split_names=True).items) == 4


@pytest.mark.parametrize("name", ["test", "Test set", "unlabeled", "to predict"])
def test_unlabeled_files_beside_classes_are_left_out(touch, name):
    manifest = read(touch(*(f"{file}.wav" for file in (*FOUR, f"{name}/1", f"{name}/2"))))
    assert summary(manifest) == OPEN
    assert manifest.left_out == {"unlabeled recordings": 2}
    assert f"{name!r} holds 2 unlabeled files" in manifest.notes[0]


def test_one_class_in_all_splits_stops_the_run(touch):
    names = [f"{c}_{i}.wav" for c in ("ox", "cow") for i in "12"]
    folder = touch(*(f"{split}/flac/{name}" for split in ("train", "dev") for name in names))
    message = error_message(folder)
    assert "one class only, 'flac'" in message
    pattern = message.partition("data.pattern='")[2].partition("'")[0]
    assert summary(read(folder, pattern=pattern)) == "train: cow 2 ox 2, val: cow 2 ox 2"


def test_a_test_class_in_other_letters_is_no_unlabeled_folder(touch):
    files = [*below("train", files=FOUR), "test/Cat/1"]
    assert "class 'Cat' in test but not in train" in error_message(
        touch(*(f"{f}.wav" for f in files))
    )


@pytest.mark.parametrize("system", ["$RECYCLE.BIN", "@eaDir", "System Volume Information"])
def test_folders_of_systems_are_no_classes(touch, system):
    manifest = read(touch("a/1.wav", "b/1.wav", f"{system}/1.wav", f"{system}/2.wav"))
    assert {item.label for item in manifest.items} == {"a", "b"}
    assert manifest.left_out == {"hidden": 1}


def test_labels_of_a_pattern_may_not_be_splits(touch):
    folder = touch("train_1.wav", "train_2.wav", "test_1.wav", "test_2.wav")
    pattern = r"(?P<label>\w+)_\d+"
    assert "data.pattern finds labels that are splits" in error_message(folder, pattern=pattern)
    assert len(read(folder, pattern=pattern, allow_split_names=True).items) == 4


def test_pipes_and_dangling_links_are_passed_over(touch, tmp_path):
    folder = touch("a/1.wav", "b/1.wav")
    os.mkfifo(os.path.join(folder, "notes.txt"))
    os.mkfifo(os.path.join(folder, "metadata.csv"))
    os.symlink(tmp_path / "nowhere", os.path.join(folder, "a", "README.txt"))
    assert len(read(folder).items) == 2
