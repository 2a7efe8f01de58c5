"""Makes the task of a run, and its splits on the devices, from settings and data."""

from meljax.config import Config, MelConfig
from meljax.data.batches import DeviceSet, make_device_set
from meljax.data.dataset import Dataset, Split
from meljax.features.frontend import Frontend, crop_of
from meljax.features.mel_spectrogram import mel_filterbank
from meljax.features.windows import default_window
from meljax.models.registry import build
from meljax.training.state import Task, make_optimizer
from meljax.util.devices import make_mesh, replicated
from meljax.util.errors import UserError


def make_task(config: Config, dataset: Dataset) -> Task:
    """Returns the task of a run.

    Raises:
      UserError: the window or the mel bands do not fit the data.
    """
    frontend = make_frontend(config, dataset)
    network = build(config.model, len(dataset.classes))
    optimizer = make_optimizer(config.train, len(dataset.indices("train")))
    unscored = tuple(map(dataset.classes.index, dataset.unscored))
    name = config.data.background
    background = dataset.classes.index(name) if name else None
    return Task(
        network,
        frontend,
        config.mask,
        optimizer,
        dataset.classes,
        make_mesh(),
        unscored,
        background,
        skip_bad=config.train.on_nan == "skip",
    )


def make_frontend(config: Config, dataset: Dataset) -> Frontend:
    """Returns the front end of a data set; raises the `UserError`s of `make_task`."""
    audio = dataset.kind == "audio"
    if audio:
        _check_bands(config.mel)
    _, height, channels = (0, 0, 1) if audio else dataset.arrays[0].shape
    return Frontend(
        kind=dataset.kind,
        window=_window(config, dataset),
        height=height,
        channels=channels,
        image_size=config.data.image_size,
        mel=config.mel,
        skip_silence=config.data.silent == "skip",
        crop=crop_of(config.data.crop),
    )


def _window(config: Config, dataset: Dataset) -> int:
    """Returns the length of a window, in samples or columns."""
    train = dataset.indices("train")
    lengths = [
        len(dataset.arrays[i]) for i in train if dataset.items[i].label != config.data.background
    ]
    if config.data.window == 0:
        return default_window(lengths, config.mel.sample_rate if dataset.kind == "audio" else None)
    unit, name = (1, "columns") if dataset.kind == "image" else (config.mel.sample_rate, "seconds")
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
    """Raises `UserError` if a mel band is too narrow to contain a frequency of the transform."""
    fmax = mel.fmax or mel.sample_rate / 2
    bank = mel_filterbank(mel.sample_rate, mel.n_fft, mel.n_mels, mel.fmin, fmax)
    if empty := int((bank.max(1) == 0).sum()):
        raise UserError(
            f"mel.n_mels={mel.n_mels} leaves {empty} bands without a frequency; lower it, or raise "
            f"mel.n_fft={mel.n_fft}"
        )


def make_device_sets(task: Task, dataset: Dataset) -> dict[Split, DeviceSet]:
    """Returns each split that is not empty, copied to every device."""
    sets = {}
    for split in ("train", "val", "test"):
        if index := dataset.indices(split):
            sets[split] = make_device_set(
                [dataset.arrays[i] for i in index],
                dataset.labels(index),
                task.frontend.window,
                replicated(task.mesh),
                task.frontend.skip_silence,
            )
    return sets
