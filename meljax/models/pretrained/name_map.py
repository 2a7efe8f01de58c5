"""Converts ResNet-18's variables to and from torchvision's 122 named arrays."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree, Shaped

from meljax.models.pretrained.weights_file import Weights
from meljax.util.errors import UserError
from meljax.util.phrases import on_one_line

HEAD = ("fc.weight", "fc.bias")


class Leaf(NamedTuple):
    """The leaf of flax's variables that holds one of torchvision's arrays."""

    collection: str  # 'params' or 'batch_stats'; '' for `num_batches_tracked`, which has no leaf
    path: tuple[str, ...]  # keys from the collection's root to the leaf


def name_map() -> dict[str, Leaf]:
    """Returns the leaf of each of torchvision's 122 names."""
    leaves = _conv_and_norm("", (), "conv1", "bn1")
    for layer in range(1, 5):
        for block in range(2):
            torch, path = f"layer{layer}.{block}.", (f"layer{layer}_{block}",)
            leaves |= _conv_and_norm(torch, path, "conv1", "bn1")
            leaves |= _conv_and_norm(torch, path, "conv2", "bn2")
            if layer > 1 and block == 0:
                leaves |= _conv_and_norm(torch, path, "downsample.0", "downsample.1")
    leaves["fc.weight"] = Leaf("params", ("fc", "kernel"))
    leaves["fc.bias"] = Leaf("params", ("fc", "bias"))
    return leaves


def _conv_and_norm(torch: str, path: tuple[str, ...], conv: str, norm: str) -> dict[str, Leaf]:
    """Returns the leaves of a convolution without bias and of the BatchNorm after it."""
    ours = {"downsample.0": "downsample_conv", "downsample.1": "downsample_bn"}
    conv_path, norm_path = (*path, ours.get(conv, conv)), (*path, ours.get(norm, norm))
    return {
        f"{torch}{conv}.weight": Leaf("params", (*conv_path, "kernel")),
        f"{torch}{norm}.weight": Leaf("params", (*norm_path, "scale")),
        f"{torch}{norm}.bias": Leaf("params", (*norm_path, "bias")),
        f"{torch}{norm}.running_mean": Leaf("batch_stats", (*norm_path, "mean")),
        f"{torch}{norm}.running_var": Leaf("batch_stats", (*norm_path, "var")),
        f"{torch}{norm}.num_batches_tracked": Leaf("", ()),
    }


def from_torch(weights: Weights, like: PyTree, new_head: bool) -> PyTree:
    """Returns flax's variables with torchvision's weights.

    Args:
      like: `{'params': ..., 'batch_stats': ...}` of the network, arrays or their shapes.
      new_head: whether to keep the last layer of `like`, because the classes differ.

    Raises:
      UserError: names are missing or unknown, or shapes differ; the message lists them.
    """
    names = name_map()
    missing = [name for name in names if name not in weights]
    unknown = [name for name in weights if name not in names]
    if missing or unknown:
        raise UserError(f"not ResNet-18: missing {_listed(missing)}; unknown {_listed(unknown)}")
    leaves = _by_path(like)
    differing = []
    for name, leaf in names.items():
        if not leaf.collection:
            continue
        key = (leaf.collection, *leaf.path)
        array, shape = _to_flax(weights[name]), leaves[key].shape
        is_new = new_head and name in HEAD
        axes = slice(-1) if is_new else slice(None)  # the last axis of the head is the classes
        if array.ndim != len(shape) or array.shape[axes] != shape[axes]:
            expected = _from_flax(np.empty(shape, np.bool_)).shape
            differing.append(f"{name} {weights[name].shape} for {expected}")
        if not is_new:
            leaves[key] = jnp.asarray(array, jnp.float32)
    if differing:
        raise UserError(f"not this ResNet-18: shapes differ in {_listed(differing)}")
    return jax.tree.unflatten(jax.tree.structure(like), leaves.values())


def to_torch(variables: PyTree, steps: int) -> Weights:
    """Returns the variables as float32 arrays under torchvision's names.

    `steps` is the number of training steps, torch's `num_batches_tracked`.
    """
    leaves = _by_path(variables)
    return {
        name: _from_flax(np.asarray(leaves[leaf.collection, *leaf.path], np.float32))
        if leaf.collection
        else np.array(steps, np.int64)
        for name, leaf in name_map().items()
    }


def _by_path(variables: PyTree) -> dict[tuple[str, ...], Any]:
    """Returns the leaves by their paths, in the order of `jax.tree.leaves`."""
    flat = jax.tree_util.tree_flatten_with_path(variables)[0]
    return {tuple(entry.key for entry in path): leaf for path, leaf in flat}


def _to_flax(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Converts [out, in, rows, columns] to [rows, columns, in, out], [out, in] to [in, out]."""
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T


def _from_flax(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
    """Converts [rows, columns, in, out] to [out, in, rows, columns], [in, out] to [out, in]."""
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def _listed(names: list[str], limit: int = 6) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(on_one_line(name)[:80] for name in names[:limit]) + more
