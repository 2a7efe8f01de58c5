"""Makes tasks from settings and data."""

import jax.numpy as jnp
import pytest
from conftest import small_config
from test_scorer import make_dataset
from test_step import NAMES

from meljax.config import MelConfig, ModelConfig
from meljax.features.frontend import Frontend
from meljax.models.registry import build
from meljax.training.state import abstract_weights
from meljax.training.task_setup import make_device_sets, make_task
from meljax.util.devices import make_mesh


def test_a_task_depends_on_training_files_only():
    """The window is their median length; their number sets the steps per epoch."""
    dataset = make_dataset([900, 500, 1000, 500, 1100, 500], ["train", "val"] * 3)
    config = small_config(train__batch_size=2, train__learning_rate=0.1, train__lr_decay=0.5)
    task = make_task(config, dataset)
    assert task.frontend.window == 1000
    assert task.classes == NAMES
    state, rates = task.optimizer.init(jnp.float32(0)), []
    for _ in range(3):
        update, state = task.optimizer.update(jnp.float32(1), state, jnp.float32(0))
        rates.append(-float(update))
    assert rates == pytest.approx([0.1, 0.1, 0.05], rel=1e-4)
    sets = make_device_sets(task, dataset)
    assert list(sets) == ["train", "val"]
    for split, lengths in (("train", [900, 1000, 1100]), ("val", [500] * 3)):
        assert sets[split].length.tolist() == lengths
        assert sets[split].label.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "other", [{"learning_rate": 0.1}, {"lr_decay": 0.5}, {"clip_norm": 1.0}, {"batch_size": 1}]
)
def test_equal_settings_give_equal_tasks(other):
    """A process compiles the step of equal tasks once."""
    dataset = make_dataset([900, 500] * 3, ["train", "val"] * 3)
    one, same = (make_task(small_config(), dataset) for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    keys = {f"train__{key}": value for key, value in other.items()}
    assert make_task(small_config(**keys), dataset) != one


def test_a_window_of_seconds_is_rounded_to_the_nearest_sample():
    dataset = make_dataset([900] * 4, ["train", "val"] * 2)
    task = make_task(small_config(data__window=0.10009), dataset)  # of 8000 samples a second
    assert task.frontend.window == 801


def test_the_window_of_long_recordings_is_30_seconds_by_default():
    dataset = make_dataset([8000 * seconds for seconds in (40, 50)] * 3, ["train", "val"] * 3)
    task = make_task(small_config(), dataset)
    assert task.frontend.window == 30 * 8000


def test_the_shapes_of_weights_are_those_of_the_network():
    """They are computed once for each network and front end."""
    frontend = Frontend("image", 16, 16, 1, 0, MelConfig())
    for width in (4, 8):
        network = build(ModelConfig(name="cnn", width=width), 3)
        like = abstract_weights(network, frontend, make_mesh())
        assert like["params"]["conv1"]["kernel"].shape[-1] == width
