"""Times meljax against a plain PyTorch trainer, and the parts of a run.

    python scripts/bench.py [--quick] [--json FILE]

Each side runs in a process of its own and they take turns, so that what else the machine does hits
both. A repeat is some steps of each; ratios are the medians over pairs of repeats, 1 and above
where meljax is faster. PyTorch is the best of eager and `torch.compile`; with --quick, eager
float32 alone. torch must be installed: `pip install 'meljax[bench]'`; without it meljax is timed
alone.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

SIDES = Path(__file__).parent.parent / "benchmarks"
SETTINGS = ((12, 224), (64, 128))
SECONDS = 3.0
"""How long one repeat lasts, roughly."""


class Side:
    """A process that makes one side's steps."""

    def __init__(self, name: str):
        command = [sys.executable, str(SIDES / f"{name}_side.py"), str(cores())]
        self.name = name
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=SIDES
        )
        self.facts = self._answer()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Returns the answer to a request; see `benchmarks/protocol.py`."""
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"bench: the side of {self.name} ended, with {self._process.wait()}")
        return json.loads(line)


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0))


def compare(what: str, batch: int, size: int, compute: str, modes: list[str], repeats: int) -> dict:
    """Returns the times of both sides for one setting: a row of the table."""
    setting = {"what": what, "batch": batch, "size": size, "compute": compute}
    sides = {}
    for name, mode in (("meljax", ""), *((f"torch {mode}", mode) for mode in modes)):
        side = Side(name.split()[0])
        first = side.ask(prepare=setting | {"mode": mode})
        once = side.ask(run=1)["seconds"]
        sides[name] = {"side": side, "compile_s": first["seconds"], "times": []}
        sides[name]["steps"] = max(1, round(SECONDS / max(once, 1e-4)))
    for _ in range(repeats):
        for each in sides.values():
            answer = each["side"].ask(run=each["steps"])
            each["times"].append(answer["seconds"] / each["steps"])
            each["peak_mb"] = answer["peak_mb"]
    for each in sides.values():
        each.pop("side").close()
    return {**setting, "sides": sides}


def best(row: dict) -> str:
    """Returns the name of the fastest PyTorch."""
    names = [name for name in row["sides"] if name != "meljax"]
    return min(names, key=lambda name: statistics.median(row["sides"][name]["times"]))


def ratio(row: dict) -> float:
    """Returns how many times as fast meljax is."""
    ours, theirs = row["sides"]["meljax"]["times"], row["sides"][best(row)]["times"]
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def table(rows: list[dict]) -> str:
    """Returns what a person reads."""
    lines = [
        f"{'':8} {'batch':>5} {'size':>4} {'compute':8} {'side':14} {'images/s':>9} "
        f"{'spread':>7} {'ratio':>6} {'first step':>10} {'memory':>8}"
    ]
    for row in rows:
        for name, side in row["sides"].items():
            rates = sorted(row["batch"] / t for t in side["times"])
            middle = statistics.median(rates)
            spread = (rates[-1] - rates[0]) / middle
            times = f"{ratio(row):6.2f}" if name == "meljax" and len(row["sides"]) > 1 else " " * 6
            lines.append(
                f"{row['what']:8} {row['batch']:5} {row['size']:4} {row['compute']:8} {name:14} "
                f"{middle:9,.1f} {spread:7.0%} {times} {side['compile_s']:9.1f}s "
                f"{side['peak_mb']:6,.0f}MB"
            )
    return "\n".join(lines)


def summary(rows: list[dict]) -> dict[str, Any]:
    """Returns the figures by setting."""
    found: dict[str, Any] = {"train_ratio": {}, "forward_ratio": {}}
    found["images_per_second"] = {"meljax": {}, "torch": {}}
    for row in rows:
        setting = f"{row['batch']}x{row['size']}"
        key = setting if row["compute"] == "float32" else f"{setting} {row['compute']}"
        if len(row["sides"]) > 1:
            found[f"{row['what']}_ratio"][key] = ratio(row)
        name = key if row["what"] == "train" else f"{key} forward"
        for side, times in (
            ("meljax", "meljax"),
            ("torch", best(row) if len(row["sides"]) > 1 else None),
        ):
            if times:
                middle = statistics.median(row["sides"][times]["times"])
                found["images_per_second"][side][name] = row["batch"] / middle
    return found


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="eager float32 alone, 5 repeats")
    parser.add_argument("--json", metavar="FILE", type=Path, help="where all figures are written")
    parser.add_argument("--repeats", type=int, default=0)
    arguments = parser.parse_args()
    rows = []
    has_torch = importlib.util.find_spec("torch") is not None
    modes = ["eager"] if arguments.quick else ["eager", "default"]
    computes = ["float32"] if arguments.quick else ["float32", "bfloat16"]
    repeats = arguments.repeats or (5 if arguments.quick else 7)
    for batch, size in SETTINGS:
        for what in ("train", "forward"):
            for compute in computes:
                rows.append(
                    compare(what, batch, size, compute, modes if has_torch else [], repeats)
                )
                print(table(rows[-1:]), flush=True)
    facts = summary(rows) | {"rows": rows, "cores": cores()}
    if arguments.json:
        arguments.json.write_text(json.dumps(facts, indent=2) + "\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
