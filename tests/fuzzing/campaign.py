"""Reads many inputs in child processes, and replaces each one that dies."""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .seeds import ROOT

SECONDS = 5
"""Maximum time in s that reading an input may take."""
_START = 120
"""Maximum time in s until a child has started."""


class Problem(NamedTuple):
    """What went wrong with an input."""

    index: int
    what: str

    @property
    def kind(self) -> str:
        """The last line, which is the same for similar problems."""
        return self.what.strip().splitlines()[-1][:150]


class Outcome:
    """The result of a campaign."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.ended: Counter[str] = Counter()
        self.peak = 0  # most bytes that an input took
        self.slowest = 0.0  # seconds

    def add(self, index: int, row: dict, seconds: float) -> None:
        """Adds the outcome of an input."""
        if row["problem"]:
            self.problems.append(Problem(index, row["problem"]))
        self.ended[row["as"]] += 1
        self.peak = max(self.peak, row["peak"])
        self.slowest = max(self.slowest, seconds)

    def include(self, other: "Outcome") -> None:
        """Adds the outcome of other inputs."""
        self.problems += other.problems
        self.ended += other.ended
        self.peak = max(self.peak, other.peak)
        self.slowest = max(self.slowest, other.slowest)


def campaign(readers: Sequence[str], seed: int, count: int, first: int = 0) -> dict[str, Outcome]:
    """Returns the outcome of each reader, for `count` inputs from index `first` on.

    With several readers, `first` is 0.
    """
    outcomes = {reader: Outcome() for reader in readers}
    left, at = list(readers), first
    late: set[tuple[str, int]] = set()
    while left:
        left, at = _run_child(left, seed, at, first + count, outcomes, late)
    return outcomes


def _run_child(
    readers: list[str],
    seed: int,
    first: int,
    last: int,
    outcomes: dict[str, Outcome],
    late: set[tuple[str, int]],
) -> tuple[list[str], int]:
    """Reads inputs until the child ends; returns the readers that are left, and the next index.

    An input that takes too long is read again, because the machine may have been busy. `late` are
    those that took too long once.
    """
    read_end, write_end = os.pipe()
    numbers = map(str, (seed, first, last, write_end))
    command = [sys.executable, "-m", "tests.fuzzing.child", *numbers, *readers]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    running, began = None, 0.0
    with (
        tempfile.TemporaryDirectory(prefix="meljax-fuzz-") as place,
        subprocess.Popen(
            command, cwd=ROOT, env=environment | {"TMPDIR": place}, pass_fds=[write_end]
        ) as process,
    ):
        os.close(write_end)
        for row in _rows(read_end):
            now = time.perf_counter()
            if row is None:
                process.kill()
                break
            if "begin" in row:
                running, began = row, now
                continue
            outcomes[row["reader"]].add(running["begin"], row, now - began)
            running = None
    os.close(read_end)
    if running is None and process.returncode == 0:
        return [], first
    if running is None:
        raise RuntimeError(f"a child for {readers} failed between inputs; see its output")
    reader, index = running["reader"], running["begin"]
    code = process.returncode
    left = readers[readers.index(reader) :]
    if code == -9 and (reader, index) not in late:
        late.add((reader, index))
        return left, index
    what = f"no result after {SECONDS} s" if code == -9 else f"the process died with {code}"
    outcomes[reader].add(index, {"problem": what, "as": "died", "peak": 0}, 0.0)
    return left, index + 1


def _rows(pipe: int) -> Iterator[dict | None]:
    """Yields what a child writes to its pipe; `None` if it takes too long."""
    rest, limit = b"", _START
    while True:
        ready, _, _ = select.select([pipe], [], [], limit)
        if not ready:
            yield None
            return
        chunk = os.read(pipe, 1 << 16)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from map(json.loads, lines)
        limit = SECONDS
