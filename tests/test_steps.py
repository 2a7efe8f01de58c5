import dataclasses
import functools

import jax
import numpy as np
import pytest
from conftest import small_config, tone

from meljax import models, optim, scoring, steps
from meljax.config import MaskConfig
from meljax.data import feed
from meljax.frontend import Frontend
from meljax.mesh import make_mesh, replicated
from meljax.metrics import Metrics
from meljax.streams import Stream, key

CLASSES = 3
CONFIG = small_config()


@functools.cache
def make_task(devices: int = 1, mask: MaskConfig = CONFIG.mask) -> steps.Task:
    mesh = make_mesh(jax.local_devices()[:devices])
    frontend = Frontend("sound", 1600, 0, 1, 0, CONFIG.mel)
    network = models.build(CONFIG.model, CLASSES)
    return steps.Task(network, frontend, mask, optim.optimiser(CONFIG.train, 21), CLASSES, mesh)


def make_data(task: steps.Task, items: int = 21) -> feed.DeviceSet:
    clips = [
        (tone(150 * 2 ** (i % CLASSES), 0.15 + 0.01 * i, i) * 20_000).astype(np.int16)
        for i in range(items)
    ]
    labels = np.arange(items) % CLASSES
    return feed.make_device_set(clips, None, labels, replicated(task.mesh))


@functools.cache
def run(task: steps.Task, count: int, batch: int = 8, again: bool = False):
    """Takes `count` steps; returns the state and each step's loss."""
    data = make_data(task)
    place = replicated(task.mesh)
    state = steps.init_state(task, key(0, Stream.INIT))
    order = feed.epoch_order(key(0, Stream.ORDER, 1), len(data), batch, task.mesh.size)
    order = jax.device_put(order, place)
    losses = []
    for _ in range(count):
        measured = jax.device_put(Metrics.zero(CLASSES), place)
        masks_key = jax.device_put(key(0, Stream.AUGMENT), place)
        state, measured = steps.train_step(task, state, measured, data, order, masks_key)
        losses.append(float(measured.loss.compute()))
    return state, losses


def test_the_number_of_devices_changes_nothing():
    one, losses = run(make_task(1), 5)
    four, same = run(make_task(4), 5)
    np.testing.assert_allclose(losses, same, atol=1e-5)
    for a, b in zip(
        jax.tree.leaves(one.batch_stats), jax.tree.leaves(four.batch_stats), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_batch_that_does_not_divide_by_the_devices_is_the_same_too():
    # 21 items in batches of 8: the third is padded from 5, and every one of 6 from 6 to 8.
    np.testing.assert_allclose(run(make_task(1), 3, 6)[1], run(make_task(4), 3, 6)[1], atol=1e-5)


def test_the_same_seed_gives_the_same_bits():
    one, two = run(make_task(), 5)[0], run(make_task(), 5, again=True)[0]
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("devices", [1, 4])
def test_masks_differ_between_examples_wherever_they_lie(devices):
    task = make_task(devices)
    data = make_data(task)
    same_item, masks_key = np.zeros(8, np.int32), key(0, Stream.AUGMENT, 0)
    _, masked = scoring.masked_pictures(task, data, same_item, masks_key)
    assert len({picture.tobytes() for picture in masked}) > 4


def test_every_step_has_windows_and_masks_of_its_own():
    task = make_task()
    data, row = make_data(task), jax.device_put(np.arange(8)[None].astype(np.int32))

    def loss_at(step: int) -> float:
        state = steps.init_state(task, key(0, Stream.INIT))
        state = state.replace(step=jax.device_put(np.int32(step), replicated(task.mesh)))
        order = jax.device_put(row, replicated(task.mesh))
        measured = jax.device_put(Metrics.zero(CLASSES), replicated(task.mesh))
        masks_key = jax.device_put(key(0, Stream.AUGMENT), replicated(task.mesh))
        measured = steps.train_step(task, state, measured, data, order, masks_key)[1]
        return float(measured.loss.compute())

    assert loss_at(3) == loss_at(3)
    assert loss_at(3) != loss_at(4)


def test_padding_does_not_move_the_weights():
    """Three items in a batch of eight step like three items alone."""
    task = make_task(mask=dataclasses.replace(CONFIG.mask, freq_count=0, time_count=0))
    data = make_data(task)
    place = replicated(task.mesh)

    def step(row: list[int]):
        order = jax.device_put(np.array([row], np.int32), place)
        state = steps.init_state(task, key(0, Stream.INIT))
        return steps.train_step(
            task, state, Metrics.zero(CLASSES), data, order, key(0, Stream.AUGMENT)
        )

    padded, measured = step([4, 9, 11] + [feed.PADDING] * 5)
    alone, expected = step([4, 9, 11])
    assert measured.loss.count == expected.loss.count == 3
    np.testing.assert_allclose(measured.loss.total, expected.loss.total, rtol=1e-6)
    for a, b in zip(
        jax.tree.leaves(padded.batch_stats), jax.tree.leaves(alone.batch_stats), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    # Adam's first step is the gradient's sign; its first moment is the gradient itself.
    moment = [jax.tree.leaves(state.opt_state[0].mu) for state in (padded, alone)]
    for a, b in zip(*moment, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("items", [1, 64, 130])
def test_every_item_is_scored_exactly_once(items):
    task = make_task(4)
    data = make_data(task, items)
    state = steps.init_state(task, key(0, Stream.INIT))
    order = scoring.scoring_order(task, items)
    measured, logits = scoring.score(task, state, data, order)
    assert int(measured.loss.count) == items
    assert int(measured.confusion.counts.sum()) == items
    labels = np.arange(items) % CLASSES
    np.testing.assert_array_equal(
        measured.confusion.counts.sum(1), np.bincount(labels, minlength=3)
    )
    probabilities = scoring.probabilities(logits, items)
    losses = -np.log(probabilities[np.arange(items), labels])
    assert float(measured.loss.compute()) == pytest.approx(losses.mean(), rel=1e-5)


def test_scoring_draws_nothing_and_masks_nothing():
    task = make_task()
    data = make_data(task)
    seen = scoring.seen_pictures(task, data, np.arange(4, dtype=np.int32))
    unmasked = make_task(mask=MaskConfig(freq_count=0, time_count=0))
    state = steps.init_state(task, key(0, Stream.INIT))
    order = scoring.scoring_order(task, len(data))
    _, one = scoring.score(task, state, data, order)
    _, two = scoring.score(unmasked, state, data, order)
    np.testing.assert_array_equal(one, two)
    assert seen.min() >= 0
    assert seen.max() <= 1
