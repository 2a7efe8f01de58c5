"""Resampling in blocks at fixed places, so that every sample depends on its surroundings alone."""

import math
from collections.abc import Iterable, Iterator

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


def resample(
    parts: Iterable[Float32[np.ndarray, " _"]], rate: int, new_rate: int
) -> Iterator[Float32[np.ndarray, " _"]]:
    """Yields a signal at `new_rate` Hz, given at `rate` Hz in parts of any length.

    The result does not depend on the lengths of the parts. soxr (quality HQ) resamples blocks with
    `_CONTEXT` samples around them; the difference to resampling all at once is that of rounding.
    """
    divisor = math.gcd(rate, new_rate)
    unit, new_unit = rate // divisor, new_rate // divisor
    context = -(-_CONTEXT // min(unit, new_unit))  # in units, like the block
    block = max(context, _BLOCK // unit)
    buffer, first, start, total = np.zeros(0, np.float32), 0, 0, 0
    pending = iter(parts)
    ended = False
    while True:
        end = (start + block) * unit  # of the block
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
        skip = (start * unit - first) // unit * new_unit
        count = block * new_unit
        if last:
            count = resampled_length(total, rate, new_rate) - start * new_unit
        piece = new[skip : skip + count]
        yield np.pad(piece, (0, count - len(piece)))
        if last:
            return
        start += block
        keep = max(0, (start - context) * unit)
        buffer, first = buffer[keep - first :], keep
