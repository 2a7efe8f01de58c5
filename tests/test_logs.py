import contextlib
import csv
import io
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import WINDOW, command
from PIL import Image
from tensorboardX.proto.api_pb2 import Status
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.proto.summary_pb2 import Summary

from meljax.main import main
from meljax.reports.confusion_figure import confusion_matrix, rendered
from meljax.runs.directory import TENSORBOARD
from meljax.runs.history import read_history
from meljax.runs.info import require_info
from meljax.training import logs
from meljax.workflows import train

SCORES = {"step": 7, "epoch": 1, "train_loss": 0.5, "val_loss": 0.25, "seconds": 2.0}


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


def values(folder: Path) -> dict[tuple[str, int], Summary.Value]:
    """Returns the values in the event files of `folder` by tag and step; none occurs twice."""
    found = {}
    for event in events(folder):
        for value in event.summary.value:
            assert (value.tag, event.step) not in found
            found[value.tag, event.step] = value
    return found


def sessions(folder: Path) -> Iterator[HParamsPluginData]:
    """Yields what TensorBoard's HPARAMS shows of the run."""
    for value in values(folder).values():
        assert value.metadata.plugin_data.plugin_name == "hparams"
        yield HParamsPluginData.FromString(value.metadata.plugin_data.content)


def test_scores_of_the_splits_have_the_same_tag(tmp_path):
    log = logs.EventLog(tmp_path, {}, 0)
    log.write_scores(SCORES)
    log.close()
    train, val = values(tmp_path / "train"), values(tmp_path / "val")
    assert {key: value.simple_value for key, value in train.items()} == {
        ("loss", 7): 0.5,
        ("epoch", 7): 1,
        ("seconds", 7): 2,
    }
    assert {key: value.simple_value for key, value in val.items()} == {("loss", 7): 0.25}


def test_images_are_written_in_color_and_gray(tmp_path):
    log = logs.EventLog(tmp_path, {}, 0)
    image = np.random.default_rng(0).integers(0, 256, (1, 5, 6, 3)).astype(np.uint8)
    log.write_images("val", 7, {"confusion": image})
    log.write_images("train", 0, {"augmented": np.full((2, 5, 6, 1), 0.5, np.float32)})
    log.close()
    np.testing.assert_array_equal(pixels(values(tmp_path / "val")["confusion", 7]), image[0])
    assert 127 in pixels(values(tmp_path / "train")["augmented", 0])


def pixels(value: Summary.Value) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(value.image.encoded_image_string)))


def test_settings_are_those_of_the_last_session(tmp_path):
    settings = {"train.learning_rate": 0.5, "data.path": "caf\udce9", "flag": True}
    for epochs, steps_done in ((3, 0), (6, 30)):
        log = logs.EventLog(tmp_path, settings | {"train.epochs": epochs}, steps_done)
        log.close()
    (session,) = sessions(tmp_path)
    hparams = session.session_start_info.hparams
    assert hparams["train.epochs"].number_value == 6
    assert hparams["train.learning_rate"].number_value == 0.5
    assert hparams["data.path"].string_value == "caf?"
    assert hparams["flag"].bool_value is True


def test_later_steps_of_a_killed_session_are_hidden(tmp_path):
    """Epochs up to the last completed step are kept."""
    logs.EventLog(tmp_path, {}, 0).close()
    log = logs.EventLog(tmp_path, {}, 40)
    log.write_scores(SCORES | {"step": 50})
    log.close()
    for split in logs.SPLITS:
        assert len(list((tmp_path / split).iterdir())) == 2
        starts = [event.step for event in events(tmp_path / split) if event.session_log.status]
        assert starts == [41]


def test_a_run_that_starts_over_keeps_no_events(tmp_path):
    """Step 0 has an image, which would be shown twice."""
    for _ in range(2):
        log = logs.EventLog(tmp_path, {}, 0)
        log.write_scores(SCORES)
        log.close()
    for folder in (tmp_path, tmp_path / "train", tmp_path / "val"):
        assert len(list(folder.glob(logs.EVENT_FILES))) == 1


def test_scores_are_on_the_disk_before_the_file_is_closed(tmp_path):
    """A killed process loses no epoch."""
    with contextlib.closing(logs.SummaryWriter(str(tmp_path))) as writer:
        writer.write_scalars(7, {"loss": 0.25})
        assert values(tmp_path)["loss", 7].simple_value == 0.25


def test_a_run_logs_settings_and_the_scores_of_every_epoch(muddled_run):
    folder = muddled_run / TENSORBOARD
    written = {split: values(folder / split) for split in logs.SPLITS}
    for row in read_history(muddled_run, require_info(muddled_run)):
        step = row.pop("step")
        for name, score in row.items():
            split, tag = ("train", name)
            if name.startswith(("train_", "val_")):
                split, tag = name.split("_")
            assert written[split][tag, step].simple_value == np.float32(score)
    assert ("augmented", 0) in written["train"]
    start, end = sessions(folder)
    assert start.session_start_info.hparams.keys() == require_info(muddled_run).config.keys()
    assert end.session_end_info.status == Status.Value("STATUS_SUCCESS")


def test_a_run_logs_its_confusion_matrix(muddled_run, muddle, tmp_path, monkeypatch):
    """After the last epoch and from time to time; `train` may draw after every epoch here."""
    shutil.copytree(muddled_run, tmp_path / "run")
    monkeypatch.setattr(train, "DRAWING_SECONDS", 0)
    arguments = command("cnn", muddle, tmp_path / "run", train__epochs=5, data__window=WINDOW)
    assert main(arguments) == 0
    rows = read_history(tmp_path / "run", require_info(tmp_path / "run"))
    val = values(tmp_path / "run" / TENSORBOARD / "val")
    assert [step for tag, step in val if tag == "loss"] == [row["step"] for row in rows]
    drawn = {step: value for (tag, step), value in val.items() if tag == "confusion"}
    assert list(drawn) == [row["step"] for row in rows[2:]]
    confusion = validation_counts(tmp_path / "run")
    expected = rendered(confusion_matrix(confusion, ["voice0", "voice1", "voice2"]))
    np.testing.assert_array_equal(pixels(drawn[rows[-1]["step"]]), expected)
    (start, end) = sessions(tmp_path / "run" / TENSORBOARD)
    assert start.session_start_info.hparams["train.epochs"].number_value == 5
    assert end.session_end_info.status == Status.Value("STATUS_SUCCESS")


def validation_counts(run: Path) -> np.ndarray:
    """Returns the confusion matrix of the last epoch from the run's predictions."""
    names = ("voice0", "voice1", "voice2")
    counts = np.zeros((3, 3), int)
    with open(run / "predictions.csv", newline="") as file:
        for row in csv.DictReader(file):
            if (row["weights"], row["split"]) == ("last", "val"):
                counts[names.index(row["label"]), names.index(row["prediction"])] += 1
    return counts


def test_tensorboard_reads_a_run(muddled_run):
    """`pip install tensorboard` runs this test."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.context import RequestContext
    from tensorboard.data.provider import RunTagFilter
    from tensorboard.plugins.base_plugin import TBContext
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    multiplexer = plugin_event_multiplexer.EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(muddled_run))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(muddled_run))
    context = backend_context.Context(TBContext(data_provider=provider))
    request = api_pb2.ListSessionGroupsRequest(
        slice_size=10, allowed_statuses=[api_pb2.STATUS_SUCCESS]
    )
    handler = list_session_groups.Handler(RequestContext(), context, "", request)
    (group,) = handler.run().session_groups
    row = read_history(muddled_run, require_info(muddled_run))[-1]
    shown = {f"{m.name.group}_{m.name.tag}": m.value for m in group.metric_values}
    for name, score in row.items():
        if name.startswith(("train_", "val_")):
            assert shown[name] == np.float32(score)
    assert group.hparams["train.epochs"].number_value == 3
    losses = RunTagFilter(tags=["loss"])
    listed = provider.list_scalars(
        RequestContext(), experiment_id="", plugin_name="scalars", run_tag_filter=losses
    )
    assert set(listed) == {"tensorboard/train", "tensorboard/val"}
