"""Event files for TensorBoard through CLU's metric writers, without TensorFlow.

Importing `clu.metric_writers` imports TensorFlow, only for its summary writer. This module replaces
that writer with its own, so that CLU's other writers can be used.
"""

import contextlib
import os
import socket
import sys
import time
import types
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboardX.proto.tensor_pb2 import TensorProto
from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboardX.record_writer import RecordWriter

from meljax.evaluation.metrics import Row
from meljax.util.files import write_errors

SPLITS = ("train", "val")
"""The splits that have scores; TensorBoard calls each of them a run."""

EVENT_FILES = "events.out.tfevents.*"

Images = Mapping[
    str, Float[np.ndarray, "n rows columns channel"] | UInt8[np.ndarray, "n rows columns channel"]
]
"""Images by tag, in 0…1 or as uint8; several of one tag are shown side by side."""


class SummaryWriter:
    """CLU's summary writer with tensorboardX's event files: scalars, images, settings, tensors.

    tensorboardX's own summary writer is not used: if the disk is full, its thread ends with a
    traceback, and closing it never returns. Here every error reaches the caller as `OSError`.
    """

    def __init__(self, logdir: str, purge_step: int | None = None):
        """Creates an event file in `logdir`.

        TensorBoard hides events of earlier files from step `purge_step` on.
        """
        # TensorBoard reads the files of a folder in the order of their names.
        name = EVENT_FILES.replace("*", f"{time.time():.6f}.{socket.gethostname()}")
        self._writer = RecordWriter(os.path.join(logdir, name))
        self._write(0, file_version="brain.Event:2")
        if purge_step is not None:
            self._write(purge_step, session_log=SessionLog(status=SessionLog.START))

    def write_scalars(self, step: int, scalars: Row) -> None:
        """Writes scalars."""
        self._write_summaries(step, [summary.scalar(*scalar) for scalar in scalars.items()])

    def write_images(self, step: int, images: Images) -> None:
        """Writes images."""
        drawn = [summary.image(*image, dataformats="NHWC") for image in images.items()]
        self._write_summaries(step, drawn)

    def write_summaries(
        self,
        step: int,
        values: Mapping[str, Float[np.ndarray, "..."]],
        metadata: Mapping[str, SummaryMetadata],
    ) -> None:
        """Writes tensors for the TensorBoard plugins that `metadata` names."""
        parts = []
        for name, value in values.items():
            shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in value.shape])
            tensor = TensorProto(dtype="DT_FLOAT", tensor_shape=shape, float_val=value.ravel())
            parts.append(Summary.Value(tag=name, tensor=tensor, metadata=metadata[name]))
        self._write_summaries(step, [Summary(value=parts)])

    def write_hparams(self, hparams: Mapping[str, Any]) -> None:
        """Writes settings as the hyperparameters of a session."""
        # The list of all settings is left out: TensorBoard would use one run's list for all runs.
        _, start, _ = summary.hparams({key: _valid(value) for key, value in hparams.items()}, {})
        self._write_summaries(0, [start])

    def flush(self) -> None:
        """Flushes to disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flushes to disk and closes the file, even if the disk is full."""
        try:
            self._writer.flush()
        finally:
            self._writer.close()

    def _write_summaries(self, step: int, summaries: Iterable[Summary]) -> None:
        """Writes summaries to the disk at once: a killed run keeps the epochs that it finished."""
        for each in summaries:
            self._write(step, summary=each)
        self.flush()

    def _write(self, step: int, **content: Any) -> None:
        """Writes an event; `content` are its fields."""
        event = Event(wall_time=time.time(), step=int(step), **content)
        self._writer.write(event.SerializeToString())


_replacement = types.ModuleType("clu.metric_writers.summary_writer")
_replacement.SummaryWriter = SummaryWriter
sys.modules.setdefault(_replacement.__name__, _replacement)

from clu import asynclib, metric_writers  # noqa: E402 - must follow the replacement


class EventLog:
    """Writes settings, scores and images of a run to event files, in the background.

    The settings are in `folder`; the scores and images of a split are in its sub-folder `train` or
    `val`. TensorBoard shows a tag of several folders in one chart.

    Every method raises `UserError` if this or an earlier write failed.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], steps_done: int):
        """Begins a session after `steps_done` steps, and writes the settings.

        TensorBoard hides events of earlier sessions for later steps. If `steps_done` is 0, the
        files of earlier sessions are removed.
        """
        self._folder = folder
        with self._errors(), contextlib.ExitStack() as opened:
            # TensorBoard keeps the first settings that it reads, but a resumed run may have others.
            _remove_events(folder)
            self._session = _open(folder, None, opened)
            self._splits = {}
            for split in SPLITS:
                if not steps_done:
                    _remove_events(folder / split)
                purge_step = steps_done + 1 if steps_done else None
                self._splits[split] = _open(folder / split, purge_step, opened)
            self._session.write_hparams(settings)
            self._opened = opened.pop_all()

    def write_scores(self, row: Row) -> None:
        """Writes the scores of an epoch: `train_loss` becomes the tag `loss` of `train`, etc."""
        scores: dict[str, Row] = {split: {} for split in SPLITS}
        for name, value in row.items():
            split, _, tag = name.partition("_")
            if split in SPLITS:
                scores[split][tag] = value
            elif name != "step":  # epoch, seconds, images_per_second
                scores["train"][name] = value
        with self._errors():
            for split, scalars in scores.items():
                self._splits[split].write_scalars(row["step"], scalars)

    def write_images(self, split: str, step: int, images: Images) -> None:
        """Writes images of the split 'train' or 'val'."""
        with self._errors():
            self._splits[split].write_images(step, images)

    def write_completed(self) -> None:
        """Marks the run as completed among the sessions of TensorBoard's HPARAMS."""
        _, _, end = summary.hparams({}, {})
        (part,) = end.value
        with self._errors():
            nothing = np.zeros(0, np.float32)
            self._session.write_summaries(0, {part.tag: nothing}, {part.tag: part.metadata})

    def close(self) -> None:
        """Waits until everything is on the disk and closes the files."""
        with self._errors():
            self._opened.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Raises the `OSError` that caused an error of the background thread as `UserError`."""
        with write_errors(self._folder):
            try:
                yield
            except asynclib.AsyncError as error:
                cause: BaseException | None = error
                while cause and not isinstance(cause, OSError):
                    cause = cause.__cause__
                raise cause or error from None


def _open(
    folder: Path, purge_step: int | None, opened: contextlib.ExitStack
) -> metric_writers.AsyncWriter:
    """Creates `folder`, and returns a writer to a new file in it that `opened` closes."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = metric_writers.AsyncWriter(SummaryWriter(str(folder), purge_step))
    opened.callback(writer.close)
    return writer


def _valid(value: Any) -> Any:
    """Returns a setting as valid UTF-8: invalid bytes of paths become '?'."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _remove_events(folder: Path) -> None:
    for file in folder.glob(EVENT_FILES):
        file.unlink()
