import contextlib
import dataclasses
import json
import shutil
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from meljax.config import MelConfig
from meljax.evaluation.metrics import rank
from meljax.features.frontend import Frontend
from meljax.training import checkpoints as checkpoints_lib
from meljax.training.checkpoints import Checkpoints, Meta
from meljax.training.state import TrainState
from meljax.util.errors import UserError

FRONTEND = Frontend("audio", 1600, 0, 1, 0, MelConfig())


def meta(epoch: int) -> Meta:
    return Meta(epoch, {"train.epochs": 3}, ("ann", "bob"), FRONTEND, {"jax": "0.10"})


def state(step: int) -> TrainState:
    return TrainState(
        step=jnp.int32(step),
        params={"kernel": jnp.full((3, 2), float(step))},
        batch_stats={"mean": jnp.zeros(2)},
        opt_state=(jnp.int32(step),),
    )


def row(epoch: int, accuracy: float) -> dict:
    return {"epoch": epoch, "step": epoch * 10, "val_accuracy": accuracy, "val_loss": 1.0}


def save(directory, accuracies: list[float]) -> None:
    checkpoints = Checkpoints(directory)
    for epoch, accuracy in enumerate(accuracies, 1):
        checkpoints.save(state(epoch * 10), meta(epoch), row(epoch, accuracy))
    checkpoints.close()


def spoil(checkpoint) -> None:
    for path in (checkpoint / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


def test_the_latest_two_and_the_best_are_kept_bit_for_bit(tmp_path):
    save(tmp_path, [0.1, 0.9, 0.5, 0.4, 0.6, 0.3])
    assert sorted(int(p.name) for p in tmp_path.iterdir() if p.name.isdigit()) == [20, 50, 60]
    checkpoints = Checkpoints(tmp_path)
    latest, found = checkpoints.restore_latest(state(0))
    assert found == meta(6)
    for a, b in zip(jax.tree.leaves(latest), jax.tree.leaves(state(60)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert checkpoints.restore_best(state(0))[1] == meta(2)
    checkpoints.close()


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
    assert found == meta(2)
    assert int(restored.step) == 20
    assert "checkpoint 30 is damaged" in capsys.readouterr().err


def test_checkpoints_of_another_shape_are_refused_and_kept(tmp_path):
    save(tmp_path, [0.1, 0.2, 0.3])
    before = sorted(path.name for path in tmp_path.iterdir())
    other = state(0).replace(params={"weight": jnp.zeros((3, 2))})
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(UserError, match=r"no checkpoint in .* can be used"):
        checkpoints.restore_latest(other)
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_damaged_checkpoint_is_renamed_and_its_step_can_be_saved_again(tmp_path):
    save(tmp_path, [0.1, 0.2, 0.3])
    spoil(tmp_path / "30")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore_latest(state(0))[1] == meta(2)
    assert (tmp_path / "damaged-30").is_dir()
    checkpoints.save(state(30), meta(3), row(3, 0.3))
    checkpoints.close()
    assert Checkpoints(tmp_path).restore_latest(state(0))[1] == meta(3)


def test_a_damaged_best_checkpoint_is_replaced_by_the_next_best(tmp_path):
    save(tmp_path, [0.9, 0.2, 0.3])
    spoil(tmp_path / "10")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.restore_best(state(0))[1] == meta(3)
    checkpoints.close()


def test_weights_are_restored_without_the_optimizer(tmp_path):
    save(tmp_path, [0.1, 0.9, 0.5])
    like = {"step": jnp.int32(0), "params": state(0).params, "batch_stats": state(0).batch_stats}
    checkpoints = Checkpoints(tmp_path, read_only=True)
    weights, found = checkpoints.restore_best(like)
    checkpoints.close()
    assert found == meta(2)
    assert weights.keys() == like.keys()
    for name in like:
        expected = getattr(state(20), name)
        for a, b in zip(*map(jax.tree.leaves, (weights[name], expected)), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_checkpoint_of_another_format_is_refused_and_kept(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints_lib, "FORMAT", 2)
        save(tmp_path, [0.1, 0.2])
    before = sorted(path.name for path in tmp_path.iterdir())
    checkpoints = Checkpoints(tmp_path)
    for restore in (checkpoints.restore_latest, checkpoints.restore_best):
        with pytest.raises(
            UserError, match=r"the checkpoint has format 2, but meljax .* reads format 1"
        ):
            restore(state(0))
    with pytest.raises(UserError, match="has format 2"):
        checkpoints.best_meta()
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_save_into_an_unwritable_folder_fails_at_once(tmp_path):
    """Otherwise orbax's threads wait 300 s and leave coroutines that fail a later test."""
    checkpoints = Checkpoints(tmp_path / "run")
    checkpoints.save(state(10), meta(1), row(1, 0.1))
    checkpoints.wait()
    before = set(threading.enumerate())
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "run").write_text("a file instead of the folder")
    with (
        pytest.raises(UserError, match="a checkpoint could not be written"),
        contextlib.closing(checkpoints),
    ):
        checkpoints.save(state(20), meta(2), row(2, 0.2))
    assert set(threading.enumerate()) <= before


def test_the_crop_of_a_front_end_is_kept_and_older_checkpoints_have_none():
    cropped = dataclasses.replace(
        meta(1), frontend=Frontend("image", 9, 9, 1, 0, MelConfig(), crop=(1, 2, 3, 4))
    )
    saved = json.loads(json.dumps(cropped.to_json()))
    assert Meta.from_json(saved) == cropped
    assert hash(Meta.from_json(saved).frontend) == hash(cropped.frontend)
    del saved["frontend"]["crop"]
    assert Meta.from_json(saved).frontend.crop == (0, 0, 0, 0)
