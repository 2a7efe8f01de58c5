"""What the page to try a model shows for a recording or image: parts of a page, as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from meljax.evaluation.explanation import Explanation
from meljax.evaluation.spans import Span, merged, with_decision
from meljax.evaluation.status import SILENCE
from meljax.features.axes import image_axes
from meljax.features.frontend import Frontend
from meljax.outputs.formats import DIGITS
from meljax.outputs.rows import columns, rounded, row_of
from meljax.reports import figures, html_page
from meljax.reports.media import data_url, png, wav
from meljax.reports.timeline import place, timeline
from meljax.util.csv_file import csv_line

TOP = 5
"""Number of classes with a bar."""

WIDTH = 3.3
"""Width of a spectrogram, in inches: two fit side by side, with readable text."""


@dataclass(frozen=True)
class Answer:
    """The prediction for a recording or image.

    Attributes:
      name: name of the file.
      classes: names of all classes.
      frontend: front end of the model.
      whole: span of the whole item, before thresholds are applied.
      windows: spans of the windows by their starts, before thresholds are applied.
      background: index of the background class, if there is one.
      notes: remarks on the item, a sentence each.
      explanation: the window with the highest probability of the predicted class; `None`: silence.
      sound: samples of the whole recording, where 1 is full scale; `None` for images and for
        recordings too long to be played.
      true_class: true class of an example; '' if it is not known.
    """

    name: str
    classes: Sequence[str]
    frontend: Frontend
    whole: Span
    windows: Sequence[Span]
    background: int | None = None
    notes: Sequence[str] = ()
    explanation: Explanation | None = None
    sound: Float[np.ndarray, " samples"] | None = None
    true_class: str = ""

    def decided(self, span: Span, threshold: float) -> Span:
        """Returns a span with its status: 'ok', 'background', 'unknown' or 'silence'.

        It is 'unknown' if the most probable class is less probable than `threshold`.
        """
        return with_decision(span, np.full(len(self.classes), threshold), self.background)


def verdict(answer: Answer, threshold: float) -> str:
    """Returns the answer for the whole item, with bars of the most probable classes."""
    whole = answer.decided(answer.whole, threshold)
    bars: list[tuple[str, float]] = []
    if whole.status != SILENCE:
        best = np.argsort(-whole.probabilities, kind="stable")[:TOP]
        bars = [(answer.classes[i], float(whole.probabilities[i])) for i in best]
    return html_page.render(
        "verdict.html.j2", answer=answer, bars=bars, status=whole.status, threshold=threshold
    )


def problem(text: str) -> str:
    """Returns an error message in place of an answer."""
    return html_page.render("problem.html.j2", text=text)


def evidence(answer: Answer) -> str:
    """Returns what the network saw, the evidence, and a player; '' for silence."""
    seen = answer.explanation
    if seen is None:
        return ""
    axes = image_axes(answer.frontend, seen.start)
    sound = seen.samples if answer.sound is None else answer.sound
    rate = answer.frontend.mel.sample_rate
    return html_page.render(
        "evidence.html.j2",
        answer=answer,
        seen=seen,
        audio=answer.frontend.kind == "audio",
        start=max(0, seen.start / rate),
        end=(seen.start + answer.frontend.window) / rate,
        image=_image(figures.spectrogram(seen.image, axes, width=WIDTH)),
        overlay=_image(figures.spectrogram(seen.image, axes, seen.evidence, WIDTH)),
        sound=None if sound is None else data_url("sound.wav", wav(sound, rate)),
    )


def segments(answer: Answer, threshold: float) -> str:
    """Returns the windows over time, as a figure and a table; '' if there is only one window."""
    if len(answer.windows) < 2:
        return ""
    parts = parts_of(answer, threshold)
    audio = answer.frontend.kind == "audio"
    return html_page.render(
        "segments.html.j2",
        answer=answer,
        parts=parts,
        audio=audio,
        place=place,
        end=parts[-1].end,
        figure=_image(timeline(answer.windows, answer.classes, threshold, audio)),
        table=data_url("table.csv", csv(answer.classes, parts).encode("utf-8-sig")),
        file=f"{answer.name.rpartition('.')[0] or answer.name}.csv",
    )


def parts_of(answer: Answer, threshold: float) -> list[Span]:
    """Returns the windows, with successive ones of the same class joined."""
    return list(merged(answer.decided(window, threshold) for window in answer.windows))


def csv(classes: Sequence[str], parts: Sequence[Span]) -> str:
    """Returns the rows that `meljax predict --merge` writes."""
    names = columns(top=1, timed=False)
    rows = [rounded(row_of(part, classes, top=1), DIGITS["csv"]) for part in parts]
    lines = [csv_line(names), *(csv_line(map(row.get, names)) for row in rows)]
    return "".join(f"{line}\n" for line in lines)


def _image(figure: Figure) -> str:
    # Twice the resolution is sharp on high-density screens.
    return data_url("image.png", png(figure, scale=2))
