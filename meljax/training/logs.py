"""TensorBoard event files through CLU's metric writers, without TensorFlow.

Importing `clu.metric_writers` imports TensorFlow, only for its summary writer. This module replaces
that writer with its own, so that CLU's other writers can be used.
"""

import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorboardX
from jaxtyping import Float, Int

from meljax.evaluation.metrics import Row


class SummaryWriter:
    """CLU's summary writer on top of tensorboardX: scalars, images and settings.

    TensorBoard hides events of earlier sessions from step `purge_step` on.
    """

    def __init__(self, logdir: str, purge_step: int | None = None):
        self._writer = tensorboardX.SummaryWriter(logdir, purge_step=purge_step)

    def write_scalars(self, step: int, scalars: Row) -> None:
        """Writes scalars."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def write_images(
        self, step: int, images: Mapping[str, Float[np.ndarray, "n rows columns channel"]]
    ) -> None:
        """Writes images in 0…1."""
        for name, batch in images.items():
            self._writer.add_images(name, batch, step, dataformats="NHWC")

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Writes settings as a table."""
        rows = "\n".join(f"| {name} | {value} |" for name, value in hparams.items())
        self._writer.add_text("config", f"| key | value |\n|---|---|\n{rows}", 0)

    def flush(self) -> None:
        """Flushes to disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes to disk and closes the file."""
        self._writer.close()


_replacement = types.ModuleType("clu.metric_writers.summary_writer")
_replacement.SummaryWriter = SummaryWriter
sys.modules.setdefault(_replacement.__name__, _replacement)

from clu import metric_writers  # noqa: E402 - must follow the replacement

MetricWriter = metric_writers.MetricWriter


def make_writer(workdir: Path, steps_done: int) -> MetricWriter:
    """Returns a background writer of event files in `workdir`.

    Events that an earlier session wrote for steps after `steps_done` are hidden.
    """
    writer = SummaryWriter(str(workdir), purge_step=steps_done + 1 if steps_done else None)
    return metric_writers.AsyncMultiWriter([writer])


def confusion_image(
    confusion: Int[np.ndarray, "classes classes"], size: int = 240
) -> Float[np.ndarray, "1 rows columns 1"]:
    """Returns an image of the confusion matrix; a pixel is the count's share of its row, in 0…1."""
    rows = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    scale = max(1, size // len(confusion))
    return np.kron(rows, np.ones((scale, scale)))[None, :, :, None].astype(np.float32)
