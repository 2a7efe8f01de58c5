"""The bench runs on a machine that has little more than jax."""

import json
import os
import subprocess
import sys

from conftest import ROOT

MISSING = ["jaxtyping", "clu", "ml_collections", "soundfile", "soxr", "PIL", "orbax", "matplotlib"]
MISSING += ["tensorflow_datasets", "torch"]


def test_the_timed_path_needs_jax_flax_and_optax_alone(tmp_path):
    for name in MISSING:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('no {name} here')")
    side = ROOT / "benchmarks" / "meljax_side.py"
    setting = {"what": "pictures", "batch": 4, "size": 16, "compute": "float32", "mode": ""}
    requests = [{"prepare": setting}, {"run": 3}]
    done = subprocess.run(
        [sys.executable, side, "1"],
        input="\n".join(map(json.dumps, requests)),
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=side.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    facts, first, then = map(json.loads, done.stdout.splitlines())
    assert facts["device"] == "cpu"
    assert then["steps"] == 3
    assert 0 < then["seconds"] < first["seconds"]
