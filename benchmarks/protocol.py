"""The protocol of the sides of `scripts/bench.py`: lines of JSON over stdin and stdout."""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

CLASSES = 24


def set_size(batch: int, accelerator: bool) -> int:
    """Returns the number of images of an epoch, a multiple of `batch`.

    On accelerators it is about the 2,222 training images of DSPSpeech-20, on CPUs it is small.
    """
    return max((2222 if accelerator else 256) // batch, 2) * batch


def serve(
    prepare: Callable[..., Callable[[int], int | None]],
    info: dict[str, Any],
    device_mb: Callable[[], float | None] = lambda: None,
) -> None:
    """Answers requests until stdin ends.

    The request `{"prepare": {...}}` makes something to time and takes at least one step, which
    compiles. `{"run": steps}` takes at least that many steps. An answer has the seconds, the number
    of steps taken and the peak memory.

    Args:
      prepare: returns a function of a number of steps, which takes them, waits for the end and
        returns the number of steps if it took more.
      info: the first line of output.
      device_mb: returns the peak memory of the accelerator in MB; `None` on a CPU.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # keeps output of libraries out of the answers
    print(json.dumps(info), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        begun, steps = time.perf_counter(), request.get("run", 1)
        if "prepare" in request:
            run = prepare(**request["prepare"])
        steps = run(steps) or steps
        seconds = time.perf_counter() - begun
        peak = device_mb()
        peak = host_mb() if peak is None else peak
        answer = {"seconds": seconds, "steps": steps, "peak_mb": peak}
        print(json.dumps(answer), file=answers, flush=True)


def host_mb() -> float:
    """Returns the peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
