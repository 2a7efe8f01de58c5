"""Loss, accuracy and macro-F1, summed over a set and divided once."""

from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

NEVER = np.int32(2**31 - 1)

Row = dict[str, int | float]
"""What one epoch reached: a line of `metrics.jsonl`."""


@flax.struct.dataclass
class Metrics:
    """What is measured over an epoch or a set; lives on the device until it is asked for.

    Attributes:
      loss_sum: of all items, float32.
      count: of items, float32.
      confusion: counts of (true class, predicted class), int32 [classes, classes].
      first_bad_step: the first step with a loss that was no finite number, int32; `NEVER` if all
        were finite.
    """

    loss_sum: Any  # while a pytree is mapped, anything may stand for an array
    count: Any
    confusion: Any
    first_bad_step: Any

    @classmethod
    def zero(cls, classes: int) -> "Metrics":
        """Returns the metrics of no items."""
        return cls(
            loss_sum=jnp.zeros(()),
            count=jnp.zeros(()),
            confusion=jnp.zeros((classes, classes), jnp.int32),
            first_bad_step=jnp.array(NEVER),
        )

    def updated(
        self,
        logits: Float[Array, "batch classes"],
        labels: Int[Array, " batch"],
        mask: Float[Array, " batch"],
        step: Int[Array, ""],
    ) -> "Metrics":
        """Returns the metrics with one more batch in them; items whose `mask` is 0 do not count."""
        losses = cross_entropy(logits, labels)
        finite = (jnp.isfinite(losses) | (mask == 0)).all()
        return Metrics(
            loss_sum=self.loss_sum + jnp.where(mask == 0, 0, losses).sum(),
            count=self.count + mask.sum(),
            confusion=self.confusion + _confusion(logits, labels, mask),
            first_bad_step=jnp.minimum(self.first_bad_step, jnp.where(finite, NEVER, step)),
        )

    @property
    def loss(self) -> Float[Array, ""] | np.floating:
        """The mean over the items, in nats."""
        return self.loss_sum / self.count


def _confusion(
    logits: Float[Array, "batch classes"],
    labels: Int[Array, " batch"],
    mask: Float[Array, " batch"],
) -> Int[Array, "classes classes"]:
    """Returns how often each class was taken for each, true classes in rows."""
    classes = logits.shape[-1]
    true = jax.nn.one_hot(labels, classes) * mask[:, None]
    predicted = jax.nn.one_hot(logits.argmax(-1), classes)
    return jnp.einsum("bt,bp->tp", true, predicted, precision="highest").astype(jnp.int32)


def fetch(*measured: Metrics) -> list[Metrics]:
    """Returns metrics on the host, in NumPy arrays, by a single transfer."""
    leaves, tree = jax.tree.flatten(measured)
    packed = np.asarray(jax.device_get(_packed(leaves)))
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = zip(np.split(packed, ends), leaves, strict=True)
    return list(
        jax.tree.unflatten(
            tree, [part.view(leaf.dtype).reshape(leaf.shape) for part, leaf in parts]
        )
    )


@jax.jit
def _packed(leaves: list[Array]) -> Int[Array, " bits"]:
    """Returns arrays of 32-bit numbers end to end, bit by bit."""
    as_bits = [jax.lax.bitcast_convert_type(leaf, jnp.int32).reshape(-1) for leaf in leaves]
    return jnp.concatenate(as_bits)


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
