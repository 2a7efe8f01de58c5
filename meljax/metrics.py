"""Loss, accuracy and macro-F1, summed over a set and divided once."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics as clu_metrics
from jaxtyping import Array, Float, Int

NEVER = np.int32(2**31 - 1)

Row = dict[str, int | float]
"""What one epoch reached: a line of `metrics.jsonl`."""


@flax.struct.dataclass
class Confusion(clu_metrics.Metric):
    """Counts of (true class, predicted class), summed over batches.

    Attributes:
      counts: int32 [classes, classes], true classes in rows.
    """

    counts: Any  # while a pytree is mapped, anything may stand for an array

    @classmethod
    def empty(cls) -> "Confusion":
        """Returns no counts; `Metrics.zero` gives them their shape."""
        return cls(counts=jnp.zeros((0, 0), jnp.int32))

    @classmethod
    def from_model_output(
        cls,
        *,
        logits: Float[Array, "batch classes"],
        labels: Int[Array, " batch"],
        mask: Float[Array, " batch"],
        **_,
    ) -> "Confusion":
        """Counts one batch; items whose `mask` is 0 do not count."""
        classes = logits.shape[-1]
        true = jax.nn.one_hot(labels, classes) * mask[:, None]
        predicted = jax.nn.one_hot(logits.argmax(-1), classes)
        counts = jnp.einsum("bt,bp->tp", true, predicted, precision="highest")
        return cls(counts=counts.astype(jnp.int32))

    def merge(self, other: "Confusion") -> "Confusion":
        """Returns the sum of both."""
        return type(self)(counts=self.counts + other.counts)

    def compute(self) -> Int[Array, "classes classes"]:
        """Returns the counts, true classes in rows."""
        return self.counts


@flax.struct.dataclass
class FirstBadStep(clu_metrics.Metric):
    """The first step whose loss was not a finite number.

    Attributes:
      step: int32; `NEVER` if all were finite.
    """

    step: Any

    @classmethod
    def empty(cls) -> "FirstBadStep":
        """Returns: none so far."""
        return cls(step=jnp.array(NEVER))

    @classmethod
    def from_model_output(
        cls,
        *,
        losses: Float[Array, " batch"],
        mask: Float[Array, " batch"],
        step: Int[Array, ""],
        **_,
    ) -> "FirstBadStep":
        """Looks at the losses of one step; items whose `mask` is 0 do not count."""
        return cls(step=jnp.where((jnp.isfinite(losses) | (mask == 0)).all(), NEVER, step))

    def merge(self, other: "FirstBadStep") -> "FirstBadStep":
        """Returns the earlier of both."""
        return type(self)(step=jnp.minimum(self.step, other.step))

    def compute(self) -> Int[Array, ""]:
        """Returns the step."""
        return self.step


@flax.struct.dataclass
class Metrics(clu_metrics.Collection):
    """What is measured over an epoch or a set; lives on the device until it is asked for."""

    loss: clu_metrics.Average.from_output("losses")
    confusion: Confusion
    first_bad_step: FirstBadStep

    @classmethod
    def zero(cls, classes: int) -> "Metrics":
        """Returns the metrics of no items, in the shapes for `classes` classes."""
        counts = jnp.zeros((classes, classes), jnp.int32)
        return cls.empty().replace(confusion=Confusion(counts=counts))

    def updated(
        self,
        logits: Float[Array, "batch classes"],
        labels: Int[Array, " batch"],
        mask: Float[Array, " batch"],
        step: Int[Array, ""],
    ) -> "Metrics":
        """Returns the metrics with one more batch in them."""
        batch = self.single_from_model_output(
            losses=cross_entropy(logits, labels), logits=logits, labels=labels, mask=mask, step=step
        )
        return self.merge(batch)


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Float[Array, " batch"]:
    """Returns each item's loss: minus the natural logarithm of its class's probability."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def accuracy(confusion: Int[np.ndarray, "classes classes"]) -> float:
    """Returns the share of items on the diagonal."""
    return float(np.trace(confusion) / confusion.sum())


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
    confusion: Int[np.ndarray, "*batch classes classes"],
) -> Float[np.ndarray, "*batch"] | float:
    """Returns the mean F1 over the classes that occur, as truth or as prediction.

    Equal to `sklearn.metrics.f1_score(y_true, y_pred, average='macro')`.
    """
    occurs = (confusion.sum(-1) + confusion.sum(-2)) > 0
    f1 = class_scores(confusion)[2]
    return (f1 * occurs).sum(-1) / np.maximum(occurs.sum(-1), 1)
