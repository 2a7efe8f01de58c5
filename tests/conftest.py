"""A strict world, four emulated devices, and small voices of our own."""

import fcntl
import os
import tempfile
from collections.abc import Callable

# Before JAX is imported. The devices serve the tests of several; all else takes one or all of them.
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"
# Tests are offline: what is fetched at all comes from this machine.
os.environ["https_proxy"] = "http://127.0.0.1:9"
# Workers and the programs they start share what is compiled.
os.environ.setdefault("XDG_CACHE_HOME_OF_TESTS", tempfile.mkdtemp(prefix="meljax-tests-"))
os.environ["XDG_CACHE_HOME"] = os.environ["XDG_CACHE_HOME_OF_TESTS"]
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["XDG_CACHE_HOME"] + "/jax"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"

from pathlib import Path

import jax
import numpy as np
import pytest
import soundfile
from PIL import Image

jax.config.update("jax_numpy_rank_promotion", "raise")

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"
CACHE = Path(os.environ["XDG_CACHE_HOME"]) / "meljax"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real data beside the project, for development; absent elsewhere."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no shared data here")
    return SHARED / "data"


def tone(pitch: float, seconds: float, seed: int, rate: int = 8000) -> np.ndarray:
    """A buzz of three harmonics in noise: enough of a voice for a small network to tell."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    buzz = sum(np.sin(2 * np.pi * pitch * k * time + rng.uniform(0, 6)) / k for k in (1, 2, 3))
    return (0.2 * buzz + 0.05 * rng.normal(size=len(time))).astype(np.float32)


def once(name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills, once for all workers of a test session."""
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "made" / name
    folder.parent.mkdir(exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.with_suffix(".done").exists():
            make(folder)
            folder.with_suffix(".done").touch()
    return folder


@pytest.fixture(scope="session")
def sounds() -> Path:
    """Three classes of 14 short recordings of differing length, with things to be ignored."""
    return once("sounds", make_sounds)


def make_sounds(root: Path) -> None:
    for c, pitch in enumerate((150, 400, 900)):
        folder = root / f"voice{c}"
        folder.mkdir(parents=True)
        for i in range(14):
            samples = tone(pitch * (1 + 0.01 * i), 0.2 + 0.01 * i, seed=100 * c + i)
            soundfile.write(folder / f"{i:02}.wav", samples, 8000)
    (root / "LICENSE").write_text("ours")
    (root / "voice0" / ".DS_Store").write_bytes(b"\0")


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Three classes of 14 small coloured pictures of differing width."""
    return once("pictures", make_pictures)


def make_pictures(root: Path) -> None:
    rng = np.random.default_rng(0)
    for c in range(3):
        folder = root / f"voice{c}"
        folder.mkdir(parents=True)
        for i in range(14):
            image = rng.integers(0, 80, (20, 18 + i % 5, 3))
            image[5 * c + 2 : 5 * c + 6, :, c] += 150
            Image.fromarray(image.astype(np.uint8)).save(folder / f"{i:02}.png")


@pytest.fixture(scope="session")
def sound_run(sounds) -> Path:
    """A finished run of three epochs on recordings; not to be changed."""
    return trained("cnn", sounds, "sound", train__epochs=3)


@pytest.fixture(scope="session")
def window_run(sounds) -> Path:
    """A CNN on recordings, some of them longer than a window and a half; not to be changed."""
    return trained("cnn", sounds, "windows", train__epochs=1, data__window=0.16)


@pytest.fixture(scope="session")
def picture_run(pictures) -> Path:
    """A CNN on pictures as they are; not to be changed."""
    return trained("cnn", pictures, "pictures_as_they_are", train__epochs=1)


@pytest.fixture(scope="session")
def square_run(pictures) -> Path:
    """A ResNet on pictures that are resized; not to be changed."""
    return trained("resnet", pictures, "square", train__epochs=1, data__image_size=24)


def trained(config: str, data: Path | str, name: str, **keys) -> Path:
    from meljax.main import main

    def make(workdir: Path) -> None:
        assert main(command(config, data, workdir, **keys)) == 0

    return once(name, make)


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
"""Settings that make a run a matter of seconds."""


def command(config: str, data: Path | str, workdir: Path, **keys) -> list[str]:
    """The command line of a small run; keys are written `train__epochs=3`."""
    settings = SMALL | {key.replace("__", "."): value for key, value in keys.items()}
    overrides = [f"--config.{key}={value}" for key, value in settings.items()]
    file = str(ROOT / "configs" / f"{config}.py")
    path = f"--config.data.path={data}"
    return ["meljax", f"--config={file}", f"--workdir={workdir}", path, *overrides]


def small_config(**keys):
    """The `Config` of a small CNN run."""
    from meljax import config

    settings = SMALL | {"model.name": "cnn"}
    settings |= {key.replace("__", "."): value for key, value in keys.items()}
    return config.from_flat(settings)


def assert_same(one, other) -> None:
    """The data of two `VoiceSet`s; which files were ignored is no part of them."""
    assert other.fingerprint == one.fingerprint
    assert other.kind == one.kind
    assert other.classes == one.classes
    assert [item.path for item in other.items] == [item.path for item in one.items]
    assert other.sides == one.sides
    assert other.warnings == one.warnings
    for a, b in zip(one.arrays, other.arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(one.floors or (), other.floors or (), strict=True):
        np.testing.assert_array_equal(a, b)
