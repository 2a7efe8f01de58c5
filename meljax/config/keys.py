"""Every setting of a run, with its default, unit, meaning and allowed values.

The dataclasses below are the only place that defines settings. `configs/*.py` edit
`default_config()`, the command line overrides single keys, and `from_flat` turns the result into an
immutable `Config`.
"""

import collections
import dataclasses
import difflib
import math
import operator
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from meljax.util.errors import UserError

Value = str | int | float | bool
"""The value of a key."""

Resume = Literal["same", "free"]
"""How a key may differ when a run resumes: not at all, or in any way."""

_COMPARISONS = {"≥": operator.ge, ">": operator.gt, "≤": operator.le, "<": operator.lt}


def _key(
    default: Value,
    doc: str,
    allowed: str,
    check: Callable[[Any], bool],
    resume: Resume = "same",
) -> Any:
    """Declares a key; `allowed` states in words what `check` tests."""
    metadata = {"doc": doc, "allowed": allowed, "check": check, "resume": resume}
    return dataclasses.field(default=default, metadata=metadata)


def _text(default: str, doc: str, allowed: str = "text", resume: Resume = "same") -> Any:
    return _key(default, doc, allowed, lambda value: "\0" not in value, resume)


def _flag(default: bool, doc: str) -> Any:
    return _key(default, doc, "true or false", lambda value: True)


def _choice(default: str, doc: str, *choices: str, resume: Resume = "same") -> Any:
    allowed = " or ".join(map(repr, choices))
    return _key(default, doc, allowed, lambda value: value in choices, resume)


def _number(default: int | float, doc: str, limits: str, resume: Resume = "same") -> Any:
    """Declares a finite number within `limits` ('≥ 0 and < 1'); whole if its default is."""
    bounds = [(_COMPARISONS[sign], float(n)) for sign, n in re.findall(r"([≥>≤<]) (\S+)", limits)]

    def check(value: int | float) -> bool:
        return math.isfinite(value) and all(compare(value, bound) for compare, bound in bounds)

    kind = "whole number" if type(default) is int else "number"
    return _key(default, doc, f"a {kind} {limits}", check, resume)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data and how they are split."""

    path: str = _text(
        "",
        "folder with one sub-folder per class, a table (CSV, TSV, JSON, JSONL), or a TFDS set as "
        "tfds:NAME[/CONFIG][:VERSION]; empty: the embedded synthetic voices",
        resume="free",
    )
    tfds_dir: str = _text("", "folder of TFDS sets; empty: the default of TFDS", resume="free")
    root: str = _text("", "folder of a table's files; empty: the table's folder", resume="free")
    label: str = _text("label", "column of a table or TFDS feature that holds the class")
    group: str = _text(
        "group",
        "column or TFDS feature; items that share a value stay in the same split; empty: none",
    )
    file_column: str = _text(
        "", "column with the file; empty: the first of path, file, filename, file_name, filepath, …"
    )
    split_column: str = _text("", "column with the split; empty: 'split', if there is one")
    start_column: str = _text(
        "",
        "column with the start of a segment in its recording, in seconds; empty: 'start', used "
        "only if a file has several rows",
    )
    end_column: str = _text(
        "", "column with the end of a segment, in seconds; empty: 'end', like data.start_column"
    )
    pattern: str = _text(
        "",
        "regular expression for names of files, with the groups label and optionally group and "
        "split; matches the whole name without suffix, or the relative path if it contains '/'",
    )
    holdout: str = _text(
        "", "groups of the validation split, separated by commas; empty: by data.val_fraction"
    )
    val_fraction: float = _number(
        0.1, "share of the items held out for validation if no split is given", "> 0 and < 1"
    )
    background: str = _text(
        "",
        "class for all other sounds, such as noise, or a folder such as _background_noise_; it is "
        "cut into windows and trained on, but not scored; empty: no such class",
    )
    small_classes: str = _choice(
        "stop",
        "classes with too few files for both splits: stop, keep them in training without scoring "
        "them, or skip them",
        "stop",
        "keep",
        "skip",
    )
    allow_split_names: bool = _flag(
        False, "learn classes whose names look like splits or folds, such as fold1"
    )
    image_size: int = _number(
        0,
        "height and width of resized images, in pixels; 0: not resized",
        "≥ 0 and ≤ 4096",
    )
    crop: str = _key(
        "",
        "pixels to cut from the left, top, right and bottom of every image before it is resized, "
        "such as the axes of a figure; empty: none",
        "'' or four whole numbers, 'left,top,right,bottom'",
        lambda value: re.fullmatch(r"|\s*\d{1,6}\s*(,\s*\d{1,6}\s*){3}", value, re.ASCII),
    )
    window: float = _number(
        0.0,
        "length of the network's input: seconds of a recording, columns of an image; "
        "0: the median length in the training set, for recordings at most 30 s",
        "≥ 0",
    )
    silent: str = _choice(
        "skip",
        "silence: skip silent recordings in training and scores, and silent windows in scores, or "
        "keep both",
        "skip",
        "keep",
    )
    on_bad_file: str = _choice(
        "stop", "unusable files: stop before training, or skip and record them", "stop", "skip"
    )


@dataclasses.dataclass(frozen=True)
class MelConfig:
    """Mel spectrograms of recordings; names and meanings are librosa's. Images do not use them."""

    sample_rate: int = _number(
        16_000, "rate that recordings are resampled to, in Hz", "≥ 1000 and ≤ 384000"
    )
    n_fft: int = _number(1024, "samples per window of the Fourier transform", "≥ 16 and ≤ 65536")
    hop_length: int = _number(256, "samples from one frame to the next", "≥ 1 and ≤ 65536")
    n_mels: int = _number(128, "mel bands, the height of the spectrogram", "≥ 4 and ≤ 1024")
    fmin: float = _number(0.0, "lowest frequency, in Hz", "≥ 0")
    fmax: float = _number(0.0, "highest frequency, in Hz; 0: half the sample rate", "≥ 0")
    top_db: float = _number(
        80.0, "dynamic range of the spectrogram below its maximum, in dB", "≥ 1 and ≤ 200"
    )


@dataclasses.dataclass(frozen=True)
class MaskConfig:
    """Frequency and time masks of training images (Park et al. 2019); not used in evaluation."""

    freq_count: int = _number(1, "frequency masks per image; 0: none", "≥ 0 and ≤ 64")
    freq_width: float = _number(
        0.125, "maximum width of a frequency mask, as a share of the height", "≥ 0 and ≤ 1"
    )
    time_count: int = _number(1, "time masks per image; 0: none", "≥ 0 and ≤ 64")
    time_width: float = _number(
        0.125, "maximum width of a time mask, as a share of the width", "≥ 0 and ≤ 1"
    )
    fill: float = _number(
        0.0, "brightness of masked pixels; 0: the minimum, 1: the maximum", "≥ 0 and ≤ 1"
    )


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network and its initial weights."""

    name: str = _text("resnet18", "network architecture", "the name of a network")
    init: str = _key(
        "auto",
        "initial weights: 'scratch': random; 'imagenet': pretrained; the path of a weights file; "
        "'auto': pretrained if the network has such weights and they are available, else random",
        "'auto', 'imagenet', 'scratch' or the path of a weights file",
        lambda value: value and "\0" not in value,
    )
    compute_dtype: str = _choice(
        "float32",
        "dtype of the convolutions; weights, statistics, loss and exported models are float32",
        "float32",
        "bfloat16",
    )
    width: int = _number(
        0, "channels of the first convolution; 0: the network's own default", "≥ 0 and ≤ 1024"
    )


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Optimization with Adam."""

    epochs: int = _number(500, "passes over the training set", "≥ 1 and < 2147483648", "free")
    batch_size: int = _number(12, "items per step, over all devices", "≥ 1 and ≤ 65536")
    learning_rate: float = _number(1e-4, "Adam's learning rate", "> 0 and ≤ 1e30")
    lr_decay: float = _number(
        1.0, "factor on the learning rate after each epoch; 1: constant", "> 0 and ≤ 1"
    )
    clip_norm: float = _number(
        0.0,
        "maximum norm of the gradient of all weights; a larger one is scaled down; 0: off",
        "≥ 0",
    )
    on_nan: str = _choice(
        "stop",
        "infinite or NaN loss, gradient or running statistic: stop the run, or skip the step; the "
        "third such step in a row stops the run",
        "stop",
        "skip",
        resume="free",
    )
    save_every: float = _number(600.0, "maximum time between two checkpoints, in s", "> 0", "free")
    seed: int = _number(
        0, "seed of the split, initial weights, item order and masks", "≥ 0 and < 2147483648"
    )


@dataclasses.dataclass(frozen=True)
class Config:
    """All settings of a run; immutable."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    mel: MelConfig = dataclasses.field(default_factory=MelConfig)
    mask: MaskConfig = dataclasses.field(default_factory=MaskConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)


GROUPS: dict[str, type] = {group.name: group.type for group in dataclasses.fields(Config)}
"""The dataclass of each group of keys: `{'data': DataConfig, ...}`."""

KEYS: dict[str, dataclasses.Field] = {
    f"{group}.{field.name}": field
    for group, keys in GROUPS.items()
    for field in dataclasses.fields(keys)
}
"""Every key: `{'data.path': field, ...}`."""

_LAST_PARTS = collections.Counter(key.split(".")[1] for key in KEYS)
SHORT_NAMES = {key.split(".")[1]: key for key in KEYS if _LAST_PARTS[key.split(".")[1]] == 1}
"""The key of each last part that only one key has: `{'epochs': 'train.epochs', ...}`."""


def default_config() -> Any:
    """Returns the defaults as a locked `ml_collections.ConfigDict` for `configs/*.py` to edit."""
    import ml_collections  # only the command line needs it

    return ml_collections.ConfigDict(dataclasses.asdict(Config())).lock()


def from_flat(values: Mapping[str, Any]) -> Config:
    """Returns the checked settings of `{'data.path': value, ...}`; others keep their defaults.

    Raises:
      UserError: a key is unknown, or a value has the wrong type or is not allowed.
    """
    groups: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for name, value in values.items():
        check_name(name)
        group, key = name.split(".")
        groups[group][key] = _checked(name, value)
    config = Config(**{group: GROUPS[group](**keys) for group, keys in groups.items()})
    mel, nyquist = config.mel, config.mel.sample_rate / 2
    if mel.fmax > nyquist:
        raise UserError(
            f"mel.fmax must be ≤ half of mel.sample_rate ({nyquist:g}), not {mel.fmax:g}"
        )
    if mel.fmin >= (mel.fmax or nyquist):
        raise UserError(f"mel.fmin must be below mel.fmax, not {mel.fmin:g}")
    return config


def flat(config: Config) -> dict[str, Value]:
    """Returns `{'data.path': value, ...}`, in the order of `KEYS`."""
    return {name: operator.attrgetter(name)(config) for name in KEYS}


def check_name(name: str) -> None:
    """Raises `UserError`, with the nearest key, unless `name` ('train.epochs') is a key."""
    if name in KEYS:
        return
    # 'epochs' and a typing error in either part of the name both lead to 'train.epochs'.
    candidates = {key: key for key in KEYS} | SHORT_NAMES
    nearest = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    hint = f"; did you mean {candidates[nearest[0]]}?" if nearest else "; --help lists all keys"
    raise UserError(f"unknown key {name}{hint}")


def parse_value(name: str, text: str) -> Value:
    """Returns the value of the key `name` that `text` stands for; raises `UserError` if none."""
    kind = type(KEYS[name].default)
    try:
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError):
        raise _not_allowed(name, text) from None
    return _checked(name, value)


def help_text(keys: Iterable[str], prefix: str, width: int) -> str:
    """Returns `keys` by group, with defaults, meanings and allowed values, wrapped at `width`.

    `prefix` is '--' or '--config.'.
    """
    lines, group = [], ""
    for key in keys:
        if not key.startswith(f"{group}."):
            group = key.split(".")[0]
            lines.append(f"\n{GROUPS[group].__doc__.splitlines()[0]}")
        field = KEYS[key]
        lines.append(f"  {prefix}{key}={field.default}")
        text = f"{field.metadata['doc']} ({field.metadata['allowed']})"
        lines += textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


def _checked(name: str, value: Any) -> Any:
    """Returns `value` if it is allowed; an int becomes a float if the key is a float."""
    kind = type(KEYS[name].default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind or not KEYS[name].metadata["check"](value):
        raise _not_allowed(name, value)
    return value


def _not_allowed(name: str, value: Any) -> UserError:
    return UserError(f"{name} must be {KEYS[name].metadata['allowed']}, not {value!r}")
