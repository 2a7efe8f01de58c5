"""What the sides of `scripts/bench.py` agree on.

They answer with a line of JSON for each they are sent, over stdin and stdout.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

CLASSES = 24


def set_size(batch: int, accelerator: bool) -> int:
    """Returns how many pictures an epoch has, in whole batches: about the report's 2,222 on an
    accelerator, few on a CPU."""
    return max((2222 if accelerator else 256) // batch, 2) * batch


def serve(
    prepare: Callable[..., Callable[[int], int | None]],
    facts: dict[str, Any],
    device_mb: Callable[[], float | None] = lambda: None,
) -> None:
    """Answers requests until stdin ends.

    `{"prepare": {...}}` makes something to be timed, and tells how long the first step took, which
    compiles; `{"run": steps}` takes so many steps, or more, and tells how many and how long.

    Args:
      prepare: returns a function of a number of steps that takes them, waits for the end, and
        returns how many it took, if they were more.
      facts: what is told first.
      device_mb: returns the most memory that was taken of an accelerator; `None` on a CPU.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    print(json.dumps(facts), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        begun, steps = time.perf_counter(), request.get("run", 1)
        if "prepare" in request:
            run = prepare(**request["prepare"])
        steps = run(steps) or steps
        seconds = time.perf_counter() - begun
        peak = device_mb()
        answer = {
            "seconds": seconds,
            "steps": steps,
            "peak_mb": host_mb() if peak is None else peak,
        }
        print(json.dumps(answer), file=answers, flush=True)


def host_mb() -> float:
    """Returns the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
