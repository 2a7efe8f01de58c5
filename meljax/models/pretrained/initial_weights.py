"""Initial weights: random, from a file, or ImageNet's, which are downloaded once."""

import contextlib
import dataclasses
import hashlib
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from jaxtyping import PyTree

from meljax.config import ModelConfig
from meljax.models.pretrained.name_map import HEAD, from_torch
from meljax.models.pretrained.weights_file import Weights, parse_weights, read_weights
from meljax.models.registry import NETWORKS
from meljax.util.errors import UserError
from meljax.util.files import exists, write_atomically, write_errors
from meljax.util.progress import counter, warn

IMAGENET_URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
"""torchvision's ResNet18_Weights.IMAGENET1K_V1."""
IMAGENET_SHA256 = "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"
MAX_BYTES = 2**28


class TimeLimits(NamedTuple):
    """Time limits of a download, in seconds."""

    silence: float  # without any data
    total: float


SHORT = TimeLimits(silence=5.0, total=120.0)
"""For `model.init=auto`, where the download is optional."""
LONG = TimeLimits(silence=60.0, total=3600.0)


@dataclasses.dataclass(frozen=True)
class WeightsOrigin:
    """Where the initial weights of a run come from."""

    kind: Literal["random", "imagenet", "file"]
    name: str = ""  # of the file; '' for random weights
    sha256: str = ""  # of the file, hexadecimal; '' for random weights
    reason: str = ""  # why pretrained weights were not used although they were wanted

    def describe(self) -> str:
        """Returns the origin in words."""
        if self.kind == "random":
            return f"random: {self.reason}" if self.reason else "random"
        source = "ImageNet" if self.kind == "imagenet" else "file"
        return f"{source} ({self.name}, sha256 {self.sha256[:8]}), {' and '.join(HEAD)} random"


def check_weights_file(config: ModelConfig) -> None:
    """Raises `UserError` if `init` names a file that does not exist."""
    is_file = config.init not in ("auto", "imagenet", "scratch")
    if is_file and not exists(os.path.expanduser(config.init)):
        raise UserError(
            f"model.init: {config.init!r} does not exist; allowed are 'auto', 'imagenet', "
            "'scratch' or the path of a weights file"
        )


def initial_variables(
    config: ModelConfig, random: PyTree, cache: Path
) -> tuple[PyTree, WeightsOrigin]:
    """Returns the initial variables of a run, and their origin.

    Args:
      config: `init` selects the weights.
      random: random `{'params': ..., 'batch_stats': ...}`. The last layer is always kept, because
        pretrained weights are for other classes.
      cache: folder of downloaded weights.

    Raises:
      UserError: the weights that `init` names are not available or do not fit.
    """
    network = NETWORKS[config.name]
    if config.init == "scratch" or not network.pretrained:
        return random, WeightsOrigin("random")
    if config.init not in ("auto", "imagenet"):
        path = Path(os.path.expanduser(config.init))
        weights, digest = read_weights(path)
        return _with_weights(random, weights, str(path)), WeightsOrigin("file", path.name, digest)
    if not network.has_pretrained(config.width):
        reason = f"ImageNet weights are for model.width={network.default_width}"
        return random, WeightsOrigin("random", reason=reason)
    try:
        data = imagenet_weights(cache, SHORT if config.init == "auto" else LONG)
    except UserError as error:
        if config.init == "imagenet":
            raise
        return random, WeightsOrigin("random", reason=str(error))
    name = Path(IMAGENET_URL).name
    variables = _with_weights(random, parse_weights(data, name), name)
    return variables, WeightsOrigin("imagenet", name, IMAGENET_SHA256)


def _with_weights(random: PyTree, weights: Weights, name: str) -> PyTree:
    """Returns `weights` of the file `name` with the last layer of `random`."""
    try:
        return from_torch(weights, random, new_head=True)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def imagenet_weights(cache: Path, limits: TimeLimits) -> bytes:
    """Returns torchvision's published file, from `cache` or downloaded and cached there.

    A damaged file in the cache is downloaded again. A file that cannot be cached is used, with a
    warning.

    Raises:
      UserError: the file is not in the cache and cannot be downloaded, or its content is wrong.
    """
    name = Path(IMAGENET_URL).name
    path = cache / name
    try:
        data = path.read_bytes()
        if _is_published(data):
            return data
    except OSError:
        pass  # missing or not readable
    try:
        data = _download(name, limits)
        if not _is_published(data):
            raise ValueError("wrong content: its sha256 is not the published one")
    except (OSError, ValueError) as error:
        cause: BaseException = error
        while cause.__context__:  # the error that caused all others has the clearest message
            cause = cause.__context__
        reason = str(cause) or type(cause).__name__
        reason = "".join(c if c.isprintable() else "?" for c in reason)[:200]
        raise UserError(
            f"ImageNet weights cannot be downloaded ({reason}); put {IMAGENET_URL} at {path}, "
            "or set model.init to a file or to 'scratch'"
        ) from None
    try:
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, data)
    except UserError as error:
        warn(f"{error}; {name} cannot be cached and will be downloaded again next time")
    return data


def _is_published(data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == IMAGENET_SHA256


def _download(name: str, limits: TimeLimits) -> bytes:
    """Returns the content of the published file, or raises an `OSError` or `ValueError`.

    A thread reads it: a server that sends single bytes would hold up a read far beyond the limit.
    """
    found: list[bytes | BaseException] = []
    with counter(f"downloading {name}") as count:
        progress = _Progress(count)

        def fetch() -> None:
            try:
                found.append(_fetch(progress, limits.silence))
            except Exception as error:
                found.append(error)

        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        thread.join(limits.total)
    if not found:
        raise TimeoutError(f"it takes too long: {progress.done:,} bytes so far")
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]


def _fetch(progress: "_Progress", silence: float) -> bytes:
    import pooch  # not at the top: few commands download, and it takes long to import

    file = io.BytesIO()
    with contextlib.ExitStack() as stack:
        download = pooch.HTTPDownloader(
            progress,
            timeout=silence,
            # After an error, pooch leaves the connection open.
            hooks={"response": lambda response, **_: stack.enter_context(response)},
        )
        download(IMAGENET_URL, file, None)
    return file.getvalue()


class _Progress:
    """pooch's progress bar: calls `count`, and raises if the download is too large."""

    def __init__(self, count: Callable[[int, int], None]):
        self.total = self.done = 0  # pooch sets `total` to the expected bytes; 0 if unknown
        self._count = count

    def update(self, size: int) -> None:
        self.done += size
        expected = max(self.done, self.total)
        if expected > MAX_BYTES:
            raise ValueError(f"it is too large: {expected:,} bytes")
        self._count(self.done, expected)

    def reset(self) -> None:  # before pooch's last update, which has all bytes
        self.done = 0

    def close(self) -> None:
        pass  # `counter` closes the bar
