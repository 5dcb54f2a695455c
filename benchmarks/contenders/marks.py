"""What each contender tells of itself, a line of JSON each time. Standard library only: they run in environments of their own."""

from __future__ import annotations

import json
import resource
import sys
import time


def mark(name: str) -> None:
    """``at``: seconds of a clock that all processes share; ``cpu``: seconds of this process so far; ``mb``: its largest size."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    told = {"mark": name, "at": time.monotonic(), "cpu": time.process_time(), "mb": size}
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


def wait_for_a_line() -> None:
    """Until whoever measures has counted."""
    sys.stdin.readline()
