"""A trained model, read back from its run: all that using it needs."""

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import PyTree

from meljax import config as config_lib
from meljax import models, optim, runs, steps
from meljax.checkpoint import Checkpoints
from meljax.config import Config, MelConfig
from meljax.errors import UserError
from meljax.frontend import Frontend
from meljax.mesh import make_mesh


class SavedModel(NamedTuple):
    """The weights of a run's best epoch and what goes with them.

    Attributes:
      config: the run's settings.
      network: whose `variables` these are.
      frontend: makes its pictures.
      classes: names, in the order of the logits.
      mesh: of the devices that hold the weights.
      variables: `{'params': ..., 'batch_stats': ...}`, on every device.
      step: training steps taken.
      epoch: training epochs taken.
      temperature: what logits are divided by on the way to probabilities.
    """

    config: Config
    network: nn.Module
    frontend: Frontend
    classes: tuple[str, ...]
    mesh: Mesh
    variables: PyTree
    step: int
    epoch: int
    temperature: float


def load(run: Path) -> SavedModel:
    """Returns the model of the run in the directory `run`.

    Raises:
      UserError: there is no run, or it has not finished an epoch.
    """
    runs.check_is_run(run)
    if not (run / runs.CHECKPOINTS).is_dir():
        raise UserError(f"{run} holds no {runs.CHECKPOINTS}: it has not finished an epoch")
    with contextlib.closing(Checkpoints(run / runs.CHECKPOINTS, read_only=True)) as checkpoints:
        meta = checkpoints.best_meta()
        if meta is None:
            raise UserError(f"{run / runs.CHECKPOINTS} is empty: the run has not finished an epoch")
        task = _task(meta)
        # Should the best be damaged, another one and its own meta take its place.
        state, meta = checkpoints.restore_best(steps.abstract_state(task))
    return SavedModel(
        config=config_lib.from_flat(meta["config"]),
        network=task.network,
        frontend=task.frontend,
        classes=tuple(meta["classes"]),
        mesh=task.mesh,
        variables={"params": state.params, "batch_stats": state.batch_stats},
        step=int(state.step),
        epoch=meta["epoch"],
        temperature=runs.read_temperature(run, meta["epoch"]),
    )


def _task(meta: dict[str, Any]) -> steps.Task:
    """Returns the task that a checkpoint was saved by."""
    config = config_lib.from_flat(meta["config"])
    frontend = Frontend(**meta["frontend"] | {"mel": MelConfig(**meta["frontend"]["mel"])})
    network = models.build(config.model, len(meta["classes"]))
    # The number of items shapes the learning rate alone, which a saved model has no use for.
    optimiser = optim.optimiser(config.train, items=1)
    return steps.Task(network, frontend, config.mask, optimiser, len(meta["classes"]), make_mesh())
