"""Reads a folder with a mutated file as the commands do; raises `UserError`."""

import contextlib
import functools
import os
from pathlib import Path

import numpy as np

from meljax.config import DataConfig, ModelConfig, from_flat
from meljax.data.decode import decoder
from meljax.data.decode.audio_file import AudioFile
from meljax.data.decode.long_recording import read_recording
from meljax.data.manifest import Bad, Item, Manifest, check_none_bad, file_manifest, kind_of
from meljax.data.read_files import read_all
from meljax.data.segments import read_segments
from meljax.data.sources import read_manifest
from meljax.data.tfds import catalog
from meljax.features.frontend import Frontend
from meljax.models import registry
from meljax.models.pretrained import name_map, weights_file
from meljax.models.pretrained.initial_weights import initial_variables
from meljax.runs.directory import CHECKPOINTS
from meljax.runs.record import read_records
from meljax.training.checkpoints import Checkpoints
from meljax.training.state import abstract_weights
from meljax.util.devices import make_mesh

from .seeds import zip_weights

_RATE = 16_000


def read_file(folder: Path) -> None:
    """Decodes the one file of a folder as `train` and as `predict` do."""
    (name,) = os.listdir(folder)
    kind = kind_of(name)
    _decode(file_manifest(folder, folder, kind, [Item(name, "a")], {}, [], False))


def _decode(manifest: Manifest) -> None:
    decode = decoder.make_decoder(manifest.kind, 16, _RATE)
    results = read_all(manifest, manifest.items, lambda _, opened: decode(opened))
    bad = [result for result in results if isinstance(result, Bad)]
    for each in bad:
        assert 0 < len(each.reason) < 400, each.reason
        assert "\n" not in each.reason, each.reason
    check_none_bad(manifest, bad, "")
    for item, result in zip(manifest.items, results, strict=True):
        array = result.value.array
        assert array.size, "no samples or pixels"
        assert np.isfinite(array).all(), "not finite"
        if manifest.kind == "audio":
            again = read_recording(AudioFile(lambda item=item: manifest.open(item), _RATE))
            assert len(again) == len(array), "train and predict differ"


def read_weights(folder: Path) -> None:
    """Reads initial weights."""
    (name,) = os.listdir(folder)
    config = ModelConfig(name="resnet18", width=4, init=str(folder / name))
    initial_variables(config, _random_variables(), folder)


@functools.cache
def _random_variables() -> dict:
    arrays = weights_file.parse_weights(zip_weights()[0], "tiny")
    tree: dict = {"params": {}, "batch_stats": {}}
    for name, leaf in name_map.name_map().items():
        if leaf.collection:
            at = tree[leaf.collection]
            for part in leaf.path[:-1]:
                at = at.setdefault(part, {})
            at[leaf.path[-1]] = name_map._to_flax(arrays[name])
    return tree


def read_table(folder: Path) -> None:
    """Reads the one file that is not a recording as a table of segments."""
    (name,) = [name for name in os.listdir(folder) if not name.endswith(".wav")]
    _cut(read_manifest(DataConfig(path=str(folder / name))))


def read_folder(folder: Path) -> None:
    """Reads a folder of recordings with a table, annotations or a list."""
    _cut(read_manifest(DataConfig(path=str(folder))))


def _cut(manifest: Manifest) -> None:
    read_all(manifest, manifest.items, lambda item, opened: read_segments([item], opened, _RATE))


def read_tfds(folder: Path) -> None:
    """Reads a TFDS set, with its images."""
    path = str(catalog.find_local("tfds:fuzzed", str(folder)))
    manifest = read_manifest(DataConfig(path=path, tfds_dir=str(folder)))
    check_none_bad(manifest, manifest.bad, "")
    _decode(manifest)


def read_results(folder: Path) -> None:
    """Reads the saved results of a run, as `compare` does."""
    read_records([folder])


def read_meta(folder: Path) -> None:
    """Reads the metadata of checkpoints and makes their network, as `predict` does."""
    with contextlib.closing(Checkpoints(folder / CHECKPOINTS, read_only=True)) as checkpoints:
        meta = checkpoints.best_meta()
    _make_network(from_flat(meta.config).model, len(meta.classes), meta.frontend)


@functools.cache  # most inputs are damaged, and the metadata of the step before are used
def _make_network(model: ModelConfig, classes: int, frontend: Frontend) -> None:
    abstract_weights(registry.build(model, classes), frontend, make_mesh())
