"""Loads a trained model from its run."""

import contextlib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from meljax import config as config_lib
from meljax.config import Config
from meljax.evaluation.forward import Model
from meljax.features.frontend import Frontend
from meljax.models import registry
from meljax.runs.directory import CHECKPOINTS
from meljax.runs.info import require_info
from meljax.runs.predictions import read_temperature
from meljax.training.checkpoints import Checkpoints, Weights
from meljax.training.state import blank_images
from meljax.util.devices import make_mesh, replicated
from meljax.util.errors import UserError


class TrainedModel(NamedTuple):
    """The model of a run's best epoch.

    It was trained for `step` steps and `epoch` epochs; `temperature` divides its logits.
    """

    config: Config
    model: Model
    step: int
    epoch: int
    temperature: float


def load_model(run: Path) -> TrainedModel:
    """Returns the model of the run in the directory `run`.

    Raises:
      UserError: there is no run, or it has not finished an epoch.
    """
    require_info(run)
    if not (run / CHECKPOINTS).is_dir():
        raise UserError(f"{run} holds no {CHECKPOINTS}: it has not finished an epoch")
    with contextlib.closing(Checkpoints(run / CHECKPOINTS, read_only=True)) as checkpoints:
        meta = checkpoints.best_meta()
        if meta is None:
            raise UserError(f"{run / CHECKPOINTS} is empty: the run has not finished an epoch")
        mesh, config = make_mesh(), config_lib.from_flat(meta.config)
        network = registry.build(config.model, len(meta.classes))
        like = _abstract_weights(network, meta.frontend, mesh)
        # If the best checkpoint is damaged, this is another one with its own meta.
        weights, meta = checkpoints.restore_best_weights(like)
    variables = {name: weights[name] for name in ("params", "batch_stats")}
    return TrainedModel(
        config=config,
        model=Model(network, meta.frontend, meta.classes, mesh, variables),
        step=int(weights["step"]),
        epoch=meta.epoch,
        temperature=read_temperature(run, meta.epoch),
    )


def _abstract_weights(network: nn.Module, frontend: Frontend, mesh: Mesh) -> Weights:
    """Returns shapes, dtypes and shardings of a network's weights."""
    variables = jax.eval_shape(
        lambda key: network.init(key, blank_images(frontend), jnp.ones(1), train=False),
        jax.random.key(0),
    )
    like = dict(variables) | {"step": jax.ShapeDtypeStruct((), jnp.int32)}
    place = replicated(mesh)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), like)
