"""Compares the speed of meljax with a plain PyTorch trainer, and times the parts of a run.

    python scripts/bench.py [--quick] [--json FILE]

Each side runs in its own process. The sides take turns, so a machine that slows down slows both;
other programs may slow one side more than the other, see benchmarks/README.md. A repeat is some
steps of each side. Ratios are medians over pairs of repeats; above 1 meljax is faster. They compare
with the faster of PyTorch's eager mode and `torch.compile`; --quick uses only eager float32.
Without torch (`pip install 'meljax[bench]'`) only meljax is timed. Timing meljax needs only jax,
flax, optax and numpy, except with --parts.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SIDES = Path(__file__).parent.parent / "benchmarks"
SECONDS = 3.0
"""Approximate duration of one repeat."""
QUICK = [(12, 224), (64, 128)]
FULL = [(batch, size) for batch in (12, 64) for size in (224, 128)]
LARGE = [(256, 224), (256, 128)]
"""Batch and image sizes; the large ones are for accelerators."""


class SideFailedError(Exception):
    """A side ended too early; its error message is on stderr."""


class Side:
    """A process that takes one side's steps: 'meljax', 'parts', or 'torch MODE'."""

    def __init__(self, name: str):
        file, _, self.mode = name.partition(" ")
        command = [sys.executable, str(SIDES / f"{file}_side.py"), str(cores())]
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=SIDES
        )
        self.info = self._answer()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Returns the answer to a request; see `benchmarks/protocol.py`."""
        with contextlib.suppress(BrokenPipeError):  # reported because the answer is missing
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> dict[str, Any]:
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
    for name, side in sides.items():
        first = side.ask(prepare=setting | {"mode": side.mode})
        measured[name] = {"first_step_s": first["seconds"], "times": []}
    for repeat in range(repeats + 1):  # the first warms up
        turns = list(sides.items())
        for name, side in turns if repeat % 2 else reversed(turns):
            times = measured[name]["times"]
            answer = side.ask(run=max(1, round(SECONDS / times[-1])) if times else 1)
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
    print(f"{setting}: {failed} failed", file=sys.stderr)
    return compare(setting, [name for name in names if name != failed], repeats)


def best(row: dict) -> str:
    """Returns the name of the fastest PyTorch side."""
    names = [name for name in row["sides"] if name != "meljax"]
    return min(names, key=lambda name: statistics.median(row["sides"][name]["times"]))


def comparable(row: dict) -> bool:
    """Returns whether both sides were timed."""
    return "meljax" in row["sides"] and len(row["sides"]) > 1


def ratio(row: dict) -> float:
    """Returns the speed of meljax divided by that of PyTorch."""
    ours, theirs = row["sides"]["meljax"]["times"], row["sides"][best(row)]["times"]
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def table(rows: list[dict]) -> str:
    """Returns the rows as text."""
    lines = [
        f"{'':8} {'batch':>5} {'size':>4} {'compute':8} {'side':14} {'images/s':>9} "
        f"{'spread':>7} {'ratio':>6} {'first step':>10} {'memory':>8}"
    ]
    for row in rows:
        for name, side in row["sides"].items():
            rates = sorted(row["batch"] / t for t in side["times"])
            middle = statistics.median(rates)
            spread = (rates[-1] - rates[0]) / middle
            times = f"{ratio(row):6.2f}" if name == "meljax" and comparable(row) else " " * 6
            lines.append(
                f"{row['what']:8} {row['batch']:5} {row['size']:4} {row['compute']:8} {name:14} "
                f"{middle:9,.1f} {spread:7.0%} {times} {side['first_step_s']:9.1f}s "
                f"{side['peak_mb']:6,.0f}MB"
            )
    return "\n".join(lines)


def summary(rows: list[dict]) -> dict[str, Any]:
    """Returns ratios and images/s by setting."""
    ratios: dict[str, dict] = {"train_ratio": {}, "forward_ratio": {}}
    rates: dict[str, dict] = {"meljax": {}, "torch": {}}
    for row in rows:
        key = f"{row['batch']}x{row['size']}"
        key += "" if row["compute"] == "float32" else f" {row['compute']}"
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
"""Side and unit of a step, by part of a run."""


def parts(batch: int, size: int, compute: str, repeats: int) -> dict[str, dict[str, Any]]:
    """Returns milliseconds of each part of a run, per image where a step is a batch."""
    found = {}
    for part, (side, unit) in PARTS.items():
        setting = {"what": part, "batch": batch, "size": size, "compute": compute}
        measured = compare(setting, [side], repeats)["sides"]
        if side not in measured:
            continue
        times = measured[side]["times"]
        share, unit = (batch, "image") if unit == "batch" else (1, unit)
        found[part] = {"ms": 1000 * statistics.median(times) / share, "per": unit}
        print(f"{part:12} {found[part]['ms']:10,.3f} ms per {unit}", flush=True)
    return found


def write(file: Path | None, info: dict[str, Any]) -> None:
    """Writes the results so far, if `file` is given."""
    if file:
        file.write_text(json.dumps(info, indent=2) + "\n")


def parse_settings(text: str) -> list[tuple[int, int]]:
    """Returns batch and image size of settings like '12x224,64x128'."""
    found = re.findall(r"(?:^|,)([1-9]\d*)x([1-9]\d*)(?=,|$)", text)
    if len(found) != text.count(",") + 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 12x224,64x128")
    return [(int(batch), int(size)) for batch, size in found]


def parse_repeats(text: str) -> int:
    """Returns a number of repeats."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 or more")
    return int(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="only eager float32, 5 repeats")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all numbers as JSON")
    parser.add_argument("--parts", action="store_true", help="time the parts of a run too")
    parser.add_argument(
        "--settings", type=parse_settings, help="batch and image sizes, like 12x224,64x128"
    )
    parser.add_argument("--repeats", type=parse_repeats, help="default: 9, with --quick 5")
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
    machine = {"cores": cores(), "load": os.getloadavg()[0]}
    has_torch = importlib.util.find_spec("torch") is not None
    for name in ("meljax", "torch")[: 1 + has_torch]:
        with contextlib.closing(Side(name)) as side:
            machine |= side.info
    accelerator = machine["accelerator"]
    names = ["meljax"]
    if has_torch:
        compiled = "max-autotune" if accelerator else "default"
        names += ["torch eager"] if arguments.quick else ["torch eager", f"torch {compiled}"]
    computes = ["float32"] if arguments.quick else ["float32", "bfloat16"]
    repeats = arguments.repeats or (5 if arguments.quick else 9)
    settings = arguments.settings or (QUICK if arguments.quick else FULL + accelerator * LARGE)
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    if machine["load"] > 0.5:
        print("WARNING: other programs are running and may slow one side more than the other")
    print(table([]), flush=True)
    rows = []
    for (batch, size), what, compute in itertools.product(settings, ("train", "forward"), computes):
        setting = {"what": what, "batch": batch, "size": size, "compute": compute}
        rows.append(compare(setting, names, repeats))
        print(table(rows[-1:]).partition("\n")[2], flush=True)
        info = {**summary(rows), "rows": rows, "machine": machine}
        write(arguments.json, info)
    if arguments.parts:
        info["parts"], compute = {}, "bfloat16" if accelerator else "float32"
        for batch, size in settings:
            print(f"parts at {batch} × {size}²")
            info["parts"][f"{batch}x{size}"] = parts(batch, size, compute, arguments.repeats or 3)
            write(arguments.json, info)


if __name__ == "__main__":
    sys.exit(main())
