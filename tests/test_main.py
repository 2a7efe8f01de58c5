"""The two training commands: `python -m meljax.main` and `meljax train`."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from meljax import __main__
from meljax.commands import train
from meljax.config import Config, files
from meljax.config.files import PRESETS, preset_file
from meljax.main import main, parse
from meljax.util.stop import SIGNALS, StopRequest
from meljax.workflows import train as workflow

CNN = str(ROOT / "configs" / "cnn.py")


@pytest.mark.parametrize(("command", "prefix"), [(main, "--config."), (train.main, "--")])
def test_help_shows_usage_and_keys(command, prefix, capsys):
    with pytest.raises(SystemExit) as ended:
        command(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "--workdir" in text
    assert f"  {prefix}train.epochs=500" in text
    assert "resnet18" in text


WRONG = [
    (["--config=nothing.py"], "nothing.py: no such file"),
    (["--config", "nothing.py"], "nothing.py: no such file"),
    ([f"--config={CNN}", "--config.train.epoch=3"], "did you mean --config.train.epochs?"),
    ([f"--config={CNN}", "--config.nonsense=3"], "unknown option --config.nonsense; --help"),
    ([f"--config={CNN}", "--config.train.epochs=many"], "train.epochs must be a whole number"),
    ([f"--config={CNN}", "--config.train.epochs", "-3"], "train.epochs must be a whole number"),
    ([f"--config={CNN}", "--config.train.learning_rate=nan"], "train.learning_rate must be"),
    ([f"--config={CNN}", "--config.train.epochs"], "--config.train.epochs needs a value"),
    ([f"--config={CNN}", "--config.train.epochs", "--workdir", "x"], "not '--workdir'"),
    ([f"--config={CNN}", "--config.mel.fmin", "-1e-3"], "mel.fmin must be a number ≥ 0"),
    ([f"--config={CNN}", "--workdir=--"], "--workdir needs a value"),
    ([f"--config={CNN}", "one", "--wrong"], "unknown option --wrong"),
    ([f"--config={CNN}", "--config.model.name=vgg"], "'resnet18' or 'cnn'"),
    ([f"--config={CNN}", f"--config={CNN}"], "--config is given more than once"),
    ([f"--config={ROOT}"], "a folder"),
    ([f"--config={CNN}", "--flagfile=x"], "unknown option --flagfile"),
    (
        [f"--config={CNN}", "--config.model.init=nowhere.pth"],
        "pretrained weights are for model.name='resnet18'",
    ),
    ([f"--config={CNN}", "--wrokdir=x"], "unknown option --wrokdir; did you mean --workdir?"),
]
ONLY_MAIN = [
    ([], "for example configs/quick.py"),
    ([f"--config={CNN}", "stray"], "unexpected argument 'stray'"),
    ([f"--config={CNN}", "--train.epochs=3"], "did you mean --config.train.epochs?"),
    ([f"--config={CNN}", "--epochs=3"], "did you mean --config.train.epochs?"),
]
ONLY_TRAIN = [
    (["here", "stray"], "unexpected argument 'stray'"),
    (["--epoch", "3"], "unknown option --epoch; did you mean --epochs?"),
    (["--train.epoch=3"], "unknown option --train.epoch; did you mean --train.epochs?"),
    (["--trian.epochs", "3"], "did you mean --train.epochs?"),
    (["--learning-rate=1"], "did you mean --learning_rate?"),
    (["--config", "resnet18"], "resnet18: no such file; give quick, cnn, resnet"),
    (["here", "--path", "there"], "DATA and --data.path are the same setting"),
    (["--epoch"], "did you mean --epochs?"),
    (["--epochs", "0"], "train.epochs must be a whole number"),
    (["", "--epochs", "3"], "DATA is empty"),
    (["", "--path", "x"], "DATA is empty"),
    (["--pochs", "3"], "did you mean --epochs?"),
    (["--tarin.epochs", "3"], "did you mean --train.epochs?"),
    (["--config", "x" * 5000], "no such file"),
]


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        *((main, *each) for each in WRONG + ONLY_MAIN),
        *((train.main, *each) for each in WRONG + ONLY_TRAIN),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(
    command, arguments, message, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(workflow, "load", None)  # nothing may be read
    assert command(arguments) == 2
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
        ("def get_config(): return None", "faulty.py"),
        ("def get_config(): return {'train': {'epoch': 3}}", "did you mean train.epochs?"),
        ("def get_config(): return {'trian': {}}", "unknown group of keys 'trian'"),
        ("def get_config(): return {'train': 3}", "unknown group of keys 'train'"),
        ("class Odd(BaseException): pass\nraise Odd('very')", "Odd: very"),
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


def test_a_file_of_settings_may_return_a_plain_dictionary(tmp_path):
    file = tmp_path / "plain.py"
    file.write_text("def get_config(): return {'train': {'epochs': 3}}")
    assert parse([f"--config={file}"])[0].train.epochs == 3


def test_the_default_directory_is_named_after_the_file_of_settings():
    assert str(parse(["--config", CNN])[1]) == "runs/cnn"
    assert str(parse(["--config", CNN, "--workdir", "there"])[1]) == "there"


@pytest.mark.parametrize(
    ("arguments", "workdir"),
    [
        ([], "runs/embedded-quick"),
        (["some/birds/"], "runs/birds-quick"),
        (["v1.5", "--config", "resnet"], "runs/v1.5-resnet"),
        ([".", "--config", CNN], "runs/here-cnn"),
        (["table.csv", "--config", "cnn"], "runs/table-cnn"),
        (["tfds:animals/big:1.0.0"], "runs/animals-quick"),
        (["birds", "--workdir", "there"], "there"),
        (["birds", "--workdir="], "runs/birds-quick"),
        (["~"], "runs/ann-quick"),
        (["/"], "runs/data-quick"),
        (["x" * 5000], f"runs/{'x' * 5000}-quick"),
    ],
)
def test_the_default_directory_is_named_after_data_and_settings(
    arguments, workdir, tmp_path, monkeypatch
):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "table.csv").touch()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path / "ann"))
    assert str(train.parse(arguments)[1]) == workdir


def test_without_config_the_default_is_named(capsys):
    config, _ = train.parse(["birds"])
    assert config == train.parse(["birds", "--config", "quick"])[0]
    assert capsys.readouterr().out.splitlines() == [
        "config: quick, the default; for others give --config cnn or resnet"
    ]


def test_a_file_of_settings_may_take_an_argument(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from meljax.config import default_config\n"
        "def get_config(label):\n    c = default_config()\n    c.data.label = label\n    return c"
    )
    for arguments in ([f"--config={file}:word"], ["--config", f"{file}:word"]):
        config, workdir = parse(arguments)
        assert config.data.label == "word"
        assert str(workdir) == "runs/mine"


def test_the_argument_of_a_file_may_be_empty_or_have_dots(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def get_config(label='none'): return {'data': {'label': label}}")
    assert parse([f"--config={file}"])[0].data.label == "none"
    assert parse([f"--config={file}:"])[0].data.label == ""
    config, workdir = parse([f"--config={file}:v1.5"])
    assert config.data.label == "v1.5"
    assert str(workdir) == "runs/mine"


def test_a_file_of_settings_may_refer_to_overridden_keys_and_to_its_own_module(tmp_path):
    file = tmp_path / "settings.cfg"
    file.write_text(
        "from __future__ import annotations\nimport dataclasses\n"
        "from meljax.config import default_config\n"
        "@dataclasses.dataclass\nclass Mine:\n    factor: int = 2\n"
        "def get_config():\n    c = default_config()\n"
        "    c.train.batch_size = c.train.get_ref('epochs') * Mine().factor\n    return c"
    )
    config, _ = parse([f"--config={file}", "--config.train.epochs=9"])
    assert (config.train.epochs, config.train.batch_size) == (9, 18)


def test_names_that_begin_with_a_dash_follow_two_dashes():
    for arguments in (["--epochs", "3", "--", "-birds"], ["--path=-birds", "-epochs=3"]):
        config, _ = train.parse(arguments)
        assert (config.data.path, config.train.epochs) == ("-birds", 3)


def test_a_preset_is_found_inside_an_installed_package_and_beside_a_clone(tmp_path, monkeypatch):
    package = tmp_path / "meljax"
    (package / "config").mkdir(parents=True)
    monkeypatch.setattr(files, "__file__", str(package / "config" / "files.py"))
    assert preset_file("cnn") == tmp_path / "configs" / "cnn.py"
    (package / "configs").mkdir()
    (package / "configs" / "cnn.py").touch()
    assert preset_file("cnn") == package / "configs" / "cnn.py"


@pytest.mark.parametrize("command", [main, train.main])
def test_help_is_as_wide_as_the_terminal_and_lists_the_networks(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        command(["--help"])
    text = capsys.readouterr().out
    keys = text[text.index("train.epochs=500") :]
    assert max(map(len, keys.splitlines()[:8])) <= 60
    assert "ResNet-18; default width 64; pretrained weights exist" in text
    assert "usage:" not in text


def test_overrides_reach_the_settings():
    config, _ = parse([f"--config={CNN}", "--config.data.label=00", "--config.mask.fill=1"])
    assert config.data.label == "00"
    assert config.mask.fill == 1.0


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "--config", "cnn", "--epochs", "20", "--fill=1"],
        ["--config=cnn", "--train.epochs=20", "data", "--mask.fill", "1"],
        ["--config", "cnn", "--config.train.epochs=20", "--config.mask.fill", "1", "--path=data"],
        ["--epochs=3", "--fill=1", "--config", CNN, "data", "--train.epochs=20"],
        ["--group", "", "--config", "cnn", "data", "--epochs", "20", "--fill", "1"],
    ],
)
def test_keys_may_be_given_in_several_forms(arguments):
    config, _ = train.parse(arguments)
    assert (config.data.path, config.train.epochs, config.mask.fill) == ("data", 20, 1.0)
    assert config.model.name == "cnn"
    assert config.data.group == ("" if "--group" in arguments else "group")


def test_a_folder_named_like_a_preset_does_not_hide_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cnn").mkdir()
    assert train.parse(["--config", "cnn"])[0].model.name == "cnn"


def test_every_preset_is_a_file_of_this_repository():
    assert {file.stem for file in (ROOT / "configs").glob("*.py")} == set(PRESETS)
    for name in PRESETS:
        assert preset_file(name).samefile(ROOT / "configs" / f"{name}.py")
        assert isinstance(train.parse(["--config", name])[0], Config)


@pytest.mark.parametrize("name", PRESETS)
def test_an_installed_command_finds_the_presets_from_any_directory(name, tmp_path):
    script = Path(sys.executable).with_name("meljax")
    if not script.exists():
        pytest.skip("meljax is not installed here")
    command = [script, "train", "nowhere", "--config", name]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("meljax: data.path: 'nowhere' does not exist")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["--help", *(f"{c} --help" for c in __main__.COMMANDS)])
def test_help_imports_no_heavy_package(command):
    """It is answered at once."""
    heavy = ("jax", "numpy", "scipy", "matplotlib", "tensorflow_datasets", "ml_collections")
    program = (
        "import sys; from meljax.__main__ import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print('imported', *(set({heavy}) & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *command.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == "imported"


def test_an_interrupt_lost_in_a_callback_is_not_reported(capsys):
    """Callbacks of the garbage collector run at any moment and cannot raise."""
    stop, seen = StopRequest(), []

    class Held:
        def __del__(self):
            try:
                stop.receive(2, None)
            finally:
                seen.append(True)

    with stop.handling_signals(SIGNALS):
        held = Held()
        del held
        assert seen
        with pytest.raises(KeyboardInterrupt):
            stop.check()
    assert capsys.readouterr().err == ""
