"""A process that reads inputs one after another in limited memory, and reports through a pipe."""

import contextlib
import ctypes
import json
import os
import resource
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from meljax.util.console import quiet_libraries
from meljax.util.errors import UserError

from .readers import READERS, Reader, make_input

BYTES = 2 * 10**9
"""Maximum memory in bytes that reading an input may take."""


class Job(NamedTuple):
    """Inputs of a reader: those of `seed` with an index from `first` to `last` - 1."""

    reader: str
    seed: int
    first: int
    last: int


def run(pipe: int, jobs: Sequence[Job]) -> None:
    """Reads the inputs of all jobs; writes a line of JSON to `pipe` before and after each input."""
    with (
        os.fdopen(pipe, "w", buffering=1) as out,
        quiet_libraries(),
        _captured() as printed,
    ):
        warnings.filterwarnings("always", append=True)
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # as Python does
        for number, job in enumerate(jobs):
            with tempfile.TemporaryDirectory() as place:
                for row in _read_inputs(job, Path(place), printed):
                    out.write(json.dumps({"job": number, **row}) + "\n")


def _read_inputs(job: Job, place: Path, printed: Callable[[], str]) -> Iterator[dict[str, object]]:
    reader = READERS[job.reader]
    seeds = reader.seeds()
    folder = place / "set"
    file = folder / reader.name
    folder.mkdir()
    reader.others(folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    for each in seeds:  # first imports must not count as memory of an input
        file.write_bytes(each)
        reader.read(folder)
    _limit_memory()
    printed()
    for index in range(job.first, job.last):
        file.write_bytes(make_input(job.reader, seeds, job.seed, index))
        yield {"begin": index}
        problem, ended, peak = _attempt(reader, folder)
        yield {"problem": problem or printed(), "as": ended, "peak": peak}


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _attempt(reader: Reader, folder: Path) -> tuple[str, str, int]:
    """Returns what was wrong ('': nothing), how reading ended, and the bytes that it took."""
    before = _peak(reset=True)
    problem, ended = "", "read"
    try:
        reader.read(folder)
    except UserError as error:
        text = "\n".join((str(error), *error.details))
        ended = "refused"
        if not any(name in text for name in (Path(reader.name).name, str(folder), "tfds:")):
            problem = f"the file is not named: {text}"
        if "\n" in str(error):
            problem = f"more than one line: {text}"
        if "fit in memory" in text or "out of memory" in text:
            problem = f"memory: {text}"
    except BaseException:
        ended = "raised"
        problem = traceback.format_exc()
    return problem, ended, _peak() - before


def _peak(reset: bool = False) -> int:
    """Returns the peak of the memory of this process in bytes, since it was reset."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


@contextlib.contextmanager
def _captured() -> Iterator[Callable[[], str]]:
    """Yields a function that returns what was printed since its last call, also by C code."""
    with tempfile.TemporaryFile() as file:
        originals = [os.dup(each) for each in (1, 2)]
        for each in (1, 2):
            os.dup2(file.fileno(), each)

        def printed() -> str:
            sys.stdout.flush()
            sys.stderr.flush()
            ctypes.CDLL(None).fflush(None)  # the buffers of C
            file.seek(0)
            text = file.read().decode(errors="replace")
            file.seek(0)
            file.truncate()
            return f"printed: {text}" if text else ""

        try:
            yield printed
        finally:
            for each, original in enumerate(originals, 1):
                os.dup2(original, each)


if __name__ == "__main__":
    run(int(sys.argv[1]), [Job(*json.loads(text)) for text in sys.argv[2:]])
