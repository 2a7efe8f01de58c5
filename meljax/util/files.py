"""Atomic writing, file locks and the cache directory."""

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from meljax.util.errors import UserError, disk_full

try:
    import fcntl
except ImportError:  # Windows has no fcntl; it runs without the lock
    fcntl = None

TEMPORARY_PREFIX = ".meljax-"
"""Prefix of the names of half-written files. Only a killed process leaves one behind."""


def cache_dir() -> Path:
    """Returns `$XDG_CACHE_HOME/meljax`, by default `~/.cache/meljax`; it may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meljax"


def exists(path: str | Path) -> bool:
    """Returns whether there is a file or folder at `path`.

    Raises:
      PermissionError: a folder above may not be read. `os.path.exists` returns `False` then.
    """
    try:
        os.stat(path)
    except PermissionError:
        raise
    except (OSError, ValueError):  # a name may be too long, or hold a zero byte
        return False
    return True


@contextlib.contextmanager
def write_errors(path: Path, key: str = "") -> Iterator[None]:
    """Turns an `OSError` raised while `path` is written into a `UserError` that names it.

    `key` is the option or key that named the path, such as '--out'; empty if none did.
    """
    try:
        yield
    except OSError as error:
        reason = disk_full(error) or (error.strerror or str(error)).lower()
        raise UserError(f"{key} {path}: cannot be written ({reason})".lstrip()) from error


@contextlib.contextmanager
def locked_file(path: Path, taken: str) -> Iterator[None]:
    """Holds a lock on the file `path`; it is released even when the process is killed.

    The file is created, with its folders, and emptied.

    Raises:
      UserError: another process holds the lock (message `taken`), or `path` cannot be written.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "w")  # noqa: SIM115 - open as long as the lock is held
        except FileNotFoundError:
            continue  # the previous holder has just removed the folder
        except OSError as error:
            raise UserError(f"{path.parent} cannot be written: {error.strerror}") from None
        with file:
            if fcntl:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UserError(taken) from None
            try:
                replaced = not os.path.samestat(os.stat(path), os.fstat(file.fileno()))
            except FileNotFoundError:
                replaced = True
            if replaced:
                continue  # the previous holder has just removed the file
            yield
            return


def is_locked(path: Path) -> bool:
    """Returns whether a process holds the lock on the file `path`; see `locked_file`."""
    if not fcntl:
        return False
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it does not exist or is not readable
        return False
    return False


@contextlib.contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Yields a file that replaces `path` when the block ends without an error.

    Until then `path` keeps its old content. If the block raises, even on an interrupt, the
    half-written file is removed. A link is followed; a device or a pipe is written directly.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        with open(path, "wb") as file:
            yield file
        return
    temporary = path.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_atomically(path: Path, content: str | bytes, key: str = "") -> None:
    """Writes bytes, or text as UTF-8, through `atomic_writer`; for `key` see `write_errors`.

    Raises:
      UserError: the file cannot be written; nothing is left behind.
    """
    if isinstance(content, str):
        # File names need not be valid UTF-8; surrogates are written as the bytes they encode.
        content = content.encode("utf-8", "surrogateescape")
    with write_errors(path, key), atomic_writer(path) as file:
        file.write(content)


def remove_stale_temporaries(folder: Path, age: float = 3600) -> None:
    """Removes half-written files from `folder` that were last written more than `age` seconds ago.

    Killed processes leave them behind.
    """
    for file in folder.glob(f"{TEMPORARY_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if file.is_file() and time.time() - file.stat().st_mtime > age:
                file.unlink()


def decode_text(raw: bytes, errors: str = "strict") -> str:
    """Decodes UTF-8, or UTF-16 with a byte order mark.

    `errors` is as in `bytes.decode`; in UTF-16, 'surrogateescape' means 'replace'.
    """
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors.replace("surrogateescape", "replace"))
    return raw.decode("utf-8-sig", errors)
