"""The page of several runs: which scored higher, and whether by more than chance."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from meljax import paired, runs
from meljax.checkpoint import rank
from meljax.config import KEYS
from meljax.data.files import NOUNS
from meljax.errors import UserError
from meljax.metrics import Row
from meljax.pages import figures, parts
from meljax.pages.parts import ABSENT, SIDES, count, duration, img, interval, section, table, text
from meljax.paired import Paired
from meljax.results import Predicted, RunRecord

READ_PAIRS = 6
"""Up to so many pairs the page has a sentence for each; beyond, they unfold."""

_NETWORKS = {"resnet18": "ResNet-18", "cnn": "CNN"}
_NONE = "no evidence of a difference"
_CURVES = {
    "training_loss": ("train_loss", "Training loss"),
    "validation_loss": ("val_loss", "Validation loss"),
    "accuracy": ("val_accuracy", "Accuracy"),
    "f1": ("val_f1", "Macro-F1"),
}


class Pair(NamedTuple):
    """Two runs that share a split, tested on one side of it.

    Attributes:
      first: place of one run among all.
      second: place of the other.
      side: 'val' or 'test'.
      test: what the last epochs' predictions say.
    """

    first: int
    second: int
    side: str
    test: Paired


def write_comparison(directory: Path, records: Sequence[RunRecord]) -> Path:
    """Writes `report.html` and its figures into `directory`; returns the page's path."""
    links = {
        record.name: parts.link(record.path / runs.REPORT, directory)
        for record in records
        if (record.path / runs.REPORT).exists()
    }
    return parts.write(directory, page(records, links), _figures(records))


def page(records: Sequence[RunRecord], links: Mapping[str, str]) -> str:
    """Returns the page, as HTML.

    Args:
      records: of the runs, in the order of their colours.
      links: by the runs' names, the way to each one's own page.
    """
    title = _enumerated([record.name for record in records])
    return parts.document(
        title,
        (
            f"<h1>{text(title)}</h1>",
            f'<p class="lead">{text(headline(records))}</p>',
            _cautions(records),
            _scores(records, links),
            _curves(records),
            _tests(records),
            _differences(records),
        ),
    )


def pairs(records: Sequence[RunRecord]) -> list[Pair]:
    """Returns McNemar's test for every two runs that share a split, validation before test.

    Raises:
      UserError: predictions are not of the files that the runs share.
    """
    found = []
    for side in ("val", "test"):
        for (i, a), (j, b) in itertools.combinations(enumerate(records), 2):
            one, other = _scored(a, side), _scored(b, side)
            if not (_share_split(a, b) and one and other):
                continue
            if one.paths != other.paths or not np.array_equal(one.labels, other.labels):
                raise UserError(
                    f"{a.path} and {b.path} share a split, but their {runs.PREDICTIONS} name other "
                    f"files; make them anew: {runs.remedy(a.path)}, and the other likewise"
                )
            found.append(Pair(i, j, side, paired.mcnemar(one.right, other.right)))
    return found


def headline(records: Sequence[RunRecord]) -> str:
    """Returns which run scored highest on validation, and against which it means something."""
    scores = [record.scores[0].accuracy for record in records]
    best = int(np.argmax(scores))
    name, others = records[best].name, [i for i in range(len(records)) if i != best]
    if len(records) > 2:
        first = f"{name} scored highest: {scores[best]:.1%} of the validation files right"
    elif scores[0] == scores[1]:
        first = f"{name} and {records[1].name} both got {scores[0]:.1%} of validation files right"
    else:
        first = (
            f"{name} scored higher: {scores[best]:.1%} of the validation files right, against "
            f"{scores[others[0]]:.1%} for {records[others[0]].name}"
        )
    return " ".join([f"{first} (weights of the last epoch).", *_verdicts(records, best)])


def _verdicts(records: Sequence[RunRecord], best: int) -> Iterator[str]:
    """Yields what is known of the best run against the others: four sentences at most."""
    tests = {frozenset(pair[:2]): pair.test.p for pair in pairs(records) if pair.side == "val"}
    names, level = [record.name for record in records], _level(records)
    found = {i: tests.get(frozenset((best, i))) for i in range(len(records)) if i != best}
    clear = {names[i]: p for i, p in found.items() if p is not None and p < level}
    unclear = {names[i]: p for i, p in found.items() if p is not None and p >= level}
    apart = [records[i] for i, p in found.items() if p is None]
    others = [r for r in apart if _classes(r) != _classes(records[best])]
    apart = [r for r in apart if r not in others]
    if clear:
        yield f"The difference{_tested(clear, records)} is more than chance would make."
    if unclear:
        yield f"There is {_NONE}{_tested(unclear, records)}."
    if apart:
        yield _apart(records[best], apart, len(records) == 2)
    if others:
        names = _enumerated([record.name for record in others])
        yield f"{names} had other classes to tell apart, which is another task: do not compare."


def _tested(found: Mapping[str, float], records: Sequence[RunRecord]) -> str:
    """Returns from which runs, if there are several, and p."""
    if len(records) == 2:
        return "".join(f" ({_p(p)})" for p in found.values())
    return f" from {_enumerated([f'{name} ({_p(p)})' for name, p in found.items()])}"


def _apart(best: RunRecord, others: Sequence[RunRecord], two: bool) -> str:
    """Returns what intervals say of runs that were scored on other files."""
    low = best.scores[0].accuracy_interval[0]
    overlap = [r.name for r in others if r.scores[0].accuracy_interval[1] >= low]
    beyond = [r.name for r in others if r.name not in overlap]
    said = []
    if overlap:
        which = f" with {_enumerated(overlap)}" if beyond else ""
        said.append(f"the 95 % intervals overlap{which}, {_NONE}")
    if beyond:
        which = f" of {_enumerated(beyond)}" if overlap else ""
        said.append(f"the 95 % intervals{which} lie apart, but other files may be easier or harder")
    names = _enumerated([record.name for record in others])
    of = "They do not share a split" if two else f"{names} had other files"
    return f"{of}: {'; '.join(said)}."


def _classes(record: RunRecord) -> list[str]:
    return record.facts["data"]["classes"]


def _share_split(a: RunRecord, b: RunRecord) -> bool:
    return a.facts["data"]["fingerprint"] == b.facts["data"]["fingerprint"]


def _scored(record: RunRecord, side: str, chosen: bool = False) -> Predicted | None:
    found = (each for each in record.scores if (each.side, each.chosen) == (side, chosen))
    return next(found, None)


def _level(records: Sequence[RunRecord]) -> float:
    """Returns below which p a difference counts: Bonferroni's share of 0.05 per pair."""
    tested = sum(_share_split(a, b) for a, b in itertools.combinations(records, 2))
    return paired.LEVEL / max(1, tested)


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _enumerated(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _numbers(records: Sequence[RunRecord]) -> list[str]:
    """Returns '#1 ', … where figures cannot write or tell apart the names, else nothing."""
    names = [record.name for record in records]
    short = {figures.drawable_name(names, i) for i in range(len(names))}
    needed = len(short) < len(names) or not all(map(figures.drawable, names))
    return [f"#{i + 1} " if needed else "" for i in range(len(names))]


def _figures(records: Sequence[RunRecord]) -> Iterator[tuple[str, Figure]]:
    """Yields each figure's file name and figure."""
    names, numbers = [record.name for record in records], _numbers(records)
    labels = [
        f"{number if figures.drawable(name) else ''}{figures.drawable_name(names, i)} "
        f"({_network(record)})"
        for i, (name, number, record) in enumerate(zip(names, numbers, records, strict=True))
    ]
    for file, (key, title) in _CURVES.items():
        score = not key.endswith("loss")
        curves = [
            figures.RunCurves(
                label=label,
                colour=colour,
                epochs=_column(record.history, "epoch").astype(int),
                solid=_column(record.history, key),
                dashed=_column(record.history, key.replace("val", "train")) if score else None,
                best=_best_epoch(record) if score and len(record.history) > 1 else None,
            )
            for label, colour, record in zip(labels, figures.RUNS, records, strict=False)
        ]
        draw = figures.compared_scores if score else figures.compared_losses
        yield f"{file}.png", draw(curves, title)


def _column(history: Sequence[Row], key: str) -> np.ndarray:
    return np.array([row[key] for row in history], float)


def _best_epoch(record: RunRecord) -> int:
    return int(max(record.history, key=rank)["epoch"])


def _network(record: RunRecord) -> str:
    name = record.facts["config"]["model.name"]
    return _NETWORKS.get(name, name)


def _cautions(records: Sequence[RunRecord]) -> str:
    """Returns what must not be missed about any of the runs, each line once."""
    told: dict[str, list[str]] = {}
    for record in records:
        lines = runs.cautions(record.facts)
        if record.unscored > 0:
            lines.append(
                f"epochs after {len(record.history)} have not been scored and are not shown; "
                f"{runs.remedy(record.path)} scores the last one"
            )
        for line in lines:
            told.setdefault(line, []).append(record.name)
    return parts.caution(
        [f"<b>{text(_enumerated(names))}</b>: {text(line)}" for line, names in told.items()]
    )


def _scores(records: Sequence[RunRecord], links: Mapping[str, str]) -> str:
    header = [
        "",
        *map(_name_cell, records, figures.RUNS, _numbers(records), itertools.repeat(links)),
    ]
    words = (
        "In brackets: 95 % intervals, Wilson’s for accuracy, the bootstrap’s for macro-F1. The "
        "best epoch’s scores are flattering: it was chosen on these same files. Calibration error: "
        "how far confidence and the share of right validation files lie apart, before and after "
        "the logits are divided by the temperature, which was fitted on these same files."
    )
    return section(
        "Scores", table(header, _rows(records), "k" + "v" * len(records)), parts.note(words)
    )


def _name_cell(record: RunRecord, colour: str, number: str, links: Mapping[str, str]) -> str:
    name = text(record.name)
    if record.name in links:
        name = f'<a href="{links[record.name]}">{name}</a>'
    return f'<span class="swatch" style="background: {colour}"></span>{number}{name}'


def _rows(records: Sequence[RunRecord]) -> Iterator[str | Sequence[str]]:
    """Yields the rows of the table of scores; a string heads those beneath it."""

    def row(title: str, cell: Callable[[RunRecord], str]) -> Sequence[str]:
        return [title, *map(cell, records)]

    yield row("network", _network)
    yield row("weights began", lambda r: text(r.facts["weights"]))
    yield row("parameters", lambda r: _number(r.facts.get("parameters")))
    yield row("classes", lambda r: str(len(_classes(r))))
    yield row("files", _files)
    for side, chosen, title in (
        ("val", False, "Last epoch, validation files"),
        ("val", True, "Best epoch, chosen on these same validation files"),
        ("test", False, "Last epoch, test files"),
        ("test", True, "Best epoch, chosen on validation, test files"),
    ):
        if any(_scored(record, side, chosen) for record in records):
            yield title
            yield row("accuracy", lambda r, s=side, c=chosen: _share(_scored(r, s, c), "accuracy"))
            yield row("macro-F1", lambda r, s=side, c=chosen: _share(_scored(r, s, c), "macro_f1"))
    yield "Probabilities of the best epoch"
    yield row("temperature", lambda r: _calibrated(r, lambda facts: f"{facts['temperature']:.2f}"))
    yield row("calibration error", lambda r: _calibrated(r, _errors))
    yield "Training"
    yield row("epochs", _epochs)
    yield row("best epoch", _to_best)
    yield row("time", lambda r: duration(float(_column(r.history, "seconds").sum())))
    yield row("images/s (median)", lambda r: _speed(r))
    yield row("device", lambda r: f"{r.facts['device_count']} × {text(r.facts['device_kind'])}")


def _number(value: int | None) -> str:
    return ABSENT if value is None else f"{value:,}"


def _files(record: RunRecord) -> str:
    data = record.facts["data"]
    counts = ", ".join(f"{n:,} {SIDES[side]}" for side, n in data["files"].items() if n)
    return f"{NOUNS[data['kind']]}s: {counts}"


def _share(scored: Predicted | None, name: str) -> str:
    if scored is None:
        return ABSENT
    return f"<b>{getattr(scored, name):.1%}</b> {interval(getattr(scored, f'{name}_interval'))}"


def _calibrated(record: RunRecord, cell: Callable[[dict[str, Any]], str]) -> str:
    """Returns a cell on the calibration; none where it is of other weights than the best."""
    facts = record.calibration
    best = _scored(record, "val", chosen=True)
    return cell(facts) if facts and best and facts["epoch"] == best.epoch else ABSENT


def _errors(facts: dict[str, Any]) -> str:
    errors = [facts.get(when, {}).get("expected_calibration_error") for when in ("before", "after")]
    return ABSENT if None in errors else "{:.1%} before, {:.1%} after".format(*errors)


def _epochs(record: RunRecord) -> str:
    done, wanted = len(record.history), record.facts["config"]["train.epochs"]
    return f"{done:,}" if done >= wanted else f"{done:,} of {wanted:,}"


def _to_best(record: RunRecord) -> str:
    best = _best_epoch(record)
    return f"{best:,}, after {duration(float(_column(record.history, 'seconds')[:best].sum()))}"


def _speed(record: RunRecord) -> str:
    return f"{np.median(_column(record.history, 'images_per_second')):,.0f}"


def _curves(records: Sequence[RunRecord]) -> str:
    pictures = []
    for file, (key, title) in _CURVES.items():
        values = [_column(record.history, key)[-1] for record in records]
        form = ".3g" if key.endswith("loss") else ".1%"
        side = "" if key.endswith("loss") else ", validation"
        ends = ", ".join(f"{r.name} {v:{form}}" for r, v in zip(records, values, strict=True))
        pictures.append(img(f"{file}.png", f"{title}. After the last epoch{side}: {ends}."))
    words = (
        "Every epoch as it was measured. In accuracy and macro-F1 validation is solid and training "
        "dashed; the star is the best epoch. Training is measured during the steps, with masks on."
    )
    return section("Training", f'<div class="pair">{"".join(pictures)}</div>', parts.note(words))


def _tests(records: Sequence[RunRecord]) -> str:
    """Returns the paired tests, and which runs cannot be tested so."""
    tested, level, names = pairs(records), _level(records), [record.name for record in records]
    lines = [text(_sentence(pair, names, level)) for pair in tested]
    rows = [
        (
            text(names[a]),
            text(names[b]),
            SIDES[side],
            *(f"{n:,}" for n in test[:4]),
            _p(test.p).removeprefix("p").removeprefix(" = "),
        )
        for a, b, side, test in tested
    ]
    header = ("A", "B", "files", "both right", "only A", "only B", "neither", "p")
    words = parts.listing(lines)
    if len(lines) > READ_PAIRS:
        words = f"<details><summary>In words, pair by pair</summary>{words}</details>"
    shared = sum(pair.side == "val" for pair in tested)
    some = [table(header, rows, "tttrrrrr"), words, parts.note(_test_words(shared, level))]
    if shared < len(records) * (len(records) - 1) // 2:
        which = "Some of these runs do" if shared else "These runs do"
        words = (
            f"{which} not share a split (files, labels and sides): there is no testing them file "
            "by file, and intervals are all there is to compare them by."
        )
        return section("More than chance?", *(some if tested else []), f"<p>{words}</p>")
    return section("More than chance?", *some)


def _sentence(pair: Pair, names: Sequence[str], level: float) -> str:
    a, b, test = names[pair.first], names[pair.second], pair.test
    verdict = "more than chance would make" if test.p < level else _NONE
    where = "" if pair.side == "val" else "On the test files "
    return (
        f"{where}{a} got {count(test.only_first, 'file')} right that {b} got wrong, {b} "
        f"{test.only_second} that {a} got wrong: {_p(test.p)}, {verdict}."
    )


def _test_words(tested: int, level: float) -> str:
    words = (
        "McNemar’s exact test of the last epochs’ predictions, two-sided: it counts the files that "
        "one run alone got right. It is about these trained networks; another seed may turn a "
        "small difference round."
    )
    if tested > 1:
        words += (
            f" With {tested} pairs tested, p must be below {level:.2g} (0.05 shared among them) to "
            "count as more than chance."
        )
    return words


def _differences(records: Sequence[RunRecord]) -> str:
    """Returns the settings in which the runs differ."""
    settings = [_settings(record) for record in records]
    keys = dict.fromkeys(key for each in settings for key in each)
    rows = []
    for key in keys:
        values = [each.get(key) for each in settings]
        if any(value != values[0] for value in values):
            meaning = text(KEYS[key].metadata["doc"]) if key in KEYS else ""
            cells = (ABSENT if v is None else f"<code>{text(str(v))}</code>" for v in values)
            rows.append([f'<code title="{meaning}">{text(key)}</code>', *cells])
    if not rows:
        return section("Settings that differ", "<p>None.</p>")
    header = ["key", *(text(record.name) for record in records)]
    return section("Settings that differ", table(header, rows, "k" + "v" * len(records)))


def _settings(record: RunRecord) -> dict[str, Any]:
    versions = {f"version of {name}": v for name, v in record.facts["versions"].items()}
    return {key: repr(value) for key, value in record.facts["config"].items()} | versions
