import csv
import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from meljax.runs.history import read_history
from meljax.training import logs


def events(folder: Path) -> list[Event]:
    """Reads TFRecords: length, its checksum, the event, its checksum."""
    found = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_event_files_hold_scalars_images_and_settings(tmp_path):
    writer = logs.EventLog(tmp_path, 0)
    writer.write_hparams({"train.epochs": 3})
    writer.write_scalars(7, {"val_loss": 0.25})
    writer.write_images(7, {"augmented": np.zeros((2, 5, 6, 1), np.float32)})
    writer.flush()
    writer.close()
    values = {v.tag: (e.step, v) for e in events(tmp_path) for v in e.summary.value}
    step, value = values["val_loss"]
    assert (step, value.simple_value) == (7, 0.25)
    assert any(tag.startswith("augmented") and v.image.height for tag, (_, v) in values.items())
    assert any(tag.startswith("config") for tag in values)


def test_later_steps_of_a_killed_session_are_hidden(tmp_path):
    """Epochs up to the last completed step are kept."""
    writer = logs.EventLog(tmp_path, 40)
    writer.write_scalars(50, {"val_loss": 1.0})
    writer.close()
    assert any(event.session_log.status and event.step == 41 for event in events(tmp_path))


def test_the_confusion_image_shows_shares_of_rows():
    image = logs.confusion_image(np.array([[3, 1], [0, 0]]), size=4)
    assert image.shape == (1, 4, 4, 1)
    assert image[0, 0, 0, 0] == 0.75
    assert image[0, 0, 2, 0] == 0.25
    assert image[0, 2:].max() == 0
    image = logs.confusion_image(np.array([[1, 3], [2, 2]]), size=2)
    np.testing.assert_array_equal(image[0, :, :, 0], [[0.25, 0.75], [0.5, 0.5]])


def test_a_run_logs_scores_and_confusion_of_every_epoch(muddled_run):
    rows = read_history(muddled_run, 3)
    values = {(v.tag, e.step): v for e in events(muddled_run) for v in e.summary.value}
    for row in rows:
        for name in row.keys() - {"step"}:
            assert values[name, row["step"]].simple_value == np.float32(row[name])
    with open(muddled_run / "predictions.csv", newline="") as file:
        last = [row for row in csv.DictReader(file) if row["weights"] == "last"]
    names = ("voice0", "voice1", "voice2")
    counts = np.zeros((3, 3))
    for row in last:
        if row["split"] == "val":
            counts[names.index(row["label"]), names.index(row["prediction"])] += 1
    encoded = values["confusion", rows[-1]["step"]].image.encoded_image_string
    drawn = np.asarray(Image.open(io.BytesIO(encoded)).convert("L"))
    np.testing.assert_allclose(drawn[40::80, 40::80] / 255, counts / 4, atol=0.01)
