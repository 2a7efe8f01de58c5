"""The page of one run: its scores, curves, calibration, confusions, mistakes and settings."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from meljax.config import KEYS
from meljax.data.manifest import noun
from meljax.evaluation import calibration
from meljax.evaluation.metrics import Row
from meljax.evaluation.scores import Scored
from meljax.models.registry import NETWORKS
from meljax.reports import class_sections, example_sections, figures, html_page
from meljax.reports.html_page import (
    SPLIT_WORDS,
    code,
    duration,
    escape,
    img,
    interval,
    listing,
    note,
    section,
    share,
    side_by_side,
    table,
)
from meljax.runs.directory import CALIBRATION, CONFIG, METRICS, PREDICTIONS, SPLIT
from meljax.runs.history import column
from meljax.runs.info import RunInfo
from meljax.runs.predictions import calibration_of
from meljax.runs.results import RunResults
from meljax.util.phrases import count

FILES = {
    CONFIG: "settings, versions",
    SPLIT: "the split of every file",
    METRICS: "the scores of every epoch",
    PREDICTIONS: "the probabilities of every file",
    CALIBRATION: "the temperature",
}
"""Files of a run that the page links to, if they exist."""

_LOSSES = (("training", "train_loss"), ("validation", "val_loss"))
_SCORES = (("accuracy", "Accuracy"), ("f1", "Macro-F1"))


def write_report(directory: Path, results: RunResults, run: Path) -> Path:
    """Writes `report.html`, its images and recordings to `directory`; returns the page's path.

    The page links to the files in the directory `run`.
    """
    links = {name: html_page.link(run / name, directory) for name in FILES if (run / name).exists()}
    return html_page.write(directory, page(results, links), _figures(results))


def page(results: RunResults, links: Mapping[str, str]) -> str:
    """Returns the page, as HTML without external content; `links` are the URLs of `FILES`."""
    sections = (
        _headline(results),
        _cautions(results.info),
        _score_table(results),
        _training(results),
        _calibration(results),
        class_sections.confusion_section(results),
        class_sections.classes_section(results),
        example_sections.mistakes_section(results),
        example_sections.masks_section(results),
        _reproduction(results, links),
    )
    return html_page.document(results.name, sections)


def lowest_before_rise(
    training: Float[np.ndarray, " epochs"], validation: Float[np.ndarray, " epochs"]
) -> int | None:
    """Returns the index of the lowest validation loss if the loss rises after it, else `None`.

    It rises if its median over the last tenth of the epochs is 5 % and 0.01 nats above the lowest,
    while the training loss kept falling.
    """
    lowest = int(np.argmin(validation))
    tail = slice(max(lowest + 1, len(validation) - max(1, len(validation) // 10)), None)
    if lowest == len(validation) - 1:
        return None
    rises = np.median(validation[tail]) > 1.05 * validation[lowest] + 0.01
    return lowest if rises and np.median(training[tail]) < training[lowest] else None


def _figures(results: RunResults) -> Iterator[tuple[str, Figure | bytes]]:
    """Yields the name and content of each file of the page."""
    history, best = results.history, _best(results)
    epochs = column(history, "epoch").astype(int)
    for split, key in _LOSSES:
        yield f"{split}_loss.png", figures.loss_curve(epochs, column(history, key), split)
    for name, title in _SCORES:
        train, val = column(history, f"train_{name}"), column(history, f"val_{name}")
        yield f"{name}.png", figures.score_curves(epochs, train, val, title, best.epoch)
    if best.chosen:
        bins = {
            "before": calibration.bins(best.raw_probabilities, best.labels),
            "after": calibration.bins(best.probabilities, best.labels),
        }
        yield "calibration.png", figures.reliability(bins)
    yield "confusion.png", figures.confusion_matrix(results.scores[0].confusion, results.classes)
    yield from example_sections.files(results)


def _best(results: RunResults) -> Scored:
    """Returns the best epoch's validation scores, or the last epoch's if those are lost."""
    return next((s for s in results.scores if s.chosen), results.scores[0])


def _both(scored: Scored) -> tuple[str, str]:
    """Returns accuracy and macro-F1 with their intervals."""
    return (
        share(scored.accuracy, scored.accuracy_interval),
        share(scored.macro_f1, scored.macro_f1_interval),
    )


def _headline(results: RunResults) -> str:
    info, last = results.info, results.scores[0]
    items, files = noun(info.data.kind), info.data.files
    counts = ", ".join(f"{n:,} for {SPLIT_WORDS[split]}" for split, n in files.items() if n)
    network = NETWORKS[info.config["model.name"]].display_name
    chance = np.bincount(last.labels).max() / len(last.labels)
    lead = (
        f"A {escape(network)} was trained and scored on {sum(files.values()):,} {items} of "
        f"{_data_name(info)} ({counts}) with <b>{len(results.classes)} classes</b>. "
        f"After {count(last.epoch, 'epoch')} it gets <b>{last.accuracy:.1%}</b> of the validation "
        f"{items} right {interval(last.accuracy_interval)}, with a macro-F1 of {_both(last)[1]}."
    )
    sentences = [
        f"Always predicting the most frequent class would get {chance:.1%} right.",
        _best_sentence(results),
    ]
    for scored in results.scores:
        if scored.split == "test" and not scored.chosen:
            accuracy, f1 = _both(scored)
            sentences.append(
                f"The last epoch gets {accuracy} of the {len(scored.labels):,} test {items} right, "
                f"with a macro-F1 of {f1}. They were not used for training or choosing an epoch."
            )
    return f'<p class="lead">{lead}</p>\n<p>{" ".join(filter(None, sentences))}</p>'


def _best_sentence(results: RunResults) -> str:
    last, best = results.scores[0], _best(results)
    if last.epoch == 1:
        return ""
    if best.epoch == last.epoch:
        return "The last epoch is also the best one." if best.chosen else ""
    accuracy, f1 = _both(best)
    return (
        f"The best epoch, {best.epoch}, got {accuracy} and a macro-F1 of {f1}, but it was chosen "
        "on these files: expect lower scores on new ones."
    )


def _data_name(info: RunInfo) -> str:
    path = info.config["data.path"]
    return code(path) if path else "the embedded synthetic voices"


def _cautions(info: RunInfo) -> str:
    """Returns the warnings about data and initial weights."""
    lines = [escape(line) for line in info.data.warnings]
    if info.lacks_pretraining:
        lines.insert(
            0,
            f"<b>The network was not pretrained</b>; initial weights: "
            f"{escape(info.weights.describe())}. Training from random weights needs more data and "
            "time, and scores are usually lower.",
        )
    if skipped := info.data.skipped:
        lines.append(
            f"<details><summary>{count(len(skipped), 'unusable file')} skipped</summary>"
            f"{listing(map(escape, skipped))}</details>"
        )
    return html_page.caution(lines)


def _score_table(results: RunResults) -> str:
    last, rows = results.scores[0].epoch, []
    for scored in results.scores:
        if scored.chosen and scored.epoch == last:
            continue  # the same weights as the row before
        on = "the same files" if scored.split == "val" else "the validation set"
        rows.append(
            (
                f"best epoch, chosen on {on}" if scored.chosen else "last epoch",
                str(scored.epoch),
                f"{SPLIT_WORDS[scored.split]}, {len(scored.labels):,}",
                *_both(scored),
                f"{scored.loss:.3f}",
            )
        )
    header = ("weights of", "epoch", "files", "accuracy", "macro-F1", "loss")
    words = (
        "In brackets: 95 % intervals, Wilson’s for accuracy, the bootstrap’s for macro-F1 (the "
        "mean of the classes’ F1). They show how much the score could differ on as many other "
        "files of the same kind; recordings of another kind may differ more. Loss is cross-entropy "
        "in nats."
    )
    return section("Scores", table(header, rows, "trtrrr"), note(words))


def _training(results: RunResults) -> str:
    history, best = results.history, _best(results)
    first, last, epochs = history[0], history[-1], count(len(history), "epoch")
    losses = [
        img(
            f"{split}_loss.png",
            f"{split.capitalize()} loss over {epochs}: {first[key]:.3g} after the first epoch, "
            f"{last[key]:.3g} after the last.",
        )
        for split, key in _LOSSES
    ]
    scores = [
        img(
            f"{name}.png",
            f"{title} over {epochs}. After the last epoch: training {last[f'train_{name}']:.1%}, "
            f"validation {last[f'val_{name}']:.1%}. Best epoch: {best.epoch}.",
        )
        for name, title in _SCORES
    ]
    words = (
        "Training curves are measured during the training steps, with masks on and while the "
        "weights still change. They can therefore be worse than the validation curves, which are "
        "measured after each epoch on unmasked images."
    )
    return section("Training", side_by_side(*losses, *scores), _overfitting(history), note(words))


def _overfitting(history: Sequence[Row]) -> str:
    """Returns advice if the validation loss rises, else nothing."""
    validation = column(history, "val_loss")
    lowest = lowest_before_rise(column(history, "train_loss"), validation)
    if lowest is None:
        return ""
    return (
        f'<p class="guidance"><b>Overfitting:</b> the validation loss was lowest '
        f"({validation[lowest]:.3g}) at epoch {history[lowest]['epoch']:.0f}, "
        f"{count(len(history) - 1 - lowest, 'epoch')} before the end. It has risen since (to "
        f"{validation[-1]:.3g}) while the training loss kept falling. More data, wider masks or "
        "fewer epochs may help.</p>"
    )


def _calibration(results: RunResults) -> str:
    """Returns the effect of the temperature; empty if the best weights are lost."""
    chosen = [scored for scored in results.scores if scored.chosen]
    if not chosen:
        return ""
    rows = []
    for scored in chosen:
        measured = calibration_of(scored)
        both = (measured.before, measured.after)
        fitted = "fitted on these files" if scored.split == "val" else "not fitted on these files"
        rows.append(
            (
                f"{SPLIT_WORDS[scored.split]}, {fitted}",
                f"{len(scored.labels):,}",
                *(f"{each.loss:.3f}" for each in both),
                *(f"{each.expected_calibration_error:.1%}" for each in both),
            )
        )
    header = ("", "files", "loss before", "after", "calibration error before", "after")
    temperature = chosen[0].temperature
    effect = "Close to 1: it changes little."
    if not 0.98 <= temperature <= 1.02:
        above, over = ("Above", "over") if temperature > 1 else ("Below", "under")
        effect = f"{above} 1: without it the network is {over}confident."
    words = (
        f"The weights of the best epoch ({chosen[0].epoch}) make predictions. Their logits are "
        f"divided by a temperature of <b>{temperature:.2f}</b>, which was fitted on the validation "
        f"files. {effect}"
    )
    alt = "Accuracy by confidence, before and after; on the diagonal they are equal."
    explanation = (
        "Calibration error: the difference between confidence (the highest probability) and "
        "accuracy in 15 bins, averaged over the files. Each dot is a bin; its area grows with its "
        "number of files, and dots of few files scatter. On the dotted line, confidence and "
        "accuracy are equal."
    )
    return section(
        "Calibration",
        f"<p>{words}</p>",
        table(header, rows, "trrrrr"),
        side_by_side(img("calibration.png", alt), note(explanation)),
    )


def _reproduction(results: RunResults, links: Mapping[str, str]) -> str:
    files = ", ".join(f'<a href="{url}">{name}</a> ({FILES[name]})' for name, url in links.items())
    return section(
        "How to reproduce this run",
        table(("", ""), _circumstances(results.info, results.history), "kt"),
        "<h3>Settings</h3><p>In bold: changed from the default.</p>",
        _settings(results.info),
        f"<p>Files: {files}.</p>",
    )


def _circumstances(info: RunInfo, history: Sequence[Row]) -> list[tuple[str, str]]:
    """Returns (name, value) of everything besides the settings that the run depends on, as HTML."""
    data, session, seconds = info.data, info.session, column(history, "seconds")
    files = ", ".join(f"{n:,} {SPLIT_WORDS[split]}" for split, n in data.files.items())
    versions = ", ".join(f"{name} {version}" for name, version in session.versions.items())
    speed = np.median(column(history, "images_per_second"))
    skipped = f"{data.ignored:,} of other kinds ignored, {len(data.skipped):,} unusable skipped"
    device = f"{session.device_count} × {escape(session.device_kind)} ({escape(session.platform)})"
    return [
        ("data", _data_name(info)),
        ("files", f"{files}; {skipped}"),
        ("fingerprint of the data", code(data.fingerprint)),
        ("initial weights", escape(info.weights.describe())),
        ("seed", str(info.config["train.seed"])),
        ("device", device),
        (
            "time",
            f"{duration(seconds.sum())} in total, {duration(float(np.median(seconds)))} per "
            f"epoch (median), {speed:,.0f} images/s in training (median)",
        ),
        ("versions", escape(versions)),
    ]


def _settings(info: RunInfo) -> str:
    rows = []
    for key, value in info.config.items():
        name, shown, default = code(key), code(repr(value)), KEYS[key].default
        if value != default:
            name, shown = f"<b>{name}</b>", f"<b>{shown}</b>"
        rows.append((name, shown, code(repr(default)), escape(KEYS[key].metadata["doc"])))
    return table(("key", "value", "default", "meaning"), rows, "kvkt")
