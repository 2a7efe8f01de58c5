"""The directory of a run: what it holds, and whether a run may go on in it."""

import contextlib
import csv
import importlib.metadata
import itertools
import json
import math
import os
import platform
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

import meljax
from meljax import calibration, progress
from meljax import config as config_lib
from meljax.config import Config
from meljax.data import tfds
from meljax.data.load import VoiceSet
from meljax.errors import UserError
from meljax.metrics import Row
from meljax.paths import locked_file, write_whole
from meljax.results import Predicted, RunResults, Scored
from meljax.table import csv_line

CONFIG = "config.json"
LOCK = ".lock"
SPLIT = "split.csv"
METRICS = "metrics.jsonl"
PREDICTIONS = "predictions.csv"
CALIBRATION = "calibration.json"
CHECKPOINTS = "checkpoints"
REPORT = "report.html"

MEASURED = (
    *(f"{side}_{name}" for side in ("train", "val") for name in ("loss", "accuracy", "f1")),
    "seconds",
    "images_per_second",
)
"""What every row of `metrics.jsonl` holds, beside epoch and step."""

PREDICTION_COLUMNS = ("weights", "epoch", "split", "path", "label", "prediction", "probability")
"""Of `predictions.csv`, before the probabilities of the classes."""

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "clu", "numpy")


def recorded(workdir: Path) -> dict[str, Any] | None:
    """Returns what `config.json` of the run in `workdir` holds; `None` where no run lies.

    Raises:
      UserError: `workdir` holds something else, which a run would be mixed up with.
    """
    if (workdir / CONFIG).is_file():
        try:
            facts = json.loads((workdir / CONFIG).read_text(encoding="utf-8"))
            config_lib.from_flat(facts["config"])
            if type(facts.get("finished", 0)) is int and type(facts["weights"]) is str:
                facts["data"]["fingerprint"]
                return facts
        except (ValueError, KeyError, TypeError, AttributeError, UserError):
            pass
        raise UserError(f"{workdir / CONFIG} is damaged or not meljax's; give another directory")
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir {workdir} is a file; give a directory")
    if workdir.is_dir() and any(not p.name.startswith(".") for p in workdir.iterdir()):
        raise UserError(f"--workdir {workdir} holds files but no run; give a new directory")
    return None


def check_is_run(path: Path) -> None:
    """Raises `UserError` unless a run lies in `path`."""
    if not (path / CONFIG).is_file():
        raise UserError(f"{path} is no run: it holds no {CONFIG}")


@contextlib.contextmanager
def locked(workdir: Path, facts: dict[str, Any] | None) -> Iterator[None]:
    """Holds `workdir`, created if need be, for this process alone; a kill lets go of it too.

    Args:
      workdir: of the run.
      facts: what `recorded` said of it.

    Raises:
      UserError: another process trains there, or it cannot be written.
    """
    taken = f"another process is training in {workdir}; wait for it, or give another directory"
    with locked_file(workdir / LOCK, taken):
        if recorded(workdir) != facts:
            raise UserError(f"another process has just trained in {workdir}; start again")
        yield


def check_same(workdir: Path, facts: dict[str, Any], config: Config) -> None:
    """Raises `UserError`, naming the keys that differ, unless `config` continues the run.

    More epochs are no difference: the run goes on to that number.
    """
    # Keys that are newer than the run have kept their defaults in it.
    old, new = config_lib.flat(config_lib.from_flat(facts["config"])), as_recorded(config)
    changed = [
        f"{key} (was {old[key]!r}, now {new[key]!r})"
        for key in sorted(new)
        if old[key] != new[key]
        # A set that was moved is told by its content.
        and key != "data.tfds_dir"
        and not (key == "train.epochs" and new[key] > old[key])
    ]
    if changed:
        raise UserError(
            f"the run in {workdir} was started with other settings: "
            f"{', '.join(changed)}; give another --workdir"
        )


def check_same_data(workdir: Path, facts: dict[str, Any], voice_set: VoiceSet) -> None:
    """Raises `UserError` unless the files, labels and sides are those the run began with."""
    if facts["data"]["fingerprint"] != voice_set.fingerprint:
        raise UserError(
            f"the data changed since the run in {workdir} was started: files, contents "
            "or labels differ from its split.csv; bring them back, or train in another directory"
        )


def as_recorded(config: Config) -> dict[str, str | int | float]:
    """Returns the settings as `config.json` holds them: paths absolute, so that they stay true."""
    values = config_lib.flat(config)
    words = {"model.init": ("auto", "imagenet", "scratch")}
    for name in ("data.path", "data.tfds_dir", "model.init"):
        value = values[name]
        if value and value not in words.get(name, ()) and not tfds.is_name(value):
            values[name] = os.path.abspath(os.path.expanduser(values[name]))
    return values


def describe(
    config: Config,
    voice_set: VoiceSet,
    weights: str,
    parameters: int,
    before: dict[str, Any] | None,
) -> dict[str, Any]:
    """Returns what `config.json` is to hold.

    Args:
      config: the settings.
      voice_set: the data.
      weights: how the weights began, in words.
      parameters: how many numbers are trained.
      before: what an earlier session of the run recorded, if there was one.
    """
    sides = {side: len(voice_set.indices(side)) for side in ("train", "val", "test")}
    session = _this_session()
    sessions = before.get("sessions", []) if before else []
    return {
        "config": as_recorded(config),
        "seed": config.train.seed,
        "weights": weights,
        "parameters": parameters,
        "data": {
            "kind": voice_set.kind,
            "classes": list(voice_set.classes),
            "files": sides,
            "ignored": voice_set.ignored,
            "skipped": [f"{bad.path}: {bad.reason}" for bad in voice_set.skipped],
            "warnings": list(voice_set.warnings),
            "fingerprint": voice_set.fingerprint,
        },
        **session,
        "sessions": sessions if session in sessions else [*sessions, session],
    }


def _this_session() -> dict[str, Any]:
    """Returns on what, and with what, this process computes."""
    device = jax.local_devices()[0]
    return {
        "device_kind": device.device_kind,
        "platform": device.platform,
        "device_count": jax.local_device_count(),
        "versions": {"meljax": meljax.__version__, "python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def cautions(facts: dict[str, Any]) -> list[str]:
    """Returns what must not be missed about a run, one line each."""
    data = facts["data"]
    lines = list(data["warnings"])
    if data["skipped"]:
        lines.append(
            f"{len(data['skipped'])} unusable files were left out: " + "; ".join(data["skipped"])
        )
    if lacks_pretraining(facts):
        lines.append(f"the network is not pretrained; its weights begin {facts['weights']}")
    return lines


def lacks_pretraining(facts: dict[str, Any]) -> bool:
    """Returns whether pretrained weights were wanted where they could be had, and were not had."""
    config = facts["config"]
    wanted = config["model.init"] == "auto" and config["model.name"] == "resnet18"
    return wanted and facts["weights"].startswith("random")


def finished(workdir: Path, facts: dict[str, Any], config: Config) -> bool:
    """Returns whether a run has trained all its epochs and its report lies there."""
    return facts.get("finished", 0) >= config.train.epochs and (workdir / REPORT).is_file()


def create(workdir: Path, facts: dict[str, Any], voice_set: VoiceSet) -> None:
    """Writes `split.csv` and `config.json` to `workdir`, which is there."""
    write_facts(workdir, facts)
    write_whole(workdir / SPLIT, split_csv(voice_set))


def write_facts(workdir: Path, facts: dict[str, Any]) -> None:
    """Writes `config.json`."""
    write_whole(workdir / CONFIG, json.dumps(facts, indent=2) + "\n")


def split_csv(voice_set: VoiceSet) -> str:
    """Returns the split as CSV: path, label, group, split, sha256; sorted by path."""
    rows = zip(voice_set.items, voice_set.sides, voice_set.digests, strict=True)
    lines = [
        csv_line(["path", "label", "group", "split", "sha256"]),
        *(csv_line([i.path, i.label, i.group, side, digest]) for i, side, digest in rows),
    ]
    return "".join(f"{line}\n" for line in lines)


def read_history(workdir: Path, epochs: int) -> list[Row]:
    """Returns the first `epochs` rows of `metrics.jsonl`.

    Raises:
      UserError: rows of those epochs are missing or damaged.
    """
    path = workdir / METRICS
    try:
        rows = [json.loads(line) for line in _lines(path)[:epochs]]
        fits = [row["epoch"] for row in rows] == list(range(1, epochs + 1))
        fits = fits and all(math.isfinite(row[name]) for row in rows for name in MEASURED)
    except (ValueError, KeyError, TypeError):
        fits = False
    if not fits:
        raise UserError(
            f"{path} does not hold the {epochs} epochs that the checkpoint has behind "
            "it; bring it back, or give another directory"
        )
    return rows


def cut_history(workdir: Path, epochs: int) -> None:
    """Cuts away what `metrics.jsonl` holds beyond `epochs`.

    Those are epochs whose checkpoint was never finished; they are run again.
    """
    lines = _lines(workdir / METRICS)
    if len(lines) > epochs:
        write_whole(workdir / METRICS, "".join(f"{line}\n" for line in lines[:epochs]))


def count_history(workdir: Path) -> int:
    """Returns how many rows `metrics.jsonl` has."""
    return len(_lines(workdir / METRICS))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def append_history(workdir: Path, row: Row) -> None:
    """Adds one epoch to `metrics.jsonl`, at full precision, and sees it to the disk."""
    with open(workdir / METRICS, "a", encoding="utf-8") as file:
        file.write(json.dumps(row, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_predictions(workdir: Path, results: RunResults, voice_set: VoiceSet) -> None:
    """Writes `predictions.csv`: what the last and the best weights make of every file held out.

    A row per file: weights ('last', 'best'), epoch, split, path, label, prediction, probability,
    and the calibrated probability of every class, at full precision.
    """
    lines = [csv_line([*PREDICTION_COLUMNS, *(f"p:{name}" for name in results.classes)])]
    for scored in results.scores:
        which = ["best" if scored.chosen else "last", scored.epoch, scored.side]
        items = [voice_set.items[i] for i in voice_set.indices(scored.side)]
        for item, row in zip(items, scored.probabilities.tolist(), strict=True):
            best = max(row)
            prediction = results.classes[row.index(best)]
            lines.append(csv_line([*which, item.path, item.label, prediction, best, *row]))
    write_whole(workdir / PREDICTIONS, "".join(f"{line}\n" for line in lines))


def read_predictions(workdir: Path, facts: dict[str, Any]) -> list[Predicted]:
    """Returns what `predictions.csv` holds, in its order.

    Args:
      workdir: of the run.
      facts: what its `config.json` holds, which the predictions must fit.

    Raises:
      UserError: there are none, or they are damaged.
    """
    path = workdir / PREDICTIONS
    if not path.is_file():
        raise UserError(f"{workdir} holds no {PREDICTIONS}; make it: {remedy(workdir)}")
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            header, *rows = csv.reader(file)
        classes = {name: number for number, name in enumerate(facts["data"]["classes"])}
        if header != [*PREDICTION_COLUMNS, *(f"p:{name}" for name in classes)]:
            raise ValueError
        groups = itertools.groupby(rows, lambda row: tuple(row[:3]))
        scores = [_predicted(*key, list(group), classes) for key, group in groups]
        if (scores[0].chosen, scores[0].side) != (False, "val"):
            raise ValueError
        if any(len(each.labels) != facts["data"]["files"][each.side] for each in scores):
            raise ValueError
    except (ValueError, KeyError, TypeError, IndexError, csv.Error):
        raise UserError(
            f"{path} is damaged or not of this run; make it anew: {remedy(workdir)}"
        ) from None
    return scores


def _predicted(
    weights: str, epoch: str, side: str, rows: list[list[str]], classes: dict[str, int]
) -> Predicted:
    """Returns rows of `predictions.csv` that belong together; `ValueError` or such if damaged."""
    chosen = {"last": False, "best": True}[weights]
    paths, labels, predictions = zip(*(row[3:6] for row in rows), strict=True)
    probabilities = np.array([[float(value) for value in row[7:]] for row in rows])
    predicted = Predicted(
        side=side,
        epoch=int(epoch),
        chosen=chosen,
        paths=paths,
        labels=np.array([classes[label] for label in labels]),
        probabilities=probabilities,
    )
    whole = np.isclose(probabilities.sum(-1), 1)  # which no nan and no infinity is
    if [classes[p] for p in predictions] != predicted.predictions.tolist() or not whole.all():
        raise ValueError
    return predicted


def remedy(workdir: Path) -> str:
    """Returns the command that makes a run's predictions, calibration and report anew."""
    return f"python -m meljax.report {shlex.quote(str(workdir))}"


def write_calibration(workdir: Path, results: RunResults) -> None:
    """Writes `calibration.json`: the temperature of the best weights, and what it changes.

    Nothing is written where the best weights are gone.
    """
    for scored in results.scores:
        if scored.chosen and scored.side == "val":
            write_whole(
                workdir / CALIBRATION, json.dumps(calibration_facts(scored), indent=2) + "\n"
            )


def calibration_facts(scored: Scored) -> dict[str, Any]:
    """Returns epoch and temperature of weights, and loss and calibration error without and with."""
    facts: dict[str, Any] = {"epoch": scored.epoch, "temperature": scored.temperature}
    for when, each in (("before", scored.raw_probabilities), ("after", scored.probabilities)):
        facts[when] = {
            "loss": calibration.log_loss(each, scored.labels),
            "expected_calibration_error": calibration.calibration_error(each, scored.labels),
        }
    return facts


def read_calibration(workdir: Path) -> dict[str, Any] | None:
    """Returns what `calibration.json` holds; `None` where there is none.

    Raises:
      UserError: it is damaged.
    """
    path = workdir / CALIBRATION
    if not path.exists():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        low, high = calibration.BOUNDS
        fits = type(facts["epoch"]) is int and type(facts["temperature"]) is float
        fits = fits and 0.9 * low < facts["temperature"] < 1.1 * high
    except (ValueError, KeyError, TypeError, OSError):
        fits = False
    if not fits:
        raise UserError(f"{path} is damaged; remove it, and make it anew: {remedy(workdir)}")
    return facts


def read_temperature(workdir: Path, epoch: int) -> float:
    """Returns the temperature of the weights of `epoch`; 1 where none was fitted to them yet.

    Raises:
      UserError: what was recorded is damaged.
    """
    facts = read_calibration(workdir)
    if facts and facts["epoch"] == epoch:
        return facts["temperature"]
    progress.warn(
        f"no temperature was fitted to epoch {epoch} of {workdir} yet; its probabilities are not "
        f"calibrated. To fit one: {remedy(workdir)}"
    )
    return 1.0
