"""How much memory is free, and how much a computation needs."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import psutil
from jax.extend.core import jaxprs_in_params

from meljax.util.devices import address_space, start_backend_if_limited
from meljax.util.errors import UserError

_CGROUP = Path("/sys/fs/cgroup")
_COMPILER = 700_000_000
"""Address space that XLA needs to compile, in bytes; without it, it ends the process."""


def free_on_host() -> int:
    """Returns the bytes that this process can still allocate.

    Raises:
      UserError: JAX's backend cannot start within the limit of the address space.
    """
    limits = [psutil.virtual_memory().available]
    if (limit := address_space()) < math.inf:
        start_backend_if_limited()  # so that what it takes is counted
        limits.append(int(limit) - psutil.Process().memory_info().vms - _COMPILER)
    with contextlib.suppress(OSError, ValueError, KeyError):  # the limit of a container
        rows = (line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        used = {name: int(value) for name, value in rows}["anon"]
        limits.append(int((_CGROUP / "memory.max").read_text()) - used)
    return max(0, min(limits))


def free_on(device: jax.Device) -> int:
    """Returns the bytes that are free on a device; a CPU has the memory of the host."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if not stats or "bytes_limit" not in stats:
        return free_on_host()
    return stats["bytes_limit"] - stats["bytes_in_use"]


def size(count: int) -> str:
    """Returns a number of bytes in MB or GB."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.0f} MB"


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turns running out of memory, on the host or on a device, into a `UserError` with `what`."""
    try:
        yield
    except MemoryError as error:
        raise UserError(f"out of memory: {what}") from error
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise UserError(f"out of memory: {what}") from error


_LARGE = ("conv_general_dilated", "fft", "dot_general")
"""Operations whose operands and results XLA holds in memory; it fuses others."""


class Need(NamedTuple):
    """Bytes that a computation needs at least.

    Attributes:
      held: inputs of convolutions, which are kept for the gradient.
      largest: operands and result of the largest convolution, Fourier transform or matrix product.
    """

    held: int
    largest: int


def need(function: Callable[..., Any], *arguments: Any) -> Need:
    """Returns what `function` needs; it is traced, not run.

    XLA needs more, up to four times: batch normalization keeps its inputs too.
    """
    return _need(jax.make_jaxpr(function)(*arguments).jaxpr)


def _need(jaxpr: Any) -> Need:
    held = largest = 0
    for equation in jaxpr.eqns:
        inner = [_need(each) for each in jaxprs_in_params(equation.params)]
        if equation.primitive.name == "conv_general_dilated":
            held += _bytes(equation.invars[0])
        if equation.primitive.name in _LARGE:
            largest = max(largest, sum(map(_bytes, (*equation.invars, *equation.outvars))))
        held += sum(each.held for each in inner)
        largest = max([largest, *(each.largest for each in inner)])
    return Need(held, largest)


def _bytes(variable: Any) -> int:
    shape, dtype = getattr(variable.aval, "shape", ()), getattr(variable.aval, "dtype", None)
    return math.prod(shape) * getattr(dtype, "itemsize", 0)
