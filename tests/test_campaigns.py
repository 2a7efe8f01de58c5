"""Many kills, signals, flipped bytes and full disks; see docs/development.md.

The numbers of trials and the seed are in MELJAX_TRIALS (as a factor) and MELJAX_SEED.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT, command, trained
from test_full_disk import one_line, small_disk  # noqa: F401 - a fixture
from test_resume import assert_same_run
from test_train import start

from meljax.evaluation.forward import Model
from meljax.main import main
from meljax.runs.directory import CALIBRATION, CHECKPOINTS, CONFIG, METRICS, PREDICTIONS
from meljax.runs.info import require_info
from meljax.runs.load_model import load_model
from meljax.runs.record import read_records
from meljax.training.checkpoints import Checkpoints
from meljax.training.state import TrainState
from meljax.util import console
from meljax.util.errors import UserError

pytestmark = pytest.mark.long

FACTOR = float(os.environ.get("MELJAX_TRIALS", "1"))
SEED = int(os.environ.get("MELJAX_SEED", "0"))
EPOCHS = 40
SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "int": signal.SIGINT}


def trials(number: int) -> range:
    return range(max(1, round(number * FACTOR)))


@pytest.fixture(scope="module")
def whole(recordings) -> Path:
    """An uninterrupted run, from a child process like the interrupted ones."""
    run = Path(trained("cnn", recordings, "campaign/whole/run", train__epochs=1)).parent
    shutil.rmtree(run)
    arguments = command(
        "cnn", recordings, run / "run", train__epochs=EPOCHS, train__save_every=0.05
    )
    with start(arguments) as process:
        output = process.communicate()[0]
    assert process.returncode == 0, output
    return run / "run"


CASES = [("kill", 30), ("term", 15), ("int", 6)]


@pytest.mark.parametrize(
    ("name", "number"), [(name, i) for name, count in CASES for i in trials(count)]
)
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    whole, recordings, tmp_path, name, number
):
    """A third of the signals arrive in the first three seconds, a third while a step is saved."""
    rng = random.Random(f"{SEED} {name} {number}")
    run = tmp_path / "run"
    arguments = command("cnn", recordings, run, train__epochs=EPOCHS, train__save_every=0.05)
    moment = number % 3
    interrupted = 0
    while not (run / "report.html").exists():
        with start(arguments) as process:
            if interrupted < 2:
                wait(process, run, moment, rng)
                process.send_signal(SIGNALS[name])
            sent = time.monotonic()
            output = process.communicate(timeout=900)[0]
        if process.returncode == 0:
            break
        expected = SIGNALS[name]
        # Before the handlers are installed, the signal itself ends the process.
        assert process.returncode in (-expected, 128 + expected), output
        assert "Traceback" not in output or time.monotonic() - sent < 1
        if process.returncode > 0:
            assert time.monotonic() - sent < 6, output
            assert "meljax: stopped" in output
        interrupted += 1
    assert_same_run(run, whole)


def wait(process: subprocess.Popen, run: Path, moment: int, rng: random.Random) -> None:
    """Waits to interrupt a run; `moment`: 0 early, 1 later, 2 while a step is saved."""
    if moment == 0:
        time.sleep(rng.uniform(0, 3))
    elif moment == 1:
        time.sleep(rng.uniform(2, 12))
    else:
        deadline = time.monotonic() + rng.uniform(5, 15)
        while time.monotonic() < deadline and process.poll() is None:
            if time.monotonic() > deadline - 5 and list((run / CHECKPOINTS).glob("*tmp*")):
                break
            time.sleep(0.001)
        time.sleep(rng.choice((0, 0.005, 0.02, 0.05)))


def weights(model: Model) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(model.variables)]


def state_bits(state: TrainState) -> list[bytes]:
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state)]


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_damage_to_any_file_of_a_step_is_never_silent(audio_run, tmp_path, damage):
    done = subprocess.run(
        [sys.executable, __file__, str(audio_run), str(tmp_path), damage],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=3000,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    others = [line for line in done.stderr.splitlines() if "is damaged" not in line]
    assert not others


def damage_files(run: Path, folder: Path, damage: str) -> None:
    """Damages each file of the last step in turn and loads what is left."""
    rng = np.random.default_rng(SEED)
    steps = sorted(int(p.name) for p in (run / CHECKPOINTS).iterdir() if p.name.isdigit())
    known = {}
    for step in steps:
        like = _like(run)
        with contextlib.closing(Checkpoints(_only(run, folder / "one", step))) as checkpoints:
            known[step] = state_bits(checkpoints.restore_latest(like)[0])
    best = weights(load_model(run).model)
    files = [f for f in sorted((run / CHECKPOINTS / str(steps[-1])).rglob("*")) if f.is_file()]
    noticed = silent = 0
    each = {"flipped": max(5, -(-len(trials(300)) // len(files))), "cut": 3, "missing": 1}[damage]
    for file in files:
        for _ in range(each):
            copy = folder / "copy"
            shutil.copytree(run, copy)
            target = copy / file.relative_to(run)
            content = bytearray(file.read_bytes())
            if damage == "missing":
                target.unlink()
            else:
                place = int(rng.integers(len(content)))
                content[place] ^= 1 << int(rng.integers(8))
                target.write_bytes(content if damage == "flipped" else content[:place])
            with console.quiet_libraries():
                with contextlib.closing(Checkpoints(copy / CHECKPOINTS)) as checkpoints:
                    state, _ = checkpoints.restore_latest(_like(run))
                step = int(state.step)
                assert state_bits(state) == known[step], (file, "other arrays")
                noticed += step != steps[-1]
                silent += step == steps[-1]
                shutil.rmtree(copy)
                shutil.copytree(run, copy)
                if damage == "missing":
                    target.unlink()
                else:
                    target.write_bytes(content if damage == "flipped" else content[:place])
                found = load_model(copy)
                assert found.epoch < 3 or weights(found.model) == best, (file, "other weights")
            shutil.rmtree(copy)
    print(f"{damage}: {noticed} noticed, {silent} without effect, in {len(files)} files")


def _only(run: Path, folder: Path, step: int) -> Path:
    """Returns a copy of the checkpoints of a run with one step."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run / CHECKPOINTS / str(step), folder / str(step))
    return folder


def _like(run: Path) -> TrainState:
    from meljax.data.dataset import load
    from meljax.training.state import abstract_state
    from meljax.training.task_setup import make_task
    from meljax.util.files import cache_dir

    config = require_info(run).settings()
    return abstract_state(make_task(config, load(config, cache_dir())))


@pytest.mark.parametrize("name", [METRICS, PREDICTIONS, CALIBRATION, CONFIG])
def test_a_flipped_byte_in_a_file_of_results_is_named(muddled_run, tmp_path, name):
    rng = np.random.default_rng(SEED)
    run = tmp_path / "run"
    content = (muddled_run / name).read_bytes()
    for _ in trials(100):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(muddled_run, run, ignore=shutil.ignore_patterns(CHECKPOINTS, "*.html"))
        flipped = bytearray(content)
        flipped[rng.integers(len(content))] ^= 1 << int(rng.integers(8))
        (run / name).write_bytes(flipped)
        with pytest.raises(UserError, match=r"is damaged|has format"):
            read_records([run])


@pytest.mark.parametrize("size", [2**k * 1024 for k in range(2, 12)])
def test_no_size_of_a_full_disk_hangs_or_prints_a_traceback(
    small_disk,  # noqa: F811
    image_folder,
    size,
):
    workdir = small_disk(str(size)) / "run"
    arguments = command("cnn", image_folder, workdir, train__epochs=15, train__save_every=0.2)
    with start(arguments) as process:
        output = process.communicate(timeout=300)[0]
    assert process.returncode in (0, 2)
    if process.returncode == 2:
        assert one_line(output.splitlines()[-1] + "\n")
        assert "Traceback" not in output
        subprocess.run(["mount", "-o", "remount,size=50m", str(workdir.parent)], check=True)
        assert main(command("cnn", image_folder, workdir, train__epochs=15)) == 0


if __name__ == "__main__":
    with console.quiet_libraries():
        damage_files(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
