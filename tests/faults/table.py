"""The tables of faults: every row is a line, or a mark, of docs/reliability.md, and every run is a test that shows some of them."""

from __future__ import annotations

from . import lives, matrix, processes, requests, server_controllers
from .row import Row, Run

GROUPS: dict[str, tuple[Run, ...]] = {
    "requests": (*matrix.RUNS, *requests.RUNS),
    "lives": lives.RUNS,
    "processes": processes.RUNS,
    "server controllers": server_controllers.RUNS,
}
ROWS: tuple[Row, ...] = tuple(row for runs in GROUPS.values() for run in runs for row in run.rows)
