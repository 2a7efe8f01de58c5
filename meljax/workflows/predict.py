"""Predicts the classes of files, with probabilities: a row per file, window or merged windows."""

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from meljax.data.file_tree import walk
from meljax.data.manifest import Bad, kind_name, kind_of, noun, open_file
from meljax.data.recording_time import recording_times
from meljax.data.tfds import catalog
from meljax.evaluation.forward import Model
from meljax.evaluation.memory import check_memory
from meljax.evaluation.scorer import Source, read_samples, score_stream, track_items, whole_items
from meljax.evaluation.spans import Span, merged, spans_of, with_decision
from meljax.evaluation.status import ERROR
from meljax.features.frontend import Frontend
from meljax.outputs.formats import ROUNDED, SELECTIONS, format_of
from meljax.outputs.rows import ALL_DIGITS, columns, row_of
from meljax.outputs.summary import summary_writer
from meljax.outputs.writers import Content, check_format, row_writer
from meljax.runs.load_model import TrainedModel, load_model, warn_if_not_calibrated
from meljax.runs.thresholds import Thresholds, find_thresholds
from meljax.util import devices
from meljax.util.errors import UserError
from meljax.util.progress import warn


def predict(
    run: Path,
    paths: Sequence[str],
    *,
    top: int = 1,
    by_window: bool = False,
    merge: bool = False,
    min_probability: float = 0.0,
    thresholds: Thresholds | None = None,
    form: str | None = None,
    out: Path | None = None,
    digits: int | None = None,
    summary: Path | None = None,
) -> int:
    """Writes a row per span of each file; returns the number of unusable files.

    Args:
      run: directory of a run.
      paths: files and folders.
      top: number of most probable classes in a row.
      by_window: whether each window has a row.
      merge: whether successive windows of the same class are one row.
      min_probability: rows with a lower probability are unknown, 0 to 1.
      thresholds: minimum probabilities by class; see `find_thresholds`.
      form: one of `formats.FORMATS`; `None`: by the suffix of `out`, else a table.
      out: the file or folder to write; `None`: standard output.
      digits: number of decimals; `None`: the default of the format.
      summary: file for counts per hour and class; `None`: they are not written.

    Raises:
      UserError: there is no model or no file to score, an argument is not valid, or a file cannot
        be written.
    """
    devices.set_up()
    trained = load_model(run)
    model = trained.model
    check_top(top, model.classes, "--top")
    least = find_thresholds(run, trained, thresholds, min_probability)
    sources, left_out = find_sources(paths, model)
    form = form or format_of(out)
    _check_digits(digits, form)
    names = [source.path for source in sources]
    times = recording_times(names)
    content = Content(columns(top, bool(times)), names, model.classes, _band(model.frontend))
    check_format(form, out, content)
    for option, file in (("--out", out), ("--summary", summary)):
        _check_out(option, file, run, names)
        if file is not None and isinstance(thresholds, str | Path) and _same(file, thresholds):
            raise UserError(f"{option} and --thresholds are the same file, {file}; use two files")
    if summary is not None and out is not None and _same(summary, out):
        raise UserError(f"--out and --summary are the same file, {out}; use two files")
    begun, unusable = time.perf_counter(), 0
    heard: dict[str, float] = {}  # seconds of each recording
    with (
        row_writer(form, out, content, digits) as write,
        summary_writer(summary, bool(times)) as count,
        check_memory(model),
    ):
        for span in predicted_spans(trained, sources, by_window, merge, least):
            row = row_of(span, model.classes, top, times.get(span.path))
            write(row)
            count(row)
            heard[span.path] = span.duration or 0.0
            unusable += span.status == ERROR
            if span.status == ERROR and form in SELECTIONS:
                warn(f"{span.path}: {span.error}")
    seconds = time.perf_counter() - begun
    files = f"{len(sources)} {noun(model.frontend.kind, len(sources))}"
    speed = f"{len(sources) / seconds:.0f} a second"
    if total := sum(heard.values()):
        files += f", {_duration(total)} of sound,"
        speed = f"{total / seconds:,.0f} times real time"
    _tell_work(f"{files} in {seconds:.1f} s ({speed})", unusable, left_out)
    return unusable


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def _tell_work(done: str, unusable: int, left_out: Mapping[str, int]) -> None:
    """Prints what was done, and what was not, to stderr."""
    listed = ", ".join(f"{number:,} {kind}" for kind, number in sorted(left_out.items()))
    print(
        done
        + (f"; {unusable} could not be used" if unusable else "")
        + (f"; left out: {listed}" if left_out else ""),
        file=sys.stderr,
    )


def _check_digits(digits: int | None, form: str) -> None:
    if digits is None:
        return
    if not 1 <= digits <= ALL_DIGITS:
        raise UserError(f"--digits must be 1 to {ALL_DIGITS}, not {digits}")
    if form not in ROUNDED:
        raise UserError(f"--digits is for {', '.join(ROUNDED)}, not for {form}")


def check_top(top: int, classes: Sequence[str], name: str) -> None:
    """Raises `UserError` unless `top` is 1 to the number of classes; `name` is its option."""
    if not 1 <= top <= len(classes):
        raise UserError(f"{name} must be 1 to {len(classes)}, the number of classes")


def predicted_spans(
    trained: TrainedModel,
    sources: Sequence[Source | Bad],
    by_window: bool,
    merge: bool,
    thresholds: Float[np.ndarray, " classes"],
) -> Iterator[Span]:
    """Yields the predictions for each source, in order; arguments as in `predict`.

    `thresholds` has one for each class. They apply to each window before windows are merged.
    """
    warn_if_not_calibrated(trained)
    by_window = by_window or merge
    results = track_items(score_stream(trained.model, sources), len(sources), "predicting")
    frontend, temperature = trained.model.frontend, trained.temperature
    spans = (
        with_decision(span, thresholds, trained.background)
        for result in (results if by_window else whole_items(results))
        for span in spans_of(frontend, temperature, result, by_window)
    )
    return merged(spans) if merge else spans


def _band(frontend: Frontend) -> tuple[float, float] | None:
    """Returns the lowest and highest frequency of the model, in Hz; `None` for images."""
    if frontend.kind != "audio":
        return None
    return frontend.mel.fmin, frontend.mel.fmax or frontend.mel.sample_rate / 2


def _check_out(option: str, out: Path | None, run: Path, inputs: Sequence[str]) -> None:
    """Raises `UserError` if `out` is an input, a folder of inputs, or in the run."""
    if out is None or not (out.is_file() or out.is_dir()):
        return
    kind = "folder" if out.is_dir() else "file"
    if run.resolve() in (out.resolve(), *out.resolve().parents):
        raise UserError(f"{option} {out} is a {kind} of the run; use another {kind}")
    for path in filter(os.path.exists, inputs):
        if out.is_dir() and out.resolve() in Path(path).resolve().parents:
            raise UserError(f"{option} {out} holds files to be scored; use another folder")
        if out.is_file() and out.samefile(path):
            raise UserError(f"{option} {out} is one of the files to be scored; use another file")


def _same(one: str | Path, other: str | Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)


def find_sources(
    paths: Sequence[str], model: Model
) -> tuple[list[Source | Bad], Mapping[str, int]]:
    """Returns the sources to score, and the number of files that are left out, by kind.

    The sources are the files in `paths`, and files of the model's kind in folders.

    Raises:
      UserError: none of them is of the kind that the model was trained on.
    """
    found: list[Source | Bad] = []
    others: list[str] = []
    left_out: Counter[str] = Counter()
    for path in paths:
        below, skipped = sources_of(path, model)
        found += below
        others += [name for name in skipped if kind_of(name)]
        if os.path.isdir(path):
            left_out.update(map(kind_name, skipped))
    check_usable(paths, found, others, model)
    return found, left_out


def check_usable(
    paths: Sequence[str], found: Sequence[Source | Bad], others: Sequence[str], model: Model
) -> None:
    """Raises `UserError` if the model takes none of the files that were found in `paths`.

    `others` are the files of another kind.
    """
    kind = model.frontend.kind
    if not found or (others and all(isinstance(each, Bad) for each in found)):
        where = f"{', '.join(map(repr, paths[:3]))}{' …' if len(paths) > 3 else ''}"
        instead = f" (found {len(others)} of another kind, e.g. {others[0]!r})" if others else ""
        raise UserError(
            f"the model was trained on {noun(kind)}; no {noun(kind)} in {where}{instead}"
        )


def sources_of(path: str, model: Model) -> tuple[list[Source | Bad], list[str]]:
    """Returns the sources of a file or folder, and its files of another kind.

    Raises:
      UserError: `path` is the name of a TFDS set.
    """
    kind = model.frontend.kind
    if catalog.is_name(path):
        raise UserError(f"{path}: predict takes files and folders; evaluate scores TFDS sets")
    if os.path.isdir(path):
        return _folder_sources(path, model)
    if kind_of(path) not in (kind, None):
        return [Bad(path, f"the model was trained on {noun(kind)}")], [path]
    return [_file_source(path, model)], []


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
