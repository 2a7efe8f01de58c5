"""The exported function, from a batch of raw inputs to probabilities, and its check."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from meljax.evaluation.forward import forward
from meljax.features import frontend as frontend_lib
from meljax.features.frontend import NO_CROP, Crop, Frontend
from meljax.runs.load_model import TrainedModel
from meljax.util.errors import UserError


def input_like(frontend: Frontend, batch: Any) -> jax.ShapeDtypeStruct:
    """Returns shape and dtype of the input; `batch` may be symbolic.

    Recordings: float32 [batch, window], samples in -1…1. Images: uint8 [batch, height, width,
    channel], the top row first, with the borders that `inner_crop` cuts off.
    """
    if frontend.kind == "audio":
        return jax.ShapeDtypeStruct((batch, frontend.window), np.float32)
    left, top, right, bottom = inner_crop(frontend)
    height, width = top + frontend.height + bottom, left + frontend.window + right
    return jax.ShapeDtypeStruct((batch, height, width, frontend.channels), np.uint8)


def inner_crop(frontend: Frontend) -> Crop:
    """Returns the pixels that the exported model itself cuts off.

    None if images are resized, because they are cropped before that, outside of the model.
    """
    return NO_CROP if frontend.image_size else frontend.crop


def classifier(
    trained: TrainedModel,
) -> Callable[[Shaped[Array, "batch ..."]], Float[Array, "batch classes"]]:
    """Returns the function from inputs, as in `input_like`, to probabilities.

    It computes in float32 for any `model.compute_dtype`.
    """
    network, frontend = trained.model.network.clone(dtype="float32"), trained.model.frontend

    def classify(x: Shaped[Array, "batch ..."]) -> Float[Array, "batch classes"]:
        if frontend.kind == "audio":
            images = frontend_lib.spectrograms(frontend, x)
        else:
            left, top, right, bottom = inner_crop(frontend)
            inner = x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]
            images = frontend_lib.to_images(frontend, jnp.swapaxes(inner, 1, 2))
        logits = forward(network, trained.model.variables, images)
        return jax.nn.softmax(logits / trained.temperature)

    return classify


def check_exported(
    trained: TrainedModel, form: str, call: Callable[[np.ndarray], np.ndarray], tolerance: float
) -> float:
    """Returns the largest difference between probabilities of the exported model and `trained`.

    `call` runs the exported model. The inputs are silence and noise of increasing loudness.

    Raises:
      UserError: the difference is larger than `tolerance`.
    """
    like = input_like(trained.model.frontend, 5)
    loudness = np.linspace(0, 1, 5).reshape(-1, *[1] * (len(like.shape) - 1))
    x = loudness * np.random.default_rng(0).uniform(-1, 1, like.shape) ** 3
    x = (255 * abs(x) if like.dtype == np.uint8 else x).astype(like.dtype)
    expected = np.asarray(jax.jit(classifier(trained))(x))
    difference = float(np.abs(call(x) - expected).max())
    if not difference <= tolerance:
        raise UserError(
            f"--format {form}: the exported probabilities differ from the model's by "
            f"{difference:.1e}; nothing was written. Please report this"
        )
    return difference
