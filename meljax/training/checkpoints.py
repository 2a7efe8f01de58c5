"""Checkpoints of a run. A kill at any moment leaves only complete ones."""

import contextlib
import errno
import gc
import os
import shutil
import tempfile
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from meljax.evaluation.metrics import NEVER
from meljax.training.checkpoint_meta import Meta, SavedMeta, digests
from meljax.training.state import TrainState
from meljax.util import progress
from meljax.util.errors import UserError, disk_full, first_line, no_permission
from meljax.util.files import TEMPORARY_PREFIX

SPARE_BYTES = 2**20
"""Maximum space in bytes that a checkpoint takes besides its arrays."""

Weights = dict[str, Any]
"""The part of a state that a model is restored from: 'step', 'params' and 'batch_stats'."""

State = TypeVar("State", TrainState, Weights)

Rank = tuple[float, float, int]
"""See `metrics.rank`."""


class Keep:
    """Which checkpoints are kept: the best epoch, the latest two epochs, and the latest step.

    An orbax `PreservationPolicy`. `ranks` are those of the checkpoints by step, `None` for one
    within an epoch. A step that is not in `ranks` cannot be read, and is kept.
    """

    def __init__(self, ranks: dict[int, Rank | None]):
        self._ranks = ranks

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Returns for each checkpoint whether it is kept."""
        steps = [checkpoint.step for checkpoint in checkpoints]
        epochs = sorted(step for step in steps if self._ranks.get(step))
        best = sorted(epochs, key=self._ranks.get)[-1:]
        kept = {*best, *epochs[-2:], *steps[-1:]}
        return [step in kept or step not in self._ranks for step in steps]


class Checkpoints:
    """The checkpoints in a directory, by step; `Keep` decides which are kept.

    Saving continues in the background. orbax writes to a temporary directory and renames it. Every
    array and all metadata are compared with their digests when they are read. A checkpoint that
    cannot be read is never deleted; with `read_only` nothing is changed.
    """

    def __init__(self, directory: Path, read_only: bool = False):
        self._directory = directory.absolute()
        self._read_only = read_only
        self._ranks: dict[int, Rank | None] = {}
        self._abandoned = False
        with self._reading():
            self._manager = ocp.CheckpointManager(
                self._directory,
                options=ocp.CheckpointManagerOptions(
                    preservation_policy=Keep(self._ranks),
                    enable_async_checkpointing=True,
                    read_only=read_only,
                ),
                item_names=("state", "meta"),
            )
        for step in self._manager.all_steps():
            with contextlib.suppress(UserError, PermissionError):
                self._ranks[step] = self._read_meta(step).meta.rank(step)

    def save(self, state: TrainState, meta: Meta) -> None:
        """Saves a state, in the background.

        A step that is already saved is skipped, unless it was saved before the end of its epoch.

        Raises:
          UserError: this or the previous checkpoint could not be written.
        """
        step = int(jax.device_get(state.step))
        # A step that was not taken because of a bad value is tried again after a resume.
        never = jnp.full_like(state.metrics.first_bad_step, NEVER)
        state = state.replace(metrics=state.metrics.replace(first_bad_step=never))
        # All devices hold the same values. orbax would save a part from each, and compile a program
        # for each shape of a part.
        state = jax.tree.map(lambda leaf: leaf.addressable_data(0), state)
        with self._writing(), jax.transfer_guard_device_to_host("allow"):
            self._manager.wait_until_finished()  # the previous save may still need space
            self._check_writable(state)
            if step in self._manager.all_steps():
                if self._ranks.get(step) or not meta.rank(step):
                    return
                self._manager.delete(step)
            saved = SavedMeta(meta, digests(state))
            self._ranks[step] = meta.rank(step)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(saved.to_json())
                ),
            )

    def check_writable(self, state: TrainState) -> None:
        """Raises `UserError` unless such a state can be saved, as far as is known beforehand."""
        with self._writing():
            self._check_writable(state)

    def _check_writable(self, state: TrainState) -> None:
        """Raises `OSError` unless folders can be created in the directory and there is space.

        If orbax cannot create one, its threads wait 300 seconds for it, delay the end of the
        process, and leave coroutines that were never awaited. If the disk becomes full while it
        writes, they print tracebacks.
        """
        os.rmdir(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=self._directory))
        needed = SPARE_BYTES + sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if shutil.disk_usage(self._directory).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def restore_latest(
        self, like: TrainState, whole: bool = False
    ) -> tuple[TrainState, Meta] | None:
        """Returns the latest readable checkpoint; `None` if there is no checkpoint.

        Unreadable later ones are renamed with a warning, unless `read_only`. `like` is a state, or
        its shapes and shardings. With `whole`, checkpoints within an epoch are ignored.

        Raises:
          UserError: no checkpoint can be read, or none fits `like`.
          PermissionError: a checkpoint may not be read, which is no damage.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        if whole:
            steps = [step for step in steps if self._ranks.get(step, True)]
        return self._first_readable(steps, like, set_aside=True)

    def restore_best(self, like: State) -> tuple[State, Meta] | None:
        """Returns the best readable epoch; otherwise like `restore_latest`.

        If `like` is `Weights`, only a third of the bytes is read. One `Checkpoints` object cannot
        restore both states and weights, because orbax keeps the first handler that it used.
        """
        return self._first_readable(self._best_first(), like, set_aside=False)

    def best_meta(self) -> Meta | None:
        """Returns the best readable meta of an epoch; `None` without epochs.

        Raises:
          UserError: there are checkpoints, but no meta can be read.
          PermissionError: as in `restore_latest`.
        """
        failure = None
        for step in self._best_first():
            try:
                return self._read_meta(step).meta
            except UserError as error:
                failure = failure or error
        if failure:
            raise failure
        return None

    def latest_step(self) -> int | None:
        """Returns the latest step that is completely on the disk; `None` if there is none."""
        names = [path.name for path in self._directory.glob("*")]  # empty if it was removed
        return max((int(name) for name in names if name.isdecimal()), default=None)

    def best_rank(self) -> Rank | None:
        """Returns the rank of the best saved epoch; `None` if there is none."""
        return max((rank for rank in self._ranks.values() if rank), default=None)

    def _best_first(self) -> list[int]:
        """Returns the steps that cannot be read, then those of epochs, the best first."""
        epochs = [step for step, rank in self._ranks.items() if rank]
        unreadable = sorted(set(self._manager.all_steps()) - set(self._ranks), reverse=True)
        return [*unreadable, *sorted(epochs, key=self._ranks.get, reverse=True)]

    def wait(self) -> None:
        """Waits until everything is on the disk; raises `UserError` if a write failed."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the disk and ends the background work."""
        try:
            self._manager.close()
        except Exception as error:  # `save` or `wait` has reported it
            self._free_abandoned(error)
        if self._abandoned:  # tasks that had not ended before
            self._collect()

    def _first_readable(self, steps: list[int], like: Any, set_aside: bool) -> Any:
        unreadable: dict[int, str] = {}
        for step in steps:
            try:
                restored = self._restore(step, like)
            except UserError as error:
                unreadable[step] = str(error)
                continue
            for bad, reason in unreadable.items():
                progress.warn(f"checkpoint {bad} is damaged; using {step} instead ({reason})")
                if set_aside and not self._read_only:
                    os.rename(self._directory / str(bad), self._directory / f"damaged-{bad}")
                    self._ranks.pop(bad, None)
            if unreadable:
                self._manager.reload()
            return restored
        if unreadable:
            raise UserError(
                f"no checkpoint in {self._directory} can be used: "
                f"{next(iter(unreadable.values()))}; use another directory"
            )
        return None

    def _restore(self, step: int, like: Any) -> tuple[Any, Meta]:
        """Returns the state and the meta of a step; raises `UserError` if either is damaged."""
        saved = self._read_meta(step)
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        if isinstance(like, TrainState):
            args = ocp.args.StandardRestore(target)
        else:
            restore_args = ocp.checkpoint_utils.construct_restore_args(target)
            args = ocp.args.PyTreeRestore(target, restore_args, partial_restore=True)
        with self._reading():
            state = self._manager.restore(step, args=ocp.args.Composite(state=args)).state
            for name, found in digests(state).items():
                if saved.arrays.get(name) != found:
                    raise UserError(f"{name} differs from its digest")
        return state, saved.meta

    def _read_meta(self, step: int) -> SavedMeta:
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        with self._reading():
            return SavedMeta.from_json(self._manager.restore(step, args=args).meta)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Raises `PermissionError` if a file may not be read; other errors as `UserError`."""
        try:
            yield
        except Exception as error:  # orbax and tensorstore raise errors of many types
            self._free_abandoned(error)
            if words := no_permission(error):  # it is intact, so no other one must be used
                file = getattr(error, "filename", None) or self._directory
                raise PermissionError(errno.EACCES, words, str(file)) from None
            raise UserError(f"{self._directory}: {first_line(error, 300)}") from None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Raises any error of the block as `UserError`, which says how to resume."""
        try:
            yield
        except Exception as error:  # tensorstore raises ValueError for a full disk
            self._free_abandoned(error)
            reason = disk_full(error) or no_permission(error) or first_line(error, 300)
            raise UserError(
                f"a checkpoint could not be written to {self._directory} ({reason}); "
                "run the same command again to resume from the last checkpoint"
            ) from None

    def _free_abandoned(self, error: BaseException) -> None:
        """Frees the coroutines and tasks that orbax abandoned when `error` was raised.

        They print tracebacks when they are garbage-collected; collecting them here hides these.
        """
        following: BaseException | None = error
        while following is not None:
            traceback.clear_frames(following.__traceback__)
            following = following.__cause__ or following.__context__
        self._abandoned = True
        self._collect()

    def _collect(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # coroutines that were never awaited
            gc.collect()
