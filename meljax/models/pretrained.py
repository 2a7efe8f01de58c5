"""ResNet-18's weights under torchvision's names, both ways, by an explicit map of 122 names."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from meljax.errors import UserError
from meljax.models.weights import Weights

HEAD = ("fc.weight", "fc.bias")


class Place(NamedTuple):
    """Where an array of torchvision's lies in flax's trees.

    Attributes:
      collection: 'params', 'batch_stats', or '' for torch's count of batches, kept nowhere here.
      path: keys from the collection's root to the leaf.
    """

    collection: str
    path: tuple[str, ...]


def name_map() -> dict[str, Place]:
    """Returns the place of each of torchvision's 122 names."""
    return dict(_names())


def _names() -> Iterator[tuple[str, Place]]:
    yield from _convolution("conv1", "bn1", (), ("conv1", "bn1"))
    for layer in range(1, 5):
        for block in range(2):
            name, path = f"layer{layer}.{block}.", (f"layer{layer}_{block}",)
            for n in (1, 2):
                ours = (f"conv{n}", f"bn{n}")
                yield from _convolution(f"{name}conv{n}", f"{name}bn{n}", path, ours)
            if layer > 1 and block == 0:
                ours = ("downsample_conv", "downsample_bn")
                yield from _convolution(f"{name}downsample.0", f"{name}downsample.1", path, ours)
    yield "fc.weight", Place("params", ("fc", "kernel"))
    yield "fc.bias", Place("params", ("fc", "bias"))


def _convolution(
    conv: str, norm: str, path: tuple[str, ...], ours: tuple[str, str]
) -> Iterator[tuple[str, Place]]:
    """A convolution without bias and the BatchNorm behind it, by torch's names and by ours."""
    yield f"{conv}.weight", Place("params", (*path, ours[0], "kernel"))
    yield f"{norm}.weight", Place("params", (*path, ours[1], "scale"))
    yield f"{norm}.bias", Place("params", (*path, ours[1], "bias"))
    yield f"{norm}.running_mean", Place("batch_stats", (*path, ours[1], "mean"))
    yield f"{norm}.running_var", Place("batch_stats", (*path, ours[1], "var"))
    yield f"{norm}.num_batches_tracked", Place("", ())


def from_torch(weights: Weights, like: PyTree, new_head: bool) -> PyTree:
    """Returns variables with torchvision's weights in them.

    Args:
      weights: all 122 arrays.
      like: `{'params': ..., 'batch_stats': ...}` of the network, whose shapes must fit.
      new_head: keep the last layer of `like`, for other classes than the weights know.

    Raises:
      UserError: names are missing or left over, or shapes differ; both sides are listed.
    """
    names = name_map()
    missing = [name for name in names if name not in weights]
    left_over = [name for name in weights if name not in names]
    if missing or left_over:
        raise UserError(
            f"not ResNet-18's weights: missing {_listed(missing)}; left over {_listed(left_over)}"
        )
    flat = dict(jax.tree_util.tree_flatten_with_path(like)[0])
    arrays = {_key(path): leaf for path, leaf in flat.items()}
    wrong = []
    for name, place in names.items():
        if not place.collection:
            continue
        array, leaf = _to_flax(weights[name]), arrays[place.collection, *place.path]
        if new_head and name in HEAD:
            # Other classes, but the same features: all axes but the last agree.
            if array.ndim != leaf.ndim or array.shape[:-1] != leaf.shape[:-1]:
                wrong.append(f"{name} {weights[name].shape} for {_torch_shape(leaf.shape)}")
            continue
        if array.shape != leaf.shape:
            wrong.append(f"{name} {weights[name].shape} for {_torch_shape(leaf.shape)}")
        arrays[place.collection, *place.path] = jnp.asarray(array, jnp.float32)
    if wrong:
        raise UserError(f"not this ResNet-18's weights: shapes differ in {_listed(wrong)}")
    treedef = jax.tree.structure(like)
    return jax.tree.unflatten(treedef, [arrays[_key(path)] for path in flat])


def to_torch(variables: PyTree, steps: int) -> Weights:
    """Returns the network's weights under torchvision's names, float32.

    Args:
      variables: `{'params': ..., 'batch_stats': ...}`.
      steps: training steps taken, torch's `num_batches_tracked`.
    """
    flat = jax.tree_util.tree_flatten_with_path(variables)[0]
    arrays = {_key(path): np.asarray(leaf, np.float32) for path, leaf in flat}
    return {
        name: _from_flax(arrays[place.collection, *place.path])
        if place.collection
        else np.array(steps, np.int64)
        for name, place in name_map().items()
    }


def _key(path: tuple) -> tuple[str, ...]:
    return tuple(entry.key for entry in path)


def _to_flax(array: np.ndarray) -> np.ndarray:
    """[out, in, rows, columns] → [rows, columns, in, out]; [out, in] → [in, out]."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _from_flax(array: np.ndarray) -> np.ndarray:
    """[rows, columns, in, out] → [out, in, rows, columns]; [in, out] → [out, in]."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return _from_flax(np.empty(shape, np.bool_)).shape


def _listed(names: list[str], most: int = 6) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    shown = (name if name.isprintable() else repr(name) for name in names[:most])
    return ", ".join(name[:80] for name in shown) + more
