import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config, tone

from meljax import backend, metrics, models, optim, scoring, steps
from meljax.config import MaskConfig
from meljax.data import feed
from meljax.frontend import Frontend
from meljax.mesh import make_mesh, replicated, split_batch
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
    return feed.make_device_set(clips, None, labels, 1600, replicated(task.mesh))


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
        losses.append(float(measured.loss))
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


def test_an_epoch_in_one_program_is_its_steps_one_by_one():
    devices = 4
    task = make_task(devices)
    data, place = make_data(task), replicated(task.mesh)
    order = feed.epoch_order(key(0, Stream.ORDER, 1), len(data), 8, devices)
    masks_key = jax.device_put(key(0, Stream.AUGMENT), place)

    def begin():
        state = steps.init_state(task, key(0, Stream.INIT))
        return state, jax.device_put(Metrics.zero(CLASSES), place)

    order = jax.device_put(order, place)
    state, measured = begin()
    for _ in range(len(order)):
        state, measured = steps.train_step(task, state, measured, data, order, masks_key)
    whole, same = steps.train_epoch(task, *begin(), data, order, masks_key)
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
        return float(measured.loss)

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


@pytest.mark.parametrize(("items", "devices"), [(1, 4), (8, 1), (60, 4)])
def test_every_item_is_scored_once_by_the_mean_of_its_windows(items, devices):
    task = make_task(devices)
    data = make_data(task, items)
    state = steps.init_state(task, key(0, Stream.INIT))
    order = scoring.scoring_order(task, data)
    measured, _ = scoring.score(task, state, data, order)
    assert int(measured.count) == items
    labels = np.arange(items) % CLASSES
    np.testing.assert_array_equal(measured.confusion.sum(1), np.bincount(labels, minlength=3))
    given = {"side": "val", "epoch": 1, "chosen": False, "temperature": 1.0}
    scores = scoring.scored(task, state, data, **given)
    assert len(scores.logits) == len(order.item)
    assert (len(order.item) > items) == (items == 60)
    assert float(measured.loss) == pytest.approx(scores.loss, rel=1e-5)
    np.testing.assert_array_equal(measured.confusion, scores.confusion)


def test_neither_company_nor_place_in_the_batch_changes_a_bit():
    task = make_task(4)
    data, state = make_data(task), steps.init_state(task, key(0, Stream.INIT))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    order = feed.window_order(np.asarray(data.length), 1600, backend.scoring_batch(4))
    place = jax.device_put(order, replicated(task.mesh))
    seen = np.asarray(steps.scoring_windows(data, place, 0, 1600, task.mesh))

    def logits(windows):
        placed = jax.device_put(windows, split_batch(task.mesh))
        return np.asarray(steps.logits(task.network, task.frontend, task.mesh, variables, placed))

    moved = np.zeros_like(seen)
    moved[[2, 1]] = seen[[0, 3]]
    np.testing.assert_array_equal(logits(seen)[[0, 3]], logits(moved)[[2, 1]])


def test_masks_play_no_part_in_scores():
    task = make_task()
    data = make_data(task)
    unmasked = make_task(mask=MaskConfig(freq_count=0, time_count=0))
    state = steps.init_state(task, key(0, Stream.INIT))
    order = scoring.scoring_order(task, data)
    _, one = scoring.score(task, state, data, order)
    _, two = scoring.score(unmasked, state, data, order)
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_evidence_is_grad_cam(name):
    """The closed form equals the gradient of the logit by the last maps."""
    task = make_task()
    config = dataclasses.replace(CONFIG.model, name=name)
    task = task._replace(network=models.build(config, CLASSES))
    data, state = make_data(task), steps.init_state(task, key(0, Stream.INIT))
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    seen = feed.cut(data, jnp.array([1, 20]), jnp.array([0, 5]), 1600)
    images, heat = scoring.evidence(task, variables, seen, jnp.array([2, 0]))
    assert heat.shape == images.shape[:3]
    _, sown = task.network.apply(
        variables, images, jnp.ones(2), train=False, mutable=["intermediates"]
    )
    maps = sown["intermediates"]["features"][0]
    fc = state.params["fc"]
    gradient = jax.grad(lambda x: (x.mean((1, 2)) @ fc["kernel"])[[0, 1], [2, 0]].sum())(maps)
    weights = gradient.mean((1, 2), keepdims=True)
    expected = jax.nn.relu((maps * weights).sum(-1))
    expected = jax.image.resize(expected, heat.shape, "linear")
    expected /= np.maximum(expected.max((1, 2), keepdims=True), 1e-30)
    np.testing.assert_allclose(heat, expected, atol=1e-4)
    assert 0 <= heat.min() <= heat.max() <= 1.0001
