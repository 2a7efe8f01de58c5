"""Windows that are merged, and thresholds that are applied."""

import numpy as np
import pytest

from meljax.evaluation.spans import Span, merged, with_decision

RNG = np.random.default_rng(0)


def windows(classes: str, path="a.wav", step=0.5) -> list[Span]:
    """Windows of 1 s; a letter each: a, b: the class, s: silence, ?: unknown."""
    spans = []
    for number, letter in enumerate(classes):
        status = {"s": "silence", "?": "unknown"}.get(letter, "ok")
        high = RNG.uniform(0.5, 1)
        given = None if letter == "s" else np.array([high, 1 - high])[:: -1 if letter == "b" else 1]
        start = number * step
        spans.append(Span(path, status, start, start + 1, given, duration=9.0))
    return spans


def found(spans) -> list[tuple]:
    return [
        (each.status if each.label is None else "ab"[each.label], each.start, each.end)
        for each in spans
    ]


def test_successive_windows_of_a_class_are_one():
    assert found(merged(windows("aabass??b"))) == [
        ("a", 0.0, 1.5),
        ("b", 1.0, 2.0),
        ("a", 1.5, 2.5),
        ("silence", 2.0, 3.5),
        ("unknown", 3.0, 4.5),
        ("b", 4.0, 5.0),
    ]


def test_windows_that_only_touch_are_merged_and_gaps_are_not():
    assert found(merged(windows("aa", step=1.0))) == [("a", 0.0, 2.0)]
    assert len(list(merged(windows("aa", step=1.25)))) == 2


def test_the_probability_is_the_mean_and_its_class_stays():
    spans = windows("bbb")
    (whole,) = merged(spans)
    np.testing.assert_allclose(
        whole.probabilities, np.mean([each.probabilities for each in spans], 0), rtol=1e-12
    )
    assert whole.label == 1
    assert spans[0].probabilities.sum() == pytest.approx(1)  # unchanged


def test_files_are_not_merged_even_if_one_is_given_twice():
    again = [*windows("aa"), *windows("aa"), *windows("aa", "b.wav")]
    assert [each[1:] for each in found(merged(again))] == [(0.0, 1.5)] * 3


def test_errors_and_resized_images_are_not_merged():
    bad = Span("a.wav", "error", error="bad")
    image = Span("a.png", "ok", probabilities=np.array([1.0, 0.0]))
    assert [each.path for each in merged([bad, bad, image, image])] == ["a.wav"] * 2 + ["a.png"] * 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_was_scored_before_an_interrupt_is_not_lost(error):
    def interrupted():
        yield from windows("aab")[:2]
        raise error

    rest = merged(interrupted())
    assert found([next(rest)]) == [("a", 0.0, 1.5)]
    with pytest.raises(error):
        next(rest)


def test_merging_can_be_left_early():
    rest = merged(iter(windows("ab")))
    next(rest)
    rest.close()


def test_a_class_below_its_threshold_is_unknown():
    span = Span("a", "ok", 0.0, 1.0, np.array([0.25, 0.75]))
    assert with_decision(span, np.array([1.0, 0.75])) is span
    assert with_decision(span, np.array([1.0, 1.0]), background=0).status == "unknown"
    noise = with_decision(span, np.array([0.0, 1.0]), background=1)
    assert (noise.status, noise.label, noise.probabilities is span.probabilities) == (
        "background",
        None,
        True,
    )
    unknown = with_decision(span, np.array([0.0, 0.76]))
    assert (unknown.status, unknown.label, unknown.end) == ("unknown", None, 1.0)
    assert unknown.probabilities is span.probabilities
    silent = Span("a", "silence", 0.0, 1.0)
    assert with_decision(silent, np.array([1.0, 1.0])) is silent
