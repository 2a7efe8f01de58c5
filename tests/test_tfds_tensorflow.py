"""Sets that need TensorFlow to be made and read; skipped without the extra `tfds-tf`."""

import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import CACHE, command, small_config, tone

from meljax.data.dataset import Dataset, load
from meljax.data.tfds import catalog
from meljax.main import main

# TensorFlow and its dependencies emit warnings.
pytestmark = pytest.mark.filterwarnings("ignore")
pytest.importorskip("tensorflow")
pytest.importorskip("pydub")

ARCHIVE = "free-spoken-digit-dataset-1.0.9"


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """Recordings in the layout of `spoken_digit`."""
    folder = tmp_path_factory.mktemp("digits") / ARCHIVE / "recordings"
    folder.mkdir(parents=True)
    for digit in range(10):
        for i in range(4):
            samples = tone(100 + 90 * digit, 0.2 + 0.01 * i, 10 * digit + i)
            soundfile.write(folder / f"{digit}_{'ab'[i % 2]}_{i}.wav", samples, 8000)
    return folder


def read(name: str, root: Path, **keys) -> Dataset:
    config = small_config(data__path=f"tfds:{name}", data__tfds_dir=str(root), **keys)
    return load(config, CACHE)


def assert_recordings(dataset: Dataset, folder: Path) -> None:
    expected = {soundfile.read(file, dtype="int16")[0].tobytes() for file in folder.iterdir()}
    assert {array.tobytes() for array in dataset.arrays} == expected
    assert len(dataset.items) == len(expected)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("file_format", ["tfrecord", "array_record"])
def test_audio_features_are_read_sample_for_sample(digits, tmp_path, file_format, lazy):
    library = catalog.library()

    class Spoken(library.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = library.core.Version("1.0.0")

        def _info(self):
            features = {
                "voice": library.features.Audio(
                    file_format="wav", sample_rate=8000, lazy_decode=lazy
                ),
                "digit": library.features.ClassLabel(num_classes=10),
                "number": np.int32,
            }
            return library.core.DatasetInfo(
                builder=self, features=library.features.FeaturesDict(features)
            )

        def _split_generators(self, _):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, file in enumerate(sorted(digits.iterdir())):
                digit, _, number = file.stem.split("_")
                yield i, {"voice": str(file), "digit": int(digit), "number": int(number)}

    Spoken(data_dir=tmp_path, file_format=file_format).download_and_prepare()
    dataset = read("spoken", tmp_path, data__label="digit", data__group="number")
    assert_recordings(dataset, digits)
    assert dataset.classes == tuple("0123456789")
    assert {item.group for item in dataset.items} == set("0123")


def test_spoken_digit_is_made_from_a_local_archive(digits, tmp_path, monkeypatch):
    """A small archive replaces the real one, whose checksum TFDS knows."""
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    archive = manual / f"{ARCHIVE}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(digits.parent, ARCHIVE)
    maker = catalog.library().builder_cls("spoken_digit")
    (url,) = maker.url_infos
    content = archive.read_bytes()
    info = catalog.library().core.download.checksums.UrlInfo(
        size=len(content), checksum=hashlib.sha256(content).hexdigest(), filename=archive.name
    )
    monkeypatch.setitem(maker.url_infos, url, info)
    arguments = command("cnn", "tfds:spoken_digit", tmp_path / "run", data__tfds_dir=tmp_path)
    assert main(arguments) == 0
    dataset = read("spoken_digit", tmp_path)
    assert_recordings(dataset, digits)
    assert dataset.items[0].path.startswith("train/000000 ")


def test_the_real_spoken_digit(tmp_path):
    archive = catalog.root_of("") / "downloads" / "manual" / f"{ARCHIVE}.tar.gz"
    if not archive.exists():
        pytest.skip("the archive of spoken_digit is not in TFDS's folder")
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / archive.name).symlink_to(archive)
    dataset = read("spoken_digit", tmp_path)
    assert (len(dataset.items), dataset.classes) == (2500, tuple("0123456789"))
