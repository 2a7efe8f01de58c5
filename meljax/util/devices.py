"""JAX's devices: memory, compilation cache, compiler options, batch sizes and shardings."""

import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from meljax.util.files import cache_dir

EIGEN_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
"""Makes XLA:CPU compute convolutions with Eigen instead of YNNPACK, which takes up to twice as long
for the 3 × 3 convolutions of these networks (jaxlib 0.10)."""


def set_up() -> None:
    """Configures JAX for a command, before its backend starts. Environment variables win.

    Compiled programs are cached. GPU memory is allocated as needed, not 75 % in advance.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = cache_dir() / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError:  # without a writable folder JAX compiles again in every run
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


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

    Training, evaluation and prediction use the same size. On a CPU it is one window per device:
    Eigen's rounding of the last bit depends on an item's position in the batch, and a file must get
    the same bits whatever else is scored with it.
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
