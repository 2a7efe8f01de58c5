import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import small_config, some_devices, tone
from environment import PLATFORM
from small_network import SmallNetwork

from meljax.config import MaskConfig
from meljax.data.batches import PADDING, DeviceSet, epoch_order, make_device_set
from meljax.evaluation import metrics
from meljax.evaluation.metrics import Metrics
from meljax.features.frontend import Frontend
from meljax.models.registry import build
from meljax.training.rng import Stream, key
from meljax.training.state import Task, init_state, make_optimizer
from meljax.training.step import train_step, train_steps
from meljax.util.devices import make_mesh, replicated
from meljax.workflows.finish import masked_images

pytestmark = pytest.mark.accelerator

NAMES = ("ann", "bob", "cy")
CLASSES = 3
CONFIG = small_config()


@functools.cache
def make_task(devices: int = 1, mask: MaskConfig = CONFIG.mask) -> Task:
    mesh = make_mesh(some_devices(devices))
    frontend = Frontend("audio", 1600, 0, 1, 0, CONFIG.mel)
    # A GPU runs the network of a real run.
    network = build(CONFIG.model, CLASSES) if PLATFORM else SmallNetwork(CLASSES)
    return Task(network, frontend, mask, make_optimizer(CONFIG.train, 21), NAMES, mesh)


def make_data(task: Task, items: int = 21) -> DeviceSet:
    clips = [
        (tone(150 * 2 ** (i % CLASSES), 0.15 + 0.01 * i, i) * 20_000).astype(np.int16)
        for i in range(items)
    ]
    labels = np.arange(items) % CLASSES
    return make_device_set(clips, labels, 1600, replicated(task.mesh))


@functools.cache
def run(task: Task, count: int, batch: int, again: bool = False):
    """Takes `count` steps; returns the state and each step's loss."""
    data = make_data(task)
    place = replicated(task.mesh)
    state = init_state(task, key(0, Stream.INIT))
    order = epoch_order(key(0, Stream.ORDER, 1), len(data), batch, task.mesh.size)
    order = jax.device_put(order, place)
    losses = []
    for _ in range(count):
        masks_key = jax.device_put(key(0, Stream.AUGMENT), place)
        state = train_step(task, state, data, order, masks_key)
        losses.append(float(state.metrics.loss))
        state = state.replace(metrics=jax.device_put(Metrics.zero(CLASSES), place))
    return state, losses


def test_the_number_of_devices_has_no_effect():
    """Batches of 6 are padded to 8 on 4 devices."""
    one, losses = run(make_task(1), 5, 6)
    four, same = run(make_task(4), 5, 6)
    np.testing.assert_allclose(losses, same, atol=1e-5)
    for a, b in zip(
        jax.tree.leaves(one.batch_stats), jax.tree.leaves(four.batch_stats), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_same_seed_gives_the_same_bits():
    one, two = run(make_task(), 5, 6)[0], run(make_task(), 5, 6, again=True)[0]
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        np.testing.assert_array_equal(a, b)


def begin(task: Task):
    """Returns a state, the data, the order of an epoch and the key of the masks.

    The order has the same shape as in `run`, so these tests share one compiled step.
    """
    data, place = make_data(task), replicated(task.mesh)
    order = epoch_order(key(0, Stream.ORDER, 1), len(data), 6, task.mesh.size)
    masks_key = jax.device_put(key(0, Stream.AUGMENT), place)
    return init_state(task, key(0, Stream.INIT)), data, jax.device_put(order, place), masks_key


def test_steps_in_one_program_equal_single_steps():
    """In the second epoch, whose random numbers are not those of the first."""
    task = make_task(4)
    begun, *rest = begin(task)
    state, same = (begun.replace(step=jnp.copy(begun.step) + 4) for _ in range(2))
    same = jax.tree.map(jnp.copy, same)
    for _ in range(4):
        state = train_step(task, state, *rest)
    whole = train_steps(task, same, *rest, 8)
    assert int(whole.step) == int(state.step) == 8
    measured, same = metrics.fetch(state.metrics, whole.metrics)
    assert measured.count == same.count == 21
    np.testing.assert_allclose(same.loss, measured.loss, rtol=1e-4)
    np.testing.assert_array_equal(same.confusion.sum(1), measured.confusion.sum(1))
    for a, b in zip(
        jax.tree.leaves(whole.batch_stats), jax.tree.leaves(state.batch_stats), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_the_number_of_steps_in_a_program_has_no_effect():
    task = make_task()
    state, *rest = begin(task)
    parts = train_steps(task, train_steps(task, state, *rest, 1), *rest, 3)
    assert_same_bits(parts, train_steps(task, begin(task)[0], *rest, 3))


def assert_same_bits(one, other) -> None:
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("devices", [1, 4])
def test_masks_differ_between_examples_on_any_number_of_devices(devices):
    task = make_task(devices)
    data = make_data(task)
    same_item, masks_key = np.zeros(8, np.int32), key(0, Stream.AUGMENT, 0)
    _, masked = jax.device_get(masked_images(task, data, same_item, masks_key))
    assert len({image.tobytes() for image in masked}) > 4


def test_every_step_has_different_windows_and_masks():
    task = make_task()
    place = replicated(task.mesh)

    def loss_at(step: int) -> float:
        state, data, _, masks_key = begin(task)
        state = state.replace(step=jax.device_put(np.int32(step), place))
        # All rows are equal, so only the step differs.
        order = jax.device_put(np.tile(np.arange(6, dtype=np.int32), (4, 1)), place)
        return float(train_step(task, state, data, order, masks_key).metrics.loss)

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
        return train_step(task, state, data, order, key(0, Stream.AUGMENT))

    padded, alone = step([4, 9, 11] + [PADDING] * 5), step([4, 9, 11])
    measured, expected = padded.metrics, alone.metrics
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


SPOILED = {
    # The loss is NaN.
    "a NaN weight": ("params", lambda x: x.at[0].set(jnp.nan)),
    # The loss is finite, the square of a gradient overflows.
    "a gradient": ("params", lambda x: x * 1e25),
    # Statistics have no effect on the loss in training.
    "a statistic": ("batch_stats", lambda x: x.at[0].set(jnp.inf)),
}


def spoil(state, what: str):
    """Returns a state whose next step has an infinite or NaN value."""
    where, change = SPOILED[what]
    layer = "fc" if where == "params" else "bn1"
    values = getattr(state, where)
    return state.replace(**{where: values | {layer: jax.tree.map(change, values[layer])}})


def without_metrics(state):
    return jax.device_get((state.params, state.batch_stats, state.opt_state))


@pytest.mark.parametrize("what", SPOILED)
def test_a_step_with_a_bad_value_changes_nothing(what):
    task = make_task()
    state, *rest = begin(task)
    state = spoil(train_step(task, state, *rest), what)
    before = without_metrics(state)
    after = train_step(task, state, *rest)
    assert int(after.step) == 1
    assert int(after.metrics.first_bad_step) == 1
    assert (int(after.metrics.count), int(after.metrics.skipped)) == (6, 0)
    assert_same_bits(without_metrics(after), before)


def test_a_bad_step_ends_a_program_of_many_steps():
    task = make_task()
    state, *rest = begin(task)
    after = train_steps(task, spoil(state, "a NaN weight"), *rest, 3)
    assert int(after.step) == 0
    assert int(after.metrics.first_bad_step) == 0


@pytest.mark.parametrize("together", [True, False])
def test_bad_steps_are_skipped_until_the_third_in_a_row(together):
    task = make_task()._replace(skip_bad=True)
    state, *rest = begin(task)
    state = spoil(state, "a NaN weight")
    before = without_metrics(state)
    if together:
        state = train_steps(task, state, *rest, 3)
    else:
        for _ in range(3):
            state = train_step(task, state, *rest)
    assert int(state.step) == int(state.metrics.first_bad_step) == 2
    assert int(state.metrics.skipped) == int(state.skips) == 2
    assert int(state.metrics.count) == 0
    assert_same_bits(without_metrics(state), before)


def test_training_continues_after_a_skipped_step():
    """The batch with a NaN sample has no effect; the masks of later steps are the same."""
    task = make_task()._replace(skip_bad=True)
    state, data, order, masks_key = begin(task)
    data, order = jax.device_get((data, order))
    data = data.replace(buffer=data.buffer / np.float32(2**15))
    spoiled = data.buffer.copy()
    spoiled[data.offset[order[1, 0]] + 700] = np.nan
    for _ in range(4):  # the last batch is padded
        state = train_step(task, state, data.replace(buffer=spoiled), order, masks_key)
    assert (int(state.step), int(state.skips)) == (4, 0)
    assert (int(state.metrics.skipped), int(state.metrics.count)) == (1, 15)
    assert int(state.metrics.first_bad_step) == metrics.NEVER
    expected = train_step(task, begin(task)[0], data, order, masks_key)
    expected = expected.replace(step=expected.step + 1)
    for _ in range(2):
        expected = train_step(task, expected, data, order, masks_key)
    assert_same_bits(without_metrics(state), without_metrics(expected))


@pytest.mark.parametrize("clip_norm", [0.0, 1.0, 100.0])
def test_gradients_are_clipped_by_their_norm(clip_norm):
    """Adam's first moment is a tenth of the clipped gradient after one step."""
    gradients = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[-4.0]])}  # of norm 5
    optimizer = make_optimizer(small_config(train__clip_norm=clip_norm).train, 21)
    _, after = jax.jit(optimizer.update)(gradients, jax.jit(optimizer.init)(gradients))
    mu = optax.tree_utils.tree_get(after, "mu")
    scale = min(1, clip_norm / 5) if clip_norm else 1
    np.testing.assert_allclose(mu["a"], [0.3 * scale, 0], rtol=1e-6)
    np.testing.assert_allclose(mu["b"], [[-0.4 * scale]], rtol=1e-6)
