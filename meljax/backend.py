"""What the backend at hand is given: memory, options for its compiler, batches that suit it."""

import functools
import os
import tempfile
from collections.abc import Callable
from typing import Any

import jax

from meljax.paths import cache_dir

EIGEN_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
"""Keeps XLA:CPU from handing convolutions to YNNPACK, which takes up to twice as long as Eigen for
the 3 × 3 ones of these networks (jaxlib 0.10)."""


def set_up() -> None:
    """Prepares JAX for a command, before its backend starts; the environment has the last word.

    Compiled programs are kept between runs, and of a GPU's memory as much is taken as is needed,
    not three quarters at once.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        _keep_compiled_programs()


def _keep_compiled_programs() -> None:
    """Names the cache; a folder that cannot be written is no error: JAX then compiles anew."""
    folder = cache_dir() / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def jit(function: Callable[..., Any], **arguments: Any) -> Callable[..., Any]:
    """Returns `jax.jit(function, **arguments)`, with the options that serve this backend.

    They are found out at the first call: to ask for the backend is to start it.
    """

    @functools.cache
    def compiled() -> Callable[..., Any]:
        return jax.jit(function, compiler_options=compiler_options(), **arguments)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return compiled()(*args, **kwargs)

    return call


@functools.cache
def compiler_options() -> dict[str, str] | None:
    """Returns options for `jax.jit`; `None` where the backend is no CPU or does not know them."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=EIGEN_CONVOLUTIONS)()
    except Exception:  # each version of XLA has its own way to refuse an option
        return None
    return EIGEN_CONVOLUTIONS


def scoring_batch(devices: int) -> int:
    """Returns how many windows are scored at once, a multiple of `devices`.

    Every entry point takes the same number. On a CPU it is one on each device: Eigen's rounding in
    the last bit depends on where in a batch an item lies, and the same file must give the same bits
    in any company.
    """
    return devices if jax.default_backend() == "cpu" else -(-64 // devices) * devices


def steps_in_one_program() -> bool:
    """Returns whether to compile an epoch of steps into one program; see `steps.train_epoch`."""
    return jax.default_backend() != "cpu"


def in_flight() -> int:
    """Returns how many such batches are best computed at the same time.

    On a CPU three: single windows leave gaps in which others get on. An accelerator queues what it
    is given.
    """
    return 3 if jax.default_backend() == "cpu" else 1
