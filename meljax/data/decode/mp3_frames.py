"""The length of MP3 files, by counting their frames.

Without a Xing header libsndfile guesses the length from the first frame, and reads only a
part of a file whose bit rate varies.
"""

from io import IOBase

from meljax.data.decode.audio_formats import after_tags
from meljax.data.decode.spliced_file import SplicedFile, file_size
from meljax.util.errors import BadFileError

_BIT_RATES = {  # kbit/s, by (MPEG 1, layer)
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_PIECE = 1 << 22
_JUNK = 1 << 16
"""Maximum bytes without a frame, at the start or end of a file, that are skipped."""


def frame_length(head: int) -> int:
    """Returns the size in bytes of the frame with the 32-bit header `head`; 0 if it is none."""
    if head >> 21 != 0x7FF:
        return 0
    version, layer = head >> 19 & 3, 4 - (head >> 17 & 3)
    rate_code, frequency, padding = head >> 12 & 15, head >> 10 & 3, head >> 9 & 1
    if version == 1 or layer == 4 or rate_code in (0, 15) or frequency == 3:
        return 0
    bits = _BIT_RATES[version == 3, layer][rate_code] * 1000
    rate = _RATES[version][frequency]
    if layer == 1:
        return (12 * bits // rate + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bits // rate + padding


def checked(file: IOBase) -> IOBase:
    """Returns an MP3 file, with a new header frame if none gives the number of frames.

    Raises:
      BadFileError: frames are missing in the middle, or at the end of a file whose length is known.
    """
    start = after_tags(file, 0)
    frames, first, at = 0, None, start
    reader = _Reader(file)
    while (head := reader.number(at)) is not None:
        length = frame_length(head)
        if not length:
            following = _next_frame(reader, at, frames == 0)
            if following is None:
                break
            at = following
            continue
        if at + length > reader.size:
            break
        first = at if first is None else first
        frames += 1
        at += length
    if first is None:
        raise BadFileError("not an MP3 that can be read")
    head = reader.number(first)
    said, is_header = _said(reader, first, head)
    frames -= is_header
    if said is not None and frames < said - 1:
        raise BadFileError("truncated")
    if (said is not None and frames <= said + 1) or head >> 17 & 3 != 1:  # only layer 3 has it
        return file
    skip = first + is_header * frame_length(head)
    return SplicedFile(file, _header_frame(head, frames), skip)


class _Reader:
    """Reads bytes and numbers anywhere in a file, in large pieces."""

    def __init__(self, file: IOBase):
        self.size = file_size(file)
        self.file, self._begin, self._piece = file, 0, b""

    def bytes(self, at: int, size: int) -> bytes:
        """Returns up to `size` bytes from `at` on."""
        if not self._begin <= at <= at + size <= self._begin + len(self._piece):
            self.file.seek(at)
            self._begin, self._piece = at, self.file.read(_PIECE)
        return self._piece[at - self._begin : at - self._begin + size]

    def number(self, at: int) -> int | None:
        """Returns the four bytes at `at` as a number; `None` at the end of the file."""
        four = self.bytes(at, 4)
        return int.from_bytes(four, "big") if len(four) == 4 else None


def _next_frame(reader: _Reader, at: int, leading: bool) -> int | None:
    """Returns where the next frame after `at` starts; `None` if there is none.

    `leading`: whether no frame came before.

    Raises:
      BadFileError: there is something else between frames.
    """
    if reader.bytes(at, 3) == b"ID3":
        return after_tags(reader.file, at)
    rest = reader.bytes(at, _JUNK)
    for place in range(1, len(rest) - 4):
        if rest[place] == 0xFF and (length := frame_length(reader.number(at + place) or 0)):
            after = reader.number(at + place + length)
            if after and frame_length(after):
                if leading or not any(rest[:place]):
                    return at + place
                raise BadFileError(f"damaged at byte {at:,}")
    if reader.size - at > len(rest) and not rest.startswith((b"TAG", b"APETAGEX", b"LYRICS")):
        raise BadFileError(f"damaged at byte {at:,}")
    return None


def _side_information(head: int) -> int:
    """Returns the offset at which a frame with this header may hold a Xing header."""
    version, mono = head >> 19 & 3, head >> 6 & 3 == 3
    return 4 + ((17 if mono else 32) if version == 3 else (9 if mono else 17))


def _said(reader: _Reader, first: int, head: int) -> tuple[int | None, bool]:
    """Returns the number of frames in a Xing header (`None`: unknown), and whether there is one."""
    frame = reader.bytes(first, 200)
    at = _side_information(head)
    if frame[at : at + 4] in (b"Xing", b"Info"):
        known = frame[at + 7] & 1
        return int.from_bytes(frame[at + 8 : at + 12], "big") if known else None, True
    if frame[36:40] == b"VBRI":
        return None, True
    return None, False


def _header_frame(head: int, frames: int) -> bytes:
    """Returns a frame without sound that says how many follow, as LAME writes."""
    head |= 1 << 16  # without a checksum
    for rate_code in range(1, 15):
        head = head & ~(15 << 12) & ~(1 << 9) | rate_code << 12
        if frame_length(head) >= 200:
            break
    said = b"Info" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    body = head.to_bytes(4, "big").ljust(_side_information(head), b"\0") + said
    return body.ljust(frame_length(head), b"\0")
