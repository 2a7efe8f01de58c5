import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors
from conftest import SHARED, command

from meljax.commands import convert_weights as convert_command
from meljax.commands import export as export_command
from meljax.main import main
from meljax.models.pretrained.weights_file import read_weights
from meljax.models.registry import NETWORKS
from meljax.models.resnet import ResNet18
from meljax.runs.load_model import load_model
from meljax.util.errors import UserError
from meljax.workflows.convert_weights import compare_logits

DATA = Path(__file__).parent / "data"


def test_weights_are_exported_with_torchvisions_names(square_run, tmp_path, capsys):
    file = tmp_path / "model.safetensors"
    assert export_command.main([str(square_run), "--format", "torch", "--out", str(file)]) == 0
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
    kernel = load_model(square_run).model.variables["params"]["conv1"]["kernel"]
    np.testing.assert_array_equal(weights["conv1.weight"], np.transpose(kernel, (3, 2, 0, 1)))
    assert weights["bn1.num_batches_tracked"] == 5


@pytest.mark.parametrize("target", ["nowhere", "empty"])
def test_a_directory_without_a_run_is_refused(target, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    out, run = tmp_path / "out.safetensors", tmp_path / target
    assert export_command.main([str(run), "--format", "torch", "--out", str(out)]) == 2
    assert "is not a run" in capsys.readouterr().err
    assert not out.exists()


def convert(*arguments: object) -> int:
    return convert_command.main([str(argument) for argument in arguments])


def test_weights_of_another_width_are_not_converted(tmp_path, capsys):
    out = tmp_path / "out.safetensors"
    assert convert(DATA / "tiny_resnet18.pth", out) == 2
    message = capsys.readouterr().err
    assert "conv1.weight (4, 3, 7, 7) for (64, 3, 7, 7)" in message
    assert message.count("\n") == 1
    assert not out.exists()


@pytest.mark.skipif(not (SHARED / "weights").is_dir(), reason="no shared weights here")
def test_published_weights_are_converted_and_checked(tmp_path, capsys):
    source, check = SHARED / "weights" / "resnet18_imagenet.pth", SHARED / "weights" / "check.npz"
    out = tmp_path / "out.safetensors"
    assert convert(source, out, "--check", check) == 0
    assert "the same class for 32 of 32" in capsys.readouterr().out
    before, after = read_weights(source)[0], read_weights(out)[0]
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    wrong = tmp_path / "wrong.npz"
    stored = np.load(check)
    np.savez(wrong, images=stored["images"][:2], logits=stored["logits"][:2] + 0.01)
    out.unlink()
    assert convert(source, out, "--check", wrong) == 1
    assert not out.exists()


@pytest.mark.parametrize("fault", ["missing", "empty", "no logits", "other classes", "no images"])
def test_a_reference_that_does_not_fit_is_refused(tmp_path, fault):
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
        compare_logits(ResNet18(classes=6, width=4), {}, file)


@pytest.mark.parametrize("out", ["/dev/null/x", "/", "."])
def test_an_output_that_cannot_be_written_gives_one_line(square_run, out, capsys):
    assert export_command.main([str(square_run), "--format", "torch", "--out", out]) == 2
    answer = capsys.readouterr().err
    assert "cannot be written" in answer
    assert answer.count("\n") == 1


def test_a_run_needs_its_weights_file_only_at_the_start(image_folder, tmp_path, monkeypatch):
    """Resuming and loading work without the file. The network and its weights are small ones."""
    small = dataclasses.replace(NETWORKS["resnet18"], default_width=4)
    monkeypatch.setitem(NETWORKS, "resnet18", small)
    source = tmp_path / "begin.pth"
    shutil.copy(DATA / "tiny_resnet18.pth", source)
    workdir = tmp_path / "run"
    keys = {"train__epochs": 1, "data__image_size": 24, "model__init": source}
    assert main(command("resnet", image_folder, workdir, **keys)) == 0
    info = json.loads((workdir / "config.json").read_text())
    assert (info["weights"]["kind"], info["weights"]["name"]) == ("file", "begin.pth")
    source.unlink()
    assert load_model(workdir).epoch == 1
    assert main(command("resnet", image_folder, workdir, **keys | {"train__epochs": 2})) == 0
    fresh = command("resnet", image_folder, tmp_path / "fresh", **keys)
    assert main(fresh) == 2
    assert not (tmp_path / "fresh").exists()
