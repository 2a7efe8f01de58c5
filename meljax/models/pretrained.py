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
    yield from _convolution("conv1", "bn1", ())
    for layer in range(1, 5):
        for block in range(2):
            name, path = f"layer{layer}.{block}.", (f"layer{layer}_{block}",)
            yield from _convolution(f"{name}conv1", f"{name}bn1", path)
            yield from _convolution(f"{name}conv2", f"{name}bn2", path)
            if layer > 1 and block == 0:
                yield from _convolution(f"{name}downsample.0", f"{name}downsample.1", path)
    yield "fc.weight", Place("params", ("fc", "kernel"))
    yield "fc.bias", Place("params", ("fc", "bias"))


def _convolution(conv: str, norm: str, path: tuple[str, ...]) -> Iterator[tuple[str, Place]]:
    """A convolution without bias and the BatchNorm behind it."""
    here = {"downsample.0": "downsample_conv", "downsample.1": "downsample_bn"}
    conv_name = here.get(".".join(conv.split(".")[-2:]), conv.split(".")[-1])
    norm_name = here.get(".".join(norm.split(".")[-2:]), norm.split(".")[-1])
    yield f"{conv}.weight", Place("params", (*path, conv_name, "kernel"))
    yield f"{norm}.weight", Place("params", (*path, norm_name, "scale"))
    yield f"{norm}.bias", Place("params", (*path, norm_name, "bias"))
    yield f"{norm}.running_mean", Place("batch_stats", (*path, norm_name, "mean"))
    yield f"{norm}.running_var", Place("batch_stats", (*path, norm_name, "var"))
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
        if not place.collection or (new_head and name in HEAD):
            continue
        array, leaf = _to_flax(weights[name]), arrays[place.collection, *place.path]
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
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return _from_flax(np.empty(shape, np.bool_)).shape


def _listed(names: list[str], most: int = 6) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
