"""From settings and data to what stays fixed during a run."""

import numpy as np

from meljax import models, optim
from meljax.config import Config, MelConfig
from meljax.data import feed
from meljax.data.load import Side, VoiceSet
from meljax.errors import UserError
from meljax.frontend import Frontend
from meljax.melspec import mel_filterbank
from meljax.mesh import make_mesh, replicated
from meljax.steps import Task


def make_task(config: Config, voices: VoiceSet) -> Task:
    """Returns what stays fixed: network, front end, masks, optimiser, devices."""
    sound = voices.kind == "sound"
    if sound:
        _check_bands(config.mel)
    _, height, channels = (0, 0, 1) if sound else voices.arrays[0].shape
    frontend = Frontend(
        kind=voices.kind,
        window=_window(config, voices),
        height=height,
        channels=channels,
        image_size=config.data.image_size,
        mel=config.mel,
    )
    network = models.build(config.model, len(voices.classes))
    optimiser = optim.optimiser(config.train, len(voices.indices("train")))
    return Task(network, frontend, config.mask, optimiser, len(voices.classes), make_mesh())


def _window(config: Config, voices: VoiceSet) -> int:
    """Returns the window's length in samples or columns."""
    lengths = [len(voices.arrays[i]) for i in voices.indices("train")]
    if config.data.window == 0:
        return int(np.median(lengths))
    unit, name = (1, "columns") if voices.kind == "image" else (config.mel.sample_rate, "seconds")
    window, longest = round(config.data.window * unit), max(lengths)
    if window < 1:
        raise UserError(
            f"data.window must be at least {1 / unit:g} {name} (or 0, for the median "
            f"length), not {config.data.window:g}"
        )
    if window > 10 * longest:
        raise UserError(
            f"data.window must be at most ten times the longest item "
            f"({longest / unit:g} {name}), not {config.data.window:g}"
        )
    return window


def _check_bands(mel: MelConfig) -> None:
    """Raises `UserError` if bands are too narrow to hold a single frequency of the transform."""
    bank = mel_filterbank(
        mel.sample_rate, mel.n_fft, mel.n_mels, mel.fmin, mel.fmax or mel.sample_rate / 2
    )
    empty = int((bank.max(1) == 0).sum())
    if empty:
        raise UserError(
            f"mel.n_mels={mel.n_mels} leaves {empty} bands without a frequency; take "
            f"fewer, or more samples than mel.n_fft={mel.n_fft}"
        )


def make_device_sets(task: Task, voices: VoiceSet) -> dict[Side, feed.DeviceSet]:
    """Places the items of each side that there is on every device."""
    return {
        side: _device_set(task, voices, side)
        for side in ("train", "val", "test")
        if side in voices.sides
    }


def _device_set(task: Task, voices: VoiceSet, side: Side) -> feed.DeviceSet:
    index = voices.indices(side)
    return feed.make_device_set(
        [voices.arrays[i] for i in index],
        voices.floors and [voices.floors[i] for i in index],
        voices.labels(index),
        task.frontend.window,
        replicated(task.mesh),
    )
