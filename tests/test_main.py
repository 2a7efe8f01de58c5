import subprocess
import sys

import pytest
from conftest import ROOT

from meljax.main import main, parse
from meljax.util.console import StopRequest

CNN = str(ROOT / "configs" / "cnn.py")


@pytest.mark.parametrize("flag", ["--help", "-help", "-h"])
def test_help_shows_usage_and_keys(flag, capsys):
    assert main(["meljax", flag]) == 0
    text = capsys.readouterr().out
    assert "--workdir" in text
    assert "--config.train.epochs=500" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "for example configs/quick.py"),
        (["--config=nothing.py"], "nothing.py: no such file"),
        (["--config", "nothing.py"], "nothing.py: no such file"),
        ([f"--config={CNN}", "stray"], "unexpected argument 'stray'"),
        ([f"--config={CNN}", "--config.train.epoch=3"], "did you mean train.epochs?"),
        ([f"--config={CNN}", "--config.nonsense=3"], "unknown key nonsense"),
        ([f"--config={CNN}", "--config.train.epochs=many"], "train.epochs must be a whole number"),
        ([f"--config={CNN}", "--config.train.epochs", "-3"], "train.epochs must be a whole number"),
        ([f"--config={CNN}", "--config.train.learning_rate=nan"], "train.learning_rate must be"),
        ([f"--config={CNN}", "--config.model.name=vgg"], "'resnet18' or 'cnn'"),
        ([f"--config={CNN}", "--train.epochs=3"], "did you mean --config.train.epochs?"),
        ([f"--config={CNN}", f"--config={CNN}"], "--config is given more than once"),
        ([f"--config={ROOT}"], "a folder"),
        ([f"--config={CNN}", "--flagfile=x"], "--flagfile=x is not supported"),
        (
            [f"--config={CNN}", "--config.model.init=nowhere.pth"],
            "pretrained weights are for model.name='resnet18'",
        ),
        ([f"--config={CNN}", "--wrokdir=x"], "unknown flag --wrokdir"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(
    arguments, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(["meljax", *arguments]) == 2
    answer = capsys.readouterr().err
    assert message in answer
    assert answer.count("\n") == 1
    assert not list(tmp_path.iterdir()), "nothing may be written"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:", "invalid syntax"),
        ("import nowhere", "nowhere"),
        ("x = 1", "get_config"),
        ("raise SystemExit(0)", "faulty.py"),
        ("raise RuntimeError('first\\nsecond')", "first"),
        (
            "from meljax.config import default_config\n"
            "def get_config():\n    c = default_config()\n    c.train.epoch = 3\n    return c",
            "epoch",
        ),
        ("def get_config(): return None", "returns the settings"),
    ],
)
def test_a_broken_file_of_settings_is_reported_in_one_line(text, message, tmp_path):
    file = tmp_path / "faulty.py"
    file.write_text(text)
    command = [sys.executable, "-m", "meljax.main", f"--config={file}", f"--workdir={tmp_path}/run"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_default_directory_is_named_after_the_file_of_settings():
    assert str(parse(["meljax", "--config", CNN])[1]) == "runs/cnn"
    assert str(parse(["meljax", "--config", CNN, "--workdir", "there"])[1]) == "there"


def test_a_file_of_settings_may_take_an_argument(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from meljax.config import default_config\n"
        "def get_config(label):\n    c = default_config()\n    c.data.label = label\n    return c"
    )
    for arguments in ([f"--config={file}:word"], ["--config", f"{file}:word"]):
        config, workdir = parse(["meljax", *arguments])
        assert config.data.label == "word"
        assert str(workdir) == "runs/mine"


def test_overrides_reach_the_settings():
    config, _ = parse(
        ["meljax", f"--config={CNN}", "--config.data.label=00", "--config.mask.fill=1"]
    )
    assert config.data.label == "00"
    assert config.mask.fill == 1.0


def test_an_interrupt_lost_in_a_callback_is_not_reported(capsys):
    """Callbacks of the garbage collector run at any moment and cannot raise."""
    stop, seen = StopRequest(), []

    class Held:
        def __del__(self):
            try:
                stop.receive(2, None)
            finally:
                seen.append(True)

    with stop.handling_signals():
        held = Held()
        del held
        assert seen
        with pytest.raises(KeyboardInterrupt):
            stop.check()
    assert capsys.readouterr().err == ""
