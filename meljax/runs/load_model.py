"""Loads a trained model from its run."""

import contextlib
import dataclasses
from pathlib import Path
from typing import NamedTuple

from meljax import config as config_lib
from meljax.config import Config
from meljax.evaluation.forward import Model
from meljax.models import registry
from meljax.runs.directory import CHECKPOINTS
from meljax.runs.info import require_info
from meljax.runs.predictions import read_temperature
from meljax.training.checkpoints import Checkpoints
from meljax.training.state import abstract_weights
from meljax.util.devices import make_mesh
from meljax.util.errors import UserError
from meljax.util.progress import warn


class TrainedModel(NamedTuple):
    """The model of a run's best epoch.

    It was trained for `step` steps and `epoch` epochs; `temperature` divides its logits;
    `calibration_note` says why it stays 1 ('' if it was fitted); `unscored` are the background
    class and classes without validation files; `background` is the background class, if any.
    """

    config: Config
    model: Model
    step: int
    epoch: int
    temperature: float
    unscored: tuple[int, ...] = ()
    background: int | None = None
    calibration_note: str = ""


def warn_if_not_calibrated(trained: TrainedModel) -> None:
    """Warns if the probabilities of the model are not calibrated, and says why."""
    if trained.calibration_note:
        warn(f"the probabilities are not calibrated: {trained.calibration_note}")


def load_model(run: Path) -> TrainedModel:
    """Returns the model of the run in the directory `run`.

    Raises:
      UserError: the directory holds no run, or no epoch of the run is finished.
    """
    info = require_info(run)
    if not (run / CHECKPOINTS).is_dir():
        raise UserError(f"{run} holds no {CHECKPOINTS}: it has not finished an epoch")
    with contextlib.closing(Checkpoints(run / CHECKPOINTS, read_only=True)) as checkpoints:
        meta = checkpoints.best_meta()
        if meta is None:
            raise UserError(f"{run / CHECKPOINTS} is empty: the run has not finished an epoch")
        mesh, config = make_mesh(), config_lib.from_flat(meta.config)
        network = registry.build(config.model, len(meta.classes))
        like = abstract_weights(network, meta.frontend, mesh)
        # If the best checkpoint is damaged, this is another one with its own meta.
        weights, meta = checkpoints.restore_best(like)
    variables = {name: weights[name] for name in ("params", "batch_stats")}
    settings, background = info.settings(), None
    if settings.data.background in meta.classes:
        background = meta.classes.index(settings.data.background)
    temperature = read_temperature(run, info, meta.epoch)
    return TrainedModel(
        # The data may have moved since the checkpoint was written.
        config=dataclasses.replace(config, data=settings.data),
        model=Model(network, meta.frontend, meta.classes, mesh, variables),
        step=int(weights["step"]),
        epoch=meta.epoch,
        temperature=temperature.value,
        unscored=tuple(map(meta.classes.index, info.data.unscored)),
        background=background,
        calibration_note=temperature.note,
    )
