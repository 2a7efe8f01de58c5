"""A run at hand: what it is made of, all through training and reporting."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from meljax.checkpoint import Checkpoints
from meljax.config import Config
from meljax.data import feed
from meljax.data.load import Side, VoiceSet
from meljax.steps import Task


class Session(NamedTuple):
    """All that stays fixed while a run trains and is reported.

    Attributes:
      config: the settings.
      workdir: directory of the run.
      facts: what `config.json` holds.
      voices: the data, on the host.
      task: network, front end, masks, optimiser, devices.
      sets: the data, on the devices.
      checkpoints: of the run.
      check: called at every step; raises where somebody asked to stop.
    """

    config: Config
    workdir: Path
    facts: dict[str, Any]
    voices: VoiceSet
    task: Task
    sets: dict[Side, feed.DeviceSet]
    checkpoints: Checkpoints
    check: Callable[[], None]
