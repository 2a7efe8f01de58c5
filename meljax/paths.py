"""Where files lie that are no part of a run, and how a file is written whole or not at all."""

import contextlib
import os
import tempfile
from pathlib import Path

import jax


def cache_dir() -> Path:
    """Returns `$XDG_CACHE_HOME/meljax`, by default `~/.cache/meljax`; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meljax"


def use_compilation_cache() -> None:
    """Lets JAX keep compiled programs between runs, unless the environment says where or not.

    A folder that cannot be written is no error: JAX then compiles anew.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = cache_dir() / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


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
