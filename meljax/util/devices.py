"""JAX's devices: memory, compilation cache, compiler options, batch sizes and shardings."""

import functools
import math
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
import psutil
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from meljax.util.errors import UserError
from meljax.util.files import cache_dir
from meljax.util.phrases import count

EIGEN_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
"""Makes XLA:CPU compute convolutions with Eigen instead of YNNPACK, which takes up to twice as long
for the 3 × 3 convolutions of these networks (jaxlib 0.10)."""

_BACKEND, _BACKEND_CORE = 1_800_000_000, 250_000_000
"""Address space in bytes that the CPU backend takes, and what each core adds (jaxlib 0.10)."""


def set_up() -> None:
    """Configures JAX for a command; must be called before its backend starts.

    Compiled programs are cached. GPU memory is allocated as needed, not 75 % in advance.
    Environment variables take precedence.

    Raises:
      UserError: the backend cannot start within the limit of the address space.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        _cache_programs()
    start_backend_if_limited()


def _cache_programs() -> None:
    folder = cache_dir() / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:  # without a writable folder JAX compiles again in every run
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def address_space() -> float:
    """Returns the limit of this process's address space in bytes (`ulimit -v`), or infinity."""
    process = psutil.Process()
    if not hasattr(process, "rlimit"):  # not on macOS and Windows
        return math.inf
    limit = process.rlimit(psutil.RLIMIT_AS)[0]
    return math.inf if limit == psutil.RLIM_INFINITY else limit


def start_backend_if_limited() -> None:
    """Starts JAX's backend if the address space is limited.

    Raises:
      UserError: the limit is too low; the backend would end the process.
    """
    limit, needed = address_space(), _BACKEND + cores() * _BACKEND_CORE
    if limit == math.inf:
        return
    if limit < needed:
        raise UserError(
            f"memory is limited to {limit / 1e9:.2f} GB (ulimit -v), but JAX needs at least "
            f"{needed / 1e9:.2f} GB on {count(cores(), 'core')}; raise the limit"
        )
    jax.devices()


def jit(function: Callable[..., Any], **arguments: Any) -> Callable[..., Any]:
    """Returns `jax.jit(function, **arguments)` with compiler options that suit the backend.

    The options are chosen at the first call, because asking for the backend initializes it.
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
    """Returns options for `jax.jit`; `None` on accelerators and if XLA does not know them."""
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda: 0, compiler_options=EIGEN_CONVOLUTIONS)()
    except Exception:  # each version of XLA refuses an unknown option in its own way
        return None
    return EIGEN_CONVOLUTIONS


def cores() -> int:
    """Returns how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def scoring_batch(devices: int) -> int:
    """Returns the batch size for scoring windows, a multiple of `devices`.

    Validation, `evaluate` and `predict` use the same size. On a CPU it is one window per device,
    because Eigen's rounding depends on an item's position in the batch, and a file must get the
    same bits whatever else is scored with it.
    """
    return devices if jax.default_backend() == "cpu" else -(-64 // devices) * devices


def batches_in_flight(devices: int) -> int | None:
    """Returns how many batches to score at the same time; `None`: dispatch them without waiting.

    Accelerators queue their work. A single CPU device takes three, because one window leaves cores
    idle. Several emulated CPU devices take one: concurrent programs deadlock in XLA's rendezvous.
    """
    if jax.default_backend() != "cpu":
        return None
    return 3 if devices == 1 else 1


def steps_in_one_program() -> bool:
    """Returns whether many steps are compiled into one program; see `step.train_steps`."""
    return jax.default_backend() != "cpu"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh of `devices`, by default all of this process, along the axis `data`."""
    devices = devices or jax.local_devices()
    return jax.make_mesh((len(devices),), ("data",), (AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that puts whole arrays on every device: parameters, data, metrics."""
    return NamedSharding(mesh, PartitionSpec())


def split_batch(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that divides the first axis (the batch) among the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))
