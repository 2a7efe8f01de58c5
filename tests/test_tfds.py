"""Sets that others made with TFDS: what is read of them, and what is said of the others."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import CACHE, ROOT, command, small_config
from PIL import Image

from meljax import config as config_lib
from meljax.data import load, tfds
from meljax.errors import BadFileError, UserError
from meljax.main import main


def test_one_file_names_tensorflow_datasets_and_imports_it_late():
    naming = [p for p in (ROOT / "meljax").rglob("*.py") if "tensorflow_datasets" in p.read_text()]
    assert naming == [ROOT / "meljax" / "data" / "tfds.py"]
    assert not re.search(r"^(import|from) tensorflow", naming[0].read_text(), re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("tfds:voices", ("voices", "", "")),
        ("tfds:voices/large:1.2.3", ("voices", "large", "1.2.3")),
        ("tfds:Voices_2:10.0.0", ("Voices_2", "", "10.0.0")),
    ],
)
def test_names_are_taken_apart_and_put_together(text, parts):
    assert tfds.parse(text) == parts
    assert str(tfds.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["tfds:", "tfds:a/b/c", "tfds:a:1", "tfds:../a", "tfds:é", "tfds: a"]
)
def test_what_is_no_name_is_answered_with_the_form(text):
    with pytest.raises(UserError, match=r"tfds:NAME\[/CONFIG\]\[:VERSION\]"):
        tfds.parse(text)


def picture(seed: int, channels: int = 3) -> io.BytesIO:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, channels)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "PNG")
    file.seek(0)
    return file


def make(root: Path, name: str, examples: dict[str, list[dict]], features: dict, **info) -> None:
    """A set as anybody would make it; `examples` by split."""
    library = tfds.library()

    class Made(library.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = library.core.Version(info.pop("version", "1.0.0"))

        def _info(self):
            return library.core.DatasetInfo(
                builder=self, features=library.features.FeaturesDict(features), **info
            )

        def _split_generators(self, _):
            return {split: self._generate_examples(split) for split in examples}

        def _generate_examples(self, split):
            yield from enumerate(examples[split])

    Made.name = name
    library.disable_progress_bar()
    settings = library.download.DownloadConfig(try_download_gcs=False)
    builder = Made(data_dir=root, file_format="array_record")
    builder.download_and_prepare(download_config=settings)


def find(root: Path, name: str, label="label", group="group", training=True):
    return load.find(f"tfds:{name}", str(root), label, group, training)


@pytest.fixture
def features():
    made = tfds.library().features
    return {
        "image": made.Image(shape=(None, None, 3)),
        "label": made.ClassLabel(names=["zebra", "ape"]),
        "speaker": np.int64,
        "name": made.Text(),
        "score": np.float32,
        "sizes": made.Sequence(np.int64),
    }


def example(i: int, **values) -> dict:
    usual = {"image": picture(i), "label": i % 2, "speaker": i // 4, "name": f"n{i % 3}"}
    return usual | {"score": 0.5, "sizes": [1, 2]} | values


def test_names_of_classes_come_from_the_set_and_splits_are_respected(tmp_path, features):
    sizes = {"train": 6, "validation": 4, "test": 2, "extra": 3}
    splits = {name: [example(i + 10 * len(name)) for i in range(n)] for name, n in sizes.items()}
    make(tmp_path, "animals", splits, features)
    listing = find(tmp_path, "animals")
    assert (listing.kind, listing.bad) == ("image", ())
    assert {item.label for item in listing.items} == {"zebra", "ape"}
    sides = [item.split for item in listing.items]
    assert {side: sides.count(side) for side in sides} == {"train": 6, "val": 4, "test": 2}
    assert any("extra" in line for line in listing.warnings)
    stored = {listing.read(item) for item in listing.items}
    assert stored == {e["image"].getvalue() for n in splits if n != "extra" for e in splits[n]}
    voices = load.load(small_config(data__path="tfds:animals", data__tfds_dir=str(tmp_path)), CACHE)
    assert voices.classes == ("ape", "zebra")
    assert [len(voices.indices(side)) for side in ("train", "val", "test")] == [6, 4, 2]


def test_without_a_validation_split_one_is_made(tmp_path, features):
    splits = {"train": [example(i) for i in range(12)], "test": [example(i) for i in range(2)]}
    make(tmp_path, "animals", splits, features)
    sides = [item.split for item in find(tmp_path, "animals", group="").items]
    assert (sides.count(""), sides.count("test"), len(sides)) == (12, 2, 14)
    # For an evaluation they are what they are called.
    sides = {item.split for item in find(tmp_path, "animals", group="", training=False).items}
    assert sides == {"train", "test"}


def test_a_split_that_stands_alone_may_have_any_name(tmp_path, features):
    make(tmp_path, "animals", {"full": [example(i) for i in range(4)]}, features)
    assert [item.split for item in find(tmp_path, "animals").items] == [""] * 4
    listing = find(tmp_path, "animals", training=False)
    assert [item.split for item in listing.items] == ["train"] * 4
    make(tmp_path, "tests", {"test": [example(i) for i in range(4)]}, features)
    listing = find(tmp_path, "tests", training=False)
    assert [item.split for item in listing.items] == ["test"] * 4


def test_examples_are_told_apart_by_number_and_known_by_name(tmp_path, features):
    features["image/file_name"] = features.pop("name")
    features["speaker"] = np.str_
    examples = []
    for i, name in enumerate(["a", "b", "", "a"]):
        values = example(i, speaker=f"s{i // 2}") | {"image/file_name": name}
        examples.append({key: values[key] for key in features})
    make(tmp_path, "animals", {"train": examples}, features)
    listing = find(tmp_path, "animals", group="speaker")
    # TFDS has shuffled them.
    assert [item.path[:12] for item in listing.items] == [f"train/00000{i}" for i in range(4)]
    found = sorted((item.path[12:], item.group) for item in listing.items)
    assert found == [("", "s1"), (" a", "s0"), (" a", "s1"), (" b", "s0")]


def test_a_class_that_is_only_scored_is_refused(tmp_path, features):
    splits = {"train": [example(i, label=0) for i in range(4)]}
    make(tmp_path, "one", splits, features)
    with pytest.raises(UserError, match="files of one class only, 'zebra'"):
        find(tmp_path, "one")
    splits = {"train": [example(i, label=i % 2, name="ab"[i % 2]) for i in range(4)]}
    make(tmp_path, "two", splits | {"validation": [example(9, name="c")]}, features)
    with pytest.raises(UserError, match="class 'c' in val but not in train"):
        find(tmp_path, "two", label="name")


def test_label_and_group_may_be_other_features(tmp_path, features):
    make(tmp_path, "animals", {"train": [example(i) for i in range(12)]}, features)
    listing = find(tmp_path, "animals", label="name", group="speaker")
    assert {item.label for item in listing.items} == {"n0", "n1", "n2"}
    assert {item.group for item in listing.items} == {"0", "1", "2"}
    assert [item.path for item in listing.items][:2] == ["train/000000", "train/000001"]
    with pytest.raises(UserError, match=r"data\.label is empty"):
        find(tmp_path, "animals", label="")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"label": "lable"}, ["data.label", "'lable'", "is not there", "nearest is 'label'"]),
        (
            {"label": "score"},
            ["data.label", "'score'", "can be no class", "'label', 'name', 'speaker'"],
        ),
        ({"label": "sizes"}, ["can be no class"]),
        ({"group": "spaeker"}, ["data.group", "nearest is 'speaker'"]),
        ({"label": "name", "group": "name"}, ["both name feature 'name'"]),
    ],
)
def test_a_feature_that_cannot_be_is_answered_with_those_that_can(tmp_path, features, keys, words):
    features["label"] = tfds.library().features.ClassLabel(names=["zebra", "ape"])
    make(tmp_path, "animals", {"train": [example(i) for i in range(4)]}, features)
    with pytest.raises(UserError) as caught:
        find(tmp_path, "animals", **keys)
    assert all(word in str(caught.value) for word in words), caught.value


def test_groups_that_are_the_classes_are_refused(tmp_path, features):
    make(tmp_path, "animals", {"train": [example(i, speaker=i % 2) for i in range(4)]}, features)
    with pytest.raises(UserError, match="same as the label"):
        find(tmp_path, "animals", group="speaker")


def test_a_set_without_a_label_says_what_could_be_one(tmp_path, features, capsys):
    del features["label"]
    examples = [{k: v for k, v in example(i).items() if k != "label"} for i in range(4)]
    make(tmp_path, "animals", {"train": examples}, features)
    assert main(command("cnn", "tfds:animals", tmp_path / "run", data__tfds_dir=tmp_path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "data.label" in line
    assert "'name', 'speaker'" in line
    assert not (tmp_path / "run").exists()


def test_a_label_that_says_nothing_is_one_line(tmp_path, features):
    make(tmp_path, "animals", {"train": [example(i, name="") for i in range(4)]}, features)
    with pytest.raises(UserError, match="'name' of tfds:animals says nothing in any example"):
        find(tmp_path, "animals", label="name")


def test_examples_without_a_class_are_counted_and_left_out(tmp_path, features):
    examples = [example(i) for i in range(6)]
    make(tmp_path, "animals", {"train": examples, "test": [example(9, label=-1)]}, features)
    listing = find(tmp_path, "animals")
    assert len(listing.items) == 6
    assert listing.warnings == ("1 examples of split test have no class and are left out",)


def test_pictures_are_looked_for_where_they_are_meant_to_be(tmp_path, features):
    image = features.pop("image")
    both = features | {"front": image, "back": image}

    def examples(*keys: str) -> list[dict]:
        pairs = [{"front": picture(i), "back": picture(i + 50)} for i in range(4)]
        return [{k: (example(i) | pairs[i])[k] for k in keys} for i in range(4)]

    make(tmp_path, "pairs", {"train": examples(*both)}, both)
    with pytest.raises(UserError, match=r"more than one feature with pictures.*'back', 'front'"):
        find(tmp_path, "pairs")
    make(tmp_path, "told", {"train": examples(*both)}, both, supervised_keys=("back", "label"))
    listing = find(tmp_path, "told")
    assert listing.read(listing.items[0]) == picture(50).getvalue()
    make(tmp_path, "none", {"train": examples(*features)}, features)
    with pytest.raises(UserError, match="no feature with pictures or recordings"):
        find(tmp_path, "none")


def test_pictures_of_floats_are_not_taken_for_pictures(tmp_path, features):
    make(tmp_path, "floats", {"train": [example(i) for i in range(4)]}, features)
    written = tmp_path / "floats" / "1.0.0" / "features.json"
    facts = json.loads(written.read_text())
    image = facts["featuresDict"]["features"]["image"]["image"]
    image |= {"dtype": "float32", "shape": {"dimensions": ["-1", "-1", "1"]}}
    written.write_text(json.dumps(facts))
    with pytest.raises(UserError, match="no feature with pictures"):
        find(tmp_path, "floats")


@pytest.fixture
def versions(tmp_path, features):
    for version, n in (("1.9.0", 4), ("1.10.0", 6)):
        make(
            tmp_path,
            "animals",
            {"train": [example(i) for i in range(n)]},
            features,
            version=version,
        )
    return tmp_path


def test_the_newest_version_is_taken_unless_one_is_named(versions):
    assert tfds.pin("tfds:animals", str(versions)) == "tfds:animals:1.10.0"
    assert len(find(versions, "animals").items) == 6
    assert len(find(versions, "animals:1.9.0").items) == 4
    with pytest.raises(UserError, match=r"holds tfds:animals:1.9.0, tfds:animals:1.10.0, and no"):
        find(versions, "animals:2.0.0")


def test_a_run_keeps_the_version_it_began_with(versions):
    config = small_config(data__path="tfds:animals", data__tfds_dir=str(versions))
    pinned = load.pinned(config, {})
    assert pinned.data.path == "tfds:animals:1.10.0"
    began = {"data.path": "tfds:animals:1.9.0", "data.tfds_dir": "/there"}
    assert load.pinned(config, began).data.path == "tfds:animals:1.9.0"
    assert load.pinned(config, began).data.tfds_dir == str(versions)
    open_place = small_config(data__path="tfds:animals")
    assert load.pinned(open_place, began).data.tfds_dir == "/there"
    assert load.pinned(pinned, config_lib.flat(pinned)) == pinned
    other = small_config(data__path="tfds:animals:1.9.0", data__tfds_dir=str(versions))
    assert load.pinned(other, config_lib.flat(pinned)).data.path == "tfds:animals:1.9.0"
    sized = small_config(data__path="tfds:sized", data__tfds_dir=str(versions))
    began = {"data.path": "tfds:sized/big:1.0.0", "data.tfds_dir": ""}
    assert load.pinned(sized, began).data.path == "tfds:sized/big:1.0.0"
    folder = small_config(data__path="voices")
    assert load.pinned(folder, {}) is folder


def test_where_tfds_keeps_its_sets_is_recorded(versions, monkeypatch):
    monkeypatch.setattr(tfds.library().core.constants, "DATA_DIR", str(versions))
    pinned = load.pinned(small_config(data__path="tfds:animals"), {})
    assert pinned.data.tfds_dir == str(versions)


def test_a_configuration_is_named_unless_there_is_one(versions):
    for config in ("big", "small"):
        target = versions / "sized" / config / "1.0.0"
        target.parent.mkdir(parents=True)
        (versions / "animals" / "1.9.0").rename(target) if config == "big" else (
            versions / "animals" / "1.10.0"
        ).rename(target)
        facts = json.loads((target / "dataset_info.json").read_text())
        facts |= {"name": "sized", "configName": config, "version": "1.0.0"}
        (target / "dataset_info.json").write_text(json.dumps(facts))
        for shard in target.glob("*array_record*"):
            shard.rename(target / shard.name.replace("animals", "sized"))
    with pytest.raises(UserError, match=r"name one of tfds:sized/big, tfds:sized/small"):
        find(versions, "sized")
    assert tfds.pin("tfds:sized/small", str(versions)) == "tfds:sized/small:1.0.0"
    assert len(find(versions, "sized/small").items) == 6
    (versions / "sized" / ".config").mkdir()
    (versions / "sized" / ".config" / "metadata.json").write_text('{"default_config_name": "big"}')
    assert len(find(versions, "sized").items) == 4


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("animal", ["no set 'animal' lies in", "did you mean tfds:animals?"]),
        ("animals/1.9.0", ["did you mean tfds:animals:1.9.0?"]),
        ("MNIST", ["did you mean tfds:mnist?"]),
        ("mnst", ["did you mean tfds:mnist?"]),
        ("qqqqqqqq", ["TFDS itself knows none; is it elsewhere?", "data.tfds_dir"]),
        ("mnist/small", ["mnist has no configuration 'small'"]),
        ("cifar10_corrupted/fog_9", ["has no configuration 'fog_9'", "such as 'fog_"]),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(versions, name, words):
    with pytest.raises(UserError) as caught:
        find(versions, name)
    assert all(word in str(caught.value) for word in words), caught.value


def test_what_cannot_be_fetched_says_which_file_to_place_where(tmp_path):
    with pytest.raises(UserError) as caught:
        find(tmp_path, "mnist")
    manual = tmp_path / "downloads" / "manual"
    assert "storage.googleapis.com cannot be reached" in str(caught.value)
    assert str(manual) in str(caught.value)
    assert len(caught.value.details) == 4
    assert all(str(manual / "t") in line for line in caught.value.details)
    # A file that a person placed there is not asked for again; that it is another one is told.
    manual.mkdir(parents=True)
    for line in caught.value.details:
        Path(line.partition(" → ")[2]).write_bytes(b"not this one")
    with pytest.raises(UserError, match="wrong checksum"):
        find(tmp_path, "mnist")


def without_tensorflow() -> bool:
    try:
        import tensorflow  # noqa: F401
    except ImportError:
        return True
    return False


needs_no_tensorflow = pytest.mark.skipif(
    not without_tensorflow(), reason="of what is said where TensorFlow is missing"
)


@needs_no_tensorflow
@pytest.mark.parametrize("change", ["audio", "tfrecord", "made_by_tfds"])
def test_what_needs_tensorflow_says_so(versions, change, capfd):
    folder, name = versions / "animals" / "1.10.0", "animals"
    if change == "audio":
        facts = json.loads((folder / "features.json").read_text())
        python = "tensorflow_datasets.core.features.audio_feature.Audio"
        facts["featuresDict"]["features"]["image"] = {
            "pythonClassName": python,
            "audio": {
                "dtype": "int64",
                "shape": {"dimensions": ["-1"]},
                "sampleRate": "8000",
                "encoding": "NONE",
            },
        }
        (folder / "features.json").write_text(json.dumps(facts))
    elif change == "tfrecord":
        facts = (folder / "dataset_info.json").read_text()
        (folder / "dataset_info.json").write_text(facts.replace("array_record", "tfrecord"))
        for shard in folder.glob("*array_record*"):
            shard.rename(folder / shard.name.replace("array_record", "tfrecord"))
    else:
        name = "spoken_digit"
    with pytest.raises(UserError, match=r"needs tensorflow: pip install 'meljax\[tfds-tf\]'"):
        find(versions, name)
    assert capfd.readouterr().err == ""


# Damage


def shard(root: Path) -> Path:
    (file,) = (root / "animals" / "1.10.0").glob("*array_record*")
    return file


def test_a_damaged_record_is_listed_and_the_others_are_read(versions):
    content = bytearray(shard(versions).read_bytes())
    content[200] ^= 0xFF
    shard(versions).write_bytes(content)
    listing = find(versions, "animals")
    (bad,) = listing.bad
    assert re.match(r"train, example \d", bad.path)
    assert bad.reason.startswith("damaged (")
    assert len(listing.items) == 5
    config = small_config(data__path="tfds:animals", data__tfds_dir=str(versions))
    with pytest.raises(UserError, match="1 examples in tfds:animals cannot be used") as caught:
        load.load(config, CACHE)
    assert len(caught.value.details) == 1


def test_a_record_that_is_damaged_later_is_one_bad_file(versions):
    listing = find(versions, "animals")
    content = bytearray(shard(versions).read_bytes())
    content[200] ^= 0xFF
    shard(versions).write_bytes(content)
    results = []
    for item in listing.items:
        try:
            results.append(len(listing.read(item)))
        except BadFileError as error:
            results.append(str(error))
    assert sum(isinstance(r, str) and r.startswith("damaged (") for r in results) == 1


def test_a_file_that_was_cut_off_is_a_few_lines(tmp_path, features):
    make(tmp_path, "animals", {"train": [example(i) for i in range(30)]}, features)
    (file,) = tmp_path.rglob("*array_record*")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 3])
    bad = find(tmp_path, "animals").bad
    assert len(bad) == 11
    assert (bad[-1].path, bad[-1].reason) == ("and 20 more examples", "damaged too")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: shard(root).unlink(), "lacks 1 of its files, such as .*array_record"),
        (lambda root: (shard(root).parent / "features.json").write_text("{"), "cannot be used"),
        (lambda root: (shard(root).parent / "features.json").unlink(), "cannot be used"),
        (lambda root: (shard(root).parent / "dataset_info.json").write_text("{}"), "cannot be us"),
        (
            lambda root: (shard(root).parent / "label.labels.txt").write_text("one\n"),
            "examples in tfds:animals:1.10.0 cannot be used",
        ),
        (lambda root: shard(root).write_bytes(b"short"), "cannot be used"),
    ],
)
def test_a_damaged_set_is_one_line(versions, damage, words, capsys):
    damage(versions)
    assert main(command("cnn", "tfds:animals", versions / "run", data__tfds_dir=versions)) == 2
    *listed, line = capsys.readouterr().err.splitlines()
    assert re.search(words, line)
    assert all(re.match(r"train, example \d: damaged", each) for each in listed)
