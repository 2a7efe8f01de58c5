"""The progress bar and the line per epoch."""

import io
import sys
import types

import numpy as np
import pytest

from meljax.evaluation.metrics import NEVER, Metrics
from meljax.training import progress_bar
from meljax.training.progress_bar import TrainingBar

MEASURED = Metrics(
    loss_sum=np.float32(2),
    count=np.float32(4),
    confusion=np.array([[2, 1], [0, 1]], np.int32),
    first_bad_step=NEVER,
    skipped=np.int32(0),
)


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    """The time that the bar reads, in seconds."""
    seconds = [5.0]
    clock = types.SimpleNamespace(perf_counter=lambda: seconds[0])
    monkeypatch.setattr(progress_bar, "time", clock)
    return seconds


def test_rate_and_time_left_are_of_the_whole_session_after_its_first_step(monkeypatch, now):
    """It trains epochs 2 and 3; the first step, of 40 images, compiles."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = TrainingBar(epochs=3, images=100, first=2)
    bar.step_done(2, 40, MEASURED)
    assert "images/s" not in terminal.getvalue()
    now[0] = 7
    bar.step_done(2, 60, MEASURED)
    assert "epoch 2/3 loss 0.500 acc 0.750 |" in terminal.getvalue()
    assert "| 30 images/s 00:03 left" in terminal.getvalue()
    shown = len(terminal.getvalue())
    now[0] = 7.5
    bar.step_done(3, 45, MEASURED)
    assert len(terminal.getvalue()) == shown
    now[0] = 9
    bar.step_done(3, 30, MEASURED)
    assert "epoch 3/3 " in terminal.getvalue()[shown:]
    assert "| 34 images/s 00:00 left" in terminal.getvalue()[shown:]
    bar.close()


def test_an_epochs_line_has_its_scores_and_the_time_of_the_epochs_left(capsys):
    bar = TrainingBar(epochs=5, images=100, first=1)
    bar.step_done(2, 40, MEASURED)
    scores = {"train_loss": 0.5, "train_accuracy": 0.75, "val_loss": 0.6, "val_accuracy": 0.7}
    speed = {"seconds": 20.0, "images_per_second": 12.6}
    bar.epoch_done({"epoch": 2, "step": 8, "train_f1": 0.8, "val_f1": 0.65} | scores | speed)
    bar.close()
    assert capsys.readouterr().out == (
        "epoch 2/5 | loss 0.500 acc 0.750 | val loss 0.600 acc 0.700 f1 0.650 | "
        "13 images/s | 01:00 left\n"
    )
