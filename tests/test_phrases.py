import pytest

from meljax.util.phrases import count, nearest, on_one_line


@pytest.mark.parametrize(
    ("number", "phrase"), [(0, "0 files"), (1, "1 file"), (2, "2 files"), (1200, "1,200 files")]
)
def test_a_count_has_the_right_number_of_its_noun(number, phrase):
    assert count(number, "file") == phrase


@pytest.mark.parametrize(
    ("name", "phrase"), [("speakr", " (the nearest is 'speaker')"), ("qqqq", "")]
)
def test_the_nearest_name_is_given_only_if_it_is_similar(name, phrase):
    assert nearest(name, ["word", "speaker"]) == phrase


@pytest.mark.parametrize(
    ("text", "shown"), [("è.wav", "è.wav"), ("a\nb.wav", "'a\\nb.wav'"), ("\udc80", "'\\udc80'")]
)
def test_text_stays_on_one_line(text, shown):
    assert on_one_line(text) == shown
