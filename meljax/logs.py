"""TensorBoard event files through CLU's metric writers, without TensorFlow.

Importing `clu.metric_writers` imports TensorFlow, for its summary writer alone. A module with a
writer of ours stands in for that one, so that all the rest of CLU's writers can be used.
"""

import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorboardX
from jaxtyping import Float, Int

from meljax.metrics import Row


class SummaryWriter:
    """CLU's summary writer on top of tensorboardX: numbers, pictures and settings.

    Steps from `purge_step` on that an earlier, killed session wrote are hidden by TensorBoard.
    """

    def __init__(self, logdir: str, purge_step: int | None = None):
        self._writer = tensorboardX.SummaryWriter(logdir, purge_step=purge_step)

    def write_scalars(self, step: int, scalars: Row) -> None:
        """Writes numbers."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def write_images(
        self,
        step: int,
        images: Mapping[str, Float[np.ndarray, "n rows columns channel"]],
    ) -> None:
        """Writes pictures in 0…1."""
        for name, batch in images.items():
            self._writer.add_images(name, batch, step, dataformats="NHWC")

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Writes settings as a table."""
        rows = "\n".join(f"| {name} | {value} |" for name, value in hparams.items())
        self._writer.add_text("config", f"| key | value |\n|---|---|\n{rows}", 0)

    def flush(self) -> None:
        """Sees everything to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Sees everything to the disk and closes the file."""
        self._writer.close()


_stand_in = types.ModuleType("clu.metric_writers.summary_writer")
_stand_in.SummaryWriter = SummaryWriter
sys.modules.setdefault(_stand_in.__name__, _stand_in)

from clu import metric_writers  # noqa: E402 - only now can it be imported

MetricWriter = metric_writers.MetricWriter


def make_writer(workdir: Path, steps_done: int) -> MetricWriter:
    """Returns a writer of event files in `workdir` that writes in the background.

    Args:
      workdir: of the run.
      steps_done: steps that this session has behind it; what earlier ones wrote beyond is hidden.
    """
    writer = SummaryWriter(str(workdir), purge_step=steps_done + 1 if steps_done else None)
    return metric_writers.AsyncMultiWriter([writer])


def confusion_image(
    confusion: Int[np.ndarray, "classes classes"], size: int = 240
) -> Float[np.ndarray, "1 rows columns 1"]:
    """Returns the confusion matrix as a picture, each row divided by its sum, brighter for more."""
    rows = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    scale = max(1, size // len(confusion))
    return np.kron(rows, np.ones((scale, scale)))[None, :, :, None].astype(np.float32)
