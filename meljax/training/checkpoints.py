"""Checkpoints of a run. A kill at any moment leaves only complete ones."""

import contextlib
import dataclasses
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from meljax.config import MelConfig, Value
from meljax.evaluation.metrics import Row, rank
from meljax.features.frontend import NO_CROP, Frontend
from meljax.training.state import TrainState
from meljax.util import progress
from meljax.util.errors import UserError, disk_full, first_line
from meljax.util.files import TEMPORARY_PREFIX
from meljax.util.version import __version__

FORMAT = 1
"""Version of the layout of checkpoints; other versions are refused."""

SPARE_BYTES = 2**20
"""Maximum space in bytes that a checkpoint takes beside its arrays."""

Weights = dict[str, Any]
"""A state without its optimizer: 'step', 'params' and 'batch_stats'."""

State = TypeVar("State", TrainState, Weights)


class UnknownFormatError(UserError):
    """A checkpoint has another format version. It is intact and must not be replaced."""


@dataclasses.dataclass(frozen=True)
class Meta:
    """Everything needed to use a checkpoint's weights, saved with them as JSON.

    `epoch` is the number of epochs trained, `config` holds all settings by key, `classes` are in
    the order of the logits, and `versions` are those of the packages that computed the weights.
    """

    epoch: int
    config: dict[str, Value]
    classes: tuple[str, ...]
    frontend: Frontend
    versions: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Returns the saved form."""
        return {"format": FORMAT} | dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> "Meta":
        """Returns the meta from the saved form.

        Raises:
          UnknownFormatError: it has another format version.
          UserError: a field is missing.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if missing := [name for name in ("format", *names) if name not in saved]:
            raise UserError(f"the metadata lacks {', '.join(missing)}")
        if saved["format"] != FORMAT:
            raise UnknownFormatError(
                f"the checkpoint has format {saved['format']!r}, but meljax {__version__} reads "
                f"format {FORMAT}; use the version of meljax that wrote it"
            )
        values = {name: saved[name] for name in names}
        frontend = saved["frontend"]
        mel, crop = MelConfig(**frontend["mel"]), tuple(frontend.get("crop", NO_CROP))
        values["frontend"] = Frontend(**frontend | {"mel": mel, "crop": crop})
        return cls(**values | {"classes": tuple(saved["classes"])})


class Checkpoints:
    """The checkpoints in a directory, by step: the best one and the latest two are kept.

    Saving continues in the background. orbax writes to a temporary directory and renames it. A
    checkpoint that cannot be read is never deleted; with `read_only` nothing is changed.
    """

    def __init__(self, directory: Path, read_only: bool = False):
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

    def save(self, state: TrainState, meta: Meta, row: Row) -> None:
        """Saves the state after the epoch with the scores `row`, in the background.

        A step up to the last saved one is skipped.

        Raises:
          UserError: this or the previous checkpoint could not be written.
        """
        with self._writing():
            self._manager.wait_until_finished()  # the last checkpoint takes no more space now
            self._check_writable(state)
            self._manager.save(
                row["step"],
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta.to_json())
                ),
                metrics=row,
            )

    def _check_writable(self, state: TrainState) -> None:
        """Raises `OSError` unless folders can be created in the directory and there is space.

        If orbax cannot create one, its threads wait 300 seconds for it, delay the end of the
        process, and leave coroutines that were never awaited. If the disk becomes full while it
        writes, they print tracebacks.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=self._directory))
        needed = SPARE_BYTES + sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        if shutil.disk_usage(self._directory).free < needed:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def restore_latest(self, like: TrainState) -> tuple[TrainState, Meta] | None:
        """Returns the latest readable checkpoint; `None` if there is no checkpoint.

        Unreadable later ones are renamed with a warning, unless `read_only`. `like` is a state, or
        its shapes and shardings.

        Raises:
          UserError: no checkpoint can be read, or none fits `like`.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        return self._first_readable(steps, like, set_aside=True)

    def restore_best(self, like: State) -> tuple[State, Meta] | None:
        """Returns the best readable checkpoint; otherwise like `restore_latest`.

        If `like` is `Weights`, only a third of the bytes is read. One `Checkpoints` object cannot
        restore both states and weights, because orbax keeps the first handler that it used.
        """
        return self._first_readable(self._best_first(), like, set_aside=False)

    def best_meta(self) -> Meta | None:
        """Returns the best readable meta; `None` without checkpoints.

        Raises:
          UserError: there are checkpoints, but no meta can be read.
        """
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        failure = None
        for step in self._best_first():
            try:
                with self._reading():
                    return Meta.from_json(self._manager.restore(step, args=args).meta)
            except UserError as error:
                failure = failure or error
        if failure:
            raise failure
        return None

    def best_rank(self) -> tuple[float, float, int] | None:
        """Returns the rank of the best saved epoch; `None` if there is none."""
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
        """Waits until everything is on the disk; raises `UserError` if a write failed."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for the disk and ends the background work."""
        with contextlib.suppress(Exception):  # `save` or `wait` has reported the error
            self._manager.close()

    def _first_readable(self, steps: list[int], like: Any, set_aside: bool) -> Any:
        unreadable: dict[int, str] = {}
        for step in steps:
            try:
                with self._reading():
                    restored = self._restore(step, like)
            except UnknownFormatError:
                raise
            except UserError as error:
                unreadable[step] = str(error)
                continue
            for bad, reason in unreadable.items():
                progress.warn(f"checkpoint {bad} is damaged; using {step} instead ({reason})")
                if set_aside and not self._read_only:
                    os.rename(self._directory / str(bad), self._directory / f"damaged-{bad}")
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
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        if isinstance(like, TrainState):
            state = ocp.args.StandardRestore(target)
        else:
            restore_args = ocp.checkpoint_utils.construct_restore_args(target)
            state = ocp.args.PyTreeRestore(target, restore_args, partial_restore=True)
        restored = self._manager.restore(
            step, args=ocp.args.Composite(state=state, meta=ocp.args.JsonRestore())
        )
        return restored.state, Meta.from_json(restored.meta)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except UnknownFormatError as error:
            raise UnknownFormatError(f"{self._directory}: {error}") from None
        except Exception as error:  # orbax and tensorstore raise errors of many types
            raise UserError(f"{self._directory}: {first_line(error, 300)}") from None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # tensorstore raises ValueError for a full disk
            reason = disk_full(error) or first_line(error, 300)
            raise UserError(
                f"a checkpoint could not be written to {self._directory} ({reason}); "
                "run the same command again to resume from the last saved epoch"
            ) from None
