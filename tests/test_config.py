import dataclasses
import math
import runpy

import pytest
from conftest import ROOT

from meljax import config
from meljax.errors import UserError


def test_defaults_are_allowed():
    assert config.read(config.default_config().to_dict()) == config.Config()


@pytest.mark.parametrize("name", ["resnet", "cnn"])
def test_recipes_are_the_original_one(name):
    settings = config.read(
        runpy.run_path(ROOT / "configs" / f"{name}.py")["get_config"]().to_dict()
    )
    assert settings.train == config.TrainConfig(500, 12, 1e-4, decay=1.0, seed=0)
    assert settings.data.val_fraction == 0.1
    assert settings.mask.freq_count == settings.mask.time_count == 1
    assert (settings.model.name, settings.data.image_size) == {
        "resnet": ("resnet18", 224),
        "cnn": ("cnn", 0),
    }[name]


@pytest.mark.parametrize("key", config.KEYS)
def test_every_key_refuses_what_it_cannot_be(key):
    default = config.KEYS[key].default
    impossible = {str: 3, int: -3, float: math.nan}[type(default)]
    group, name = key.split(".")
    with pytest.raises(UserError, match=f"^{key} must be .*, not {impossible}$"):
        config.read({group: {name: impossible}})


@pytest.mark.parametrize("key", config.KEYS)
def test_help_documents_every_key_once(key):
    assert config.help_text().count(f"--config.{key}=") == 1


@pytest.mark.parametrize(
    ("slip", "meant"),
    [("train.epoch", "train.epochs"), ("epochs", "train.epochs"), ("data.pth", "data.path")],
)
def test_an_unknown_key_is_answered_with_the_nearest(slip, meant):
    with pytest.raises(UserError, match=f"unknown key {slip}; did you mean {meant}"):
        config.check_name(slip)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("train.epochs", "abc"),
        ("train.epochs", "1.5"),
        ("train.epochs", "0"),
        ("train.learning_rate", "inf"),
        ("model.name", "vgg"),
        ("data.val_fraction", "1"),
        ("data.image_size", "(128,)"),
    ],
)
def test_text_that_is_no_value_is_refused(key, text):
    with pytest.raises(UserError, match=f"{key} must be"):
        config.check_text(key, text)


def test_true_is_no_number():
    with pytest.raises(UserError, match=r"train\.epochs"):
        config.read({"train": {"epochs": True}})


def test_whole_numbers_serve_as_numbers():
    assert config.read({"train": {"learning_rate": 1}}).train.learning_rate == 1.0


@pytest.mark.parametrize(
    ("tree", "key"),
    [
        ({"mel": {"fmax": 9000.0}}, "mel.fmax"),
        ({"mel": {"fmin": 8000.0}}, "mel.fmin"),
        ({"model": {"name": "cnn", "init": "imagenet"}}, "model.init"),
    ],
)
def test_values_that_exclude_each_other_are_refused(tree, key):
    with pytest.raises(UserError, match=key):
        config.read(tree)


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.Config().train.epochs = 3
