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

from .child import Job
from .seeds import ROOT

CHILD = ("-m", "tests.fuzzing.child")
"""Arguments of Python that start a child."""
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


def campaign(jobs: Sequence[Job]) -> dict[str, Outcome]:
    """Returns the outcome of each reader."""
    outcomes = {job.reader: Outcome() for job in jobs}
    left, late = list(jobs), set()
    while left:
        left = _run_child(left, outcomes, late)
    return outcomes


def _run_child(jobs: list[Job], outcomes: dict[str, Outcome], late: set[Job]) -> list[Job]:
    """Reads inputs until the child ends; returns what is left.

    An input that takes too long is read again, because the machine may have been busy. `late` has
    what was left when one took too long.
    """
    read_end, write_end = os.pipe()
    texts = [json.dumps(job) for job in jobs]
    command = [sys.executable, *CHILD, str(write_end), *texts]
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
            outcomes[jobs[row["job"]].reader].add(running["begin"], row, now - began)
            running = None
    os.close(read_end)
    if running is None and process.returncode == 0:
        return []
    if running is None:
        raise RuntimeError(f"a child for {jobs} failed between inputs; see its output")
    job, *later = jobs[running["job"] :]
    again = job._replace(first=running["begin"])
    code = process.returncode
    if code == -9 and again not in late:
        late.add(again)
        return [again, *later]
    what = f"no result after {SECONDS} s" if code == -9 else f"the process died with {code}"
    outcomes[job.reader].add(again.first, {"problem": what, "as": "died", "peak": 0}, 0.0)
    return [again._replace(first=again.first + 1), *later]


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
