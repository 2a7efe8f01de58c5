"""Small valid files of each format; inputs are mutations of these."""

import contextlib
import functools
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from meljax.data.tfds import catalog
from meljax.models.pretrained import weights_file

from .mutate import repair_digest, repair_ogg

ROOT = Path(__file__).parent.parent.parent
Seeds = list[bytes]
TFDS_SET = "fuzzed/1.0.0"


def images(form: str, modes: str, options=({},)) -> Callable[[], Seeds]:
    """Returns a function that makes an image of each mode, with each of the options."""

    def make() -> Seeds:
        levels = np.add.outer(np.arange(20), np.arange(24)) * 5
        rgb = np.stack([levels, 255 - levels, levels // 2], axis=-1).astype(np.uint8)
        found = []
        for mode in modes.split():
            if mode == "I;16":
                image = Image.fromarray(levels.astype(np.uint16) * 257)
            else:
                image = Image.fromarray(rgb).convert(mode)
            for each in options:
                file = io.BytesIO()
                image.save(file, form, **each)
                found.append(file.getvalue())
        return found

    return make


def _tone(samples: int) -> np.ndarray:
    time = np.arange(samples) / 8000
    return (0.3 * np.sin(2 * np.pi * 440 * time + 3 * np.sin(30 * time))).astype(np.float32)


def sounds(form: str, subtypes: str, stereo_rate: int = 44_100) -> Callable[[], Seeds]:
    """Returns a function that makes a mono (8 kHz) and a stereo recording of each subtype."""
    samples = {"MP3": 6000, "OGG": 3000}.get(form, 600)

    def make() -> Seeds:
        found = []
        for subtype in subtypes.split():
            for channels, rate in ((1, 8000), (2, stereo_rate)):
                file = io.BytesIO()
                signal = np.stack([_tone(samples)] * channels, axis=1)
                with contextlib.suppress(soundfile.LibsndfileError):  # some are mono only
                    soundfile.write(file, signal, rate, subtype, format=form)
                    found.append(_without_randomness(file.getvalue()))
        return found

    return make


def _without_randomness(data: bytes) -> bytes:
    """Returns a recording without its time of writing and the random numbers of its streams."""
    changed = bytearray(data)
    if (at := data.find(b"PEAK")) >= 0:
        changed[at + 12 : at + 16] = bytes(4)
    at = -1
    while (at := data.find(b"OggS", at + 1)) >= 0:
        changed[at + 14 : at + 18] = b"meel"
    return repair_ogg(bytes(changed))


def av_sounds(form: str, codec: str) -> Callable[[], Seeds]:
    def make() -> Seeds:
        import av  # an extra

        file = io.BytesIO()
        with av.open(file, "w", form, options={"fflags": "bitexact"}) as container:
            stream = container.add_stream(codec, rate=48000, layout="mono", bit_rate=64000)
            frame = av.AudioFrame.from_ndarray(_tone(8192)[None], "fltp", "mono")
            frame.sample_rate = 48000
            resampler = av.AudioResampler(stream.format, "mono", 48000, stream.frame_size or None)
            for each in (*resampler.resample(frame), *resampler.resample(None)):
                container.mux(stream.encode(each))
            container.mux(stream.encode(None))
        return [file.getvalue()]

    return make


def zip_weights() -> Seeds:
    return [(ROOT / "tests/data/tiny_resnet18.pth").read_bytes()]


def legacy_weights() -> Seeds:
    return [(ROOT / "tests/data/tiny_resnet18_legacy.pth").read_bytes()]


def safetensors_weights() -> Seeds:
    arrays = weights_file.parse_weights(zip_weights()[0], "tiny")
    return [weights_file.to_safetensors(arrays, {"made": "by tests"})]


_ROWS = [
    {"path": f"{name}.wav", "label": "ab"[i % 2], "group": f"g{i // 3}", "split": "train"}
    | {"start": 0.0, "end": 0.02 + i / 100}
    for i, name in enumerate(("a", "b", "c", "d"))
]


def _delimited(delimiter: str, quote: str = "") -> bytes:
    lines = [list(_ROWS[0]), *(list(map(str, row.values())) for row in _ROWS)]
    return "\n".join(
        delimiter.join(quote + cell + quote for cell in line) for line in lines
    ).encode()


def csv() -> Seeds:
    return [
        _delimited(","),
        _delimited(";", '"'),
        b"# x\nsep=,\n" + _delimited(","),
        _delimited(",").decode().encode("utf-16"),
    ]


def tsv() -> Seeds:
    return [_delimited("\t"), b"# comment\n" + _delimited("\t"), _delimited("|")]


def json_list() -> Seeds:
    return [json.dumps(_ROWS).encode(), json.dumps(_ROWS, indent=1).encode()]


def json_lines() -> Seeds:
    return ["\n".join(map(json.dumps, _ROWS)).encode()]


def metadata(tables: Seeds) -> Seeds:
    """Returns tables with the column that names the files of a folder."""
    return [table.replace(b"path", b"file_name") for table in tables]


def raven() -> Seeds:
    head = "Selection\tView\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tSpecies"
    rows = [
        f"{i}\tSpectrogram 1\t0.0\t0.0{i + 2}\t{n}.wav\t0.01\t{'ab'[i % 2]}"
        for i, n in enumerate("abcd")
    ]
    return ["\n".join((head, *rows)).encode()]


def audacity() -> Seeds:
    return [b"0.000000\t0.020000\ta\n0.020000\t0.030000\tb\n\\\t100.0\t200.0\n0.04\t0.06\ta\n"]


def split_list() -> Seeds:
    return [b"x/a.wav\ny/b.wav\n", b"x/a.wav x\ny/b.wav y\n"]


def _wav() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, _tone(1600), 8000, format="WAV")
    return file.getvalue()


def recordings(folder: Path) -> None:
    data = _wav()
    for number, name in enumerate("abcd"):
        (folder / f"{name}.wav").write_bytes(data[:-2] + bytes([number, 0]))


def class_folders(folder: Path) -> None:
    data = _wav()
    for label in "xy":
        (folder / label).mkdir(exist_ok=True)
        for number, name in enumerate("abc"):
            (folder / label / f"{name}.wav").write_bytes(data[:-2] + bytes([number, ord(label)]))


@functools.cache
def _built() -> tempfile.TemporaryDirectory:
    """Returns a folder with a TFDS set of images, as another program would build it."""
    folder = tempfile.TemporaryDirectory()
    library = catalog.library()
    features = library.features
    png = images("PNG", "RGB")()[0]

    class Set(library.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = library.core.Version("1.0.0")
        name = "fuzzed"

        def _info(self):
            return library.core.DatasetInfo(
                builder=self,
                features=features.FeaturesDict(
                    {
                        "image": features.Image(shape=(None, None, 3)),
                        "label": features.ClassLabel(names=["a", "b"]),
                        "group": features.Text(),
                        "sizes": features.Sequence(np.int64),
                        "samples": features.Tensor(shape=(3,), dtype=np.int16),
                    }
                ),
                metadata=library.core.MetadataDict({"x": 1}),
            )

        def _split_generators(self, _):
            return {"train": self._generate_examples(0), "validation": self._generate_examples(4)}

        def _generate_examples(self, first):
            for i in range(first, first + 4):
                yield (
                    i,
                    {
                        "image": io.BytesIO(png),
                        "label": i % 2,
                        "group": f"g{i // 2}",
                        "sizes": [1, 2],
                        "samples": np.arange(3, dtype=np.int16),
                    },
                )

    library.disable_progress_bar()
    settings = library.download.DownloadConfig(try_download_gcs=False)
    with contextlib.redirect_stdout(io.StringIO()):
        Set(data_dir=folder.name, file_format="array_record").download_and_prepare(
            download_config=settings
        )
    return folder


def tfds_set(folder: Path) -> None:
    shutil.copytree(_built().name, folder, dirs_exist_ok=True)


def tfds_file(name: str) -> Callable[[], Seeds]:
    return lambda: [(Path(_built().name) / name).read_bytes()]


_RUN = ROOT / "tests" / "data" / "run_2" / "run"


def run_files(folder: Path) -> None:
    """Writes a run whose results have no digests, so that damage to them reaches their readers."""
    shutil.copytree(_RUN, folder, dirs_exist_ok=True)
    info = json.loads((_RUN / "config.json").read_text()) | {"digests": {}}
    (folder / "config.json").write_bytes(repair_digest(json.dumps(info).encode()))


def run_file(name: str) -> Callable[[], Seeds]:
    """Returns a function that returns a file of a run."""

    def make() -> Seeds:
        with tempfile.TemporaryDirectory() as place:
            run_files(Path(place))
            return [(Path(place) / name).read_bytes()]

    return make
