"""Check whether processes of this machine still run."""

from __future__ import annotations

import contextlib
from typing import Any

import psutil


def process_of(pid: float, created: float | None = None) -> psutil.Process | None:
    """Return the process with this pid, None where it has ended.

    ``created``: when it began, in seconds since 1970, to detect a reused pid; None: don't check.
    """
    with contextlib.suppress(psutil.Error, ValueError, TypeError, OverflowError):
        process = psutil.Process(int(pid))
        same = created is None or abs(process.create_time() - created) < 1
        if same and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def has_ended(controller: Any) -> bool:
    """Return whether this launcher's controller has ended, as far as this process can tell; False for None.

    With ipyparallel's synchronous API, nothing may have updated the launcher's state: its event loop is closed between calls.
    """
    if controller is None:
        return False
    process = getattr(controller, "process", None)
    if controller.state != "running" or process is None:
        return bool(controller.state == "after")
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
