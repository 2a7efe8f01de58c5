"""Labels, groups and splits from the names of files, by the regular expression `data.pattern`."""

import itertools
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from meljax.data.manifest import Item
from meljax.data.split_names import not_classes, split_of
from meljax.util.errors import UserError
from meljax.util.phrases import nearest

GROUPS = ("label", "group", "split")
"""The groups that a pattern may have; it must have the first."""
EXAMPLE = r"(?P<label>\d+)_(?P<group>\w+)_\d+"
_BY_START = (r"(?P<label>[^\W\d_]+)\d+", *(rf"(?P<label>[^{each}]+){each}.*" for each in "_ -"))


def labeled_by_pattern(pattern: str, paths: Sequence[str], training: bool) -> list[Item]:
    """Returns an item for each path; raises `UserError` unless `pattern` matches all of them.

    The pattern is matched in full against the name without suffix, or against the whole path
    without suffix if the pattern contains '/'. `training`: whether the splits must be complete.
    """
    expression = _compiled(pattern)
    items, others = [], []
    for path, name in zip(paths, names(paths, whole="/" in pattern), strict=True):
        if match := expression.fullmatch(name):
            items.append(_item(path, match.groupdict()))
        else:
            others.append(path)
    if others:
        shown = ", ".join(map(repr, others[:3])) + (", …" if len(others) > 3 else "")
        what = "paths" if "/" in pattern else "names (not folders)"
        raise UserError(
            f"data.pattern: '{pattern}' does not match {len(others):,} of {len(paths):,} files: "
            f"{shown}; it must match the whole of their {what} without suffix; change the pattern, "
            "or move these files out of the folder"
        )
    if not training:
        return items
    _check_items(items)
    if any(item.split == "val" for item in items):
        return items
    # Validation files are drawn from those for training.
    return [replace(item, split=item.split.replace("train", "")) for item in items]


def names(paths: Iterable[str], whole: bool) -> Iterator[str]:
    """Yields the names of files without folder and suffix; `whole`: with folder."""
    for path in paths:
        stem = os.path.splitext(path)[0]
        yield stem if whole else os.path.basename(stem)


def proposed_pattern(paths: Sequence[str], folder: str) -> str:
    """Returns an example of data.pattern for the end of an error message.

    It matches all `paths` and finds at least two classes, each with two files, if possible.
    `folder`: a pattern for the start of the paths, with a group for splits or groups; or ''.
    """
    stems = list(names(paths, whole=False))
    bodies = [*(_by_columns(stems, separator) for separator in "_-. "), *_BY_START]
    patterns = [body for body in bodies if body]
    if folder:
        start = folder + "[^/]+/" * _wrappers(paths, folder)
        patterns = [start + body.replace("?P<group>", "?:") for body in patterns]
        patterns.insert(0, folder + r"(?P<label>[^/]+)/.+")
    for pattern in (*patterns, *(each.replace("?P<group>", "?:") for each in patterns)):
        matches = [re.fullmatch(pattern, name) for name in names(paths, whole="/" in pattern)]
        if all(matches):
            labels = Counter(match["label"] for match in matches)
            pairs = {(match["label"], match.groupdict().get("group", "")) for match in matches}
            per_label = len(pairs) == len(labels) == len({group for _, group in pairs})
            usable = not any("/" in label for label in labels) and not not_classes(labels)
            usable = usable and not per_label
            if len(labels) > 1 and min(labels.values()) > 1 and usable:
                first = ", ".join(map(repr, sorted(labels)[:3]))
                found = f"{len(labels):,} classes: {first}" + (", …" if len(labels) > 3 else "")
                return f"; for example, data.pattern='{pattern}' finds {found}"
    return f"; for example, data.pattern='{EXAMPLE}' reads names such as 7_jackson_32.wav"


def _wrappers(paths: Sequence[str], folder: str) -> int:
    """Returns the number of levels below `folder` where all paths have the same folder."""
    depth = folder.replace("[^/]", "").count("/")
    levels = zip(*(path.split("/")[depth:-1] for path in paths), strict=False)
    return len(list(itertools.takewhile(lambda names: len(set(names)) == 1, levels)))


def _compiled(pattern: str) -> re.Pattern:
    try:
        expression = re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(
            f"data.pattern: '{pattern}' is not a valid regular expression ({error})"
        ) from error
    if unknown := set(expression.groupindex) - set(GROUPS):
        name = min(unknown)
        raise UserError(
            f"data.pattern: '{pattern}' has the unknown group {name!r}{nearest(name, GROUPS)}; "
            "its groups may be label, group and split"
        )
    if "label" not in expression.groupindex:
        raise UserError(
            f"data.pattern: '{pattern}' has no group 'label'; mark the class as in {EXAMPLE}"
        )
    return expression


def _item(path: str, groups: dict[str, str | None]) -> Item:
    label, group, given = (groups.get(name) or "" for name in GROUPS)
    if not label:
        raise UserError(f"data.pattern: the label of {path!r} is empty; change the pattern")
    split = split_of(given)
    if given and not split:
        raise UserError(
            f"data.pattern: {path!r} has the split {given!r}; expected a word such as train, val "
            "or test"
        )
    return Item(path, label, group, split)


def _check_items(items: Sequence[Item]) -> None:
    """Raises `UserError` if classes and groups are the same, or splits are incomplete."""
    pairs = {(item.label, item.group) for item in items}
    labels, groups = {label for label, _ in pairs}, {group for _, group in pairs}
    if pairs and "" not in groups and len(labels) == len(groups) == len(pairs):
        raise UserError(
            "data.pattern: the group is the same as the label, so each class could be in one split "
            "only; remove the group from the pattern or change it"
        )
    without = [item.path for item in items if not item.split]
    if without and {item.split for item in items} & {"train", "val"}:
        raise UserError(
            f"data.pattern: {without[0]!r} has no split while others are train or val; the group "
            "'split' must match in all names or none"
        )


def _by_columns(stems: Sequence[str], separator: str) -> str:
    """Returns a pattern for names of as many parts between separators each; '' for others.

    The label is the first part with repeated values, the group the next one that is not a number.
    """
    rows = [stem.split(separator) for stem in stems]
    if {len(row) for row in rows} in ({1}, set()) or len({len(row) for row in rows}) > 1:
        return ""
    parts, wanted = [], ["label", "group"]
    for values in zip(*rows, strict=True):
        numbers = all(map(str.isdecimal, values))
        part = r"\d+" if numbers else f"[^{separator}]+"
        repeated = 1 < len(set(values)) <= len(values) / 2
        if repeated and (wanted[:1] == ["label"] or (wanted and not numbers)):
            part = f"(?P<{wanted.pop(0)}>{part})"
        parts.append(part)
    return separator.replace(".", r"\.").join(parts) if "group" not in wanted[1:] else ""
