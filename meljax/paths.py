"""Where files lie that are no part of a run, and how a file is written whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from meljax.errors import UserError

try:
    import fcntl
except ImportError:  # Windows has none, and goes without the lock
    fcntl = None


def cache_dir() -> Path:
    """Returns `$XDG_CACHE_HOME/meljax`, by default `~/.cache/meljax`; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meljax"


@contextlib.contextmanager
def locked_file(path: Path, taken: str) -> Iterator[None]:
    """Holds `path`, made if need be, for this process alone; a kill lets go of it too.

    Args:
      path: an empty file; the folders above it are made too.
      taken: what to say if another process holds it.

    Raises:
      UserError: another process holds it, or it cannot be written.
    """
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "w")  # noqa: SIM115 - open as long as the lock is held
        except FileNotFoundError:
            continue  # who held it before has just removed the folder
        except OSError as error:
            raise UserError(f"{path.parent} cannot be written: {error.strerror}") from None
        with file:
            if fcntl:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UserError(taken) from None
            if not _is_file(path, file.fileno()):
                continue  # who held it before has just removed it
            yield
            return


def _is_file(path: Path, number: int) -> bool:
    """Returns whether the open file `number` is the one that lies at `path`."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(number))
    except FileNotFoundError:
        return False


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes `content` so that `path` holds either what it held before or all of it.

    A link is followed; a device or a pipe is written to.

    Raises:
      OSError: it cannot be written; nothing is left behind.
    """
    path = Path(os.path.realpath(path))
    if isinstance(content, str):
        # File names need not be valid UTF-8; they are written as they came.
        content = content.encode("utf-8", "surrogateescape")
    if path.exists() and not path.is_file() and not path.is_dir():
        path.write_bytes(content)
        return
    temporary = path.parent / f".meljax-{os.getpid()}"
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
