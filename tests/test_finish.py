"""Examples of masked training images."""

import contextlib

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_config
from samples import history, make_info
from test_scorer import device_set, make_dataset, make_model
from test_step import NAMES, make_task

from meljax.config import flat
from meljax.evaluation.grad_cam import evidence
from meljax.features.samples import to_float
from meljax.runs.session import Session
from meljax.training.checkpoint_meta import Meta
from meljax.training.checkpoints import Checkpoints
from meljax.training.rng import Stream, key
from meljax.training.state import init_state
from meljax.training.task_setup import make_device_sets
from meljax.workflows import finish
from meljax.workflows.finish import examples_of


def scored_run(tmp_path, saved_epoch, **keys):
    """Scores a run of two epochs, the second the best; only `saved_epoch` has a checkpoint."""
    task, dataset = make_task(), make_dataset([1600] * 12, ["train", "val", "test"] * 4)
    state = init_state(task, key(0, Stream.INIT))
    rows = [row | {"epoch": number, "step": number} for number, row in enumerate(history(2), 1)]
    checkpoints = Checkpoints(tmp_path)
    saved = tuple(rows[:saved_epoch])
    state = state.replace(step=jnp.int32(saved_epoch))
    checkpoints.save(state, Meta(flat(small_config(**keys)), NAMES, task.frontend, {}, saved))
    checkpoints.wait()
    session = Session(
        config=small_config(**keys),
        workdir=tmp_path,
        info=make_info(NAMES),
        dataset=dataset,
        task=task,
        sets=make_device_sets(task, dataset),
        checkpoints=checkpoints,
    )
    with contextlib.closing(checkpoints):
        return finish.score(session, state, rows)


def test_weights_of_another_epoch_are_not_taken_for_the_best(tmp_path, capsys):
    results = scored_run(tmp_path, saved_epoch=1)
    assert [(each.split, each.chosen) for each in results.scores] == [
        ("val", False),
        ("test", False),
    ]
    assert "the weights of the best epoch (2" in capsys.readouterr().err


def test_test_files_take_the_temperature_of_the_validation_files(tmp_path):
    results = scored_run(tmp_path, saved_epoch=2)
    order = [("val", False), ("val", True), ("test", False), ("test", True)]
    assert [(each.split, each.chosen) for each in results.scores] == order
    assert len({each.temperature for each in results.scores}) == 1


@pytest.mark.parametrize(("counts", "shown"), [((0, 0), 0), ((1, 0), 4), ((0, 1), 4), ((1, 1), 4)])
def test_masks_are_shown_if_there_are_any(tmp_path, counts, shown):
    freq, time = counts
    results = scored_run(tmp_path, 2, mask__freq_count=freq, mask__time_count=time)
    assert len(results.mask_examples) == shown


def test_mask_examples_show_the_named_files():
    task = make_task()
    dataset = make_dataset([1600] * 14, ["val", "train"] * 7)
    train = device_set(task, dataset, "train")
    found = examples_of(task, dataset, train, key(0, Stream.AUGMENT, 0))
    assert [each.path for each in found] == ["01.wav", "05.wav", "09.wav", "13.wav"]
    items = {item.path: i for i, item in enumerate(dataset.items)}
    clips = jnp.stack([to_float(dataset.arrays[items[each.path]]) for each in found])
    images, _, _ = evidence(make_model(task), clips, jnp.zeros(4, jnp.int32))
    for each, image in zip(found, images, strict=True):
        assert each.label == dataset.items[items[each.path]].label
        np.testing.assert_allclose(each.clean, image, atol=1e-4)
        changed = abs(each.masked - each.clean) > 1e-4
        assert not each.masked[changed].any()
    assert any((each.masked != each.clean).any() for each in found)
    other = examples_of(task, dataset, train, key(1, Stream.AUGMENT, 0))
    assert any((a.masked != b.masked).any() for a, b in zip(found, other, strict=True))
