"""Scores a trained model on labeled files."""

import csv
import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from meljax.config import DataConfig, Value
from meljax.data import synthetic
from meljax.data.decode.long_recording import Samples
from meljax.data.manifest import Bad, Item, Manifest, noun
from meljax.data.read_files import hash_file
from meljax.data.segments import cut_segment
from meljax.data.sources import read_manifest
from meljax.data.tfds import catalog
from meljax.evaluation.forward import Model
from meljax.evaluation.groups import Groups, group_of, groups_of, named_groups
from meljax.evaluation.memory import check_memory
from meljax.evaluation.scorer import (
    ScoredItem,
    Source,
    read_samples,
    score_stream,
    track_items,
    whole_items,
)
from meljax.evaluation.scores import Scored
from meljax.evaluation.thresholds import precision_thresholds
from meljax.reports import evaluation_text
from meljax.reports.evaluation_text import Evaluation
from meljax.runs.directory import SPLIT
from meljax.runs.load_model import TrainedModel, load_model
from meljax.runs.thresholds import report_thresholds, write_thresholds
from meljax.util import devices
from meljax.util.csv_file import read_csv
from meljax.util.errors import BadFileError, UserError
from meljax.util.files import cache_dir, write_atomically
from meljax.util.phrases import nearest
from meljax.util.progress import say, warn

MOVABLE = ("data.root", "data.tfds_dir")
"""Keys that may be given for the run's own files."""


class Labeled(NamedTuple):
    """Items to score.

    Attributes:
      sources: the items.
      labels: class of each item.
      groups: group of each item.
      description: of the data, in words.
      files: path of the file of each source, by the source's path.
      digests: sha256 of each file by its path; filled while files are read, unless known before.
      bad: files that cannot be used.
    """

    sources: list[Source]
    labels: list[str]
    groups: Groups
    description: str
    files: dict[str, str]
    digests: dict[str, str]
    bad: tuple[Bad, ...] = ()


def evaluate(
    run: Path,
    keys: Mapping[str, Value],
    split: str | None = None,
    json_file: Path | None = None,
    thresholds: Path | None = None,
    precision: float = 0.95,
) -> int:
    """Scores a trained model and prints the scores; returns the number of unusable files.

    `run`, `keys` and `split` are as in `evaluate_model`. All numbers are written to `json_file`,
    and the lowest threshold of each class with this `precision` to `thresholds`.

    Raises:
      UserError: there is no model or no file to score, or a file cannot be written.
    """
    _check_keys(keys)
    devices.set_up()
    results = evaluate_model(run, load_model(run), keys, split)
    numbers = evaluation_text.numbers(results)
    say(evaluation_text.text(results, numbers))
    if json_file:
        write_atomically(json_file, json.dumps(numbers, indent=2) + "\n", "--json")
    if thresholds:
        chosen = precision_thresholds(results.scored, precision)
        write_thresholds(thresholds, results.classes, chosen)
        report_thresholds(results.classes, chosen, precision)
    return len(results.bad)


def _check_keys(keys: Mapping[str, Value]) -> None:
    """Raises `UserError` if keys are given that are for other data."""
    if keys.get("data.path") is not None:
        return
    if stray := [key for key in keys if key not in MOVABLE]:
        raise UserError(f"{stray[0]} is for other data; name them as DATA, or leave it out")


def evaluate_model(
    run: Path, trained: TrainedModel, keys: Mapping[str, Value], split: str | None = None
) -> Evaluation:
    """Returns the scores of a trained model.

    Args:
      run: directory of its run.
      trained: the model.
      keys: keys of the data group, such as 'data.path'; without a path, the run's own files are
        scored. Others are by default those of the run.
      split: 'train', 'val' or 'test'; `None`: 'val' of the run's own files, all of other data.

    Raises:
      UserError: none of the files can be scored, or a key does not apply to them.
    """
    _check_keys(keys)
    others = keys.get("data.path") is not None
    rows = _read_split(run, needed=not others)
    given = {key.removeprefix("data."): value for key, value in keys.items()}
    if others:
        labeled = _other_files(trained, given, split)
    else:
        split = split or "val"
        labeled = own_files(run, trained, rows, split, given)
    background = () if trained.background is None else (trained.background,)
    unscored = background if others else trained.unscored
    scored, used, bad = score(trained, labeled, split or "all", unscored)
    chosen_on = not others and split == "val"
    # The temperature was fitted to the files that the epoch was chosen on.
    scored = dataclasses.replace(scored, fitted_here=chosen_on)
    bad = [*labeled.bad, *bad]
    known = {row["sha256"] for row in rows if row["split"] == "train"}
    return Evaluation(
        run=str(run),
        data=labeled.description,
        classes=trained.model.classes,
        scored=scored,
        files=used,
        trained_on=sum(labeled.digests.get(labeled.files[path]) in known for path, _ in used),
        chosen_on=chosen_on,
        bad=bad,
    )


def score(
    trained: TrainedModel, labeled: Labeled, split: str, unscored: tuple[int, ...]
) -> tuple[Scored, list[tuple[str, str]], list[Bad]]:
    """Returns the scores, (path, class) of each scored file, and the unusable files.

    Raises:
      UserError: no file could be used.
    """
    number = {name: i for i, name in enumerate(trained.model.classes)}
    items: list[ScoredItem] = []
    groups: list[str] = []
    used: list[tuple[str, str]] = []
    bad: list[Bad] = []
    silent = 0
    results = score_stream(trained.model, labeled.sources)
    results = whole_items(track_items(results, len(labeled.sources), "scoring"))
    with check_memory(trained.model):
        of_items = zip(results, labeled.labels, labeled.groups.values, strict=True)
        for result, label, group in of_items:
            if isinstance(result, Bad):
                bad.append(result)
                warn(f"{result}; skipped")
            elif not len(result.starts):
                silent += 1
                warn(f"{result.path}: silence; not scored")
            else:
                items.append(result)
                groups.append(group)
                used.append((result.path, label))
    if not any(number[label] not in unscored for _, label in used):
        raise UserError(
            f"none of the files of {labeled.description} can be scored: {len(bad)} cannot be used, "
            f"{silent} are silent"
        )
    scored = Scored(
        split=split,
        epoch=trained.epoch,
        chosen=True,
        logits=np.concatenate([item.logits for item in items]),
        item=np.repeat(np.arange(len(items)), [len(item.logits) for item in items]),
        labels=np.array([number[label] for _, label in used]),
        temperature=trained.temperature,
        calibration_note=trained.calibration_note,
        unscored=unscored,
        background=trained.background,
        groups=Groups(tuple(groups), labeled.groups.name),
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


def own_files(
    run: Path,
    trained: TrainedModel,
    rows: Sequence[dict[str, str]],
    split: str,
    moved: Mapping[str, Value],
) -> Labeled:
    """Returns the files of `split` in the run's `split.csv` (`rows`); changed ones are unusable.

    `moved` are the keys of `MOVABLE` that are not as in the run.

    Raises:
      UserError: the run has no such split, or the data do not exist.
    """
    rows = [row for row in rows if row["split"] == split]
    if not rows:
        raise UserError(f"{run} has no {split} files; its {SPLIT} lists the splits")
    data = dataclasses.replace(trained.config.data, **moved)
    digests = {row["path"]: row["sha256"] for row in rows}
    if data.path:
        manifest = read_manifest(data, training=False)
        items = {(item.path, item.start, item.end): item for item in manifest.items}

        def check(path: str, digest: str) -> None:
            if digest != digests[path]:
                raise BadFileError("changed since the model was trained")

        decoded = _reader(manifest, trained.model, check)
        sources = [_row_source(row, items, manifest.root, decoded, trained.model) for row in rows]
    else:
        made = synthetic.load(cache_dir())
        clips = dict(zip(made.names, made.clips, strict=True))
        sources = [Source(row["path"], partial(clips.__getitem__, row["path"])) for row in rows]
    files = {source.path: row["path"] for source, row in zip(sources, rows, strict=True)}
    description = f"{data.path or 'the embedded voices'}, {split}"
    values = [group_of(row["group"], row["path"], row["start"]) for row in rows]
    groups = named_groups(values, [row["path"] for row in rows], data.group)
    return Labeled(sources, [row["label"] for row in rows], groups, description, files, digests)


def _row_source(
    row: dict[str, str],
    items: Mapping[tuple[str, float | None, float | None], Item],
    root: str,
    decoded: Callable[[str], Samples],
    model: Model,
) -> Source:
    """Returns the source of a row of `split.csv`."""
    start, end = (float(row[name]) if row[name] else None for name in ("start", "end"))
    item = items.get((row["path"], start, end))
    if not item and (whole := items.get((row["path"], None, None))):
        item = dataclasses.replace(whole, start=start, end=end)  # a window of the background
    if item:
        return _item_source(item, root, decoded, model)

    def missing() -> NoReturn:
        raise BadFileError("no such file" if root else "no longer there, or damaged")

    return Source(os.path.join(root, row["path"]), missing)


def _reader(
    manifest: Manifest, model: Model, check: Callable[[str, str], None]
) -> Callable[[str], Samples]:
    """Returns a function that decodes the file at an item's path, after `check`ing its sha256.

    The last files are kept, because segments of a file follow each other.
    """
    items = {item.path: item for item in manifest.items}

    @functools.lru_cache(maxsize=devices.cores() + 1)
    def decoded(path: str) -> Samples:
        item = items[path]
        digest, opened = hash_file(manifest, item)
        check(path, digest)
        return read_samples(opened, model, item.start is not None)

    return decoded


def _item_source(item: Item, root: str, decoded: Callable[[str], Samples], model: Model) -> Source:
    rate = model.frontend.mel.sample_rate
    name = os.path.join(root, item.name)
    return Source(name, lambda: cut_segment(item, decoded(item.path), rate))


def _other_files(trained: TrainedModel, given: Mapping[str, Value], split: str | None) -> Labeled:
    """Returns the files of other data; raises `UserError` if the model does not fit them."""
    path = str(given["path"])
    data = dataclasses.replace(trained.config.data, root="", holdout="")
    data = dataclasses.replace(data, **given)
    if catalog.is_name(path):
        data = dataclasses.replace(data, path=str(catalog.find_or_download(path, data.tfds_dir)))
    try:
        data, manifest = _read_with_groups(data, chosen="group" in given)
    except UserError as error:
        if "pattern" in given or not str(error).startswith("data.pattern"):
            raise
        hint = "; the pattern is the run's: set data.pattern='' to read class folders"
        raise UserError(f"{error}{hint}", error.details) from error
    kind = trained.model.frontend.kind
    if manifest.kind != kind:
        raise UserError(
            f"data.path: {path!r} holds {noun(manifest.kind)}, but the model was trained on "
            f"{noun(kind)}"
        )
    items = [item for item in manifest.items if split in (None, item.split)]
    if not items:
        raise UserError(f"data.path: {path!r} has no split {split!r}")
    _check_classes(path, sorted({item.label for item in items}), trained.model.classes)
    for line in manifest.notes:
        say(f"note: {line}")
    for line in (*manifest.warnings, *(f"{bad}; skipped" for bad in manifest.bad)):
        warn(line)
    digests: dict[str, str] = {}

    decoded = _reader(manifest, trained.model, digests.__setitem__)
    sources = [_item_source(item, manifest.root, decoded, trained.model) for item in items]
    files = {source.path: item.path for source, item in zip(sources, items, strict=True)}
    labels = [item.label for item in items]
    description = data.path if split is None else f"{data.path}, {split}"
    groups = groups_of(items, data.group)
    return Labeled(sources, labels, groups, description, files, digests, manifest.bad)


def _read_with_groups(data: DataConfig, chosen: bool) -> tuple[DataConfig, Manifest]:
    """Returns the settings that other data were read with, and their manifest.

    Unless the column of groups was `chosen` for these data, it is that of the run, or else 'group';
    data with neither are read without groups.
    """
    columns = [data.group] if chosen else list(dict.fromkeys([data.group, "group", ""]))
    for column in columns:
        tried = dataclasses.replace(data, group=column)
        try:
            return tried, read_manifest(tried, training=False)
        except UserError as error:
            if column == columns[-1] or not str(error).startswith("data.group"):
                raise
    raise AssertionError


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
