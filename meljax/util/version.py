"""Versions of meljax and of the packages that influence its results."""

import contextlib
import importlib.metadata
import platform
from collections.abc import Iterable

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
