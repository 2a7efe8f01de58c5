"""TensorBoard event files through CLU's metric writers, without TensorFlow.

Importing `clu.metric_writers` imports TensorFlow, only for its summary writer. This module replaces
that writer with its own, so that CLU's other writers can be used.
"""

import contextlib
import os
import socket
import sys
import time
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import RecordWriter

from meljax.evaluation.metrics import Row
from meljax.util.files import write_errors

FLUSH_SECONDS = 10
"""The first event after this time writes all to the disk."""


class SummaryWriter:
    """CLU's summary writer with tensorboardX's event files: scalars, images and settings.

    tensorboardX's own summary writer is not used: if the disk is full, its thread ends with a
    traceback, and closing it never returns. Here every error reaches the caller as `OSError`.
    """

    def __init__(self, logdir: str, purge_step: int | None = None):
        """Creates an event file in `logdir`.

        TensorBoard hides events of earlier sessions from step `purge_step` on.
        """
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._writer = RecordWriter(os.path.join(logdir, name))
        self._flushed_at = time.monotonic()
        self._write(0, file_version="brain.Event:2")
        if purge_step is not None:
            self._write(purge_step, session_log=SessionLog(status=SessionLog.START))

    def write_scalars(self, step: int, scalars: Row) -> None:
        """Writes scalars."""
        for name, value in scalars.items():
            self._write(step, summary=summary.scalar(name, value))

    def write_images(
        self, step: int, images: Mapping[str, Float[np.ndarray, "n rows columns channel"]]
    ) -> None:
        """Writes images in 0…1."""
        for name, batch in images.items():
            self._write(step, summary=summary.image(name, batch, dataformats="NHWC"))

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Writes settings as a table."""
        rows = "\n".join(f"| {name} | {value} |" for name, value in hparams.items())
        table = f"| key | value |\n|---|---|\n{rows}"
        self._write(0, summary=summary.text("config", table))

    def flush(self) -> None:
        """Flushes to disk."""
        self._writer.flush()
        self._flushed_at = time.monotonic()

    def close(self) -> None:
        """Flushes to disk and closes the file, even if the disk is full."""
        try:
            self._writer.flush()
        finally:
            self._writer.close()

    def _write(self, step: int, **content: Any) -> None:
        """Writes an event; `content` are its fields."""
        event = Event(wall_time=time.time(), step=int(step), **content)
        self._writer.write(event.SerializeToString())
        if time.monotonic() - self._flushed_at > FLUSH_SECONDS:
            self.flush()


_replacement = types.ModuleType("clu.metric_writers.summary_writer")
_replacement.SummaryWriter = SummaryWriter
sys.modules.setdefault(_replacement.__name__, _replacement)

from clu import asynclib, metric_writers  # noqa: E402 - must follow the replacement


class EventLog:
    """Writes scalars, images and settings to an event file in `workdir`, in the background.

    Every method raises `UserError` if this or an earlier write failed.
    """

    def __init__(self, workdir: Path, steps_done: int):
        """Begins a session; events of earlier ones for steps after `steps_done` are hidden."""
        self._workdir = workdir
        with self._errors():
            writer = SummaryWriter(str(workdir), purge_step=steps_done + 1 if steps_done else None)
        self._writer = metric_writers.AsyncMultiWriter([writer])

    def write_scalars(self, step: int, scalars: Row) -> None:
        """Writes scalars."""
        with self._errors():
            self._writer.write_scalars(step, scalars)

    def write_images(
        self, step: int, images: Mapping[str, Float[np.ndarray, "n rows columns channel"]]
    ) -> None:
        """Writes images in 0…1."""
        with self._errors():
            self._writer.write_images(step, images)

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Writes settings as a table."""
        with self._errors():
            self._writer.write_hparams(hparams)

    def flush(self) -> None:
        """Waits until everything is on the disk."""
        with self._errors():
            self._writer.flush()

    def close(self) -> None:
        """Waits until everything is on the disk and closes the file."""
        with self._errors():
            self._writer.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Raises the `OSError` that caused an error of the background thread as `UserError`."""
        with write_errors(self._workdir):
            try:
                yield
            except asynclib.AsyncError as error:
                cause: BaseException | None = error
                while cause and not isinstance(cause, OSError):
                    cause = cause.__cause__
                raise cause or error from None


def confusion_image(
    confusion: Int[np.ndarray, "classes classes"], size: int = 240
) -> Float[np.ndarray, "1 rows columns 1"]:
    """Returns an image of the confusion matrix; a pixel is the count's share of its row, in 0…1."""
    rows = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    scale = max(1, size // len(confusion))
    return np.kron(rows, np.ones((scale, scale)))[None, :, :, None].astype(np.float32)
