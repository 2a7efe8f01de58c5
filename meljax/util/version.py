"""Versions of meljax and of the packages that influence its results."""

import importlib.metadata
import platform
from collections.abc import Iterable

__version__ = "0.1.0"

COMPUTING = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "clu", "numpy")
"""Packages that compute or store the results of a run."""

DECODING = ("pillow", "soundfile", "soxr")
"""Packages that decode files; another version may decode the same file differently."""


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Returns the version of meljax, of Python and of each of `packages`, by name."""
    ours = {"meljax": __version__, "python": platform.python_version()}
    return ours | {package: importlib.metadata.version(package) for package in packages}
