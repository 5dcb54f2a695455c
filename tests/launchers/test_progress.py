"""`Progress`: a bar for people, lines for a log."""

import fcntl
import logging
import os
import pty
import re
import struct
import sys
import termios

import pytest

from ipp_griffin.launchers.progress import Progress


def test_without_a_terminal_each_change_is_a_line(caplog, capsys):
    caplog.set_level(logging.INFO)
    with Progress(8, logging.getLogger("start"), bar=None) as progress:  # pytest's stderr is no terminal
        progress.show(0, {"building": 8})
        progress.show(0, {"building": 8})
        progress.show(2, {"building": 6, "engines": 2})
    assert [record.getMessage() for record in caplog.records] == [
        "0 of 8 engines connected; servers: 8 building",
        "2 of 8 engines connected; servers: 6 building, 2 with engines",
    ]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("columns", "bar"), [(80, True), (0, False)])
def test_a_terminal_gets_a_bar_if_there_is_room_for_it_else_lines(caplog, monkeypatch, columns, bar):
    """tqdm draws nothing on one without columns: nobody would see anything of a start."""
    caplog.set_level(logging.INFO)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(ours, "rb", buffering=0) as screen, os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress(8, logging.getLogger("start")) as progress:
            progress.show(2, {"engines": 2})
        print("end", file=terminal, flush=True)
        drawn = b""
        while b"end" not in drawn:
            drawn += screen.read(4096)
    assert (b"2/8" in drawn, [record.getMessage() for record in caplog.records]) == (
        bar,
        [] if bar else ["2 of 8 engines connected; servers: 2 with engines"],
    )


def test_a_bar_shows_counts_and_phases_and_leaves_the_log_alone(caplog, capsys):
    caplog.set_level(logging.INFO)
    with Progress(8, logging.getLogger("start"), bar=True) as progress:
        progress.show(2, {"building": 6, "engines": 2})
    drawn = capsys.readouterr().err
    assert "2/8" in drawn
    assert "servers: 6 building, 2 with engines" in drawn
    assert caplog.records == []


def test_what_is_logged_meanwhile_has_a_line_of_its_own(capsys):
    log = logging.getLogger("start")
    handler = logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    try:
        with Progress(8, log, bar=True) as progress:
            progress.show(2, {"engines": 2})
            log.warning("A server failed.")
            progress.show(3, {"engines": 3})
        log.warning("Later.")
    finally:
        log.removeHandler(handler)
    drawn = capsys.readouterr().err
    assert re.search(r"\r *\rA server failed\.\n[^\n]*3/8[^\n]*\r *\rLater\.\n", drawn), drawn
    assert log.filters == []


def test_in_a_kernel_there_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr("ipp_griffin.launchers.progress._in_kernel", lambda: True)
    with Progress(1, logging.getLogger("start")) as progress:
        progress.show(1, {"engines": 1})
    assert "1/1" in capsys.readouterr().err
