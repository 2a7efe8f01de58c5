"""Every setting of a run: its default, unit, meaning and what it may be.

The dataclasses below are the one source of truth. `configs/*.py` edit `default_config()`, the
command line overrides single keys, and `read()` turns the result into an immutable `Config` that is
passed on by value; nothing reads an `ml_collections` dictionary after that.
"""

import dataclasses
import difflib
import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Any

from meljax.errors import UserError


def _key(default: str | int | float, doc: str, allowed: str, check: Callable[[Any], bool]) -> Any:
    """Declares one key: its documentation, what it may be in words, and the test of that."""
    metadata = {"doc": doc, "allowed": allowed, "check": check}
    return dataclasses.field(default=default, metadata=metadata)


def _text(default: str, doc: str, allowed: str = "text") -> Any:
    return _key(default, doc, allowed, lambda value: "\0" not in value)


def _choice(default: str, doc: str, *choices: str) -> Any:
    return _key(default, doc, " or ".join(map(repr, choices)), lambda value: value in choices)


def _whole(default: int, doc: str, least: int, most: int = 2**31 - 1) -> Any:
    limits = f"a whole number ≥ {least} and " + (f"≤ {most}" if most < 2**31 - 1 else "below 2³¹")
    return _key(default, doc, limits, lambda value: least <= value <= most)


def _number(default: float, doc: str, allowed: str, check: Callable[[float], bool]) -> Any:
    return _key(default, doc, f"a number {allowed}", lambda v: math.isfinite(v) and check(v))


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is learned from, and how it is divided."""

    path: str = _text(
        "",
        "folder with one sub-folder per class, a CSV, or a TFDS set as "
        "tfds:NAME[/CONFIG][:VERSION]; empty: embedded voices",
    )
    tfds_dir: str = _text("", "folder of TFDS sets; empty: where TFDS keeps them", "a folder")
    label: str = _text(
        "label",
        "CSV column or TFDS feature that holds the class",
        "the name of a column or feature",
    )
    group: str = _text(
        "group",
        "CSV column or TFDS feature whose values never stand on both sides of the split; "
        "empty: none",
    )
    val_fraction: float = _number(
        0.1,
        "share of the files held out where no split is given",
        "above 0 and below 1",
        lambda value: 0 < value < 1,
    )
    image_size: int = _whole(
        0, "side of the square, in pixels, that pictures are resized to; 0: as they are", 0, 4096
    )
    window: float = _number(
        0.0,
        "length the network sees: seconds of a recording, columns of a picture; "
        "0: the median length in the training set",
        "≥ 0",
        lambda value: value >= 0,
    )
    on_bad_file: str = _choice(
        "stop",
        "unreadable files: 'stop' before training, or 'skip' and record them",
        "stop",
        "skip",
    )


@dataclasses.dataclass(frozen=True)
class MelConfig:
    """The front end of recordings; librosa's names and meanings. Pictures do not use it."""

    sample_rate: int = _whole(16_000, "rate recordings are resampled to, in Hz", 1_000, 384_000)
    n_fft: int = _whole(1024, "samples in a window of the Fourier transform", 16, 65_536)
    hop_length: int = _whole(256, "samples from one frame to the next", 1, 65_536)
    n_mels: int = _whole(128, "mel bands, the height of the picture", 4, 1024)
    fmin: float = _number(0.0, "lowest frequency, in Hz", "≥ 0", lambda value: value >= 0)
    fmax: float = _number(
        0.0, "highest frequency, in Hz; 0: half the sample rate", "≥ 0", lambda value: value >= 0
    )
    top_db: float = _number(
        80.0,
        "range below the window's maximum, in dB, that the picture shows",
        "≥ 1 and ≤ 200",
        lambda value: 1 <= value <= 200,
    )


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """Frequency and time masks of training pictures (Park et al. 2019); never in evaluation."""

    freq_count: int = _whole(1, "frequency masks per example; 0: none", 0, 64)
    freq_width: float = _number(
        0.125,
        "maximum width of a frequency mask, share of the height",
        "between 0 and 1",
        lambda value: 0 <= value <= 1,
    )
    time_count: int = _whole(1, "time masks per example; 0: none", 0, 64)
    time_width: float = _number(
        0.125,
        "maximum width of a time mask, share of the width",
        "between 0 and 1",
        lambda value: 0 <= value <= 1,
    )
    fill: float = _number(
        0.0,
        "brightness of what is masked; 0: the floor, 1: the maximum",
        "between 0 and 1",
        lambda value: 0 <= value <= 1,
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network and how its weights begin."""

    name: str = _choice("resnet18", "the network", "resnet18", "cnn")
    init: str = _key(
        "auto",
        "how the weights begin: 'scratch' random; 'imagenet' pretrained; a file of weights; "
        "'auto' pretrained where the network has such weights and they can be had, else random",
        "'auto', 'imagenet', 'scratch' or the path of a file of weights",
        lambda value: value and "\0" not in value,
    )
    compute: str = _choice(
        "float32",
        "type of the numbers that convolutions compute with; weights, statistics, loss and what is "
        "exported stay float32",
        "float32",
        "bfloat16",
    )
    width: int = _whole(0, "channels of the first convolution; 0: 64 (resnet18), 32 (cnn)", 0, 1024)


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Optimisation: Adam."""

    epochs: int = _whole(500, "passes over the training set", 1)
    batch_size: int = _whole(12, "examples per step, over all devices together", 1, 65_536)
    learning_rate: float = _number(1e-4, "Adam's step size", "> 0", lambda value: value > 0)
    decay: float = _number(
        1.0,
        "factor on the learning rate after each epoch; 1: it stays constant",
        "above 0 and at most 1",
        lambda value: 0 < value <= 1,
    )
    seed: int = _whole(0, "of the split, the initial weights, the order and the masks", 0)


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run; immutable."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    mel: MelConfig = dataclasses.field(default_factory=MelConfig)
    mask: MaskConfig = dataclasses.field(default_factory=MaskConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)


def _fields() -> dict[str, dataclasses.Field]:
    groups = dataclasses.fields(Config)
    return {f"{g.name}.{f.name}": f for g in groups for f in dataclasses.fields(g.type)}


KEYS = _fields()
"""`{'data.path': field, ...}`: every key there is."""


def default_config() -> Any:
    """Returns the defaults as a locked `ml_collections.ConfigDict` for `configs/*.py` to edit."""
    import ml_collections  # of the command line alone

    return ml_collections.ConfigDict(dataclasses.asdict(Config())).lock()


def read(tree: Mapping[str, Any]) -> Config:
    """Returns the checked, immutable settings.

    Args:
      tree: nested mapping `{group: {key: value}}`; what it leaves out keeps its default.

    Raises:
      UserError: an unknown key (the nearest one is named), a wrong type or an impossible value.
    """
    values: dict[str, dict[str, Any]] = {group.name: {} for group in dataclasses.fields(Config)}
    for name, value in _flatten(tree).items():
        group, _, key = name.partition(".")
        check_name(name)
        values[group][key] = _checked(name, value)
    groups = {f.name: f.type(**values[f.name]) for f in dataclasses.fields(Config)}
    config = Config(**groups)
    _check_together(config)
    return config


def from_flat(values: Mapping[str, Any]) -> Config:
    """Returns the settings that `flat()` was given; keys it did not know yet keep their default."""
    tree: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        group, _, key = name.partition(".")
        tree.setdefault(group, {})[key] = value
    return read(tree)


def flat(config: Config) -> dict[str, str | int | float]:
    """Returns `{'data.path': value, ...}`, in the order of `KEYS`."""
    return {name: getattr(getattr(config, name.split(".")[0]), name.split(".")[1]) for name in KEYS}


def check_name(name: str) -> None:
    """Raises `UserError` unless `name` ('train.epochs') is a key; names the nearest one."""
    if name in KEYS:
        return
    # 'epochs' alone, or a slip in either half, should both lead to 'train.epochs'.
    candidates = {key: key for key in KEYS} | {key.split(".")[1]: key for key in KEYS}
    nearest = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    hint = f"; did you mean {candidates[nearest[0]]}?" if nearest else "; --help lists all keys"
    raise UserError(f"unknown key {name}{hint}")


def check_text(name: str, text: str) -> None:
    """Raises `UserError` unless `text`, from the command line, is a value for the key `name`."""
    check_name(name)
    kind = type(KEYS[name].default)
    try:
        value = kind(text)
    except ValueError:
        raise _impossible(name, text) from None
    _checked(name, value)


def help_text(width: int = 100) -> str:
    """Returns every key with its default, meaning and what it may be, in lines of `width`."""
    lines = []
    for group in dataclasses.fields(Config):
        lines.append(f"\n{group.type.__doc__.splitlines()[0]}")
        for field in dataclasses.fields(group.type):
            lines.append(f"  --config.{group.name}.{field.name}={field.default}")
            text = f"{field.metadata['doc']} ({field.metadata['allowed']})"
            lines += textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    flattened = {}
    for group, values in tree.items():
        if not isinstance(values, Mapping):
            raise UserError(f"unknown key {group}: keys look like train.epochs; --help lists them")
        flattened |= {f"{group}.{key}": value for key, value in values.items()}
    return flattened


def _checked(name: str, value: Any) -> Any:
    kind, meta = type(KEYS[name].default), KEYS[name].metadata
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or not meta["check"](value):
        raise _impossible(name, value)
    return value


def _impossible(name: str, value: Any) -> UserError:
    return UserError(f"{name} must be {KEYS[name].metadata['allowed']}, not {value!r}")


def _check_together(config: Config) -> None:
    """Refuses values that are possible alone but not together."""
    mel = config.mel
    nyquist = mel.sample_rate / 2
    if mel.fmax > nyquist:
        raise UserError(
            f"mel.fmax must be ≤ half of mel.sample_rate ({nyquist:g}), not {mel.fmax:g}"
        )
    if mel.fmin >= (mel.fmax or nyquist):
        raise UserError(f"mel.fmin must be below mel.fmax, not {mel.fmin:g}")
    model = config.model
    pretrained = model.init not in ("auto", "scratch")
    if pretrained and (model.name != "resnet18" or model.width not in (0, 64)):
        raise UserError(
            f"model.init must be 'auto' or 'scratch', not {model.init!r}: pretrained "
            "weights are for model.name='resnet18' with model.width=64"
        )
