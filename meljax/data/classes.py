"""Names of classes that are probably mistakes, and classes that are too small to split."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from meljax.data.manifest import Item, noun
from meljax.features.frontend import Kind
from meljax.util.phrases import count

NOT_A_LABEL = {"", "nan", "na", "n/a", "none", "null", "nil", "-", "?", "#n/a", "undefined"}
"""Lower-case texts that programs write for a missing value."""

MAX_SHOWN = 10
"""Maximum number of classes in the description of the items."""

MAX_NAMED = 5
"""Maximum number of twins that are named in full."""


def suspicious_classes(items: Iterable[Item]) -> list[str]:
    """Returns a warning for each kind of class name that is probably a mistake, with counts."""
    files = Counter(item.label for item in items)
    lines = [
        f"the class {name!r} ({count(n, 'file')}) looks like a missing label"
        for name, n in sorted(files.items())
        if name.strip().lower() in NOT_A_LABEL
    ]
    if twins := _alike(files, _spelling):
        lines.append(f"classes that differ only in case, spaces or Unicode form: {twins}")
    if twins := _alike(files, _number):
        lines.append(f"classes that are equal numbers: {twins}")
    return lines


def _alike(files: Mapping[str, int], key: Callable[[str], str]) -> str:
    """Names the classes that have the same key, with their numbers of files; '' without any."""
    sets = defaultdict(list)
    for name in sorted(files):
        if key(name):
            # Names that look alike are escaped.
            shown = name if unicodedata.is_normalized("NFC", name) else ascii(name)[1:-1]
            sets[key(name)].append(f"'{shown}' ({files[name]:,})")
    twins = [" and ".join(names) for names in sets.values() if len(names) > 1]
    more = f"; and {len(twins) - MAX_NAMED} more" if len(twins) > MAX_NAMED else ""
    return "; ".join(twins[:MAX_NAMED]) + more


def _spelling(name: str) -> str:
    """Returns a name without differences in case, Unicode form, spaces, hyphens and underscores."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return "".join(c for c in folded if not c.isspace() and c not in "_-") or folded


def _number(name: str) -> str:
    """Returns the number that a name stands for, as text; '' if it is not a number."""
    try:
        return repr(float(name))
    except ValueError:
        return ""


def describe_items(items: Iterable[Item], kind: Kind) -> str:
    """Returns the numbers of items and classes, and the first classes with their numbers."""
    items = list(items)
    counts = Counter(item.label for item in items)
    files = len({item.path for item in items})
    what = f"{files:,} {noun(kind, files)}"
    if any(item.start is not None for item in items):
        what = f"{count(len(items), 'segment')} of {what}"
    named = ", ".join(f"{name!r} ({counts[name]:,})" for name in sorted(counts)[:MAX_SHOWN])
    return f"{what} in {len(counts):,} classes: {named}" + ", …" * (len(counts) > MAX_SHOWN)


def describe_small(small: Mapping[str, tuple[int, int]], unit: str) -> str:
    """Returns the names of small classes, with their numbers of items (`unit`) and groups."""
    words = []
    for name, (items, groups) in sorted(small.items()):
        where = f" in {count(groups, 'group')}" if items > 1 else ""
        words.append(f"{name!r} ({count(items, unit)}{where})")
    return ", ".join(words)
