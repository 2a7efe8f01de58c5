"""Atomic writing and file locks."""

import fcntl
import os
import threading

import pytest

from meljax.util.errors import UserError
from meljax.util.files import (
    atomic_writer,
    cache_dir,
    locked_file,
    write_atomically,
    write_errors,
)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, SystemExit])
def test_an_interrupted_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path, error):
    file = tmp_path / "file"
    file.write_text("old")

    def write():
        with atomic_writer(file) as out:
            out.write(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_threads_use_different_temporary_files(tmp_path):
    file, both = tmp_path / "file", threading.Barrier(2)

    def write(content: bytes):
        with atomic_writer(file) as out:
            both.wait(10)
            out.write(1000 * content)

    threads = [threading.Thread(target=write, args=(content,)) for content in (b"a", b"b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert file.read_bytes() in (1000 * b"a", 1000 * b"b")
    assert os.listdir(tmp_path) == ["file"]


def test_a_written_file_has_default_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    write_atomically(tmp_path / "file", "text")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_links_are_followed_and_pipes_are_written_directly(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_atomically(tmp_path / "link", "caf\udce9")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"caf\xe9"
    os.mkfifo(tmp_path / "pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_atomically(tmp_path / "pipe", "text")
    reader.join(10)
    assert read == ["text"]


@pytest.mark.parametrize("path", ["/dev/null/x", "missing/x", "."])
def test_a_write_error_names_the_path(tmp_path, path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"^--out {path}: cannot be written \("):
        write_atomically(type(tmp_path)(path), "text", "--out")
    assert not os.listdir(tmp_path)


def test_only_one_process_holds_a_lock(tmp_path):
    lock = tmp_path / "folder" / "lock"
    with locked_file(lock, "taken"), pytest.raises(UserError, match="taken"):  # noqa: SIM117
        with locked_file(lock, "taken"):
            pass
    with locked_file(lock, "taken"):
        pass


def test_a_lock_whose_file_was_removed_is_taken_again(tmp_path, monkeypatch):
    """The holder before may remove the file between our opening and locking it."""
    lock, flock, locked = tmp_path / "lock", fcntl.flock, []

    def remove_the_first(file, operation):
        if not locked:
            lock.unlink()
        locked.append(file)
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_the_first)
    with locked_file(lock, "taken"), pytest.raises(UserError, match="taken"):  # noqa: SIM117
        with locked_file(lock, "taken"):
            pass


def test_a_file_reaches_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    """Otherwise a power cut could leave an empty file where the old one was."""
    steps, fsync, replace = [], os.fsync, os.replace

    def noted(step, call):
        def run(*arguments):
            steps.append((step, sum(file.stat().st_size for file in tmp_path.iterdir())))
            call(*arguments)

        return run

    monkeypatch.setattr(os, "fsync", noted("fsync", fsync))
    monkeypatch.setattr(os, "replace", noted("replace", replace))
    write_atomically(tmp_path / "file", "text")
    assert steps == [("fsync", 4), ("replace", 4)]


def test_an_error_without_a_number_keeps_its_reason(tmp_path):
    with pytest.raises(UserError, match=r"cannot be written \(the disk is odd\)$"):  # noqa: SIM117
        with write_errors(tmp_path):
            raise OSError("The disk is odd")


@pytest.mark.parametrize("value", [None, "", "elsewhere"])
def test_the_cache_is_where_the_system_keeps_caches(tmp_path, monkeypatch, value):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME")
    if value is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", value and str(tmp_path / value))
    assert cache_dir() == tmp_path / (value or ".cache") / "meljax"
