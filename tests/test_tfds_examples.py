"""TFDS sets of other programs: reading, finding by name, and error messages."""

import importlib.util
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import CACHE, ROOT, command, small_config
from PIL import Image

from meljax import config as config_lib
from meljax.config import DataConfig
from meljax.data.dataset import download_set, load, resolve_set
from meljax.data.sources import read_manifest
from meljax.data.tfds import catalog, examples
from meljax.main import main
from meljax.util.errors import BadFileError, UserError


def test_one_module_imports_tensorflow_datasets_and_only_when_needed():
    pattern = r"(import|from) tensorflow_datasets|import_module\(.tensorflow_datasets"
    sources = {path: path.read_text() for path in (ROOT / "meljax").rglob("*.py")}
    importing = [path for path, source in sources.items() if re.search(pattern, source)]
    assert importing == [ROOT / "meljax" / "data" / "tfds" / "catalog.py"]
    assert not re.search(r"^(import|from) tensorflow", sources[importing[0]], re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("tfds:voices", ("voices", "", "")),
        ("tfds:voices/large:1.2.3", ("voices", "large", "1.2.3")),
        ("tfds:Voices_2:10.0.0", ("Voices_2", "", "10.0.0")),
    ],
)
def test_names_are_parsed_and_formatted(text, parts):
    assert catalog.parse(text) == parts
    assert str(catalog.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["tfds:", "tfds:a/b/c", "tfds:a:1", "tfds:../a", "tfds:é", "tfds: a"]
)
def test_the_error_for_a_malformed_name_gives_the_form(text):
    with pytest.raises(UserError, match=r"tfds:NAME\[/CONFIG\]\[:VERSION\]"):
        catalog.parse(text)


def image(seed: int, channels: int = 3) -> io.BytesIO:
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, channels)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "PNG")
    file.seek(0)
    return file


def make(root: Path, name: str, examples: dict[str, list[dict]], features: dict, **info) -> None:
    """Builds a set as another program would; `examples` by split."""
    library = catalog.library()

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


def read(root: Path, name: str, label="label", group="group", training=True):
    data = DataConfig(path=f"tfds:{name}", tfds_dir=str(root), label=label, group=group)
    return read_manifest(data, training)


@pytest.fixture
def features():
    made = catalog.library().features
    return {
        "image": made.Image(shape=(None, None, 3)),
        "label": made.ClassLabel(names=["zebra", "ape"]),
        "speaker": np.int64,
        "name": made.Text(),
        "score": np.float32,
        "sizes": made.Sequence(np.int64),
    }


def example(i: int, **values) -> dict:
    usual = {"image": image(i), "label": i % 2, "speaker": i // 4, "name": f"n{i % 3}"}
    return usual | {"score": 0.5, "sizes": [1, 2]} | values


def test_class_names_come_from_the_set_and_splits_are_respected(tmp_path, features):
    sizes = {"train": 6, "validation": 4, "test": 2, "extra": 3}
    splits = {name: [example(i + 10 * len(name)) for i in range(n)] for name, n in sizes.items()}
    make(tmp_path, "animals", splits, features)
    manifest = read(tmp_path, "animals")
    assert (manifest.kind, manifest.bad) == ("image", ())
    assert {item.label for item in manifest.items} == {"zebra", "ape"}
    found = [item.split for item in manifest.items]
    assert {split: found.count(split) for split in found} == {"train": 6, "val": 4, "test": 2}
    assert any("extra" in line for line in manifest.warnings)
    stored = {manifest.read(item) for item in manifest.items}
    assert stored == {e["image"].getvalue() for n in splits if n != "extra" for e in splits[n]}
    dataset = load(small_config(data__path="tfds:animals", data__tfds_dir=str(tmp_path)), CACHE)
    assert dataset.classes == ("ape", "zebra")
    assert [len(dataset.indices(split)) for split in ("train", "val", "test")] == [6, 4, 2]


def test_without_a_validation_split_the_training_split_is_open(tmp_path, features):
    splits = {"train": [example(i) for i in range(12)], "test": [example(i) for i in range(2)]}
    make(tmp_path, "animals", splits, features)
    splits = [item.split for item in read(tmp_path, "animals", group="").items]
    assert (splits.count(""), splits.count("test"), len(splits)) == (12, 2, 14)
    # Evaluation uses the splits by their names.
    splits = {item.split for item in read(tmp_path, "animals", group="", training=False).items}
    assert splits == {"train", "test"}


def test_a_single_split_may_have_any_name(tmp_path, features):
    make(tmp_path, "animals", {"full": [example(i) for i in range(4)]}, features)
    assert [item.split for item in read(tmp_path, "animals").items] == [""] * 4
    manifest = read(tmp_path, "animals", training=False)
    assert [item.split for item in manifest.items] == ["train"] * 4
    make(tmp_path, "tests", {"test": [example(i) for i in range(4)]}, features)
    manifest = read(tmp_path, "tests", training=False)
    assert [item.split for item in manifest.items] == ["test"] * 4


def test_paths_of_examples_have_their_index_and_name(tmp_path, features):
    features["image/file_name"] = features.pop("name")
    features["speaker"] = np.str_
    examples = []
    for i, name in enumerate(["a", "b", "", "a"]):
        values = example(i, speaker=f"s{i // 2}") | {"image/file_name": name}
        examples.append({key: values[key] for key in features})
    make(tmp_path, "animals", {"train": examples}, features)
    manifest = read(tmp_path, "animals", group="speaker")
    # TFDS has shuffled them.
    assert [item.path[:12] for item in manifest.items] == [f"train/00000{i}" for i in range(4)]
    found = sorted((item.path[12:], item.group) for item in manifest.items)
    assert found == [("", "s1"), (" a", "s0"), (" a", "s1"), (" b", "s0")]


def test_a_class_missing_in_train_is_refused(tmp_path, features):
    splits = {"train": [example(i, label=0) for i in range(4)]}
    make(tmp_path, "one", splits, features)
    with pytest.raises(UserError, match="files of one class only, 'zebra'"):
        read(tmp_path, "one")
    splits = {"train": [example(i, label=i % 2, name="ab"[i % 2]) for i in range(4)]}
    make(tmp_path, "two", splits | {"validation": [example(9, name="c")]}, features)
    with pytest.raises(UserError, match="class 'c' in val but not in train"):
        read(tmp_path, "two", label="name")


def test_label_and_group_may_be_other_features(tmp_path, features):
    make(tmp_path, "animals", {"train": [example(i) for i in range(12)]}, features)
    manifest = read(tmp_path, "animals", label="name", group="speaker")
    assert {item.label for item in manifest.items} == {"n0", "n1", "n2"}
    assert {item.group for item in manifest.items} == {"0", "1", "2"}
    assert [item.path for item in manifest.items][:2] == ["train/000000", "train/000001"]
    with pytest.raises(UserError, match=r"data\.label is empty"):
        read(tmp_path, "animals", label="")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"label": "lable"}, ["data.label", "'lable'", "does not exist", "nearest is 'label'"]),
        (
            {"label": "score"},
            ["data.label", "'score'", "cannot be a class", "'label', 'name', 'speaker'"],
        ),
        ({"label": "sizes"}, ["cannot be a class"]),
        ({"group": "spaeker"}, ["data.group", "nearest is 'speaker'"]),
        ({"label": "name", "group": "name"}, ["both name feature 'name'"]),
    ],
)
def test_the_error_for_an_unusable_feature_lists_usable_ones(tmp_path, features, keys, words):
    features["label"] = catalog.library().features.ClassLabel(names=["zebra", "ape"])
    make(tmp_path, "animals", {"train": [example(i) for i in range(4)]}, features)
    with pytest.raises(UserError) as caught:
        read(tmp_path, "animals", **keys)
    assert all(word in str(caught.value) for word in words), caught.value


def test_groups_that_equal_the_classes_are_refused(tmp_path, features):
    make(tmp_path, "animals", {"train": [example(i, speaker=i % 2) for i in range(4)]}, features)
    with pytest.raises(UserError, match="same as the label"):
        read(tmp_path, "animals", group="speaker")


def test_the_error_for_a_set_without_the_label_lists_features(tmp_path, features, capsys):
    del features["label"]
    examples = [{k: v for k, v in example(i).items() if k != "label"} for i in range(4)]
    make(tmp_path, "animals", {"train": examples}, features)
    assert main(command("cnn", "tfds:animals", tmp_path / "run", data__tfds_dir=tmp_path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "data.label" in line
    assert "'name', 'speaker'" in line
    assert not (tmp_path / "run").exists()


def test_an_empty_label_gives_one_line(tmp_path, features):
    make(tmp_path, "animals", {"train": [example(i, name="") for i in range(4)]}, features)
    with pytest.raises(UserError, match="'name' of tfds:animals is empty in all examples"):
        read(tmp_path, "animals", label="name")


def test_examples_without_a_class_are_counted_and_left_out(tmp_path, features):
    examples = [example(i) for i in range(6)]
    make(tmp_path, "animals", {"train": examples, "test": [example(9, label=-1)]}, features)
    manifest = read(tmp_path, "animals")
    assert len(manifest.items) == 6
    assert manifest.warnings == ("1 examples of split test have no class and are skipped",)


def test_the_content_feature_is_found_or_must_be_unambiguous(tmp_path, features):
    feature = features.pop("image")
    both = features | {"front": feature, "back": feature}

    def examples(*keys: str) -> list[dict]:
        pairs = [{"front": image(i), "back": image(i + 50)} for i in range(4)]
        return [{k: (example(i) | pairs[i])[k] for k in keys} for i in range(4)]

    make(tmp_path, "pairs", {"train": examples(*both)}, both)
    with pytest.raises(UserError, match=r"more than one feature with images.*'back', 'front'"):
        read(tmp_path, "pairs")
    make(tmp_path, "told", {"train": examples(*both)}, both, supervised_keys=("back", "label"))
    manifest = read(tmp_path, "told")
    assert manifest.read(manifest.items[0]) == image(50).getvalue()
    make(tmp_path, "none", {"train": examples(*features)}, features)
    with pytest.raises(UserError, match="no feature with images or recordings"):
        read(tmp_path, "none")


def test_float_images_are_refused(tmp_path, features):
    make(tmp_path, "floats", {"train": [example(i) for i in range(4)]}, features)
    written = tmp_path / "floats" / "1.0.0" / "features.json"
    info = json.loads(written.read_text())
    image = info["featuresDict"]["features"]["image"]["image"]
    image |= {"dtype": "float32", "shape": {"dimensions": ["-1", "-1", "1"]}}
    written.write_text(json.dumps(info))
    with pytest.raises(UserError, match="no feature with images"):
        read(tmp_path, "floats")


@pytest.mark.parametrize("place", ["features.json", "dataset_info.json", "a nested feature"])
def test_a_set_that_names_a_class_of_another_module_imports_nothing(
    tmp_path, features, monkeypatch, place
):
    make(tmp_path, "animals", {"train": [example(i) for i in range(4)]}, features)
    folder = tmp_path / "animals" / "1.0.0"
    (tmp_path / "attack.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    written = folder / ("dataset_info.json" if place == "dataset_info.json" else "features.json")
    info = json.loads(written.read_text())
    if place == "a nested feature":  # JSON in JSON, as older versions of TFDS wrote
        inner = {"image": {"type": "attack.Feature", "content": {}}}
        info = {"pythonClassName": info["pythonClassName"]}
        info["jsonFeature"] = {"json": json.dumps(inner)}
    elif place == "features.json":
        info["pythonClassName"] = "attack.Feature"
    else:
        info["features"] = {"pythonClassName": "attack.Feature", "text": {}}
    written.write_text(json.dumps(info))
    with pytest.raises(UserError, match=r"tfds:animals.*attack\.Feature.*nothing was imported"):
        read(tmp_path, "animals")
    assert not (tmp_path / "executed").exists()


def test_a_set_that_claims_more_examples_than_its_files_hold_is_refused(tmp_path, features):
    make(tmp_path, "animals", {"train": [example(i) for i in range(4)]}, features)
    written = tmp_path / "animals" / "1.0.0" / "dataset_info.json"
    written.write_text(written.read_text().replace('"4"', '"9999999999"'))
    with pytest.raises(UserError, match="tfds:animals is damaged"):
        read(tmp_path, "animals")


@pytest.fixture
def versions(tmp_path, features):
    for version, n in (("1.9.0", 4), ("1.10.0", 6)):
        examples = {"train": [example(i) for i in range(n)]}
        make(tmp_path, "animals", examples, features, version=version)
    return tmp_path


def test_the_newest_version_is_used_unless_one_is_named(versions):
    assert str(catalog.find_local("tfds:animals", str(versions))) == "tfds:animals:1.10.0"
    assert len(read(versions, "animals").items) == 6
    assert len(read(versions, "animals:1.9.0").items) == 4
    with pytest.raises(UserError, match=r"has tfds:animals:1.9.0, tfds:animals:1.10.0 but no"):
        read(versions, "animals:2.0.0")


def test_a_run_keeps_the_version_it_began_with(versions):
    config = small_config(data__path="tfds:animals", data__tfds_dir=str(versions))
    resolved = resolve_set(config, {})
    assert resolved.data.path == "tfds:animals:1.10.0"
    began = {"data.path": "tfds:animals:1.9.0", "data.tfds_dir": "/there"}
    assert resolve_set(config, began).data.path == "tfds:animals:1.9.0"
    assert resolve_set(config, began).data.tfds_dir == str(versions)
    without_folder = small_config(data__path="tfds:animals")
    assert resolve_set(without_folder, began).data.tfds_dir == "/there"
    assert resolve_set(resolved, config_lib.flat(resolved)) == resolved
    other = small_config(data__path="tfds:animals:1.9.0", data__tfds_dir=str(versions))
    assert resolve_set(other, config_lib.flat(resolved)).data.path == "tfds:animals:1.9.0"
    sized = small_config(data__path="tfds:sized", data__tfds_dir=str(versions))
    began = {"data.path": "tfds:sized/big:1.0.0", "data.tfds_dir": ""}
    assert resolve_set(sized, began).data.path == "tfds:sized/big:1.0.0"
    folder = small_config(data__path=str(versions))
    assert resolve_set(folder, {}) is folder


def test_the_default_folder_of_sets_is_recorded(versions, monkeypatch):
    monkeypatch.setattr(catalog.library().core.constants, "DATA_DIR", str(versions))
    resolved = resolve_set(small_config(data__path="tfds:animals"), {})
    assert resolved.data.tfds_dir == str(versions)


def test_a_configuration_must_be_named_if_there_are_several(versions):
    for config, version in (("big", "1.9.0"), ("small", "1.10.0")):
        target = versions / "sized" / config / "1.0.0"
        target.parent.mkdir(parents=True)
        (versions / "animals" / version).rename(target)
        info = json.loads((target / "dataset_info.json").read_text())
        info |= {"name": "sized", "configName": config, "version": "1.0.0"}
        (target / "dataset_info.json").write_text(json.dumps(info))
        for shard in target.glob("*array_record*"):
            shard.rename(target / shard.name.replace("animals", "sized"))
    with pytest.raises(UserError, match=r"name one of tfds:sized/big, tfds:sized/small"):
        read(versions, "sized")
    assert str(catalog.find_local("tfds:sized/small", str(versions))) == "tfds:sized/small:1.0.0"
    assert len(read(versions, "sized/small").items) == 6
    (versions / "sized" / ".config").mkdir()
    (versions / "sized" / ".config" / "metadata.json").write_text('{"default_config_name": "big"}')
    assert len(read(versions, "sized").items) == 4


def test_a_set_to_be_downloaded_is_resolved_without_downloading(tmp_path, monkeypatch):
    made = []

    def download(wanted, root):
        made.append(wanted)
        return catalog.Name("mnist", "", "3.0.1")

    monkeypatch.setattr(catalog, "_download", download)
    config = small_config(data__path="tfds:mnist", data__tfds_dir=str(versions))
    resolved = resolve_set(config, {})
    assert resolved == config
    assert not made
    assert download_set(resolved).data.path == "tfds:mnist:3.0.1"
    assert made == [("mnist", "", "")]
    folder = small_config(data__path="voices")
    assert download_set(folder) is folder


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [("model.init", "missing.safetensors", "missing.safetensors"), ("workdir", "", "holds files")],
)
def test_other_mistakes_are_noticed_before_a_download(
    tmp_path, capsys, monkeypatch, key, value, words
):
    def download(wanted, root):
        raise AssertionError("downloaded too early")

    monkeypatch.setattr(catalog, "_download", download)
    arguments = command("resnet", "tfds:mnist", tmp_path / "run", data__tfds_dir=tmp_path / "sets")
    arguments = [a for a in arguments if "model.width" not in a]
    if key == "workdir":
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "thesis.txt").write_text("x")
    else:
        arguments.append(f"--config.{key}={value}")
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("animal", ["'animal' is neither a set in", "did you mean tfds:animals?"]),
        ("animals/1.9.0", ["did you mean tfds:animals:1.9.0?"]),
        ("MNIST", ["did you mean tfds:mnist?"]),
        ("mnst", ["did you mean tfds:mnist?"]),
        ("qqqqqqqq", ["nor one that TFDS can download; check data.tfds_dir"]),
        ("mnist/small", ["mnist has no configuration 'small'"]),
        ("cifar10_corrupted/fog_9", ["has no configuration 'fog_9'", "e.g. 'fog_"]),
    ],
)
def test_the_error_for_an_unknown_name_gives_the_nearest(versions, name, words):
    with pytest.raises(UserError) as caught:
        read(versions, name)
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_failed_download_lists_files_and_their_folder(tmp_path):
    with pytest.raises(UserError) as caught:
        read(tmp_path, "mnist")
    manual = tmp_path / "downloads" / "manual"
    assert "storage.googleapis.com cannot be reached" in str(caught.value)
    assert str(manual) in str(caught.value)
    assert len(caught.value.details) == 4
    assert all(str(manual / "t") in line for line in caught.value.details)
    # Files put there by hand are used, and a wrong one is noticed.
    manual.mkdir(parents=True)
    for line in caught.value.details:
        Path(line.partition(" → ")[2]).write_bytes(b"not this one")
    with pytest.raises(UserError, match="wrong checksum"):
        read(tmp_path, "mnist")


needs_no_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None, reason="tests messages without TensorFlow"
)


@needs_no_tensorflow
@pytest.mark.parametrize("change", ["audio", "tfrecord", "made_by_tfds"])
def test_sets_that_need_tensorflow_say_so(versions, change, capfd):
    folder, name = versions / "animals" / "1.10.0", "animals"
    if change == "audio":
        info = json.loads((folder / "features.json").read_text())
        python = "tensorflow_datasets.core.features.audio_feature.Audio"
        info["featuresDict"]["features"]["image"] = {
            "pythonClassName": python,
            "audio": {
                "dtype": "int64",
                "shape": {"dimensions": ["-1"]},
                "sampleRate": "8000",
                "encoding": "NONE",
            },
        }
        (folder / "features.json").write_text(json.dumps(info))
    elif change == "tfrecord":
        info = (folder / "dataset_info.json").read_text()
        (folder / "dataset_info.json").write_text(info.replace("array_record", "tfrecord"))
        for shard in folder.glob("*array_record*"):
            shard.rename(folder / shard.name.replace("array_record", "tfrecord"))
    else:
        name = "spoken_digit"
    with pytest.raises(UserError, match=r"needs tensorflow: pip install '\.\[tfds-tf\]'"):
        read(versions, name)
    assert capfd.readouterr().err == ""


def shard(root: Path) -> Path:
    (file,) = (root / "animals" / "1.10.0").glob("*array_record*")
    return file


def test_a_damaged_record_is_listed_and_the_others_are_read(versions):
    content = bytearray(shard(versions).read_bytes())
    content[200] ^= 0xFF
    shard(versions).write_bytes(content)
    manifest = read(versions, "animals")
    (bad,) = manifest.bad
    assert re.match(r"train, example \d", bad.path)
    assert bad.reason.startswith("damaged (")
    assert len(manifest.items) == 5
    config = small_config(data__path="tfds:animals", data__tfds_dir=str(versions))
    with pytest.raises(UserError, match="1 example in tfds:animals cannot be used") as caught:
        load(config, CACHE)
    assert len(caught.value.details) == 1


def test_a_record_damaged_after_the_scan_is_one_bad_file(versions):
    manifest = read(versions, "animals")
    content = bytearray(shard(versions).read_bytes())
    content[200] ^= 0xFF
    shard(versions).write_bytes(content)
    results = []
    for item in manifest.items:
        try:
            results.append(len(manifest.read(item)))
        except BadFileError as error:
            results.append(str(error))
    assert sum(isinstance(r, str) and r.startswith("damaged (") for r in results) == 1


def test_a_truncated_file_gives_a_few_lines(tmp_path, features):
    make(tmp_path, "animals", {"train": [example(i) for i in range(30)]}, features)
    (file,) = tmp_path.rglob("*array_record*")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 3])
    bad = read(tmp_path, "animals").bad
    assert len(bad) == 11
    assert (bad[-1].path, bad[-1].reason) == ("and 20 more examples", "damaged too")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda root: shard(root).unlink(), "lacks 1 of its files, e.g. .*array_record"),
        (lambda root: (shard(root).parent / "features.json").write_text("{"), "cannot be used"),
        (lambda root: (shard(root).parent / "features.json").unlink(), "cannot be used"),
        (lambda root: (shard(root).parent / "dataset_info.json").write_text("{}"), "cannot be us"),
        (
            lambda root: (shard(root).parent / "label.labels.txt").write_text("one\n"),
            "examples in tfds:animals:1.10.0 cannot be used",
        ),
        (lambda root: shard(root).write_bytes(b"short"), "is damaged"),
    ],
)
def test_a_damaged_set_gives_one_line(versions, damage, words, capsys):
    damage(versions)
    assert main(command("cnn", "tfds:animals", versions / "run", data__tfds_dir=versions)) == 2
    *listed, line = capsys.readouterr().err.splitlines()
    assert re.search(words, line)
    assert all(re.match(r"train, example \d: damaged", each) for each in listed)


@pytest.mark.parametrize(
    ("dtype", "samples", "subtype"),
    [
        (np.int16, [-(2**15), 2**15 - 1], "PCM_16"),
        (np.int64, [-(2**15), 2**15 - 1], "PCM_16"),
        (np.int64, [-(2**15) - 1, 0], "PCM_32"),
        (np.int64, [0, 2**15], "PCM_32"),
    ],
)
def test_decoded_recordings_of_16_bits_are_stored_with_16_bits(dtype, samples, subtype):
    file = io.BytesIO(examples._as_au_file(np.array(samples, dtype), 8000))
    assert soundfile.info(file).subtype == subtype
    file.seek(0)
    kind = "int16" if subtype == "PCM_16" else "int32"
    assert soundfile.read(file, dtype=kind)[0].tolist() == samples
