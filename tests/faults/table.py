"""The table of faults: every row is a test, and a line of docs/reliability.md."""

from __future__ import annotations

from . import lives, processes, requests, server_controllers
from .row import Row

GROUPS: dict[str, tuple[Row, ...]] = {
    "requests": requests.ROWS,
    "lives": lives.ROWS,
    "processes": processes.ROWS,
    "server controllers": server_controllers.ROWS,
}
ROWS: tuple[Row, ...] = tuple(row for group in GROUPS.values() for row in group)
