"""Folders and CSVs built as TFDS sets give the same data and the same trained weights."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import CACHE, WINDOW, assert_same, command, once, small_config, trained

from meljax import __main__
from meljax.commands import build_tfds, evaluate, train
from meljax.config import DataConfig
from meljax.data.dataset import load
from meljax.data.sources import read_manifest
from meljax.data.tfds import build as tfds_build
from meljax.data.tfds import examples
from meljax.main import main
from meljax.runs.load_model import load_model
from meljax.util.errors import BadFileError


def build(source, out, name="voices", *flags) -> int:
    return build_tfds.main([str(source), "--name", name, "--tfds_dir", str(out), *map(str, flags)])


@pytest.fixture(scope="session")
def sets(recordings, image_folder) -> Path:
    """The test folders as sets; not to be changed."""

    def make(root: Path) -> None:
        assert build(recordings, root, "recordings") == 0
        assert build(image_folder, root, "image_folder") == 0

    return once("sets", make)


def read(path, **keys):
    return load(small_config(data__path=str(path), **keys), CACHE)


@pytest.mark.parametrize("name", ["recordings", "image_folder"])
def test_a_set_has_the_data_of_its_folder(request, sets, name):
    folder = request.getfixturevalue(name)
    assert_same(read(folder), read(f"tfds:{name}", data__tfds_dir=str(sets)))


def test_given_splits_and_odd_names_are_kept(recordings, tmp_path):
    for split, numbers in (("train", range(8)), ("val", range(8, 11)), ("test", range(11, 14))):
        for voice in ("voice0", "voice 1é"):
            (tmp_path / "data" / split / voice).mkdir(parents=True)
            for i in numbers:
                source = recordings / voice.replace(" 1é", "1") / f"{i:02}.wav"
                shutil.copy(source, tmp_path / "data" / split / voice / f"{i:02} ü.wav")
    strange = tmp_path / "data" / "train" / "voice0" / "no\udcff.wav"
    shutil.copy(recordings / "voice0" / "13.wav", strange)
    assert build(tmp_path / "data", tmp_path) == 0
    of_set = read("tfds:voices", data__tfds_dir=str(tmp_path))
    assert_same(read(tmp_path / "data"), of_set)
    assert [len(of_set.indices(split)) for split in ("train", "val", "test")] == [17, 6, 6]


def test_a_csv_keeps_its_labels_and_groups(recordings, tmp_path):
    rows = [
        f"{recordings}/voice{c}/{i:02}.wav,word{i % 2},person{c}{i // 4}"
        for c in range(3)
        for i in range(12)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["path,word,who", *rows]))
    columns = ["--label", "word", "--group", "who"]
    assert build(tmp_path / "table.csv", tmp_path, "voices", *columns) == 0
    table = read(tmp_path / "table.csv", data__label="word", data__group="who")
    of_set = read("tfds:voices", data__tfds_dir=str(tmp_path))
    assert_same(table, of_set)
    assert {item.group for item in of_set.items} == {f"person{c}{i}" for c in "012" for i in "012"}


def run_on_a_set(folder) -> Path:
    """Returns a finished run on a set made of `recordings`, with the settings of `audio_run`."""
    keys = {"train__epochs": 3, "data__window": WINDOW, "data__tfds_dir": folder}
    return trained("cnn", "tfds:recordings", "on_a_set", **keys)


def test_training_on_a_set_equals_training_on_its_folder(audio_run, sets, tmp_path, capsys):
    run = run_on_a_set(sets)
    assert (run / "split.csv").read_bytes() == (audio_run / "split.csv").read_bytes()
    assert (run / "predictions.csv").read_bytes() == (audio_run / "predictions.csv").read_bytes()
    rows = [
        [json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()]
        for each in (run, audio_run)
    ]
    timings = ("seconds", "images_per_second")
    ours, theirs = [[{k: r[k] for k in r if k not in timings} for r in each] for each in rows]
    assert ours == theirs
    weights = [jax.tree.leaves(load_model(each).model.variables) for each in (run, audio_run)]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)
    # The run records the set and is scored on it.
    recorded = json.loads((run / "config.json").read_text())["config"]
    assert recorded["data.path"] == "tfds:recordings:1.0.0"
    assert "tfds:recordings:1.0.0" in (run / "report.html").read_text()
    capsys.readouterr()
    scores = []
    for each in (run, audio_run):
        assert evaluate.main([str(each), "--json", str(tmp_path / "scores.json")]) == 0
        scores.append(json.loads((tmp_path / "scores.json").read_text()))
    assert scores[0]["accuracy"] == scores[1]["accuracy"]
    assert [i["probability"] for i in scores[0]["items"]] == [
        i["probability"] for i in scores[1]["items"]
    ]


def test_a_run_resumes_with_its_version_and_is_scored_where_its_set_is(
    sets, recordings, tmp_path, capsys
):
    run, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(run_on_a_set(sets), run)
    shutil.copytree(sets, moved)
    shutil.copytree(recordings, tmp_path / "more")
    shutil.copy(recordings / "voice0" / "00.wav", tmp_path / "more" / "voice0" / "99.wav")
    assert build(tmp_path / "more", moved, "recordings", "--version", "1.1.0") == 0
    capsys.readouterr()
    keys = {"train__epochs": 4, "data__window": WINDOW, "data__tfds_dir": moved}
    assert main(command("cnn", "tfds:recordings", run, **keys)) == 0
    assert "resuming after epoch 3" in capsys.readouterr().out
    recorded = json.loads((run / "config.json").read_text())["config"]
    assert recorded["data.path"] == "tfds:recordings:1.0.0"
    assert recorded["data.tfds_dir"] == str(moved)
    assert evaluate.main([str(run), "--tfds_dir", str(moved)]) == 0
    assert "tfds:recordings:1.0.0, val" in capsys.readouterr().out
    assert evaluate.main([str(run), "tfds:recordings", "--tfds_dir", str(moved)]) == 0
    captured = capsys.readouterr()
    assert "43 files of tfds:recordings:1.1.0" in captured.out
    assert "the model was trained on" in captured.out
    assert evaluate.main([str(run), "tfds:recording", "--tfds_dir", str(moved)]) == 2
    assert "'recording' is neither a set in" in capsys.readouterr().err
    rows = (run / "split.csv").read_text()
    val = next(row for row in rows.splitlines() if ",val," in row and row.startswith("voice0/"))
    val = val.partition(",")[0]
    (run / "split.csv").write_text(rows.replace(val, "voice0/none.wav"))
    capsys.readouterr()
    assert evaluate.main([str(run), "--tfds_dir", str(moved)]) == 1
    assert "voice0/none.wav: no longer there, or damaged; skipped" in capsys.readouterr().err
    shutil.rmtree(moved / "recordings")
    assert evaluate.main([str(run), "--tfds_dir", str(moved)]) == 2
    assert "'recordings' is neither a set in" in capsys.readouterr().err


PLAIN = """
import hashlib, json, sys
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory(sys.argv[1])
found = {}
skip = {key: tfds.decode.SkipDecoding() for key in builder.info.features if key == "image"}
for split, source in builder.as_data_source(decoders=skip).items():
    for i in range(len(source)):
        example = source[i]
        content = example["audio" if "audio" in example else "image"]
        digest = hashlib.sha256(content).hexdigest()
        assert digest == example["sha256"].decode()
        label = builder.info.features["label"].int2str(example["label"])
        found[example["path"].decode()] = [split, label, digest]
images = builder.as_data_source("train")[0].get("image")
assert not {"meljax", "tensorflow", "jax"} & set(sys.modules)
print(json.dumps([found, builder.info.description, None if images is None else images.shape]))
"""


@pytest.mark.parametrize("name", ["recordings", "image_folder"])
def test_a_set_can_be_read_without_meljax(request, sets, name, tmp_path):
    folder = request.getfixturevalue(name)
    command = [sys.executable, "-c", PLAIN, str(sets / name / "1.0.0")]
    done = subprocess.run(command, capture_output=True, check=True, text=True, cwd=tmp_path)
    found, description, shape = json.loads(done.stdout.splitlines()[-1])
    voices = read(folder)
    expected = {
        item.path: ["train", item.label, digest]
        for item, digest in zip(voices.items, voices.digests, strict=True)
    }
    assert found == expected
    assert description == f"42 {'recordings' if name == 'recordings' else 'images'} of 3 classes."
    assert shape is None if name == "recordings" else shape[::2] == [20, 3]


def stamps(root: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in sorted(root.rglob("*")) if file.is_file()}


def test_a_set_is_built_again_only_if_something_changed(recordings, tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(recordings, source)
    assert build(source, out) == 0
    made = stamps(out)
    assert len(made) == 5
    for _ in range(2):
        assert build(source, out) == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith("unchanged: ")
        assert stamps(out) == made

    def rebuilt(*flags) -> bool:
        before = stamps(out)
        assert build(source, out, "voices", *flags) == 0
        after = stamps(out)
        assert after.keys() == before.keys()
        assert all(after[f] != before[f] for f in after) or after == before
        return after != before

    (source / "voice0" / "00.wav").rename(source / "voice0" / "zz.wav")
    assert rebuilt()
    shutil.copy(source / "voice0" / "01.wav", source / "voice1" / "01.wav")
    assert rebuilt()
    assert rebuilt("--description", "what it is")
    assert not rebuilt("--description", "what it is")
    assert "what it is" in next(out.rglob("dataset_info.json")).read_text()
    # A damaged set is replaced.
    (shard,) = out.rglob("*array_record*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    assert rebuilt("--description", "what it is")
    assert not read_manifest(DataConfig(path="tfds:voices", tfds_dir=str(out))).bad


def test_another_label_group_or_split_is_a_change(recordings, tmp_path, capsys):
    table = tmp_path / "table.csv"

    def outcome(last: str) -> str:
        files = [(f"{recordings}/voice{c}/{i:02}.wav", f"v{c}") for c in range(2) for i in range(6)]
        rows = [f"{path},{label},g{n},train" for n, (path, label) in enumerate(files)]
        rows += [f"{recordings}/voice0/07.wav,v0,h,val", f"{recordings}/voice1/07.wav,v1,i,val"]
        rows.append(f"{recordings}/voice1/08.wav,{last}")
        table.write_text("\n".join(["path,label,group,split", *rows]))
        assert build(table, tmp_path / "out") == 0
        lines = capsys.readouterr().out.splitlines()
        return "unchanged" if lines[-1].startswith("unchanged") else "built"

    assert outcome("v1,j,train") == "built"
    assert outcome("v1,j,train") == "unchanged"
    for last in ("v0,j,train", "v0,k,train", "v0,k,val", "v0,k,test"):
        assert outcome(last) == "built", last


def test_missing_files_of_a_csv_stop_the_build(recordings, tmp_path, capsys):
    rows = [f"{recordings}/voice{c}/{i:02}.wav,v{c}" for c in range(2) for i in range(6)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows, "nowhere.wav,v0"]))
    assert build(tmp_path / "table.csv", tmp_path) == 2
    assert capsys.readouterr().err.splitlines()[0] == "nowhere.wav: no such file"


def test_leftovers_of_a_killed_process_are_removed(recordings, tmp_path):
    left = tmp_path / ".meljax-voices" / "made" / "voices" / "incomplete.X_1.0.0"
    left.mkdir(parents=True)
    (left / "x").write_text("x")
    assert build(recordings, tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["voices"]
    assert [path.name for path in (tmp_path / "voices").iterdir()] == ["1.0.0"]


def test_two_versions_are_kept_side_by_side(recordings, tmp_path):
    assert build(recordings, tmp_path) == 0
    assert build(recordings, tmp_path, "voices", "--version", "1.1.0") == 0
    assert sorted(path.name for path in (tmp_path / "voices").iterdir()) == ["1.0.0", "1.1.0"]


def test_bad_files_are_reported_as_in_training(recordings, tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(recordings, source)
    (source / "voice0" / "00.wav").write_bytes(b"")
    (source / "voice1" / "03.wav").write_bytes(
        (recordings / "voice1" / "03.wav").read_bytes()[:900]
    )
    assert build(source, out) == 2
    listed = capsys.readouterr().err.splitlines()
    assert listed[:2] == ["voice0/00.wav: empty file", "voice1/03.wav: truncated"]
    assert listed[2].startswith(f"meljax: 2 files or folders in {source} cannot be used")
    assert "data.on_bad_file=skip" in listed[2]
    assert not out.exists() or not list(out.iterdir())
    assert main(command("cnn", source, tmp_path / "run")) == 2
    assert capsys.readouterr().err.splitlines()[:2] == listed[:2]
    assert build(source, out, "voices", "--on_bad_file", "skip") == 0
    assert "voice0/00.wav: empty file; skipped" in capsys.readouterr().err
    assert_same(
        read(source, data__on_bad_file="skip"), read("tfds:voices", data__tfds_dir=str(out))
    )


@pytest.mark.parametrize(
    ("source", "flags", "words"),
    [
        ("", ["--name", "My-Voices"], "--name must be"),
        ("", ["--name", "mnist"], "TFDS has a set of that name"),
        ("", ["--name", "v", "--version", "1.0"], "--version must be three numbers"),
        ("nowhere", ["--name", "v"], "data.path: '.*nowhere' does not exist"),
        ("", ["--name", "v", "--label", "word"], "data.label='word' names a column"),
        ("voice0", ["--name", "v"], "data.path: '.*voice0' holds"),
    ],
)
def test_an_impossible_build_gives_one_line(recordings, tmp_path, capsys, source, flags, words):
    assert build_tfds.main([str(recordings / source), "--tfds_dir", str(tmp_path), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line), line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a\nb", " a", "a\u2028b", "a\udcff"])
def test_class_names_that_tfds_would_change_are_refused(recordings, tmp_path, capsys, name):
    shutil.copytree(recordings / "voice0", tmp_path / "source" / name)
    shutil.copytree(recordings / "voice1", tmp_path / "source" / "c")
    assert build(tmp_path / "source", tmp_path / "out") == 2
    assert f"the class {name!r} cannot be written to a TFDS set" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_gives_one_line(recordings, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert build(recordings, tmp_path / "file") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_full_disk_gives_one_line(recordings, tmp_path):
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
        "from meljax.commands.build_tfds import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, recordings, "--name", "voices", "--tfds_dir", tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.match(r"meljax: .* cannot be written: .*File too large", line)
    assert not list(tmp_path.iterdir())


def test_sets_of_other_programs_and_the_source_are_not_changed(recordings, tmp_path, capsys):
    theirs = tmp_path / "voices" / "1.0.0"
    theirs.mkdir(parents=True)
    (theirs / "dataset_info.json").write_text("{}")
    assert build(recordings, tmp_path) == 2
    assert "exists and was not built by meljax" in capsys.readouterr().err
    theirs.rename(tmp_path / "moved")
    (tmp_path / "voices" / "big").mkdir()
    (tmp_path / "moved").rename(tmp_path / "voices" / "big" / "1.0.0")
    assert build(recordings, tmp_path) == 2
    assert "has tfds:voices/big:1.0.0 of another program" in capsys.readouterr().err
    shutil.copytree(recordings, tmp_path / "source")
    assert build(tmp_path / "source", tmp_path / "source" / "out") == 2
    assert "whose folders are classes" in capsys.readouterr().err
    folders = {path.name for path in (tmp_path / "source").iterdir() if path.is_dir()}
    assert folders == {"voice0", "voice1", "voice2"}


def test_a_replaced_set_is_named_and_the_hint_is_right(recordings, image_folder, tmp_path, capsys):
    out = tmp_path / "a folder"
    assert build(recordings, out) == 0
    assert build(image_folder, out) == 0
    replacing, made, hint = capsys.readouterr().out.splitlines()[-3:]
    assert replacing.startswith("replacing ")
    assert replacing.count("3 classes, 42 train") == made.count("3 classes, 42 train") == 1
    words = shlex.split(hint)
    settings, _ = train.parse(words[words.index("meljax") + 2 :])
    assert settings.data.path == "tfds:voices:1.0.0"
    assert settings.data.tfds_dir == str(out)


@pytest.fixture
def own(sets, tmp_path) -> Path:
    """A copy of a set, to be damaged."""
    shutil.copytree(sets / "recordings", tmp_path / "recordings")
    return tmp_path / "recordings" / "1.0.0"


def test_a_file_that_changes_during_the_build_stops_it_and_leaves_nothing(
    recordings, tmp_path, capsys, monkeypatch
):
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(recordings, source)
    features = tfds_build._features

    def change_and_return(*arguments):
        (source / "voice1" / "05.wav").write_bytes(b"another")
        return features(*arguments)

    monkeypatch.setattr(tfds_build, "_features", change_and_return)
    assert build(source, out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "voice1/05.wav changed during the build; run the command again" in line
    assert not list(out.iterdir())


def test_renamed_features_are_noticed(own, capsys):
    info = (own / "features.json").read_text()
    (own / "features.json").write_text(info.replace('"sha256"', '"sha"'))
    root = own.parent.parent
    assert main(command("cnn", "tfds:recordings", own / "run", data__tfds_dir=root)) == 2
    assert "tfds:recordings:1.0.0 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("names", ["voice1\nvoice0\nvoice2\n", "voice0\nvoi"])
def test_exchanged_class_names_are_noticed(own, capsys, names):
    """Even if damaged examples may be skipped, because labels would be wrong."""
    (own / "label.labels.txt").write_text(names)
    (shard,) = own.glob("*array_record*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    keys = {"data__tfds_dir": own.parent.parent, "data__on_bad_file": "skip"}
    assert main(command("cnn", "tfds:recordings", own / "run", **keys)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "tfds:recordings:1.0.0" in line


def test_a_missing_example_is_noticed(own, capsys):
    """As if a shard had been replaced by an older one."""
    info = json.loads((own / "metadata.json").read_text())
    info["meljax"]["fingerprint"] = "0" * 64
    (own / "metadata.json").write_text(json.dumps(info))
    root = own.parent.parent
    assert main(command("cnn", "tfds:recordings", own / "run", data__tfds_dir=root)) == 2
    assert "tfds:recordings:1.0.0 is damaged: its examples" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[]"])
def test_damaged_metadata_gives_one_line_and_is_not_overwritten(own, recordings, capsys, content):
    (own / "metadata.json").write_bytes(content)
    root = own.parent.parent
    code = __main__.main(["inspect", "tfds:recordings", f"--tfds_dir={root}", "--sample_rate=8000"])
    assert code == (0 if content == b"[]" else 2)
    if content != b"[]":
        (line,) = capsys.readouterr().err.splitlines()
        assert f"if it is damaged, remove {own}" in line
    assert build(recordings, root, "recordings") == 2
    assert "was not built by meljax" in capsys.readouterr().err
    assert (own / "metadata.json").read_bytes() == content


def test_an_interrupted_build_keeps_the_old_set(own, recordings, image_folder, monkeypatch):
    root = own.parent.parent
    rename, calls = Path.rename, []

    def interrupted(self, target):
        calls.append(self)
        rename(self, target)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    assert build(image_folder, root, "recordings") == 130
    monkeypatch.undo()
    assert_same(read(recordings), read("tfds:recordings", data__tfds_dir=str(root)))
    assert [path.name for path in root.iterdir()] == ["recordings"]
    # As after a kill between the two renames.
    (root / ".meljax-recordings").mkdir()
    own.rename(root / ".meljax-recordings" / "old")
    assert build(recordings, root, "recordings", "--version", "2.0.0") == 0
    assert_same(read(recordings), read("tfds:recordings:2.0.0", data__tfds_dir=str(root)))


def test_too_few_usable_files_are_not_written(recordings, tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    for voice in ("voice0", "voice1"):
        shutil.copytree(recordings / voice, source / voice)
    assert build(source, out) == 0
    before = stamps(out)
    for file in (source / "voice1").iterdir():
        file.write_bytes(b"junk")
    assert build(source, out, "voices", "--on_bad_file", "skip") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"after skipping unusable files, {source} has fewer than two classes" in error
    assert main(command("cnn", source, tmp_path / "run", data__on_bad_file="skip")) == 2
    assert capsys.readouterr().err.splitlines()[-1] == error
    assert stamps(out) == before


def test_changed_content_is_noticed(own):
    """The file format does not detect this damage if another program rewrote the set."""
    manifest = read_manifest(DataConfig(path="tfds:recordings", tfds_dir=str(own.parent.parent)))
    example = examples._example

    def exchanged(table, index):
        return dict(example(table, index)) | {"audio": b"RIFF"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(examples, "_example", exchanged)
        with pytest.raises(BadFileError, match="its checksum differs"):
            manifest.read(manifest.items[0])


@pytest.mark.parametrize("name", ["voices24", "voices24-mel"])
def test_real_voices_are_the_same_in_a_set(shared, tmp_path, name):
    for speaker in ("spk01", "spk02"):
        shutil.copytree(shared / name / speaker, tmp_path / "source" / speaker)
    assert build(tmp_path / "source", tmp_path) == 0
    of_set = read("tfds:voices", data__tfds_dir=str(tmp_path))
    assert_same(read(tmp_path / "source"), of_set)
    assert len(of_set.items) > 150
