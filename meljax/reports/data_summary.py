"""What was understood of the data, as text for the console."""

from meljax.runs.info import SPLITS, DataInfo
from meljax.util.phrases import on_one_line

SHOWN_CLASSES = 10
"""Of more than this many classes and two, only so many rows are shown."""
WIDEST = 40
"""Maximum width of the names of classes."""


def text(data: DataInfo) -> str:
    """Returns the classes with their counts, the split, the window, lengths and left-out files."""
    lines = [
        f"data: {len(data.classes)} classes, {data.items()}",
        *_table(data),
        f"split: {data.split_rule}",
        f"window: {data.window}",
        f"lengths: {lengths(data)}",
        f"left out: {left_out(data)}",
        *(f"note: {line}" for line in data.notes),
    ]
    return "\n".join(lines)


def lengths(data: DataInfo) -> str:
    """Returns the shortest, median and longest item in words."""
    form, unit = (",.2f", "s") if data.kind == "audio" else (",.0f", "columns")
    shortest, median, longest = (f"{value:{form}} {unit}" for value in data.lengths)
    return f"{shortest} to {longest}, median {median}"


def left_out(data: DataInfo) -> str:
    """Returns the number of files of each kind that are not used."""
    counts = dict(data.left_out)
    if data.skipped:
        counts["unusable"] = len(data.skipped)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return ", ".join(f"{n:,} {kind}" for kind, n in ordered) or "nothing"


def _table(data: DataInfo) -> list[str]:
    """Returns a row per class; the rows of many classes are summed up."""
    used = [i for i, split in enumerate(SPLITS) if data.files[split]]
    names = list(data.classes)
    shown = names if len(names) <= SHOWN_CLASSES + 2 else names[:SHOWN_CLASSES]
    rest = [data.class_counts[name] for name in names[len(shown) :]]
    width = min(WIDEST, max(len("class"), *(len(on_one_line(name)) for name in shown)))

    def row(name: str, cells: list[str]) -> str:
        return f"  {name[:WIDEST]:{width}}" + "".join(f"{cell:>9}" for cell in cells)

    lines = [row("class", [SPLITS[i] for i in used])]
    for name in shown:
        counts = [f"{data.class_counts[name][i]:,}" for i in used]
        lines.append(row(on_one_line(name), counts))
    if rest:
        ranges = (f"{_range([counts[i] for counts in rest])} {SPLITS[i]}" for i in used)
        lines.append(f"  … {len(rest):,} more classes, each {', '.join(ranges)}")
    return [*lines, row("all", [f"{data.files[SPLITS[i]]:,}" for i in used])]


def _range(numbers: list[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
