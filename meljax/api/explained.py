"""The result of `Model.explain`."""

import html
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from meljax.evaluation.explanation import Explanation
from meljax.features.axes import image_axes
from meljax.features.frontend import Frontend

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Explained:
    """What the network saw of an item, and where the evidence for a class is.

    Of several windows, it is the one with the highest probability of the class. A notebook shows
    its spectrogram, the same with the evidence in orange, and a player for its sound.
    """

    def __init__(self, explanation: Explanation, frontend: Frontend):
        """Called by `Model.explain`."""
        self._explanation, self._frontend = explanation, frontend

    @property
    def path(self) -> str:
        """The name of the item."""
        return self._explanation.path

    @property
    def label(self) -> str:
        """The class that the evidence is for."""
        return self._explanation.target

    @property
    def probability(self) -> float:
        """The calibrated probability of `label` for the whole item."""
        return self._explanation.probability

    @property
    def image(self) -> Float[np.ndarray, "rows columns channel"]:
        """The input of the network, in 0…1; the lowest frequencies are in the last row."""
        return self._explanation.image

    @property
    def evidence(self) -> Float[np.ndarray, "rows columns"]:
        """The evidence for `label` in each part of `image`, in 0…1 (Grad-CAM)."""
        return self._explanation.evidence

    @property
    def samples(self) -> Float[np.ndarray, " samples"] | None:
        """The samples of the window, where 1 is full scale; `None` for an image."""
        return self._explanation.samples

    @property
    def sample_rate(self) -> int | None:
        """The sample rate of `samples`, in Hz; `None` for an image."""
        return self._frontend.mel.sample_rate if self.samples is not None else None

    @property
    def start(self) -> float:
        """Start of the window in seconds or columns; negative if the item is shorter than it."""
        return self._explanation.start / (self.sample_rate or 1)

    def figure(self, evidence: bool = True) -> "Figure":
        """Returns a matplotlib figure of the image with axes, and with the evidence if set."""
        from meljax.reports import figures  # imports matplotlib

        axes = image_axes(self._frontend, self._explanation.start)
        return figures.spectrogram(self.image, axes, self.evidence if evidence else None)

    def __repr__(self) -> str:
        return f"<{self.path}: {self.label} {self.probability:.1%}, window at {self.start:g}>"

    def _repr_html_(self) -> str:
        """Returns both figures and a player as HTML, for notebooks."""
        title = f"{html.escape(self.path)}: <b>{html.escape(self.label)}</b> {self.probability:.1%}"
        from meljax.reports.media import data_url, png, wav  # imports matplotlib

        parts = [f'<p>{title}</p><div style="display: flex; flex-wrap: wrap">']
        for with_evidence in (False, True):
            image = data_url("image.png", png(self.figure(with_evidence)))
            parts.append(f'<img src="{image}">')
        parts.append("</div>")
        if self.samples is not None:
            sound = data_url("window.wav", wav(self.samples, self.sample_rate))
            parts.append(f'<audio controls src="{sound}"></audio>')
        return "".join(parts)
