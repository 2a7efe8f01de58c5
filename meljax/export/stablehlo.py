"""Converts a trained model to StableHLO, for JAX on CPU, CUDA and TPU."""

import jax
import numpy as np

from meljax.export.classifier import check_exported, classifier, input_like
from meljax.runs.load_model import TrainedModel

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-5


def serialize(trained: TrainedModel) -> tuple[bytes, float]:
    """Returns the file's content, for `jax.export.deserialize`, and the result of `check_exported`.

    The exported function is `classifier`, for any batch size.

    Raises:
      UserError: its probabilities differ from the model's by more than `TOLERANCE`.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    like = input_like(trained.model.frontend, batch)
    exported = jax.export.export(jax.jit(classifier(trained)), platforms=PLATFORMS)(like)
    content = bytes(exported.serialize())
    read_back = jax.export.deserialize(bytearray(content))
    return content, check_exported(
        trained, "stablehlo", lambda x: np.asarray(read_back.call(x)), TOLERANCE
    )
