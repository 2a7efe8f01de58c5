import dataclasses
import math

import pytest

from meljax import config
from meljax.config import keys
from meljax.config.files import read_settings
from meljax.util.errors import UserError


def test_defaults_are_allowed():
    tree = config.default_config().to_dict()
    values = {f"{group}.{key}": value for group in tree for key, value in tree[group].items()}
    assert values == config.flat(config.Config())
    assert config.from_flat(values) == config.Config()


@pytest.mark.parametrize("name", ["resnet", "cnn"])
def test_configs_are_the_original_recipe(name):
    settings = read_settings(name, {})
    assert settings.train == config.TrainConfig(500, 12, 1e-4, lr_decay=1.0, seed=0)
    assert settings.data.val_fraction == 0.1
    assert settings.mask.freq_count == settings.mask.time_count == 1
    assert (settings.model.name, settings.data.image_size) == {
        "resnet": ("resnet18", 224),
        "cnn": ("cnn", 0),
    }[name]


@pytest.mark.parametrize("key", config.KEYS)
def test_every_key_refuses_values_that_are_not_allowed(key):
    default = config.KEYS[key].default
    not_allowed = {str: 3, int: -3, float: math.nan, bool: 1}[type(default)]
    with pytest.raises(UserError, match=f"^{key} must be .*, not {not_allowed}$"):
        config.from_flat({key: not_allowed})


@pytest.mark.parametrize("key", config.KEYS)
def test_help_documents_every_key_once(key):
    assert keys.help_text(config.KEYS, "--", 100).count(f"  --{key}=") == 1


@pytest.mark.parametrize(
    ("slip", "meant"),
    [("train.epoch", "train.epochs"), ("epochs", "train.epochs"), ("data.pth", "data.path")],
)
def test_an_unknown_key_gives_the_nearest_one(slip, meant):
    with pytest.raises(UserError, match=f"unknown key {slip}; did you mean {meant}"):
        keys.check_name(slip)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("train.epochs", "abc"),
        ("train.epochs", "1.5"),
        ("train.epochs", "0"),
        ("train.learning_rate", "inf"),
        ("data.val_fraction", "1"),
        ("data.image_size", "(128,)"),
        ("data.crop", "1,2,3"),
        ("data.crop", "1,2,3,4,5"),
        ("data.crop", "1,2,3,-4"),
        ("data.crop", "1,2,3,x"),
        ("data.crop", "1.5,2,3,4"),
    ],
)
def test_text_that_is_not_allowed_is_refused(key, text):
    with pytest.raises(UserError, match=f"{key} must be"):
        keys.parse_value(key, text)


@pytest.mark.parametrize("text", ["", "0,0,0,0", "54, 35, 20, 47"])
def test_a_crop_is_empty_or_four_numbers(text):
    assert keys.parse_value("data.crop", text) == text


def test_true_is_not_a_number():
    with pytest.raises(UserError, match=r"train\.epochs"):
        config.from_flat({"train.epochs": True})


def test_whole_numbers_are_accepted_as_numbers():
    assert config.from_flat({"train.learning_rate": 1}).train.learning_rate == 1.0


@pytest.mark.parametrize(
    ("key", "value"),
    [("mel.fmax", 9000.0), ("mel.fmin", 8000.0)],
)
def test_values_that_exclude_each_other_are_refused(key, value):
    with pytest.raises(UserError, match=key):
        config.from_flat({key: value})


def test_settings_are_immutable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.Config().train.epochs = 3


def test_flat_settings_are_read_back():
    settings = config.from_flat({"train.epochs": 7, "data.path": "x"})
    assert config.from_flat(config.flat(settings)) == settings


def test_only_some_keys_may_differ_when_a_run_resumes():
    resume = {name: field.metadata["resume"] for name, field in config.KEYS.items()}
    differing = {name: rule for name, rule in resume.items() if rule != "same"}
    places = dict.fromkeys(("data.path", "data.root", "data.tfds_dir"), "free")
    training = ("train.epochs", "train.on_nan", "train.save_every")
    assert differing == places | dict.fromkeys(training, "free")


@pytest.mark.parametrize(
    ("key", "value", "limits"),
    [
        ("train.epochs", 0, "a whole number ≥ 1 and < 2147483648"),
        ("train.epochs", 2**31, "a whole number ≥ 1 and < 2147483648"),
        ("mel.n_fft", 65_537, "a whole number ≥ 16 and ≤ 65536"),
        ("data.val_fraction", 1.0, "a number > 0 and < 1"),
        ("data.val_fraction", 0.0, "a number > 0 and < 1"),
        ("train.lr_decay", 0.0, "a number > 0 and ≤ 1"),
        ("mel.top_db", 200.5, "a number ≥ 1 and ≤ 200"),
        ("train.learning_rate", math.inf, "a number > 0 and ≤ 1e30"),
    ],
)
def test_numbers_outside_their_limits_are_refused(key, value, limits):
    with pytest.raises(UserError, match=f"^{key} must be {limits}, not "):
        config.from_flat({key: value})


def test_numbers_at_their_limits_are_accepted():
    limits = {
        "train.epochs": 2**31 - 1,
        "mel.top_db": 200.0,
        "mel.sample_rate": 8000,
        "mel.fmax": 4000.0,
        "train.lr_decay": 1.0,
        "train.seed": 0,
    }
    assert config.flat(config.from_flat(limits)).items() >= limits.items()


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("TRUE", True), ("false", False), ("False", False)]
)
def test_true_and_false_are_read_from_text(text, value):
    assert keys.parse_value("data.allow_split_names", text) is value


@pytest.mark.parametrize("text", ["yes", "1", ""])
def test_other_texts_are_not_true_or_false(text):
    with pytest.raises(UserError, match="must be true or false"):
        keys.parse_value("data.allow_split_names", text)
