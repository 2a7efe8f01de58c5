"""Ranks runs by their scores, and tests whether the differences are more than chance."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from meljax.evaluation import statistics
from meljax.evaluation.statistics import Paired
from meljax.runs.directory import PREDICTIONS, remedy
from meljax.runs.record import RunRecord
from meljax.util.errors import UserError

NO_EVIDENCE = "no evidence of a difference"


class Pair(NamedTuple):
    """A test of the runs with the indices `first` and `second` on the 'val' or 'test' split.

    It compares the predictions of the last epochs.
    """

    first: int
    second: int
    split: str
    test: Paired


def paired_tests(records: Sequence[RunRecord]) -> list[Pair]:
    """Returns the test of each pair of runs that share a split, validation before test.

    Raises:
      UserError: the predictions of such a pair are for different files.
    """
    found = []
    for split in ("val", "test"):
        for (i, a), (j, b) in itertools.combinations(enumerate(records), 2):
            one, other = a.scored(split), b.scored(split)
            if a.info.data.fingerprint != b.info.data.fingerprint or not (one and other):
                continue
            same = one.paths == other.paths and one.groups == other.groups
            if not same or not np.array_equal(one.labels, other.labels):
                raise UserError(
                    f"{a.path} and {b.path} share a split, but their {PREDICTIONS} name different "
                    f"files or groups; write both again, for example: {remedy(a.path)}"
                )
            counted = one.counted & other.counted
            groups = one.item_groups.of(counted)
            test = statistics.paired_test(one.right[counted], other.right[counted], groups)
            found.append(Pair(i, j, split, test))
    return found


def significance_level(tests: Sequence[Pair]) -> float:
    """Returns the significance level of each test: 0.05 divided by their number (Bonferroni)."""
    return statistics.LEVEL / max(1, number_of_p_values(tests))


def number_of_p_values(tests: Sequence[Pair]) -> int:
    """Returns how many of the tests have a p-value."""
    return sum(pair.test.p is not None for pair in tests)


def headline(records: Sequence[RunRecord]) -> str:
    """Returns which run scored highest on validation, and whether that is more than chance.

    Only runs with the same classes are ranked.
    """
    tests = paired_tests(records)
    tasks: dict[tuple[str, ...], list[int]] = {}
    for i, record in enumerate(records):
        tasks.setdefault(record.info.data.classes, []).append(i)
    if len(tasks) == 1:
        return " ".join(_ranking(records, range(len(records)), tests))
    groups = "; ".join(enumerate_names([records[i].name for i in each]) for each in tasks.values())
    sentences = [
        f"These runs have different classes: {groups}. Do not compare scores of different tasks."
    ]
    for group in tasks.values():
        if len(group) > 1:
            first, *more = _ranking(records, group, tests)
            names = enumerate_names([records[i].name for i in group])
            sentences += [f"Of {names}, {first}", *more]
    return " ".join(sentences)


def _ranking(
    records: Sequence[RunRecord], group: Sequence[int], tests: Sequence[Pair]
) -> Iterator[str]:
    """Yields which runs of a task scored highest, then how the others differ from them."""
    scores = {i: records[i].scores[0].accuracy for i in group}
    best = max(scores.values())
    leaders = [i for i in group if scores[i] == best]
    others = [i for i in group if scores[i] < best]
    names = enumerate_names([records[i].name for i in leaders])
    of = f"{best:.1%} of the validation files right"
    if not others:
        first = f"{names} {'both' if len(leaders) == 2 else 'all'} got {of}"
    elif len(leaders) > 1:
        first = f"{names} tied for the highest score: each got {of}"
    elif len(others) > 1:
        first = f"{names} scored highest: {of}"
    else:
        other = f"{scores[others[0]]:.1%} for {records[others[0]].name}"
        first = f"{names} scored higher: {of}, against {other}"
    yield f"{first} (weights of the last epoch)."
    yield from _verdicts(records, leaders, others, tests)


def _verdicts(
    records: Sequence[RunRecord],
    leaders: Sequence[int],
    others: Sequence[int],
    tests: Sequence[Pair],
) -> Iterator[str]:
    """Yields at most five sentences: whether the leaders differ from the others, by which test."""
    level, alone = significance_level(tests), len(leaders) + len(others) == 2
    of_pairs = {frozenset(pair[:2]): pair.test for pair in tests if pair.split == "val"}
    clear, unclear, untested, apart, used = {}, {}, {}, [], {}
    # Tied leaders need no test; if they do not share a split, their intervals are compared.
    for i in (*leaders[1:], *others):
        found = [of_pairs[pair] for j in leaders if (pair := frozenset((i, j))) in of_pairs]
        name = records[i].name
        if not found:
            apart.append(records[i])
        elif i in others and any(test.p is None for test in found):
            untested[name] = found[0].test
        elif i in others:
            # Of several leaders, the one with the least certain difference counts.
            p = max(test.p for test in found)
            (clear if p < level else unclear)[name] = p
            used |= {test.test: None for test in found}
    if clear:
        yield f"The difference{_from(clear, alone)} is more than chance."
    if unclear:
        yield f"There is {NO_EVIDENCE}{_from(unclear, alone)}."
    if used:
        yield f"Test: {enumerate_names(list(used))}."
    if untested:
        of = "" if alone else f" from {enumerate_names(list(untested))}"
        why = enumerate_names(list(dict.fromkeys(untested.values())))
        yield f"The difference{of} was not tested: {why}."
    if apart:
        yield _intervals(records[leaders[0]], apart, alone)


def _from(found: Mapping[str, float], alone: bool) -> str:
    """Returns the p-values as text, with the names of the runs if there are more than two."""
    if alone:
        return "".join(f" ({p_text(p)})" for p in found.values())
    return f" from {enumerate_names([f'{name} ({p_text(p)})' for name, p in found.items()])}"


def _intervals(best: RunRecord, others: Sequence[RunRecord], alone: bool) -> str:
    """Returns a sentence: do the intervals of runs on other files overlap with the best run's?"""
    names = enumerate_names([record.name for record in others])
    start = "They do not share a split" if alone else f"{names} had other files"
    intervals = {r.name: r.scores[0].accuracy_interval for r in (best, *others)}
    if missing := [name for name, each in intervals.items() if each.bounds is None]:
        few = enumerate_names([f"{name} ({intervals[name].note})" for name in missing])
        return f"{start}, and intervals cannot be compared: {few}."
    low = intervals[best.name].bounds[0]
    overlap = [r.name for r in others if intervals[r.name].bounds[1] >= low]
    beyond = [r.name for r in others if r.name not in overlap]
    parts = []
    if overlap:
        which = f" with {enumerate_names(overlap)}" if beyond else ""
        parts.append(f"the 95 % intervals overlap{which}, {NO_EVIDENCE}")
    if beyond:
        which = f" of {enumerate_names(beyond)}" if overlap else ""
        parts.append(
            f"the 95 % intervals{which} do not overlap, but other files may be easier or harder"
        )
    return f"{start}: {'; '.join(parts)}."


def p_text(p: float) -> str:
    """Returns 'p = 0.012', or 'p < 0.001'."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def enumerate_names(names: Sequence[str]) -> str:
    """Returns 'a', 'a and b' or 'a, b and c'."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
