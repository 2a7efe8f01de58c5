import struct
from pathlib import Path

import numpy as np
from tensorboardX.proto.event_pb2 import Event

from meljax import logs


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


def test_event_files_hold_scalars_pictures_and_settings(tmp_path):
    writer = logs.make_writer(tmp_path, 0)
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


def test_steps_of_a_killed_session_are_hidden(tmp_path):
    """The epoch that ended with the last step behind them stays."""
    writer = logs.make_writer(tmp_path, 40)
    writer.write_scalars(50, {"val_loss": 1.0})
    writer.close()
    assert any(event.session_log.status and event.step == 41 for event in events(tmp_path))


def test_the_confusion_picture_shows_shares_of_rows():
    picture = logs.confusion_image(np.array([[3, 1], [0, 0]]), size=4)
    assert picture.shape == (1, 4, 4, 1)
    assert picture[0, 0, 0, 0] == 0.75
    assert picture[0, 0, 2, 0] == 0.25
    assert picture[0, 2:].max() == 0
