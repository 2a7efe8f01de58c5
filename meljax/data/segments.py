"""Cuts segments out of recordings."""

from collections.abc import Sequence

from meljax.data.decode.audio_file import AudioFile
from meljax.data.decode.decoder import Decoded
from meljax.data.decode.long_recording import LongRecording, Samples, read_recording
from meljax.data.manifest import Item
from meljax.data.read_files import OpenFile
from meljax.features.samples import narrowed
from meljax.util.errors import BadFileError

_SLACK = 0.05
"""Seconds by which a segment may end after its file: annotations are rounded."""


class OutsideError(BadFileError):
    """A segment that is not in its recording."""


def cut_segment(item: Item, content: Samples, rate: int) -> Samples:
    """Returns the part of a decoded file that its item names, at `rate` samples per second.

    Raises:
      OutsideError: the segment is empty or ends more than `_SLACK` seconds after the file.
    """
    if item.start is None:
        return content
    part = content[round(item.start * rate) : round(item.end * rate)]
    if item.end > len(content) / rate + _SLACK or not len(part):
        raise OutsideError(f"outside of the recording, which has {len(content) / rate:.2f} s")
    return part


def read_segments(
    items: Sequence[Item], open_file: OpenFile, rate: int
) -> list[Decoded | OutsideError]:
    """Returns the samples of segments of one recording, or why they cannot be cut.

    Only the segments are held in memory.

    Args:
      items: the segments, sorted by start.
      open_file: opens their file.
      rate: of the samples, in Hz.

    Raises:
      BadFileError: the file cannot be used.
    """
    file = AudioFile(open_file, rate)
    content = read_recording(file)
    parts: list[Samples | OutsideError] = []
    for item in items:
        try:
            parts.append(cut_segment(item, content, rate))
        except OutsideError as error:
            parts.append(error)
    inside = [part for part in parts if not isinstance(part, OutsideError)]
    if isinstance(content, LongRecording):
        spans = [(part.first, part.first + len(part)) for part in inside]
        arrays = iter([narrowed(array) for array in content.read_spans(spans)])
    else:
        arrays = iter([array.copy() for array in inside])
    return [
        part if isinstance(part, OutsideError) else Decoded(next(arrays), file.facts)
        for part in parts
    ]
