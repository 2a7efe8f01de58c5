import jax
import numpy as np
import pytest
from jax.sharding import SingleDeviceSharding

from meljax.data import batches
from meljax.features import windows

pytestmark = pytest.mark.accelerator

PLACE = SingleDeviceSharding(jax.devices()[0])


@pytest.mark.parametrize(
    ("length", "expected"),
    [(3, [-2]), (6, [0]), (8, [1]), (9, [0, 3]), (11, [0, 5]), (12, [0, 3, 6]), (14, [0, 4, 8])],
)
def test_starts_are_in_the_middle_up_to_one_and_a_half_windows_then_evenly_spaced(length, expected):
    assert windows.starts(length, 6).tolist() == expected


@pytest.mark.parametrize("window", [1, 2, 7, 100])
def test_windows_of_a_long_item_cover_it_without_a_gap(window):
    for length in range(-(-3 * window // 2) + 1, 5 * window + 3):
        starts = windows.starts(length, window)
        assert starts[0] == 0
        assert starts[-1] == length - window
        steps = np.diff(starts)
        assert (steps >= max(1, window // 2)).all()
        assert (steps <= window).all()


def test_silent_windows_are_left_out_but_a_recording_with_sound_has_at_least_one():
    def scored(*parts: tuple[int, int]) -> list[int]:
        """The scored starts of windows of 100 in a recording of (samples, amplitude) parts."""
        item = [amplitude * (-1) ** np.arange(samples) for samples, amplitude in parts]
        item = np.concatenate(item).astype(np.int16)
        found = windows.scored_starts(item, 100, skip_silence=True)
        assert windows.scored_starts(item, 100, False).tolist() == [*windows.starts(len(item), 100)]
        return found.tolist()

    assert scored((120, 50)) == [10]
    assert scored((120, 0)) == []
    assert scored((60, 0)) == []
    assert scored((5, 50), (115, 0)) == [0]
    assert scored((115, 0), (5, 50)) == [20]
    assert scored((5, 50), (110, 0), (5, 50)) == [0, 20]
    assert scored((200, 0), (100, 50)) == [150, 200]
    slow = np.repeat(np.arange(4), 35).astype(np.int16)  # each window spans three steps
    assert len(windows.scored_starts(slow, 100, skip_silence=True)) >= 1


def test_random_starts_are_uniform_over_all_valid_positions():
    random_starts = jax.jit(windows.random_starts, static_argnames="window")
    bits = jax.random.bits(jax.random.key(0), 6000)
    for length in (3, 6, 10):
        found = random_starts(bits, np.full(len(bits), length), 6)
        spare = length - 6
        starts, counts = np.unique(found, return_counts=True)
        assert starts.tolist() == list(range(min(spare, 0), max(spare, 0) + 1))
        assert np.abs(counts - 6000 / len(starts)).max() < 5 * np.sqrt(6000 / len(starts))


def recordings() -> tuple[batches.DeviceSet, list[np.ndarray]]:
    items = [np.arange(1, n + 1, dtype=np.int16) + 100 * n for n in (7, 3, 5)]
    return batches.make_device_set(items, np.array([0, 1, 1]), 6, PLACE), items


def cut(data, index, start, window=6):
    values = np.asarray(batches.cut_windows(data, np.array(index), np.array(start), window))
    return values * 32768 if values.ndim == 2 else values


def test_a_window_is_a_part_of_its_item():
    data, items = recordings()
    out = cut(data, [0, 2], [2, 1], window=4)
    np.testing.assert_array_equal(out[0], items[0][2:6])
    np.testing.assert_array_equal(out[1], items[2][1:5])


def test_padding_of_recordings_is_silence_and_never_a_neighbor():
    data, items = recordings()
    out = cut(data, [1, 1], [0, -2])
    np.testing.assert_array_equal(out[0], [*items[1], 0, 0, 0])
    np.testing.assert_array_equal(out[1], [0, 0, *items[1], 0])


def test_windows_can_extend_beyond_the_first_and_last_item():
    data, items = recordings()
    out = cut(data, [0, 2, 2], [-5, 4, -1])
    np.testing.assert_array_equal(out[0], [0] * 5 + [items[0][0]])
    np.testing.assert_array_equal(out[1], [items[2][4]] + [0] * 5)
    np.testing.assert_array_equal(out[2], [0, *items[2]])


def test_images_are_padded_with_their_floor():
    items = [np.full((n, 3, 2), 99, np.uint8) for n in (2, 4)]
    items[0][1, 2], items[1][0, 0] = [9, 8], [7, 6]
    data = batches.make_device_set(items, np.array([0, 1]), 4, PLACE)
    out = cut(data, [0], [-1], window=4)
    np.testing.assert_array_equal(out[0, [0, 3]], np.broadcast_to([9, 8], (2, 3, 2)))
    np.testing.assert_array_equal(out[0, 1:3], items[0])


def test_a_window_set_equals_an_item_set():
    """A stream of files and a split on the devices have the same windows."""
    rng = np.random.default_rng(0)
    clips = [rng.integers(-9, 9, n).astype(np.int16) for n in (3, 20)]
    images = [rng.integers(0, 9, (n, 2, 3)).astype(np.uint8) for n in (3, 20)]
    for items in (clips, images):
        resident = batches.make_device_set(items, np.array([0, 1]), 7, PLACE)
        places = [(0, -2), (0, -1), (1, 0), (1, 13)]
        pieces = [(items[item], start) for item, start in places]
        stream, start = batches.make_window_set(pieces, 5, 7, PLACE)
        there = cut(resident, *zip(*places, strict=True), window=7)
        here = cut(stream, np.arange(5), start[0], window=7)
        np.testing.assert_array_equal(here[:4], there)


def test_the_floor_is_the_darkest_color_of_an_image():
    image = np.array([[[9, 9, 9], [1, 2, 3]], [[3, 2, 1], [0, 0, 7]]], np.uint8)
    assert windows.floor_color(image).tolist() == [1, 2, 3]


def test_a_bright_color_is_not_taken_for_a_dark_one():
    """The sum of 600 does not fit into the eight bits of a pixel."""
    image = np.array([[[200, 200, 200], [90, 0, 0]]], np.uint8)
    assert windows.floor_color(image).tolist() == [90, 0, 0]
