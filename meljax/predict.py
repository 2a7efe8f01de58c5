"""Names the voices in recordings or pictures, with probabilities:

    python -m meljax.predict RUN PATH... [--top K] [--windows] [--format FORMAT] [--out FILE]

A row for each file: path, start, end, label, probability, error. start and end tell which part was
seen, in seconds of a recording and columns of a picture; a picture that is resized is seen whole.
Up to one and a half windows, as long as the network sees at once, that is the middle; what is
longer is scored on overlapping windows from end to end, and its probabilities are the mean of
theirs; with --windows there is a row for each. A file that cannot be read has its reason in the
column error; the others are scored all the same, and the exit code is 1. The weights are those of
the run's best epoch.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from meljax import backend, cli, progress, rows, saved, streaming
from meljax.data import files, tfds
from meljax.data.files import Bad
from meljax.errors import UserError
from meljax.rows import Row
from meljax.saved import SavedModel
from meljax.streaming import Item

COLUMNS = ("path", "start", "end", "label", "probability", "error")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code (1: some files could not be used)."""
    parser = cli.parser("predict", __doc__)
    parser.add_argument("run", metavar="RUN", type=Path, help="directory of a run")
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", help="a file, or a folder with all that lies below"
    )
    parser.add_argument(
        "--top",
        metavar="K",
        type=int,
        default=1,
        help="the K most probable classes, in columns label_2, probability_2, … (default: 1)",
    )
    parser.add_argument("--windows", action="store_true", help="a row for each window")
    parser.add_argument(
        "--format", choices=rows.FORMATS, help="default: by the suffix of --out, else table"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, help="default: standard output")
    arguments = parser.parse_args(argv)
    return cli.run(lambda: _predict(arguments))


def _predict(arguments: argparse.Namespace) -> int:
    backend.set_up()
    model = saved.load(arguments.run)
    if not 1 <= arguments.top <= len(model.classes):
        raise UserError(f"--top must be 1 to {len(model.classes)}, the number of classes")
    found = find(arguments.paths, model)
    form = arguments.format or rows.format_of(arguments.out)
    names = [each.path for each in found]
    _check_out(arguments.out, arguments.run, names)
    results = streaming.score(model, found)
    begun, unusable = time.perf_counter(), 0
    with rows.writer(form, arguments.out, _columns(arguments.top), names) as write:
        for result in progress.track(results, len(found), "predicting"):
            unusable += isinstance(result, Bad)
            for row in rows_of(model, result, arguments.top, arguments.windows):
                write(row)
    seconds = time.perf_counter() - begun
    noun = files.NOUNS[model.frontend.kind] + ("" if len(found) == 1 else "s")
    print(
        f"{len(found)} {noun} in {seconds:.1f} s ({len(found) / seconds:.0f} a second)"
        + (f"; {unusable} could not be used" if unusable else ""),
        file=sys.stderr,
    )
    return 1 if unusable else 0


def _check_out(out: Path | None, run: Path, inputs: Sequence[str]) -> None:
    """Raises `UserError` where writing to `out` would destroy what is read."""
    if not out or not out.is_file():
        return
    if run.resolve() in out.resolve().parents:
        raise UserError(f"--out {out} is a file of the run; give another one")
    for path in inputs:
        if os.path.exists(path) and os.path.samefile(path, out):
            raise UserError(f"--out {out} is one of the files to be scored; give another one")


def find(paths: Sequence[str], model: SavedModel) -> list[streaming.Source | Bad]:
    """Returns what is to be scored: each file of `paths`, and those of its kind in each folder.

    Raises:
      UserError: nothing there is of the kind that the model was trained on.
    """
    kind = model.frontend.kind
    found: list[streaming.Source | Bad] = []
    others: list[str] = []
    for path in paths:
        if tfds.is_name(path):
            raise UserError(f"{path}: predict takes files and folders; evaluate --data scores sets")
        if os.path.isdir(path):
            unreadable: list[OSError] = []
            below = files.walk(path, path.rstrip("/") + "/", unreadable=unreadable)
            for name, its in sorted(below):
                if its == kind:
                    found.append(streaming.source(name, model, partial(files.read_file, name)))
                elif its == "missing":
                    found.append(Bad(name, "no such file"))
                elif its in files.NOUNS:
                    others.append(name)
            found += [Bad(str(error.filename), str(error.strerror)) for error in unreadable]
        elif files.kind_of(path) not in (kind, None):
            others.append(path)
            found.append(Bad(path, f"no {files.NOUNS[kind]}, which the model was trained on"))
        else:
            found.append(streaming.source(path, model, partial(files.read_file, path)))
    if not found or (others and all(isinstance(each, Bad) for each in found)):
        noun = files.NOUNS[kind]
        instead = f", but {len(others)} such as {others[0]!r}" if others else ""
        raise UserError(
            f"the model was trained on {noun}s, and there is no {noun} in "
            f"{', '.join(map(repr, paths[:3]))}{' …' if len(paths) > 3 else ''}{instead}"
        )
    return found


def rows_of(model: SavedModel, result: Item | Bad, top: int, by_window: bool) -> list[Row]:
    """Returns the rows of one file.

    Args:
      model: that scored it.
      result: its scores, or why there are none.
      top: how many classes are named.
      by_window: a row for each window instead of one.
    """
    if isinstance(result, Bad):
        return [{"path": result.path, "error": result.reason}]
    starts = result.starts.tolist()
    if by_window:
        parts = zip(starts, starts, result.window_probabilities(model.temperature), strict=True)
    else:
        parts = [(starts[0], starts[-1], result.probabilities(model.temperature))]
    return [
        {"path": result.path} | _span(model, result.length, *ends) | _named(model, each, top)
        for *ends, each in parts
    ]


def _span(model: SavedModel, length: int, first: int, last: int) -> Row:
    """Returns what was seen of an item from its window at `first` to that at `last`."""
    frontend = model.frontend
    start, end = max(first, 0), min(last + frontend.window, length)
    if frontend.kind == "sound":
        rate = frontend.mel.sample_rate
        return {"start": start / rate, "end": end / rate}
    return {"start": None, "end": None} if frontend.image_size else {"start": start, "end": end}


def _named(model: SavedModel, probabilities: Float[np.ndarray, " classes"], top: int) -> Row:
    """Returns the `top` most probable classes and their probabilities."""
    found: Row = {}
    for place, number in enumerate(np.argsort(-probabilities, kind="stable")[:top], 1):
        found[_column("label", place)] = model.classes[number]
        found[_column("probability", place)] = float(probabilities[number])
    return found


def _column(name: str, place: int) -> str:
    return name if place == 1 else f"{name}_{place}"


def _columns(top: int) -> list[str]:
    more = range(2, top + 1)
    return [*COLUMNS, *(_column(name, k) for k in more for name in ("label", "probability"))]


if __name__ == "__main__":
    cli.leave(main())
