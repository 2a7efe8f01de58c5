"""Answers for one recording or image at a time, and examples: what `meljax app` shows."""

import csv
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from meljax.data.decode.long_recording import LongRecording
from meljax.data.manifest import Bad, kind_of, noun, one
from meljax.evaluation.memory import check_memory
from meljax.evaluation.scorer import ScoredItem, Source, score_stream, whole_items
from meljax.evaluation.spans import spans_of
from meljax.features.frontend import Frontend
from meljax.features.samples import to_float
from meljax.reports.answer import Answer
from meljax.runs.directory import SPLIT
from meljax.runs.load_model import TrainedModel
from meljax.util.csv_file import read_csv
from meljax.util.errors import UserError
from meljax.util.phrases import on_one_line
from meljax.workflows.evaluate import own_files
from meljax.workflows.explain import explain_scored
from meljax.workflows.predict import find_sources

EXAMPLES = 12
"""Maximum number of examples that are offered."""


class Example(NamedTuple):
    """A validation file of a run and its class."""

    name: str
    label: str
    source: Source

    @property
    def text(self) -> str:
        """The name; the class precedes it unless the name begins with the class."""
        return self.name if self.name.startswith(self.label) else f"{self.label}: {self.name}"


def answer_file(trained: TrainedModel, path: str) -> Answer:
    """Returns the answer for a file; the answer's name is the last part of `path`.

    Raises:
      UserError: the file cannot be used.
    """
    name = on_one_line(Path(path).name)
    kind, given = trained.model.frontend.kind, kind_of(path)
    if given not in (kind, None):
        trained_on = f"the model was trained on {noun(kind)}"
        raise UserError(f"{name}: not {one(kind)}; {trained_on}")
    ((source,), _) = find_sources([path], trained.model)
    return answer(trained, source._replace(path=name))


def answer_example(trained: TrainedModel, example: Example) -> Answer:
    """Returns the answer for an example, with its true class; raises as `answer_file`."""
    found = answer(trained, example.source._replace(path=example.name))
    return dataclasses.replace(found, true_class=example.label)


def answer(trained: TrainedModel, source: Source) -> Answer:
    """Returns the answer for an item, with the probabilities of `meljax predict`.

    Raises:
      UserError: the item cannot be used.
    """
    model, temperature = trained.model, trained.temperature
    frontend = model.frontend
    source = Source(source.path, functools.cache(source.read))  # decoded once
    with check_memory(model):
        (result,) = whole_items(score_stream(model, [source]))
        if isinstance(result, Bad):
            raise UserError(str(result))
        heard = len(result.starts) > 0
        content = source.read()
        playable = frontend.kind == "audio" and not isinstance(content, LongRecording)
        return Answer(
            name=result.path,
            classes=model.classes,
            frontend=frontend,
            whole=spans_of(frontend, temperature, result, by_window=False)[0],
            windows=spans_of(frontend, temperature, result, by_window=True),
            background=trained.background,
            notes=_notes(frontend, result),
            explanation=explain_scored(trained, source, result) if heard else None,
            sound=to_float(content) if playable else None,
        )


def _notes(frontend: Frontend, result: ScoredItem) -> list[str]:
    if result.length >= frontend.window:
        return []
    if frontend.kind == "image":
        return [
            f"The image has {result.length} columns, and a window has {frontend.window}; the rest "
            "is padding."
        ]
    rate = frontend.mel.sample_rate
    return [
        f"The recording is {result.length / rate:.2f} s long, and a window "
        f"{frontend.window / rate:.2f} s; the rest is padded with silence."
    ]


def find_examples(run: Path, trained: TrainedModel) -> list[Example]:
    """Returns validation files of a run, of as many classes as possible.

    The list is empty if the data of the run or its `split.csv` cannot be read.
    """
    try:
        rows = read_csv(run / SPLIT)
        own = own_files(run, trained, rows, "val", {})
    except (UserError, OSError, KeyError, ValueError, csv.Error):
        return []
    present = [
        Example(_short(source.path), label, source)
        for source, label in zip(own.sources, own.labels, strict=True)
    ]
    return _of_many_classes(present)


def _of_many_classes(examples: Sequence[Example]) -> list[Example]:
    """Returns the first example of each class, then the second of each, …, at most `EXAMPLES`."""
    seen: dict[str, int] = {}
    ranked = []
    for example in examples:
        seen[example.label] = seen.get(example.label, 0) + 1
        ranked.append((seen[example.label], example))
    ranked.sort(key=lambda pair: pair[0])
    return [example for _, example in ranked[:EXAMPLES]]


def _short(path: str) -> str:
    return on_one_line(path.rpartition("/")[2])
