"""`config.json` of a run, and when the run may be resumed."""

import dataclasses
import json
import re

import pytest
from conftest import edit_info, small_config
from samples import IMAGENET, ODD, make_info
from test_comparison import dataset

from meljax import config
from meljax.models.pretrained.initial_weights import WeightsOrigin
from meljax.runs.directory import create, locked, removal_explained
from meljax.runs.info import describe_data, describe_run, read_info, require_info, write_info
from meljax.runs.resume import check_resume, check_same_data
from meljax.training.task_setup import make_frontend
from meljax.util.errors import UserError
from meljax.util.typed_json import digest

SET = dataset(("ann", "bob"), {"train": 8, "val": 4})
RANDOM = WeightsOrigin("random", reason="no 'network'")


def described(before=None, **keys):
    config = small_config(**keys)
    data = describe_data(config, SET, make_frontend(config, SET))
    return describe_run(config, data, RANDOM, 5, before)


def test_a_record_is_read_as_it_was_written(tmp_path):
    for info in (described(), make_info(ODD, skipped=tuple(ODD), weights=IMAGENET)):
        write_info(tmp_path, info)
        assert read_info(tmp_path) == require_info(tmp_path) == info
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["data"]["classes"] == ODD
    assert written["data"]["files"] == {"train": 90, "val": 10, "test": 0}
    assert written["config"]["train.epochs"] == 500


def test_a_record_has_data_weights_and_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    info = described(data__path="voices", data__tfds_dir="sets", model__name="resnet18")
    assert info.config["data.path"] == str(tmp_path / "voices")
    assert info.config["data.tfds_dir"] == str(tmp_path / "sets")
    assert info.config["model.init"] == "auto"
    assert info.data.files == {"train": 8, "val": 4, "test": 0}
    assert info.data.fingerprint == SET.fingerprint
    assert info.lacks_pretraining
    assert info.cautions() == [
        "the network is not pretrained; initial weights: random: no 'network'"
    ]
    assert described(data__path="tfds:set").config["data.path"] == "tfds:set"


def test_the_home_folder_is_spelled_out(tmp_path, monkeypatch):
    """A run is resumed and reported by users whose home is another one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    info = described(data__path="~/voices", data__tfds_dir="~/sets")
    assert info.config["data.path"] == str(tmp_path / "voices")
    assert info.config["data.tfds_dir"] == str(tmp_path / "sets")


def test_sessions_are_listed_once_with_the_current_one_last(monkeypatch):
    ours = described().session
    other = dataclasses.replace(ours, device_kind="another")
    before = dataclasses.replace(described(), sessions=(ours, other), finished=9)
    again = described(before)
    assert again.sessions == (other, ours)
    assert again.session == ours
    assert again.finished == 0


def change(**fields):
    return lambda values: values | fields


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: [],
        lambda values: {},
        change(weights="random"),
        change(weights={"kind": "drawn"}),
        change(finished="3"),
        change(finished=True),
        change(parameters=None),
        change(sessions=[]),
        change(sessions="abc"),
        change(seed=0),
        change(config={"train.epochs": "many"}),
        change(config={"no.key": 3}),
        change(data={"classes": []}),
        lambda values: values | {"data": values["data"] | {"files": {"val": "4"}}},
        lambda values: values | {"data": values["data"] | {"classes": "ab"}},
    ],
)
def test_damaged_records_are_refused_in_one_line(tmp_path, damage):
    write_info(tmp_path, described())
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    form, _ = content.pop("format"), content.pop("sha256")
    content = damage(content)
    header = {"format": form, "sha256": digest(content)}
    path.write_text(json.dumps(header | content if isinstance(content, dict) else content))
    with pytest.raises(UserError, match=re.escape(f"{path} is damaged")):
        read_info(tmp_path)


def test_keys_newer_than_the_run_get_defaults(tmp_path):
    write_info(tmp_path, described())
    edit_info(tmp_path, lambda info: info["config"].pop("mask.fill"))
    assert read_info(tmp_path) == described()


def test_directories_without_records_are_not_runs(tmp_path):
    assert read_info(tmp_path / "new") is None
    assert read_info(tmp_path) is None
    with pytest.raises(UserError, match=r"is not a run: it has no config\.json"):
        require_info(tmp_path / "new")
    (tmp_path / "letter").write_text("")
    with pytest.raises(UserError, match="holds files but no run"):
        read_info(tmp_path)
    with pytest.raises(UserError, match="letter is a file"):
        read_info(tmp_path / "letter")


def test_a_lock_detects_that_another_process_has_trained(tmp_path):
    info = described()
    create(tmp_path, info, SET)
    with (
        pytest.raises(UserError, match="has just trained"),
        locked(tmp_path, dataclasses.replace(info, finished=3)),
    ):
        pass
    with locked(tmp_path, info):
        assert len((tmp_path / "split.csv").read_text().splitlines()) == 13


def test_a_removed_run_can_start_over_whatever_was_being_written(tmp_path):
    """`rm -r` and the run may write to the directory at the same time."""
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text("{}")
    with (
        pytest.raises(UserError, match="was removed or moved during training; to start over"),
        removal_explained(tmp_path),
    ):
        raise FileNotFoundError
    assert read_info(tmp_path) is None


@pytest.mark.parametrize(
    ("changed", "refused"),
    [
        ({}, ""),
        ({"train__epochs": 3}, ""),
        ({"data__tfds_dir": "/elsewhere"}, ""),
        ({"train__epochs": 1}, ""),
        ({"data__path": "/elsewhere"}, ""),
        ({"train__seed": 1}, "train.seed (was 0, now 1)"),
        ({"train__seed": 1, "mask__fill": 0.5}, "mask.fill (was 0.0, now 0.5), train.seed (was 0"),
    ],
)
def test_each_key_declares_how_it_may_change_on_resume(tmp_path, changed, refused):
    if not refused:
        check_resume(tmp_path, described(), small_config(**changed))
        return
    with pytest.raises(UserError, match=re.escape(refused)):
        check_resume(tmp_path, described(), small_config(**changed))


def test_only_some_keys_may_change_on_resume():
    rules = {key: field.metadata.get("resume", "same") for key, field in config.KEYS.items()}
    assert {key: rule for key, rule in rules.items() if rule != "same"} == {
        "train.epochs": "free",
        "train.on_nan": "free",
        "train.save_every": "free",
        "data.path": "free",
        "data.root": "free",
        "data.tfds_dir": "free",
    }


def test_other_data_are_refused(tmp_path):
    check_same_data(tmp_path, described(), SET)
    with pytest.raises(UserError, match="the data changed"):
        check_same_data(tmp_path, described(), dataset(("ann", "cy"), {"train": 8, "val": 4}))


def test_a_run_of_an_earlier_format_is_named_as_such(tmp_path):
    """Format 1 had neither a number nor a digest."""
    write_info(tmp_path, described())
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    del content["format"], content["sha256"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"has format 1, but meljax .* reads format 2"):
        read_info(tmp_path)


def test_a_record_that_lost_its_format_is_damaged(tmp_path):
    write_info(tmp_path, described())
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"format"', '"formax"'))
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        read_info(tmp_path)
