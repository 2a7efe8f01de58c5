"""What is saved with the arrays of a checkpoint: how to use them, and digests of everything."""

import dataclasses
import hashlib
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from meljax.config import Config, Value, from_flat
from meljax.evaluation.metrics import Row, rank
from meljax.features.frontend import Frontend, crop_of
from meljax.util.errors import UserError
from meljax.util.typed_json import digest, from_values
from meljax.util.version import __version__

FORMAT = 2
"""Version of the layout of checkpoints; other versions are refused."""

MAX_LENGTH = 2**31 - 1
"""Maximum width of a window, in samples or columns, and height: they are int32 on the devices."""


@dataclasses.dataclass(frozen=True)
class Meta:
    """Everything needed to use a checkpoint's weights, saved with them as JSON.

    Attributes:
      config: all settings by key.
      classes: names, in the order of the logits.
      frontend: turns windows into images.
      versions: those of the packages that computed the weights.
      history: a row per epoch.
      seconds: time already spent on the next epoch, if the checkpoint was saved within it.
    """

    config: dict[str, Value]
    classes: tuple[str, ...]
    frontend: Frontend
    versions: dict[str, str]
    history: tuple[Row, ...]
    seconds: float = 0.0

    @property
    def epoch(self) -> int:
        """Returns the number of epochs trained."""
        return len(self.history)

    def rank(self, step: int) -> tuple[float, float, int] | None:
        """Returns the rank of the epoch that ends at `step`; `None` if `step` is within one."""
        if self.history and self.history[-1]["step"] == step:
            return rank(self.history[-1])
        return None


@dataclasses.dataclass(frozen=True)
class SavedMeta:
    """A meta with the digest of each array, by its path in the state ('params/conv/kernel')."""

    meta: Meta
    arrays: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Returns the saved form: format, content and the digest of the content."""
        content = dataclasses.asdict(self)
        return {"format": FORMAT, "sha256": digest(content), "content": content}

    @classmethod
    def from_json(cls, saved: Any) -> "SavedMeta":
        """Returns the meta from the saved form.

        Raises:
          UserError: the metadata are damaged, or have another format version.
        """
        if not isinstance(saved, dict) or type(saved.get("format")) is not int:
            raise UserError("the metadata are damaged")
        if saved["format"] != FORMAT:
            raise UserError(
                f"the checkpoint has format {saved['format']}, but meljax {__version__} reads "
                f"format {FORMAT}; use the version of meljax that wrote it"
            )
        try:
            if saved["sha256"] != digest(saved["content"]):
                raise ValueError
            read = from_values(cls, saved["content"])
            if not _fits(read.meta.frontend, from_flat(read.meta.config)):
                raise ValueError
            for row in read.meta.history:
                rank(row)  # KeyError if it lacks a score
            return read
        except (KeyError, ValueError, UserError):
            raise UserError("the metadata are damaged") from None


def _fits(frontend: Frontend, config: Config) -> bool:
    """Returns whether a front end can be that of a run with these settings."""
    return (
        frontend.mel == config.mel
        and frontend.image_size == config.data.image_size
        and frontend.crop == crop_of(config.data.crop)
        and frontend.channels in (1, 3)
        and 1 <= frontend.window <= MAX_LENGTH
        and 0 <= frontend.height <= MAX_LENGTH
    )


def digests(arrays: PyTree) -> dict[str, str]:
    """Returns the sha256 of dtype, shape and bytes of each array, by its path in the pytree."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(arrays))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): _array_digest(np.asarray(leaf))
        for path, leaf in leaves
    }


def _array_digest(array: np.ndarray) -> str:
    hashed = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    hashed.update(np.ascontiguousarray(array).data)
    return hashed.hexdigest()
