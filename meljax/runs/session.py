"""A run in memory, while it is trained or reported."""

from pathlib import Path
from typing import NamedTuple

from meljax.config import Config
from meljax.data.batches import DeviceSet
from meljax.data.dataset import Dataset, Split
from meljax.runs.info import RunInfo
from meljax.training.checkpoints import Checkpoints
from meljax.training.state import Task


class Session(NamedTuple):
    """Everything that stays fixed while a run is trained or reported.

    `dataset` is on the host, `sets` are its splits on the devices.
    """

    config: Config
    workdir: Path
    info: RunInfo
    dataset: Dataset
    task: Task
    sets: dict[Split, DeviceSet]
    checkpoints: Checkpoints
