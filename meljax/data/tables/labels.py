"""Tells labels that name several classes."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

_LIST = re.compile(r"""\[.*(,|['"]\s+['"]).*\]|\{.*[,:].*\}""", re.DOTALL)


def several_classes(labels: Iterable[str]) -> str:
    """Returns a label that names several classes; '' if there is none.

    A name may contain separators, such as 'Smith, John'. A label names several classes if

    - it is a list, such as "['a', 'b']";
    - a part between ';' or '|' is itself a label;
    - all its words are labels, and so are those of a second label: 'cat dog' and 'dog cat' beside
      'cat' and 'dog';
    - every part between separators (also ',', '+', '/' and '&') is also in another label, and one
      of them at another place there: 'a,b' beside 'b,c' and 'a', but not 'dog, big' beside
      'cat, big' and 'dog, small'.
    """
    labels = sorted(set(labels))
    if listed := next(filter(_LIST.fullmatch, labels), ""):
        return listed
    names = {label.casefold() for label in labels}
    spaced = [label for label in labels if " " in label and names >= {*label.casefold().split()}]
    if len(spaced) > 1:
        return spaced[0]
    for separator in ";|,+/&":
        parts = {label: _parts(label, separator) for label in labels}
        counts = Counter(part for each in parts.values() for part in set(each))
        places = defaultdict(set)
        for each in parts.values():
            for place, part in enumerate(each):
                places[part].add(place)
        for label, each in parts.items():
            if len(set(each)) < 2:
                continue
            shared = all(counts[part] > 1 for part in each)
            if shared and any(len(places[part]) > 1 for part in each):
                return label
            if separator in ";|" and not names.isdisjoint(each):
                return label
    return ""


def _parts(label: str, separator: str) -> list[str]:
    return [part for each in label.casefold().split(separator) if (part := each.strip())]
