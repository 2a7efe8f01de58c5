"""Loss, accuracy and macro-F1, summed over a set and divided once."""

from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Shaped

NEVER = np.int32(2**31 - 1)
"""Value of `Metrics.first_bad_step` if there was no such step."""

Row = dict[str, int | float]
"""The scores of one epoch: a line of `metrics.jsonl`."""


@flax.struct.dataclass
class Metrics:
    """Sums over the items of an epoch or a split; they stay on the device until `fetch`.

    Attributes:
      loss_sum: sum of the items' losses, float32.
      count: number of items, float32.
      confusion: counts of (true class, predicted class), int32 [classes, classes].
      first_bad_step: first step with infinite or NaN values that was not skipped, int32; `NEVER` if
        there was none.
      skipped: number of steps that were skipped because of infinite or NaN values, int32.
    """

    loss_sum: Any  # not Array: pytree mappings may replace a leaf with anything
    count: Any
    confusion: Any
    first_bad_step: Any
    skipped: Any

    @classmethod
    def zero(cls, classes: int) -> "Metrics":
        """Returns the metrics of no items."""
        return cls(
            loss_sum=jnp.zeros(()),
            count=jnp.zeros(()),
            confusion=jnp.zeros((classes, classes), jnp.int32),
            first_bad_step=jnp.array(NEVER),
            skipped=jnp.zeros((), jnp.int32),
        )

    def updated(
        self,
        logits: Float[Array, "batch classes"],
        labels: Int[Array, " batch"],
        weight: Float[Array, " batch"],
    ) -> "Metrics":
        """Returns the metrics after another batch.

        `weight` is 1 for items that count and 0 for the others, such as padding.
        """
        losses = cross_entropy(logits, labels)
        counted = weight.astype(jnp.int32)
        return self.replace(
            loss_sum=self.loss_sum + jnp.where(weight == 0, 0, losses).sum(),
            count=self.count + weight.sum(),
            confusion=self.confusion.at[labels, logits.argmax(-1)].add(counted),
        )

    @property
    def loss(self) -> Float[Array, ""] | np.floating:
        """The mean loss in nats; NaN without items."""
        return self.loss_sum / self.count


def fetch(*measured: Metrics) -> list[Metrics]:
    """Returns metrics as NumPy arrays on the host, in a single transfer."""
    leaves, tree = jax.tree.flatten(measured)
    packed = np.asarray(jax.device_get(_packed(leaves)))
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = zip(np.split(packed, ends), leaves, strict=True)
    arrays = [part.view(leaf.dtype).reshape(leaf.shape) for part, leaf in parts]
    return list(jax.tree.unflatten(tree, arrays))


@jax.jit
def _packed(leaves: list[Array]) -> Int[Array, " values"]:
    """Returns all values of 32-bit arrays, one array after the other, with their bits as int32."""
    as_bits = [jax.lax.bitcast_convert_type(leaf, jnp.int32).reshape(-1) for leaf in leaves]
    return jnp.concatenate(as_bits)


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """Returns each item's loss: minus the natural logarithm of the true class's probability."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def accuracy(confusion: Int[np.ndarray, "classes classes"], unscored: Sequence[int] = ()) -> float:
    """Returns the share of items on the diagonal; items of the classes `unscored` do not count.

    It is NaN without items.
    """
    counted = without(confusion, unscored)
    return float(np.trace(counted) / counted.sum())


def without(
    confusion: Int[np.ndarray, "*batch classes classes"], unscored: Sequence[int]
) -> Int[np.ndarray, "*batch classes classes"]:
    """Returns a confusion matrix without the items of the classes `unscored`: their rows are 0."""
    if not len(unscored):
        return confusion
    counted = confusion.copy()
    counted[..., list(unscored), :] = 0
    return counted


def class_scores(
    confusion: Int[np.ndarray, "*batch classes classes"],
) -> tuple[
    Float[np.ndarray, "*batch classes"],
    Float[np.ndarray, "*batch classes"],
    Float[np.ndarray, "*batch classes"],
]:
    """Returns precision, recall and F1 of each class; 0 where a denominator is 0."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    predicted, true = confusion.sum(-2), confusion.sum(-1)
    precision = hits / np.maximum(predicted, 1)
    recall = hits / np.maximum(true, 1)
    return precision, recall, 2 * hits / np.maximum(predicted + true, 1)


def macro_f1(
    confusion: Int[np.ndarray, "*batch classes classes"], unscored: Sequence[int] = ()
) -> Float[np.ndarray, "*batch"] | float:
    """Returns the mean F1 of the classes that occur as label or prediction, without `unscored`.

    Items of the classes `unscored` do not count as false positives either. Equal to
    `sklearn.metrics.f1_score(y_true, y_pred, average='macro')` if all are scored.
    """
    confusion = without(confusion, unscored)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return mean_f1(hits, confusion.sum(-1), confusion.sum(-2), unscored)


def mean_f1(
    hits: Shaped[np.ndarray, "*batch classes"],
    true: Shaped[np.ndarray, "*batch classes"],
    predicted: Shaped[np.ndarray, "*batch classes"],
    unscored: Sequence[int] = (),
) -> Float[np.ndarray, "*batch"] | float:
    """Returns `macro_f1` from counts of right, true and predicted items of each class.

    The counts leave out the items of the classes `unscored`.
    """
    occurs = (true + predicted) > 0
    occurs[..., list(unscored)] = False
    f1 = 2 * hits / np.maximum(predicted + true, 1)
    return (f1 * occurs).sum(-1) / np.maximum(occurs.sum(-1), 1)


def top_accuracy(
    probabilities: Float[np.ndarray, "items classes"], labels: Int[np.ndarray, " items"], k: int
) -> float:
    """Returns the share of items whose class is among the `k` most probable ones."""
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :k]
    return float((order == labels[:, None]).any(-1).mean())


def rank(row: Row) -> tuple[float, float, int]:
    """Returns the sort key of an epoch; the best epoch has the largest.

    Higher validation accuracy is better, then lower validation loss, then the earlier epoch.
    """
    return row["val_accuracy"], -row["val_loss"], -row["epoch"]
