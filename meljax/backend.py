"""What the backend at hand is given: options for its compiler, and a batch that suits it."""

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

    Every entry point takes the same number, so that the same file gives the same bits. On a CPU
    few are best: what a layer leaves behind still lies in memory that was used before.
    """
    most = 8 if jax.default_backend() == "cpu" else 64
    return -(-most // devices) * devices
