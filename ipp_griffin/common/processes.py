"""Check whether processes of this machine still run."""

from __future__ import annotations

from typing import Any

import psutil


def has_ended(controller: Any) -> bool:
    """Return whether this launcher's controller has ended, as far as this process can tell; False for None.

    With ipyparallel's synchronous API nobody may be there to set the launcher's state: its event loop is closed between calls.
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
