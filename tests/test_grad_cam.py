"""Grad-CAM, compared with a closed form and with finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import some_devices
from random_weights import numpy_variables

from meljax.config import MelConfig, ModelConfig
from meljax.evaluation.forward import Model
from meljax.evaluation.grad_cam import SMALLEST_GRID, _chosen_maps, evidence
from meljax.features.frontend import Frontend
from meljax.models.registry import build
from meljax.util.devices import make_mesh

pytestmark = pytest.mark.accelerator

ROWS, COLUMNS = 64, 80
TARGETS = np.array([2, 0])
"""The class to explain in each of two images."""


def make_model(name: str) -> Model:
    network = build(ModelConfig(name=name, width=4), 3)
    frontend = Frontend("image", COLUMNS, ROWS, 1, 0, MelConfig())
    variables = numpy_variables(network, np.zeros((1, ROWS, COLUMNS, 1), np.float32))
    kernel = variables["params"]["fc"]["kernel"]
    kernel += 0.5 * kernel.std()  # a positive mean: each class has some evidence
    mesh = make_mesh(some_devices(1))
    return Model(network, frontend, ("ann", "bob", "cy"), mesh, jax.device_put(variables))


def windows() -> np.ndarray:
    """Returns two images of noise, each darker in one half."""
    noise = np.random.default_rng(0).integers(0, 256, (2, COLUMNS, ROWS, 1), np.uint8)
    noise[0, : COLUMNS // 2] //= 4
    noise[1, :, : ROWS // 2] //= 4
    return noise


def weighted(maps, weights, shape) -> np.ndarray:
    """Returns the positive part of the weighted sum of maps, resized to `shape`, up to 1."""
    heat = np.maximum(np.einsum("brcf,bf->brc", maps, weights), 0)
    heat = np.asarray(jax.image.resize(heat, shape, "linear"))
    assert (heat.max((1, 2)) > 1.5 * heat.min((1, 2))).all()  # it is not constant
    return heat / heat.max((1, 2), keepdims=True)


def test_the_last_maps_of_at_least_four_rows_and_columns_are_chosen():
    sizes = {"maps1": (8, 8), "maps2": (4, 5), "maps3": (3, 9)}
    maps = {name: jnp.zeros((1, *size, 1)) for name, size in sizes.items()}
    assert _chosen_maps(maps, SMALLEST_GRID) == "maps2"


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_evidence_is_grad_cam(name):
    """For the last maps, a closed form gives the gradient: the weights of the last layer."""
    model = make_model(name)
    images, heat, grid = evidence(
        model, jnp.asarray(windows()), jnp.array(TARGETS), smallest_grid=1
    )
    assert heat.shape == images.shape[:3] == (2, ROWS, COLUMNS)
    apply = jax.jit(model.network.apply, static_argnames=("train", "mutable"))
    _, seen = apply(model.variables, images, jnp.ones(2), train=False, mutable="intermediates")
    (maps,) = seen["intermediates"]["maps4"]
    assert grid == maps.shape[1:3]
    assert min(grid) >= 2
    weights = model.variables["params"]["fc"]["kernel"][:, TARGETS].T
    np.testing.assert_allclose(heat, weighted(maps, weights, heat.shape), atol=1e-4)


def test_evidence_uses_earlier_maps_if_the_last_are_small():
    """The gradient of these maps goes through later layers; finite differences give it here."""
    model = make_model("cnn")
    images, heat, grid = evidence(
        model, jnp.asarray(windows()), jnp.array(TARGETS), smallest_grid=5
    )
    assert grid == (ROWS // 8, COLUMNS // 8)
    apply = jax.jit(model.network.apply, static_argnames=("train", "mutable"))
    collections = ("intermediates", "perturbations")
    _, seen = apply(model.variables, images, jnp.ones(2), train=False, mutable=collections)
    (maps,), zeros = seen["intermediates"]["maps3"], seen["perturbations"]

    @jax.jit
    def logits(by):
        given = model.variables | {"perturbations": zeros | {"maps3": by}}
        return model.network.apply(given, images, jnp.ones(2), train=False)

    weights = []  # up to a factor, which `weighted` removes
    for feature in range(maps.shape[-1]):
        step = np.zeros(maps.shape, np.float32)
        step[..., feature] = 1e-3
        change = np.asarray(logits(step)) - np.asarray(logits(-step))
        weights.append(change[[0, 1], TARGETS])
    np.testing.assert_allclose(heat, weighted(maps, np.transpose(weights), heat.shape), atol=0.02)
