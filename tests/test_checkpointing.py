import jax
import numpy as np
import pytest
from test_checkpoint import meta, row, state

from meljax.checkpoint import Checkpoints
from meljax.checkpointing import SECONDS, EpochSaver


def saved(directory) -> list[int]:
    return sorted(int(path.name) // 10 for path in directory.iterdir() if path.name.isdigit())


def take(saver: EpochSaver, epoch: int, accuracy: float) -> None:
    """An epoch, whose state the next one destroys."""
    reached = state(epoch * 10)
    saver.epoch_done(reached, meta(epoch), row(epoch, accuracy))
    for leaf in jax.tree.leaves(reached):
        leaf.delete()


@pytest.fixture
def checkpoints(tmp_path):
    manager = Checkpoints(tmp_path)
    yield manager
    manager.close()


def test_short_epochs_are_saved_at_times_with_the_best_before_the_latest(tmp_path, checkpoints):
    now = [0.0]
    saver = EpochSaver(checkpoints, [], clock=lambda: now[0])
    for epoch, accuracy in enumerate([0.1, 0.2, 0.9, 0.3], 1):
        take(saver, epoch, accuracy)
    checkpoints.wait()
    assert saved(tmp_path) == [1]
    now[0] = SECONDS
    take(saver, 5, 0.4)
    checkpoints.wait()
    assert saved(tmp_path) == [3, 5]
    for epoch, accuracy in ((6, 0.5), (7, 0.6)):
        take(saver, epoch, accuracy)
    saver.close()
    saver.close()  # there is nothing left to save
    checkpoints.wait()
    assert saved(tmp_path) == [3, 5, 7]
    best, found = checkpoints.restore_best(state(0))
    assert found == meta(3)
    for a, b in zip(jax.tree.leaves(best), jax.tree.leaves(state(30)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_long_epochs_are_all_saved(tmp_path, checkpoints):
    now = [0.0]
    saver = EpochSaver(checkpoints, [], clock=lambda: now[0])
    for epoch, accuracy in enumerate([0.1, 0.9, 0.3], 1):
        take(saver, epoch, accuracy)
        checkpoints.wait()
        assert saved(tmp_path)[-1] == epoch
        now[0] += SECONDS


def test_the_best_of_an_earlier_session_stays_the_best(tmp_path, checkpoints):
    first = EpochSaver(checkpoints, [])
    take(first, 1, 0.9)
    second = EpochSaver(checkpoints, [row(1, 0.9)], clock=lambda: 0.0)
    for epoch in (2, 3, 4):
        take(second, epoch, 0.5)
    second.close()
    checkpoints.wait()
    assert saved(tmp_path) == [1, 2, 4]
