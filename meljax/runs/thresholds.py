"""Thresholds of classes: read from a table, or chosen on a run's validation files."""

import csv
import io
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from meljax.evaluation.scores import Predicted
from meljax.evaluation.thresholds import Threshold, enough_items, precision_thresholds
from meljax.runs.directory import PREDICTIONS, remedy
from meljax.runs.info import require_info
from meljax.runs.load_model import TrainedModel
from meljax.runs.predictions import read_predictions
from meljax.util.csv_file import csv_line
from meljax.util.errors import UserError
from meljax.util.files import decode_text, write_atomically
from meljax.util.phrases import count, listed, nearest
from meljax.util.progress import warn

Thresholds = str | Path | Mapping[str, float]
"""A CSV file, 'precision=0.95', or thresholds by class."""

_PRECISION = "precision="


def find_thresholds(
    run: Path, trained: TrainedModel, given: Thresholds | None, minimum: float
) -> Float[np.ndarray, " classes"]:
    """Returns the threshold of each class: that of `given`, but not below `minimum`.

    Args:
      run: directory of the run of `trained`.
      trained: the model.
      given: thresholds of all or some classes; `None`: no class. 'precision=P' stands for the
        lowest thresholds with this precision on the run's validation files.
      minimum: lower bound of all thresholds, 0 to 1.

    Raises:
      UserError: a threshold or `given` is not valid, or the run has no predictions.
    """
    classes = trained.model.classes
    if not 0 <= minimum <= 1:
        raise UserError(f"the minimum probability must be 0 to 1, not {minimum:g}")
    if given is None:
        values: Mapping[str, float] = {}
    elif isinstance(given, Mapping):
        values = _checked(
            ((name, str(each), "thresholds: ") for name, each in given.items()), classes
        )
    elif str(given).startswith(_PRECISION):
        precision = parse_precision(str(given).removeprefix(_PRECISION))
        values = _of_validation(run, trained, precision)
    else:
        values = read_thresholds(Path(given), classes)
    return np.array([max(minimum, values.get(name, 0.0)) for name in classes])


def parse_precision(text: str) -> float:
    """Returns a precision; raises `UserError` if it is not above 0 and at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise UserError(f"the precision must be above 0 and at most 1, such as 0.95, not {text!r}")
    return value


def _of_validation(run: Path, trained: TrainedModel, precision: float) -> dict[str, float]:
    """Returns the thresholds chosen on the run's validation files, and reports what they keep."""
    found = [each for each in read_predictions(run, require_info(run)) if _fits(each, trained)]
    if not found:
        raise UserError(
            f"{run / PREDICTIONS} has no validation files of the best epoch, {trained.epoch}; to "
            f"write it again: {remedy(run)}"
        )
    chosen = precision_thresholds(found[0], precision)
    report_thresholds(trained.model.classes, chosen, precision)
    return dict(zip(trained.model.classes, (each.value for each in chosen), strict=True))


def _fits(scores: Predicted, trained: TrainedModel) -> bool:
    return scores.chosen and scores.split == "val" and scores.epoch == trained.epoch


def report_thresholds(
    classes: Sequence[str], chosen: Sequence[Threshold], precision: float
) -> None:
    """Prints how many items the thresholds keep; warns of classes with too few items."""
    items, kept, right = (sum(column) for column in list(zip(*chosen, strict=True))[1:])
    lowest, highest = (f(each.value for each in chosen) for f in (min, max))
    print(
        f"thresholds of {lowest:.2f} to {highest:.2f} for a precision of {precision:g} keep "
        f"{kept:,} of {count(items, 'labeled file')}, {right:,} of them right",
        file=sys.stderr,
    )
    enough = enough_items(precision)
    pairs = list(zip(classes, chosen, strict=True))
    if few := [f"{name} ({each.items})" for name, each in pairs if each.items < enough]:
        warn(
            f"fewer than {enough} labeled files were predicted as {listed(few)}: the thresholds of "
            "these classes are uncertain"
        )
    if never := [name for name, each in pairs if not each.kept]:
        warn(f"no threshold reaches this precision for {listed(never)}; 1 is used")


def write_thresholds(file: Path, classes: Sequence[str], chosen: Sequence[Threshold]) -> None:
    """Writes thresholds as CSV, with the numbers of items on which they were chosen.

    Raises:
      UserError: the file cannot be written.
    """
    lines = [csv_line(["class", "threshold", "predicted", "kept", "right"])]
    for name, each in zip(classes, chosen, strict=True):
        lines.append(csv_line([name, each.value, each.items, each.kept, each.right]))
    write_atomically(file, "\ufeff" + "".join(f"{line}\n" for line in lines), "--thresholds")


def read_thresholds(file: Path, classes: Sequence[str]) -> dict[str, float]:
    """Returns the thresholds by class in a CSV with the columns class and threshold.

    Fields are separated by commas, or by semicolons (then decimal commas are read too). Other
    columns are ignored.

    Raises:
      UserError: the file cannot be read, or a class or threshold is not valid.
    """
    try:
        text = decode_text(file.read_bytes())
    except OSError as error:
        raise UserError(f"{file}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not UTF-8 text; save it as CSV UTF-8") from None
    delimiter = ";" if ";" in text.partition("\n")[0] else ","
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    missing = [name for name in ("class", "threshold") if name not in (reader.fieldnames or ())]
    if missing:
        raise UserError(f"{file} has no column {missing[0]!r}; it needs class and threshold")
    rows = []
    try:
        for row in reader:
            where = f"{file}, line {reader.line_num}: "
            if None in row:  # such as the digits after a decimal comma
                raise UserError(f"{where}more fields than the header has; use decimal points")
            value = row["threshold"] or ""
            value = value.replace(",", ".") if delimiter == ";" else value
            rows.append((row["class"] or "", value, where))
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num}: {error}") from None
    return _checked(rows, classes)


def _checked(rows: Iterable[tuple[str, str, str]], classes: Sequence[str]) -> dict[str, float]:
    """Returns thresholds by class from (class, threshold, where); raises `UserError`."""
    found: dict[str, float] = {}
    for name, text, where in rows:
        if name not in classes:
            raise UserError(f"{where}the model has no class {name!r}{nearest(name, classes)}")
        if name in found:
            raise UserError(f"{where}class {name!r} has two thresholds; keep one")
        try:
            found[name] = float(text)
        except ValueError:
            found[name] = math.nan
        if not 0 <= found[name] <= 1:
            raise UserError(f"{where}the threshold of {name!r} must be 0 to 1, not {text!r}")
    return found
