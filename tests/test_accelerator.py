"""What differs between a CPU and an accelerator; runs only with `--platform`."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT, command
from environment import PLATFORM
from test_checkpoints import meta
from test_step import assert_same_bits, begin, make_task

from meljax.main import main
from meljax.runs.load_model import load_model
from meljax.training.checkpoints import Checkpoints
from meljax.training.state import Task, TrainState, abstract_state
from meljax.training.step import train_step, train_steps
from meljax.util.devices import make_mesh

pytestmark = [
    pytest.mark.accelerator,
    pytest.mark.skipif(not PLATFORM, reason="run by pytest --platform cuda"),
]


def moved(state: TrainState, task: Task, folder: Path) -> TrainState:
    """Saves a state, and returns it as it is restored for the devices of `task`."""
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        checkpoints.save(state, meta())
    with contextlib.closing(Checkpoints(folder)) as checkpoints:
        return checkpoints.restore_latest(abstract_state(task))[0]


def test_a_checkpoint_of_an_accelerator_is_restored_on_the_cpu_and_back(tmp_path):
    task = make_task()
    cpu = task._replace(mesh=make_mesh(jax.devices("cpu")[-1:]))
    state, *rest = begin(task)
    state = train_steps(task, state, *rest, 1)
    there = moved(state, cpu, tmp_path / "there")
    assert {leaf.sharding.mesh for leaf in jax.tree.leaves(there)} == {cpu.mesh}
    assert_same_bits(there, state)
    there = train_step(cpu, there, *begin(cpu)[1:])
    back = moved(there, task, tmp_path / "back")
    assert {leaf.sharding.mesh for leaf in jax.tree.leaves(back)} == {task.mesh}
    assert_same_bits(back, there)
    assert int(train_steps(task, back, *rest, 3).step) == 3


def test_runs_with_the_same_seed_have_the_same_bits(recordings, tmp_path):
    for name in ("one", "two"):
        assert main(command("cnn", recordings, tmp_path / name)) == 0
    one, two = (load_model(tmp_path / name).model.variables for name in ("one", "two"))
    assert_same_bits(one, two)


MEMORY = """
import json, jax
from meljax.util import devices
devices.set_up()
jax.block_until_ready(jax.numpy.ones(1000))
print(json.dumps(jax.devices()[0].memory_stats()))
"""


def test_memory_is_not_preallocated():
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=ROOT, capture_output=True, text=True, check=True
    )
    stats = json.loads(done.stdout)
    if stats is None:
        pytest.skip("a CPU has no statistics of its memory")
    assert stats.get("pool_bytes", 0) < stats["bytes_limit"] / 10


def test_no_array_is_read_from_the_device_between_steps():
    task = make_task()
    state, *rest = begin(task)
    with jax.transfer_guard_device_to_host("disallow"):
        state = train_steps(task, state, *rest, 3)
    assert np.isfinite(float(state.metrics.loss))
