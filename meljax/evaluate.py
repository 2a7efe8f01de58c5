"""Scores a trained model on files whose classes are known:

    python -m meljax.evaluate RUN [--data PATH] [--label COLUMN] [--split SPLIT] [--json FILE]

By default on the validation files of its own run; with --data on any folder, CSV or TFDS set laid
out like those for training, all of it or one split. The weights are those of the run's best epoch,
the ones that predict uses. A file that cannot be read is listed and left out, and the exit code
is 1.
"""

import argparse
import csv
import dataclasses
import difflib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from meljax import backend, calibration, cli, metrics, progress, runs, saved, streaming, summary
from meljax.data import files, tfds, voices
from meljax.data.files import Bad
from meljax.data.load import find
from meljax.errors import BadFileError, UserError
from meljax.paths import cache_dir, write_whole
from meljax.results import Scored
from meljax.saved import SavedModel
from meljax.streaming import Item, Source
from meljax.table import read_csv

SPLITS = ("train", "val", "test")
FLAGS = {"data.path": "--data", "data.tfds_dir": "--tfds-dir", "data.label": "--label"}
TOP = (1, 3, 5)
"""Within how many of the most probable classes the true one is looked for."""


class Labelled(NamedTuple):
    """What is scored, the class it belongs to, in words what it all is, and what cannot be had."""

    sources: list[Source]
    labels: list[str]
    what: str
    bad: tuple[Bad, ...] = ()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code (1: some files could not be used)."""
    parser = cli.parser("evaluate", __doc__)
    parser.add_argument("run", metavar="RUN", type=Path, help="directory of a run")
    parser.add_argument(
        "--data", metavar="PATH", help="folder, CSV or tfds:NAME with known classes"
    )
    parser.add_argument(
        "--tfds-dir", metavar="DIR", help="folder of TFDS sets; default: as in training"
    )
    parser.add_argument(
        "--label",
        metavar="COLUMN",
        help="of a CSV, or feature of a TFDS set, with the class; default: as in training",
    )
    parser.add_argument(
        "--split", choices=SPLITS, help="default: val of the run itself, everything of --data"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="where all numbers are written")
    arguments = parser.parse_args(argv)
    return cli.run(lambda: _evaluate(arguments))


def _evaluate(arguments: argparse.Namespace) -> int:
    backend.set_up()
    model = saved.load(arguments.run)
    split = _read_split(arguments.run, needed=arguments.data is None)
    seen: set[str] = set()
    if arguments.tfds_dir:
        model = _with_tfds_dir(model, arguments.tfds_dir)
    if arguments.data is None:
        side = arguments.split or "val"
        labelled = own_files(arguments.run, model, split, side)
    else:
        side = arguments.split or "all"
        data, tfds_dir = arguments.data, model.config.data.tfds_dir
        label = arguments.label or model.config.data.label
        if os.path.isdir(os.path.expanduser(data)):
            label = "label"  # which is to say the sub-folder
        with cli.renamed(FLAGS):
            data = tfds.pin(data, tfds_dir) if tfds.is_name(data) else data
            listing = find(data, tfds_dir, label, group="", training=False)
        labelled = _other_files(data, listing, model, arguments.split, seen)
    scored, used, bad = score(model, labelled, side)
    bad = [*labelled.bad, *bad]
    known = {row["sha256"] for row in split if row["split"] == "train"}
    trained_on = len(known & seen)
    facts = describe(model, scored, used) | {
        "run": str(arguments.run),
        "data": labelled.what,
        "trained_on": trained_on,
        "errors": [{"path": each.path, "error": each.reason} for each in bad],
    }
    progress.say(text(facts, scored))
    if arguments.data is None and side == "val":
        progress.say("the epoch was chosen on these same files: expect less on new ones")
    if arguments.json:
        try:
            write_whole(arguments.json, json.dumps(facts, indent=2) + "\n")
        except OSError as error:
            raise UserError(f"--json {arguments.json}: {error.strerror}") from None
    return 1 if bad else 0


def score(
    model: SavedModel, labelled: Labelled, side: str
) -> tuple[Scored, list[tuple[str, str]], list[Bad]]:
    """Returns the scores, (path, class) of each file that was scored, and those that were not.

    Raises:
      UserError: no file could be used.
    """
    items: list[Item] = []
    used: list[tuple[str, str]] = []
    bad: list[Bad] = []
    results = streaming.score(model, labelled.sources)
    tracked = progress.track(results, len(labelled.sources), "scoring")
    for result, label in zip(tracked, labelled.labels, strict=True):
        if isinstance(result, Bad):
            bad.append(result)
            progress.warn(f"{result.path}: {result.reason}; left out")
        else:
            items.append(result)
            used.append((result.path, label))
    if not items:
        raise UserError(f"none of the {len(bad)} files of {labelled.what} can be used")
    number = {name: i for i, name in enumerate(model.classes)}
    scored = Scored(
        side=side,
        epoch=model.epoch,
        chosen=True,
        logits=np.concatenate([item.logits for item in items]),
        item=np.repeat(np.arange(len(items)), [len(item.logits) for item in items]),
        labels=np.array([number[label] for _, label in used]),
        temperature=model.temperature,
    )
    return scored, used, bad


def _read_split(run: Path, needed: bool) -> list[dict[str, str]]:
    """Returns the rows of the run's `split.csv`; none, with a warning, if it is not needed."""
    try:
        rows = read_csv(run / runs.SPLIT)
        if all(row["path"] and row["label"] and row["split"] and row["sha256"] for row in rows):
            return rows
    except (OSError, KeyError, ValueError, csv.Error):
        pass
    if needed:
        raise UserError(f"{run / runs.SPLIT} is missing or damaged; name the files with --data")
    progress.warn(f"{run / runs.SPLIT} is missing or damaged: files trained on are not recognised")
    return []


def _with_tfds_dir(model: SavedModel, tfds_dir: str) -> SavedModel:
    data = dataclasses.replace(model.config.data, tfds_dir=tfds_dir)
    return model._replace(config=dataclasses.replace(model.config, data=data))


def own_files(run: Path, model: SavedModel, split: Sequence[dict[str, str]], side: str) -> Labelled:
    """Returns the files that stood on `side` when the run was trained, as they were then."""
    rows = [row for row in split if row["split"] == side]
    if not rows:
        raise UserError(f"{run} has no {side} files; its {runs.SPLIT} says what there is")
    path = model.config.data.path
    labels = [row["label"] for row in rows]
    what = f"{path or 'the embedded voices'}, {side}"
    if not path:
        with progress.counter("making the embedded voices, once") as count:
            made = voices.load(cache_dir(), progress=count)
        clips = dict(zip(made.names, made.clips, strict=True))
        return Labelled([_clip(row["path"], clips) for row in rows], labels, what)
    root, content = "", files.read_file
    if tfds.is_name(path):
        content = _reader_of_set(model)
    else:
        root = path if os.path.isdir(path) else os.path.dirname(path)
    sources = [
        streaming.source(name, model, partial(content, name), _unchanged(row["sha256"]))
        for row in rows
        for name in [os.path.join(root, row["path"])]
    ]
    return Labelled(sources, labels, what)


def _reader_of_set(model: SavedModel) -> Callable[[str], bytes]:
    """Returns what reads an example, by its path, of the TFDS set that a model was trained on."""
    data = model.config.data
    listing = find(data.path, data.tfds_dir, data.label, data.group, training=False)
    items = {item.path: item for item in listing.items}

    def read(path: str) -> bytes:
        if path not in items:
            raise BadFileError("no longer there, or damaged")
        return listing.read(items[path])

    return read


def _clip(name: str, clips: dict[str, Int[np.ndarray, " samples"]]) -> Source:
    return Source(name, lambda: clips[name])


def _unchanged(digest: str) -> Callable[[bytes], None]:
    """Returns what refuses a file that is no longer the one the run was trained with."""

    def check(data: bytes) -> None:
        if hashlib.sha256(data).hexdigest() != digest:
            raise BadFileError("changed since the model was trained")

    return check


def _other_files(
    data: str, listing: files.Listing, model: SavedModel, side: str | None, seen: set[str]
) -> Labelled:
    """Returns the files of --data, all or those of one side; their digests will stand in `seen`.

    Raises:
      UserError: they are of another kind, or of classes the model does not know.
    """
    kind = model.frontend.kind
    if listing.kind != kind:
        raise UserError(
            f"--data {data!r} holds {files.NOUNS[listing.kind]}s, and the model was trained on "
            f"{files.NOUNS[kind]}s"
        )
    items = [item for item in listing.items if side in (None, item.split)]
    if not items:
        raise UserError(f"--data {data!r} has no split {side!r}")
    _check_classes(data, sorted({item.label for item in items}), model.classes)
    for line in (*listing.warnings, *(f"{b.path}: {b.reason}; left out" for b in listing.bad)):
        progress.warn(line)

    def note(content: bytes) -> None:
        seen.add(hashlib.sha256(content).hexdigest())

    sources = [
        streaming.source(
            os.path.join(listing.root, item.path), model, partial(listing.read, item), note
        )
        for item in items
    ]
    what = data if side is None else f"{data}, {side}"
    return Labelled(sources, [item.label for item in items], what, listing.bad)


def _check_classes(data: str, found: Sequence[str], classes: Sequence[str]) -> None:
    """Raises `UserError` for classes the model does not know; names the nearest it does."""
    unknown = [name for name in found if name not in classes]
    if not unknown:
        return
    shown = []
    for name in unknown[:5]:
        near = difflib.get_close_matches(name, classes, n=1)
        shown.append(f"{name!r}" + (f" (the nearest is {near[0]!r})" if near else ""))
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    raise UserError(
        f"--data {data!r} holds classes that the model does not know: "
        f"{', '.join(shown)}{more}; it knows {', '.join(map(repr, classes[:5]))}"
        + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")
    )


def describe(model: SavedModel, scored: Scored, used: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Returns all numbers about the scores of the files `used`, (path, class) each, for JSON."""
    probabilities, classes = scored.probabilities, model.classes
    tops = [k for k in TOP if k < len(classes)]
    facts = runs.calibration_facts(scored)
    return {
        "split": scored.side,
        "files": len(used),
        "epoch": scored.epoch,
        "classes": list(classes),
        "missing_classes": [
            name for name, n in zip(classes, scored.confusion.sum(1), strict=True) if not n
        ],
        "accuracy": scored.accuracy,
        "accuracy_interval": scored.accuracy_interval,
        "macro_f1": scored.macro_f1,
        "macro_f1_interval": scored.macro_f1_interval,
        "top_k": {k: calibration.top_accuracy(probabilities, scored.labels, k) for k in tops},
        "temperature": scored.temperature,
        "uncalibrated": facts["before"],
        **facts["after"],
        "per_class": _per_class(scored.confusion, classes),
        "confusion": scored.confusion.tolist(),
        "items": [
            {
                "path": path,
                "label": label,
                "prediction": classes[row.argmax()],
                "probability": float(row.max()),
            }
            for (path, label), row in zip(used, probabilities, strict=True)
        ],
    }


def _per_class(
    confusion: Int[np.ndarray, "classes classes"], classes: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Returns each class's numbers; `None` where there is nothing to divide by."""
    precision, recall, f1 = metrics.class_scores(confusion)
    predicted, true = confusion.sum(0).tolist(), confusion.sum(1).tolist()
    return {
        name: {
            "files": true[i],
            "predicted": predicted[i],
            "precision": float(precision[i]) if predicted[i] else None,
            "recall": float(recall[i]) if true[i] else None,
            "f1": float(f1[i]) if true[i] or predicted[i] else None,
        }
        for i, name in enumerate(classes)
    }


def text(facts: dict[str, Any], scored: Scored) -> str:
    """Returns what a person reads: the scores, then a line per class, the worst first."""
    before, missing = facts["uncalibrated"], facts["missing_classes"]
    lines = [
        f"{facts['run']}, epoch {facts['epoch']}: {facts['files']:,} files of {facts['data']}",
        f"accuracy    {summary.with_interval(scored.accuracy, scored.accuracy_interval)}",
        f"macro-F1    {summary.with_interval(scored.macro_f1, scored.macro_f1_interval)}",
        *(f"top-{k}       {share:.1%}" for k, share in facts["top_k"].items() if k > 1),
        f"loss        {facts['loss']:.3f} nats (without the temperature {before['loss']:.3f})",
        f"calibration {facts['expected_calibration_error']:.1%} expected error at temperature "
        f"{facts['temperature']:.2f} (without {before['expected_calibration_error']:.1%})",
        "",
    ]
    width = max(len("class"), *map(len, facts["per_class"]))
    lines.append(f"{'class':{width}}  files  precision  recall     F1  most taken for")
    per_class = {n: v for n, v in facts["per_class"].items() if v["f1"] is not None}
    for name, row in sorted(per_class.items(), key=lambda pair: pair[1]["f1"]):
        shares = "  ".join(
            f"{'–' if row[key] is None else format(row[key], '.1%'):>{space}}"
            for key, space in (("precision", 9), ("recall", 6), ("f1", 5))
        )
        lines.append(f"{name:{width}}  {row['files']:5}  {shares}  {_taken(facts, name)}".rstrip())
    if missing:
        lines.append(
            f"\nno files of {len(missing)} of the classes: {', '.join(missing)}; one that some "
            "file was taken for counts as 0 in macro-F1"
        )
    if facts["trained_on"]:
        lines.append(
            f"\nWARNING: {facts['trained_on']} of these files are byte-identical to some that the "
            "model was trained on: the scores are better than it is"
        )
    return "\n".join(lines)


def _taken(facts: dict[str, Any], name: str) -> str:
    """Returns the class that files of class `name` are most often taken for, and how often."""
    row = list(facts["confusion"][facts["classes"].index(name)])
    row[facts["classes"].index(name)] = 0
    return f"{facts['classes'][int(np.argmax(row))]} ({max(row)})" if any(row) else ""


if __name__ == "__main__":
    cli.leave(main())
