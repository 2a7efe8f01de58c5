"""Saved states of a run: the latest and the best epoch, each complete or not there at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import (
    AnyPreservationPolicy,
    BestN,
    LatestN,
)

from meljax import progress
from meljax.errors import UserError
from meljax.metrics import Row
from meljax.state import TrainState


def rank(scores: Row) -> tuple[float, float, int]:
    """Returns what epochs are ranked by: accuracy, then loss, then the earlier one."""
    return scores["val_accuracy"], -scores["val_loss"], -scores["epoch"]


META = ("epoch", "config", "classes", "frontend")
"""What must stand in the meta of every checkpoint."""


class Checkpoints:
    """Checkpoints in a directory, by global step; saving goes on in the background.

    Each holds the state and, as JSON, what is needed to use it: config, classes and front end.
    orbax writes to a temporary directory and renames it, so a kill at any moment leaves the earlier
    ones whole. Nothing that cannot be read is ever removed.

    Args:
      directory: where they lie.
      read_only: whether nothing at all may change there.
    """

    def __init__(self, directory: Path, read_only: bool = False):
        # The best must not go when newer ones come, nor the latest when it is not the best.
        keep = AnyPreservationPolicy([LatestN(2), BestN(get_metric_fn=rank, n=1)])
        self._directory = directory.absolute()
        self._read_only = read_only
        with self._reading():
            self._manager = ocp.CheckpointManager(
                self._directory,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=keep,
                    best_fn=rank,
                    enable_async_checkpointing=True,
                    read_only=read_only,
                ),
                item_names=("state", "meta"),
            )

    def save(self, state: TrainState, meta: dict[str, Any], scores: Row) -> None:
        """Saves `state` after an epoch that reached `scores`; returns before it is on the disk.

        A step that is not after the last one saved is skipped.

        Raises:
          UserError: this or the save before it could not be written.
        """
        with self._writing():
            self._manager.save(
                scores["step"],
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
                ),
                metrics=scores,
            )

    def restore_latest(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Returns the latest complete checkpoint and its meta; `None` if there is none.

        Those after it, which cannot be read, are set aside under another name, with a warning;
        where nothing may change, they stay.

        Args:
          like: a state, or its shapes; the restored one lies on the devices as it says.

        Raises:
          UserError: there are checkpoints, but none can be read or none fits `like`.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        return self._first_readable(steps, like, set_aside=True)

    def restore_best(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Returns the checkpoint of the best epoch that can be read; see `restore_latest`."""
        return self._first_readable(self._best_first(), like, set_aside=False)

    def best_meta(self) -> dict[str, Any] | None:
        """Returns the meta of the best epoch that can be read; `None` if there is no checkpoint.

        Raises:
          UserError: none can be read.
        """
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        failure = None
        for step in self._best_first():
            try:
                with self._reading():
                    return _checked(self._manager.restore(step, args=args).meta)
            except UserError as error:
                failure = failure or error
        if failure:
            raise failure
        return None

    def best_rank(self) -> tuple[float, float, int] | None:
        """Returns the rank of the best epoch that lies here; `None` if there is none."""
        return max(self._ranks().values(), default=None)

    def _best_first(self) -> list[int]:
        ranks = self._ranks()
        return sorted(ranks, key=ranks.get, reverse=True)

    def _ranks(self) -> dict[int, tuple[float, float, int]]:
        ranks = {}
        for step in self._manager.all_steps():
            with contextlib.suppress(UserError), self._reading():
                ranks[step] = rank(self._manager.metrics(step))
        return ranks

    def wait(self) -> None:
        """Waits until everything is on the disk."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits as far as it can, and ends the background work."""
        with contextlib.suppress(Exception):  # what went wrong has been said by `save` or `wait`
            self._manager.close()

    def _first_readable(
        self, steps: list[int], like: TrainState, set_aside: bool
    ) -> tuple[TrainState, dict[str, Any]] | None:
        unreadable: dict[int, str] = {}
        for step in steps:
            try:
                with self._reading():
                    restored = self._restore(step, like)
            except UserError as error:
                unreadable[step] = str(error)
                continue
            for bad, reason in unreadable.items():
                progress.warn(f"checkpoint {bad} is damaged, {step} is taken instead ({reason})")
                if set_aside and not self._read_only:
                    os.rename(self._directory / str(bad), self._directory / f"damaged-{bad}")
            if unreadable:
                self._manager.reload()
            return restored
        if unreadable:
            raise UserError(
                f"no checkpoint in {self._directory} can be used: "
                f"{next(iter(unreadable.values()))}; give another directory"
            )
        return None

    def _restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore()
            ),
        )
        return restored.state, _checked(restored.meta)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # orbax and tensorstore raise many kinds
            raise UserError(f"{self._directory}: {_first_line(error)}") from None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a full disk is a ValueError of tensorstore's
            raise UserError(
                f"a checkpoint could not be written to {self._directory} "
                f"({_first_line(error)}); the same command goes on from the one "
                "before"
            ) from None


def _checked(meta: dict[str, Any]) -> dict[str, Any]:
    if missing := [name for name in META if name not in meta]:
        raise ValueError(f"its meta lacks {', '.join(missing)}")
    return meta


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:300] if lines and lines[0] else type(error).__name__
