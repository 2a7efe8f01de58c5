"""Reads PyTorch's weights files without PyTorch and without unpickling.

A `.pth` file is a pickled dictionary of tensors, and unpickling can run any code. This reader
interprets only the opcodes that such a dictionary needs and replaces the functions that it names
with its own; any other name or opcode is an error.
"""

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from meljax.util.errors import BadFileError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
"""Files from before PyTorch 1.6 start with `MAGIC` and `PROTOCOL`."""

MAX_PICKLE_BYTES = 2**20
MAX_OPCODES = 100_000
MAX_TENSORS = 1_000
MAX_NUMBER = 2**48
MAX_NUMBERS = 20
"""Limits far above the needs of a ResNet, whose pickle, without the numbers, has 12 kB."""

DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


class Storage(NamedTuple):
    """A sequence of `count` numbers in the file, with the name `key`."""

    key: str
    dtype: np.dtype
    count: int


class Tensor(NamedTuple):
    """A view of a storage; offset and strides are in numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch(data: bytes) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Returns the tensors by name of a `.pth` file written by `torch.save(state_dict)`.

    The file is a zip, or of the format from before PyTorch 1.6.

    Raises:
      BadFileError: the file is of another format, is damaged, or holds anything but tensors.
    """
    try:
        return _read_zip(data) if data.startswith(b"PK") else _read_legacy(data)
    except BadFileError:
        raise
    except zipfile.BadZipFile as error:
        raise BadFileError(f"damaged or truncated ({error})") from None
    except Exception as error:  # damaged files raise many types
        kind = type(error).__name__
        raise BadFileError(f"not PyTorch weights, or damaged ({kind})") from None


def _read_zip(data: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {info.filename: info for info in archive.infolist()}
        if len(parts) != len(archive.infolist()):
            raise BadFileError("not PyTorch weights: two parts have the same name")
        if any(info.compress_type != zipfile.ZIP_STORED for info in parts.values()):
            raise BadFileError("not PyTorch weights: parts are compressed")
        pickles = [name for name in parts if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1 or parts[pickles[0]].file_size > MAX_PICKLE_BYTES:
            raise BadFileError("not PyTorch weights: data.pkl is missing or too large")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in parts and archive.read(f"{folder}byteorder") != b"little":
            raise BadFileError("big-endian numbers are not supported")
        tensors = _checked_tensors(_interpret(io.BytesIO(archive.read(pickles[0]))), len(data))
        keys = {tensor.storage.key for tensor in tensors.values()}
        names = {key: f"{folder}data/{key}" for key in keys}
        # The entries of a zip may overlap, so that a small file would take much memory.
        if sum(parts[name].file_size for name in names.values()) > len(data):
            raise BadFileError("damaged: its parts are larger than the file")
        raw = {key: archive.read(name) for key, name in names.items()}
    return {name: _view(tensor, raw[tensor.storage.key]) for name, tensor in tensors.items()}


def _read_legacy(data: bytes) -> dict[str, np.ndarray]:
    stream = io.BytesIO(data)
    if _interpret(stream) != MAGIC or _interpret(stream) != PROTOCOL:
        raise BadFileError("not PyTorch weights")
    if _interpret(stream)["little_endian"] is not True:
        raise BadFileError("big-endian numbers are not supported")
    tensors = _checked_tensors(_interpret(stream), len(data))
    storages = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    raw = {}
    for key in _interpret(stream):
        (count,) = struct.unpack("<q", stream.read(8))
        storage = storages[key]
        if count != storage.count:
            raise BadFileError("damaged: a storage has another size than its tensor says")
        raw[key] = stream.read(count * storage.dtype.itemsize)
    return {name: _view(tensor, raw[tensor.storage.key]) for name, tensor in tensors.items()}


def _checked_tensors(found: Any, file_size: int) -> dict[str, Tensor]:
    """Returns `found` if it is a dictionary of tensors that fit into the file."""
    if type(found) is not dict or not found:
        raise BadFileError("not a dictionary of weights")
    if not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise BadFileError("not a dictionary of weights: it does not only hold tensors")
    size = sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in found.values())
    # Tensors may share a storage, but a small file must not take much memory.
    if len(found) > MAX_TENSORS or size > 2 * file_size:
        raise BadFileError("its tensors have more numbers than the file")
    return found


def _view(tensor: Tensor, raw: bytes) -> Shaped[np.ndarray, "..."]:
    """Returns a copy of a tensor after checking that it is inside its storage."""
    numbers = np.frombuffer(raw, tensor.storage.dtype)
    if len(numbers) != tensor.storage.count:
        raise BadFileError("damaged or truncated: a storage is shorter than its tensor says")
    spans = [(n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True)]
    sizes = (*tensor.shape, *tensor.strides, tensor.offset)
    inside = tensor.offset + sum(spans) < len(numbers)
    if min(sizes) < 0 or 0 in tensor.shape or not inside:
        raise BadFileError("damaged: a tensor is empty or reaches beyond its storage")
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides)
    return np.array(view, order="C")


def _rebuild_tensor(storage: Storage, offset: int, shape: tuple, strides: tuple, *_: Any) -> Tensor:
    numbers = (offset, *shape, *strides)
    # The product of very many or very large numbers takes very long.
    valid = len(numbers) < MAX_NUMBERS and all(type(n) is int and n < MAX_NUMBER for n in numbers)
    if not isinstance(storage, Storage) or not valid:
        raise BadFileError("damaged: the description of a tensor is not valid")
    return Tensor(storage, offset, shape, strides)


def _empty_dict(*arguments: Any) -> dict:
    if arguments:
        raise BadFileError("not PyTorch weights: a dictionary is built from arguments")
    return {}


# Replacements of the functions that a dictionary of tensors may name.
FUNCTIONS: dict[str, Callable] = {
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": lambda tensor, *_: tensor,
    "collections OrderedDict": _empty_dict,
}

TYPES = {f"torch {name}": name for name in DTYPES}


def _storage(reference: Any) -> Storage:
    """Returns the storage of the persistent id ('storage', type, key, device, count, ...)."""
    kind, dtype, key, _, count, *_ = reference
    if kind != "storage" or type(count) is not int or type(key) is not str:
        raise BadFileError("not PyTorch weights: a reference does not name a storage")
    return Storage(key, np.dtype(DTYPES[dtype]), count)


def _interpret(stream: io.BytesIO) -> Any:
    """Returns the object that the next pickle in `stream` describes."""
    stack: list[Any] = []
    marks: list[int] = []  # positions on the stack where tuples and batches begin
    memo: dict[int, Any] = {}
    begin = stream.tell()
    for count, (code, argument, _) in enumerate(pickletools.genops(stream)):
        if count > MAX_OPCODES or stream.tell() - begin > MAX_PICKLE_BYTES:
            raise BadFileError("not PyTorch weights: its pickle is too long")
        opcode = code.name
        if opcode == "STOP":
            return stack.pop()
        if opcode == "MARK":
            marks.append(len(stack))
        elif opcode in VALUES:
            stack.append(argument)
        elif opcode in EMPTY:
            stack.append(EMPTY[opcode]())
        elif opcode in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif opcode in ("GLOBAL", "STACK_GLOBAL", "BINPERSID", "REDUCE", "BUILD"):
            _refer(opcode, argument, stack)
        elif opcode not in ("PROTO", "FRAME"):
            _collect(opcode, stack, marks)
    raise BadFileError("truncated: its pickle does not end")


def _refer(opcode: str, argument: Any, stack: list[Any]) -> None:
    """Executes the opcodes that name functions and storages, or use them."""
    if opcode == "STACK_GLOBAL":
        name, module = stack.pop(), stack.pop()
        if type(name) is not str or type(module) is not str:
            raise BadFileError("not PyTorch weights: a name is not text")
        argument = f"{module} {name}"
    if opcode in ("GLOBAL", "STACK_GLOBAL"):
        if argument == "torch BFloat16Storage":
            raise BadFileError("bfloat16 is not supported; save the weights as float32")
        if argument not in FUNCTIONS and argument not in TYPES:
            shown = repr(argument)[:80]
            raise BadFileError(f"it names {shown}, which weights do not need; nothing was run")
        stack.append(FUNCTIONS.get(argument) or TYPES[argument])
    elif opcode == "BINPERSID":
        stack.append(_storage(stack.pop()))
    elif opcode == "BUILD":
        stack.pop()  # attributes of an OrderedDict: versions of modules
    else:
        arguments, function = stack.pop(), stack.pop()
        if not any(function is known for known in FUNCTIONS.values()):
            raise BadFileError("not PyTorch weights: it calls something that is not a function")
        stack.append(function(*arguments))


def _collect(opcode: str, stack: list[Any], marks: list[int]) -> None:
    """Executes the opcodes that collect values from the stack."""
    counts = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2}
    if opcode in counts:
        start = len(stack) - counts[opcode]
    elif opcode in ("TUPLE", "APPENDS", "SETITEMS"):
        start = marks.pop()
    else:
        raise BadFileError(f"it holds the pickle opcode {opcode}, which weights do not need")
    if start < 0:
        raise BadFileError("damaged: its pickle takes values from an empty stack")
    items = stack[start:]
    del stack[start:]
    if opcode.startswith("TUPLE"):
        stack.append(tuple(items))
    elif opcode.startswith("APPEND"):
        if type(stack[-1]) is not list:
            raise BadFileError("damaged: its pickle appends to something that is not a list")
        stack[-1].extend(items)
    else:
        keys = items[::2]
        # Other keys, such as nested tuples, can take forever to hash.
        if type(stack[-1]) is not dict or not all(type(key) is str for key in keys):
            raise BadFileError("not a dictionary of weights: a key is not text")
        stack[-1].update(zip(keys, items[1::2], strict=True))


EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
}

VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE"),
}
