"""Runs a campaign: python -m tests.fuzzing --reader png --count 10000 --seed 1

An input is a function of (seed, reader, index). Reading it must end in a result or in an error of
meljax that names the file, within 5 s and 2 GB, and print nothing.
"""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

from .campaign import Outcome, campaign
from .child import Job
from .readers import READERS, make_input

BLOCK = 1000
"""Number of inputs after which problems are saved and the progress is printed."""


def main() -> int:
    """Returns 1 if there were problems, otherwise 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reader", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="index of the first input")
    parser.add_argument("--save", type=Path, help="folder for the inputs with problems")
    arguments = parser.parse_args()
    failed = False
    for reader in arguments.reader:
        begun, outcome = time.perf_counter(), Outcome()
        end = arguments.first + arguments.count
        for first in range(arguments.first, end, BLOCK):
            last = min(first + BLOCK, end)
            (part,) = campaign([Job(reader, arguments.seed, first, last)]).values()
            outcome.include(part)
            if arguments.save:
                _save(arguments.save, reader, arguments.seed, part)
            if last < end:
                progress = f"{reader}: read up to index {last - 1:,}"
                print(f"{progress}, {len(outcome.problems)} problems so far", flush=True)
        _show(reader, outcome, time.perf_counter() - begun)
        failed |= bool(outcome.problems)
    return int(failed)


def _show(reader: str, outcome: Outcome, seconds: float) -> None:
    counts = ", ".join(f"{number:,} {how}" for how, number in sorted(outcome.ended.items()))
    print(
        f"{reader}: {outcome.ended.total():,} inputs ({counts}), {len(outcome.problems)} problems, "
        f"{seconds:.0f} s, slowest {outcome.slowest:.2f} s, peak {outcome.peak / 1e6:.0f} MB",
        flush=True,
    )
    kinds = Counter(each.kind for each in outcome.problems)
    for kind, number in kinds.most_common(10):
        index = next(each.index for each in outcome.problems if each.kind == kind)
        print(f"  {number} x {kind}  (e.g. index {index})", flush=True)


def _save(folder: Path, reader: str, seed: int, outcome: Outcome) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    seeds = READERS[reader].seeds()
    for each in outcome.problems[:100]:
        path = folder / f"{reader}-{seed}-{each.index}"
        path.write_bytes(make_input(reader, seeds, seed, each.index))
        path.with_name(f"{path.name}.txt").write_text(each.what)


if __name__ == "__main__":
    sys.exit(main())
