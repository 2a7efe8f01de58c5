"""How the weights begin: random, from a file, or ImageNet's, fetched once."""

import contextlib
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path

from jaxtyping import PyTree

from meljax import progress
from meljax.config import ModelConfig
from meljax.errors import UserError
from meljax.models.pretrained import HEAD, from_torch
from meljax.models.weights import read_weights

IMAGENET_URL = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
"""torchvision's ResNet18_Weights.IMAGENET1K_V1; the name holds the first digits of its sha256."""

PATIENCE_SECONDS = 60.0
SHORT_PATIENCE_SECONDS = 5.0


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
    if config.init == "auto":
        if config.width not in (0, 64):
            return random, "random: ImageNet weights are for model.width=64"
        try:
            path = imagenet_file(cache, SHORT_PATIENCE_SECONDS)
        except UserError as error:
            return random, f"random: {error}"
        return _loaded(path, "ImageNet", random)
    if config.init == "imagenet":
        return _loaded(imagenet_file(cache, PATIENCE_SECONDS), "ImageNet", random)
    return _loaded(Path(os.path.expanduser(config.init)), "file", random)


def _loaded(path: Path, source: str, random: PyTree) -> tuple[PyTree, str]:
    weights, digest = read_weights(path)
    try:
        variables = from_torch(weights, random, new_head=True)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    drawn = " and ".join(HEAD)
    return variables, f"{source} ({path.name}, sha256 {digest[:8]}), {drawn} random"


def imagenet_file(cache: Path, patience: float) -> Path:
    """Returns torchvision's published weights, downloading them to `cache` if they are not there.

    Args:
      cache: folder; created if need be.
      patience: seconds that the server may stay silent.

    Raises:
      UserError: they are not there and cannot be fetched, or what came is something else.
    """
    name = IMAGENET_URL.rsplit("/", 1)[1]
    path = cache / name
    if path.is_file():
        _check_digest(path.read_bytes(), path)
        return path
    try:
        with urllib.request.urlopen(IMAGENET_URL, timeout=patience) as response:
            data = _read(response, name)
    except (OSError, http.client.HTTPException, urllib.error.URLError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(
            f"ImageNet weights could not be fetched ({reason}); put {IMAGENET_URL} at {path}, or "
            "set model.init to a file or to 'scratch'"
        ) from None
    _check_digest(data, path)
    _keep(path, data)
    return path


def _read(response: http.client.HTTPResponse, name: str) -> bytes:
    total = int(response.headers.get("Content-Length") or 0)
    parts, done = [], 0
    with progress.counter(f"fetching {name}") as count:
        while part := response.read(2**20):
            parts.append(part)
            done += len(part)
            count(done, total)
    return b"".join(parts)


def _check_digest(data: bytes, path: Path) -> None:
    expected = path.stem.rsplit("-", 1)[1]
    if not hashlib.sha256(data).hexdigest().startswith(expected):
        raise UserError(
            f"{path.name}: its sha256 does not begin with {expected}, so it is damaged "
            f"or something else; remove {path} if it is there, or set model.init to "
            "a file or to 'scratch'"
        )


def _keep(path: Path, data: bytes) -> None:
    """Writes to a temporary name first, so that a name in the cache means a whole file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise UserError(
            f"{path} cannot be written ({error.strerror}); set XDG_CACHE_HOME to a folder that "
            "can, or model.init to a file or to 'scratch'"
        ) from None
