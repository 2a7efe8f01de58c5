"""The loop over epochs: what is counted and how it is timed."""

import types

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config
from test_step import make_data, make_task, spoil

from meljax.training import loop
from meljax.training.rng import Stream, key
from meljax.training.state import init_state

CONFIG = small_config(train__epochs=2, train__batch_size=6).train


def begin():
    """Returns a task, 21 items for training and 8 for validation, and the first state."""
    task = make_task()
    sets = {"train": make_data(task), "val": make_data(task, 8)}
    return task, sets, init_state(task, key(0, Stream.INIT))


def test_the_speed_is_that_of_training_without_the_scoring_after_it(monkeypatch):
    """Each of four steps takes a second, scoring takes five."""
    now = [100.0]
    monkeypatch.setattr(loop, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    score_split = loop.score_split

    def score_slowly(*arguments):
        now[0] += 5
        return score_split(*arguments)

    monkeypatch.setattr(loop, "score_split", score_slowly)
    told = []

    def step_done(epoch, images, state):
        now[0] += 1
        told.append((epoch, images, int(state.metrics.count)))

    task, sets, state = begin()
    start = loop.Start(state.replace(step=jnp.int32(4)), 1)
    (epoch,) = loop.train_epochs(task, CONFIG, sets, start, step_done)
    assert told == [(2, 6, 6), (2, 6, 12), (2, 6, 18), (2, 3, 21)]
    assert epoch.row["images_per_second"] == 21 / 4
    assert epoch.row["seconds"] == 9
    assert (epoch.row["epoch"], epoch.row["step"]) == (2, 8)
    assert epoch.confusion.sum() == 8


def test_a_bad_step_within_a_program_stops_with_its_epoch_and_items(monkeypatch):
    """The second epoch, which is one program, ends at its first step."""
    monkeypatch.setattr(loop.devices, "steps_in_one_program", lambda: True)
    orders, train_steps = [], loop.train_steps

    def spoiled_in_the_second_epoch(task, state, data, order, *rest):
        orders.append(np.asarray(order))
        state = spoil(state, "a NaN weight") if len(orders) == 2 else state
        return train_steps(task, state, data, order, *rest)

    monkeypatch.setattr(loop, "train_steps", spoiled_in_the_second_epoch)
    task, sets, state = begin()
    epochs = loop.train_epochs(task, CONFIG, sets, loop.Start(state), lambda *_: None)
    assert next(epochs).row["step"] == 4
    with pytest.raises(loop.NotFiniteError) as caught:
        next(epochs)
    assert caught.value.epoch == 2
    assert int(caught.value.state.step) == 4
    np.testing.assert_array_equal(caught.value.items, orders[1][0])
