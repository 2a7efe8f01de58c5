"""`config.json` and its content, `RunInfo`: settings, initial weights, data and devices."""

import contextlib
import dataclasses
import json
import os
from collections import Counter
from pathlib import Path

import jax
import numpy as np

from meljax import config as config_lib
from meljax.config import Config, Value
from meljax.data.dataset import Dataset
from meljax.data.manifest import noun
from meljax.data.tfds import catalog
from meljax.features.frontend import Frontend, Kind
from meljax.features.windows import MAX_DEFAULT_SECONDS
from meljax.models.pretrained.initial_weights import WeightsOrigin
from meljax.models.registry import NETWORKS
from meljax.util.errors import UserError
from meljax.util.files import exists, write_atomically
from meljax.util.phrases import count
from meljax.util.typed_json import digest, from_values, parse_json
from meljax.util.version import COMPUTING, __version__, commits, versions

CONFIG = "config.json"

FORMAT = 2
"""Version of the files of a run, except its checkpoints; other versions are refused."""

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """The data set of a run, and how it was understood.

    Attributes:
      classes: names, in the order of the labels.
      unscored: classes that are trained on, but not scored: the background and small classes.
      files: number of items per split.
      class_counts: number of items of each class in train, val and test.
      split_rule: how the splits were decided.
      window: length of the network's input, and where it comes from.
      lengths: the shortest, median and longest item, in seconds or columns.
      notes: how the data were understood, one line each.
      left_out: number of files and segments that are not used, by description.
      skipped: 'path: reason' of each unusable file.
      warnings: one line each.
      fingerprint: identifies paths, labels, groups, splits and contents of all items.
      recordings: number of recordings that the items are segments of; 0: items are whole files.
    """

    kind: Kind
    classes: tuple[str, ...]
    unscored: tuple[str, ...]
    files: dict[str, int]
    class_counts: dict[str, tuple[int, ...]]
    split_rule: str
    window: str
    lengths: tuple[float, ...]
    notes: tuple[str, ...]
    left_out: dict[str, int]
    skipped: tuple[str, ...]
    warnings: tuple[str, ...]
    fingerprint: str
    recordings: int = 0

    def items(self) -> str:
        """Returns the number of items in words."""
        number = sum(self.files.values())
        if self.recordings:
            return f"{number:,} segments of {count(self.recordings, 'recording')}"
        return f"{number:,} {noun(self.kind, number)}"

    def cautions(self) -> list[str]:
        """Returns the warnings about the data, one line each."""
        if not self.skipped:
            return list(self.warnings)
        skipped = f"{count(len(self.skipped), 'unusable file')} skipped: {'; '.join(self.skipped)}"
        return [*self.warnings, skipped]


@dataclasses.dataclass(frozen=True)
class SessionInfo:
    """The devices, package versions and Git commits that a process trained with."""

    device_kind: str
    platform: str
    device_count: int
    versions: dict[str, str]
    commits: dict[str, str]


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """The content of `config.json`.

    Attributes:
      config: the settings by key, `{'data.path': value, ...}`; paths are absolute.
      parameters: number of trained parameters.
      sessions: the distinct sessions that trained the run, the current one last.
      finished: number of epochs when the run was last completed; 0: never.
      scored: number of epochs when predictions and calibration were last written; 0: never.
      digests: sha256 of the files that were written then, by name; see `runs.digests`.
    """

    config: dict[str, Value]
    weights: WeightsOrigin
    parameters: int
    data: DataInfo
    sessions: tuple[SessionInfo, ...]
    finished: int = 0
    scored: int = 0
    digests: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def session(self) -> SessionInfo:
        """The current or last session."""
        return self.sessions[-1]

    @property
    def lacks_pretraining(self) -> bool:
        """Whether pretrained weights were wanted and exist, but were not used."""
        wanted = self.config["model.init"] == "auto"
        exist = NETWORKS[self.config["model.name"]].pretrained
        return wanted and exist and self.weights.kind == "random"

    def settings(self) -> Config:
        """Returns the settings of the run."""
        return config_lib.from_flat(self.config)

    def cautions(self) -> list[str]:
        """Returns the warnings for users of the run, one line each."""
        lines = self.data.cautions()
        if self.lacks_pretraining:
            lines.append(
                f"the network is not pretrained; initial weights: {self.weights.describe()}"
            )
        return lines


def describe_run(
    config: Config,
    data: DataInfo,
    weights: WeightsOrigin,
    parameters: int,
    before: RunInfo | None,
) -> RunInfo:
    """Returns the `RunInfo` of a run in this process; `before` is that of earlier sessions."""
    device = jax.local_devices()[0]
    session = SessionInfo(
        device_kind=device.device_kind,
        platform=device.platform,
        device_count=jax.local_device_count(),
        versions=versions(COMPUTING),
        commits=commits(),
    )
    earlier = before.sessions if before else ()
    return RunInfo(
        config=absolute_settings(config),
        weights=weights,
        parameters=parameters,
        data=data,
        sessions=(*(each for each in earlier if each != session), session),
        scored=before.scored if before else 0,
        digests=before.digests if before else {},
    )


def describe_data(config: Config, dataset: Dataset, frontend: Frontend) -> DataInfo:
    """Returns what was understood of the data."""
    pairs = zip(dataset.items, dataset.splits, strict=True)
    counts = Counter((item.label, split) for item, split in pairs)
    unit = config.mel.sample_rate if dataset.kind == "audio" else 1
    lengths = np.array([len(array) for array in dataset.arrays]) / unit
    return DataInfo(
        kind=dataset.kind,
        classes=dataset.classes,
        unscored=dataset.unscored,
        files={split: dataset.splits.count(split) for split in SPLITS},
        class_counts={
            name: tuple(counts[name, split] for split in SPLITS) for name in dataset.classes
        },
        recordings=_recordings(dataset),
        split_rule=dataset.split_rule,
        window=_window(config, frontend, float(np.median(lengths))),
        lengths=tuple(float(f(lengths)) for f in (np.min, np.median, np.max)),
        notes=dataset.notes,
        left_out=dict(dataset.left_out),
        skipped=tuple(map(str, dataset.skipped)),
        warnings=dataset.warnings,
        fingerprint=dataset.fingerprint,
    )


_MANY_WINDOWS = 3
"""If the median item is longer than this number of windows, `DataInfo.window` says so."""


def _recordings(dataset: Dataset) -> int:
    segments = any(item.start is not None for item in dataset.items)
    return len({item.path for item in dataset.items}) if segments else 0


def _window(config: Config, frontend: Frontend, median: float) -> str:
    """Returns the length of the network's input in words.

    `median` is that of the items, in seconds or columns.
    """
    cropped = ", cropped" if any(frontend.crop) else ""
    if frontend.kind == "image" and frontend.image_size:
        return f"whole images{cropped}, resized to {frontend.image_size} × {frontend.image_size}"
    length = f"{frontend.window:,} columns{cropped}"
    if frontend.kind == "audio":
        length = f"{frontend.window / frontend.mel.sample_rate:.2f} s"
    own = frontend.window / (frontend.mel.sample_rate if frontend.kind == "audio" else 1)
    drawn = ""
    if median > _MANY_WINDOWS * own:
        drawn = (
            f"; an epoch sees one random window of each item (median: {median / own:.0f} windows)"
        )
    if config.data.window:
        return f"{length}, set by data.window{drawn}"
    if frontend.kind == "audio" and own >= MAX_DEFAULT_SECONDS:
        return f"{length}, the maximum unless data.window is set{drawn}"
    return f"{length}, the median length of the training {noun(frontend.kind)}{drawn}"


def absolute_settings(config: Config) -> dict[str, Value]:
    """Returns the settings by key, with absolute paths, which any working directory can use."""
    values = config_lib.flat(config)
    names = {"", "auto", "imagenet", "scratch"}  # these values of the keys below are not paths
    for key in ("data.path", "data.root", "data.tfds_dir", "model.init"):
        if values[key] not in names and not catalog.is_name(values[key]):
            values[key] = os.path.abspath(os.path.expanduser(values[key]))
    return values


def read_info(workdir: Path) -> RunInfo | None:
    """Returns the `RunInfo` in `workdir`; `None` if the directory is new or empty.

    Raises:
      UserError: `config.json` is damaged or has another format, or `workdir` holds other files.
    """
    path = workdir / CONFIG
    if exists(path) and path.is_file():
        return _read_info(path)
    if os.path.exists(workdir) and not workdir.is_dir():
        raise UserError(f"--workdir {workdir} is a file; give a directory")
    if os.path.isdir(workdir) and any(not each.name.startswith(".") for each in workdir.iterdir()):
        raise UserError(f"--workdir {workdir} holds files but no run; give a new directory")
    return None


def _read_info(path: Path) -> RunInfo:
    with contextlib.suppress(ValueError):
        saved = parse_json(path.read_text(encoding="utf-8"))
        if not isinstance(saved, dict):
            raise ValueError
        first = "sessions" in saved and "sha256" not in saved  # format 1 had neither
        form = saved.pop("format", 1 if first else None)
        if type(form) is int and form != FORMAT:
            raise UserError(
                f"{path} has format {form}, but meljax {__version__} reads format {FORMAT}; use "
                "the version of meljax that wrote it"
            )
        if form == FORMAT and saved.pop("sha256", None) == digest(saved):
            info = from_values(RunInfo, saved)
            with contextlib.suppress(UserError):  # a key is unknown or its value is not allowed
                # Keys that are newer than the run get their defaults.
                info = dataclasses.replace(info, config=config_lib.flat(info.settings()))
                if info.config["model.name"] in NETWORKS and info.sessions:
                    return info
    raise UserError(f"{path} is damaged or was edited; restore it, or use another directory")


def require_info(path: Path) -> RunInfo:
    """Returns the `RunInfo` in `path`; raises `UserError` if there is none."""
    file = path / CONFIG
    if exists(file) and file.is_file():
        return _read_info(file)
    raise UserError(f"{path} is not a run: it has no {CONFIG}")


def write_info(workdir: Path, info: RunInfo) -> None:
    """Writes `config.json`, with a digest of its content."""
    content = dataclasses.asdict(info)
    saved = {"format": FORMAT, "sha256": digest(content)} | content
    write_atomically(workdir / CONFIG, json.dumps(saved, indent=2) + "\n")
