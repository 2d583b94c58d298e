"""Progress of reading: every item comes through, and what takes long is told."""

import io
import itertools
import sys

import pytest

from resnetkit.data import progress
from resnetkit.data.progress import watched


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A second passes between two looks at it, and rich goes by the stream alone."""
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    ticks = itertools.count()
    monkeypatch.setattr(progress, "perf_counter", lambda: next(ticks))


def test_what_is_soon_over_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr(progress, "perf_counter", lambda: 0.0)
    assert list(watched(range(1000), 1000, "reading")) == list(range(1000))
    assert capsys.readouterr().err == ""


def test_lines_where_there_is_no_terminal(clock, capsys):
    assert list(watched(iter(range(1200)), 1200, "reading train images")) == list(range(1200))
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "reading train images: 4 of 1,200"
    assert len(lines) > 20 and lines[-1].startswith("reading train images: 1,1")


def test_a_bar_on_a_terminal_which_goes(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    assert list(watched(range(50), 50, "reading train images")) == list(range(50))
    shown = terminal.getvalue()
    assert "reading train images" in shown and "50/50" in shown
    assert shown.endswith("\x1b[2K"), "the bar's line is cleared at the end"


def test_standard_output_stays_where_it_is(clock, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Terminal())
    for item in watched(range(5), 5, "reading"):
        print(item)
    assert capsys.readouterr().out == "0\n1\n2\n3\n4\n"


def test_nobody_who_stops_asking_is_left_with_a_bar(clock, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    items = watched(range(50), 50, "reading")
    assert list(itertools.islice(items, 10)) == list(range(10))
    items.close()
    assert terminal.getvalue().endswith("\x1b[2K")
