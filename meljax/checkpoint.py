"""Saved states of a run: the latest and the best epoch, each complete or not there at all."""

import shutil
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
from meljax.metrics import Row
from meljax.state import TrainState


def rank(scores: Row) -> tuple[float, float, int]:
    """Returns what epochs are ranked by: accuracy, then loss, then the earlier one."""
    return scores["val_accuracy"], -scores["val_loss"], -scores["epoch"]


class Checkpoints:
    """Checkpoints in a directory, by global step; saving goes on in the background.

    Each holds the state and, as JSON, what is needed to use it: config, classes and front end.
    orbax writes to a temporary directory and renames it, so a kill at any moment leaves the earlier
    ones whole.
    """

    def __init__(self, directory: Path):
        # The best must not go when newer ones come, nor the latest when it is not the best.
        keep = AnyPreservationPolicy([LatestN(2), BestN(get_metric_fn=rank, n=1)])
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=keep, best_fn=rank, enable_async_checkpointing=True
            ),
            item_names=("state", "meta"),
        )

    def save(self, state: TrainState, meta: dict[str, Any], scores: Row) -> None:
        """Saves `state` after an epoch that reached `scores`; returns before it is on the disk."""
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
            ),
            metrics=scores,
        )

    def restore_latest(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Returns the latest complete checkpoint and its meta; `None` if there is none.

        A directory that cannot be read is removed, with a warning, and the one before it taken.

        Args:
          like: a state of the same shapes; the restored one lies on the devices as it does.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                return self._restore(step, like)
            except (OSError, ValueError, KeyError) as error:
                reason = _first_line(error)
                progress.warn(f"checkpoint {step} is damaged ({reason}); trying the one before")
                shutil.rmtree(Path(self._manager.directory) / str(step))
                self._manager.reload()
        return None

    def best_meta(self) -> dict[str, Any] | None:
        """Returns the meta of the best epoch; `None` if there is no checkpoint."""
        step = self._manager.best_step()
        if step is None:
            return None
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        return self._manager.restore(step, args=args).meta

    def restore_best(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Returns the checkpoint of the best epoch and its meta."""
        return self._restore(self._manager.best_step(), like)

    def _restore(self, step: int, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore()
            ),
        )
        return restored.state, restored.meta

    def wait(self) -> None:
        """Waits until everything is on the disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits, and ends the background work."""
        self._manager.close()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
