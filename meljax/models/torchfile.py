"""PyTorch's files of weights, read without PyTorch and without running any pickle.

A `.pth` file is a pickled dictionary of tensors, and unpickling may call anything at all. Here the
few opcodes that such a dictionary consists of are interpreted one by one; the few functions it may
name stand for data, and any other name or opcode ends the reading.
"""

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from meljax.errors import BadFileError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
"""How files older than PyTorch 1.6 begin."""

MOST_PICKLE_BYTES = 2**24
"""No dictionary of names and shapes is longer; weights themselves lie outside the pickle."""

DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


class Storage(NamedTuple):
    """A run of numbers that lies elsewhere in the file."""

    key: str
    dtype: np.dtype
    count: int


class Tensor(NamedTuple):
    """A view of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(data: bytes) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Returns the tensors of a `.pth` file by name.

    Args:
      data: the file, as `torch.save(state_dict)` writes it now (a zip) or did before PyTorch 1.6.

    Raises:
      BadFileError: it is no such file, is damaged, or names anything but tensors.
    """
    try:
        return _read_zip(data) if data.startswith(b"PK") else _read_legacy(data)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise BadFileError(f"damaged or truncated ({error})") from None
    except (ValueError, IndexError, KeyError, TypeError, struct.error, RecursionError):
        raise BadFileError("not PyTorch weights, or damaged") from None


def _read_zip(data: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise BadFileError("not PyTorch weights: its parts are compressed")
        pickles = [name for name in sizes if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1 or sizes[pickles[0]] > MOST_PICKLE_BYTES:
            raise BadFileError("not PyTorch weights: it holds no data.pkl of a fitting size")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in sizes and archive.read(f"{folder}byteorder") != b"little":
            raise BadFileError("its numbers are big-endian, which is not supported")
        tensors = _tensors(_interpret(io.BytesIO(archive.read(pickles[0]))))
        return {
            name: _view(tensor, archive.read(f"{folder}data/{tensor.storage.key}"))
            for name, tensor in tensors.items()
        }


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
    stream = io.BytesIO(data)
    if _interpret(stream) != MAGIC or _interpret(stream) != PROTOCOL:
        raise BadFileError("not PyTorch weights")
    if not _interpret(stream)["little_endian"]:
        raise BadFileError("its numbers are big-endian, which is not supported")
    tensors = _tensors(_interpret(stream))
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    raw = {}
    for key in _interpret(stream):
        (count,) = struct.unpack("<q", stream.read(8))
        storage = storages[key]
        if count != storage.count:
            raise BadFileError("damaged: the size of a storage is not what its tensor says")
        raw[key] = stream.read(count * storage.dtype.itemsize)
    return {name: _view(tensor, raw[tensor.storage.key]) for name, tensor in tensors.items()}


def _tensors(found: Any) -> dict[str, Tensor]:
    if not isinstance(found, dict) or not found:
        raise BadFileError("not a dictionary of weights")
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise BadFileError("not a dictionary of weights: it holds other things than tensors")
    return found


def _view(tensor: Tensor, raw: bytes) -> Shaped[np.ndarray, "..."]:
    """Returns a tensor's numbers, if they lie within its storage and each only once."""
    numbers = np.frombuffer(raw, tensor.storage.dtype)
    if len(numbers) != tensor.storage.count:
        raise BadFileError("damaged or truncated: a storage is shorter than its tensor says")
    spans = [(n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True)]
    sizes = (*tensor.shape, *tensor.strides, tensor.offset)
    inside = tensor.offset + sum(spans) < len(numbers) or 0 in tensor.shape
    if min(sizes) < 0 or not inside or math.prod(tensor.shape) > len(numbers):
        raise BadFileError("damaged: a tensor reaches beyond its storage")
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)
    return np.ascontiguousarray(view).reshape(tensor.shape)


def _rebuild_tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> Tensor:
    whole = all(type(n) is int for n in (offset, *shape, *strides))
    if not isinstance(storage, Storage) or not whole:
        raise BadFileError("damaged: a tensor is not described as one")
    return Tensor(storage, offset, shape, strides)


# What a dictionary of tensors may name, and what stands for it here. Nothing else is looked up.
NAMES: dict[str, Callable | str] = {
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
    "collections OrderedDict": lambda pairs=(): dict(pairs),
} | {f"torch {name}": name for name in DTYPES}


def _storage(reference: Any) -> Storage:
    """Returns what a persistent id ('storage', type, key, device, count, ...) refers to."""
    kind, dtype, key, _, count, *_ = reference
    if kind != "storage" or type(count) is not int or type(key) is not str:
        raise BadFileError("not PyTorch weights: a reference is not to a storage")
    return Storage(key, np.dtype(DTYPES[dtype]), count)


class _Mark:
    """Where a tuple or a batch of dictionary items begins on the stack."""


def _interpret(stream: io.BytesIO) -> Any:
    """Returns what the next pickle in `stream` describes."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument in _opcodes(stream):
        if opcode in CONSTANTS:
            stack.append(CONSTANTS[opcode]() if argument is None else argument)
        elif opcode in TUPLES:
            count = TUPLES[opcode]
            items = tuple(stack[len(stack) - count :])
            del stack[len(stack) - count :]
            stack.append(items)
        elif opcode in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif opcode == "STOP":
            return stack.pop()
        else:
            _collect(opcode, argument, stack)
    raise ValueError("a pickle without an end")


def _opcodes(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name not in ("PROTO", "FRAME"):
            yield opcode.name, argument


def _collect(opcode: str, argument: Any, stack: list[Any]) -> None:
    """Carries out the opcodes that put together what lies on the stack."""
    if opcode in ("TUPLE", "APPENDS", "SETITEMS"):
        start = max(i for i, item in enumerate(stack) if isinstance(item, _Mark))
        items = stack[start + 1 :]
        del stack[start:]
        if opcode == "TUPLE":
            stack.append(tuple(items))
        elif opcode == "APPENDS":
            stack[-1].extend(items)
        else:
            stack[-1].update(zip(items[::2], items[1::2], strict=True))
    elif opcode == "SETITEM":
        value, key = stack.pop(), stack.pop()
        stack[-1][key] = value
    elif opcode == "APPEND":
        stack[-2].append(stack.pop())
    elif opcode == "BUILD":
        stack.pop()  # attributes of an OrderedDict: versions of modules, of no use here
    elif opcode == "BINPERSID":
        stack.append(_storage(stack.pop()))
    elif opcode in ("GLOBAL", "STACK_GLOBAL"):
        if opcode == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            argument = f"{module} {name}"
        if argument not in NAMES:
            raise BadFileError(f"it names {argument!r}, which no weights need; nothing was run")
        stack.append(NAMES[argument])
    elif opcode == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        if function not in NAMES.values() or not callable(function):
            raise BadFileError("not PyTorch weights")
        stack.append(function(*arguments))
    else:
        raise BadFileError(f"it holds the pickle opcode {opcode}, which no weights need")


CONSTANTS: dict[str, Callable[[], Any]] = {
    "MARK": _Mark,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
} | dict.fromkeys(
    ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINFLOAT"), object
)
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
