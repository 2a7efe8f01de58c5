"""Compares the speed of meljax with a plain PyTorch trainer, and times the parts of a run.

    python scripts/bench.py [--settings 12x224,64x128] [--json FILE]

The command prints four rows on a CPU and six on an accelerator. Each side runs in its own process.
The sides take turns, so a machine that slows down slows both; other programs may slow one side more
than the other, see benchmarks/README.md. A repeat is some steps of each side. Ratios are medians
over pairs of repeats; above 1 meljax is faster. They compare with the fastest side of PyTorch.
After a minute, a row starts no further repeat once it has three; compiling is not limited.

Runs on Linux. Without torch (`pip install '.[bench]'`) only meljax is timed. Timing meljax needs
only jax, flax, optax, numpy and psutil, except with --parts.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SIDES = Path(__file__).parent.parent / "benchmarks"
SECONDS = 3.0
"""Approximate maximum duration of the steps of one side in one repeat."""
ROW_SECONDS = 60
"""After this time, a row starts no further repeat once it has `FEWEST`."""
FEWEST = 3
REPEATS = 9
TORCH = {
    "eager": "one kernel after the other",
    "graph": "the whole step as one CUDA graph",
    "default": "torch.compile",
    "max-autotune": "torch.compile with tuning, over a minute for each shape",
}
"""Ways to run PyTorch; `benchmarks/torch_side.py` takes them as `mode`."""


class Defaults(NamedTuple):
    """What is measured unless options say otherwise."""

    settings: list[tuple[int, int]]  # batch and image size
    compute: list[str]
    sides: list[str]


CPU = Defaults([(12, 224), (64, 128)], ["float32"], ["meljax", "eager"])
ACCELERATOR = Defaults(
    [(12, 224), (64, 224), (256, 224)], ["bfloat16"], ["meljax", "eager", "graph"]
)


class SideFailedError(Exception):
    """A side ended too early; its error message is on stderr."""


class Side:
    """A process that takes and times steps: 'meljax', 'parts', 'several' or a name in `TORCH`."""

    def __init__(self, name: str):
        self.mode = name
        file = "torch" if name in TORCH else name
        command = [sys.executable, str(SIDES / f"{file}_side.py"), str(cores())]
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=SIDES
        )
        self.info = self.answer()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Returns the answer to a request; see `benchmarks/protocol.py`."""
        self.send(**request)
        return self.answer()

    def send(self, **request: Any) -> None:
        """Sends a request, whose answer must be read next."""
        with contextlib.suppress(BrokenPipeError):  # reported because the answer is missing
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def answer(self) -> dict[str, Any]:
        """Returns the next answer; raises `SideFailedError` if the process has ended."""
        line = self._process.stdout.readline()
        if not line:
            raise SideFailedError(self.name)
        return json.loads(line)


def cores() -> int:
    """Returns the number of cores this process may use."""
    return len(os.sched_getaffinity(0))


def measure(sides: dict[str, Side], setting: dict[str, Any], repeats: int) -> dict[str, dict]:
    """Returns seconds per step, duration of the first step and memory of each side."""
    measured: dict[str, dict] = {}
    begun = time.monotonic()
    for name, side in sides.items():
        first = side.ask(prepare=setting | {"mode": side.mode})
        measured[name] = {"first_step_s": first["seconds"], "times": []}
    left = max(ROW_SECONDS - (time.monotonic() - begun), 0)
    seconds = min(SECONDS, left / max(len(sides) * (repeats + 1), 1))
    for repeat in range(repeats + 1):  # the first warms up
        if repeat > FEWEST and time.monotonic() - begun > ROW_SECONDS:
            break
        turns = list(sides.items())
        for name, side in turns if repeat % 2 else reversed(turns):
            times = measured[name]["times"]
            answer = side.ask(run=max(1, round(seconds / times[-1])) if times else 1)
            times.append(answer["seconds"] / answer["steps"])
            measured[name]["peak_mb"] = answer["peak_mb"]
    for each in measured.values():
        each["times"] = each["times"][1:]
    return measured


def compare(setting: dict[str, Any], names: Sequence[str], repeats: int) -> dict[str, Any]:
    """Returns a row of the table: the times of the sides `names` for one setting.

    A side that fails, for example without enough memory, is left out.
    """
    with contextlib.ExitStack() as stack:
        try:
            sides = {name: stack.enter_context(contextlib.closing(Side(name))) for name in names}
            return {**setting, "sides": measure(sides, setting, repeats)}
        except SideFailedError as failure:
            failed = str(failure)
    print(
        f"{setting['what']} {setting_name(setting)}: {failed} failed and is left out; "
        "its error is printed above",
        file=sys.stderr,
    )
    return compare(setting, [name for name in names if name != failed], repeats)


def best(row: dict) -> str:
    """Returns the name of the fastest PyTorch side."""
    names = [name for name in row["sides"] if name != "meljax"]
    return min(names, key=lambda name: statistics.median(row["sides"][name]["times"]))


def comparable(row: dict) -> bool:
    """Returns whether meljax and at least one PyTorch side were timed."""
    return "meljax" in row["sides"] and len(row["sides"]) > 1


def ratio(row: dict) -> float:
    """Returns the speed of meljax divided by that of PyTorch."""
    ours, theirs = row["sides"]["meljax"]["times"], row["sides"][best(row)]["times"]
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def table(rows: list[dict]) -> str:
    """Returns the rows as text."""
    lines = [
        f"{'':8} {'batch':>5} {'size':>4} {'compute':8} {'side':12} {'images/s':>9} "
        f"{'spread':>7} {'ratio':>6} {'first step':>10} {'memory':>8}"
    ]
    for row in rows:
        for name, side in row["sides"].items():
            rates = sorted(row["batch"] / t for t in side["times"])
            middle = statistics.median(rates)
            spread = (rates[-1] - rates[0]) / middle
            times = f"{ratio(row):6.2f}" if name == "meljax" and comparable(row) else " " * 6
            lines.append(
                f"{row['what']:8} {row['batch']:5} {row['size']:4} {row['compute']:8} {name:12} "
                f"{middle:9,.1f} {spread:7.0%} {times} {side['first_step_s']:9.1f}s "
                f"{side['peak_mb']:6,.0f}MB"
            )
    return "\n".join(lines)


def setting_name(setting: dict[str, Any]) -> str:
    """Returns the name of a setting, like '12x224 bfloat16'."""
    name = f"{setting['batch']}x{setting['size']}"
    return name if setting["compute"] == "float32" else f"{name} {setting['compute']}"


def summary(rows: list[dict]) -> dict[str, Any]:
    """Returns ratios and images/s by setting."""
    ratios: dict[str, dict] = {"train_ratio": {}, "forward_ratio": {}}
    rates: dict[str, dict] = {"meljax": {}, "torch": {}}
    for row in rows:
        key = setting_name(row)
        sides = {"meljax": "meljax"} if "meljax" in row["sides"] else {}
        if comparable(row):
            ratios[f"{row['what']}_ratio"][key] = ratio(row)
            sides["torch"] = best(row)
        for side, name in sides.items():
            middle = statistics.median(row["sides"][name]["times"])
            of = key if row["what"] == "train" else f"{key} forward"
            rates[side][of] = row["batch"] / middle
    return {**ratios, "images_per_second": rates}


PARTS = {
    "decode": ("parts", "image"),
    "front_end": ("parts", "recording"),
    "images": ("meljax", "batch"),
    "masking": ("meljax", "batch"),
    "forward": ("meljax", "batch"),
    "gradient": ("meljax", "batch"),
    "optimizer": ("meljax", "step"),
    "train": ("meljax", "batch"),
    "evaluation": ("parts", "image"),
    "checkpoint": ("parts", "checkpoint"),
    "start": ("parts", "start"),
}
"""The side that times each part of a run, and what one of its steps processes."""


def parts(setting: dict[str, Any], repeats: int) -> dict[str, dict[str, Any]]:
    """Returns milliseconds of each part of a run, per image where a step is a batch."""
    found = {}
    for part, (side, unit) in PARTS.items():
        measured = compare(setting | {"what": part}, [side], repeats)["sides"]
        if side not in measured:
            continue
        times = measured[side]["times"]
        share, unit = (setting["batch"], "image") if unit == "batch" else (1, unit)
        found[part] = {"ms": 1000 * statistics.median(times) / share, "per": unit}
        print(f"{part:12} {found[part]['ms']:10,.3f} ms per {unit}", flush=True)
    return found


def at_once(setting: dict[str, Any], numbers: Sequence[int]) -> dict[str, dict[int, float]]:
    """Returns images/s of several trainings on one device together.

    They run as separate processes and in one program by `vmap`; the keys are these two ways and the
    `numbers` of trainings.
    """
    found: dict[str, dict[int, float]] = {"processes": {}, "vmap": {}}
    for way, number in itertools.product(found, numbers):
        processes, runs = (number, 1) if way == "processes" else (1, number)
        try:
            rate = rate_of_all(setting | {"mode": str(runs)}, processes)
        except SideFailedError:
            print(
                f"{setting_name(setting)}: {number} at once, {way}: failed and is left out; "
                "its error is printed above",
                file=sys.stderr,
            )
            continue
        found[way][number] = rate
        print(f"{setting_name(setting)}: {number} at once, {way}: {rate:,.1f} images/s", flush=True)
    return found


def rate_of_all(setting: dict[str, Any], processes: int) -> float:
    """Returns the images/s of all processes together.

    They train at the same time and take the same number of steps.
    """
    with contextlib.ExitStack() as stack:
        sides = [stack.enter_context(contextlib.closing(Side("several"))) for _ in range(processes)]
        for side in sides:
            side.ask(prepare=setting)
        count, seconds = 1, 0.0
        while seconds < SECONDS / 2:
            begun = time.perf_counter()
            for side in sides:
                side.send(run=count)
            answers = [side.answer() for side in sides]
            seconds = time.perf_counter() - begun
            count = math.ceil(count * SECONDS / seconds)
    runs = int(setting["mode"])
    return sum(answer["steps"] for answer in answers) * runs * setting["batch"] / seconds


def write(file: Path | None, info: dict[str, Any]) -> None:
    """Writes the results so far, if `file` is given."""
    if file:
        file.write_text(json.dumps(info, indent=2) + "\n")


def parse_settings(text: str) -> list[tuple[int, int]]:
    """Returns batch and image size of settings like '12x224,64x128'."""
    found = re.findall(r"(?:^|,)([1-9]\d*)x([1-9]\d*)(?=,|$)", text)
    if len(found) != text.count(",") + 1:
        raise argparse.ArgumentTypeError(
            f"expected batch and image sizes like 12x224,64x128, not {text!r}"
        )
    return [(int(batch), int(size)) for batch, size in found]


def parse_number(text: str) -> int:
    """Returns a number, 1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, not {text!r}")
    return int(text)


def one_of(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Returns a parser of one or more of `names`, separated by commas."""

    def parse(text: str) -> list[str]:
        found = text.split(",")
        if set(found) - set(names):
            raise argparse.ArgumentTypeError(
                f"expected one or more of {','.join(names)}, not {text!r}"
            )
        return found

    return parse


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all numbers as JSON")
    parser.add_argument("--parts", action="store_true", help="also time the parts of a run")
    parser.add_argument(
        "--at-once",
        type=lambda text: [parse_number(each) for each in text.split(",")],
        default=[],
        metavar="1,2,4",
        help="also time these numbers of trainings at once on one device",
    )
    parser.add_argument(
        "--settings", type=parse_settings, help="batch and image sizes, like 12x224,64x128"
    )
    parser.add_argument(
        "--compute", type=one_of(("float32", "bfloat16")), help="one or both of float32,bfloat16"
    )
    sides = "; ".join(f"{name}: {what}" for name, what in TORCH.items())
    parser.add_argument(
        "--sides",
        type=one_of(("meljax", *TORCH)),
        help=f"one or more of meljax,{','.join(TORCH)} ({sides})",
    )
    parser.add_argument(
        "--repeats",
        type=parse_number,
        default=REPEATS,
        help=f"timed repeats of a row (default: {REPEATS})",
    )
    arguments = parser.parse_args(argv)
    try:
        write(arguments.json, {})
    except OSError as error:
        parser.error(f"--json: {error}")
    with tempfile.TemporaryDirectory() as caches:
        # Empty caches: the first step always compiles.
        for name in ("XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
            os.environ[name] = f"{caches}/{name}"
        bench(arguments)
    return 0


def bench(arguments: argparse.Namespace) -> None:
    """Measures all settings, prints a table and writes the JSON file."""
    machine = describe_machine()
    defaults = ACCELERATOR if machine["accelerator"] else CPU
    settings = arguments.settings or defaults.settings
    compute = arguments.compute or defaults.compute
    names = arguments.sides or defaults.sides
    if importlib.util.find_spec("torch") is None:
        names = [name for name in names if name not in TORCH]
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    if machine["load"] > 0.5:
        print("WARNING: other programs are running and may slow one side more than the other")
    print(table([]), flush=True)
    rows: list[dict] = []
    info: dict[str, Any] = {"machine": machine}
    for (batch, size), what, dtype in itertools.product(settings, ("train", "forward"), compute):
        setting = {"what": what, "batch": batch, "size": size, "compute": dtype}
        rows.append(compare(setting, names, arguments.repeats))
        print(table(rows[-1:]).partition("\n")[2], flush=True)
        info |= {**summary(rows), "rows": rows}
        write(arguments.json, info)
    for (batch, size), dtype in itertools.product(settings, compute):
        setting = {"what": "train", "batch": batch, "size": size, "compute": dtype}
        name = setting_name(setting)
        if arguments.at_once:
            info.setdefault("at_once", {})[name] = at_once(setting, arguments.at_once)
        if arguments.parts:
            print(f"parts at {name}")
            info.setdefault("parts", {})[name] = parts(setting, min(arguments.repeats, 3))
        write(arguments.json, info)


def describe_machine() -> dict[str, Any]:
    """Returns processor, cores, load, device, driver and versions."""
    machine = {
        "python": platform.python_version(),
        "processor": processor(),
        "cores": cores(),
        "load": os.getloadavg()[0],
    }
    has_torch = importlib.util.find_spec("torch") is not None
    for name in ("meljax", "eager")[: 1 + has_torch]:
        with contextlib.closing(Side(name)) as side:
            machine |= side.info
    return machine


def processor() -> str:
    """Returns the name of the CPU."""
    with contextlib.suppress(OSError):  # without /proc, or on ARM, the name is less precise
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1]
    return platform.processor()


if __name__ == "__main__":
    sys.exit(main())
