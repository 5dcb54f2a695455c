"""The processes that the agent keeps running: engines, or ipcontroller."""

import contextlib
import os
import signal
import subprocess
from typing import Any, Callable, Dict, List, Optional, Sequence

from .errors import Failure, Stopped
from .system import descendants, start_time, switch_to, wait_until


class Child:
    """One process that the agent keeps running, across restarts."""

    def __init__(self, index: int, log: str) -> None:
        self.index, self.log = index, log
        self.process: Any = None
        self.uuid, self.started, self.offset, self.registered = "", 0.0, 0, False
        self.ended = ""  # as `why_ended` says, or "down": restarted too often
        self.crashes: List[float] = []
        self.due = 0.0  # when to restart it (monotonic)

    @property
    def alive(self) -> bool:
        return self.process is not None and not self.ended

    @property
    def written(self) -> int:
        """Bytes that it and those before it wrote."""
        try:
            return os.path.getsize(self.log)
        except OSError:
            return 0

    def output(self, most: int) -> bytes:
        """Return up to ``most`` last bytes that the present process wrote."""
        with open(self.log, "rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(max(min(self.offset, size), size - most))
            return f.read()


class Children:
    """All of them, and the signal that ends the agent."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.all: List[Child] = []
        self.uninterruptible = self.stopping = False

    @property
    def written(self) -> int:
        """Bytes of all their logs."""
        return sum(child.written for child in self.all)

    def on_signal(self, number: int, frame: object) -> None:
        """Raise `Stopped` at once; while a process is being started, only note it: `spawn` raises it."""
        self.stopping = True
        if not self.uninterruptible:
            raise Stopped()

    def spawn(
        self,
        child: Child,
        command: List[str],
        environment: Dict[str, str],
        user: str,
        folder: str,
        leads: bool = False,
    ) -> None:
        """Start a process in the place of ``child``. ``leads``: in a process group of its own. Raises Failure if it can't be run."""
        self.uninterruptible = True
        try:
            with os.fdopen(os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as log:
                child.offset = os.fstat(log.fileno()).st_size
                child.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=folder if os.path.isdir(folder) else "/",
                    preexec_fn=switch_to(user),
                    start_new_session=leads,
                )
        except (OSError, subprocess.SubprocessError) as e:
            raise Failure(f"could not run {command[0]}: {e}") from e
        finally:
            self.uninterruptible = False
        child.started, child.registered, child.ended = self._monotonic(), False, ""
        if self.stopping:
            raise Stopped()

    def end(self) -> None:
        """End all of them and what they started. Engines' nannies get 3 seconds to tell the hub."""
        alive = [child for child in self.all if child.process is not None and child.process.poll() is None]
        below = descendants([child.process.pid for child in alive])
        for child in alive:
            child.process.terminate()
        wait_until(lambda: all(child.process.poll() is not None for child in alive), 3)
        for child in alive:
            child.process.kill()
            child.process.wait()
            child.ended = "asked"
        wait_until(lambda: not any(start_time(pid) == start for pid, start in below.items()), 2.5)
        for pid, start in below.items():
            if start_time(pid) == start:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def restart_pause(crashes: Sequence[float], now: float, limit: int) -> Optional[float]:
    """Return the seconds to wait after the last of ``crashes`` (monotonic times); None: more than ``limit`` in an hour."""
    recent = [t for t in crashes if now - t < 3600]
    return None if len(recent) > limit else min(2.0 ** len(recent) / 2, 30.0)
