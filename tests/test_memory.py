"""What does not fit in memory stops with one line, before it is allocated."""

import dataclasses
import hashlib
import io
import subprocess
import sys

import jax
import jax.numpy as jnp
import psutil
import pytest
from conftest import ROOT, WINDOW, command
from test_step import make_data, make_task

from meljax.commands import evaluate, predict
from meljax.data import read_files
from meljax.data.manifest import Item, Manifest, file_manifest
from meljax.evaluation.memory import scoring_bytes
from meljax.main import main
from meljax.training import step
from meljax.training.memory import step_bytes
from meljax.training.state import abstract_state, model_of
from meljax.util import memory
from meljax.util.errors import UserError


def test_what_a_computation_needs_is_read_from_its_operations():
    image = jax.ShapeDtypeStruct((4, 10, 20, 3), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 3, 8), jnp.bfloat16)

    @jax.jit
    def convolve(image, kernel):
        return jax.lax.conv_general_dilated(
            image.astype(jnp.bfloat16),
            kernel,
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    found = memory.need(lambda image, kernel: jnp.sum(convolve(image, kernel)), image, kernel)
    inputs, outputs = 4 * 10 * 20 * 3 * 2, 4 * 10 * 20 * 8 * 2
    assert found.held == inputs
    assert found.largest == inputs + outputs + 3 * 3 * 3 * 8 * 2


def test_the_need_of_a_step_is_a_lower_limit_near_what_xla_allocates():
    task, batch = make_task(1), 100
    state, data = abstract_state(task), make_data(task)
    compiled = (
        jax.jit(step.train_step.__wrapped__, static_argnames="task")
        .lower(
            task,
            state,
            data,
            jnp.zeros((1, batch), jnp.int32),
            jax.random.key(0),
        )
        .compile()
    )
    allocated = compiled.memory_analysis().temp_size_in_bytes
    weights = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    assert 0.2 * allocated < step_bytes(task, batch) - weights < allocated


def test_scoring_needs_less_than_training():
    task = make_task(1)
    assert 0 < scoring_bytes(model_of(task, abstract_state(task))) < step_bytes(task, 12)
    wider = task._replace(frontend=dataclasses.replace(task.frontend, window=3200))
    assert step_bytes(task, 12) < step_bytes(task, 100)
    assert step_bytes(task, 12) < step_bytes(wider, 12)


def test_free_memory_is_that_of_the_machine_or_of_a_limit(monkeypatch, tmp_path):
    free = memory.free_on_host()
    assert 0 < free <= psutil.virtual_memory().total
    assert memory.free_on(jax.devices()[0]) == pytest.approx(free, rel=0.3)
    (tmp_path / "memory.stat").write_text("anon 700\nfile 5000\n")
    (tmp_path / "memory.max").write_text("1000\n")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    assert memory.free_on_host() == 300
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.free_on_host() > 1000


def test_running_out_of_memory_is_explained():
    for error in (MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 3 GiB")):
        with pytest.raises(UserError, match="too large"), memory.explained("too large"):
            raise error
    with pytest.raises(jax.errors.JaxRuntimeError), memory.explained("too large"):
        raise jax.errors.JaxRuntimeError("INTERNAL: other")


def one_line(capsys) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "meljax:" in line]
    return line


def test_training_that_does_not_fit_stops_before_anything_is_written(
    recordings, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(memory, "free_on_host", lambda: 1_000_000_000)
    arguments = command("cnn", recordings, tmp_path / "run", data__window=3.0)
    assert main([*arguments, "--config.train.batch_size=9000"]) == 2
    message = one_line(capsys)
    assert "1.0 GB were free" in message
    assert "a batch of 2250 windows of 3.00 s on each device" in message
    assert "data.window" in message
    assert not (tmp_path / "run").exists()


def test_a_set_that_does_not_fit_stops_early(recordings, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory, "free_on_host", lambda: 100_000)
    arguments = command("cnn", recordings, tmp_path / "run", mel__sample_rate=7999)
    assert main(arguments) == 2
    message = one_line(capsys)
    assert "the set does not fit in memory: " in message
    assert "100,000" not in message
    assert "0 MB were free" in message


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v")
def test_a_process_in_which_jax_cannot_start_stops_with_one_line(audio_run, recordings):
    """JAX would abort."""
    line = f"ulimit -v 1500000; exec {sys.executable} -m meljax predict {audio_run} {recordings}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    (message,) = done.stderr.splitlines()
    assert "memory is limited to 1.54 GB (ulimit -v), but JAX needs at least" in message


def test_under_a_limit_memory_is_left_for_the_compiler(monkeypatch):
    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(memory, "address_space", lambda: used + 900_000_000)
    assert 0 < memory.free_on_host() < 250_000_000
    monkeypatch.setattr(memory, "address_space", lambda: used)
    assert memory.free_on_host() == 0


def read(sizes: list[int], free: int, monkeypatch, failing: int = -1) -> list:
    """Reads files that take `sizes` bytes decoded, with `free` bytes of memory."""
    monkeypatch.setattr(memory, "free_on_host", lambda: free)
    items = [Item(f"{i:03}.wav", "a") for i in range(len(sizes))]

    def decode(item: Item, opened: read_files.OpenFile) -> int:
        if int(item.path[:3]) == failing:
            raise MemoryError
        return sizes[int(item.path[:3])]

    manifest = Manifest(
        source="set",
        root="/",
        kind="audio",
        items=tuple(items),
        left_out={},
        bad=(),
        open=lambda item: io.BytesIO(item.path.encode()),
        stamp=lambda item: "",
    )
    return read_files.read_all(manifest, items, decode, size_of=lambda size: size)


def test_a_set_is_read_while_it_may_fit(monkeypatch):
    million = 10**6
    assert len(read([million] * 100, 100 * million, monkeypatch)) == 100
    # The first files are larger than the others.
    assert len(read([7 * million] * 10 + [0] * 90, 100 * million, monkeypatch)) == 100
    assert len(read([1_400_000] * 40 + [0] * 60, 100 * million, monkeypatch)) == 100
    for sizes, files in (([million] * 100, "50"), ([5 * million] * 100, "20")):
        with pytest.raises(UserError, match=f"not fit in memory: {files} of its 100 files take"):
            read(sizes, 49 * million if files == "50" else 100 * million, monkeypatch)


def test_memory_that_runs_out_while_reading_is_explained(monkeypatch):
    with pytest.raises(UserError, match="3 of its 5 files take 3 MB decoded, all need about 5 MB"):
        read([10**6] * 5, 10**9, monkeypatch, failing=3)


def test_large_files_are_not_held_in_memory_while_they_are_decoded(monkeypatch, tmp_path):
    (tmp_path / "large").write_bytes(b"12345")
    manifest = file_manifest(tmp_path, tmp_path, "audio", [Item("large", "a")], {}, [], False)
    for limit, kept in ((5, True), (4, False)):
        monkeypatch.setattr(read_files, "_MAX_BYTES", limit)
        digest, opened = read_files.hash_file(manifest, manifest.items[0])
        assert digest == hashlib.sha256(b"12345").hexdigest()
        with opened() as file:
            assert isinstance(file, io.BytesIO) == kept
            assert file.read() == b"12345"


@pytest.mark.parametrize("scored", [predict.main, evaluate.main])
def test_scoring_that_does_not_fit_stops(scored, audio_run, recordings, monkeypatch, capsys):
    monkeypatch.setattr(memory, "free_on_host", lambda: 1000)
    assert scored([str(audio_run), str(recordings)]) == 2
    message = one_line(capsys)
    assert f"windows of {WINDOW} s" in message
    assert "0 MB were free" in message
