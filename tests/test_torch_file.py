"""Untrusted weights files are read as data or refused, and never executed."""

import contextlib
import io
import os
import pickle
import pickletools
import struct
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from meljax.models.pretrained import torch_file
from meljax.util.errors import BadFileError

DATA = Path(__file__).parent / "data"
ZIP = (DATA / "tiny_resnet18.pth").read_bytes()
LEGACY = (DATA / "tiny_resnet18_legacy.pth").read_bytes()


class Caller:
    """Pickles as a call of `os.mkdir`."""

    def __init__(self, folder: Path):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def rezipped(data: bytes, change, compression=zipfile.ZIP_STORED) -> bytes:
    """Returns the zip with each part replaced by `change(name, part)`."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out.getvalue()


def test_both_formats_hold_the_same_arrays():
    one, two = torch_file.read_torch(ZIP), torch_file.read_torch(LEGACY)
    assert list(one) == list(two)
    assert len(one) == 122
    for name in one:
        assert one[name].dtype == two[name].dtype
        np.testing.assert_array_equal(one[name], two[name])
    assert one["conv1.weight"].shape == (4, 3, 7, 7)
    assert one["bn1.num_batches_tracked"].shape == ()
    assert one["bn1.num_batches_tracked"] == 7


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("where", ["bare", "in a zip", "behind the older header"])
def test_a_pickle_that_calls_a_function_calls_nothing(tmp_path, where, protocol):
    trap = tmp_path / "trap"
    attack = pickle.dumps({"conv1.weight": Caller(trap)}, protocol=protocol)
    if where == "in a zip":
        attack = rezipped(ZIP, lambda name, part: attack if name.endswith("data.pkl") else part)
    elif where == "behind the older header":
        header = [torch_file.MAGIC, torch_file.PROTOCOL, {"little_endian": True}]
        attack = b"".join(pickle.dumps(part, protocol=2) for part in header) + attack
    with pytest.raises(BadFileError):
        torch_file.read_torch(attack)
    assert not trap.exists()


def test_a_name_that_weights_do_not_need_is_reported():
    attack = pickle.dumps(Caller(Path("x")), protocol=2)
    attack = rezipped(ZIP, lambda name, part: attack if name.endswith("data.pkl") else part)
    with pytest.raises(BadFileError, match=r"mkdir.*nothing was run"):
        torch_file.read_torch(attack)


def edited(find: bytes, replace: bytes) -> bytes:
    """Returns the zip with a change in its pickle."""

    def change(name: str, part: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return part
        assert find in part
        return part.replace(find, replace, 1)

    return rezipped(ZIP, change)


def test_a_tensor_that_reaches_beyond_its_storage_is_refused():
    # conv1.weight: shape (4, 3, 7, 7) → (4, 3, 7, 200); strides (147, 49, 7, 1) → (147, 49, 7, 200)
    for find, replace in [
        (b"K\x04K\x03K\x07K\x07t", b"K\x04K\x03K\x07K\xc8t"),
        (b"K\x93K1K\x07K\x01t", b"K\x93K1K\x07K\xc8t"),
    ]:
        with pytest.raises(BadFileError, match="beyond its storage"):
            torch_file.read_torch(edited(find, replace))


def test_a_storage_of_the_wrong_size_is_refused():
    short = rezipped(ZIP, lambda name, part: part[:-4] if name.endswith("data/0") else part)
    with pytest.raises(BadFileError, match="shorter"):
        torch_file.read_torch(short)


def test_compressed_parts_are_refused():
    packed = rezipped(ZIP, lambda name, part: part, zipfile.ZIP_DEFLATED)
    with pytest.raises(BadFileError, match="compressed"):
        torch_file.read_torch(packed)


@pytest.mark.parametrize("data", [ZIP, LEGACY], ids=["zip", "legacy"])
def test_truncation_anywhere_is_noticed(data):
    for end in [*range(0, len(data), 5003), len(data) - 1, len(data) - 100]:
        with pytest.raises(BadFileError):
            torch_file.read_torch(data[:end])


@pytest.mark.parametrize("data", [ZIP, LEGACY], ids=["zip", "legacy"])
def test_random_damage_is_read_or_refused(data):
    rng = np.random.default_rng(0)
    for _ in range(150):
        spoiled = bytearray(data)
        for place in rng.integers(0, min(len(data), 20_000), rng.integers(1, 6)):
            spoiled[place] = rng.integers(0, 256)
        try:
            arrays = torch_file.read_torch(bytes(spoiled))
        except BadFileError:
            continue
        assert all(isinstance(array, np.ndarray) for array in arrays.values())


@pytest.mark.parametrize(
    "found", [[1, 2], {}, {"conv1.weight": 3}, {3: 4}, None], ids=["list", "empty", "3", "key", "0"]
)
def test_anything_but_a_dictionary_of_tensors_is_refused(found):
    pickled = pickle.dumps(found, protocol=2)
    data = rezipped(ZIP, lambda name, part: pickled if name.endswith("data.pkl") else part)
    with pytest.raises(BadFileError, match="weights"):
        torch_file.read_torch(data)


def test_a_huge_memo_index_is_refused():
    bomb = b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b"."
    assert list(pickletools.genops(bomb))
    data = rezipped(ZIP, lambda name, part: bomb if name.endswith("data.pkl") else part)
    with pytest.raises(BadFileError):
        torch_file.read_torch(data)


def hostile(*opcodes: bytes) -> bytes:
    """Returns a zip whose pickle consists of these opcodes."""
    pickled = b"\x80\x02" + b"".join(opcodes) + b"."
    return rezipped(ZIP, lambda name, part: pickled if name.endswith("data.pkl") else part)


DOUBLED = b")" + b"q\x00h\x00\x86" * 40  # a tuple of a tuple of …, each twice in the next
PAIRS = b"]" + b"(" + b"K\x00" * 10 + b"e"


@pytest.mark.parametrize(
    "opcodes",
    [
        pytest.param((b"}", DOUBLED, b"K\x00s"), id="a key that takes forever to hash"),
        pytest.param((DOUBLED, b"X\x01\x00\x00\x00a\x93"), id="a name that takes forever to write"),
        pytest.param((b"}", b")" + b"\x85" * 90_000, b"K\x00s"), id="a key that is too deep"),
        pytest.param((b"(" * 60_000, b"t" * 60_000), id="many nested marks"),
        pytest.param((b"N" * 2_000_000,), id="a long pickle"),
        pytest.param(
            (PAIRS, b"ccollections\nOrderedDict\n", b"h\x00\x85R"), id="a full dictionary"
        ),
        pytest.param((b"}", b"K\x00a"), id="appending to a dictionary"),
        pytest.param((b")", b"K\x00K\x00s"), id="setting an item of a tuple"),
        pytest.param((b"\x87",), id="a tuple of nothing"),
        pytest.param((b"K\x00)R",), id="a call of a number"),
    ],
)
def test_pickles_made_to_hang_or_crash_are_refused_quickly(opcodes):
    begun = time.thread_time()
    with pytest.raises(BadFileError):
        torch_file.read_torch(hostile(*opcodes))
    assert time.thread_time() - begun < 5


def test_damage_to_the_pickle_is_read_or_refused():
    """The zip's checksum, which would detect most damage, is correct here."""
    rng = np.random.default_rng(1)
    for _ in range(200):

        def change(name: str, part: bytes) -> bytes:
            if not name.endswith("data.pkl"):
                return part
            spoiled = bytearray(part)
            for place in rng.integers(0, len(part), 3):
                spoiled[place] = rng.integers(0, 256)
            return bytes(spoiled)

        with contextlib.suppress(BadFileError):
            torch_file.read_torch(rezipped(ZIP, change))


def test_a_big_endian_legacy_file_is_refused():
    spoiled = LEGACY.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89", 1)
    assert spoiled != LEGACY
    with pytest.raises(BadFileError, match="big-endian"):
        torch_file.read_torch(spoiled)


def test_tensors_may_share_a_storage_but_not_multiply_it():
    storage = torch_file.Storage("0", np.dtype("<f4"), 1000)
    tensor = torch_file.Tensor(storage, 0, (1000,), (1,))
    with pytest.raises(BadFileError, match="more numbers than the file"):
        torch_file._checked_tensors({str(i): tensor for i in range(900)}, 10_000)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def tensor_of(storage: str, key: str, count: int, view: bytes) -> bytes:
    """Returns the opcodes of a tensor; `view` are those of its offset, shape and strides."""
    kind = f"ctorch\n{storage}\n".encode()
    reference = b"(" + text("storage") + kind + text(key) + text("cpu") + number(count) + b"tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + reference + view + b"tR"


def made(
    numbers: np.ndarray, storage: str, tensors=1, offset=0, byteorder=b"little", parts=("x/data/0",)
) -> bytes:
    """A zip of tensors that are every second of `numbers`, from `offset` on."""
    shape, stride = number((len(numbers) - offset + 1) // 2) + b"\x85", number(2) + b"\x85"
    tensor = tensor_of(storage, "0", len(numbers), number(offset) + shape + stride)
    items = (text(f"weight {i}") + tensor + b"s" for i in range(tensors))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}" + b"".join(items) + b".")
        archive.writestr("x/byteorder", byteorder)
        for part in parts:
            archive.writestr(part, numbers.tobytes())
    return out.getvalue()


@pytest.mark.parametrize(
    ("storage", "dtype"),
    [
        ("DoubleStorage", "f8"),
        ("FloatStorage", "f4"),
        ("HalfStorage", "f2"),
        ("LongStorage", "i8"),
        ("IntStorage", "i4"),
    ],
)
def test_a_tensor_may_be_any_part_of_numbers_of_any_type(storage, dtype):
    numbers = np.array([1, -2, 3, 1000, 5], f"<{dtype}")
    for offset in (0, 1):
        (tensor,) = torch_file.read_torch(made(numbers, storage, offset=offset)).values()
        assert tensor.dtype == numbers.dtype
        np.testing.assert_array_equal(tensor, numbers[offset::2])


def test_zips_that_are_not_what_torch_writes_are_refused():
    numbers = np.ones(1, "<f4")
    with pytest.raises(BadFileError, match="big-endian"):
        torch_file.read_torch(made(numbers, "FloatStorage", byteorder=b"big"))
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = made(numbers, "FloatStorage", parts=("x/data/0", "x/data/0"))
    with pytest.raises(BadFileError, match="two parts have the same name"):
        torch_file.read_torch(twice)
    assert len(torch_file.read_torch(made(numbers, "FloatStorage", tensors=1000))) == 1000
    with pytest.raises(BadFileError, match="more numbers than the file"):
        torch_file.read_torch(made(numbers, "FloatStorage", tensors=1001))


def test_parts_that_overlap_are_refused_before_they_are_read():
    """Each part reaches to the end of the last one. Such a file of 10 MB would take 3 GB."""
    content, items, entries = np.ones(25_000, "<f4").tobytes(), b"", []

    def entry(name: str, part: bytes) -> bytes:
        size = len(part)
        fields = (20, 0, 0, 0, 0, zlib.crc32(part), size, size, len(name), 0)
        entries.append(struct.pack("<5H3I2H", *fields))
        return b"PK\3\4" + entries[-1] + name.encode()

    names = [f"x/data/{key}" for key in range(100, 140)]
    for name in names:
        items += (
            text(name) + tensor_of("FloatStorage", name[7:], len(content) // 4, b"K\0))") + b"s"
        )
        content = entry(name, content) + content
    pickled, places = b"\x80\x02}" + items + b".", range(0, 40 * len(names), 40)
    content += entry("x/data.pkl", pickled) + pickled
    names, places = [*names, "x/data.pkl"], [*reversed(places), len(content) - len(pickled) - 40]
    directory = b"".join(
        b"PK\1\2\x14\0" + fields + bytes(10) + struct.pack("<I", place) + name.encode()
        for name, fields, place in zip(names, entries, places, strict=True)
    )
    end = struct.pack("<4H2IH", 0, 0, len(names), len(names), len(directory), len(content), 0)
    with pytest.raises(BadFileError, match="parts are larger than the file"):
        torch_file.read_torch(content + directory + b"PK\5\6" + end)


def test_shapes_made_to_take_forever_are_refused():
    huge = b"\x8a\xff" + b"\x7f" * 255 + b"q\0"
    shape = b"(" + huge + b"h\0" * 90_000 + b"t"
    tensor = tensor_of("FloatStorage", "0", 1, b"K\0" + shape + b")")
    begun = time.thread_time()
    with pytest.raises(BadFileError, match="not valid"):
        torch_file.read_torch(hostile(b"}" + text("conv1.weight"), tensor, b"s"))
    assert time.thread_time() - begun < 5
