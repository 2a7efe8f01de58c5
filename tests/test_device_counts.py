"""The number of devices has no effect on training. A child process emulates eight devices."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

STEPS = 20


@pytest.fixture(scope="module", params=["two", pytest.param("all", marks=pytest.mark.long)])
def measured(request) -> dict[str, list[dict]]:
    """What was measured on several numbers of devices, by dtype."""
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=1"
    done = subprocess.run(
        [sys.executable, __file__, *COUNTS[request.param]],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
        check=True,
    )
    return json.loads(done.stdout)


COUNTS = {"two": ["small", "float64", "1,8"], "all": ["cnn", "float64,float32", "1,2,4,8"]}
"""Network, dtypes and numbers of devices."""


def test_the_number_of_devices_changes_no_loss_count_or_statistic(measured):
    """In float64 to 1e-12 over all steps, in float32 to 1e-5 over the first five."""
    for dtype, (one, *others) in measured.items():
        steps, close = (STEPS, 1e-12) if dtype == "float64" else (5, 1e-5)
        assert len(one["loss"]) == STEPS
        values = len(one["statistics"]) * steps // STEPS
        near_zero = 0 if dtype == "float64" else 1e-6
        for other in others:
            np.testing.assert_allclose(other["loss"][:steps], one["loss"][:steps], close)
            np.testing.assert_allclose(
                other["statistics"][:values], one["statistics"][:values], close, near_zero
            )
            assert other["confusion"][:steps] == one["confusion"][:steps]


def test_the_number_of_devices_changes_no_order_and_no_mask(measured):
    for one, *others in measured.values():
        for other in others:
            assert other["items"] == one["items"]
            assert other["masked"] == one["masked"]


def measure(network, dtype: str, devices: int) -> dict:
    """Trains a network on images; returns what must not depend on the number of devices."""
    import jax

    from meljax.config import MaskConfig, MelConfig, TrainConfig
    from meljax.data.batches import epoch_order, make_device_set
    from meljax.features.frontend import Frontend
    from meljax.training.rng import Stream, key
    from meljax.training.state import Task, init_state, make_optimizer
    from meljax.training.step import train_step
    from meljax.util.devices import make_mesh, replicated
    from meljax.workflows.finish import masked_images

    rng = np.random.default_rng(0)
    items, batch = 45, 12  # batches of 12, 12, 12 and 9
    mesh = make_mesh(jax.devices()[:devices])
    task = Task(
        network=network,
        frontend=Frontend("image", 16, 16, 3, 0, MelConfig()),
        mask=MaskConfig(),
        optimizer=make_optimizer(TrainConfig(learning_rate=1e-3, batch_size=batch), items),
        classes=("ann", "bob", "cy"),
        mesh=mesh,
    )
    images = [rng.integers(0, 256, (18, 16, 3)).astype(np.uint8) for _ in range(items)]
    data = make_device_set(images, np.arange(items) % 3, 16, replicated(mesh))
    state = init_state(task, key(0, Stream.INIT))
    state = jax.tree.map(
        lambda x: x.astype(dtype) if jax.numpy.issubdtype(x.dtype, jax.numpy.floating) else x, state
    )
    masks_key = jax.device_put(key(0, Stream.AUGMENT), replicated(mesh))
    loss, confusion, statistics, seen = [], [], [], []
    for epoch in range(1, STEPS // 4 + 1):
        order = epoch_order(key(0, Stream.ORDER, epoch), items, batch, devices)
        order = jax.device_put(order, replicated(mesh))
        for row in np.asarray(order):
            seen.append(row[row >= 0].tolist())
            state = train_step(task, state, data, order, masks_key)
            loss.append(float(state.metrics.loss_sum))
            confusion.append(state.metrics.confusion.tolist())
            statistics += [float(x) for s in jax.tree.leaves(state.batch_stats) for x in s]
    _, masked = masked_images(task, data, np.arange(24, dtype=np.int32), masks_key)
    return {
        "loss": loss,
        "confusion": confusion,
        "statistics": statistics,
        "items": seen,
        "masked": np.argwhere(np.asarray(masked) == 0).tolist(),
    }


if __name__ == "__main__":
    import jax
    from small_network import SmallNetwork

    from meljax.models.cnn import CNN

    make = {"small": SmallNetwork, "cnn": CNN}[sys.argv[1]]
    dtypes, counts = (argument.split(",") for argument in sys.argv[2:])
    found = {}
    for dtype in dtypes:
        jax.config.update("jax_enable_x64", dtype == "float64")
        network = make(3, 4, dtype)
        found[dtype] = [measure(network, dtype, int(count)) for count in counts]
    print(json.dumps(found))
