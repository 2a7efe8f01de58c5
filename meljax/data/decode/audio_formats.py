"""Tells which decoder reads a recording, by its first bytes; suffixes may be wrong."""

import re
from io import IOBase
from typing import Literal, NamedTuple

from meljax.data.decode import file_content
from meljax.data.decode.spliced_file import read_at
from meljax.util.errors import BadFileError

_HEAD = 4096
"""Bytes at the start of a file that show what it is."""


class Format(NamedTuple):
    """The format of a recording."""

    name: str  # with an article, for messages
    reader: Literal["libsndfile", "flac", "mp3", "ogg", "av"]


_FORMATS = {
    rb"RIFF....WAVE|RF64....WAVE|BW64....WAVE|RIFX....WAVE": Format("a WAV file", "libsndfile"),
    rb"riff\x2e\x91\xcf\x11": Format("a W64 file", "libsndfile"),
    rb"FORM....AIF[FC]": Format("an AIFF file", "libsndfile"),
    rb"caff": Format("a CAF file", "libsndfile"),
    rb"\.snd|dns\.": Format("an AU file", "libsndfile"),
    rb"fLaC": Format("a FLAC file", "flac"),
    rb"OggS": Format("an Ogg file", "ogg"),
    rb"#!AMR": Format("an AMR file", "av"),
    rb"\x0b\x77|\x77\x0b": Format("an AC-3 file", "av"),
    rb"\xff[\xf0\xf1\xf8\xf9].{5}|ADIF": Format("an AAC file", "av"),
    rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]": Format("an MP3 file", "mp3"),
    rb"....(ftyp|moov|mdat|wide)": Format("an MP4 file", "av"),
    rb"\x1a\x45\xdf\xa3": Format("a Matroska or WebM file", "av"),
    rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11": Format("a WMA file", "av"),
    rb"RIFF....AVI |\0\0\x01\xba": Format("a video", "av"),
}
"""Format by a regular expression for the first bytes."""


def format_of(file: IOBase) -> Format:
    """Returns the format of a recording; raises `BadFileError` if it is another file."""
    head = read_at(file, after_tags(file, 0), _HEAD) or read_at(file, 0, _HEAD)
    if not head:
        raise BadFileError("empty file")
    for pattern, found in _FORMATS.items():
        if re.match(pattern, head, re.DOTALL):
            return found
    reason = file_content.refusal(head, "a recording")
    raise BadFileError(reason or "not a recording that can be read")


def after_tags(file: IOBase, at: int) -> int:
    """Returns where the ID3v2 tags at `at` end, which may precede MP3 and FLAC."""
    while True:
        head = read_at(file, at, 10)
        if head[:3] != b"ID3" or len(head) < 10:
            return at
        size = 0
        for byte in head[6:]:
            size = size << 7 | byte & 0x7F
        at += 10 + size + 10 * (head[5] >> 4 & 1)
