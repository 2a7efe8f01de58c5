"""Names the content of a file by its first bytes, for messages about files that cannot be read."""

import codecs
import re

LFS_POINTER = b"version https://git-lfs"
"""How the small text files begin that Git LFS keeps in place of large ones."""
_WEB_PAGE = re.compile(rb"\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body)\b", re.I | re.S)
_SVG = re.compile(rb"\s*(<\?xml.*?\?>\s*)?(<!--.*?-->\s*|<!doctype svg.*?>\s*)*<svg\b", re.I | re.S)
_MPEG_AUDIO = re.compile(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xfb]")  # frame sync of MP3
_CONTROL = re.compile(rb"[\0-\x07\x0e-\x1a\x1c-\x1f\x7f]")

_MAGIC = {
    b"\x89PNG": "an image (PNG)",
    b"\xff\xd8\xff": "an image (JPEG)",
    b"GIF8": "an image (GIF)",
    b"fLaC": "a recording (FLAC)",
    b"OggS": "a recording (Ogg)",
    b"ID3": "a recording (MP3)",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "a gzip archive",
    b"\x93NUMPY": "a NumPy array",
    b"\x1aE\xdf\xa3": "a video (Matroska or WebM)",
}
_RIFF = {
    b"WAVE": "a recording (WAV)",
    b"WEBP": "an image (WebP)",
    b"AVI ": "a video (AVI)",
    b"AIFF": "a recording (AIFF)",
    b"AIFC": "a recording (AIFF)",
}
_BRANDS = {
    b"avif": "an AVIF image; convert it to PNG",
    b"heic": "a HEIC image; convert it to PNG or JPEG",
    b"heix": "a HEIC image; convert it to PNG or JPEG",
    b"mif1": "a HEIF image; convert it to PNG or JPEG",
    b"M4A ": "a recording (M4A)",
}


def describe(data: bytes) -> str | None:
    """Returns what a file is, such as 'a recording (WAV)', by its first bytes; `None` if unknown.

    A text that is no web page is 'text'. Some answers continue with a remedy after '; '.
    """
    if data.startswith(LFS_POINTER):
        return "a Git LFS pointer; run 'git lfs pull'"
    if data[:4] in (b"RIFF", b"RF64", b"FORM") and data[8:12] in _RIFF:
        return _RIFF[data[8:12]]
    if data[4:8] == b"ftyp":
        return _BRANDS.get(data[8:12], "a recording or video (MP4)")
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name
    if _MPEG_AUDIO.match(data):
        return "a recording (MP3)"
    return _text(data[:4096])


def refusal(data: bytes, wanted: str) -> str | None:
    """Returns why a file cannot be read: 'text, not an image' if `wanted` is 'an image'.

    `None` if its content is unknown, or is `wanted`.
    """
    found = describe(data)
    if found is None or found.startswith(wanted):
        return None
    what, _, remedy = found.partition("; ")
    if wanted.split()[-1] in what.split():
        return f"{what}, which is not supported; {remedy}"
    return f"{what}, not {wanted}" + (f"; {remedy}" if remedy else "")


def _text(head: bytes) -> str | None:
    """Returns the kind of a text by its beginning; `None` if it is not a text."""
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if head.startswith(mark):
            head = head[2 : len(head) // 2 * 2].decode(encoding, "replace").encode(errors="replace")
    head = head.removeprefix(codecs.BOM_UTF8)
    if _WEB_PAGE.match(head):
        return "a web page (HTML); download the file again"
    if _SVG.match(head):
        return "an SVG drawing; convert it to PNG"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut off
    except UnicodeDecodeError:
        return None
    return "text" if head.strip() and not _CONTROL.search(head) else None
