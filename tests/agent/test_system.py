"""The agent's console."""

import io
import time

from ipp_griffin.agent import system
from ipp_griffin.agent.system import say


def test_a_line_on_the_console_has_its_mark_and_then_the_utc_time(monkeypatch):
    console = io.StringIO()
    monkeypatch.setattr(system, "STREAMS", [console])
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0625)
    say("engines: all run")
    assert console.getvalue() == "ipp-griffin: 2023-11-14T22:13:20.062Z engines: all run\n"
