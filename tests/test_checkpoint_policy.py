import contextlib
import shutil

import jax
import numpy as np
import pytest
from test_checkpoints import meta, row, state

from meljax.training.checkpoint_policy import SECONDS, EpochSaver
from meljax.training.checkpoints import Checkpoints
from meljax.util.errors import UserError
from meljax.util.progress import ending


def saved(directory) -> list[int]:
    return sorted(int(path.name) // 10 for path in directory.iterdir() if path.name.isdigit())


def take(saver: EpochSaver, epoch: int, accuracy: float) -> None:
    """Passes an epoch to the saver, then destroys its state as the next epoch does."""
    reached = state(epoch * 10)
    saver.epoch_done(reached, meta(epoch), row(epoch, accuracy))
    for leaf in jax.tree.leaves(reached):
        leaf.delete()


class Recorded(Checkpoints):
    """Checkpoints that record which epochs were saved."""

    def __init__(self, directory):
        super().__init__(directory)
        self.asked = []

    def save(self, state, meta, scores):
        self.asked.append(scores["epoch"])
        super().save(state, meta, scores)


@contextlib.contextmanager
def saving(*arguments, **named):
    saver = EpochSaver(*arguments, **named)
    with ending(saver.close):
        yield saver


@pytest.fixture
def checkpoints(tmp_path):
    manager = Recorded(tmp_path)
    yield manager
    manager.close()


def test_short_epochs_are_saved_at_intervals_with_the_best_before_the_latest(tmp_path, checkpoints):
    now = [0.0]
    with saving(checkpoints, clock=lambda: now[0]) as saver:
        for epoch, accuracy in enumerate([0.1, 0.2, 0.9, 0.3], 1):
            take(saver, epoch, accuracy)
        assert checkpoints.asked == [1]
        now[0] = SECONDS
        take(saver, 5, 0.4)
        assert checkpoints.asked == [1, 3, 5]
        for epoch, accuracy in ((6, 0.5), (7, 0.6)):
            take(saver, epoch, accuracy)
        now[0] = 2 * SECONDS
        take(saver, 8, 0.95)
        assert checkpoints.asked == [1, 3, 5, 8]
        take(saver, 9, 0.7)
    assert checkpoints.asked == [1, 3, 5, 8, 9]
    assert saved(tmp_path) == [8, 9]
    best, found = checkpoints.restore_best(state(0))
    assert found == meta(8)
    for a, b in zip(jax.tree.leaves(best), jax.tree.leaves(state(80)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_long_epochs_are_all_saved(checkpoints):
    now = [0.0]
    with saving(checkpoints, clock=lambda: now[0]) as saver:
        for epoch, accuracy in enumerate([0.1, 0.9, 0.3], 1):
            take(saver, epoch, accuracy)
            assert checkpoints.asked[-1] == epoch
            now[0] += SECONDS
    assert checkpoints.asked == [1, 2, 3]


def test_the_best_epoch_of_an_earlier_session_is_remembered(tmp_path, checkpoints):
    with saving(checkpoints) as first:
        take(first, 1, 0.9)
    with saving(checkpoints, clock=lambda: 0.0) as second:
        for epoch, accuracy in ((2, 0.5), (3, 0.6), (4, 0.5)):
            take(second, epoch, accuracy)
    assert checkpoints.asked == [1, 2, 4]
    assert saved(tmp_path) == [1, 2, 4]


def test_waiting_epochs_are_saved_after_an_error(tmp_path, checkpoints):
    def session():
        with saving(checkpoints, clock=lambda: 0.0) as saver:
            for epoch in (1, 2, 3):
                take(saver, epoch, 0.5 - 0.1 * epoch)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session()
    assert saved(tmp_path) == [1, 3]


def test_a_signal_while_saving_loses_no_waiting_epoch(tmp_path, checkpoints, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    def session():
        now = [0.0]
        with saving(checkpoints, clock=lambda: now[0]) as saver:
            for epoch in (1, 2, 3):
                take(saver, epoch, 0.1 * epoch)
            now[0] = SECONDS
            with monkeypatch.context() as patch:
                patch.setattr(checkpoints, "save", interrupted)
                saver.epoch_done(state(40), meta(4), row(4, 0.2))

    with pytest.raises(KeyboardInterrupt):
        session()
    assert saved(tmp_path) == [3, 4]


@pytest.mark.parametrize("failed", [True, False])
def test_a_write_error_hides_no_other_error(tmp_path, checkpoints, failed, capsys):
    expected = (
        pytest.raises(ZeroDivisionError)
        if failed
        else pytest.raises(UserError, match="could not be written")
    )
    with expected, saving(checkpoints, clock=lambda: 0.0) as saver:
        take(saver, 1, 0.5)
        checkpoints.wait()
        take(saver, 2, 0.6)
        shutil.rmtree(tmp_path)
        tmp_path.write_text("a file instead of the folder")
        if failed:
            raise ZeroDivisionError
    assert ("WARNING: a checkpoint could not be written" in capsys.readouterr().err) == failed
