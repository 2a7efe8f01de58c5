import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
from conftest import ROOT, SHARED, command

from meljax import export, saved
from meljax.errors import UserError
from meljax.main import main
from meljax.models.pretrained import to_torch
from meljax.models.resnet import ResNet18
from meljax.models.weights import read_weights, write_weights

DATA = Path(__file__).parent / "data"


def test_a_run_is_written_under_torchvisions_names(square_run, tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    assert export.main([str(square_run), "--format", "torch", "--out", str(file)]) == 0
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
    kernel = saved.load(square_run).variables["params"]["conv1"]["kernel"]
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
    out.unlink()
    assert convert(source, out, "--check", wrong).returncode == 1
    assert not out.exists()


@pytest.mark.parametrize("fault", ["missing", "empty", "no logits", "other classes", "no images"])
def test_a_check_against_what_does_not_fit_is_refused(tmp_path, fault):
    script = runpy.run_path(str(ROOT / "scripts" / "convert_resnet18.py"))
    images, logits = np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 6), np.float32)
    file = tmp_path / "check.npz"
    if fault == "empty":
        file.write_bytes(b"")
    elif fault == "no logits":
        np.savez(file, images=images)
    elif fault == "other classes":
        np.savez(file, images=images, logits=logits[:, :5])
    elif fault == "no images":
        np.savez(file, images=images[:0], logits=logits[:0])
    with pytest.raises(UserError, match=r"check\.npz: "):
        script["check"](ResNet18(classes=6, width=4), {}, file)


@pytest.mark.parametrize("out", ["/dev/null/x", "/", "."])
def test_what_cannot_be_written_is_answered_in_one_line(square_run, out, capsys):
    assert export.main([str(square_run), "--format", "torch", "--out", out]) == 2
    answer = capsys.readouterr().err
    assert "cannot be written" in answer
    assert answer.count("\n") == 1


def test_a_run_needs_its_file_of_weights_only_to_begin(pictures, tmp_path):
    """Whether it is gone, or lies elsewhere, is of no consequence afterwards."""
    source = tmp_path / "begin.safetensors"
    network = ResNet18(classes=2)
    like = jax.eval_shape(
        lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), jnp.ones(1), False)
    )
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.uniform(0.01, 0.02, x.shape).astype("f4"), like)
    write_weights(source, to_torch(variables, 0), {})
    workdir = tmp_path / "run"
    keys = {"train__epochs": 1, "data__image_size": 24, "model__width": 0, "model__init": source}
    assert main(command("resnet", pictures, workdir, **keys)) == 0
    facts = json.loads((workdir / "config.json").read_text())
    assert facts["weights"].startswith("file (begin.safetensors, sha256 ")
    source.unlink()
    assert saved.load(workdir).epoch == 1
    assert main(command("resnet", pictures, workdir, **keys | {"train__epochs": 2})) == 0
    fresh = command("resnet", pictures, tmp_path / "fresh", **keys)
    assert main(fresh) == 2
    assert not (tmp_path / "fresh").exists()
