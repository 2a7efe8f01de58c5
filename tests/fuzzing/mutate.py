"""Random changes of a file, and the repair of checksums: wrong ones would hide other damage."""

import io
import json
import zipfile
import zlib

import numpy as np

from meljax.util.typed_json import digest

_EXTREME = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_EXTREME += (0x7FFFFFFFFFFFFFFF, 0x8000000000000000, 0xFFFFFFFFFFFFFFFF)


def mutated(rng: np.random.Generator, data: bytes, other: bytes, tokens: tuple) -> bytes:
    """Returns `data` with one to five random changes; some insert `other` or one of `tokens`."""
    for _ in range(min(5, rng.geometric(0.5))):
        data = _mutated_once(rng, bytearray(data), other, tokens)
    return data


def _place(rng: np.random.Generator, size: int) -> int:
    """Returns a place in a file; half of the places are in the headers, at its start."""
    return int(rng.integers(0, min(size, 200) if rng.random() < 0.5 else size))


def _mutated_once(rng: np.random.Generator, data: bytearray, other: bytes, tokens: tuple) -> bytes:
    if not data:
        return other
    at = _place(rng, len(data))
    size = int(2 ** rng.uniform(0, 10))
    match rng.integers(0, 10 if tokens else 8):
        case 0:  # flip bits
            for _ in range(rng.integers(1, 9)):
                data[_place(rng, len(data))] ^= 1 << rng.integers(0, 8)
        case 1:  # replace bytes
            data[at : at + size // 32 + 1] = rng.bytes(size // 32 + 1)
        case 2:  # an extreme or false number
            width = int(rng.choice([1, 2, 4, 8]))
            order = ("little", "big")[rng.integers(0, 2)]
            old = int.from_bytes(data[at : at + width], order)
            new = int(rng.choice([0, 1])) and _EXTREME[rng.integers(0, len(_EXTREME))]
            new = new or old + int(rng.integers(-3, 4)) or old * int(2 ** rng.integers(1, 16))
            data[at : at + width] = (new % (1 << 8 * width)).to_bytes(width, order)
        case 3:  # cut off
            del data[int(rng.integers(0, len(data))) :]
        case 4:  # remove
            del data[at : at + size]
        case 5:  # insert
            data[at:at] = rng.bytes(size) if rng.random() < 0.5 else bytes(size)
        case 6:  # repeat a block
            block = data[at : at + size]
            data[at:at] = block * int(rng.integers(1, 20))
        case 7:  # splice with another file
            data[at:] = other[int(rng.integers(0, len(other))) :]
        case _:
            token = tokens[rng.integers(0, len(tokens))]
            data[at : at + int(rng.integers(0, 12))] = token
    return bytes(data)


# Repairs


def repair_png(data: bytes) -> bytes:
    data, at = bytearray(data), 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(data)


def _ogg_table() -> list[int]:
    """Returns the CRC-32 of each byte, with the polynomial of Ogg pages."""
    table = []
    for value in range(256):
        value <<= 24
        for _ in range(8):
            value = (value << 1) ^ (0x04C11DB7 if value & 0x80000000 else 0)
        table.append(value & 0xFFFFFFFF)
    return table


_OGG = _ogg_table()


def repair_ogg(data: bytes) -> bytes:
    data, at = bytearray(data), 0
    while (at := data.find(b"OggS", at)) >= 0 and at + 27 <= len(data):
        lengths = data[at + 27 : at + 27 + data[at + 26]]
        end = at + 27 + len(lengths) + sum(lengths)
        if end > len(data):
            break
        data[at + 22 : at + 26] = bytes(4)
        crc = 0
        for byte in data[at:end]:
            crc = (crc << 8 & 0xFFFFFFFF) ^ _OGG[crc >> 24 ^ byte]
        data[at + 22 : at + 26] = crc.to_bytes(4, "little")
        at = end
    return bytes(data)


def repair_zip(data: bytes) -> bytes:
    """Corrects the checksums of the stored entries of a zip."""
    data = bytearray(data)
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except Exception:
        return bytes(data)
    for entry in entries:
        at = entry.header_offset
        if data[at : at + 4] != b"PK\3\4" or entry.file_size > len(data):
            continue
        names = int.from_bytes(data[at + 26 : at + 28], "little")
        begin = at + 30 + names + int.from_bytes(data[at + 28 : at + 30], "little")
        crc = zlib.crc32(data[begin : begin + entry.file_size]).to_bytes(4, "little")
        old = entry.CRC.to_bytes(4, "little")
        place = data.rfind(entry.filename.encode())  # in the central directory
        if data[place - 30 : place - 26] == old:
            data[place - 30 : place - 26] = crc
    return bytes(data)


def repair_digest(data: bytes) -> bytes:
    """Corrects the digest of `config.json` or of the metadata of a checkpoint, if still JSON."""
    try:
        saved = json.loads(data)
        if "content" in saved:
            saved["sha256"] = digest(saved["content"])
        else:
            content = {k: saved[k] for k in saved if k not in ("format", "sha256")}
            saved["sha256"] = digest(content)
        return json.dumps(saved).encode()
    except (ValueError, TypeError, RecursionError):
        return data
