"""Chooses the features of a TFDS set that hold content, class, group and path."""

import os
from typing import Any, NamedTuple

import numpy as np

from meljax.data.tfds import catalog
from meljax.features.frontend import Kind
from meljax.util.errors import BadFileError, UserError
from meljax.util.phrases import nearest

PATH_FEATURES = ("path", "filename", "file_name")
"""Last parts of the names of features that may hold the path of an example."""


class Fields(NamedTuple):
    """Names of the features that are read; '' if there is none."""

    content: str
    kind: Kind
    label: str
    group: str
    path: str


def choose_fields(path: str, info: Any, label: str, group: str) -> Fields:
    """Returns the features to read of a set's `tfds.core.DatasetInfo`; `path` is its name.

    Args:
      label: feature with the class: a ClassLabel, a text or a whole number.
      group: feature with the group, of the same types; 'group' may be missing, '': no groups.

    Raises:
      UserError: a feature is missing, ambiguous or of the wrong type.
    """
    features = info.features
    content, kind = _choose_content(path, info)
    if label == group:
        raise UserError(
            f"data.group and data.label both name feature {label!r}, so each class could be in one "
            "split only; name another feature or set data.group=''"
        )
    if not label:
        raise UserError(f"data.label is empty; name the feature of {path} that holds the class")
    if group == "group" and group not in features:
        group = ""
    scalars = sorted(key for key in features if key != content and _is_scalar(features[key]))
    for key, name in (("data.label", label), ("data.group", group)):
        if name and name not in scalars:
            problem = "cannot be a class or group" if name in features else "does not exist"
            raise UserError(
                f"{key}: the feature {name!r} of {path} {problem}{nearest(name, scalars)}; "
                f"possible features: {', '.join(map(repr, scalars)) or 'none'}"
            )
    text = catalog.library().features.Text
    paths = [
        key
        for name in PATH_FEATURES
        for key in features
        if key.rpartition("/")[2] == name and isinstance(features[key], text)
    ]
    return Fields(content, kind, label, group, paths[0] if paths else "")


def _choose_content(path: str, info: Any) -> tuple[str, Kind]:
    """Returns the feature that holds images or recordings, and their kind."""
    if not isinstance(info.features, catalog.library().features.FeaturesDict):
        raise UserError(f"data.path: {path} has no named features")
    kinds = {key: kind for key in info.features if (kind := _kind(key, info.features[key]))}
    first = info.supervised_keys[0] if info.supervised_keys else None
    named = [key for key in kinds if key in ("image", "audio")]
    for candidates in ([key for key in kinds if key == first], named, list(kinds)):
        if len(candidates) == 1:
            return candidates[0], kinds[candidates[0]]
    found = ", ".join(map(repr, sorted(kinds or info.features)))
    raise UserError(
        f"data.path: {path} has {'more than one' if kinds else 'no'} feature with images or "
        f"recordings: {found}; it must have exactly one"
    )


def _kind(key: str, feature: Any) -> Kind | None:
    features = catalog.library().features
    if isinstance(feature, features.Image) and not isinstance(feature, features.LabeledImage):
        return "image" if feature.np_dtype in (np.uint8, np.uint16) else None
    if isinstance(feature, features.Audio):
        return "audio"
    # meljax stores files of recordings as Text: writing an Audio feature needs TensorFlow.
    return "audio" if key == "audio" and isinstance(feature, features.Text) else None


def _is_scalar(feature: Any) -> bool:
    """Returns whether a feature is a class, a text or a whole number."""
    if isinstance(feature, catalog.library().features.Text):
        return True
    # `dtype` needs TensorFlow.
    return feature.shape == () and np.dtype(feature.np_dtype).kind in "iubUSO"


def holds_samples(feature: Any) -> bool:
    """Returns whether an Audio feature stores samples instead of the bytes of a file."""
    is_audio = isinstance(feature, catalog.library().features.Audio)
    return is_audio and bool(feature.get_serialized_info().shape)


def as_text(feature: Any, value: Any) -> str:
    """Returns the value of a scalar feature as text, '' for class -1; raises `BadFileError`."""
    if isinstance(feature, catalog.library().features.ClassLabel):
        if value >= len(feature.names):
            raise BadFileError(f"damaged (there is no class {value})")
        return feature.int2str(int(value)) if value >= 0 else ""
    return os.fsdecode(value) if isinstance(value, bytes | str) else str(value)
