"""The page of one run: its scores, curves, calibration, confusions, mistakes and settings."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from meljax.config import KEYS
from meljax.data.probes import COUNT as PROBES
from meljax.evaluation import calibration, statistics
from meljax.evaluation.coverage import coverage_curve, threshold_rows
from meljax.evaluation.explanation import Explanation
from meljax.evaluation.scores import Scored
from meljax.features.axes import image_axes
from meljax.models.registry import NETWORKS
from meljax.reports import data_summary, figures, html_page, summary
from meljax.reports.class_scores import (
    ClassScore,
    confused_pairs,
    most_confused,
    per_class,
    worst_first,
)
from meljax.reports.confusion_table import MOST_CLASSES, ConfusionTable, confusion_table
from meljax.reports.html_page import Files
from meljax.reports.media import wav
from meljax.runs.directory import CALIBRATION, CONFIG, METRICS, PREDICTIONS, SPLIT
from meljax.runs.history import column
from meljax.runs.predictions import calibration_of
from meljax.runs.results import RunResults
from meljax.training.state import learning_rate

FILES = (CONFIG, SPLIT, METRICS, PREDICTIONS, CALIBRATION)
"""Files of a run that the page links to, if they exist."""

PAIRS = 40
"""Number of listed pairs of confused classes."""

OPEN_PAIRS = 8
"""Number of pairs shown; further pairs are folded."""

OPEN_MISTAKES = 6
"""Number of mistakes shown; further mistakes are folded."""

_IMAGE_INCHES = 2.9


class Shown(NamedTuple):
    """What the page shows of the validation predictions of one epoch.

    Attributes:
      pairs: the most frequent pairs of true and wrongly predicted class.
      classes: scores of each class, the worst class first.
      confused: the most frequent wrong prediction of each class, and its count.
    """

    scored: Scored
    matrix: ConfusionTable
    pairs: list[tuple[int, int]]
    classes: list[ClassScore]
    confused: dict[int, tuple[int, int]]


def write_report(directory: Path, results: RunResults, run: Path) -> Path:
    """Writes `report.html` to `directory`; returns its path.

    The page links to the files in the directory `run`.
    """
    links = {name: html_page.link(run / name, directory) for name in FILES if (run / name).exists()}
    return html_page.write(directory, lambda files: page(results, links, files), _files(results))


def page(results: RunResults, links: Mapping[str, str], files: Files) -> str:
    """Returns the page; `links` are the URLs of `FILES`, by name."""
    info, last, best = results.info, results.last, results.best
    counted = last.labels[last.counted]
    losses = (column(results.history, name) for name in ("train_loss", "val_loss"))
    scores = [best] if best.epoch == last.epoch else [best, last]
    return html_page.render(
        "run.html.j2",
        title=results.name,
        files=files,
        results=results,
        info=info,
        network=NETWORKS[info.config["model.name"]].display_name,
        last=last,
        best=best,
        chance=np.bincount(counted).max() / len(counted),
        lowest=lowest_before_rise(*losses),
        rates=_rates(results),
        calibrations=[(each, calibration_of(each)) for each in results.scores if each.chosen],
        bins=calibration.BINS,
        how_measured=summary.how_measured,
        min_groups=statistics.MIN_GROUPS,
        thresholds=threshold_rows(best, results.probes),
        kinds=[f"{kind} rejected" for kind in results.probes],
        probes=PROBES,
        background=info.config["data.background"],
        shown=[_shown(each, results.classes) for each in scores],
        open_pairs=OPEN_PAIRS,
        many_classes=len(results.classes) > MOST_CLASSES,
        mistakes=_numbered("mistake", results.mistakes),
        last_mistakes=_numbered("mistake_last", results.last_mistakes),
        open_mistakes=OPEN_MISTAKES,
        window_of=functools.partial(_window_of, results),
        masks=_numbered("masks", results.mask_examples),
        lengths=data_summary.lengths(info.data),
        left_out=data_summary.left_out(info.data),
        settings=KEYS,
        links=links,
    )


def _shown(scored: Scored, classes: Sequence[str]) -> Shown:
    confusion = scored.confusion
    return Shown(
        scored=scored,
        matrix=confusion_table(confusion, classes),
        pairs=confused_pairs(confusion, PAIRS),
        classes=worst_first(per_class(confusion, classes)),
        confused=most_confused(confusion),
    )


def _rates(results: RunResults) -> Float[np.ndarray, " epochs"]:
    """Returns the learning rate of each epoch."""
    first, decay = (results.info.config[f"train.{key}"] for key in ("learning_rate", "lr_decay"))
    return np.array([learning_rate(first, decay, int(row["epoch"])) for row in results.history])


def _window_of(results: RunResults, seen: Explanation) -> str:
    """Returns in words which part of its item the network saw."""
    frontend, whole = results.frontend, seen.start < 0
    if frontend.kind == "image":
        end = seen.start + frontend.window
        whole |= frontend.image_size > 0
        return "" if whole else f"columns {seen.start:,} to {end:,}"
    item = "segment" if results.info.data.recordings else "recording"
    rate = frontend.mel.sample_rate
    if whole:
        return f"the whole {item}, padded to {frontend.window / rate:.2f} s"
    start, end = seen.start / rate, (seen.start + frontend.window) / rate
    return f"window from {start:.2f} s to {end:.2f} s of the {item}"


def lowest_before_rise(
    training: Float[np.ndarray, " epochs"], validation: Float[np.ndarray, " epochs"]
) -> int | None:
    """Returns the index of the lowest validation loss if the loss rises after it, else `None`.

    It rises if its median over the last tenth of the epochs is more than 5 % plus 0.01 nats above
    the lowest, and the median training loss there is lower than at the lowest validation loss.
    """
    lowest = int(np.argmin(validation))
    tail = slice(max(lowest + 1, len(validation) - max(1, len(validation) // 10)), None)
    if lowest == len(validation) - 1:
        return None
    rises = np.median(validation[tail]) > 1.05 * validation[lowest] + 0.01
    return lowest if rises and np.median(training[tail]) < training[lowest] else None


def _numbered(name: str, items: Sequence[Any]) -> list[tuple[str, Any]]:
    """Returns each item with the beginning of its files' names."""
    return [(f"{name}_{number:02d}", item) for number, item in enumerate(items, 1)]


def _files(results: RunResults) -> Iterator[tuple[str, Figure | bytes]]:
    """Yields the name and content of each file of the page."""
    yield from _curves(results)
    best = results.best
    if best.chosen:
        only = best.only_counted
        bins = {"before": calibration.bins(only.raw_probabilities, only.labels)}
        if not best.calibration_note:
            bins["after"] = calibration.bins(best.held_out_probabilities, only.labels)
        yield "calibration.png", figures.reliability(bins)
    yield "coverage.png", figures.coverage(*coverage_curve(best))
    wrong = _numbered("mistake", results.mistakes)
    for name, mistake in wrong + _numbered("mistake_last", results.last_mistakes):
        seen, axes = mistake.seen, image_axes(results.frontend, mistake.seen.start)
        yield f"{name}.png", figures.spectrogram(seen.image, axes, width=_IMAGE_INCHES)
        overlaid = figures.spectrogram(seen.image, axes, seen.evidence, width=_IMAGE_INCHES)
        yield f"{name}_evidence.png", overlaid
        if seen.samples is not None:
            yield f"{name}.wav", wav(seen.samples, results.frontend.mel.sample_rate)
    axes = image_axes(results.frontend, 0)
    for name, example in _numbered("masks", results.mask_examples):
        for when, pixels in (("before", example.clean), ("after", example.masked)):
            yield f"{name}_{when}.png", figures.spectrogram(pixels, axes, width=_IMAGE_INCHES)


def _curves(results: RunResults) -> Iterator[tuple[str, Figure]]:
    history, best = results.history, results.best
    epochs, rates = column(history, "epoch").astype(int), _rates(results)
    losses = {
        split: column(history, key)
        for split, key in (("training", "train_loss"), ("validation", "val_loss"))
    }
    yield "loss.png", figures.loss_curves(epochs, **losses)
    if rates[0] != rates[-1]:
        yield "rate.png", figures.rate_curve(epochs, rates)
    for key, title in (("accuracy", "Accuracy"), ("f1", "Macro-F1")):
        train, val = column(history, f"train_{key}"), column(history, f"val_{key}")
        yield f"{key}.png", figures.score_curves(epochs, train, val, title, best.epoch)
    for split, values in losses.items():
        yield f"{split}_loss.png", figures.loss_curve(epochs, values, split)
