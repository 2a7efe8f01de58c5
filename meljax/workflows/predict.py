"""Predicts the classes of files, with probabilities: a row per file or per window."""

import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from meljax.data.file_tree import walk
from meljax.data.manifest import Bad, kind_name, kind_of, noun, open_file
from meljax.data.tfds import catalog
from meljax.evaluation.forward import Model
from meljax.evaluation.memory import check_memory
from meljax.evaluation.scorer import (
    ScoredItem,
    Source,
    read_samples,
    score_stream,
    track_items,
    whole_items,
)
from meljax.features.frontend import Frontend
from meljax.runs.load_model import TrainedModel, load_model
from meljax.util import devices, table
from meljax.util.errors import UserError
from meljax.util.table import Row

COLUMNS = ("path", "start", "end", "label", "probability", "status", "error")


def predict(
    run: Path,
    paths: Sequence[str],
    top: int = 1,
    by_window: bool = False,
    form: str | None = None,
    out: Path | None = None,
) -> int:
    """Writes a row per file or per window; returns the number of unusable files.

    Args:
      run: directory of a run.
      paths: files and folders.
      top: number of most probable classes in a row.
      by_window: whether each window has a row.
      form: one of `table.FORMATS`; `None`: by the suffix of `out`, else a table.
      out: the file to write; `None`: standard output.

    Raises:
      UserError: there is no model or no file to score, or `out` cannot be written.
    """
    devices.set_up()
    trained = load_model(run)
    if not 1 <= top <= len(trained.model.classes):
        raise UserError(f"--top must be 1 to {len(trained.model.classes)}, the number of classes")
    sources, left_out = find_sources(paths, trained.model)
    form = form or table.format_of(out)
    names = [source.path for source in sources]
    _check_out(out, run, names)
    begun, unusable = time.perf_counter(), 0
    in_memory = check_memory(trained.model)
    with table.writer(form, out, columns(top), names) as write, in_memory:
        results = score_stream(trained.model, sources)
        results = track_items(results, len(sources), "predicting")
        for result in results if by_window else whole_items(results):
            unusable += isinstance(result, Bad)
            for row in rows_of(trained, result, top, by_window):
                write(row)
    seconds = time.perf_counter() - begun
    files = f"{len(sources)} {noun(trained.model.frontend.kind, len(sources))}"
    print(
        f"{files} in {seconds:.1f} s ({len(sources) / seconds:.0f} a second)"
        + (f"; {unusable} could not be used" if unusable else "")
        + (f"; left out: {_listed(left_out)}" if left_out else ""),
        file=sys.stderr,
    )
    return unusable


def _check_out(out: Path | None, run: Path, inputs: Sequence[str]) -> None:
    """Raises `UserError` if writing to `out` would overwrite an input."""
    if not out or not out.is_file():
        return
    if run.resolve() in out.resolve().parents:
        raise UserError(f"--out {out} is a file of the run; use another file")
    for path in inputs:
        if os.path.exists(path) and os.path.samefile(path, out):
            raise UserError(f"--out {out} is one of the files to be scored; use another file")


def _listed(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {kind}" for kind, number in sorted(left_out.items()))


def find_sources(
    paths: Sequence[str], model: Model
) -> tuple[list[Source | Bad], Mapping[str, int]]:
    """Returns the sources to score, and the number of files that are left out, by kind.

    The sources are the files in `paths`, and files of the model's kind in folders.

    Raises:
      UserError: none of them is of the kind that the model was trained on.
    """
    kind = model.frontend.kind
    found: list[Source | Bad] = []
    others: list[str] = []
    left_out: Counter[str] = Counter()
    for path in paths:
        if catalog.is_name(path):
            raise UserError(f"{path}: predict takes files and folders; evaluate scores TFDS sets")
        if os.path.isdir(path):
            below, skipped = _folder_sources(path, model)
            found += below
            others += [name for name in skipped if kind_of(name)]
            left_out.update(map(kind_name, skipped))
        elif kind_of(path) not in (kind, None):
            others.append(path)
            found.append(Bad(path, f"the model was trained on {noun(kind)}"))
        else:
            found.append(_file_source(path, model))
    if not found or (others and all(isinstance(each, Bad) for each in found)):
        where = f"{', '.join(map(repr, paths[:3]))}{' …' if len(paths) > 3 else ''}"
        instead = f" (found {len(others)} of another kind, e.g. {others[0]!r})" if others else ""
        raise UserError(
            f"the model was trained on {noun(kind)}; no {noun(kind)} in {where}{instead}"
        )
    return found, left_out


def _folder_sources(folder: str, model: Model) -> tuple[list[Source | Bad], list[str]]:
    """Returns the sources in a folder and its sub-folders, and all other files."""
    found: list[Source | Bad] = []
    others: list[str] = []
    unreadable: list[OSError] = []
    for name, kind in sorted(walk(folder, folder.rstrip("/") + "/", unreadable=unreadable)):
        if kind == model.frontend.kind:
            found.append(_file_source(name, model))
        elif kind == "missing":
            found.append(Bad(name, "no such file"))
        else:
            others.append(name)
    found += [Bad(str(error.filename), str(error.strerror)) for error in unreadable]
    return found, others


def _file_source(path: str, model: Model) -> Source:
    return Source(path, partial(read_samples, partial(open_file, path), model))


def rows_of(
    trained: TrainedModel, result: ScoredItem | Bad, top: int, by_window: bool
) -> list[Row]:
    """Returns the rows of one file, or of a part of it; `top` and `by_window` as in `predict`."""
    if isinstance(result, Bad):
        return [{"path": result.path, "status": "error", "error": result.reason}]
    starts, temperature = result.starts.tolist(), trained.temperature
    silent = result.silent.tolist()
    if by_window:
        found = zip(starts, result.window_probabilities(temperature), strict=True)
        parts = [(start, start, probabilities) for start, probabilities in found]
        parts += [(start, start, None) for start in silent]
        parts.sort(key=lambda part: part[0])
    else:
        whole = result.probabilities(temperature) if starts else None
        parts = [(min(starts + silent), max(starts + silent), whole)]
    frontend, classes = trained.model.frontend, trained.model.classes
    return [
        {"path": result.path}
        | _span(frontend, result.length, first, last)
        | _named(classes, probabilities, top)
        for first, last, probabilities in parts
    ]


def probabilities_of(
    trained: TrainedModel, result: ScoredItem | Bad, by_window: bool
) -> Float[np.ndarray, "rows classes"]:
    """Returns the probabilities of all classes for each of `rows_of`; NaN without a label."""
    rows = 1
    if by_window and isinstance(result, ScoredItem):
        rows = len(result.starts) + len(result.silent)
    found = np.full((rows, len(trained.model.classes)), np.nan)
    if isinstance(result, Bad) or not len(result.starts):
        return found
    if not by_window:
        return result.probabilities(trained.temperature)[None]
    order = np.argsort(np.concatenate([result.starts, result.silent]), kind="stable")
    found[: len(result.starts)] = result.window_probabilities(trained.temperature)
    return found[order]


def _span(frontend: Frontend, length: int, first: int, last: int) -> Row:
    """Returns start and end of the part covered by the windows that start at `first` to `last`."""
    start, end = max(first, 0), min(last + frontend.window, length)
    if frontend.kind == "audio":
        rate = frontend.mel.sample_rate
        return {"start": start / rate, "end": end / rate}
    if frontend.image_size:
        return {"start": None, "end": None}
    left = frontend.crop[0]  # columns are those of the whole image
    return {"start": left + start, "end": left + end}


def _named(
    classes: Sequence[str], probabilities: Float[np.ndarray, " classes"] | None, top: int
) -> Row:
    """Returns the status, and the `top` most probable classes and their probabilities.

    `None` instead of probabilities means silence.
    """
    if probabilities is None:
        return {"status": "silence"}
    found: Row = {"status": "ok"}
    for place, number in enumerate(np.argsort(-probabilities, kind="stable")[:top], 1):
        found[_column("label", place)] = classes[number]
        found[_column("probability", place)] = float(probabilities[number])
    return found


def _column(name: str, place: int) -> str:
    return name if place == 1 else f"{name}_{place}"


def columns(top: int) -> list[str]:
    """Returns the columns of the rows; `top` as in `predict`."""
    more = range(2, top + 1)
    return [*COLUMNS, *(_column(name, k) for k in more for name in ("label", "probability"))]
