"""What each contender tells of itself, a line of JSON each time. Standard library only: they run in environments of their own."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path


def mark(name: str) -> None:
    """``at``: seconds of a clock that all processes share; ``cpu``: seconds of this process so far; ``mb``: its largest size."""
    told = {"mark": name, "at": time.monotonic(), "cpu": time.process_time(), "mb": _largest()}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def _largest() -> float:
    """MB that have been resident at most. (`resource.getrusage` counts what the process that started this one had, too.)"""
    return int(re.findall(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)[0]) / 1024


def wait_for_a_line() -> None:
    """Until whoever measures has counted."""
    sys.stdin.readline()
