"""The directory of a run: what it holds, and whether a run may go on in it."""

import csv
import importlib.metadata
import io
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax

import meljax
from meljax import config as config_lib
from meljax.config import Config
from meljax.data.load import VoiceSet
from meljax.errors import UserError
from meljax.metrics import Row
from meljax.paths import write_whole

CONFIG = "config.json"
SPLIT = "split.csv"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
REPORT = "report.html"

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "clu", "numpy")


def recorded(workdir: Path) -> dict[str, Any] | None:
    """Returns what `config.json` of the run in `workdir` holds; `None` where no run lies.

    Raises:
      UserError: `workdir` holds something else, which a run would be mixed up with.
    """
    if (workdir / CONFIG).is_file():
        try:
            facts = json.loads((workdir / CONFIG).read_text())
            if facts.keys() >= {"config", "data", "weights"}:
                return facts
        except ValueError:
            pass
        raise UserError(f"{workdir / CONFIG} is damaged; give another --workdir")
    if workdir.exists() and not workdir.is_dir():
        raise UserError(f"--workdir {workdir} is a file; give a directory")
    if workdir.is_dir() and any(not p.name.startswith(".") for p in workdir.iterdir()):
        raise UserError(
            f"--workdir {workdir} holds files but no run; give an empty or new directory"
        )
    return None


def check_same(workdir: Path, facts: dict[str, Any], config: Config) -> None:
    """Raises `UserError`, naming the keys that differ, unless `config` continues the run.

    More epochs are no difference: the run goes on to that number.
    """
    old, new = facts["config"], as_recorded(config)
    changed = [
        f"{key} (was {old.get(key)!r}, now {new.get(key)!r})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not (key == "train.epochs" and new[key] > old.get(key, new[key]))
    ]
    if changed:
        raise UserError(f"the run in {workdir} was started with other settings: "
                        f"{', '.join(changed)}; give another --workdir")  # fmt: skip


def check_same_data(workdir: Path, facts: dict[str, Any], voice_set: VoiceSet) -> None:
    """Raises `UserError` unless the files, labels and sides are those the run began with."""
    if facts["data"]["fingerprint"] != voice_set.fingerprint:
        raise UserError(f"the data changed since the run in {workdir} was started: files, contents "
                        "or labels differ from its split.csv; give another --workdir")  # fmt: skip


def as_recorded(config: Config) -> dict[str, str | int | float]:
    """Returns the settings as `config.json` holds them: paths absolute, so that they stay true."""
    values = config_lib.flat(config)
    if values["data.path"]:
        values["data.path"] = str(Path(values["data.path"]).expanduser().resolve())
    return values


def describe(config: Config, voice_set: VoiceSet, weights: str) -> dict[str, Any]:
    """Returns what `config.json` is to hold."""
    sides = {side: len(voice_set.indices(side)) for side in ("train", "val", "test")}
    device = jax.local_devices()[0]
    return {
        "config": as_recorded(config),
        "seed": config.train.seed,
        "weights": weights,
        "data": {
            "kind": voice_set.kind,
            "classes": list(voice_set.classes),
            "files": sides,
            "ignored": voice_set.ignored,
            "skipped": [f"{bad.path}: {bad.reason}" for bad in voice_set.skipped],
            "warnings": list(voice_set.warnings),
            "fingerprint": voice_set.fingerprint,
        },
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
        lines.append(f"{len(data['skipped'])} unusable files were left out: "
                     + "; ".join(data["skipped"]))  # fmt: skip
    if lacks_pretraining(facts):
        lines.append(f"the network is not pretrained; its weights begin {facts['weights']}")
    return lines


def lacks_pretraining(facts: dict[str, Any]) -> bool:
    """Returns whether pretrained weights were wanted where they could be had, and were not had."""
    config = facts["config"]
    wanted = config["model.init"] == "auto" and config["model.name"] == "resnet18"
    return wanted and facts["weights"].startswith("random")


def finished(facts: dict[str, Any], config: Config) -> bool:
    """Returns whether a run has trained all its epochs and written its report."""
    return facts.get("finished", 0) >= config.train.epochs


def create(workdir: Path, facts: dict[str, Any], voice_set: VoiceSet) -> None:
    """Creates `workdir` with `split.csv` and `config.json`.

    Raises:
      UserError: `workdir` cannot be written.
    """
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        write_facts(workdir, facts)
        write_whole(workdir / SPLIT, split_csv(voice_set))
    except OSError as error:
        raise UserError(f"--workdir {workdir} cannot be written: {error.strerror}") from None


def write_facts(workdir: Path, facts: dict[str, Any]) -> None:
    """Writes `config.json`."""
    write_whole(workdir / CONFIG, json.dumps(facts, indent=2) + "\n")


def split_csv(voice_set: VoiceSet) -> str:
    """Returns the split as CSV: path, label, group, split, sha256; sorted by path."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "group", "split", "sha256"])
    for item, side, digest in zip(voice_set.items, voice_set.sides, voice_set.digests, strict=True):
        writer.writerow([item.path, item.label, item.group, side, digest])
    return text.getvalue()


def read_history(workdir: Path, epochs: int) -> list[Row]:
    """Returns the rows of `metrics.jsonl` up to `epochs` and cuts away the rest.

    What lies beyond belongs to epochs whose checkpoint was never finished; they are run again.
    """
    path = workdir / METRICS
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)[:epochs]
    write_whole(path, "".join(lines))
    return [json.loads(line) for line in lines]


def append_history(workdir: Path, row: Row) -> None:
    """Adds one epoch to `metrics.jsonl`, at full precision, and sees it to the disk."""
    with open(workdir / METRICS, "a") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())
