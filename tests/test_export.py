import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
from conftest import ROOT, SHARED, command

from meljax import export, saved
from meljax.main import main
from meljax.models.weights import read_weights

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory) -> Path:
    """A ResNet trained for an epoch."""
    workdir = tmp_path_factory.mktemp("export") / "run"
    arguments = command("resnet", pictures, workdir, train__epochs=1, data__image_size=24)
    assert main(arguments) == 0
    return workdir


def test_a_run_is_written_under_torchvisions_names(run, tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    assert export.main([str(run), "--format", "torch", "--out", str(file)]) == 0
    assert "3 classes" in capsys.readouterr().out
    weights, _ = read_weights(file)
    reference, _ = read_weights(DATA / "tiny_resnet18.pth")
    assert weights.keys() == reference.keys()
    assert {k: v.shape for k, v in weights.items() if "fc" not in k} == {
        k: v.shape for k, v in reference.items() if "fc" not in k
    }
    assert weights["fc.weight"].shape == (3, 32)
    with safetensors.safe_open(file, "numpy") as opened:
        assert json.loads(opened.metadata()["classes"]) == ["voice0", "voice1", "voice2"]
    kernel = saved.load(run).variables["params"]["conv1"]["kernel"]
    np.testing.assert_array_equal(weights["conv1.weight"], np.transpose(kernel, (3, 2, 0, 1)))
    assert weights["bn1.num_batches_tracked"] == 5


@pytest.mark.parametrize(
    ("target", "message"),
    [("nowhere", "is no run"), ("empty", "is no run")],
)
def test_what_is_no_run_is_refused(target, message, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out.safetensors"
    assert export.main([str(tmp_path / target), "--format", "torch", "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def convert(*arguments: object) -> subprocess.CompletedProcess:
    script = ROOT / "scripts" / "convert_resnet18.py"
    return subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
    )


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def test_the_script_refuses_a_network_of_another_width(tmp_path):
    out = tmp_path / "out.safetensors"
    result = convert(DATA / "tiny_resnet18.pth", out)
    assert result.returncode == 2
    assert "conv1.weight (4, 3, 7, 7) for (64, 3, 7, 7)" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not out.exists()


@pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason="no shared weights here")
def test_the_script_converts_and_checks_the_published_weights(tmp_path):
    source, check = SHARED / "weights" / "resnet18_imagenet.pth", SHARED / "weights" / "check.npz"
    out = tmp_path / "out.safetensors"
    result = convert(source, out, "--check", check)
    assert result.returncode == 0, result.stderr
    assert "the same class for 32 of 32" in result.stdout
    before, after = read_weights(source)[0], read_weights(out)[0]
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    wrong = tmp_path / "wrong.npz"
    stored = np.load(check)
    np.savez(wrong, images=stored["images"][:2], logits=stored["logits"][:2] + 0.01)
    assert convert(source, out, "--check", wrong).returncode == 1
