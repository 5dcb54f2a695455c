"""This server: its console, files, users and processes."""

import contextlib
import glob
import os
import pwd
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

Json = Dict[str, Any]
Run = Callable[..., Tuple[int, str]]

STREAMS = [sys.stdout]
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def say(message: str) -> None:
    """Print to the console, and in the background to the log too, with this server's UTC time. Both may be gone."""
    now = time.time()
    timestamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    for stream in STREAMS:
        with contextlib.suppress(OSError):
            # One write with its end of line: several threads print.
            stream.write(f"ipp-griffin: {timestamp}.{int(now % 1 * 1000):03d}Z {message}\n")
            stream.flush()


# -- files --------------------------------------------------------------------------------------------------------


def write(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file whole or not at all."""
    temporary = path + ".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as f:
        os.fchmod(f.fileno(), mode)
        f.write(data)
        f.flush()
        os.fsync(f.fileno())  # a server that is reset must not use an engine's uuid again
    os.replace(temporary, path)
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: str) -> bytes:
    """Return a file's content; nothing if it can't be read."""
    with contextlib.suppress(OSError), open(path, "rb") as f:
        return f.read()
    return b""


# -- users --------------------------------------------------------------------------------------------------------


def own_name() -> str:
    """Return the name of this process's user, its number where it has none."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def homes() -> List[Tuple[str, str]]:
    """Return (home, user) of the people who have an account on this server."""
    return [(e.pw_dir, e.pw_name) for e in pwd.getpwall() if e.pw_uid >= 1000 and e.pw_dir.count("/") > 1]


def switch_to(user: str) -> Optional[Callable[[], None]]:
    """Return a preexec_fn for Popen that drops to ``user``; None for "", which keeps the present user."""
    if not user:
        return None
    entry = pwd.getpwnam(user)

    def switch() -> None:
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)

    return switch


@contextlib.contextmanager
def acting_as(user: str) -> Iterator[None]:
    """Give file operations inside only the rights of ``user`` ("": the present user's)."""
    if not user:
        yield
        return
    entry, groups = pwd.getpwnam(user), os.getgroups()
    os.initgroups(user, entry.pw_gid)
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


# -- processes ----------------------------------------------------------------------------------------------------


def run_command(
    argv: Sequence[str], user: str = "", env: Optional[Dict[str, str]] = None, timeout: float = 60
) -> Tuple[int, str]:
    """Run a command to its end; return exit code (127: not there, 124: took longer than ``timeout`` seconds) and output."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd="/",
            timeout=timeout,
            preexec_fn=switch_to(user),
        )
    except subprocess.TimeoutExpired:
        return 124, f"{argv[0]} took more than {timeout:.0f} s"
    except (OSError, subprocess.SubprocessError) as e:
        return 127, str(e)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def descendants(pids: Sequence[int]) -> Dict[int, str]:
    """Return pid -> start time of all processes below ``pids``. An engine's nanny leaves its process group."""
    parents = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(path) as f:
            fields = f.read().rpartition(")")[2].split()
            parents[int(path.split("/")[2])] = (int(fields[1]), fields[19])
    found: Dict[int, str] = {}
    level = set(pids)
    while level:
        level = {pid for pid, (parent, _) in parents.items() if parent in level and pid not in found}
        found.update((pid, parents[pid][1]) for pid in level)
    return found


def start_time(pid: int) -> str:
    """Return when a process began, as /proc has it; "" where there is none."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def wait_until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)
