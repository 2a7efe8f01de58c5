"""How the weights begin: random, from a file, or ImageNet's, fetched once."""

import hashlib
import http.client
import os
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

from jaxtyping import PyTree

from meljax import progress
from meljax.config import ModelConfig
from meljax.errors import UserError
from meljax.models.pretrained import HEAD, from_torch
from meljax.models.weights import parse_weights, read_weights
from meljax.paths import write_whole

IMAGENET_URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
"""torchvision's ResNet18_Weights.IMAGENET1K_V1; the name holds the first digits of its sha256."""

MOST_BYTES = 2**28


class Patience(NamedTuple):
    """How long, in seconds, a server may stay silent, and a whole download take."""

    silence: float
    whole: float


SHORT = Patience(silence=5.0, whole=120.0)
LONG = Patience(silence=60.0, whole=3600.0)


def check_file(config: ModelConfig) -> None:
    """Raises `UserError` if `init` names a file that is not there, before anything else is done."""
    named = config.init not in ("auto", "imagenet", "scratch")
    if named and not os.path.exists(os.path.expanduser(config.init)):
        raise UserError(
            f"model.init={config.init!r}: there is no such file; it may be 'auto', 'imagenet', "
            "'scratch' or the path of a file of weights"
        )


def initial_variables(config: ModelConfig, random: PyTree, cache: Path) -> tuple[PyTree, str]:
    """Returns the variables to begin with, and in words how they began.

    Args:
      config: `init` decides.
      random: freshly drawn `{'params': ..., 'batch_stats': ...}`. Its last layer stays, since
        pretrained weights know other classes, and all of it where nothing else is to be had.
      cache: folder that keeps downloaded weights.

    Raises:
      UserError: weights were asked for that cannot be had or do not fit.
    """
    if config.init == "scratch" or config.name != "resnet18":
        return random, "random"
    if config.init not in ("auto", "imagenet"):
        path = Path(os.path.expanduser(config.init))
        weights, digest = read_weights(path)
        return _fitted(weights, random, str(path)), _described("file", path.name, digest)
    if config.width not in (0, 64):
        return random, "random: ImageNet weights are for model.width=64"
    try:
        data = imagenet_weights(cache, SHORT if config.init == "auto" else LONG)
    except UserError as error:
        if config.init == "imagenet":
            raise
        return random, f"random: {error}"
    name = IMAGENET_URL.rsplit("/", 1)[1]
    variables = _fitted(parse_weights(data, name), random, name)
    return variables, _described("ImageNet", name, hashlib.sha256(data).hexdigest())


def _fitted(weights: dict, random: PyTree, name: str) -> PyTree:
    try:
        return from_torch(weights, random, new_head=True)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _described(source: str, name: str, digest: str) -> str:
    return f"{source} ({name}, sha256 {digest[:8]}), {' and '.join(HEAD)} random"


def imagenet_weights(cache: Path, patience: Patience) -> bytes:
    """Returns torchvision's published file, from `cache` or fetched and kept there.

    A file in the cache that is damaged is fetched anew; one that cannot be kept is used all the
    same, with a warning.

    Args:
      cache: folder; created if need be.
      patience: with the server.

    Raises:
      UserError: the file is not there and cannot be fetched, or what came is something else.
    """
    name = IMAGENET_URL.rsplit("/", 1)[1]
    path = cache / name
    try:
        data = path.read_bytes()
        if _is_published(data):
            return data
    except OSError:
        pass  # not there, or not for us to read
    instead = f"put {IMAGENET_URL} at {path}, or set model.init to a file or to 'scratch'"
    try:
        data = _fetch(name, patience)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = str(getattr(error, "reason", None) or error or type(error).__name__)
        reason = "".join(c if c.isprintable() else "?" for c in reason)[:200]
        raise UserError(f"ImageNet weights could not be fetched ({reason}); {instead}") from None
    if not _is_published(data):
        raise UserError(
            f"what came as {name} is something else: its sha256 does not begin with "
            f"{_expected_digest()}; {instead}"
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OSError as error:
        progress.warn(f"{name} could not be kept at {path} ({error.strerror})")
    return data


def _fetch(name: str, patience: Patience) -> bytes:
    deadline = time.monotonic() + patience.whole
    parts, done = [], 0
    with (
        urllib.request.urlopen(IMAGENET_URL, timeout=patience.silence) as response,
        progress.counter(f"fetching {name}") as count,
    ):
        total = int(response.headers.get("Content-Length") or 0)
        while part := response.read1(2**20):
            parts.append(part)
            done += len(part)
            count(done, max(done, total))
            if time.monotonic() > deadline or done > MOST_BYTES:
                raise TimeoutError(f"it took too long, or was too much: {done:,} bytes")
    if done < total:
        raise ConnectionError(f"the connection broke off after {done:,} of {total:,} bytes")
    return b"".join(parts)


def _expected_digest() -> str:
    return Path(IMAGENET_URL).stem.rsplit("-", 1)[1]


def _is_published(data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest().startswith(_expected_digest())
