"""Tells what a file is by its first bytes; suffixes may be wrong."""

import re
from io import IOBase
from typing import Literal, NamedTuple

from meljax.data.decode.spliced_file import read_at
from meljax.util.errors import BadFileError

HEAD = 512
"""Bytes at the start of a file that show what it is."""

Reader = Literal["libsndfile", "flac", "mp3", "ogg", "av", "image"]
"""What reads a file."""


class Content(NamedTuple):
    """What a file is."""

    name: str  # with an article, for messages
    reader: Reader | None


_STARTS = (
    (rb"RIFF....WAVE|RF64....WAVE|BW64....WAVE|RIFX....WAVE", "a WAV recording", "libsndfile"),
    (rb"riff\x2e\x91\xcf\x11", "a W64 recording", "libsndfile"),
    (rb"FORM....AIF[FC]", "an AIFF recording", "libsndfile"),
    (rb"caff", "a CAF recording", "libsndfile"),
    (rb"\.snd|dns\.", "an AU recording", "libsndfile"),
    (rb"fLaC", "a FLAC recording", "flac"),
    (rb"OggS", "an Ogg recording", "ogg"),
    (rb"#!AMR", "an AMR recording", "av"),
    (rb"\x0b\x77|\x77\x0b", "an AC-3 recording", "av"),
    (rb"\xff[\xf0\xf1\xf8\xf9].{5}|ADIF", "an AAC recording", "av"),
    (rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]", "an MP3 recording", "mp3"),
    (rb"....ftyp|....moov|....mdat|....wide", "an MP4 file", "av"),
    (rb"\x1a\x45\xdf\xa3", "a Matroska or WebM file", "av"),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a WMA file", "av"),
    (rb"\x89PNG", "a PNG image", "image"),
    (rb"\xff\xd8\xff", "a JPEG image", "image"),
    (rb"GIF8[79]a", "a GIF image", "image"),
    (rb"BM.{4}\0\0\0\0", "a BMP image", "image"),
    (rb"RIFF....WEBP", "a WebP image", "image"),
    (rb"II\*\0|MM\0\*", "a TIFF image", "image"),
    (rb"version https://git-lfs", "a pointer of Git LFS; get the file with 'git lfs pull'", None),
    (rb"PK\x03\x04", "a zip archive", None),
    (rb"\x1f\x8b", "a gzip archive", None),
    (rb"7z\xbc\xaf", "a 7z archive", None),
    (rb"Rar!", "a RAR archive", None),
    (rb"%PDF", "a PDF document", None),
    (rb"\x93NUMPY", "a NumPy array", None),
    (rb"RIFF....AVI |\0\0\x01\xba", "a video", "av"),
    (rb"MThd", "a MIDI file, which has no sound", None),
    (rb"\s*(?i:<!doctype html|<html)", "an HTML page; download the file again", None),
    (rb"\s*<\?xml|\s*<svg", "an XML file", None),
)


def content_of(file: IOBase) -> Content:
    """Returns what a file is; raises `BadFileError` if it is empty."""
    head = read_at(file, after_tags(file, 0), HEAD) or read_at(file, 0, HEAD)
    if not head:
        raise BadFileError("empty file")
    for pattern, name, reader in _STARTS:
        if re.match(pattern, head, re.DOTALL):
            return Content(name, reader)
    if not head.strip(b"\0"):
        return Content("a file of zeros", None)
    if _is_text(head):
        return Content("text", None)
    return Content("not a file that can be read", None)


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


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode("utf-8", errors="strict")
    except UnicodeDecodeError as error:
        text = head[: error.start].decode() if error.start > len(head) - 4 else ""
    return bool(text) and all(char.isprintable() or char.isspace() for char in text)
