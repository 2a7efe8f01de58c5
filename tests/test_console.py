"""Exit codes, error messages and signal handlers of commands."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import meljax
from meljax import __main__
from meljax.commands import train
from meljax.util import console
from meljax.util.errors import UserError, first_line
from meljax.util.files import exists


def test_a_user_error_is_one_line_after_its_details(capsys):
    def body(_):
        raise UserError("two\nlines", ["first.wav: empty", "second.wav: empty"])

    assert console.run(body) == 2
    assert capsys.readouterr().err.splitlines() == [
        "first.wav: empty",
        "second.wav: empty",
        "meljax: two lines",
    ]


@pytest.mark.parametrize("error", [FileNotFoundError(2, "missing"), OSError("odd"), ValueError()])
def test_a_bug_keeps_its_traceback(error):
    """An unexpected `OSError` is a bug like any other."""

    def body(_):
        raise error

    with pytest.raises(type(error)):
        console.run(body)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_file_that_may_not_be_read_is_one_line(number, capsys):
    def body(_):
        raise OSError(number, "any words", "run/config.json")

    assert console.run(body) == 2
    assert capsys.readouterr().err == f"meljax: run/config.json: {os.strerror(number)}\n"


def test_matplotlib_does_not_warn_of_a_home_that_cannot_be_written(tmp_path):
    """It would do so in each command that draws."""
    (tmp_path / "file").touch()
    script = "from meljax.util import console\nwith console.quiet_libraries(): import matplotlib"
    home = {"HOME": str(tmp_path / "file"), "PYTHONPATH": os.pathsep.join(sys.path)}
    home |= {"MPLCONFIGDIR": "", "XDG_CONFIG_HOME": "", "XDG_CACHE_HOME": ""}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | home,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stdout + done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_command_and_the_handlers_are_restored(number, capsys):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    hook = sys.unraisablehook

    def body(stop):
        stop.hint = lambda: "run it again"
        os.kill(os.getpid(), number)
        stop.check()
        return 0  # the signal is lost

    assert console.run(body) == 128 + number
    assert "meljax: stopped; run it again" in capsys.readouterr().err
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    assert sys.unraisablehook is hook


def test_an_error_that_a_library_makes_of_an_interrupt_is_no_bug(capsys):
    """NumPy's import does."""

    def body(_):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("the extension failed") from None
        return 0

    assert console.run(body) == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "\nmeljax: stopped\n"


def test_a_stop_before_the_data_are_read_says_what_to_do(capsys):
    """Importing JAX takes seconds on a busy machine."""

    def parse_arguments():
        os.kill(os.getpid(), signal.SIGTERM)
        raise UserError("the signal is lost")

    assert train.run(parse_arguments) == 128 + signal.SIGTERM
    line = "meljax: stopped; nothing was trained; run the same command again\n"
    assert capsys.readouterr().err == f"\n{line}"


def test_a_closed_pipe_ends_a_command_quietly(capfd):
    def body(_):
        raise BrokenPipeError

    stdout = os.dup(1)
    try:
        assert console.run(body) == 128 + signal.SIGPIPE
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
    assert not capfd.readouterr().err


@pytest.mark.parametrize("code", [0, 1, 130])
def test_what_was_printed_is_not_lost_at_the_end(code):
    program = f"from meljax.util import console; print('last words'); console.leave({code})"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (code, "last words\n", "")


@pytest.mark.parametrize("code", [0, 2])
def test_libraries_that_fail_while_a_failed_command_ends_are_not_reported(code):
    program = "\n".join(
        [
            "from meljax.util import console",
            "class Library:",
            "    def __del__(self):",
            "        raise RuntimeError('Event loop is closed')",
            "library = Library()",
            f"console.leave({code})",
        ]
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == code
    assert ("Event loop is closed" in ended.stderr) == (code == 0)


def test_a_file_exists_or_not_or_may_not_be_looked_for(tmp_path, monkeypatch):
    assert exists(tmp_path)
    for name in ("missing", "x" * 300, "\0"):
        assert not exists(tmp_path / name)

    def refused(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "stat", refused)
    with pytest.raises(PermissionError):
        exists(tmp_path)


def test_first_line_is_short_and_never_empty():
    assert first_line(ValueError("\n  one  \ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
    assert len(first_line(ValueError("word " * 100), 50)) <= 50


def test_the_version_is_printed(capsys):
    assert __main__.main(["--version"]) == 0
    assert capsys.readouterr().out == f"meljax {meljax.__version__}\n"


@pytest.mark.parametrize("command", __main__.COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        __main__.main([command, "--help"])
    assert ended.value.code == 0
    assert f"meljax {command} " in capsys.readouterr().out


def test_a_command_is_given_its_own_arguments(tmp_path, capsys):
    source, out = tmp_path / "in.pth", tmp_path / "out.safetensors"
    assert __main__.main(["convert-weights", str(source), str(out)]) == 2
    assert capsys.readouterr().err == f"meljax: {source}: no such file or directory\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predct", "run"], "unknown command 'predct' (the nearest is 'predict')"),
        (["--verison"], "unknown option --verison"),
        (["--verison", "x"], "unknown option --verison"),
        (["report", "run", "--out="], "a path is empty"),
        (["report", "run", "--out=--"], "--out needs a value"),
        (["evaluate", "x" * 5000], "is not a run"),
        (["predict", "--", "run", "-dash/0.wav"], "run is not a run"),
        (["predict", "run", "a.wav", "--top", "1", "b.wav"], "run is not a run"),
        (["build-tfds", "--path", "/nowhere", "--name", "v"], "'/nowhere' does not exist"),
        (["predict"], "the following arguments are required: RUN, PATH"),
        (["predict", "run", "x.wav", "--topp", "3"], "did you mean --top?"),
        (["evaluate", "run", "--tfds-dir", "x"], "did you mean --tfds_dir?"),
        (["evaluate", "run", "a", "b"], "unexpected argument 'b'"),
        (["train", "a", "data.label=x"], "did you mean --data.label=x?"),
        (["evaluate", "run", "a", "--split", "all"], "invalid choice: 'all'"),
        (["build-tfds", "a", "--on_bad_file=never"], "data.on_bad_file must be 'stop' or 'skip'"),
        (["export", "run"], "required: --format, --out"),
    ],
)
def test_wrong_arguments_are_reported_in_one_line(arguments, message, capsys):
    assert __main__.main(arguments) == 2
    answer = capsys.readouterr().err
    assert message in answer
    assert answer.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_help_lists_all_commands(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        __main__.main(arguments)
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in __main__.COMMANDS)


def test_a_command_without_standard_output_still_answers(tmp_path):
    closed = subprocess.run(
        ["/bin/sh", "-c", f"'{sys.executable}' -m meljax train /nowhere >&-"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert closed.returncode == 2
    assert closed.stderr.startswith("meljax: data.path: '/nowhere' does not exist")
