"""Guests: each server's user-data runs as a local process group, in a home of its own.

Every process of a guest carries ``DEVCLOUD_SERVER_ID=<cloud id>:<server id>`` in its environment, or at least the home
of its server as ``HOME``. That is how those that left the process group are found again, also by another process after this
one was killed.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import psutil

log = logging.getLogger(__name__)
MARKER = "DEVCLOUD_SERVER_ID"
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CONSOLE_BYTES = 100 * 1024  # as much as Nova gives


class Guests:
    """The guests of one cloud. Its methods block (files, processes): call them from one thread, not the event loop."""

    def __init__(self, folder: Path, cloud_id: str) -> None:
        self._folder = folder
        self._cloud_id = cloud_id
        self._leaders: dict[str, subprocess.Popen[bytes]] = {}

    def boot(self, server_id: str, user_data: str, under: Sequence[str] = ()) -> None:
        """Start the user-data (base64, may be gzipped) if it is a script; what goes wrong is on the console.

        ``under``: a command that gets the script's own as further arguments, and runs it."""
        home = self._folder / server_id / "home"
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        home.parent.chmod(0o700)
        with self._console(server_id).open("ab") as console:
            try:
                self._run(server_id, home, decode(user_data), console.fileno(), under)
            except (OSError, ValueError, EOFError, zlib.error) as error:
                console.write(f"[devcloud] user-data did not start: {error}\n".encode())

    def kill(self, server_ids: Iterable[str]) -> None:
        """Kill all processes of these guests, with as few scans of the process table as possible."""
        ids = set(server_ids)
        leaders = {i: self._leaders.pop(i) for i in ids if i in self._leaders}
        if not leaders:
            return
        markers = {f"{self._cloud_id}:{i}" for i in ids}
        homes = {str(self._folder / i / "home") for i in ids}
        # The leaders are not reaped before all are dead: until then nobody else can get their pids.
        _kill_where(
            lambda environment: environment.get(MARKER) in markers or environment.get("HOME") in homes,
            {leader.pid for leader in leaders.values()},
        )
        for leader in leaders.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                leader.wait(timeout=5)

    def kill_all(self) -> None:
        self.kill(list(self._leaders))

    def remove(self, server_id: str) -> None:
        """Remove the server's folder: its disk."""
        shutil.rmtree(self._folder / server_id, ignore_errors=True)

    def console(self, server_id: str, lines: int | None = None) -> str:
        """Return the tail of what the guest printed."""
        try:
            with self._console(server_id).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _CONSOLE_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""
        return text if lines is None else "\n".join(text.split("\n")[-lines:] if lines else [])  # as Nova counts

    def _console(self, server_id: str) -> Path:
        return self._folder / server_id / "console.log"

    def _run(self, server_id: str, home: Path, program: bytes, console: int, under: Sequence[str]) -> None:
        if not program.startswith(b"#!"):
            os.write(console, b"[devcloud] no script in the user-data: nothing to run\n")
            return
        script = home.parent / "user-data"
        script.unlink(missing_ok=True)
        script.touch(mode=0o700)
        script.write_bytes(program)
        # As the kernel reads a #! line; run so that a folder mounted noexec does not matter.
        interpreter = program.splitlines()[0][2:].decode().strip().split(None, 1)
        environment = {
            "HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{_SYSTEM_PATH}",
            "LANG": "C.UTF-8",
            MARKER: f"{self._cloud_id}:{server_id}",
        }
        self._leaders[server_id] = subprocess.Popen(
            [*under, *interpreter, str(script)],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )


def decode(user_data: str) -> bytes:
    """User-data as the guest sees it. Raises ValueError or OSError (not gzip after all)."""
    raw = base64.b64decode(user_data)
    return gzip.decompress(raw) if raw.startswith(b"\x1f\x8b") else raw


def kill_cloud(folder: Path, cloud_id: str) -> None:
    """Kill every guest of this cloud, whoever started it. ``folder``: where its servers' are."""
    _kill_where(
        lambda environment: (
            environment.get(MARKER, "").startswith(f"{cloud_id}:")
            or environment.get("HOME", "").startswith(f"{folder}/")
        )
    )


def _kill_where(
    wanted: Callable[[Mapping[str, str]], bool], groups: Collection[int] = (), timeout: float = 10.0
) -> None:
    """SIGKILL processes whose environment is ``wanted``, members of ``groups``, and the descendants of both.

    They are stopped first, until a scan of the process table shows no others: a process that forks during the scan is found as its
    parent's child, which it would no longer be if the parent had been killed.
    """
    deadline = time.monotonic() + timeout
    stopped: set[psutil.Process] = set()  # a process is its pid and the time of its creation
    while victims := _find(wanted, groups):
        new = set(victims) - stopped
        for process in new or victims:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGSTOP if new else signal.SIGKILL)
        stopped |= new
        if time.monotonic() > deadline:
            log.warning("Processes survive SIGKILL: %s", ", ".join(str(process.pid) for process in victims))
            return
        if not new:
            time.sleep(0.01)  # not psutil's wait, which would reap


def _find(wanted: Callable[[Mapping[str, str]], bool], groups: Collection[int]) -> list[psutil.Process]:
    found: dict[int, psutil.Process] = {}
    children: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter():
        try:
            children.setdefault(process.ppid(), []).append(process)
            in_group = bool(groups) and os.getpgid(process.pid) in groups
            if process.pid != os.getpid() and (in_group or wanted(process.environ())):
                found[process.pid] = process
        except (psutil.Error, OSError):
            continue  # ended, or somebody else's
    todo = list(found.values())
    while todo:
        for child in children.get(todo.pop().pid, []):
            if child.pid not in found:
                found[child.pid] = child
                todo.append(child)
    return [process for process in found.values() if not _is_dead(process)]


def _is_dead(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True
