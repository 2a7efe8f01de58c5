"""The scorer: every window once, and the same bits from any source."""

import dataclasses
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tone
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from test_step import CLASSES, NAMES, make_data, make_task

from meljax.config import MaskConfig
from meljax.data.batches import DeviceSet, make_device_set
from meljax.data.dataset import Dataset
from meljax.data.manifest import Bad, Item
from meljax.evaluation.calibration import Temperature
from meljax.evaluation.forward import window_logits
from meljax.evaluation.grad_cam import evidence
from meljax.evaluation.mistakes import worst_mistakes
from meljax.evaluation.scorer import Source, cut_row, score_split, score_stream, window_order
from meljax.evaluation.scores import Scored, score_weights
from meljax.features.samples import to_float
from meljax.training.rng import Stream, key
from meljax.training.state import init_state, model_of
from meljax.training.task_setup import make_device_sets
from meljax.util import devices
from meljax.util.devices import replicated, split_batch
from meljax.util.errors import BadFileError

pytestmark = pytest.mark.accelerator


def make_model(task):
    return model_of(task, init_state(task, key(0, Stream.INIT)))


def test_window_order_follows_the_items(monkeypatch):
    monkeypatch.setattr(devices, "scoring_batch", lambda count: 4)
    model = make_model(make_task())
    model = model._replace(frontend=dataclasses.replace(model.frontend, window=6))
    items = [np.ones(length, np.int16) for length in (6, 12, 3)]
    data = make_device_set(items, np.zeros(3, np.int32), 6, replicated(model.mesh))
    order = window_order(model, data)
    np.testing.assert_array_equal(order.item, [[0, 1, 1, 1], [2, -1, -1, -1]])
    np.testing.assert_array_equal(order.start, [[0, 0, 3, 6], [-2, 0, 0, 0]])


@pytest.mark.parametrize(("items", "devices"), [(1, 4), (8, 1), (60, 4)])
def test_every_item_is_scored_once_by_the_mean_of_its_windows(items, devices):
    model = make_model(make_task(devices))
    data = make_data(make_task(devices), items)
    order = window_order(model, data)
    measured, _ = jax.device_get(score_split(model, data, order))
    assert int(measured.count) == items
    labels = np.arange(items) % CLASSES
    np.testing.assert_array_equal(measured.confusion.sum(1), np.bincount(labels, minlength=3))
    scores = score_weights(
        model, data, split="val", epoch=1, chosen=False, temperature=Temperature()
    )
    windows = int((order.item >= 0).sum())
    assert len(scores.logits) == windows
    assert (windows > items) == (items == 60)
    assert float(measured.loss) == pytest.approx(scores.loss, rel=1e-5)
    np.testing.assert_array_equal(measured.confusion, scores.confusion)


@pytest.mark.parametrize(("batch", "count"), [(4, 4), (32, 1)])
def test_scores_equal_scikit_learn_for_every_batch_and_device_count(batch, count, monkeypatch):
    monkeypatch.setattr(devices, "scoring_batch", lambda _: batch)
    task = make_task(count)
    data = make_data(task, 61)
    of = {"split": "val", "epoch": 1, "chosen": False}
    scores = score_weights(make_model(task), data, temperature=Temperature(), **of)
    labels, found = np.arange(61) % CLASSES, scores.predictions
    np.testing.assert_array_equal(
        scores.confusion, confusion_matrix(labels, found, labels=[0, 1, 2])
    )
    assert scores.accuracy == accuracy_score(labels, found)
    assert scores.macro_f1 == pytest.approx(f1_score(labels, found, average="macro"), abs=1e-12)


@pytest.mark.parametrize("devices", [1, 4])
def test_a_stream_and_a_split_give_the_same_bits(devices):
    task = make_task(devices)
    model, data = make_model(task), make_data(task, 60)
    scores = score_weights(
        model, data, split="val", epoch=1, chosen=False, temperature=Temperature()
    )
    buffer, offset, length = (np.asarray(x) for x in (data.buffer, data.offset, data.length))
    clips = [buffer[offset[i] : offset[i] + length[i]] for i in range(60)]
    sources = [Source(str(i), lambda clip=clip: clip) for i, clip in enumerate(clips)]
    items = list(score_stream(model, sources))
    assert [item.path for item in items] == [str(i) for i in range(60)]
    np.testing.assert_array_equal(np.concatenate([i.logits for i in items]), scores.logits)


def test_a_stream_yields_bad_files_in_order():
    model = make_model(make_task())
    clip = (tone(200, 0.2, 0) * 20_000).astype(np.int16)

    def bad():
        raise BadFileError("broken")

    good = Source("good", lambda: clip)
    sources = [Bad("first", "gone"), good, Source("bad", bad), good, Bad("last", "gone")]
    found = list(score_stream(model, sources))
    assert [each.path for each in found] == ["first", "good", "bad", "good", "last"]
    assert [each.reason for each in found if isinstance(each, Bad)] == ["gone", "broken", "gone"]
    np.testing.assert_array_equal(found[1].logits, found[3].logits)


def test_bad_files_are_named_where_there_is_nothing_to_score():
    bad = [Bad("first", "gone"), Bad("last", "broken")]
    assert list(score_stream(make_model(make_task()), bad)) == bad


def test_a_file_too_large_for_the_memory_stops_no_stream():
    def huge():
        raise MemoryError

    clip = (tone(200, 0.2, 0) * 20_000).astype(np.int16)
    sources = [Source("huge", huge), Source("good", lambda: clip)]
    huge_one, good = score_stream(make_model(make_task()), sources)
    assert huge_one == Bad("huge", "too large for the available memory")
    assert good.path == "good"


def test_a_stream_reads_only_a_few_files_ahead():
    model = make_model(make_task())
    clip = (tone(200, 0.2, 0) * 20_000).astype(np.int16)
    read, lock = [], threading.Lock()

    def source(i: int) -> Source:
        def load():
            with lock:
                read.append(i)
            return clip

        return Source(str(i), load)

    results = score_stream(model, map(source, range(500)))
    for _ in range(3):
        next(results)
    assert len(read) < 50


def test_other_items_and_the_position_in_the_batch_change_no_bit():
    task = make_task(4)
    model, data = make_model(task), make_data(task, 60)
    order = window_order(model, data)
    seen = np.asarray(cut_row(data, order, 0, 1600, task.mesh))

    def logits(windows):
        placed = jax.device_put(windows, split_batch(task.mesh))
        return np.asarray(
            window_logits(model.network, model.frontend, model.mesh, model.variables, placed)
        )

    moved = np.zeros_like(seen)
    moved[[2, 1]] = seen[[0, 3]]
    np.testing.assert_array_equal(logits(seen)[[0, 3]], logits(moved)[[2, 1]])


def test_scores_are_computed_without_masks():
    task = make_task()
    unmasked = make_task(mask=MaskConfig(freq_count=0, time_count=0))
    data, state = make_data(task, 60), init_state(task, key(0, Stream.INIT))
    order = window_order(model_of(task, state), data)
    _, one = score_split(model_of(task, state), data, order)
    _, two = score_split(model_of(unmasked, state), data, order)
    np.testing.assert_array_equal(one, two)


def test_several_devices_score_one_batch_at_a_time():
    """Concurrent programs on several emulated devices can deadlock."""
    assert devices.batches_in_flight(4) == 1
    assert devices.batches_in_flight(1) == 3


def test_accelerators_queue_all_batches(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert devices.batches_in_flight(1) is devices.batches_in_flight(8) is None


def test_queued_batches_give_the_same_bits(monkeypatch):
    """As on an accelerator, where the next batches are dispatched before one is read."""
    task = make_task()
    model, data = make_model(task), make_data(task, 60)
    order = window_order(model, data)
    _, one_by_one = score_split(model, data, order)
    monkeypatch.setattr(devices, "batches_in_flight", lambda count: None)
    _, queued = score_split(model, data, order)
    np.testing.assert_array_equal(queued, one_by_one)
    clip = (tone(200, 0.2, 0) * 20_000).astype(np.int16)
    sources = [Source(str(i), lambda: clip) for i in range(9)]
    items = list(score_stream(model, sources))
    assert [item.path for item in items] == [str(i) for i in range(9)]
    assert len({item.logits.tobytes() for item in items}) == 1


def make_dataset(lengths: list[int], splits: list[str]) -> Dataset:
    """Returns a dataset with a clip of noise of each length; the classes alternate."""
    clips = [
        np.random.default_rng(i).integers(-9000, 9000, length).astype(np.int16)
        for i, length in enumerate(lengths)
    ]
    items = [Item(f"{i:02}.wav", NAMES[i // 2 % CLASSES]) for i in range(len(clips))]
    return Dataset(
        kind="audio",
        classes=NAMES,
        items=tuple(items),
        splits=tuple(splits),
        digests=("",) * len(items),
        arrays=tuple(clips),
        left_out={},
        skipped=(),
        warnings=(),
    )


def device_set(task, dataset: Dataset, split: str) -> DeviceSet:
    return make_device_sets(task, dataset)[split]


def test_the_worst_mistakes_are_the_most_confident_with_their_clearest_windows():
    """In each clip, one of three windows is the most confident of a wrong class."""
    task = make_task()
    dataset = make_dataset([3200] * 16, ["train", "val"] * 8)
    val = dataset.indices("val")
    labels = dataset.labels(val)
    taken = np.where(np.arange(8) == 5, labels, (labels + 1) % CLASSES)  # the sixth is right
    logits = np.zeros((8, 3, CLASSES), np.float32)
    clearest = np.array([0, 1, 2, 1, 0, 2, 2, 1])
    logits[np.arange(8), clearest, taken] = [2.0, 1.0, 4.0, 3.0, 1.5, 9.0, 2.5, 0.5]
    # A constant added to all logits of a window changes no confidence.
    logits[np.arange(8), (clearest + 1) % 3] += 20
    item = np.repeat(np.arange(8), 3)
    scores = Scored("val", 3, False, labels, logits.reshape(24, CLASSES), item, 2.0)
    model = make_model(task)
    found = worst_mistakes(model, dataset, device_set(task, dataset, "val"), scores, 4)
    expected = [2, 3, 6, 0]
    probabilities = [scores.probabilities[i, taken[i]] for i in expected]
    assert probabilities == sorted(probabilities, reverse=True)
    assert [each.label for each in found] == [dataset.classes[labels[i]] for i in expected]
    found = [each.seen for each in found]
    assert [each.path for each in found] == [dataset.items[val[i]].path for i in expected]
    assert [each.target for each in found] == [dataset.classes[taken[i]] for i in expected]
    assert [each.probability for each in found] == pytest.approx(probabilities)
    assert [each.start for each in found] == [800 * clearest[i] for i in expected]
    seen = [
        to_float(dataset.arrays[val[i]][start : start + 1600])
        for i in expected
        for start in [800 * clearest[i]]
    ]
    images, heat, grid = evidence(model, jnp.stack(seen), jnp.asarray(taken[expected]))
    for each, window, image, warmth in zip(found, seen, images, heat, strict=True):
        assert each.grid == grid
        np.testing.assert_array_equal(each.samples, window)
        np.testing.assert_allclose(each.image, image, atol=1e-5)
        np.testing.assert_allclose(each.evidence, warmth, atol=1e-5)
    few = dataclasses.replace(scores, labels=np.where(np.arange(8) < 2, labels, taken))
    found = worst_mistakes(model, dataset, device_set(task, dataset, "val"), few, 4)
    assert [each.seen.path for each in found] == [dataset.items[val[i]].path for i in (0, 1)]
    unscored = (int(labels[expected[0]]),)
    data = device_set(task, dataset, "val")
    left = dataclasses.replace(scores, unscored=unscored)
    found = worst_mistakes(model, dataset, data, left, 4)
    assert found
    assert all(dataset.classes.index(each.label) not in unscored for each in found)
    # Other weights predict the same of the items 0 to 3, and class 0 of all others.
    other = logits.copy()
    other[4:, :] = 0
    known = dataclasses.replace(scores, logits=other.reshape(24, CLASSES))
    data = device_set(task, dataset, "val")
    found = worst_mistakes(model, dataset, data, scores, 4, known=known)
    changed = np.flatnonzero((known.predictions != scores.predictions) & ~scores.right)
    assert {each.seen.path for each in found} == {dataset.items[val[i]].path for i in changed}
    assert changed.size
    assert changed.min() >= 4
