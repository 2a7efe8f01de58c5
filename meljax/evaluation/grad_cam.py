"""Grad-CAM: the evidence for a class in each part of an image."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree, Shaped

from meljax.evaluation.forward import Model, forward
from meljax.features.frontend import Frontend, to_images


# It is called once per run on few images, so XLA's optimizations would cost more than they save.
@functools.partial(
    jax.jit,
    static_argnames=("network", "frontend"),
    compiler_options={"xla_backend_optimization_level": 0},
)
def _maps_and_evidence(
    network: nn.Module,
    frontend: Frontend,
    variables: PyTree,
    windows: Shaped[Array, "batch window ..."],
    classes: Int[Array, " batch"],
) -> tuple[Float[Array, "batch rows columns channel"], Float[Array, "..."], Float[Array, "..."]]:
    images = to_images(frontend, windows)
    _, maps = forward(network, variables, images)
    weights = variables["params"]["fc"]["kernel"][:, classes].T
    heat = jax.nn.relu(jnp.einsum("brcf,bf->brc", maps, weights))
    heat = jax.image.resize(heat, images.shape[:3], "linear")
    return images, heat / jnp.maximum(heat.max((1, 2), keepdims=True), 1e-9), maps


def evidence(
    model: Model, windows: Shaped[Array, "batch window ..."], classes: Int[Array, " batch"]
) -> tuple[
    Float[Array, "batch rows columns channel"],
    Float[Array, "batch rows columns"],
    tuple[int, int],
]:
    """Returns the image of each window, the evidence for its class in `classes`, and the grid.

    Grad-CAM (Selvaraju et al. 2017) on the last feature maps before the mean over rows and columns.
    The logits are linear in that mean, so the gradient by a map is the same everywhere: its weight
    in the last layer, divided by the number of positions. The evidence is scaled to 0…1 per image
    and interpolated from the grid, (rows, columns) of the maps, to the image.
    """
    images, heat, maps = _maps_and_evidence(
        model.network, model.frontend, model.variables, windows, classes
    )
    return images, heat, maps.shape[1:3]
