"""One short epoch of each kind of real data; skipped where those are absent."""

import csv
import json
import shutil

from conftest import ROOT

from meljax.main import main

SPEAKERS = ("spk01", "spk02", "spk03")


def subset(source, target, suffix: str, every: int = 9) -> None:
    for speaker in SPEAKERS:
        (target / speaker).mkdir(parents=True)
        for path in sorted((source / speaker).glob(f"*.{suffix}"))[::every]:
            shutil.copy(path, target / speaker)


def train(config: str, data, workdir, *overrides: str) -> dict:
    arguments = [
        f"--config={ROOT / 'configs' / config}.py",
        f"--workdir={workdir}",
        f"--config.data.path={data}",
        "--config.train.epochs=1",
        "--config.model.width=4",
        "--config.mel.n_mels=32",
        *overrides,
    ]
    assert main(arguments) == 0
    return json.loads((workdir / "config.json").read_text())


def test_images(shared, tmp_path):
    subset(shared / "voices24-mel", tmp_path / "data", "png")
    info = train("cnn", tmp_path / "data", tmp_path / "run", "--config.data.image_size=32")
    assert info["data"]["kind"] == "image"
    assert info["data"]["classes"] == list(SPEAKERS)


def test_recordings_in_a_table_with_words_and_speakers(shared, tmp_path):
    subset(shared / "voices24", tmp_path / "data", "flac", every=3)
    with open(shared / "voices24" / "manifest.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if (tmp_path / "data" / row["path"]).exists()]
    assert len(rows) > 90
    words = sorted({row["word"] for row in rows})[:4]
    with open(tmp_path / "data" / "voices.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row for row in rows if row["word"] in words)
    keys = ["data.label=word", "data.group=speaker", "data.window=0.5", "data.val_fraction=0.3"]
    overrides = [f"--config.{key}" for key in keys]
    info = train("cnn", tmp_path / "data" / "voices.csv", tmp_path / "run", *overrides)
    assert info["data"]["kind"] == "audio"
    assert info["data"]["classes"] == words
