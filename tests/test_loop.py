"""The loop over epochs: what is counted and how it is timed."""

import types

import jax.numpy as jnp
from conftest import small_config
from test_step import make_data, make_task

from meljax.training import loop
from meljax.training.rng import Stream, key
from meljax.training.state import init_state


def test_the_speed_is_that_of_training_without_the_scoring_after_it(monkeypatch):
    """Each of three steps takes a second, scoring takes five."""
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

    task, config = make_task(), small_config(train__epochs=2, train__batch_size=8).train
    sets = {"train": make_data(task), "val": make_data(task, 8)}
    state = init_state(task, key(0, Stream.INIT)).replace(step=jnp.int32(3))
    (epoch,) = loop.train_epochs(task, config, sets, loop.Start(state, 1), step_done)
    assert told == [(2, 8, 8), (2, 8, 16), (2, 5, 21)]
    assert epoch.row["images_per_second"] == 21 / 3
    assert epoch.row["seconds"] == 8
    assert (epoch.row["epoch"], epoch.row["step"]) == (2, 6)
    assert epoch.confusion.sum() == 8
