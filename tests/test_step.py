import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config, tone

from meljax.config import MaskConfig
from meljax.data.batches import PADDING, DeviceSet, epoch_order, make_device_set
from meljax.evaluation import metrics
from meljax.evaluation.metrics import Metrics
from meljax.features.frontend import Frontend
from meljax.models.registry import build
from meljax.training.rng import Stream, key
from meljax.training.state import Task, init_state, make_optimizer
from meljax.training.step import train_epoch, train_step
from meljax.util.devices import make_mesh, replicated
from meljax.workflows.finish import masked_images

NAMES = ("ann", "bob", "cy")
CLASSES = 3
CONFIG = small_config()


@functools.cache
def make_task(devices: int = 1, mask: MaskConfig = CONFIG.mask) -> Task:
    mesh = make_mesh(jax.local_devices()[:devices])
    frontend = Frontend("audio", 1600, 0, 1, 0, CONFIG.mel)
    network = build(CONFIG.model, CLASSES)
    return Task(network, frontend, mask, make_optimizer(CONFIG.train, 21), NAMES, mesh)


def make_data(task: Task, items: int = 21) -> DeviceSet:
    clips = [
        (tone(150 * 2 ** (i % CLASSES), 0.15 + 0.01 * i, i) * 20_000).astype(np.int16)
        for i in range(items)
    ]
    labels = np.arange(items) % CLASSES
    return make_device_set(clips, labels, 1600, replicated(task.mesh))


@functools.cache
def run(task: Task, count: int, batch: int = 8, again: bool = False):
    """Takes `count` steps; returns the state and each step's loss."""
    data = make_data(task)
    place = replicated(task.mesh)
    state = init_state(task, key(0, Stream.INIT))
    order = epoch_order(key(0, Stream.ORDER, 1), len(data), batch, task.mesh.size)
    order = jax.device_put(order, place)
    losses = []
    for _ in range(count):
        measured = jax.device_put(Metrics.zero(CLASSES), place)
        masks_key = jax.device_put(key(0, Stream.AUGMENT), place)
        state, measured = train_step(task, state, measured, data, order, masks_key)
        losses.append(float(measured.loss))
    return state, losses


def test_the_number_of_devices_has_no_effect():
    one, losses = run(make_task(1), 5)
    four, same = run(make_task(4), 5)
    np.testing.assert_allclose(losses, same, atol=1e-5)
    for a, b in zip(
        jax.tree.leaves(one.batch_stats), jax.tree.leaves(four.batch_stats), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_a_batch_size_that_the_devices_do_not_divide_has_no_effect():
    # On 4 devices, batches of 6 are padded to 8.
    np.testing.assert_allclose(run(make_task(1), 3, 6)[1], run(make_task(4), 3, 6)[1], atol=1e-5)


def test_the_same_seed_gives_the_same_bits():
    one, two = run(make_task(), 5)[0], run(make_task(), 5, again=True)[0]
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_steps_in_one_program_equals_single_steps():
    devices = 4
    task = make_task(devices)
    data, place = make_data(task), replicated(task.mesh)
    order = epoch_order(key(0, Stream.ORDER, 1), len(data), 8, devices)
    masks_key = jax.device_put(key(0, Stream.AUGMENT), place)

    def begin():
        state = init_state(task, key(0, Stream.INIT))
        return state, jax.device_put(Metrics.zero(CLASSES), place)

    order = jax.device_put(order, place)
    state, measured = begin()
    for _ in range(len(order)):
        state, measured = train_step(task, state, measured, data, order, masks_key)
    whole, same = train_epoch(task, *begin(), data, order, masks_key)
    assert int(whole.step) == int(state.step) == len(order)
    measured, same = metrics.fetch(measured, same)
    assert measured.count == same.count == len(data)
    np.testing.assert_allclose(same.loss, measured.loss, rtol=1e-4)
    np.testing.assert_array_equal(same.confusion.sum(1), measured.confusion.sum(1))
    for a, b in zip(
        jax.tree.leaves(whole.batch_stats), jax.tree.leaves(state.batch_stats), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("devices", [1, 4])
def test_masks_differ_between_examples_on_any_number_of_devices(devices):
    task = make_task(devices)
    data = make_data(task)
    same_item, masks_key = np.zeros(8, np.int32), key(0, Stream.AUGMENT, 0)
    _, masked = jax.device_get(masked_images(task, data, same_item, masks_key))
    assert len({image.tobytes() for image in masked}) > 4


def test_every_step_has_different_windows_and_masks():
    task = make_task()
    data, row = make_data(task), jax.device_put(np.arange(8)[None].astype(np.int32))

    def loss_at(step: int) -> float:
        state = init_state(task, key(0, Stream.INIT))
        state = state.replace(step=jax.device_put(np.int32(step), replicated(task.mesh)))
        order = jax.device_put(row, replicated(task.mesh))
        measured = jax.device_put(Metrics.zero(CLASSES), replicated(task.mesh))
        masks_key = jax.device_put(key(0, Stream.AUGMENT), replicated(task.mesh))
        measured = train_step(task, state, measured, data, order, masks_key)[1]
        return float(measured.loss)

    assert loss_at(3) == loss_at(3)
    assert loss_at(3) != loss_at(4)


def test_padding_has_no_effect_on_the_weights():
    """A step on three items in a batch of eight equals a step on a batch of three."""
    task = make_task(mask=dataclasses.replace(CONFIG.mask, freq_count=0, time_count=0))
    data = make_data(task)
    place = replicated(task.mesh)

    def step(row: list[int]):
        order = jax.device_put(np.array([row], np.int32), place)
        state = init_state(task, key(0, Stream.INIT))
        return train_step(task, state, Metrics.zero(CLASSES), data, order, key(0, Stream.AUGMENT))

    padded, measured = step([4, 9, 11] + [PADDING] * 5)
    alone, expected = step([4, 9, 11])
    assert measured.count == expected.count == 3
    np.testing.assert_allclose(measured.loss_sum, expected.loss_sum, rtol=1e-6)
    for a, b in zip(
        jax.tree.leaves(padded.batch_stats), jax.tree.leaves(alone.batch_stats), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    # Adam's first step is the gradient's sign; its first moment is the gradient itself.
    moment = [jax.tree.leaves(state.opt_state[0].mu) for state in (padded, alone)]
    for a, b in zip(*moment, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6)


def test_an_steps_in_one_program_skips_the_steps_after_a_bad_loss():
    task = make_task()
    data, place = make_data(task), replicated(task.mesh)
    order = jax.device_put(epoch_order(key(0, Stream.ORDER, 1), len(data), 8, 1), place)
    state = init_state(task, key(0, Stream.INIT))
    broken = state.replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    measured = jax.device_put(Metrics.zero(CLASSES), place)
    after, measured = train_epoch(task, broken, measured, data, order, key(0, Stream.AUGMENT))
    assert int(after.step) == 1 < len(order)
    assert int(measured.first_bad_step) == 0
    assert int(measured.count) == 8
