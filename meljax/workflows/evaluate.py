"""Scores a trained model on labeled files."""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from meljax.data import synthetic
from meljax.data.manifest import Bad, noun, read_file
from meljax.data.sources import read_manifest
from meljax.data.tfds import catalog
from meljax.evaluation.scorer import ScoredItem, Source, file_source, score_stream
from meljax.evaluation.scores import Scored
from meljax.reports import evaluation_text
from meljax.runs.directory import SPLIT
from meljax.runs.load_model import TrainedModel, load_model
from meljax.util import devices
from meljax.util.errors import BadFileError, UserError
from meljax.util.files import cache_dir, write_atomically
from meljax.util.phrases import nearest
from meljax.util.progress import say, track, warn
from meljax.util.table import read_csv


class Labeled(NamedTuple):
    """Sources with their classes, a description, and files that cannot be used.

    `digests` is the sha256 of each file by its source's path; some are added when a file is read.
    """

    sources: list[Source]
    labels: list[str]
    description: str
    digests: dict[str, str]
    bad: tuple[Bad, ...] = ()


def evaluate(
    run: Path,
    data: str | None = None,
    tfds_dir: str | None = None,
    label: str | None = None,
    split: str | None = None,
    json_file: Path | None = None,
) -> int:
    """Scores a trained model and prints the scores; returns the number of unusable files.

    Args:
      run: directory of a run.
      data: folder, CSV or 'tfds:NAME'; `None`: the run's own files.
      tfds_dir: folder of TFDS sets; `None`: as in training.
      label: CSV column or TFDS feature with the class; `None`: as in training.
      split: 'train', 'val' or 'test'; `None`: 'val' of the run's own files, all files of `data`.
      json_file: JSON file for all scores.

    Raises:
      UserError: there is no model or no file to score, or `json_file` cannot be written.
    """
    if label and data is None:
        raise UserError("data.label names a column of DATA; give DATA too, or leave out data.label")
    devices.set_up()
    trained = load_model(run)
    rows = _read_split(run, needed=data is None)
    tfds_dir = tfds_dir or trained.config.data.tfds_dir
    if data is None:
        split = split or "val"
        labeled = own_files(run, trained, rows, split, tfds_dir)
    else:
        labeled = _other_files(data, trained, split, label, tfds_dir)
    scored, used, bad = score(trained, labeled, split or "all")
    bad = [*labeled.bad, *bad]
    known = {row["sha256"] for row in rows if row["split"] == "train"}
    results = evaluation_text.Evaluation(
        run=str(run),
        data=labeled.description,
        classes=trained.model.classes,
        scored=scored,
        files=used,
        trained_on=sum(labeled.digests.get(path) in known for path, _ in used),
        bad=bad,
    )
    numbers = evaluation_text.numbers(results)
    say(evaluation_text.text(results, numbers))
    if data is None and split == "val":
        say("the epoch was chosen on these files: expect lower scores on new ones")
    if json_file:
        write_atomically(json_file, json.dumps(numbers, indent=2) + "\n", "--json")
    return len(bad)


def score(
    trained: TrainedModel, labeled: Labeled, split: str
) -> tuple[Scored, list[tuple[str, str]], list[Bad]]:
    """Returns the scores, (path, class) of each scored file, and the unusable files.

    Raises:
      UserError: no file could be used.
    """
    items: list[ScoredItem] = []
    used: list[tuple[str, str]] = []
    bad: list[Bad] = []
    results = score_stream(trained.model, labeled.sources)
    tracked = track(results, len(labeled.sources), "scoring")
    for result, label in zip(tracked, labeled.labels, strict=True):
        if isinstance(result, Bad):
            bad.append(result)
            warn(f"{result}; skipped")
        else:
            items.append(result)
            used.append((result.path, label))
    if not items:
        raise UserError(f"none of the {len(bad)} files of {labeled.description} can be used")
    number = {name: i for i, name in enumerate(trained.model.classes)}
    scored = Scored(
        split=split,
        epoch=trained.epoch,
        chosen=True,
        logits=np.concatenate([item.logits for item in items]),
        item=np.repeat(np.arange(len(items)), [len(item.logits) for item in items]),
        labels=np.array([number[label] for _, label in used]),
        temperature=trained.temperature,
    )
    return scored, used, bad


def _read_split(run: Path, needed: bool) -> list[dict[str, str]]:
    """Returns the rows of `split.csv`; if it is damaged, raises if `needed`, else warns."""
    try:
        rows = read_csv(run / SPLIT)
        if all(row["path"] and row["label"] and row["split"] and row["sha256"] for row in rows):
            return rows
    except (OSError, KeyError, ValueError, csv.Error):
        pass
    if needed:
        raise UserError(f"{run / SPLIT} is missing or damaged; name labeled files as DATA")
    warn(f"{run / SPLIT} is missing or damaged: training files are not recognized")
    return []


# The run's own files


def own_files(
    run: Path, trained: TrainedModel, rows: Sequence[dict[str, str]], split: str, tfds_dir: str
) -> Labeled:
    """Returns the files of `split` in the run's `split.csv` (`rows`); changed ones are unusable.

    Raises:
      UserError: the run has no such split.
    """
    rows = [row for row in rows if row["split"] == split]
    if not rows:
        raise UserError(f"{run} has no {split} files; its {SPLIT} lists the splits")
    path = trained.config.data.path
    description = f"{path or 'the embedded voices'}, {split}"
    if not path:
        made = synthetic.load(cache_dir())
        clips = dict(zip(made.names, made.clips, strict=True))
        sources = [Source(row["path"], partial(clips.__getitem__, row["path"])) for row in rows]
    else:
        if catalog.is_name(path):
            root, content = "", _set_reader(trained, tfds_dir)
        else:
            root, content = path if os.path.isdir(path) else os.path.dirname(path), read_file
        sources = [
            file_source(name, trained.model, partial(content, name), _unchanged(row["sha256"]))
            for row in rows
            for name in [os.path.join(root, row["path"])]
        ]
    digests = {source.path: row["sha256"] for source, row in zip(sources, rows, strict=True)}
    return Labeled(sources, [row["label"] for row in rows], description, digests)


def _set_reader(trained: TrainedModel, tfds_dir: str) -> Callable[[str], bytes]:
    """Returns a function that reads an example of the model's TFDS set, given its path."""
    data = trained.config.data
    manifest = read_manifest(data.path, tfds_dir, data.label, data.group, training=False)
    items = {item.path: item for item in manifest.items}

    def read(path: str) -> bytes:
        if path not in items:
            raise BadFileError("no longer there, or damaged")
        return manifest.read(items[path])

    return read


def _unchanged(digest: str) -> Callable[[bytes], None]:
    """Returns a check that raises `BadFileError` unless the content has the sha256 `digest`."""

    def check(data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != digest:
            raise BadFileError("changed since the model was trained")

    return check


# Other files


def _other_files(
    data: str, trained: TrainedModel, split: str | None, label: str | None, tfds_dir: str
) -> Labeled:
    """Returns the files of `data`; raises `UserError` if the model does not fit them."""
    label = label or trained.config.data.label
    if os.path.isdir(os.path.expanduser(data)):
        label = "label"  # the sub-folder
    if catalog.is_name(data):
        data = str(catalog.find_or_download(data, tfds_dir))
    manifest = read_manifest(data, tfds_dir, label, group="", training=False)
    kind = trained.model.frontend.kind
    if manifest.kind != kind:
        raise UserError(
            f"data.path: {data!r} holds {noun(manifest.kind)}, but the model was trained on "
            f"{noun(kind)}"
        )
    items = [item for item in manifest.items if split in (None, item.split)]
    if not items:
        raise UserError(f"data.path: {data!r} has no split {split!r}")
    _check_classes(data, sorted({item.label for item in items}), trained.model.classes)
    for line in (*manifest.warnings, *(f"{bad}; skipped" for bad in manifest.bad)):
        warn(line)
    digests: dict[str, str] = {}
    sources = []
    for item in items:
        path = os.path.join(manifest.root, item.path)

        def note(content: bytes, path: str = path) -> None:
            digests[path] = hashlib.sha256(content).hexdigest()

        content = partial(manifest.read, item)
        sources.append(file_source(path, trained.model, content, note))
    description = data if split is None else f"{data}, {split}"
    return Labeled(sources, [item.label for item in items], description, digests, manifest.bad)


def _check_classes(data: str, found: Sequence[str], classes: Sequence[str]) -> None:
    """Raises `UserError` for unknown classes; the message names the most similar known ones."""
    unknown = [name for name in found if name not in classes]
    if not unknown:
        return
    shown = [f"{name!r}{nearest(name, classes)}" for name in unknown[:5]]
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    raise UserError(
        f"data.path: {data!r} holds classes that the model does not know: "
        f"{', '.join(shown)}{more}; it knows {', '.join(map(repr, classes[:5]))}"
        + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")
    )
