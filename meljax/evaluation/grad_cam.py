"""Grad-CAM: the evidence for a class in each part of an image."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, PyTree, Shaped

from meljax.evaluation.forward import Model
from meljax.features.frontend import Frontend, to_images

SMALLEST_GRID = 4
"""Maps with fewer rows or columns would only locate evidence in halves or thirds of the image."""


def evidence(
    model: Model,
    windows: Shaped[Array, "batch window ..."],
    classes: Int[Array, " batch"],
    smallest_grid: int = SMALLEST_GRID,
) -> tuple[
    Float[Array, "batch rows columns channel"],
    Float[Array, "batch rows columns"],
    tuple[int, int],
]:
    """Returns the image of each window, the evidence for its class in `classes`, and the grid.

    Grad-CAM (Selvaraju et al. 2017) on the last feature maps with at least `smallest_grid` rows and
    columns, or else on the largest maps. Each map is weighted by the mean gradient of
    the logit with respect to it; the evidence is the positive part of the weighted sum. It is
    scaled to 0…1 per image and interpolated from the grid, (rows, columns) of the maps, to the
    image.
    """
    images, heat, maps = _maps_and_evidence(
        model.network, model.frontend, model.variables, windows, classes, smallest_grid
    )
    return images, heat, maps.shape[1:3]


# It is called on few images, so XLA's optimizations would cost more than they save.
@functools.partial(
    jax.jit,
    static_argnames=("network", "frontend", "smallest_grid"),
    compiler_options={"xla_backend_optimization_level": 0},
)
def _maps_and_evidence(
    network: nn.Module,
    frontend: Frontend,
    variables: PyTree,
    windows: Shaped[Array, "batch window ..."],
    classes: Int[Array, " batch"],
    smallest_grid: int,
) -> tuple[Float[Array, "batch rows columns channel"], Float[Array, "..."], Float[Array, "..."]]:
    images = to_images(frontend, windows)
    weight = jnp.ones(len(images))
    collections = ["intermediates", "perturbations"]
    _, seen = network.apply(variables, images, weight, train=False, mutable=collections)
    name = _chosen_maps(seen["perturbations"], smallest_grid)

    def logit(perturbations: PyTree) -> Float[Array, ""]:
        given = {**variables, "perturbations": perturbations}
        logits = network.apply(given, images, weight, train=False)
        return jnp.take_along_axis(logits, classes[:, None], axis=1).sum()

    # The perturbations are zeros added to the maps, so both have the same gradient.
    gradient = jax.grad(logit)(seen["perturbations"])[name].astype(jnp.float32)
    (maps,) = seen["intermediates"][name]
    heat = jax.nn.relu(jnp.einsum("brcf,bf->brc", maps.astype(jnp.float32), gradient.mean((1, 2))))
    heat = jax.image.resize(heat, images.shape[:3], "linear")
    return images, heat / jnp.maximum(heat.max((1, 2), keepdims=True), 1e-9), maps


def _chosen_maps(maps: dict[str, Float[Array, "..."]], smallest_grid: int) -> str:
    """Returns the name of the maps for Grad-CAM; names are numbered by depth in the network."""
    names = sorted(maps, key=lambda name: (len(name), name), reverse=True)
    fine = (name for name in names if min(maps[name].shape[1:3]) >= smallest_grid)
    return next(fine, names[-1])
