"""Progress bars and counters, and errors at the end of a block."""

import functools

import pytest
from tqdm import tqdm

from meljax.util import progress


def test_a_counter_shows_how_much_is_done(monkeypatch, capsys):
    monkeypatch.setattr(progress, "interactive", lambda: True)
    monkeypatch.setattr(progress, "tqdm", functools.partial(tqdm, mininterval=0, miniters=1))
    with progress.counter("reading") as count:
        for done in (1, 2, 3):
            count(done, 4)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "reading" in shown.err
    assert [f"{done}/4" in shown.err for done in (1, 2, 3, 4)] == [True, True, True, False]


def test_a_part_of_an_item_moves_the_bar(monkeypatch, capsys):
    monkeypatch.setattr(progress, "interactive", lambda: True)
    monkeypatch.setattr(progress, "tqdm", functools.partial(tqdm, mininterval=0, miniters=0))
    parts = [0.25, 0.5, 1.0, 1.0]
    assert list(progress.track(parts, 2, "scoring", lambda part: part)) == parts
    shown = capsys.readouterr().err
    assert [f"{done}/2" in shown for done in ("0.25", "0.5", "1", "2", "1.25")] == [True] * 4 + [
        False
    ]


def test_without_a_terminal_a_counter_is_one_line(capsys):
    with progress.counter("reading") as count:
        count(1, 4)
        count(2, 4)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("reading\n", "")


def test_an_interrupt_is_never_only_a_warning(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), progress.ending(interrupted):
        raise ValueError
    assert capsys.readouterr().err == ""
