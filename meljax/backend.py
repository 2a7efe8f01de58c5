"""What the backend at hand is given: options for its compiler, and batches that suit it."""

import functools
from collections.abc import Callable
from typing import Any

import jax

EIGEN_CONVOLUTIONS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
"""Keeps XLA:CPU from handing convolutions to YNNPACK, which takes up to twice as long as Eigen for
the 3 × 3 ones of these networks (jaxlib 0.10)."""


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
