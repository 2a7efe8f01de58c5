"""Times in file names."""

from datetime import datetime

import pytest

from meljax.data.recording_time import recording_times

START = datetime(2024, 5, 17, 4, 30)


@pytest.mark.parametrize(
    ("name", "time"),
    [
        ("20240517_043000.WAV", START),
        ("site 3/20240517_043000.wav", START),
        ("24F31902_20240517_043000.WAV", START),
        ("S4A01234_20240517_043000.wav", START),
        ("20240517_043000T.WAV", START),
        ("x_20240517_043000.123Z.wav", START.replace(microsecond=123000)),
        ("20240517_043000Z.flac", START),
        ("BAR-20240517T043000+1000_REC.flac", START),
        ("20240517_043000_000.wav", START),
        ("SM2_0+1_20240517-043000.wav", START),
        ("20241345_000000_20240517_043000.wav", START),
        ("20240229_235959.wav", datetime(2024, 2, 29, 23, 59, 59)),
        ("19700101_000010.WAV", datetime(1970, 1, 1, 0, 0, 10)),  # a clock that was not set
        ("5B6F2C30.WAV", datetime(2018, 8, 11, 18, 34, 24)),
        ("/data/5E90A494.WAV", datetime(2020, 4, 10, 16, 53, 40)),
    ],
)
def test_names_of_recorders_have_times(name, time):
    assert recording_times([name]) == {name: time}


@pytest.mark.parametrize(
    "name",
    [
        "20241317_043000.WAV",
        "20240532_043000.WAV",
        "20230229_120000.wav",
        "20240517_243000.wav",
        "20240517_046000.wav",
        "20240517.wav",
        "20240517_0430.wav",
        "120240517_043000.wav",
        "20240517_0430001.wav",
        "x20240517_043000.wav",
        "20240517_043000x.wav",
        "20240517043000.wav",
        "00000101_000000.wav",
        "12345678_123456.wav",
        "31001231_000000.wav",
        "voice01/0007.wav",
        "20240517_043000/a.wav",  # only the file name counts
        "5B6F2C30.wav",  # AudioMoth writes the suffix in capitals
        "5b6f2c30.WAV",
        "5B6F2C3.WAV",
        "x5B6F2C30.WAV",
        "DEADBEEF.WAV",
        "24F31902.WAV",
        "00000001.WAV",
        "58789012.WAV",  # an ordinary number
        "٢٠٢٤٠٥١٧_٠٤٣٠٠٠.wav",
        "",
    ],
)
def test_other_names_have_none(name):
    assert recording_times([name]) == {}


def test_a_hexadecimal_name_without_letters_counts_beside_one_with_letters():
    found = recording_times(["a/5B6F2C30.WAV", "a/58789012.WAV", "b/58789012.WAV"])
    assert found.keys() == {"a/5B6F2C30.WAV", "a/58789012.WAV"}
