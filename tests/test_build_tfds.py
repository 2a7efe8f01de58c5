"""A folder as a TFDS set: anybody can read it, and training on it is training on the folder."""

import json
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import CACHE, ROOT, assert_same, command, once, small_config, trained

from meljax import evaluate, saved
from meljax.data import load
from meljax.errors import BadFileError
from meljax.main import main

SCRIPT = runpy.run_path(str(ROOT / "scripts" / "build_tfds.py"))


def build(source, out, name="voices", *flags) -> int:
    return SCRIPT["main"]([str(source), "--name", name, "--out", str(out), *map(str, flags)])


@pytest.fixture(scope="session")
def sets(sounds, pictures) -> Path:
    """The folders of the tests as sets; not to be changed."""

    def make(root: Path) -> None:
        assert build(sounds, root, "sounds") == 0
        assert build(pictures, root, "pictures") == 0

    return once("sets", make)


def read(path, **keys):
    return load.load(small_config(data__path=str(path), **keys), CACHE)


@pytest.mark.parametrize("name", ["sounds", "pictures"])
def test_a_set_reads_as_its_folder(request, sets, name):
    folder = request.getfixturevalue(name)
    assert_same(read(folder), read(f"tfds:{name}", data__tfds_dir=str(sets)))


def test_given_splits_and_odd_names_come_through(sounds, tmp_path):
    for side, numbers in (("train", range(8)), ("val", range(8, 11)), ("test", range(11, 14))):
        for voice in ("voice0", "voice 1é"):
            (tmp_path / "data" / side / voice).mkdir(parents=True)
            for i in numbers:
                source = sounds / voice.replace(" 1é", "1") / f"{i:02}.wav"
                shutil.copy(source, tmp_path / "data" / side / voice / f"{i:02} ü.wav")
    strange = tmp_path / "data" / "train" / "voice0" / "no\udcff.wav"
    shutil.copy(sounds / "voice0" / "13.wav", strange)
    assert build(tmp_path / "data", tmp_path) == 0
    of_set = read("tfds:voices", data__tfds_dir=str(tmp_path))
    assert_same(read(tmp_path / "data"), of_set)
    assert [len(of_set.indices(side)) for side in ("train", "val", "test")] == [17, 6, 6]


def test_a_table_keeps_its_labels_and_groups(sounds, tmp_path):
    rows = [
        f"{sounds}/voice{c}/{i:02}.wav,word{i % 2},person{c}{i // 4}"
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


def test_training_on_a_set_is_training_on_its_folder(sound_run, sets, tmp_path, capsys):
    run = trained("cnn", "tfds:sounds", "on_a_set", train__epochs=3, data__tfds_dir=sets)
    assert (run / "split.csv").read_bytes() == (sound_run / "split.csv").read_bytes()
    assert (run / "predictions.csv").read_bytes() == (sound_run / "predictions.csv").read_bytes()
    rows = [
        [json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()]
        for each in (run, sound_run)
    ]
    timings = ("seconds", "images_per_second")
    ours, theirs = [[{k: r[k] for k in r if k not in timings} for r in each] for each in rows]
    assert ours == theirs
    weights = [jax.tree.leaves(saved.load(each).variables) for each in (run, sound_run)]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)
    # What was trained says what it was trained on, and is scored on it.
    assert (
        json.loads((run / "config.json").read_text())["config"]["data.path"] == "tfds:sounds:1.0.0"
    )
    assert "tfds:sounds:1.0.0" in (run / "report.html").read_text()
    capsys.readouterr()
    scores = []
    for each in (run, sound_run):
        assert evaluate.main([str(each), "--json", str(tmp_path / "scores.json")]) == 0
        scores.append(json.loads((tmp_path / "scores.json").read_text()))
    assert scores[0]["accuracy"] == scores[1]["accuracy"]
    assert [i["probability"] for i in scores[0]["items"]] == [
        i["probability"] for i in scores[1]["items"]
    ]


def test_a_run_goes_on_with_its_version_and_is_scored_where_its_set_lies(
    sets, sounds, tmp_path, capsys
):
    run, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(
        trained("cnn", "tfds:sounds", "on_a_set", train__epochs=3, data__tfds_dir=sets), run
    )
    shutil.copytree(sets, moved)
    shutil.copytree(sounds, tmp_path / "more")
    shutil.copy(sounds / "voice0" / "00.wav", tmp_path / "more" / "voice0" / "99.wav")
    assert build(tmp_path / "more", moved, "sounds", "--version", "1.1.0") == 0
    capsys.readouterr()
    assert main(command("cnn", "tfds:sounds", run, train__epochs=4, data__tfds_dir=moved)) == 0
    assert "going on after epoch 3" in capsys.readouterr().out
    recorded = json.loads((run / "config.json").read_text())["config"]
    assert recorded["data.path"] == "tfds:sounds:1.0.0"
    assert recorded["data.tfds_dir"] == str(moved)
    assert evaluate.main([str(run), "--tfds-dir", str(moved)]) == 0
    assert "tfds:sounds:1.0.0, val" in capsys.readouterr().out
    assert evaluate.main([str(run), "--data", "tfds:sounds", "--tfds-dir", str(moved)]) == 0
    captured = capsys.readouterr()
    assert "43 files of tfds:sounds:1.1.0" in captured.out
    assert "byte-identical to some that the model was trained on" in captured.out
    assert evaluate.main([str(run), "--data", "tfds:sound", "--tfds-dir", str(moved)]) == 2
    assert "--data: no set 'sound' lies in" in capsys.readouterr().err
    rows = (run / "split.csv").read_text()
    val = next(row for row in rows.splitlines() if ",val," in row and row.startswith("voice0/"))
    val = val.partition(",")[0]
    (run / "split.csv").write_text(rows.replace(val, "voice0/none.wav"))
    capsys.readouterr()
    assert evaluate.main([str(run), "--tfds-dir", str(moved)]) == 1
    assert "voice0/none.wav: no longer there, or damaged; left out" in capsys.readouterr().err
    shutil.rmtree(moved / "sounds")
    assert evaluate.main([str(run), "--tfds-dir", str(moved)]) == 2
    assert "no set 'sounds' lies in" in capsys.readouterr().err


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
pictures = builder.as_data_source("train")[0].get("image")
assert not {"meljax", "tensorflow", "jax"} & set(sys.modules)
print(json.dumps([found, builder.info.description, None if pictures is None else pictures.shape]))
"""


@pytest.mark.parametrize("name", ["sounds", "pictures"])
def test_a_process_that_never_saw_meljax_reads_it(request, sets, name, tmp_path):
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
    assert description == f"42 {'recordings' if name == 'sounds' else 'pictures'} of 3 classes."
    assert shape is None if name == "sounds" else shape[::2] == [20, 3]


def stamps(root: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in sorted(root.rglob("*")) if file.is_file()}


def test_a_set_is_made_anew_only_if_something_changed(sounds, tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(sounds, source)
    assert build(source, out) == 0
    made = stamps(out)
    assert len(made) == 5
    for _ in range(2):
        assert build(source, out) == 0
        assert capsys.readouterr().out.splitlines()[-1].startswith("unchanged: ")
        assert stamps(out) == made

    def remade(*flags) -> bool:
        before = stamps(out)
        assert build(source, out, "voices", *flags) == 0
        after = stamps(out)
        assert after.keys() == before.keys()
        assert all(after[f] != before[f] for f in after) or after == before
        return after != before

    (source / "voice0" / "00.wav").rename(source / "voice0" / "zz.wav")
    assert remade()
    shutil.copy(source / "voice0" / "01.wav", source / "voice1" / "01.wav")
    assert remade()
    assert remade("--description", "what it is")
    assert not remade("--description", "what it is")
    assert "what it is" in next(out.rglob("dataset_info.json")).read_text()
    # What was damaged is mended.
    (shard,) = out.rglob("*array_record*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    assert remade("--description", "what it is")
    assert not load.find("tfds:voices", str(out), "label", "group").bad


def test_another_label_group_or_split_is_a_change(sounds, tmp_path, capsys):
    table = tmp_path / "table.csv"

    def outcome(last: str) -> str:
        files = [(f"{sounds}/voice{c}/{i:02}.wav", f"v{c}") for c in range(2) for i in range(6)]
        rows = [f"{path},{label},g{n},train" for n, (path, label) in enumerate(files)]
        rows += [f"{sounds}/voice0/07.wav,v0,h,val", f"{sounds}/voice1/07.wav,v1,i,val"]
        rows.append(f"{sounds}/voice1/08.wav,{last}")
        table.write_text("\n".join(["path,label,group,split", *rows]))
        assert build(table, tmp_path / "out") == 0
        lines = capsys.readouterr().out.splitlines()
        return "unchanged" if lines[-1].startswith("unchanged") else "made"

    assert outcome("v1,j,train") == "made"
    assert outcome("v1,j,train") == "unchanged"
    for last in ("v0,j,train", "v0,k,train", "v0,k,val", "v0,k,test"):
        assert outcome(last) == "made", last


def test_files_that_a_table_promises_and_lacks_stop_it(sounds, tmp_path, capsys):
    rows = [f"{sounds}/voice{c}/{i:02}.wav,v{c}" for c in range(2) for i in range(6)]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *rows, "nowhere.wav,v0"]))
    assert build(tmp_path / "table.csv", tmp_path) == 2
    assert capsys.readouterr().err.splitlines()[0] == "nowhere.wav: no such file"


def test_what_a_killed_process_left_is_no_hindrance(sounds, tmp_path):
    left = tmp_path / ".meljax-voices" / "made" / "voices" / "incomplete.X_1.0.0"
    left.mkdir(parents=True)
    (left / "x").write_text("x")
    assert build(sounds, tmp_path) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["voices"]
    assert [path.name for path in (tmp_path / "voices").iterdir()] == ["1.0.0"]


def test_two_versions_lie_beside_each_other(sounds, tmp_path):
    assert build(sounds, tmp_path) == 0
    assert build(sounds, tmp_path, "voices", "--version", "1.1.0") == 0
    assert sorted(path.name for path in (tmp_path / "voices").iterdir()) == ["1.0.0", "1.1.0"]


def test_bad_files_are_reported_as_in_training(sounds, tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(sounds, source)
    (source / "voice0" / "00.wav").write_bytes(b"")
    (source / "voice1" / "03.wav").write_bytes((sounds / "voice1" / "03.wav").read_bytes()[:900])
    assert build(source, out) == 2
    listed = capsys.readouterr().err.splitlines()
    assert listed[:2] == ["voice0/00.wav: empty file", "voice1/03.wav: truncated"]
    assert listed[2].startswith(f"meljax: 2 files or folders in {source} cannot be used")
    assert listed[2].endswith("--on-bad-file=skip")
    assert not out.exists() or not list(out.iterdir())
    assert main(command("cnn", source, tmp_path / "run")) == 2
    assert capsys.readouterr().err.splitlines()[:2] == listed[:2]
    assert build(source, out, "voices", "--on-bad-file", "skip") == 0
    assert "voice0/00.wav: empty file; left out" in capsys.readouterr().err
    assert_same(
        read(source, data__on_bad_file="skip"), read("tfds:voices", data__tfds_dir=str(out))
    )


@pytest.mark.parametrize(
    ("source", "flags", "words"),
    [
        ("", ["--name", "My-Voices"], "--name must be"),
        ("", ["--name", "mnist"], "TFDS itself has a set of that name"),
        ("", ["--name", "v", "--version", "1.0"], "--version must be three numbers"),
        ("nowhere", ["--name", "v"], "SOURCE: '.*nowhere' does not exist"),
        ("", ["--name", "v", "--label", "word"], "--label='word' names a column"),
        ("voice0", ["--name", "v"], "SOURCE: '.*voice0' holds"),
    ],
)
def test_what_cannot_be_made_is_one_line(sounds, tmp_path, capsys, source, flags, words):
    assert SCRIPT["main"]([str(sounds / source), "--out", str(tmp_path), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words, line), line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a\nb", " a", "a\u2028b", "a\udcff"])
def test_class_names_that_tfds_would_change_are_refused(sounds, tmp_path, capsys, name):
    shutil.copytree(sounds / "voice0", tmp_path / "source" / name)
    shutil.copytree(sounds / "voice1", tmp_path / "source" / "c")
    assert build(tmp_path / "source", tmp_path / "out") == 2
    assert f"the class {name!r} cannot be written to a TFDS set" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_one_line(sounds, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert build(sounds, tmp_path / "file") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_full_disk_is_one_line(sounds, tmp_path):
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096));"
    )
    limited += "runpy.run_path(sys.argv[0], run_name='__main__')"
    script = str(ROOT / "scripts" / "build_tfds.py")
    code = f"import sys; sys.argv = sys.argv[1:]; {limited}"
    command = [sys.executable, "-c", code, script, sounds, "--name", "voices", "--out", tmp_path]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert re.match(r"meljax: .* cannot be written: .*File too large", line)
    assert not list(tmp_path.iterdir())


def test_sets_of_others_and_the_source_are_left_alone(sounds, tmp_path, capsys):
    theirs = tmp_path / "voices" / "1.0.0"
    theirs.mkdir(parents=True)
    (theirs / "dataset_info.json").write_text("{}")
    assert build(sounds, tmp_path) == 2
    assert "is there, and not as meljax made it" in capsys.readouterr().err
    theirs.rename(tmp_path / "moved")
    (tmp_path / "voices" / "big").mkdir()
    (tmp_path / "moved").rename(tmp_path / "voices" / "big" / "1.0.0")
    assert build(sounds, tmp_path) == 2
    assert "holds tfds:voices/big:1.0.0, of another program" in capsys.readouterr().err
    shutil.copytree(sounds, tmp_path / "source")
    assert build(tmp_path / "source", tmp_path / "source" / "out") == 2
    assert "lies in SOURCE" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "source").iterdir() if path.is_dir()) == [
        "voice0",
        "voice1",
        "voice2",
    ]


def test_a_set_that_is_replaced_is_named_and_the_hint_is_true(sounds, pictures, tmp_path, capsys):
    out = tmp_path / "a folder"
    assert build(sounds, out) == 0
    assert build(pictures, out) == 0
    replacing, made, hint = capsys.readouterr().out.splitlines()[-3:]
    assert replacing.startswith("replacing ")
    assert replacing.count("3 classes, 42 train") == made.count("3 classes, 42 train") == 1
    assert "--config.data.path=tfds:voices:1.0.0" in hint
    assert f"--config.data.tfds_dir='{out}'" in hint


@pytest.fixture
def own(sets, tmp_path) -> Path:
    """A set of ours to be damaged."""
    shutil.copytree(sets / "sounds", tmp_path / "sounds")
    return tmp_path / "sounds" / "1.0.0"


def test_a_file_that_changes_while_it_is_written_stops_and_leaves_nothing(
    sounds, tmp_path, capsys, monkeypatch
):
    source, out = tmp_path / "source", tmp_path / "out"
    shutil.copytree(sounds, source)
    features = SCRIPT["_features"]

    def late(*arguments):
        (source / "voice1" / "05.wav").write_bytes(b"another")
        return features(*arguments)

    monkeypatch.setitem(SCRIPT["build"].__globals__, "_features", late)
    assert build(source, out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "voice1/05.wav changed while the set was made; start again" in line
    assert not list(out.iterdir())


def test_features_that_were_renamed_are_noticed(own, capsys):
    facts = (own / "features.json").read_text()
    (own / "features.json").write_text(facts.replace('"sha256"', '"sha"'))
    assert main(command("cnn", "tfds:sounds", own / "run", data__tfds_dir=own.parent.parent)) == 2
    assert "tfds:sounds:1.0.0 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("names", ["voice1\nvoice0\nvoice2\n", "voice0\nvoi"])
def test_names_of_classes_that_were_exchanged_are_noticed(own, capsys, names):
    """Also where damaged examples may be skipped: labels would be wrong."""
    (own / "label.labels.txt").write_text(names)
    (shard,) = own.glob("*array_record*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    keys = {"data__tfds_dir": own.parent.parent, "data__on_bad_file": "skip"}
    assert main(command("cnn", "tfds:sounds", own / "run", **keys)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "tfds:sounds:1.0.0" in line


def test_an_example_that_is_gone_is_noticed(own, capsys):
    """As if a shard had been exchanged for an older one."""
    facts = json.loads((own / "metadata.json").read_text())
    facts["meljax"]["fingerprint"] = "0" * 64
    (own / "metadata.json").write_text(json.dumps(facts))
    assert main(command("cnn", "tfds:sounds", own / "run", data__tfds_dir=own.parent.parent)) == 2
    assert "tfds:sounds:1.0.0 is damaged: its examples" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe", b"[]"])
def test_damaged_metadata_are_one_line_and_are_not_written_over(own, sounds, capsys, content):
    (own / "metadata.json").write_bytes(content)
    root = own.parent.parent
    code = main(command("cnn", "tfds:sounds", own / "run", data__tfds_dir=root, train__epochs=1))
    if content != b"[]":
        assert code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"if it is damaged, remove {own}" in line
    assert build(sounds, root, "sounds") == 2
    assert "and not as meljax made it" in capsys.readouterr().err
    assert (own / "metadata.json").read_bytes() == content


def test_what_is_interrupted_leaves_what_was_there(own, sounds, pictures, monkeypatch):
    root = own.parent.parent
    rename, calls = Path.rename, []

    def interrupted(self, target):
        calls.append(self)
        rename(self, target)
        if len(calls) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    assert build(pictures, root, "sounds") == 130
    monkeypatch.undo()
    assert_same(read(sounds), read("tfds:sounds", data__tfds_dir=str(root)))
    assert [path.name for path in root.iterdir()] == ["sounds"]
    # As a kill would leave it, between the two renames.
    (root / ".meljax-sounds").mkdir()
    own.rename(root / ".meljax-sounds" / "old")
    assert build(sounds, root, "sounds", "--version", "2.0.0") == 0
    assert_same(read(sounds), read("tfds:sounds:2.0.0", data__tfds_dir=str(root)))


def test_too_little_that_can_be_used_is_not_written(sounds, tmp_path, capsys):
    source, out = tmp_path / "source", tmp_path / "out"
    for voice in ("voice0", "voice1"):
        shutil.copytree(sounds / voice, source / voice)
    assert build(source, out) == 0
    before = stamps(out)
    for file in (source / "voice1").iterdir():
        file.write_bytes(b"junk")
    assert build(source, out, "voices", "--on-bad-file", "skip") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"fewer than two classes are left in {source}" in error
    assert main(command("cnn", source, tmp_path / "run", data__on_bad_file="skip")) == 2
    assert capsys.readouterr().err.splitlines()[-1] == error
    assert stamps(out) == before


def test_a_content_that_is_not_what_was_written_is_noticed(own):
    """Damage that the file format does not see, such as by a program that wrote it anew."""
    listing = load.find("tfds:sounds", str(own.parent.parent), "label", "group")
    module = sys.modules["meljax.data.records"]
    example = module._example

    def exchanged(table, index):
        return dict(example(table, index)) | {"audio": b"RIFF"}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_example", exchanged)
        with pytest.raises(BadFileError, match="its checksum is another"):
            listing.read(listing.items[0])


@pytest.mark.parametrize("name", ["voices24", "voices24-mel"])
def test_real_voices_are_the_same_in_a_set(shared, tmp_path, name):
    for speaker in ("spk01", "spk02"):
        shutil.copytree(shared / name / speaker, tmp_path / "source" / speaker)
    assert build(tmp_path / "source", tmp_path) == 0
    of_set = read("tfds:voices", data__tfds_dir=str(tmp_path))
    assert_same(read(tmp_path / "source"), of_set)
    assert len(of_set.items) > 150
