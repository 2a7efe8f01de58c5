"""How `scripts/bench.py` talks to the two sides: a line of JSON each way, over stdin and stdout."""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def serve(prepare: Callable[..., Callable[[int], int | None]], facts: dict[str, Any]) -> None:
    """Answers requests until stdin ends.

    `{"prepare": {...}}` makes something to be timed, and tells how long the first step took, which
    compiles; `{"run": steps}` takes so many steps, or more, and tells how many and how long.
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
        answer = {"seconds": seconds, "steps": steps, "peak_mb": peak_mb()}
        print(json.dumps(answer), file=answers, flush=True)


def peak_mb() -> float:
    """Returns the most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
