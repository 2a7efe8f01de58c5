"""Explains a prediction: what the network saw of an item, and where the evidence is."""

import jax.numpy as jnp
import numpy as np

from meljax.data.batches import cut_windows, make_window_set
from meljax.data.decode.long_recording import LongRecording
from meljax.data.manifest import Bad
from meljax.evaluation.explanation import Explanation, clearest_window, explain_windows
from meljax.evaluation.memory import check_memory
from meljax.evaluation.scorer import ScoredItem, Source, score_stream, whole_items
from meljax.runs.load_model import TrainedModel
from meljax.util.devices import replicated
from meljax.util.errors import UserError
from meljax.util.phrases import listed, nearest


def explain(trained: TrainedModel, source: Source, target: str | None = None) -> Explanation:
    """Returns the window of an item with the highest probability of a class, with the evidence.

    Args:
      trained: the model.
      source: the item.
      target: the class; `None`: the predicted one.

    Raises:
      UserError: the item cannot be used or is silent, or there is no such class.
    """
    classes = trained.model.classes
    if target is not None and target not in classes:
        known = listed([repr(name) for name in classes])
        raise UserError(f"unknown class {target!r}{nearest(target, classes)}; there are {known}")
    with check_memory(trained.model):
        (result,) = whole_items(score_stream(trained.model, [source]))
    if isinstance(result, Bad):
        raise UserError(str(result))
    if not len(result.starts):
        raise UserError(f"{result.path}: silence; there is nothing to explain")
    return explain_scored(trained, source, result, target)


def explain_scored(
    trained: TrainedModel, source: Source, result: ScoredItem, target: str | None = None
) -> Explanation:
    """Returns what `explain` does for a scored item; at least one window must not be silent."""
    model, window = trained.model, trained.model.frontend.window
    probabilities = result.probabilities(trained.temperature)
    number = int(probabilities.argmax()) if target is None else model.classes.index(target)
    start = int(result.starts[clearest_window(result.logits / trained.temperature, number)])
    content = source.read()
    if isinstance(content, LongRecording):
        (part,) = content.read_spans([(start, start + window)])
        piece = (part, 0)
    else:
        piece = (content, start)
    data, place = make_window_set([piece], 1, window, replicated(model.mesh))
    windows = cut_windows(data, jnp.zeros(1, jnp.int32), jnp.asarray(place[0]), window)
    item = (result.path, float(probabilities[number]), start)
    (explained,) = explain_windows(model, windows, np.array([number]), [item])
    return explained
