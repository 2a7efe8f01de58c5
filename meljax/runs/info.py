"""`config.json` and its content, `RunInfo`: settings, initial weights, data and devices."""

import dataclasses
import os
from pathlib import Path

import jax

from meljax import config as config_lib
from meljax.config import Config
from meljax.data.dataset import Dataset
from meljax.data.tfds import catalog
from meljax.features.frontend import Kind
from meljax.models.pretrained.initial_weights import WeightsOrigin
from meljax.models.registry import NETWORKS
from meljax.util.errors import UserError
from meljax.util.files import write_atomically
from meljax.util.phrases import count
from meljax.util.typed_json import from_json, to_json
from meljax.util.version import COMPUTING, versions

CONFIG = "config.json"


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """The data set of a run.

    Attributes:
      classes: names, in the order of the labels.
      files: number of items per split.
      ignored: number of files of other kinds.
      skipped: 'path: reason' of each unusable file.
      warnings: one line each.
      fingerprint: identifies paths, labels, groups, splits and contents of all items.
    """

    kind: Kind
    classes: tuple[str, ...]
    files: dict[str, int]
    ignored: int
    skipped: tuple[str, ...]
    warnings: tuple[str, ...]
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class SessionInfo:
    """The devices and package versions that a process trained with."""

    device_kind: str
    platform: str
    device_count: int
    versions: dict[str, str]


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """The content of `config.json`.

    Attributes:
      config: the settings by key, `{'data.path': value, ...}`; paths are absolute.
      parameters: number of trained parameters.
      sessions: the distinct sessions that trained the run, the current one last.
      finished: number of epochs when the run was last completed; 0: never.
    """

    config: dict[str, str | int | float]
    weights: WeightsOrigin
    parameters: int
    data: DataInfo
    sessions: tuple[SessionInfo, ...]
    finished: int = 0

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
        lines = list(self.data.warnings)
        if self.data.skipped:
            skipped = self.data.skipped
            lines.append(f"{count(len(skipped), 'unusable file')} skipped: {'; '.join(skipped)}")
        if self.lacks_pretraining:
            lines.append(
                f"the network is not pretrained; initial weights: {self.weights.describe()}"
            )
        return lines


def describe_run(
    config: Config,
    dataset: Dataset,
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
    )
    earlier = before.sessions if before else ()
    return RunInfo(
        config=absolute_settings(config),
        weights=weights,
        parameters=parameters,
        data=DataInfo(
            kind=dataset.kind,
            classes=dataset.classes,
            files={split: len(dataset.indices(split)) for split in ("train", "val", "test")},
            ignored=dataset.ignored,
            skipped=tuple(map(str, dataset.skipped)),
            warnings=dataset.warnings,
            fingerprint=dataset.fingerprint,
        ),
        sessions=(*(each for each in earlier if each != session), session),
    )


def absolute_settings(config: Config) -> dict[str, str | int | float]:
    """Returns the settings by key, with absolute paths, which any working directory can use."""
    values = config_lib.flat(config)
    names = {"", "auto", "imagenet", "scratch"}  # these values of the keys below are not paths
    for key in ("data.path", "data.tfds_dir", "model.init"):
        if values[key] not in names and not catalog.is_name(values[key]):
            values[key] = os.path.abspath(os.path.expanduser(values[key]))
    return values


def read_info(workdir: Path) -> RunInfo | None:
    """Returns the `RunInfo` in `workdir`; `None` if the directory is new or empty.

    Raises:
      UserError: `config.json` is damaged, or `workdir` holds other files.
    """
    path = workdir / CONFIG
    if os.path.isfile(path):  # False for a name that is too long
        try:
            info = from_json(RunInfo, path.read_text(encoding="utf-8"))
            # Keys that are newer than the run get their defaults.
            info = dataclasses.replace(info, config=config_lib.flat(info.settings()))
            if info.config["model.name"] in NETWORKS and info.sessions:
                return info
        except (ValueError, UserError):
            pass
        raise UserError(
            f"{path} is damaged or was not written by this version of meljax; use another directory"
        )
    if os.path.exists(workdir) and not workdir.is_dir():
        raise UserError(f"--workdir {workdir} is a file; give a directory")
    if os.path.isdir(workdir) and any(not each.name.startswith(".") for each in workdir.iterdir()):
        raise UserError(f"--workdir {workdir} holds files but no run; give a new directory")
    return None


def require_info(path: Path) -> RunInfo:
    """Returns the `RunInfo` in `path`; raises `UserError` if there is none."""
    info = read_info(path) if os.path.isfile(path / CONFIG) else None
    if info is None:
        raise UserError(f"{path} is not a run: it has no {CONFIG}")
    return info


def write_info(workdir: Path, info: RunInfo) -> None:
    """Writes `config.json`."""
    write_atomically(workdir / CONFIG, to_json(info))
