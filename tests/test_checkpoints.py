import contextlib
import dataclasses
import errno
import gc
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meljax.config import MelConfig
from meljax.evaluation.metrics import NEVER, Metrics, rank
from meljax.features.frontend import Frontend
from meljax.training import checkpoint_meta
from meljax.training.checkpoint_meta import FORMAT, Meta, SavedMeta
from meljax.training.checkpoints import Checkpoints
from meljax.training.state import TrainState
from meljax.util import console
from meljax.util.errors import UserError

FRONTEND = Frontend("audio", 1600, 0, 1, 0, MelConfig())


@pytest.fixture(autouse=True, scope="module")
def fast_garbage_collection():
    """Excludes the objects of earlier tests, for the rest of the process.

    Each damaged checkpoint starts a collection.
    """
    gc.collect()
    gc.freeze()


def front_end(**changes) -> dict:
    """Returns `FRONTEND` with other values, as it is saved."""
    return dataclasses.asdict(dataclasses.replace(FRONTEND, **changes))


def meta(*accuracies: float) -> Meta:
    """Returns the meta after epochs of ten steps with these validation accuracies."""
    rows = tuple(row(epoch, accuracy) for epoch, accuracy in enumerate(accuracies, 1))
    names = ("ann", "bob")
    return Meta({"train.epochs": 3}, names, FRONTEND, {"jax": "0.10"}, rows)


def state(step: int) -> TrainState:
    return TrainState(
        step=jnp.int32(step),
        params={"kernel": jnp.full((3, 2), float(step))},
        batch_stats={"mean": jnp.zeros(2)},
        opt_state=(jnp.int32(step),),
        metrics=Metrics.zero(2),
        skips=jnp.int32(0),
    )


def row(epoch: int, accuracy: float) -> dict:
    return {"epoch": epoch, "step": epoch * 10, "val_accuracy": accuracy, "val_loss": 1.0}


def save(directory, accuracies: list[float], within: int = 0) -> None:
    """Saves epochs, then `within` steps of the next one."""
    checkpoints = Checkpoints(directory)
    for epoch in range(1, len(accuracies) + 1):
        checkpoints.save(state(epoch * 10), meta(*accuracies[:epoch]))
    if within:
        checkpoints.save(state(len(accuracies) * 10 + within), meta(*accuracies))
    checkpoints.close()


def saved(directory) -> list[int]:
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def spoil(checkpoint) -> None:
    for path in (checkpoint / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def assert_same_arrays(one, other) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_latest_two_and_the_best_are_kept_bit_for_bit(tmp_path):
    accuracies = [0.1, 0.9, 0.5, 0.4, 0.6, 0.3]
    save(tmp_path, accuracies)
    assert saved(tmp_path) == [20, 50, 60]
    checkpoints = Checkpoints(tmp_path)
    latest, found = checkpoints.restore_latest(state(0))
    assert found == meta(*accuracies)
    assert_same_arrays(latest, state(60))
    assert checkpoints.restore_best(state(0))[1] == meta(0.1, 0.9)
    checkpoints.close()


def test_a_step_within_an_epoch_is_kept_until_a_later_one_and_is_never_the_best(tmp_path):
    save(tmp_path, [0.5, 0.1, 0.2, 0.3], within=3)
    assert saved(tmp_path) == [10, 30, 40, 43]
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step() == 43
    assert int(checkpoints.restore_latest(state(0))[0].step) == 43
    assert int(checkpoints.restore_latest(state(0), whole=True)[0].step) == 40
    assert int(checkpoints.restore_best(state(0))[0].step) == 10
    checkpoints.save(state(47), meta(0.5, 0.1, 0.2, 0.3))
    checkpoints.wait()
    assert saved(tmp_path) == [10, 30, 40, 47]
    checkpoints.save(state(50), meta(0.5, 0.1, 0.2, 0.3, 0.4))
    checkpoints.wait()
    assert saved(tmp_path) == [10, 40, 50]
    checkpoints.close()


def test_the_end_of_an_epoch_replaces_the_same_step_before_its_validation(tmp_path):
    save(tmp_path, [0.1], within=10)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore_latest(state(0))[1].epoch == 1
    before = (tmp_path / "20").stat()
    checkpoints.save(state(20), meta(0.1))  # nothing has changed, so it is never missing
    checkpoints.wait()
    assert os.path.samestat((tmp_path / "20").stat(), before)
    checkpoints.save(state(20), meta(0.1, 0.2))
    checkpoints.save(state(20), meta(0.1))
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore_best(state(0))[1] == meta(0.1, 0.2)
    checkpoints.close()


def test_a_step_that_was_not_taken_is_saved_as_one_to_take(tmp_path):
    metrics = Metrics.zero(2).replace(first_bad_step=jnp.int32(7), count=jnp.float32(3))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(state(7).replace(metrics=metrics), meta())
    restored, _ = checkpoints.restore_latest(state(0))
    checkpoints.close()
    assert restored.metrics.first_bad_step == NEVER
    assert restored.metrics.count == 3


def test_rank_breaks_ties_by_lower_loss_then_earlier_epoch():
    rows = [
        {"epoch": 1, "val_accuracy": 0.5, "val_loss": 0.2},
        {"epoch": 2, "val_accuracy": 0.7, "val_loss": 0.9},
        {"epoch": 3, "val_accuracy": 0.7, "val_loss": 0.8},
        {"epoch": 4, "val_accuracy": 0.7, "val_loss": 0.8},
    ]
    assert max(rows, key=rank)["epoch"] == 3


def test_an_empty_directory_has_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new")
    assert checkpoints.restore_latest(state(0)) is None
    assert checkpoints.latest_step() is None
    checkpoints.close()


@pytest.mark.parametrize("damage", ["empty", "no state", "truncated"])
def test_a_damaged_latest_checkpoint_is_replaced_by_the_previous_one(tmp_path, damage, capsys):
    save(tmp_path, [0.1, 0.2, 0.3])
    latest = tmp_path / "30"
    if damage == "truncated":
        largest = max(
            (p for p in (latest / "state").rglob("*") if p.is_file()),
            key=lambda p: p.stat().st_size,
        )
        largest.write_bytes(largest.read_bytes()[:50])
    else:
        for path in sorted(latest.rglob("*"), reverse=True):
            if damage == "empty" or "state" in path.relative_to(latest).parts:
                path.unlink() if path.is_file() else path.rmdir()
    checkpoints = Checkpoints(tmp_path)
    restored, found = checkpoints.restore_latest(state(0))
    checkpoints.close()
    assert found == meta(0.1, 0.2)
    assert int(restored.step) == 20
    assert "checkpoint 30 is damaged" in capsys.readouterr().err


def test_a_flipped_byte_in_any_file_is_noticed_or_has_no_effect(tmp_path):
    """orbax has no checksums of arrays. A child process shows what is printed about damage."""
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) > 3
    assert all(line.startswith("WARNING: checkpoint 30 is damaged; using 20") for line in lines)


def flip_bytes(folder: Path) -> None:
    """Flips a bit in each file of a checkpoint in turn, and loads what is left."""
    accuracies = [0.1, 0.2, 0.3]
    save(folder / "whole", accuracies)
    rng = np.random.default_rng(0)
    for file in sorted((folder / "whole" / "30").rglob("*")):
        if file.is_dir():
            continue
        copy = folder / "copy"
        shutil.copytree(folder / "whole", copy)
        content = bytearray(file.read_bytes())
        content[rng.integers(len(content))] ^= 1 << rng.integers(8)
        (copy / file.relative_to(folder / "whole")).write_bytes(content)
        with contextlib.closing(Checkpoints(copy)) as checkpoints:
            restored, found = checkpoints.restore_latest(state(0))
        assert_same_arrays(restored, state(found.epoch * 10))
        assert found == meta(*accuracies[: found.epoch])
        assert (copy / "damaged-30").exists() == (found.epoch == 2)
        shutil.rmtree(copy)


@pytest.mark.parametrize("lost", [False, True])
@pytest.mark.parametrize("read", [{"params"}, {"opt_state"}])
def test_only_arrays_that_are_read_are_compared_with_their_digests(
    tmp_path, monkeypatch, read, lost
):
    """Predictions need no moments of Adam, so these may be damaged."""
    digests = checkpoint_meta.digests

    def wrong(arrays):
        return {
            name: "0" * 64 if name.split("/")[0] in read else each
            for name, each in digests(arrays).items()
            if not (lost and name.split("/")[0] in read)
        }

    with monkeypatch.context() as patch:
        patch.setattr("meljax.training.checkpoints.digests", wrong)
        save(tmp_path, [0.1])
    checkpoints = Checkpoints(tmp_path, read_only=True)
    like = {"step": jnp.int32(0), "params": state(0).params, "batch_stats": state(0).batch_stats}
    if read == {"params"}:
        with pytest.raises(UserError, match="params/kernel differs from its digest"):
            checkpoints.restore_best(like)
    else:
        assert checkpoints.restore_best(like)[1] == meta(0.1)
    checkpoints.close()


def test_checkpoints_of_another_shape_are_refused_and_kept(tmp_path):
    save(tmp_path, [0.1, 0.2, 0.3])
    before = sorted(path.name for path in tmp_path.iterdir())
    other = state(0).replace(params={"weight": jnp.zeros((3, 2))})
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint in .* can be used"):
        checkpoints.restore_latest(other)
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("within", [0, 3])
def test_a_damaged_checkpoint_is_renamed_and_its_step_can_be_saved_again(tmp_path, within):
    accuracies = [0.1, 0.2, 0.3]
    save(tmp_path, accuracies, within)
    step = 30 + within
    spoil(tmp_path / str(step))
    checkpoints = Checkpoints(tmp_path)
    assert int(checkpoints.restore_latest(state(0))[0].step) == (30 if within else 20)
    assert (tmp_path / f"damaged-{step}").is_dir()
    checkpoints.save(state(step), meta(*accuracies))
    checkpoints.close()
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        assert int(checkpoints.restore_latest(state(0))[0].step) == step


def test_a_reader_leaves_a_damaged_checkpoint_where_it_is(tmp_path):
    save(tmp_path, [0.1, 0.2, 0.3])
    spoil(tmp_path / "30")
    before = sorted(path.name for path in tmp_path.iterdir())
    with contextlib.closing(Checkpoints(tmp_path, read_only=True)) as checkpoints:
        assert checkpoints.restore_latest(state(0))[1].epoch == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_damaged_best_checkpoint_is_replaced_by_the_next_best(tmp_path):
    save(tmp_path, [0.9, 0.2, 0.3])
    spoil(tmp_path / "10")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore_best(state(0))[1].epoch == 3
    checkpoints.close()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2, "sha256": "", "content": {}}'])
def test_damaged_metadata_spoil_no_other_checkpoint(tmp_path, content):
    save(tmp_path, [0.9, 0.2, 0.3])
    (tmp_path / "10" / "meta" / "metadata").write_text(content)
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.best_meta().epoch == 3
    assert checkpoints.restore_best(state(0))[1].epoch == 3
    assert checkpoints.restore_latest(state(0))[1].epoch == 3
    checkpoints.save(state(40), meta(0.9, 0.2, 0.3, 0.1))
    checkpoints.close()
    assert saved(tmp_path) == [10, 30, 40]  # what cannot be read is kept


def test_weights_are_restored_without_the_optimizer(tmp_path):
    save(tmp_path, [0.1, 0.9, 0.5])
    like = {"step": jnp.int32(0), "params": state(0).params, "batch_stats": state(0).batch_stats}
    checkpoints = Checkpoints(tmp_path, read_only=True)
    weights, found = checkpoints.restore_best(like)
    checkpoints.close()
    assert found.epoch == 2
    assert weights.keys() == like.keys()
    for name in like:
        assert_same_arrays(weights[name], getattr(state(20), name))


def test_a_checkpoint_of_another_format_is_refused_and_kept(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_meta, "FORMAT", FORMAT + 1)
        save(tmp_path, [0.1, 0.2])
    before = sorted(path.name for path in tmp_path.iterdir())
    checkpoints = Checkpoints(tmp_path)
    message = rf"the checkpoint has format {FORMAT + 1}, but meljax .* reads format {FORMAT}"
    for restore in (checkpoints.restore_latest, checkpoints.restore_best):
        with pytest.raises(UserError, match=message):
            restore(state(0))
    with pytest.raises(UserError, match=message):
        checkpoints.best_meta()
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_damaged_format_number_spoils_no_other_checkpoint(tmp_path, capsys):
    """All checkpoints of a run have the same format, so another one among them is damage."""
    save(tmp_path, [0.9, 0.1, 0.3])
    for step in (20, 30):
        file = tmp_path / str(step) / "meta" / "metadata"
        file.write_text(file.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}'))
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.best_meta().epoch == 1
    assert checkpoints.restore_best(state(0))[1].epoch == 1
    assert checkpoints.restore_latest(state(0))[1].epoch == 1
    checkpoints.close()
    assert "checkpoint 30 is damaged; using 10 instead" in capsys.readouterr().err
    assert (tmp_path / "damaged-30").is_dir()


def test_a_checkpoint_that_may_not_be_read_is_not_damaged(tmp_path, monkeypatch):
    """Tests may run as root, who may read everything."""
    save(tmp_path, [0.9, 0.1, 0.3])
    checkpoints = Checkpoints(tmp_path)
    restore = checkpoints._manager.restore

    def refused(step, args):
        if step == 20:
            return restore(step, args=args)
        if step == 10:
            raise PermissionError(errno.EACCES, "any words", str(tmp_path / "10"))
        raise ValueError(f"PERMISSION_DENIED: reading local file: {os.strerror(errno.EACCES)}")

    monkeypatch.setattr(checkpoints._manager, "restore", refused)
    with pytest.raises(PermissionError, match=re.escape(str(tmp_path))):
        checkpoints.restore_latest(state(0))
    for restored in (checkpoints.best_meta, lambda: checkpoints.restore_best(state(0))):
        with pytest.raises(PermissionError, match=re.escape(str(tmp_path / "10"))):
            restored()
    checkpoints.close()
    assert saved(tmp_path) == [10, 20, 30]


@pytest.mark.parametrize("instead", ["a file", "nothing"])
def test_a_save_into_an_unwritable_folder_fails_at_once(tmp_path, instead):
    """Otherwise orbax's threads wait 300 s and leave coroutines that fail a later test."""
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save(state(10), meta(0.1))
    checkpoints.wait()
    before = set(threading.enumerate())
    shutil.rmtree(tmp_path / "run")
    if instead == "a file":
        (tmp_path / "run").write_text("a file instead of the folder")
    with (
        pytest.raises(UserError, match="a checkpoint could not be written"),
        contextlib.closing(checkpoints),
    ):
        checkpoints.save(state(20), meta(0.1, 0.2))
    assert set(threading.enumerate()) <= before
    assert (tmp_path / "run").exists() == (instead == "a file")


def test_metadata_are_read_as_they_were_written():
    cropped = Frontend("image", 9, 9, 1, 0, MelConfig(), crop=(1, 2, 3, 4))
    whole = dataclasses.replace(meta(0.5), frontend=cropped, config={"data.crop": "1,2,3,4"})
    written = SavedMeta(whole, {"step": "ab"})
    read = SavedMeta.from_json(json.loads(json.dumps(written.to_json())))
    assert read == written
    assert hash(read.meta.frontend) == hash(cropped)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("classes", ["ann", 3]),
        ("classes", "ann"),
        ("seconds", "1"),
        ("seconds", None),
        ("frontend", {}),
        ("frontend", front_end(window=0)),
        ("frontend", front_end(window=2**31)),
        ("frontend", front_end(height=-1)),
        ("frontend", front_end(channels=2)),
        ("frontend", front_end(crop=(1, 0, 0, 0))),
        ("frontend", front_end(image_size=10**9)),
        ("frontend", front_end(mel=MelConfig(hop_length=1))),
        ("history", [{"epoch": []}]),
        ("history", [{"epoch": 1, "val_loss": 1.0}]),
        ("more", 1),
    ],
)
def test_impossible_values_are_damage_even_with_a_right_digest(field, value):
    content = dataclasses.asdict(SavedMeta(meta(0.5), {}))
    content["meta"][field] = value
    saved = {"format": FORMAT, "sha256": checkpoint_meta.digest(content), "content": content}
    with pytest.raises(UserError, match="the metadata are damaged"):
        SavedMeta.from_json(saved)


if __name__ == "__main__":
    with console.quiet_libraries():
        flip_bytes(Path(sys.argv[1]))
