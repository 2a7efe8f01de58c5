"""A trained model: predict, explain, evaluate, export."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from meljax.api.explained import Explained
from meljax.api.keys import data_keys
from meljax.api.predictions import Predictions
from meljax.data.decode import decoder
from meljax.data.decode.audio_file import MAX_DECREASE, MAX_INCREASE
from meljax.data.manifest import Bad, kind_of
from meljax.data.recording_time import recording_times
from meljax.evaluation.memory import check_memory
from meljax.evaluation.scorer import Source
from meljax.features.samples import to_float
from meljax.outputs.rows import columns, row_of
from meljax.reports.evaluation_text import Evaluation
from meljax.runs.load_model import TrainedModel, load_model
from meljax.runs.thresholds import Thresholds, find_thresholds
from meljax.util import devices
from meljax.util.console import quiet_libraries
from meljax.util.errors import UserError
from meljax.workflows.evaluate import evaluate_model
from meljax.workflows.explain import explain
from meljax.workflows.export import export_model
from meljax.workflows.predict import check_top, check_usable, predicted_spans, sources_of

Array = Shaped[np.ndarray, "..."]

_EXPORTS = {".stablehlo": "stablehlo", ".onnx": "onnx", ".safetensors": "torch"}
"""Format by suffix."""


@quiet_libraries()
def load(run: str | Path) -> "Model":
    """Returns the model of the best epoch of a run.

    Raises:
      UserError: the directory `run` holds no run, or no epoch of the run is finished.
    """
    devices.set_up()
    return Model(Path(run), load_model(Path(run)))


class Model:
    """A trained model."""

    def __init__(self, run: Path, trained: TrainedModel):
        """Called by `load`."""
        self.run, self._trained = run, trained

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of all arrays."""
        return self._trained.model.classes

    @property
    def epoch(self) -> int:
        """The epoch of the weights, from 1."""
        return self._trained.epoch

    @property
    def sample_rate(self) -> int | None:
        """Sample rate in Hz to which recordings are resampled; `None` for models of images."""
        frontend = self._trained.model.frontend
        return frontend.mel.sample_rate if frontend.kind == "audio" else None

    def __repr__(self) -> str:
        kind = {"audio": "recordings", "image": "images"}[self._trained.model.frontend.kind]
        name = self._trained.config.model.name
        return f"<{name} for {kind}, {len(self.classes)} classes, epoch {self.epoch} of {self.run}>"

    @quiet_libraries()
    def predict(
        self,
        inputs: str | Path | Array | Sequence[str | Path | Array],
        sample_rate: int | None = None,
        *,
        top: int = 1,
        windows: bool = False,
        merge: bool = False,
        min_probability: float = 0.0,
        thresholds: Thresholds | None = None,
    ) -> Predictions:
        """Returns the classes of files or arrays, with probabilities, as `meljax predict` does.

        Args:
          inputs: files, folders and arrays, or one of them. Arrays of recordings are [samples] or
            [samples, channels], float (1 is full scale) or int16; arrays of images are uint8
            [height, width] or [height, width, 3].
          sample_rate: sample rate of arrays of recordings, in Hz.
          top: number of most probable classes in a row.
          windows: whether each window has a row.
          merge: whether successive windows of the same class are one row, with their mean
            probability.
          min_probability: rows with a lower probability have the status 'unknown', 0 to 1.
          thresholds: minimum probabilities by class: a dictionary, a CSV file with the columns
            class and threshold, or 'precision=0.95' for the lowest thresholds with this precision
            on the validation files of the run.

        Raises:
          UserError: there is nothing to score, or an array or another argument is not valid.
        """
        check_top(top, self.classes, "top")
        least = find_thresholds(self.run, self._trained, thresholds, min_probability)
        single = isinstance(inputs, str | os.PathLike | np.ndarray)
        sources = self._sources([inputs] if single else list(inputs), sample_rate)
        times = recording_times(source.path for source in sources)
        rows, found = [], []
        nothing = np.full(len(self.classes), np.nan)
        with check_memory(self._trained.model):
            for span in predicted_spans(self._trained, sources, windows, merge, least):
                rows.append(row_of(span, self.classes, top, times.get(span.path)))
                found.append(nothing if span.probabilities is None else span.probabilities)
        names = columns(top, bool(times))
        rows = [{name: row.get(name) for name in names} for row in rows]
        return Predictions(self.classes, rows, np.stack(found))

    @quiet_libraries()
    def explain(
        self, item: str | Path | Array, sample_rate: int | None = None, *, label: str | None = None
    ) -> Explained:
        """Returns what the network saw of an item, and where the evidence for a class is.

        Args:
          item: a file or an array, as in `predict`.
          sample_rate: sample rate of an array of samples, in Hz.
          label: the class; `None`: the predicted one.

        Raises:
          UserError: the item cannot be used or is silent, or the model has no class `label`.
        """
        (source, *others) = self._sources([item], sample_rate)
        if others:
            raise UserError(f"{item} is a folder; explain takes a single file or array")
        if isinstance(source, Bad):
            raise UserError(str(source))
        return Explained(explain(self._trained, source, label), self._trained.model.frontend)

    def _sources(
        self, given: Sequence[str | Path | Array], sample_rate: int | None
    ) -> list[Source | Bad]:
        """Returns the sources of files, of files in folders, and of arrays, as they are given."""
        sources: list[Source | Bad] = []
        paths, of_paths, others = [], [], []
        for number, each in enumerate(given):
            if isinstance(each, np.ndarray):
                sources.append(self._array_source(f"array {number}", each, sample_rate))
            elif isinstance(each, str | os.PathLike):
                paths.append(os.fspath(each))
                found, skipped = sources_of(paths[-1], self._trained.model)
                sources += found
                of_paths += found
                others += filter(kind_of, skipped)
            else:
                raise UserError(f"input {number} is {type(each).__name__}, not a path or an array")
        if paths:
            check_usable(paths, of_paths, others, self._trained.model)
        if not sources:
            raise UserError("there is nothing to score: no file, folder or array is given")
        return sources

    def _array_source(self, name: str, array: Array, sample_rate: int | None) -> Source:
        """Returns the source of an array; raises `UserError` if it has the wrong form."""
        frontend = self._trained.model.frontend
        if frontend.kind == "image":
            image = _rgb(name, array)
            crop, size = frontend.crop, frontend.image_size
            return Source(
                name, lambda: decoder.fit(decoder.prepare_image(image, size, crop), frontend)
            )
        samples, rate = _samples(name, array), frontend.mel.sample_rate
        _check_rate(sample_rate, rate)
        return Source(name, lambda: decoder.prepare_samples(samples, sample_rate, rate))

    @quiet_libraries()
    def evaluate(
        self, data: str | Path | None = None, split: str | None = None, **keys: Any
    ) -> Evaluation:
        """Returns the scores of the model on labeled files, as `meljax evaluate` prints them.

        Args:
          data: a folder, a table or a TFDS set; `None`: the run's own files.
          split: 'train', 'val' or 'test'; `None`: 'val' of the run's own files, all of other data.
          keys: keys of the data group, such as `label='word'`.

        Raises:
          UserError: none of the files can be scored, or a key does not apply to them.
        """
        given: Mapping[str, Any] = data_keys(data, keys)
        return evaluate_model(self.run, self._trained, given, split)

    @quiet_libraries()
    def export(self, path: str | Path, format: str | None = None) -> Path:
        """Writes the model as StableHLO, ONNX or PyTorch weights, as `meljax export` does.

        Args:
          path: the file to write; its description is written beside it, to `path`.json.
          format: 'stablehlo', 'onnx' or 'torch'; `None`: by the suffix of `path`.

        Returns:
          `path`.

        Raises:
          UserError: the model cannot be written in this format.
        """
        path = Path(path)
        form = format or _EXPORTS.get(path.suffix, "")
        if form not in _EXPORTS.values():
            raise UserError(
                f"{path}: use the suffix {', '.join(_EXPORTS)}, or a format: "
                f"{', '.join(_EXPORTS.values())}"
            )
        export_model(self._trained, self.run.absolute().name, form, path)
        return path


def _check_rate(given: int | None, rate: int) -> None:
    """Raises `UserError` unless `given` is a sample rate that can be changed to `rate`."""
    if given is None:
        raise UserError("sample_rate is missing: give that of the array, in Hz")
    lowest, highest = -(-rate // MAX_INCREASE), rate * MAX_DECREASE
    whole = isinstance(given, int | np.integer) and not isinstance(given, bool)
    if not (whole and lowest <= given <= highest):
        raise UserError(
            f"sample_rate must be a whole number from {lowest:,} to {highest:,} Hz, not {given!r}"
        )


def _rgb(name: str, array: Array) -> Shaped[np.ndarray, "height width 3"]:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise UserError(
            f"{name}: an image is uint8 [height, width] or [height, width, 3], not {array.dtype} "
            f"{list(array.shape)}"
        )
    return array if array.ndim == 3 else np.repeat(array[:, :, None], 3, axis=2)


def _samples(name: str, array: Array) -> Shaped[np.ndarray, "samples channels"]:
    """Returns a recording as float32, where 1 is full scale."""
    if array.ndim not in (1, 2) or not len(array) or not array.size:
        raise UserError(
            f"{name}: a recording is [samples] or [samples, channels], not {list(array.shape)}"
        )
    if array.shape[1:] and array.shape[1] > array.shape[0]:
        raise UserError(
            f"{name}: a recording is [samples, channels], not {list(array.shape)}; transpose it, "
            "or give a list of arrays for several recordings"
        )
    if array.dtype != np.int16 and not np.issubdtype(array.dtype, np.floating):
        raise UserError(f"{name}: a recording is float or int16, not {array.dtype}")
    samples = to_float(array).astype(np.float32)
    if not np.isfinite(samples).all():
        raise UserError(f"{name}: not finite")
    return samples.reshape(len(samples), -1)
