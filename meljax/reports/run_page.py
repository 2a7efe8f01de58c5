"""The page of one run: its scores, curves, calibration, confusions, mistakes and settings."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from jaxtyping import Float, Float32
from matplotlib.figure import Figure

from meljax.config import KEYS
from meljax.evaluation import calibration
from meljax.evaluation.scores import Scored
from meljax.features.samples import narrowed
from meljax.models.registry import NETWORKS
from meljax.reports import data_summary, figures, html_page
from meljax.reports.class_scores import confused_pairs, per_class, worst_first
from meljax.runs.directory import CALIBRATION, CONFIG, METRICS, PREDICTIONS, SPLIT
from meljax.runs.history import column
from meljax.runs.predictions import calibration_of
from meljax.runs.results import RunResults

FILES = (CONFIG, SPLIT, METRICS, PREDICTIONS, CALIBRATION)
"""Files of a run that the page links to, if they exist."""

PAIRS = 8
"""Number of listed pairs of confused classes."""


def write_report(directory: Path, results: RunResults, run: Path) -> Path:
    """Writes `report.html`, its images and recordings to `directory`; returns the page's path.

    The page links to the files in the directory `run`.
    """
    links = {name: html_page.link(run / name, directory) for name in FILES if (run / name).exists()}
    return html_page.write(directory, page(results, links), _files(results))


def page(results: RunResults, links: Mapping[str, str]) -> str:
    """Returns the page; `links` are the URLs of `FILES`, by name."""
    info, last, classes = results.info, results.scores[0], results.classes
    losses = (column(results.history, name) for name in ("train_loss", "val_loss"))
    return html_page.render(
        "run.html.j2",
        title=results.name,
        results=results,
        info=info,
        network=NETWORKS[info.config["model.name"]].display_name,
        last=last,
        right=int(last.right.sum()),
        best=_best(results),
        chance=np.bincount(last.labels).max() / len(last.labels),
        lowest=lowest_before_rise(*losses),
        calibrations=[(each, calibration_of(each)) for each in results.scores if each.chosen],
        matrix={
            "counted": len(classes) <= figures.COUNTED_CLASSES,
            "labeled": len(classes) <= figures.LABELED_CLASSES,
            "drawable": all(map(figures.drawable, classes)),
        },
        confused=confused_pairs(last.confusion, PAIRS),
        classes=worst_first(per_class(last.confusion, classes)),
        mistakes=_numbered("mistake", results.mistakes),
        masks=_numbered("masks", results.mask_examples),
        lengths=data_summary.lengths(info.data),
        left_out=data_summary.left_out(info.data),
        settings=KEYS,
        links=links,
    )


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


def wav(samples: Float32[np.ndarray, " samples"], rate: int) -> bytes:
    """Returns a 16-bit WAV file of samples, where 1 is full scale; louder ones are scaled down."""
    file = io.BytesIO()
    # 16-bit recordings are written unchanged.
    content = narrowed(samples / max(np.float32(1), np.abs(samples).max()))
    soundfile.write(file, content, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _best(results: RunResults) -> Scored:
    """Returns the best epoch's validation scores, or the last epoch's if those are lost."""
    return next((s for s in results.scores if s.chosen), results.scores[0])


def _numbered(name: str, items: Sequence[Any]) -> list[tuple[str, Any]]:
    """Returns each item with the beginning of its files' names."""
    return [(f"{name}_{number:02d}", item) for number, item in enumerate(items, 1)]


def _files(results: RunResults) -> Iterator[tuple[str, Figure | bytes]]:
    """Yields the name and content of each file of the page."""
    yield from _curves(results)
    last, best = results.scores[0], _best(results)
    if best.chosen:
        bins = {
            "before": calibration.bins(best.raw_probabilities, best.labels),
            "after": calibration.bins(best.probabilities, best.labels),
        }
        yield "calibration.png", figures.reliability(bins)
    yield "confusion.png", figures.confusion_matrix(last.confusion, results.classes)
    for name, mistake in _numbered("mistake", results.mistakes):
        overlaid = figures.overlay(mistake.seen.image, mistake.seen.evidence)
        yield f"{name}.png", figures.image(mistake.seen.image)
        yield f"{name}_evidence.png", figures.image(overlaid)
        if mistake.seen.samples is not None:
            yield f"{name}.wav", wav(mistake.seen.samples, results.info.config["mel.sample_rate"])
    for name, example in _numbered("masks", results.mask_examples):
        yield f"{name}_before.png", figures.image(example.clean)
        yield f"{name}_after.png", figures.image(example.masked)


def _curves(results: RunResults) -> Iterator[tuple[str, Figure]]:
    history, best = results.history, _best(results)
    epochs = column(history, "epoch").astype(int)
    for split, key in (("training", "train_loss"), ("validation", "val_loss")):
        yield f"{split}_loss.png", figures.loss_curve(epochs, column(history, key), split)
    for key, title in (("accuracy", "Accuracy"), ("f1", "Macro-F1")):
        train, val = column(history, f"train_{key}"), column(history, f"val_{key}")
        yield f"{key}.png", figures.score_curves(epochs, train, val, title, best.epoch)
