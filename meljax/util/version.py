"""Versions of meljax and of the packages that influence its results."""

import contextlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path

__version__ = "0.1.0"

COMPUTING = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "clu", "numpy")
"""Packages that compute or store the results of a run."""

DECODING = ("pillow", "soundfile", "soxr", "av")
"""Packages that decode files; another version may decode the same file differently."""


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Returns the version of meljax, of Python and of the installed `packages`, by name."""
    ours = {"meljax": __version__, "python": platform.python_version()}
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return ours | found


def commits() -> dict[str, str]:
    """Returns the Git commit of meljax's code and of the current folder, where there is one.

    ' with changes' follows the commit if tracked files differ from it.
    """
    folders = {"meljax": Path(__file__).parents[2], "current folder": Path.cwd()}
    found = {name: _commit(folder) for name, folder in folders.items()}
    return {name: commit for name, commit in found.items() if commit}


def _commit(folder: Path) -> str | None:
    try:
        if folder.name == "site-packages":  # the repository around it has other code
            return None
        commit = _git(folder, "rev-parse", "HEAD")
        changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):  # no Git, no repository, or a very slow one
        return None
    return f"{commit} with changes" if changes else commit


def _git(folder: Path, *arguments: str) -> str:
    # The settings of a repository may name a program that watches its files: it must not run.
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)
    return done.stdout.strip()
