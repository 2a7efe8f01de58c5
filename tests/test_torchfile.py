"""Files of weights from strangers: read as data, or refused; never run."""

import contextlib
import io
import os
import pickle
import pickletools
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from meljax.errors import BadFileError
from meljax.models import torchfile

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
    """The zip with each part passed through `change(name, bytes)`."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return out.getvalue()


def test_both_formats_hold_the_same_arrays():
    one, two = torchfile.read_torch(ZIP), torchfile.read_torch(LEGACY)
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
        header = [torchfile.MAGIC, torchfile.PROTOCOL, {"little_endian": True}]
        attack = b"".join(pickle.dumps(part, protocol=2) for part in header) + attack
    with pytest.raises(BadFileError):
        torchfile.read_torch(attack)
    assert not trap.exists()


def test_a_name_that_no_weights_need_is_named():
    attack = pickle.dumps(Caller(Path("x")), protocol=2)
    attack = rezipped(ZIP, lambda name, part: attack if name.endswith("data.pkl") else part)
    with pytest.raises(BadFileError, match=r"mkdir.*nothing was run"):
        torchfile.read_torch(attack)


def edited(find: bytes, replace: bytes) -> bytes:
    """The zip with its pickle changed."""

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
            torchfile.read_torch(edited(find, replace))


def test_a_storage_of_another_size_than_said_is_refused():
    short = rezipped(ZIP, lambda name, part: part[:-4] if name.endswith("data/0") else part)
    with pytest.raises(BadFileError, match="shorter"):
        torchfile.read_torch(short)


def test_compressed_parts_are_refused_unread():
    packed = rezipped(ZIP, lambda name, part: part, zipfile.ZIP_DEFLATED)
    with pytest.raises(BadFileError, match="compressed"):
        torchfile.read_torch(packed)


@pytest.mark.parametrize("data", [ZIP, LEGACY], ids=["zip", "legacy"])
def test_truncation_anywhere_is_noticed(data):
    for end in [*range(0, len(data), 5003), len(data) - 1, len(data) - 100]:
        with pytest.raises(BadFileError):
            torchfile.read_torch(data[:end])


@pytest.mark.parametrize("data", [ZIP, LEGACY], ids=["zip", "legacy"])
def test_random_damage_reads_or_is_refused_and_nothing_else(data):
    rng = np.random.default_rng(0)
    for _ in range(150):
        spoiled = bytearray(data)
        for place in rng.integers(0, min(len(data), 20_000), rng.integers(1, 6)):
            spoiled[place] = rng.integers(0, 256)
        try:
            arrays = torchfile.read_torch(bytes(spoiled))
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
        torchfile.read_torch(data)


def test_a_memo_of_gigabytes_is_not_made():
    bomb = b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b"."
    assert list(pickletools.genops(bomb))
    data = rezipped(ZIP, lambda name, part: bomb if name.endswith("data.pkl") else part)
    with pytest.raises(BadFileError):
        torchfile.read_torch(data)


def hostile(*opcodes: bytes) -> bytes:
    """A zip whose pickle consists of these opcodes."""
    pickled = b"\x80\x02" + b"".join(opcodes) + b"."
    return rezipped(ZIP, lambda name, part: pickled if name.endswith("data.pkl") else part)


DOUBLED = b")" + b"q\x00h\x00\x86" * 40  # a tuple of a tuple of …, each twice in the next
PAIRS = b"]" + b"(" + b"K\x00" * 10 + b"e"


@pytest.mark.parametrize(
    "opcodes",
    [
        pytest.param((b"}", DOUBLED, b"K\x00s"), id="a key that takes for ever to hash"),
        pytest.param(
            (DOUBLED, b"X\x01\x00\x00\x00a\x93"), id="a name that takes for ever to write"
        ),
        pytest.param((b"}", b")" + b"\x85" * 90_000, b"K\x00s"), id="a key that is too deep"),
        pytest.param((b"(" * 60_000, b"t" * 60_000), id="marks upon marks"),
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
def test_pickles_made_to_hang_or_to_crash_are_refused_at_once(opcodes):
    begun = time.monotonic()
    with pytest.raises(BadFileError):
        torchfile.read_torch(hostile(*opcodes))
    assert time.monotonic() - begun < 5


def test_damage_to_the_pickle_itself_reads_or_is_refused_and_nothing_else():
    """The zip's own checksum would notice most; here it fits."""
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
            torchfile.read_torch(rezipped(ZIP, change))


def test_a_big_endian_legacy_file_is_refused():
    spoiled = LEGACY.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89", 1)
    assert spoiled != LEGACY
    with pytest.raises(BadFileError, match="big-endian"):
        torchfile.read_torch(spoiled)


def test_tensors_may_share_a_storage_but_not_multiply_it():
    storage = torchfile.Storage("0", np.dtype("<f4"), 1000)
    tensor = torchfile.Tensor(storage, 0, (1000,), (1,))
    with pytest.raises(BadFileError, match="more numbers than the file"):
        torchfile._checked_tensors({str(i): tensor for i in range(900)}, 10_000)
