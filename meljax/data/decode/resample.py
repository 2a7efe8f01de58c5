"""Resampling in blocks at fixed places, so that every sample depends on its surroundings alone."""

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import soxr
from jaxtyping import Float32

_BLOCK = 1 << 18
"""Approximate number of input samples in a block."""
_CONTEXT = 1024
"""Samples on both sides of a block, at the lower rate; soxr's filter is shorter."""


def resampled_length(samples: int, rate: int, new_rate: int) -> int:
    """Returns the number of samples after resampling."""
    return (2 * samples * new_rate + rate) // (2 * rate)


class _Blocks(NamedTuple):
    """The lengths that two rates have in common, for `resample`."""

    unit: int  # input samples that are a whole number of output samples
    new_unit: int  # output samples of a unit
    context: int  # in units, like the block
    block: int


def _blocks(rate: int, new_rate: int) -> _Blocks:
    divisor = math.gcd(rate, new_rate)
    unit, new_unit = rate // divisor, new_rate // divisor
    context = -(-_CONTEXT // min(unit, new_unit))
    return _Blocks(unit, new_unit, context, max(context, _BLOCK // unit))


def first_input(start: int, rate: int, new_rate: int) -> int:
    """Returns the first input sample that `resample` needs for its output from `start` on."""
    unit, new_unit, context, block = _blocks(rate, new_rate)
    first = start // (block * new_unit) * block
    return max(0, first - context) * unit


def resample(
    parts: Iterable[Float32[np.ndarray, " _"]], rate: int, new_rate: int, start: int = 0
) -> Iterator[Float32[np.ndarray, " _"]]:
    """Yields a signal at `new_rate` Hz from its sample `start` on, given at `rate` Hz.

    The signal comes in parts of any length, from the sample `first_input` on. The result depends
    neither on the lengths of the parts nor on `start`. soxr (quality HQ) resamples blocks with
    `_CONTEXT` samples around them; the difference to resampling all at once is that of rounding.
    """
    unit, new_unit, context, block = _blocks(rate, new_rate)
    first = first_input(start, rate, new_rate)
    at = start // (block * new_unit) * block  # of the block, in units
    buffer, total = np.zeros(0, np.float32), first
    pending = iter(parts)
    ended = False
    while True:
        end = (at + block) * unit  # of the block
        pieces, length = [buffer], len(buffer)
        while not ended and first + length < end + context * unit:
            part = next(pending, None)
            if part is None:
                ended = True
                break
            pieces.append(part)
            length += len(part)
            total += len(part)
        buffer = np.concatenate(pieces)
        last = ended and total <= end
        stop = min(total - first, (end + context * unit) - first)
        new = soxr.resample(buffer[:stop], rate, new_rate, quality="HQ")
        skip = (at * unit - first) // unit * new_unit
        count = block * new_unit
        if last:
            count = max(0, resampled_length(total, rate, new_rate) - at * new_unit)
        piece = new[skip : skip + count]
        yield np.pad(piece, (0, count - len(piece)))[max(0, start - at * new_unit) :]
        if last:
            return
        at += block
        keep = max(0, (at - context) * unit)
        buffer, first = buffer[keep - first :], keep
