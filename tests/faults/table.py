"""The table of faults: every row is a test, and a line of docs/reliability.md."""

from __future__ import annotations

from . import requests
from .row import Row

ROWS: tuple[Row, ...] = requests.ROWS
