"""Strict settings of JAX, four emulated devices, and small data sets and runs.

`pytest --platform cuda` runs the tests with the marker `accelerator` on a GPU.
"""

import environment  # isort: skip - variables that are set before JAX is imported

import fcntl
import gc
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from PIL import Image

jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_addoption(parser):
    parser.addoption("--platform", help="run the part of the suite for accelerators: cuda or cpu")


def pytest_collection_modifyitems(config, items):
    if environment.PLATFORM:
        chosen = [item for item in items if item.get_closest_marker("accelerator")]
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = chosen


def pytest_collection_finish():
    """Excludes imported objects from garbage collection, which each damaged checkpoint starts."""
    gc.freeze()


def some_devices(count: int) -> list[jax.Device]:
    """Returns the first devices; skips the test if there are fewer."""
    if len(jax.local_devices()) < count:
        pytest.skip(f"needs {count} devices")
    return jax.local_devices()[:count]


ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
CACHE = Path(os.environ["XDG_CACHE_HOME"]) / "meljax"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real data next to the repository; the test is skipped where they are absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no shared data here")
    return SHARED / "data"


def tone(pitch: float, seconds: float, seed: int, rate: int = 8000) -> np.ndarray:
    """Returns three harmonics in noise, which a small network can classify by pitch."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in (1, 2, 3))
    return (0.2 * buzz + 0.05 * rng.normal(size=len(time))).astype(np.float32)


def once(name: str, make: Callable[[Path], object]) -> Path:
    """Returns a folder that `make` fills once for all workers of a test session."""
    # Each has a folder of its own, because tables beside a data set are noticed.
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "made" / name / Path(name).name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.with_suffix(".done").exists():
            make(folder)
            folder.with_suffix(".done").touch()
    return folder


@pytest.fixture
def touch(tmp_path):
    """Creates empty files in a new folder; returns the folder as text."""

    def touch(*paths):
        for path in paths:
            file = tmp_path / "set" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        return str(tmp_path / "set")

    return touch


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Three classes of 14 short recordings of different lengths, and other files to ignore."""
    return once("recordings", make_recordings)


def make_recordings(root: Path) -> None:
    for c, pitch in enumerate((150, 400, 900)):
        folder = root / f"voice{c}"
        folder.mkdir(parents=True)
        for i in range(14):
            samples = tone(pitch * (1 + 0.01 * i), 0.2 + 0.01 * i, seed=100 * c + i)
            soundfile.write(folder / f"{i:02}.wav", samples, 8000)
    (root / "LICENSE").write_text("ours")
    (root / "voice0" / ".DS_Store").write_bytes(b"\0")


@pytest.fixture(scope="session")
def image_folder() -> Path:
    """Three classes of 14 small color images of different widths."""
    return once("images", lambda root: make_images(root, (0, 0, 0, 0)))


FIGURE_BORDERS = (6, 4, 3, 5)
"""Left, top, right and bottom of `figures`, in pixels."""


@pytest.fixture(scope="session")
def figures() -> Path:
    """The images of `image_folder` with a white border that has ticks."""
    return once("figures", lambda root: make_images(root, FIGURE_BORDERS))


def make_images(root: Path, borders: tuple[int, int, int, int]) -> None:
    """Writes three classes of 14 images; `borders` (left, top, right, bottom) add a white frame."""
    rng = np.random.default_rng(0)
    left, top, right, bottom = borders
    for c in range(3):
        folder = root / f"voice{c}"
        folder.mkdir(parents=True)
        for i in range(14):
            image = rng.integers(0, 80, (20, 18 + i % 5, 3))
            image[5 * c + 2 : 5 * c + 6, :, c] += 150
            frame = ((top, bottom), (left, right), (0, 0))
            figure = np.pad(image.astype(np.uint8), frame, constant_values=255)
            if left:
                figure[top + 3 : 20 + top : 5, left - 2 : left] = 0
            Image.fromarray(figure).save(folder / f"{i:02}.png")


@pytest.fixture(scope="session")
def figure_run(figures) -> Path:
    """A CNN on cropped images without resizing; do not change it."""
    return trained("cnn", figures, "figure", train__epochs=1, data__crop="6,4,3,5")


WINDOW = 0.21
"""Window of `audio_run`, in s; other runs on its recordings reuse its compiled programs."""


@pytest.fixture(scope="session")
def audio_run(recordings) -> Path:
    """A CNN after three epochs on recordings of 0.95 to 1.57 windows; do not change it."""
    return trained("cnn", recordings, "audio", train__epochs=3, data__window=WINDOW)


@pytest.fixture(scope="session")
def image_run(image_folder) -> Path:
    """A CNN on images without resizing; do not change it."""
    return trained("cnn", image_folder, "images_as_they_are", train__epochs=1)


@pytest.fixture(scope="session")
def square_run(figures) -> Path:
    """A ResNet on cropped and resized images; do not change it."""
    keys = {"train__epochs": 1, "data__crop": "6,4,3,5", "data__image_size": 24}
    return trained("resnet", figures, "square", **keys)


@pytest.fixture(scope="session")
def muddle() -> Path:
    """A folder with splits where each held-out recording occurs once in each class.

    The samples are floats, so that they are float32 in memory; those of `recordings` are integers.
    """
    return once("muddle", make_muddle)


def make_muddle(root: Path) -> None:
    for split, count in (("train", 6), ("val", 4), ("test", 2)):
        for c, pitch in enumerate((150, 400, 900)):
            folder = root / split / f"voice{c}"
            folder.mkdir(parents=True)
            for i in range(count):
                hertz = pitch * (1 + 0.01 * i) if split == "train" else 200 * (i + 1)
                seed = 100 * c + i if split == "train" else 1000 * count + i
                samples = tone(hertz, 0.2 + 0.01 * i, seed)
                soundfile.write(folder / f"{i:02}.wav", samples, 8000, subtype="FLOAT")


@pytest.fixture(scope="session")
def muddled_run(muddle) -> Path:
    """A CNN that must get two thirds of the held-out files wrong; do not change it."""
    return trained("cnn", muddle, "muddled", train__epochs=3, data__window=WINDOW)


def trained(config: str, data: Path | str, name: str, **keys) -> Path:
    from meljax.main import main

    def make(workdir: Path) -> None:
        assert main(command(config, data, workdir, **keys)) == 0

    return once(name, make)


def edit_info(run: Path, change: Callable[[dict], None]) -> None:
    """Changes the content of a run's `config.json` in place, and its digest."""
    from meljax.util.typed_json import digest

    path = run / "config.json"
    info = json.loads(path.read_text())
    content = {name: info[name] for name in info if name not in ("format", "sha256")}
    change(content)
    saved = {"format": info["format"], "sha256": digest(content)} | content
    path.write_text(json.dumps(saved))


def rewrite(run: Path, name: str, text: str) -> None:
    """Writes a file of a run's results, and its digest."""
    (run / name).write_text(text)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    edit_info(run, lambda info: info["digests"].update({name: sha256}))


SMALL = {
    "model.width": 4,
    "train.batch_size": 8,
    "train.learning_rate": 3e-3,
    "train.epochs": 2,
    "mel.sample_rate": 8000,
    "mel.n_fft": 256,
    "mel.hop_length": 128,
    "mel.n_mels": 20,
}
"""Settings for a run of a few seconds."""


def command(config: str, data: Path | str, workdir: Path, **keys) -> list[str]:
    """Returns the command line of a small run; keys are written `train__epochs=3`."""
    settings = SMALL | {key.replace("__", "."): value for key, value in keys.items()}
    overrides = [f"--config.{key}={value}" for key, value in settings.items()]
    file = str(ROOT / "configs" / f"{config}.py")
    path = f"--config.data.path={data}"
    return [f"--config={file}", f"--workdir={workdir}", path, *overrides]


def small_config(**keys):
    """Returns the `Config` of a small CNN run."""
    from meljax import config

    settings = SMALL | {"model.name": "cnn"}
    settings |= {key.replace("__", "."): value for key, value in keys.items()}
    return config.from_flat(settings)


def assert_same(one, other) -> None:
    """Asserts that two `Dataset`s have the same data; ignored files may differ."""
    assert other.fingerprint == one.fingerprint
    assert other.kind == one.kind
    assert other.classes == one.classes
    assert [item.path for item in other.items] == [item.path for item in one.items]
    assert other.splits == one.splits
    assert other.warnings == one.warnings
    for a, b in zip(one.arrays, other.arrays, strict=True):
        np.testing.assert_array_equal(a, b)
