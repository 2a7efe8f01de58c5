"""The sections about classes on a run's page: confusion matrix, confused pairs, class scores."""

import numpy as np
from jaxtyping import Int

from meljax.evaluation import metrics
from meljax.reports import figures
from meljax.reports.html_page import ABSENT, FIGURES, escape, img, listing, section, table
from meljax.runs.results import RunResults
from meljax.util.phrases import count

PAIRS = 8
"""Number of listed pairs of confused classes."""


def confusion_section(results: RunResults) -> str:
    """Returns the confusion matrix and the most confused pairs of classes."""
    last, classes = results.scores[0], results.classes
    alt = (
        f"Confusion matrix of {len(classes)} classes on {len(last.labels):,} validation files "
        f"after epoch {last.epoch}: {int(np.trace(last.confusion)):,} are on the diagonal."
    )
    words = "Rows are true classes, columns predicted ones; the color is the share of the row."
    if len(classes) > figures.COUNTED_CLASSES:
        words += " Counts are left out because there are too many classes."
    if len(classes) > figures.LABELED_CLASSES:
        words += " Not every class is named."
    if not all(map(figures.drawable, classes)):
        words += " Names that the font cannot show are replaced by numbers of the table below."
    lines = [
        f"<b>{escape(classes[true])}</b> predicted as <b>{escape(classes[predicted])}</b>: "
        f"{last.confusion[true, predicted]} of {count(int(last.confusion[true].sum()), 'file')}"
        for true, predicted in confused_pairs(last.confusion, PAIRS)
    ]
    return section(
        "Confusion matrix",
        f"<p>{words} Weights of the last epoch, validation files.</p>",
        f'<a href="{FIGURES}/confusion.png">{img("confusion.png", alt)}</a>',
        f"<h3>Most confused</h3>{listing(lines)}"
        if lines
        else "<p>No class was confused with another.</p>",
    )


def confused_pairs(
    confusion: Int[np.ndarray, "classes classes"], limit: int
) -> list[tuple[int, int]]:
    """Returns (true, predicted) of at most `limit` highest counts off the diagonal."""
    wrong = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
    rows, columns = np.unravel_index(order, wrong.shape)
    return [(int(r), int(c)) for r, c in zip(rows, columns, strict=True) if wrong[r, c]]


def classes_section(results: RunResults) -> str:
    """Returns precision, recall and F1 of each class, the worst class first."""
    confusion = results.scores[0].confusion
    precision, recall, f1 = metrics.class_scores(confusion)
    predicted, true = confusion.sum(0), confusion.sum(1)
    occurs = predicted + true > 0
    order = np.lexsort((np.arange(len(f1)), recall, f1, ~occurs))
    rows = [
        (
            str(i + 1),
            escape(results.classes[i]),
            f"{true[i]:,}",
            f"{precision[i]:.1%}" if predicted[i] else ABSENT,
            f"{recall[i]:.1%}" if true[i] else ABSENT,
            f"{f1[i]:.1%}" if occurs[i] else ABSENT,
        )
        for i in order
    ]
    header = ("#", "class", "files", "precision", "recall", "F1")
    words = (
        "Last epoch, validation files; the class with the lowest F1 comes first. Precision: the "
        "share of right predictions among the files predicted as this class. Recall: the share of "
        f"right predictions among the files of this class. {ABSENT}: there are no such files."
    )
    return section("Classes", f"<p>{words}</p>", table(header, rows, "rtrrrr"))
