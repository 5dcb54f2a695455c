"""Support the ipcluster process beyond the contract of ipyparallel's launchers.

`ipcluster` (ipyparallel 9) hangs when a launcher's ``start()`` raises, leaves everything behind on SIGHUP, and `ipcluster engines`
overwrites the cluster file of a running cluster. One function here handles each.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from ..common.errors import GriffinError, Stopped
from ..common.files import write_private
from .profiles import check_files


def application(launcher: Any) -> Any | None:
    """Return the `ipcluster start` or `ipcluster engines` application that runs this launcher, if any."""
    from ipyparallel.cluster.app import IPClusterEngines

    parent = launcher.parent
    while parent is not None:
        if isinstance(parent, IPClusterEngines):
            return parent
        parent = getattr(parent, "parent", None)
    return None


async def end_failed_start(launcher: Any, error: Exception) -> NoReturn:
    """Report a failed start, whose leftovers the launcher has removed already.

    Under ipcluster: logs the cause in one line, ends the controller that `ipcluster start` started, and
    exits with status 1; this coroutine never returns then, because ipcluster can't handle an exception
    here. Anywhere else: raises ``error``.
    """
    app = application(launcher)
    if app is None:
        raise error
    if isinstance(error, Stopped) and not app._stopping:  # the user wanted it: not a failure
        app.loop.add_callback(app.loop.stop)
    elif not app._stopping:
        text = str(error) if isinstance(error, GriffinError) else f"{type(error).__name__}: {error}"
        launcher.log.critical(text)
        if getattr(error, "request_id", ""):
            launcher.log.info(f"The failed request has the id {error.request_id} in the cloud's logs")  # type: ignore[attr-defined]
        launcher.log.debug("The failed start in detail", exc_info=error)
        app.loop.add_callback(_end, app, launcher)
    await asyncio.Event().wait()  # until the application ends this process
    raise AssertionError("unreachable")


async def _end(app: Any, launcher: Any) -> None:
    from ipyparallel.cluster.app import IPClusterStart

    app._stopping = app._griffin_ends = True
    # Engines that join a running cluster must not end it.
    if isinstance(app, IPClusterStart):
        try:
            await launcher.parent.stop_cluster()
        except Exception as e:  # the exit status must still be 1, and the cause visible
            launcher.log.critical(str(e))
    app.exit(1)


async def end_failed_stop(launcher: Any, error: GriffinError) -> NoReturn:
    """Report that something could not be deleted. It stays in the cluster file, for another `ipcluster stop`.

    In the event loop of a foreground ipcluster, which can't handle an exception here and would never end, this
    ends the application instead and does not return: `ipcluster start` tries the stop once more when its loop has
    ended, any other exits with status 1. Anywhere else, it raises ``error``; where that is at the interpreter's exit, the
    status becomes 1.
    """
    from ipyparallel.cluster.app import IPClusterStart

    app = application(launcher)
    if app is None:
        if not threading.main_thread().is_alive():
            _failed_at_exit.append(launcher)
        raise error
    launcher.parent.shutdown_atexit = False  # already tried; another try at exit would only report it again
    in_its_loop = app.loop.asyncio_loop is asyncio.get_running_loop()
    if not in_its_loop or getattr(app, "_griffin_ends", False):  # `_end` above handles it
        raise error
    if isinstance(app, IPClusterStart) and not app.daemonize:
        app.loop.add_callback(app.loop.stop)
    else:
        launcher.log.critical(str(error))
        app.loop.add_callback(app.exit, 1)
    await asyncio.Event().wait()  # until the application ends this process
    raise AssertionError("unreachable")


_failed_at_exit: list[Any] = []


@atexit.register
def _exit_status() -> None:
    """End a script with status 1 if its cluster could not be torn down at its end: ipyparallel prints the error, but ends with 0.

    Registered when the launchers are imported, which is before ipyparallel registers the stop at a cluster's start, so this runs after
    the stop. An exception in here would not change the status.
    """
    if all(launcher.state == "after" for launcher in _failed_at_exit):
        return
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(1)


def guard(launcher: Any) -> None:
    """Prepare the ipcluster process that ``launcher`` runs in, if it is one: errors in one line, SIGHUP as Ctrl-C."""
    from ipyparallel.apps.baseapp import BaseParallelApplication

    write_whole(launcher.parent)
    parent = launcher.parent
    while parent is not None and not isinstance(parent, BaseParallelApplication):
        parent = getattr(parent, "parent", None)
    if parent is None:
        return
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _one_line
    app = application(launcher)
    if app is None:
        return
    stop_on_hangup(launcher)
    if app.daemonize and "stop_cluster" not in vars(app):
        app.stop_cluster = partial(_stop_and_fail, app, app.stop_cluster)


def write_whole(cluster: Any) -> None:
    """Make the file of ``cluster`` (ipyparallel's) be written atomically: a process killed while it writes leaves the file as it was.

    ipyparallel writes it in place. With half a file, `ipcluster stop` ends with a traceback, and finds nothing.
    """
    if not hasattr(cluster, "write_cluster_file") or "write_cluster_file" in vars(cluster):
        return

    def write() -> None:
        write_private(Path(cluster.cluster_file), json.dumps(cluster.to_dict()))

    cluster.write_cluster_file = write


async def _stop_and_fail(app: Any, stop: Callable[..., Awaitable[None]], r: Any = None) -> None:
    """End an interrupted `ipcluster start --daemonize` with a status other than 0, as there is no cluster."""
    if not app._stopping:  # a second Ctrl-C must not cut the first one short
        await stop(r)
        app.exit(1)


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error of `stop` in one line, instead of ipcluster's traceback."""
    if isinstance(error, GriffinError):
        print(f"ERROR: {error}", file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        print("Interrupted before it was done. Run `ipcluster stop` (again) to clean up.", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def check_profile(launcher: Any) -> None:
    """Check the files of the launcher's profile under ipcluster. Without ipcluster, ipp.Cluster itself raises errors of ipcluster_config.py."""
    if application(launcher) is not None and launcher.profile_dir:
        check_files(Path(launcher.profile_dir))


def stop_on_hangup(launcher: Any) -> None:
    """Make a closed terminal (SIGHUP) end a foreground ipcluster as Ctrl-C ends it.

    ipyparallel handles SIGINT and SIGTERM only; a closed terminal would leave every server running.
    Under `ipcluster engines`, where signals are relayed to the engines, it stops this engine set.
    """
    from ipyparallel.cluster.app import IPClusterStart

    app = application(launcher)
    if app is None or threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_DFL:  # nohup, or somebody else's handler
        return

    def hang_up(signum: int, frame: Any) -> None:
        # Nobody reads the terminal any more: writing to it would raise.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            with contextlib.suppress(OSError):
                os.dup2(nowhere, stream)
        if isinstance(app, IPClusterStart):
            app.sigint_handler(signum, frame)
        else:
            app.loop.add_callback_from_signal(launcher.stop)

    signal.signal(signal.SIGHUP, hang_up)


class SharedClusterFile:
    """The cluster file of a cluster that another process started: add and remove an engine set.

    `ipcluster engines` has no controller object and would write a file without a controller, after which
    `ipcluster stop` knows neither the controller nor the first engine set.
    """

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    @classmethod
    def take_over(cls, cluster: Any) -> SharedClusterFile | None:
        """Keep ``cluster`` (ipyparallel's) from overwriting its file if another process wrote it."""
        if cluster is None or cluster.controller is not None or not cluster.cluster_file:
            return None
        shared = cls(cluster.cluster_file)
        if not shared.path.exists():
            return None
        cluster.cluster_file = ""
        return shared

    def put(self, engine_set_id: str, state: dict[str, Any]) -> None:
        with self._edit() as content:
            if content is not None:
                content.setdefault("engines", {}).setdefault("sets", {})[engine_set_id] = state

    def free_id(self, engine_set_id: str) -> str:
        """Return ``engine_set_id``, or a variant of it that the file does not use yet (ipyparallel's are whole seconds)."""
        with self._edit() as content:
            used = (content or {}).get("engines", {}).get("sets", {})
        number, candidate = 0, engine_set_id
        while candidate in used:
            number += 1
            candidate = f"{engine_set_id}-{number}"
        return candidate

    def remove(self, engine_set_id: str) -> None:
        with self._edit() as content:
            if content is not None:
                content.get("engines", {}).get("sets", {}).pop(engine_set_id, None)

    def _read(self) -> str | None:
        """Return the file's text, None if there is no file. Read it again if it is incomplete: ipyparallel writes it in place."""
        for _ in range(20):
            try:
                text = self.path.read_text()
                json.loads(text)
            except FileNotFoundError:
                return None
            except ValueError:
                time.sleep(0.05)
            else:
                return text
        return None

    @contextlib.contextmanager
    def _edit(self) -> Iterator[dict[str, Any] | None]:
        """Yield the file's content, and write it back atomically if it was changed; None if the file is gone."""
        folder = os.open(self.path.parent, os.O_RDONLY)  # locking the folder leaves no lock file behind
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            before = self._read()
            if before is None:
                yield None
                return
            content = json.loads(before)
            yield content
            after = json.dumps(content)
            if after != json.dumps(json.loads(before)):
                scratch = self.path.with_name(f".{self.path.name}.{os.getpid()}")
                scratch.write_text(after)
                scratch.chmod(self.path.stat().st_mode)
                scratch.replace(self.path)
        finally:
            os.close(folder)
