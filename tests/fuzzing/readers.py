"""The formats: how their files are made, mutated and read."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .mutate import mutated, repair_digest, repair_ogg, repair_png, repair_zip
from .read import (
    read_file,
    read_folder,
    read_meta,
    read_results,
    read_table,
    read_tfds,
    read_weights,
)
from .seeds import (
    TFDS_SET,
    Seeds,
    audacity,
    av_sounds,
    class_folders,
    csv,
    images,
    json_lines,
    json_list,
    legacy_weights,
    metadata,
    raven,
    recordings,
    run_file,
    run_files,
    safetensors_weights,
    sounds,
    split_list,
    tfds_file,
    tfds_set,
    tsv,
    zip_weights,
)


class Reader(NamedTuple):
    """How the files of a format are made and read."""

    seeds: Callable[[], Seeds]
    name: str  # of the mutated file, relative to the folder of an input
    read: Callable[[Path], object]  # given the folder; raises `UserError`
    repair: Callable[[bytes], bytes] = lambda data: data  # corrects checksums
    tokens: tuple[bytes, ...] = ()  # that are inserted
    others: Callable[[Path], object] = lambda folder: None  # writes the other files


_TEXT = (
    *(b"\0", b'"', b"'", b",", b"\t", b";", b"\n", b"\r", b"\r\n", b"\xff", b"\xef\xbb\xbf"),
    *(b"nan", b"inf", b"-1", b"1e999", b"1e-400", b"9" * 30, b"9" * 5000, b"0x10", b"1_0"),
    *(b"\\ud800", "\u2028".encode(), b"\x0b", b"../../", b"/", b"//", b".", b"C:\\x", b"http://x/"),
    *(b"[" * 3000, b'{"a":' * 3000, b"[", b"]", b"{", b"}", b"null", b"true", b"[]", b'""', b":"),
    *(
        b"#",
        b"sep=|\n",
        b"path,label\n",
        b"train",
        b"test",
        b"val",
        b"a" * 200_000,
        b"file://a.wav",
    ),
    *(b"\x1b[31m", b"a|b", b"['a', 'b']", b"file_name", b"Begin Time (s)\tEnd Time (s)"),
)
_JSON = (
    *(b'"type"', b'"pythonClassName"', b'"os.path"', b'"-1"', b'"9999999999"', b'"999999999999"'),
    *(b"1e400", b"-1", b"99999999999", b'"dimensions"', b'"float64"', b'"U999999999"', b'"object"'),
    *(b'"array_record"', b'"tfrecord"', b'"riegeli"', b'"shardLengths"', b'"numClasses"', b"../"),
    *(b"tensorflow_datasets.core.features.video_feature.Video", b"{SPLIT}", b"{DATASET}-x"),
    *(b"tensorflow_datasets.core.features.audio_feature.Audio", b'"sequence"', b'"classLabel"'),
    *(b"[" * 3000, b'{"a":' * 3000, b"null", b"{}", b"[]", b"\\ud800", b"\0"),
)


_TIFF = [{"compression": c} for c in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg")]
_FAX = [{"compression": c} for c in ("group3", "group4", "tiff_ccitt")]
_JPEG = [{}, {"progressive": True}]
_WEBP = [{}, {"lossless": True}]

FILES = {
    "png": Reader(images("PNG", "RGB L P 1 LA RGBA I;16"), "x.png", read_file, repair_png),
    "jpeg": Reader(images("JPEG", "RGB L CMYK", _JPEG), "x.jpg", read_file),
    "bmp": Reader(images("BMP", "RGB L P 1 RGBA"), "x.bmp", read_file),
    "webp": Reader(images("WEBP", "RGB RGBA", _WEBP), "x.webp", read_file),
    "gif": Reader(images("GIF", "RGB L P 1"), "x.gif", read_file),
    "tiff": Reader(images("TIFF", "P RGBA I;16 1 CMYK"), "x.tif", read_file),
    "tiff-packed": Reader(images("TIFF", "RGB L", [{}, *_TIFF]), "x.tif", read_file),
    "tiff-fax": Reader(images("TIFF", "1", _FAX), "x.tif", read_file),
    "wav": Reader(sounds("WAV", "PCM_16 PCM_U8 PCM_24 FLOAT DOUBLE"), "x.wav", read_file),
    "wav-packed": Reader(
        sounds("WAV", "ULAW IMA_ADPCM MS_ADPCM GSM610 G721_32 NMS_ADPCM_16", 8000),
        "x.wav",
        read_file,
    ),
    "w64": Reader(sounds("W64", "PCM_16 FLOAT MS_ADPCM"), "x.w64", read_file),
    "rf64": Reader(sounds("RF64", "PCM_16 FLOAT"), "x.rf64", read_file),
    "flac": Reader(sounds("FLAC", "PCM_16 PCM_24"), "x.flac", read_file),
    "ogg": Reader(sounds("OGG", "VORBIS"), "x.ogg", read_file, repair_ogg),
    "opus": Reader(sounds("OGG", "OPUS", 48000), "x.opus", read_file, repair_ogg),
    "mp3": Reader(sounds("MP3", "MPEG_LAYER_III"), "x.mp3", read_file),
    "aiff": Reader(sounds("AIFF", "PCM_16 PCM_S8 FLOAT ULAW IMA_ADPCM"), "x.aiff", read_file),
    "au": Reader(sounds("AU", "PCM_16 FLOAT ULAW G721_32 G723_24", 8000), "x.au", read_file),
    "caf": Reader(sounds("CAF", "PCM_16 FLOAT ULAW ALAC_16 ALAC_24"), "x.caf", read_file),
    "m4a": Reader(av_sounds("ipod", "aac"), "x.m4a", read_file),
    "alac": Reader(av_sounds("ipod", "alac"), "x.m4a", read_file),
    "aac": Reader(av_sounds("adts", "aac"), "x.aac", read_file),
    "webm": Reader(av_sounds("webm", "libopus"), "x.webm", read_file),
    "wma": Reader(av_sounds("asf", "wmav2"), "x.wma", read_file),
    "ac3": Reader(av_sounds("ac3", "ac3"), "x.ac3", read_file),
}
WEIGHTS = {
    "pth-zipped": Reader(zip_weights, "x.pth", read_weights, repair_zip),
    "pth-legacy": Reader(legacy_weights, "x.pth", read_weights),
    "safetensors": Reader(safetensors_weights, "x.safetensors", read_weights),
}


def _table(make: Callable[[], Seeds], name: str) -> Reader:
    return Reader(make, name, read_table, tokens=_TEXT, others=recordings)


def _in_folder(make: Callable[[], Seeds], name: str, others=recordings) -> Reader:
    return Reader(make, name, read_folder, tokens=_TEXT, others=others)


TABLES = {
    "csv": _table(csv, "x.csv"),
    "tsv": _table(tsv, "x.tsv"),
    "json": _table(json_list, "x.json"),
    "jsonl": _table(json_lines, "x.jsonl"),
    "raven": _table(raven, "x.txt"),
    "audacity": _table(audacity, "a.txt"),
    "annotations": _in_folder(raven, "a.selections.txt"),
    "metadata-csv": _in_folder(lambda: metadata(csv()[:2]), "metadata.csv"),
    "metadata-jsonl": _in_folder(lambda: metadata(json_lines()), "metadata.jsonl"),
    "near-table": _in_folder(csv, "labels.csv", class_folders),
    "split-list": _in_folder(split_list, "validation_list.txt", class_folders),
}


def _in_set(name: str, tokens: tuple[bytes, ...] = ()) -> Reader:
    path = f"{TFDS_SET}/{name}"
    return Reader(tfds_file(path), path, read_tfds, tokens=tokens, others=tfds_set)


TFDS = {
    "tfds-features": _in_set("features.json", _JSON),
    "tfds-info": _in_set("dataset_info.json", _JSON),
    "tfds-metadata": _in_set("metadata.json", _JSON),
    "tfds-labels": _in_set("label.labels.txt", _TEXT),
    "tfds-records": _in_set("fuzzed-train.array_record-00000-of-00001"),
}


def _in_run(name: str, read: Callable[[Path], object], repair=lambda data: data) -> Reader:
    return Reader(run_file(name), name, read, repair, _TEXT + _JSON, run_files)


RUNS = {
    "run-config": _in_run("config.json", read_results, repair_digest),
    "run-metrics": _in_run("metrics.jsonl", read_results),
    "run-predictions": _in_run("predictions.csv", read_results),
    "run-calibration": _in_run("calibration.json", read_results),
    "checkpoint-meta": _in_run("checkpoints/8/meta/metadata", read_meta, repair_digest),
}
READERS = FILES | WEIGHTS | TABLES | TFDS | RUNS


def make_input(reader: str, seeds: Seeds, seed: int, index: int) -> bytes:
    """Returns an input; the same arguments give the same bytes."""
    rng = np.random.default_rng((seed, zlib.crc32(reader.encode()), index))
    one, other = (seeds[rng.integers(0, len(seeds))] for _ in range(2))
    data = mutated(rng, one, other, READERS[reader].tokens)
    return READERS[reader].repair(data) if rng.random() < 0.8 else data
