"""The benchmark: its imports, its arithmetic and its errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from conftest import ROOT

sys.path += [str(ROOT / "scripts"), str(ROOT / "benchmarks")]
import bench
import kernels

MISSING = ["jaxtyping", "clu", "ml_collections", "soundfile", "soxr", "PIL", "orbax", "matplotlib"]
MISSING += ["tensorflow_datasets", "torch"]
QUICKLY = "--xla_backend_optimization_level=0"
"""Makes XLA compile quickly."""


def answers(side: str, *requests: dict, hidden: Path) -> list[dict]:
    """Returns the answers of a side that cannot import the packages `MISSING`."""
    for name in MISSING:
        (hidden / f"{name}.py").write_text(f"raise ImportError('no {name} here')")
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / side, "1"],
        input="\n".join(map(json.dumps, requests)),
        env=os.environ | {"PYTHONPATH": str(hidden), "XLA_FLAGS": QUICKLY},
        cwd=ROOT / "benchmarks",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(map(json.loads, done.stdout.splitlines()))


def test_the_timed_path_needs_only_the_documented_packages(tmp_path):
    (info,) = answers("several_side.py", hidden=tmp_path)
    assert info["device"] == "cpu"
    assert info["jax"] == jax.__version__


@pytest.mark.long
@pytest.mark.parametrize(("side", "mode"), [("meljax_side.py", ""), ("several_side.py", "2")])
def test_a_side_takes_and_times_steps(side, mode, tmp_path):
    setting = {"what": "train", "batch": 4, "size": 16, "compute": "float32", "mode": mode}
    _, first, then = answers(side, {"prepare": setting}, {"run": 2}, hidden=tmp_path)
    assert then["steps"] == 2
    assert 0 < then["seconds"] < first["seconds"]


@pytest.mark.long
@pytest.mark.parametrize("what", ["forward", "images", "masking", "gradient", "optimizer"])
def test_a_part_of_a_step_runs_and_is_timed(what, tmp_path):
    setting = {"what": what, "batch": 4, "size": 16, "compute": "float32", "mode": ""}
    *_, then = answers("meljax_side.py", {"prepare": setting}, {"run": 2}, hidden=tmp_path)
    assert then["steps"] == 2
    assert then["seconds"] > 0


class Clock:
    """A side whose steps take one second longer in each run."""

    mode = ""

    def __init__(self, seconds: float):
        self.seconds, self.runs = seconds, 0

    def ask(self, prepare=None, run=1):
        self.runs += 1
        return {"seconds": run * (self.seconds + self.runs), "steps": run, "peak_mb": 7.0}


def test_only_the_first_repeat_is_dropped():
    measured = bench.measure({"meljax": Clock(0), "eager": Clock(10)}, {}, 3)
    assert measured["meljax"]["first_step_s"] == 1
    assert measured["meljax"]["times"] == [3, 4, 5]
    assert measured["eager"]["times"] == [13, 14, 15]


def test_a_row_ends_after_a_minute_but_not_before_the_third_repeat(monkeypatch):
    monkeypatch.setattr(bench, "ROW_SECONDS", 0)
    measured = bench.measure({"meljax": Clock(0)}, {}, 9)
    assert len(measured["meljax"]["times"]) == 3


def row(**times: list[float]) -> dict:
    sides = {
        name: {"times": each, "first_step_s": 9.0, "peak_mb": 5.0} for name, each in times.items()
    }
    return {"what": "train", "batch": 12, "size": 224, "compute": "float32", "sides": sides}


def test_the_ratio_is_the_median_over_pairs_with_the_fastest_torch_side():
    both = row(meljax=[1.0, 2.0, 4.0], eager=[9.0, 9.0, 9.0], graph=[2.0, 3.0, 9.0])
    assert bench.best(both) == "graph"
    assert bench.ratio(both) == 2.0
    info = bench.summary([both, row(meljax=[3.0]) | {"what": "forward"}])
    assert info["train_ratio"] == {"12x224": 2.0}
    assert info["forward_ratio"] == {}
    rates = {"meljax": {"12x224": 6.0, "12x224 forward": 4.0}, "torch": {"12x224": 4.0}}
    assert info["images_per_second"] == rates
    assert "2.00" in bench.table([both]).splitlines()[1]


@pytest.mark.parametrize("text", ["foo", "12x224x3", "0x64", "12x224,", "12 x 224"])
def test_invalid_settings_are_refused(text, capsys):
    with pytest.raises(SystemExit):
        bench.main(["--settings", text])
    assert "expected batch and image sizes like 12x224,64x128, not" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "text"),
    [("--sides", "meljax,jax"), ("--compute", "float16"), ("--at-once", "1,0"), ("--repeats", "")],
)
def test_invalid_options_are_refused(option, text, capsys):
    with pytest.raises(SystemExit):
        bench.main([option, text])
    assert option in capsys.readouterr().err


PROGRAM = """
%branch (a: f32[]) -> f32[] {
  ROOT %add.1 = f32[] add(%a, %a)
}

%body (state: (f32[3], s32[])) -> (f32[3], s32[]) {
  %state = (f32[3]{0}, s32[]) parameter(0)
  %x = f32[3]{0} get-tuple-element(%state), index=0
  %input_reduce_fusion.2 = (f32[3]{0}, f32[3]{0}) fusion(%x), kind=kInput, calls=%f
  %loop_add_fusion = f32[3]{0} fusion(%x), kind=kLoop, calls=%g
  %conv.1 = (f32[3]{0}, u8[0]{0}) custom-call(%x), custom_call_target="__cudnn$convForward"
  %call = f32[] call(%x), to_apply=%branch
  ROOT %all = (f32[3]{0}, s32[]) tuple(%x, %x)
}

ENTRY %main (x: f32[3]) -> f32[3] {
  %copy = f32[3]{0} copy(%x)
  ROOT %while = (f32[3]{0}, s32[]) while(%copy), condition=%until, body=%body
}
"""


def test_the_kernels_of_a_loop_are_counted_by_kind():
    expected = {"reduction": 1, "fusion": 1, "__cudnn$convForward": 1, "add": 1}
    assert kernels.kernels(PROGRAM) == expected


def test_an_unwritable_file_is_reported_before_measuring(tmp_path, capsys):
    with pytest.raises(SystemExit):
        bench.main(["--json", str(tmp_path / "nowhere" / "x.json")])
    assert "No such file" in capsys.readouterr().err


def test_a_failed_side_is_left_out(capfd):
    setting = {"what": "train", "batch": 4, "size": 16, "compute": "float32", "unknown": 1}
    assert bench.compare(setting, ["meljax"], 1)["sides"] == {}
    assert "train 4x16: meljax failed and is left out" in capfd.readouterr().err
