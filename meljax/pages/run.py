"""The page that a training run leaves: what it reached, what it confuses, how it was made."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from matplotlib.figure import Figure

from meljax import calibration, metrics, runs
from meljax.config import KEYS
from meljax.data.files import NOUNS
from meljax.metrics import Row
from meljax.pages import figures, mistakes, parts
from meljax.pages.parts import (
    ABSENT,
    FIGURES,
    NETWORKS,
    SIDES,
    count,
    duration,
    img,
    interval,
    listing,
    section,
    table,
    text,
)
from meljax.results import RunResults, Scored

PAIRS = 8
"""How many of the most confused pairs of classes are listed."""

FILES = {
    runs.CONFIG: "settings, versions",
    runs.SPLIT: "which file was on which side",
    runs.METRICS: "every epoch’s numbers",
    runs.PREDICTIONS: "every file’s probabilities",
    runs.CALIBRATION: "the temperature",
}
"""What the page leads to, where it is there."""


def write_report(directory: Path, results: RunResults, run: Path) -> Path:
    """Writes `report.html`, its pictures and sounds into `directory`; returns the page's path.

    Args:
      directory: where to.
      results: what is told.
      run: directory of the run, whose files the page leads to.
    """
    links = {name: parts.link(run / name, directory) for name in FILES if (run / name).exists()}
    return parts.write(directory, page(results, links), _figures(results))


def page(results: RunResults, links: Mapping[str, str]) -> str:
    """Returns the page, as HTML that refers to nothing but its own files and the run's.

    Args:
      results: what is told.
      links: the way to each of the run's files.
    """
    return parts.document(
        results.name,
        (
            f"<h1>{text(results.name)}</h1>",
            _headline(results),
            _cautions(results.facts),
            _score_table(results),
            _training(results),
            _calibration(results),
            _confusion(results),
            _classes(results),
            mistakes.mistakes_section(results),
            mistakes.masks_section(results.mask_examples),
            _making(results, links),
        ),
    )


def lowest_before_rise(
    training: Float[np.ndarray, " epochs"], validation: Float[np.ndarray, " epochs"]
) -> int | None:
    """Returns where the validation loss is lowest (from 0) if it rises after, else `None`.

    It rises if, over the last tenth of the epochs, its median is 5 % and 0.01 nats above the lowest
    while the training loss went on falling.
    """
    lowest = int(np.argmin(validation))
    tail = slice(max(lowest + 1, len(validation) - max(1, len(validation) // 10)), None)
    if lowest == len(validation) - 1:
        return None
    rises = np.median(validation[tail]) > 1.05 * validation[lowest] + 0.01
    return lowest if rises and np.median(training[tail]) < training[lowest] else None


def confused_pairs(
    confusion: Int[np.ndarray, "classes classes"], limit: int
) -> list[tuple[int, int]]:
    """Returns (true, predicted) of the cells off the diagonal that count most, at most `limit`."""
    mistakes = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:limit]
    rows, columns = np.unravel_index(order, mistakes.shape)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if mistakes[r, c]]


def _figures(results: RunResults) -> Iterator[tuple[str, Figure | bytes]]:
    """Yields the name and content of each file that the page shows."""
    history, best = results.history, _best(results)
    epochs = _column(history, "epoch").astype(int)
    for side, short in (("training", "train"), ("validation", "val")):
        losses = _column(history, f"{short}_loss")
        yield f"{side}_loss.png", figures.loss_curve(epochs, losses, side)
    for name, title in (("accuracy", "Accuracy"), ("f1", "Macro-F1")):
        train, val = (_column(history, f"{side}_{name}") for side in ("train", "val"))
        yield f"{name}.png", figures.score_curves(epochs, train, val, title, best.epoch)
    if best.chosen:
        yield "calibration.png", figures.reliability(_reliability(best))
    yield "confusion.png", figures.confusion_matrix(results.scores[0].confusion, results.classes)
    yield from mistakes.files(results)


def _column(history: Sequence[Row], key: str) -> Float[np.ndarray, " epochs"]:
    return np.array([row[key] for row in history], float)


def _best(results: RunResults) -> Scored:
    """Returns the best epoch on the validation set; the last one where no other was chosen."""
    return next((s for s in results.scores if s.chosen), results.scores[0])


def _headline(results: RunResults) -> str:
    facts, last = results.facts, results.scores[0]
    config, files = facts["config"], facts["data"]["files"]
    noun = NOUNS[facts["data"]["kind"]]
    counts = ", ".join(f"{n:,} for {SIDES[side]}" for side, n in files.items() if n)
    network = NETWORKS.get(config["model.name"], config["model.name"])
    chance = np.bincount(last.labels).max() / len(last.labels)
    first = [
        f"A {text(network)} learned to tell <b>{len(results.classes)} classes</b> apart from "
        f"{sum(files.values()):,} {noun}s of {_data_name(config)} ({counts}).",
        f"After {count(last.epoch, 'epoch')} it gets <b>{last.accuracy:.1%}</b> of "
        f"the validation {noun}s right {interval(last.accuracy_interval)}, with a macro-F1 of "
        f"<b>{last.macro_f1:.1%}</b> {interval(last.macro_f1_interval)}.",
    ]
    second = [
        f"Always naming the most frequent class would get {chance:.1%} right.",
        _best_sentence(results),
        *(_test_sentence(s, noun) for s in results.scores if s.side == "test" and not s.chosen),
    ]
    return f'<p class="lead">{" ".join(first)}</p>\n<p>{" ".join(filter(None, second))}</p>'


def _best_sentence(results: RunResults) -> str:
    last, best = results.scores[0], _best(results)
    if last.epoch == 1:
        return ""
    if best.epoch == last.epoch:
        return "The last epoch is also the best one."
    return (
        f"The best epoch, {best.epoch}, got {best.accuracy:.1%} "
        f"{interval(best.accuracy_interval)} and a macro-F1 of {best.macro_f1:.1%} "
        f"{interval(best.macro_f1_interval)}, but it was chosen on these same files: "
        "expect less on new ones."
    )


def _test_sentence(scored: Scored, noun: str) -> str:
    return (
        f"On the {len(scored.labels):,} test {noun}s, which played no part in training or choice, "
        f"the last epoch gets <b>{scored.accuracy:.1%}</b> {interval(scored.accuracy_interval)} "
        f"right, with a macro-F1 of <b>{scored.macro_f1:.1%}</b> "
        f"{interval(scored.macro_f1_interval)}."
    )


def _data_name(config: dict[str, Any]) -> str:
    path = config["data.path"]
    return f"<code>{text(path)}</code>" if path else "the embedded synthetic voices"


def _cautions(facts: dict[str, Any]) -> str:
    """Returns what must not be missed, in a box of its own; nothing if there is nothing."""
    data = facts["data"]
    lines = [text(line) for line in data["warnings"]]
    if runs.lacks_pretraining(facts):
        lines.insert(
            0,
            f"<b>The network was not pretrained</b>: its weights began {text(facts['weights'])}. "
            "From random weights it needs more data and time, and usually scores lower.",
        )
    if data["skipped"]:
        lines.append(
            f"<details><summary>{count(len(data['skipped']), 'file')} could not be used and "
            f"{'was' if len(data['skipped']) == 1 else 'were'} left out</summary>"
            f"{listing(map(text, data['skipped']))}</details>"
        )
    return parts.caution(lines)


def _score_rows(results: RunResults) -> list[tuple[str, Scored]]:
    """Returns every score once: the best epoch may be the last."""
    last, rows = results.scores[0].epoch, []
    for scored in results.scores:
        if not scored.chosen:
            rows.append(("last epoch", scored))
        elif scored.epoch != last:
            on = "the same files" if scored.side == "val" else "the validation set"
            rows.append((f"best epoch, chosen on {on}", scored))
    return rows


def _score_table(results: RunResults) -> str:
    rows = [
        (
            which,
            str(scored.epoch),
            f"{SIDES[scored.side]}, {len(scored.labels):,}",
            f"<b>{scored.accuracy:.1%}</b> {interval(scored.accuracy_interval)}",
            f"<b>{scored.macro_f1:.1%}</b> {interval(scored.macro_f1_interval)}",
            f"{scored.loss:.3f}",
        )
        for which, scored in _score_rows(results)
    ]
    header = ("weights of", "epoch", "files", "accuracy", "macro-F1", "loss")
    words = (
        "In brackets: 95 % intervals, Wilson’s for accuracy, the bootstrap’s for macro-F1 (the "
        "mean of the classes’ F1). They tell how far the score of as many other files could be "
        "off; they do not know whether new recordings will be like these. Loss is cross-entropy "
        "in nats."
    )
    return section("Scores", table(header, rows, "trtrrr"), parts.note(words))


def _training(results: RunResults) -> str:
    history, best = results.history, _best(results)
    last, epochs = history[-1], count(len(history), "epoch")
    losses = [
        img(
            f"{side}_loss.png",
            f"{side.capitalize()} loss over {epochs}: {history[0][f'{short}_loss']:.3g} after the "
            f"first epoch, {last[f'{short}_loss']:.3g} after the last.",
        )
        for side, short in (("training", "train"), ("validation", "val"))
    ]
    scores = [
        img(
            f"{name}.png",
            f"{title} over {epochs}. After the last epoch: training {last[f'train_{name}']:.1%}, "
            f"validation {last[f'val_{name}']:.1%}. Best epoch: {best.epoch}.",
        )
        for name, title in (("accuracy", "Accuracy"), ("f1", "Macro-F1"))
    ]
    words = (
        "Training curves are measured during the training steps, while the weights still change "
        "and with masks on; they may hence lie below the validation curves, which are measured "
        "after each epoch on whole pictures."
    )
    return section(
        "Training",
        f'<div class="pair">{"".join(losses + scores)}</div>',
        _guidance(history),
        parts.note(words),
    )


def _calibration(results: RunResults) -> str:
    """Returns what the temperature changes for the weights that predictions are made with."""
    chosen = [scored for scored in results.scores if scored.chosen]
    if not chosen:
        return ""
    rows = []
    for scored in chosen:
        facts = runs.calibration_facts(scored)
        fitted = "fitted on these files" if scored.side == "val" else "not fitted on"
        values = [
            f"{facts[when][name]:{form}}"
            for name, form in (("loss", ".3f"), ("expected_calibration_error", ".1%"))
            for when in ("before", "after")
        ]
        rows.append((f"{SIDES[scored.side]}, {fitted}", f"{len(scored.labels):,}", *values))
    header = ("", "files", "loss before", "after", "calibration error before", "after")
    words = (
        f"Probabilities of the best epoch ({chosen[0].epoch}), whose weights make predictions: its "
        f"logits are divided by a temperature of <b>{chosen[0].temperature:.2f}</b>, which was "
        "fitted on the validation files."
    )
    alt = "Share of right files by confidence, before and after: on the diagonal they are equal."
    note = parts.note(
        "Calibration error: how far confidence (the highest probability) and the share of right "
        "files lie apart, on average over the files, in 15 bins. Each dot is a bin, larger where "
        "it holds more files; dots of few files scatter. On the dotted line the two are equal."
    )
    return section(
        "Calibration",
        f"<p>{words} {_temperature_words(chosen[0].temperature)}</p>",
        table(header, rows, "trrrrr"),
        f'<div class="pair">{img("calibration.png", alt)}{note}</div>',
    )


def _temperature_words(temperature: float) -> str:
    if temperature > 1.02:
        return "Above 1: without it the network is surer than it is right."
    if temperature < 0.98:
        return "Below 1: without it the network is less sure than it is right."
    return "That is nearly 1: it changes little."


def _reliability(scored: Scored) -> dict[str, figures.Bins]:
    return {
        "before": calibration.bins(scored.raw_probabilities, scored.labels),
        "after": calibration.bins(scored.probabilities, scored.labels),
    }


def _guidance(history: Sequence[Row]) -> str:
    """Returns what to make of a validation loss that rises; nothing if it does not."""
    validation = _column(history, "val_loss")
    lowest = lowest_before_rise(_column(history, "train_loss"), validation)
    if lowest is None:
        return ""
    return (
        f'<p class="guidance"><b>Overfitting:</b> the validation loss was lowest '
        f"({validation[lowest]:.3g}) at epoch {history[lowest]['epoch']:.0f}, "
        f"{count(len(history) - 1 - lowest, 'epoch')} before the end, and has risen "
        f"since (to {validation[-1]:.3g}) while the training loss went on falling; more data, "
        "wider masks or fewer epochs may help.</p>"
    )


def _confusion(results: RunResults) -> str:
    last, classes = results.scores[0], results.classes
    right, total = int(np.trace(last.confusion)), len(last.labels)
    alt = (
        f"Confusion matrix of {len(classes)} classes on {total:,} validation files after epoch "
        f"{last.epoch}: {right:,} lie on the diagonal."
    )
    words = "Rows are true classes, columns predicted ones; the colour is the share of the row."
    if len(classes) > figures.COUNTED_CLASSES:
        words += " With so many classes the counts are left out."
    if len(classes) > figures.LABELLED_CLASSES:
        words += " Not every class is named."
    if not all(map(figures.drawable, classes)):
        words += " Names in another script stand there as their number in the table below."
    return section(
        "Confusion matrix",
        f"<p>{words} Weights of the last epoch, validation files.</p>",
        f'<a href="{FIGURES}/confusion.png">{img("confusion.png", alt)}</a>',
        _pairs(last.confusion, classes),
    )


def _pairs(confusion: Int[np.ndarray, "classes classes"], classes: Sequence[str]) -> str:
    pairs = confused_pairs(confusion, PAIRS)
    if not pairs:
        return "<p>No class was taken for another.</p>"
    lines = (
        f"<b>{text(classes[true])}</b> taken for <b>{text(classes[predicted])}</b>: "
        f"{confusion[true, predicted]} of {count(int(confusion[true].sum()), 'file')}"
        for true, predicted in pairs
    )
    return f"<h3>Most confused</h3>{listing(lines)}"


def _classes(results: RunResults) -> str:
    confusion = results.scores[0].confusion
    precision, recall, f1 = metrics.class_scores(confusion)
    predicted, true = confusion.sum(0), confusion.sum(1)
    occurs = predicted + true > 0
    order = np.lexsort((np.arange(len(f1)), recall, f1, ~occurs))
    rows = [
        (
            str(i + 1),
            text(results.classes[i]),
            f"{true[i]:,}",
            f"{precision[i]:.1%}" if predicted[i] else ABSENT,
            f"{recall[i]:.1%}" if true[i] else ABSENT,
            f"{f1[i]:.1%}" if occurs[i] else ABSENT,
        )
        for i in order
    ]
    header = ("#", "class", "files", "precision", "recall", "F1")
    words = (
        "Worst first; last epoch, validation files. Precision: of the files given this class, the "
        f"share that belong to it. Recall: of its files, the share that were given it. {ABSENT}: "
        "there are none."
    )
    return section("Classes", f"<p>{words}</p>", table(header, rows, "rtrrrr"))


def _making(results: RunResults, links: Mapping[str, str]) -> str:
    facts = results.facts
    leads = ", ".join(f'<a href="{way}">{name}</a> ({FILES[name]})' for name, way in links.items())
    return section(
        "How it was made",
        table(("", ""), _circumstances(facts, results.history), "kt"),
        "<h3>Settings</h3><p>In bold: changed from the default.</p>",
        _settings(facts["config"]),
        f"<p>Files: {leads}.</p>",
    )


def _circumstances(facts: dict[str, Any], history: Sequence[Row]) -> list[tuple[str, str]]:
    """Returns (name, value) of what else a run depends on, as HTML."""
    data, seconds = facts["data"], _column(history, "seconds")
    files = ", ".join(f"{n:,} {SIDES[side]}" for side, n in data["files"].items())
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    speed = np.median(_column(history, "images_per_second"))
    return [
        ("data", _data_name(facts["config"])),
        (
            "files",
            f"{files}; {data['ignored']:,} of other kinds ignored, "
            f"{len(data['skipped']):,} unusable",
        ),
        ("fingerprint of the data", f"<code>{text(data['fingerprint'])}</code>"),
        ("weights began", text(facts["weights"])),
        ("seed", str(facts["seed"])),
        (
            "device",
            f"{facts['device_count']} × {text(facts['device_kind'])} ({text(facts['platform'])})",
        ),
        (
            "time",
            f"{duration(seconds.sum())} in all, {duration(float(np.median(seconds)))} per "
            f"epoch (median), {speed:,.0f} images/s in training (median)",
        ),
        ("versions", text(versions)),
    ]


def _settings(config: dict[str, Any]) -> str:
    rows = []
    for name, value in config.items():
        field = KEYS.get(name)
        changed = field is None or value != field.default
        name, shown = f"<code>{text(name)}</code>", f"<code>{text(repr(value))}</code>"
        if changed:
            name, shown = f"<b>{name}</b>", f"<b>{shown}</b>"
        default = text(repr(field.default)) if field else ABSENT
        meaning = text(field.metadata["doc"]) if field else "unknown to this version"
        rows.append((name, shown, f"<code>{default}</code>", meaning))
    return table(("key", "value", "default", "meaning"), rows, "kvkt")
