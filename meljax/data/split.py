"""Splits items into train and val: a pure function of paths, labels, groups, digests and a seed."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from meljax.config import DataConfig
from meljax.data.manifest import Item, Split
from meljax.data.split_names import split_of
from meljax.util.errors import UserError
from meljax.util.phrases import nearest

MAX_STARTS = 100
"""Maximum number of starting points of the search for a split."""


class _Unit(NamedTuple):
    """Items that must stay in one split."""

    members: tuple[int, ...]  # indices of the items
    class_counts: Mapping[str, int]


class Splits(NamedTuple):
    """The split of every item, the rule that gave it, and classes that are only trained on."""

    splits: list[Split]
    rule: str
    unscored: tuple[str, ...] = ()


def split_items(
    items: Sequence[Item], digests: Sequence[str], data: DataConfig, seed: int
) -> Splits:
    """Returns the split of every item; items that have one keep it.

    If any item is in val already, all splits are returned as they are. With `data.holdout`, the
    items of these groups are in val. In both cases, `data.val_fraction` of the background's other
    items are in val; they have no split, or no group to hold out. Otherwise items that share a
    group or a digest stay together. Every class gets at least one item in train and in val, and
    about `data.val_fraction` of its items in val; over all classes these are
    `round(val_fraction * n)` items if the groups allow it. The order of the items does not matter.

    `digests` identify the contents of the files; `seed` selects one of the possible splits. Classes
    that are too small for both splits must have been skipped, unless `data.small_classes` is
    'keep', which leaves them in train.

    Raises:
      UserError: a class cannot be in both train and val, or `data.holdout` does not fit.
    """
    splits = [item.split for item in items]
    if data.holdout or "val" in splits:
        rule = "as given"
        if data.holdout:
            rule = f"groups held out: {data.holdout.strip()}"
            splits = _hold_out(items, splits, data.holdout)
        if alone := _undecided_background(items, data):
            _split_background(items, digests, alone, splits, data.val_fraction, seed)
            rule += f"; {data.val_fraction:.3g} of the background, seed {seed}"
        return Splits(splits, rule)
    if "" not in splits:
        return Splits(splits, "as given")
    undecided = [index for index, split in enumerate(splits) if not split]
    units = _units(items, digests, undecided)
    small = _small(units)
    labels = (items[index].label for index in undecided)
    targets = _targets(Counter(name for name in labels if name not in small), data.val_fraction)
    units = sorted(units, key=lambda unit: _rank(seed, min(items[i].name for i in unit.members)))
    chosen = {index for unit in _search(units, targets) for index in unit.members}
    for index in undecided:
        splits[index] = "val" if index in chosen else "train"
    rule = f"{data.val_fraction:.3g} of each class for validation, seed {seed}"
    groups = {(items[index].group or items[index].path): splits[index] for index in undecided}
    if len(groups) < len(undecided):
        what = "groups" if any(item.group for item in items) else "recordings"
        held_out = list(groups.values()).count("val")
        rule += f", {what} kept together: {held_out:,} of {len(groups):,} held out"
    return Splits(splits, rule, tuple(sorted(small)))


def _undecided_background(items: Sequence[Item], data: DataConfig) -> list[int]:
    """Returns the indices of the background's items whose split nothing else decides."""
    return [
        index
        for index, item in enumerate(items)
        if data.background
        and item.label == data.background
        and not (item.split or (data.holdout and item.group))
    ]


def _split_background(
    items: Sequence[Item],
    digests: Sequence[str],
    alone: Sequence[int],
    splits: list[str],
    val_fraction: float,
    seed: int,
) -> None:
    """Sets the `splits` of the items with indices `alone`; windows of a recording stay together.

    A single recording is in train.
    """
    units = sorted(
        _units(items, digests, alone),
        key=lambda unit: _rank(seed, min(items[i].name for i in unit.members)),
    )
    chosen: set[int] = set()
    if len(units) > 1:
        targets = _targets({items[alone[0]].label: len(alone)}, val_fraction)
        chosen = {index for unit in _search(units, targets) for index in unit.members}
    for index in alone:
        splits[index] = "val" if index in chosen else "train"


def small_classes(items: Sequence[Item], digests: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Returns the classes that cannot be in train and val, with numbers of files and groups.

    All their files are in one group; identical files count as one group too. If a validation split
    is given, no class is too small.
    """
    undecided = [index for index, item in enumerate(items) if not item.split]
    if any(item.split == "val" for item in items):
        return {}
    return _small(_units(items, digests, undecided))


def _small(units: Iterable[_Unit]) -> dict[str, tuple[int, int]]:
    """Returns the numbers of files and units of the classes with one unit."""
    files, groups = Counter(), Counter()
    for unit in units:
        files.update(unit.class_counts)
        groups.update(unit.class_counts.keys())
    return {label: (files[label], n) for label, n in groups.items() if n < 2}


def _hold_out(items: Sequence[Item], splits: Sequence[str], holdout: str) -> list[Split]:
    """Returns val for the items of the groups that `holdout` names; see `split_items`."""
    wanted = {name.strip() for name in holdout.split(",")} - {""}
    groups = {item.group for item in items} - {""}
    if "val" in splits:
        raise UserError("data.holdout: the data give a validation split already; leave out one")
    if not groups:
        raise UserError(
            "data.holdout needs groups: name their column with data.group, or mark them in "
            "data.pattern as in (?P<group>[^_]+)"
        )
    if unknown := sorted(wanted - groups):
        some = ", ".join(map(repr, sorted(groups)[:8])) + (", …" if len(groups) > 8 else "")
        raise UserError(
            f"data.holdout: there is no group {unknown[0]!r}{nearest(unknown[0], groups)}; the "
            f"groups are {some}"
        )
    decided = [
        split or ("val" if item.group in wanted else "train")
        for item, split in zip(items, splits, strict=True)
    ]
    labels = {
        side: {item.label for item, split in zip(items, decided, strict=True) if split == side}
        for side in ("train", "val")
    }
    if wanted and not labels["val"]:
        raise UserError("data.holdout: all items of these groups are in the test split")
    if not labels["train"] or not wanted:
        raise UserError("data.holdout must name some of the groups, not none and not all")
    if lost := sorted(labels["val"] - labels["train"]):
        raise UserError(
            f"data.holdout: class {lost[0]!r} occurs only in the groups that are held out, so it "
            "cannot be learned; hold out other groups"
        )
    return decided


def classes_without_val(items: Sequence[Item], splits: Sequence[Split]) -> list[str]:
    """Returns a warning if classes that are trained on have no items for validation."""
    sides = defaultdict(set)
    for item, split in zip(items, splits, strict=True):
        sides[item.label].add(split)
    missing = [repr(label) for label, found in sorted(sides.items()) if "val" not in found]
    if not missing:
        return []
    more = ", …" if len(missing) > 8 else ""
    return [
        f"{len(missing)} of {len(sides)} classes without validation items: "
        f"{', '.join(missing[:8])}{more}"
    ]


def unused_split_folders(items: Sequence[Item]) -> list[str]:
    """Returns a warning if no item has a split, but their folders are named like splits."""
    if any(item.split for item in items):
        return []
    names = {name for item in items for name in item.path.split("/")[:-1] if split_of(name)}
    if len({split_of(name) for name in names}) < 2:
        return []
    return [
        f"files are in folders named like splits ({', '.join(map(repr, sorted(names)[:5]))}), "
        "which are not used as splits here"
    ]


def leaks(items: Sequence[Item], digests: Sequence[str], splits: Sequence[Split]) -> list[str]:
    """Returns warnings about groups and byte-identical files in more than one split."""
    warnings = []
    groups = _by_key((item.group for item in items), items)
    if leaking := _in_several_splits(groups, splits):
        first = leaking[0]
        places = " and ".join(sorted({splits[index] for index in first}))
        warnings.append(
            f"{len(leaking)} of {len(groups)} groups are in more than one split, e.g. "
            f"{items[first[0]].group!r} in {places}: validation scores will be too high"
        )
    if leaking := _in_several_splits(_by_key(digests, items), splits):
        here = leaking[0][0]
        there = next(index for index in leaking[0] if splits[index] != splits[here])
        warnings.append(
            f"{sum(map(len, leaking))} byte-identical files are in more than one split, e.g. "
            f"{items[here].path!r} in {splits[here]} and {items[there].path!r} in {splits[there]}: "
            "validation scores will be too high"
        )
    return warnings


def conflicting_duplicates(items: Sequence[Item], digests: Sequence[str]) -> list[str]:
    """Returns a warning for each set of byte-identical files with different labels."""
    warnings = []
    # Segments of a file have its digest, but different contents.
    pairs = zip(items, digests, strict=True)
    keys = (digest and f"{digest} {item.start} {item.end}" for item, digest in pairs)
    for indices in _by_key(keys, items):
        if len({items[index].label for index in indices}) > 1:
            files = (f"{items[index].name!r} ({items[index].label!r})" for index in indices)
            warnings.append(f"byte-identical files with different labels: {', '.join(files)}")
    return warnings


def _by_key(keys: Iterable[str], items: Sequence[Item]) -> list[list[int]]:
    """Returns the item indices by key, without the key ''; in the order of the items' paths."""
    sets = defaultdict(list)
    for index, key in sorted(enumerate(keys), key=lambda pair: items[pair[0]].name):
        if key:
            sets[key].append(index)
    return list(sets.values())


def _in_several_splits(sets: Iterable[list[int]], splits: Sequence[Split]) -> list[list[int]]:
    return [indices for indices in sets if len({splits[index] for index in indices}) > 1]


def _units(items: Sequence[Item], digests: Sequence[str], among: Sequence[int]) -> list[_Unit]:
    """Returns the connected components of items that share a group or a digest."""
    parent = {index: index for index in among}

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for keys in ([item.group for item in items], digests):
        first: dict[str, int] = {}
        for index in among:
            if keys[index]:
                parent[root(index)] = root(first.setdefault(keys[index], index))
    members = defaultdict(list)
    for index in among:
        members[root(index)].append(index)
    return [
        _Unit(tuple(indices), Counter(items[index].label for index in indices))
        for indices in members.values()
    ]


def _unsplittable(label: str, files: int, units: int) -> UserError:
    return UserError(
        f"class {label!r} cannot be in both train and val: {files} files in {units} independent "
        "groups (files with the same data.group or the same bytes count as one); add files of "
        "other groups, or give the split"
    )


def _rank(seed: int, path: str) -> bytes:
    # Names that are not UTF-8 contain surrogates, which a plain encode() refuses.
    return hashlib.sha256(f"{seed}\0{path}".encode("utf-8", "surrogatepass")).digest()


def _targets(counts: Mapping[str, int], val_fraction: float) -> dict[str, int]:
    """Returns the number of val items of each class, at least 1: largest remainder method."""
    shares = {label: val_fraction * counts[label] for label in sorted(counts)}
    targets = {label: max(1, math.floor(share)) for label, share in shares.items()}
    missing = max(0, round(val_fraction * sum(counts.values())) - sum(targets.values()))
    short = [label for label in shares if shares[label] > targets[label]]
    for label in sorted(short, key=lambda label: targets[label] - shares[label])[:missing]:
        targets[label] += 1
    return targets


def _search(units: Sequence[_Unit], targets: Mapping[str, int]) -> list[_Unit]:
    """Returns the units for val; if a greedy choice fails, starts again at another unit."""
    for start in range(min(len(units), MAX_STARTS) - 1):
        try:
            return _choose([*units[start:], *units[:start]], targets)
        except UserError:
            continue
    return _choose([units[-1], *units[:-1]], targets)


def _choose(units: Sequence[_Unit], targets: Mapping[str, int]) -> list[_Unit]:
    """Chooses units for val greedily, near the targets, so that every class is in both splits."""
    left = Counter()
    for unit in units:
        left.update(unit.class_counts)
    files, lacking = Counter(left), Counter(targets)
    chosen, rest = [], []

    def cost(unit: _Unit) -> int:
        """Returns the increase of the squared distance to the targets if the unit moves to val."""
        return sum(n * (n - 2 * lacking[label]) for label, n in unit.class_counts.items())

    def spare(unit: _Unit) -> bool:
        return all(left[label] > count for label, count in unit.class_counts.items())

    def move(unit: _Unit) -> None:
        chosen.append(unit)
        left.subtract(unit.class_counts)
        lacking.subtract(unit.class_counts)

    for unit in units:
        if cost(unit) < 0 and spare(unit):
            move(unit)
        else:
            rest.append(unit)
    for label in sorted(targets):
        if left[label] < files[label]:
            continue
        movable = [unit for unit in rest if label in unit.class_counts and spare(unit)]
        if not movable:
            raise _unsplittable(
                label, files[label], sum(label in unit.class_counts for unit in units)
            )
        best = min(movable, key=cost)
        rest.remove(best)
        move(best)
    return chosen
