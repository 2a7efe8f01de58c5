"""Groups of items that are not independent, such as the recordings of one speaker."""

import dataclasses
import functools
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from meljax.data.manifest import Item
from meljax.util.phrases import count

_PLURAL_WITH_S = re.compile(r"[a-z]+(?<![sxz])(?<![^aeiou]y)(?<![cs]h)")
"""Words whose plural is formed by adding an s."""


@dataclasses.dataclass(frozen=True)
class Groups:
    """The group of each item of a split.

    Attributes:
      values: group of each item; an item with '' is a group of its own.
      name: what a group is, in the singular: the column of groups, or 'recording' for segments.
    """

    values: tuple[str, ...]
    name: str = "group"

    @functools.cached_property
    def index(self) -> Int[np.ndarray, " items"]:
        """Returns the number of each item's group, from 0, in the order of the items."""
        numbers: dict[object, int] = {}
        keys = (value or place for place, value in enumerate(self.values))
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)

    @property
    def number(self) -> int:
        """Returns the number of groups."""
        return int(self.index.max()) + 1 if len(self.index) else 0

    @property
    def shared(self) -> bool:
        """Returns whether any group has several items."""
        return self.number < len(self.values)

    def of(self, chosen: Bool[np.ndarray, " items"]) -> "Groups":
        """Returns the groups of the items that are `chosen`."""
        values = (value for value, wanted in zip(self.values, chosen, strict=True) if wanted)
        return Groups(tuple(values), self.name)

    def text(self) -> str:
        """Returns '12 speakers', or '12 values of speaker_id' if the name is not a plain word."""
        if _PLURAL_WITH_S.fullmatch(self.name):
            return count(self.number, self.name)
        return f"{count(self.number, 'value')} of {self.name}"


def group_of(group: str, path: str, start: float | str | None) -> str:
    """Returns the group of an item: `group` if given, the recording of a segment, or else ''."""
    return group or ("" if start in (None, "") else path)


def named_groups(values: Sequence[str], paths: Sequence[str], column: str) -> Groups:
    """Returns the groups `values` of the items with `paths`; `column` is the column of groups."""
    pairs = [(value, path) for value, path in zip(values, paths, strict=True) if value]
    by_recording = pairs and all(value == path for value, path in pairs)
    return Groups(tuple(values), "recording" if by_recording else column or "group")


def groups_of(items: Sequence[Item], column: str) -> Groups:
    """Returns the groups of `items`; `column` is the column of groups."""
    values = [group_of(item.group, item.path, item.start) for item in items]
    return named_groups(values, [item.path for item in items], column)
