"""A full disk gives one line with the system's words, and no traceback."""

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, command
from tensorboardX.record_writer import RecordWriter

from meljax.commands import build_tfds, evaluate, export, predict, report
from meljax.main import main
from meljax.training import logs
from meljax.util import progress
from meljax.util.errors import UserError, disk_full

FULL = Path("/dev/full")
WORDS = os.strerror(errno.ENOSPC)

pytestmark = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


@pytest.fixture
def small_disk(tmp_path):
    """Returns a function that mounts a disk of a given size, such as '60k'."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(size: str) -> Path:
        mounting = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if (
            shutil.which("mount") is None
            or subprocess.run(mounting, capture_output=True).returncode
        ):
            pytest.skip("no disk can be mounted here")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", str(folder)], check=True)


def one_line(answer: str) -> bool:
    return answer.startswith("meljax: ") and answer.count("\n") == 1 and WORDS in answer


@pytest.mark.parametrize(("size", "epochs"), [("4k", 0), ("200k", 0), ("1250k", 15)])
def test_training_stops_with_one_line(size, epochs, small_disk, image_folder, capfd):
    """The record, the first or a later checkpoint does not fit; no epoch is trained in vain."""
    workdir = small_disk(size) / "run"
    assert main(command("cnn", image_folder, workdir, train__epochs=15)) == 2
    out, err = capfd.readouterr()
    assert one_line(err)
    assert out.count("| loss") == epochs


def test_the_process_ends_without_tracebacks(small_disk, image_folder):
    arguments = command("cnn", image_folder, small_disk("60k") / "run", train__epochs=15)
    done = subprocess.run(
        [sys.executable, "-m", "meljax.main", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert one_line(done.stderr)


def test_a_run_resumes_once_there_is_space(small_disk, image_folder, tmp_path, capfd):
    workdir = small_disk("60k") / "run"
    assert main(command("cnn", image_folder, workdir, train__epochs=1)) == 2
    subprocess.run(["mount", "-o", "remount,size=20m", str(workdir.parent)], check=True)
    capfd.readouterr()
    assert main(command("cnn", image_folder, workdir, train__epochs=1)) == 0


def error(capfd) -> str:
    """Returns stderr without the warning that the few validation files allow no calibration."""
    lines = capfd.readouterr().err.splitlines(keepends=True)
    return "".join(line for line in lines if "not calibrated" not in line)


@pytest.mark.parametrize("form", ["csv", "jsonl", "table"])
def test_predict_stops_with_one_line(form, image_run, image_folder, capfd):
    arguments = [str(image_run), str(image_folder), "--format", form, "--out", str(FULL)]
    assert predict.main(arguments) == 2
    assert error(capfd) == f"meljax: --out {FULL}: cannot be written ({WORDS})\n"


@pytest.mark.parametrize("form", ["stablehlo", "onnx"])
def test_export_stops_with_one_line(form, image_run, capfd):
    assert export.main([str(image_run), "--format", form, "--out", str(FULL)]) == 2
    assert error(capfd) == f"meljax: --out {FULL}: cannot be written ({WORDS})\n"


def test_evaluate_stops_with_one_line(image_run, capfd):
    assert evaluate.main([str(image_run), "--json", str(FULL)]) == 2
    assert one_line(capfd.readouterr().err)


def test_report_stops_with_one_line(image_run, small_disk, capfd):
    assert report.main([str(image_run), "--out", str(small_disk("40k") / "page")]) == 2
    assert one_line(capfd.readouterr().err)


def test_build_tfds_stops_with_one_line(image_folder, small_disk, capfd):
    disk = small_disk("20k")
    assert build_tfds.main([str(image_folder), "--name", "tiny", "--tfds_dir", str(disk)]) == 2
    assert one_line(capfd.readouterr().err)
    assert not list(disk.iterdir())


def test_output_to_a_full_disk_gives_one_line(image_folder):
    with open(FULL, "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "meljax", "inspect", str(image_folder)],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == f"meljax: {WORDS}\n"


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_event_file_on_a_full_disk_can_be_closed(split, tmp_path, monkeypatch):
    monkeypatch.setattr(
        logs, "RecordWriter", lambda path: RecordWriter(str(FULL) if f"/{split}/" in path else path)
    )
    log = logs.EventLog(tmp_path, {}, 0)
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be written .{WORDS}"):  # noqa: PT012
        for step in range(100):
            log.write_scores({"step": step, "train_loss": 1.0, "val_loss": 1.0})
            time.sleep(0.01)
    with pytest.raises(UserError, match=WORDS):
        log.close()


def test_an_error_of_a_full_disk_is_recognized():
    assert disk_full(OSError(errno.ENOSPC, "text")) == WORDS
    assert disk_full(RuntimeError(f"array_record: {WORDS}; position 3")) == WORDS
    assert disk_full(OSError(errno.EDQUOT, "")) == os.strerror(errno.EDQUOT)
    assert disk_full(OSError(errno.EACCES, "Permission denied")) is None
    following = ValueError("tensorstore")
    following.__cause__ = OSError(errno.ENOSPC, "")
    assert disk_full(following) == WORDS


def test_a_full_disk_is_reported_once(capsys):
    def end() -> None:
        raise UserError(f"second: {WORDS}")

    with pytest.raises(OSError, match=WORDS), progress.ending(end):
        raise OSError(errno.ENOSPC, WORDS)
    assert not capsys.readouterr().err
    with pytest.raises(ValueError, match="other"), progress.ending(end):
        raise ValueError("other")
    assert capsys.readouterr().err == f"WARNING: second: {WORDS}\n"


def test_the_same_error_is_reported_once(capsys):
    def end() -> None:
        raise UserError("not written")

    with pytest.raises(UserError, match="not written"), progress.ending(end):
        raise UserError("not written")
    assert not capsys.readouterr().err
