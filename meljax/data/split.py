"""Which side each file is on: pure, from names, labels, groups, digests and a seed."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from meljax.data.files import Item
from meljax.errors import UserError

ORDERS = 100  # starts that are tried before a table counts as impossible to split


@dataclass(frozen=True)
class _Unit:
    """Files that stay together, as positions in the table, and how many of each class they are."""

    members: tuple[int, ...]
    counts: Mapping[str, int]


def split_items(
    items: Sequence[Item], digests: Sequence[str], val_fraction: float, seed: int
) -> list[str]:
    """Decide the side of every file that has none yet.

    Files that share a group or a digest stay together; every class gets at least one file on each
    side and about `val_fraction` of its files in val, `round(val_fraction * n)` over all where the
    groups allow it. The order of the table plays no part. A given side is kept; where any file is
    given as val, nothing is decided.

    Args:
      items: the table.
      digests: a digest of each file's bytes, in the same order.
      val_fraction: between 0 and 1, exclusive.
      seed: chooses among the splits.

    Returns:
      'train', 'val' or 'test' for each item.

    Raises:
      UserError: a class cannot be put on both sides.
    """
    sides = [item.split for item in items]
    if "val" in sides or "" not in sides:
        return sides
    undecided = [index for index, side in enumerate(sides) if not side]
    units = _units(items, digests, undecided)
    _check_units(units)
    units = sorted(units, key=lambda unit: _rank(seed, min(items[i].path for i in unit.members)))
    targets = _targets(Counter(items[index].label for index in undecided), val_fraction)
    chosen = {index for unit in _try_orders(units, targets) for index in unit.members}
    for index in undecided:
        sides[index] = "val" if index in chosen else "train"
    return sides


def leaks(items: Sequence[Item], digests: Sequence[str], sides: Sequence[str]) -> list[str]:
    """Warn, one line each, of groups and of byte-identical files that lie on more than one side."""
    warnings = []
    groups = _by_key((item.group for item in items), items)
    crossing = _crossing(groups, sides)
    if crossing:
        first = crossing[0]
        places = " and ".join(sorted({sides[index] for index in first}))
        warnings.append(
            f"{len(crossing)} of {len(groups)} groups lie on more than one side, such as"
            f" {items[first[0]].group!r} in {places}: validation will look better than it is"
        )
    crossing = _crossing(_by_key(digests, items), sides)
    if crossing:
        here = crossing[0][0]
        there = next(index for index in crossing[0] if sides[index] != sides[here])
        warnings.append(
            f"{sum(map(len, crossing))} byte-identical files lie on more than one side, such as"
            f" {items[here].path!r} in {sides[here]} and {items[there].path!r} in {sides[there]}:"
            " validation will look better than it is"
        )
    return warnings


def conflicting_duplicates(items: Sequence[Item], digests: Sequence[str]) -> list[str]:
    """Report, one line each, sets of byte-identical files that carry different labels."""
    reports = []
    for indices in _by_key(digests, items):
        if len({items[index].label for index in indices}) > 1:
            files = (f"{items[index].path!r} ({items[index].label!r})" for index in indices)
            reports.append(f"byte-identical files with different labels: {', '.join(files)}")
    return reports


def _by_key(keys: Iterable[str], items: Sequence[Item]) -> list[list[int]]:
    """Positions that share a key, each set and the sets among themselves in the order of paths."""
    sets = defaultdict(list)
    for index, key in sorted(enumerate(keys), key=lambda pair: items[pair[0]].path):
        if key:
            sets[key].append(index)
    return list(sets.values())


def _crossing(sets: Iterable[list[int]], sides: Sequence[str]) -> list[list[int]]:
    return [indices for indices in sets if len({sides[index] for index in indices}) > 1]


def _units(items: Sequence[Item], digests: Sequence[str], among: Sequence[int]) -> list[_Unit]:
    """Connected components of the files that share a group or a digest."""
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


def _check_units(units: Iterable[_Unit]) -> None:
    files, parts = Counter(), Counter()
    for unit in units:
        files.update(unit.counts)
        parts.update(unit.counts.keys())
    for label in sorted(parts):
        if parts[label] < 2:
            raise _unsplittable(label, files[label], parts[label])


def _unsplittable(label: str, files: int, parts: int) -> UserError:
    return UserError(
        f"class {label!r} cannot be on both sides of data.val_fraction: {files} files in {parts}"
        " independent groups (files that share data.group or their bytes count as one); add files"
        " of other groups, or give the split"
    )


def _rank(seed: int, path: str) -> bytes:
    # File names need not be UTF-8: os.fsdecode leaves surrogates, which a plain encode() refuses.
    return hashlib.sha256(f"{seed}\0{path}".encode("utf-8", "surrogatepass")).digest()


def _targets(counts: Mapping[str, int], val_fraction: float) -> dict[str, int]:
    """Files of each class for val by largest remainder, at least one."""
    shares = {label: val_fraction * counts[label] for label in sorted(counts)}
    targets = {label: max(1, math.floor(share)) for label, share in shares.items()}
    missing = max(0, round(val_fraction * sum(counts.values())) - sum(targets.values()))
    short = [label for label in shares if shares[label] > targets[label]]
    for label in sorted(short, key=lambda label: targets[label] - shares[label])[:missing]:
        targets[label] += 1
    return targets


def _try_orders(units: Sequence[_Unit], targets: Mapping[str, int]) -> list[_Unit]:
    """Choose from another start where the first choice closes the way for a class."""
    for start in range(min(len(units), ORDERS) - 1):
        try:
            return _choose([*units[start:], *units[:start]], targets)
        except UserError:
            continue
    return _choose([units[-1], *units[:-1]], targets)


def _choose(units: Sequence[_Unit], targets: Mapping[str, int]) -> list[_Unit]:
    """The units for val, near the targets, with every class on both sides."""
    left = Counter()
    for unit in units:
        left.update(unit.counts)
    files, lacking = Counter(left), Counter(targets)
    chosen, rest = [], []

    def cost(unit: _Unit) -> int:
        """By how much moving the unit raises the squared distance to the targets."""
        return sum(count * (count - 2 * lacking[label]) for label, count in unit.counts.items())

    def spare(unit: _Unit) -> bool:
        return all(left[label] > count for label, count in unit.counts.items())

    def move(unit: _Unit) -> None:
        chosen.append(unit)
        left.subtract(unit.counts)
        lacking.subtract(unit.counts)

    for unit in units:
        if cost(unit) < 0 and spare(unit):
            move(unit)
        else:
            rest.append(unit)
    for label in sorted(targets):
        if left[label] < files[label]:
            continue
        able = [unit for unit in rest if label in unit.counts and spare(unit)]
        if not able:
            raise _unsplittable(label, files[label], sum(label in unit.counts for unit in units))
        best = min(able, key=cost)
        rest.remove(best)
        move(best)
    return chosen
