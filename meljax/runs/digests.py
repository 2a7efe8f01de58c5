"""Digests of the results of a run, which reveal damage. They are in `config.json`."""

import dataclasses
import hashlib
from pathlib import Path

from meljax.runs.directory import CALIBRATION, METRICS, PREDICTIONS, remedy
from meljax.runs.info import RunInfo
from meljax.util.errors import UserError


def with_digests(workdir: Path, info: RunInfo, epochs: int) -> RunInfo:
    """Returns `info` with the digests of the results, which were just written after `epochs`."""
    names = [name for name in (METRICS, PREDICTIONS, CALIBRATION) if (workdir / name).is_file()]
    digests = {name: _digest(workdir / name, epochs) for name in names}
    return dataclasses.replace(info, scored=epochs, digests=digests)


def check_digest(workdir: Path, info: RunInfo, name: str) -> None:
    """Raises `UserError` if the file `name` has a digest, and is missing or differs from it."""
    path = workdir / name
    if name not in info.digests:
        return
    if not path.is_file() or info.digests[name] != _digest(path, info.scored):
        raise UserError(f"{path} is damaged or was edited; to write it again: {remedy(workdir)}")


def _digest(path: Path, epochs: int) -> str:
    """Returns the sha256 of a file; of `metrics.jsonl`, only that of the first `epochs` lines."""
    content = path.read_bytes()
    if path.name == METRICS:
        content = b"".join(content.splitlines(keepends=True)[:epochs])
    return hashlib.sha256(content).hexdigest()
