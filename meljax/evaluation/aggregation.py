"""Item probabilities: the mean over the probabilities of an item's windows.

`item_probabilities` computes them in float64 on the host, for final scores. `item_metrics` uses
float32 on the devices, for the scores of each epoch. A test checks that both agree.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # its submodules are imported on first use
from jaxtyping import Array, Float, Int

from meljax.data.batches import PADDING
from meljax.evaluation.metrics import Metrics
from meljax.util.devices import jit


def item_probabilities(
    logits: Float[np.ndarray, "windows classes"],
    item: Int[np.ndarray, " windows"],
    temperature: float,
) -> Float[np.ndarray, "items classes"]:
    """Returns each item's probabilities in float64.

    Args:
      logits: of every window.
      item: index of each window's item; every item has at least one window.
      temperature: divides the logits (Guo et al. 2017); 1 leaves them unchanged.
    """
    windows = scipy.special.softmax(np.asarray(logits, np.float64) / temperature, axis=-1)
    count = np.bincount(item)
    sums = np.zeros((len(count), logits.shape[-1]))
    np.add.at(sums, item, windows)
    return sums / count[:, None]


@jit
def item_metrics(
    logits: Float[Array, "rows batch classes"],
    item: Int[Array, "rows batch"],
    labels: Int[Array, " items"],
) -> Metrics:
    """Returns the metrics of items from the logits of their windows, in float32.

    `item` is the index of each window's item; `PADDING` for windows that do not count.
    """
    items, classes = len(labels), logits.shape[-1]
    # Padding windows go to a dummy item after the last one.
    item = jnp.where(item == PADDING, items, item).reshape(-1)
    log = jax.nn.log_softmax(logits.reshape(-1, classes))
    highest = jax.ops.segment_max(log, item, items + 1)
    sums = jax.ops.segment_sum(jnp.exp(log - highest[item]), item, items + 1)
    count = jax.ops.segment_sum(jnp.ones((len(item), 1)), item, items + 1)
    means = (highest + jnp.log(sums / count))[:items]
    # Log-probabilities are valid logits, so Metrics takes them unchanged.
    return Metrics.zero(classes).updated(means, labels, jnp.ones(items))
