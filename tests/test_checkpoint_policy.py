import contextlib
import shutil

import jax
import pytest
from test_checkpoints import assert_same_arrays, meta, row, saved, state

from meljax.training.checkpoint_policy import SECONDS, Saver
from meljax.training.checkpoints import Checkpoints
from meljax.util.errors import UserError
from meljax.util.progress import ending


def take(saver: Saver, epoch: int, accuracy: float) -> None:
    """Passes an epoch to the saver, then destroys its state as the next epoch does."""
    reached = state(epoch * 10)
    saver.epoch_done(reached, row(epoch, accuracy))
    destroy(reached)


def destroy(reached) -> None:
    for leaf in jax.tree.leaves(reached):
        leaf.delete()


class Recorded(Checkpoints):
    """Checkpoints that record which steps were saved."""

    def __init__(self, directory):
        super().__init__(directory)
        self.asked = []

    def save(self, state, meta):
        self.asked.append(int(state.step))
        super().save(state, meta)


class Clock:
    """A clock that the test sets."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@contextlib.contextmanager
def saving(checkpoints, clock, begun=(), save_every: float = 600.0):
    saver = Saver(checkpoints, meta(*begun), save_every, clock)
    with ending(saver.close):
        yield saver


@pytest.fixture
def checkpoints(tmp_path):
    manager = Recorded(tmp_path)
    yield manager
    manager.close()


@pytest.fixture
def clock():
    return Clock()


def test_short_epochs_are_saved_at_intervals_with_the_best_before_the_latest(
    tmp_path, checkpoints, clock
):
    accuracies = [0.1, 0.2, 0.9, 0.3, 0.4, 0.5, 0.6, 0.95, 0.7]
    with saving(checkpoints, clock) as saver:
        for epoch in (1, 2, 3, 4):
            take(saver, epoch, accuracies[epoch - 1])
        assert checkpoints.asked == [10]
        clock.now = SECONDS
        take(saver, 5, 0.4)
        assert checkpoints.asked == [10, 30, 50]
        for epoch in (6, 7):
            take(saver, epoch, accuracies[epoch - 1])
        clock.now = 2 * SECONDS
        take(saver, 8, 0.95)
        assert checkpoints.asked == [10, 30, 50, 80]
        take(saver, 9, 0.7)
    assert checkpoints.asked == [10, 30, 50, 80, 90]
    assert saved(tmp_path) == [80, 90]
    best, found = checkpoints.restore_best(state(0))
    assert found == meta(*accuracies[:8])
    assert_same_arrays(best, state(80))


def test_long_epochs_are_all_saved(checkpoints, clock):
    with saving(checkpoints, clock) as saver:
        for epoch, accuracy in enumerate([0.1, 0.9, 0.3], 1):
            take(saver, epoch, accuracy)
            assert checkpoints.asked[-1] == 10 * epoch
            clock.now += SECONDS
    assert checkpoints.asked == [10, 20, 30]


def test_steps_within_long_epochs_are_saved(tmp_path, checkpoints, clock):
    with saving(checkpoints, clock, save_every=60.0) as saver:
        for step in range(1, 8):
            clock.now += 25
            reached = state(step)
            saver.step_done(reached)
            if step < 7:
                destroy(reached)
        assert checkpoints.asked == [3, 6]
    assert checkpoints.asked == [3, 6, 7]
    restored, found = checkpoints.restore_latest(state(0))
    assert_same_arrays(restored, state(7))
    assert found.seconds == 7 * 25
    assert saved(tmp_path) == [7]


def test_the_time_of_an_epoch_continues_after_a_stop(checkpoints, clock):
    for step in (3, 5):
        _, before = checkpoints.restore_latest(state(0)) or (None, meta())
        saver = Saver(checkpoints, before, 600.0, clock)
        clock.now += 10
        saver.step_done(state(step))
        saver.close()
    assert checkpoints.restore_latest(state(0))[1].seconds == 20


def test_a_stop_saves_the_current_step_and_the_best_epoch(tmp_path, checkpoints, clock):
    with saving(checkpoints, clock) as saver:
        take(saver, 1, 0.1)
        take(saver, 2, 0.9)
        take(saver, 3, 0.2)
        saver.step_done(state(33))
    assert checkpoints.asked == [10, 20, 33]
    assert saved(tmp_path) == [10, 20, 33]


def test_a_state_that_the_next_step_has_overwritten_is_not_saved(checkpoints, clock):
    with saving(checkpoints, clock) as saver:
        take(saver, 1, 0.1)
        take(saver, 2, 0.05)
        reached = state(23)
        saver.step_done(reached)
        destroy(reached)
    assert checkpoints.asked == [10, 20]


def test_the_best_epoch_of_an_earlier_session_is_remembered(tmp_path, checkpoints, clock):
    with saving(checkpoints, clock) as first:
        take(first, 1, 0.9)
    with saving(checkpoints, clock, begun=[0.9]) as second:
        for epoch, accuracy in ((2, 0.5), (3, 0.6), (4, 0.5)):
            take(second, epoch, accuracy)
    assert checkpoints.asked == [10, 20, 40]
    assert saved(tmp_path) == [10, 20, 40]


def test_waiting_epochs_are_saved_after_an_error(tmp_path, checkpoints, clock):
    def session():
        with saving(checkpoints, clock) as saver:
            for epoch in (1, 2, 3):
                take(saver, epoch, 0.5 - 0.1 * epoch)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        session()
    assert saved(tmp_path) == [10, 30]


@pytest.mark.parametrize("failed", [True, False])
def test_a_write_error_hides_no_other_error(tmp_path, checkpoints, clock, failed, capsys):
    expected = (
        pytest.raises(ZeroDivisionError)
        if failed
        else pytest.raises(UserError, match="could not be written")
    )
    with expected, saving(checkpoints, clock) as saver:
        take(saver, 1, 0.5)
        checkpoints.wait()
        take(saver, 2, 0.6)
        shutil.rmtree(tmp_path)
        tmp_path.write_text("a file instead of the folder")
        if failed:
            raise ZeroDivisionError
    assert ("WARNING: a checkpoint could not be written" in capsys.readouterr().err) == failed
