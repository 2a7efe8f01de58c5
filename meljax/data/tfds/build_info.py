"""The metadata by which meljax recognizes and checks the TFDS sets that it built."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from meljax.util.errors import UserError

METADATA_KEY = "meljax"
"""Key of a set's metadata that holds a `BuildInfo`."""
FORMAT = 1
"""Version of the sets' format. Sets of another format must be built again."""


class Signature(NamedTuple):
    """Identifies an example of a set that meljax built."""

    path: str
    label: str
    group: str
    sha256: str  # of the content
    split: str  # TFDS's name


FEATURES = Signature._fields[:-1]
"""Features from which an example's signature is read."""


@dataclass(frozen=True)
class BuildInfo:
    """What is recorded about a set when it is built."""

    format: int  # `FORMAT`
    version: str  # of meljax
    classes: list[str]  # names, in the order of the labels
    fingerprint: str  # of all signatures; see `fingerprint`
    source: str  # sha256 of the files and settings that the set was built from


def fingerprint(signatures: Iterable[Signature]) -> str:
    """Returns a sha256 over the signatures of a set, in any order."""
    text = "\n".join("\0".join(signature) for signature in sorted(signatures))
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def read_build_info(path: str, info: Any) -> BuildInfo | None:
    """Returns the `BuildInfo` in a `tfds.core.DatasetInfo`; `None` if meljax did not build the set.

    Raises:
      UserError: the set has another format, or its features or classes were changed. TFDS keeps the
        names of classes in a separate file; swapped names would give wrong labels.
    """
    recorded = dict(info.metadata.items()).get(METADATA_KEY) if info.metadata is not None else None
    if not recorded or not isinstance(recorded, dict):
        return None
    if recorded.get("format") != FORMAT:
        raise UserError(f"data.path: {path} was built by another version of meljax; build it again")
    try:
        build_info = BuildInfo(**recorded)
    except TypeError:
        raise damaged_set(path) from None
    features = info.features
    if not set(FEATURES) <= set(features) or list(features["label"].names) != build_info.classes:
        raise damaged_set(path)
    return build_info


def damaged_set(path: str) -> UserError:
    """Returns the error for a set that was changed after meljax built it."""
    return UserError(
        f"data.path: {path} is damaged: its examples, or the names of its classes or features, "
        "changed after it was built; build or download it again"
    )
