"""Progress is shown on the standard error, and only of work that takes a while."""

import sys

import pytest

from normlab.data import progress


def test_plain_lines_come_now_and_then(capsys, monkeypatch):
    now = iter([0.0, 4.0, 11.0, 11.0, 12.0, 13.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    show = progress.plain_lines("x")
    for done, total in ((1_000_000, None), (2_000_000, None), (3_000_000, 9_000_000)):
        show(done, total)
    assert capsys.readouterr().err == "x: 2.0 MB\n"


def test_pictures_are_counted_now_and_then(capsys, monkeypatch):
    now = iter([0.0, 0.0, 4.0, 11.0, 11.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.in_pictures("pets", 9) as advance:
        advance()
        advance()
    assert capsys.readouterr().err == "pets: 2 of 9 pictures\n"


@pytest.mark.parametrize("seconds", [0.5, 2.0])
def test_a_terminal_has_a_bar_after_a_second(seconds, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    now = iter([0.0, 0.0, seconds, seconds])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now, seconds))
    with progress.in_pictures("pets", 1) as advance:
        advance()
    assert ("pets" in capsys.readouterr().err) is (seconds > 1)
