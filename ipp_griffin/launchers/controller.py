"""`GriffinControllerLauncher`: ipcontroller as a process of this machine, listening where servers reach it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
from ipyparallel.cluster.launcher import LocalControllerLauncher, NotRunning
from traitlets import Dict, Float, List, Unicode, default

from ..agent.text import Redactor
from ..common.errors import GriffinError, Stopped
from ..common.processes import process_of
from ..common.threads import in_thread
from ..controller.ipcontroller import ARGUMENTS, STARTER, give_arguments
from ..model.connection import cluster_uid
from ..model.userdata import agent_source
from . import ipcluster
from .addresses import check_address, free_ports, reachable_address
from .arguments import PORTS_NEEDED, check_args, value_of
from .on_cloud import OnCloud

if TYPE_CHECKING:
    from .cloud_settings import GriffinCloud


OWN_COMMAND = (sys.executable, "-m", "ipp_griffin.ipcontroller")


class GriffinControllerLauncher(OnCloud, LocalControllerLauncher):  # type: ignore[misc]
    """Run ipcontroller on this machine for engines on servers: one reachable address, CurveZMQ and message signing on.

    `stop` deletes everything that the cluster has in the cloud, including what other processes added.
    """

    ip = Unicode(
        "",
        config=True,
        help="""Address of this machine that the controller listens on and that servers connect to. Default: its address on
        GriffinCloud.network, else on any of the project's networks, else the one it uses to reach the cloud.""",
    )
    ports = Unicode(
        "20000-20999",
        config=True,
        help="""Range of ports for controllers, FIRST-LAST; each cluster takes 20. A firewall or security group rule must admit it.""",
    )
    process_created = Float(help="Start time of the process; tells a reused pid").tag(to_dict=True)

    _own_args = List(Unicode())
    _arguments: Path | None = (
        None  # the file that an ipcontroller waits for if it was started without its last arguments
    )
    _stopped = False
    _output: Any  # ipyparallel's, as the next
    _popen_process: subprocess.Popen[bytes]
    _session_key = ""
    _secrets: frozenset[str] = frozenset()
    _keys_as_of = Dict()  # connection file -> its mtime in ns when it was last read
    _made_redactor: tuple[frozenset[str], Redactor] = (frozenset(), Redactor())
    _reservation: socket.socket | None = None

    @default("controller_cmd")
    def _our_ipcontroller(self) -> list[str]:
        """Return the command that runs ipyparallel's ipcontroller with this project's heartbeats, and without keys in its log."""
        return list(OWN_COMMAND)

    def find_args(self) -> list[str]:
        return super().find_args() + self._own_args  # type: ignore[no-any-return]

    def get_env(self) -> dict[str, str]:
        env: dict[str, str] = super().get_env()
        # With Curve on, ipyparallel uses an empty signing key unless one is set. Not as an argument: `ps` shows arguments.
        self._session_key = self._session_key or secrets.token_hex(32)
        env.setdefault("IPP_SESSION_KEY", self._session_key)
        env[STARTER] = str(os.getpid())
        if self._arguments is not None:
            env[ARGUMENTS] = str(self._arguments)
        return env

    async def start(self) -> None:
        """Start ipcontroller, and return when it has written its connection files.

        Raises `GriffinError` if the cloud fails, a setting is wrong or ipcontroller ended, and `Stopped` if it was stopped meanwhile.
        """
        try:
            ipcluster.guard(self)
            ipcluster.check_profile(self)
            self.check_settings()
            check_args(self.controller_args)
            settings = self.settle_cloud()
            if self.controller_cmd == list(OWN_COMMAND):
                self._arguments = self._security_folder / f".arguments-{secrets.token_hex(8)}.json"
                self._launch()  # it loads ipyparallel while this process loads the SDK, logs in and looks up the networks
            cloud = await in_thread(self.connect)
            if self._starts_engines_on_servers():
                settings.prefetch(cloud)
            await in_thread(lambda: self.record_project(settings))
            self._own_args = await in_thread(lambda: self._decide_args(settings))
            self._check_not_ended()
            self._remove_stale_files()
            if self._arguments is None:
                self._launch()
            self._record()
            if self._arguments is not None:
                self.log.debug(f"ipcontroller also gets {self._own_args}")
                give_arguments(self._arguments, self._own_args)
            await in_thread(agent_source)  # engine sets need it next, and ipcontroller takes longer
            self.uid = cluster_uid((await self._wait_until_written())["engine"])
            self._give_back_reservation()
        except asyncio.CancelledError:
            await self._withdraw()
            raise
        except Exception as e:
            await self._withdraw()
            await ipcluster.end_failed_start(self, e)

    def _launch(self) -> None:
        """Start the process. One that waits for arguments ends by itself if this process is killed before it gives them."""
        self._make_output_private()
        super().start()

    def _record(self) -> None:
        """Record the process in the cluster file, so that a stop finds it if this process is killed."""
        self.process_created = self.process.create_time()
        if self.parent is not None:
            self.parent.update_cluster_file()

    def _check_not_ended(self) -> None:
        """Raise `Stopped` if a stop came meanwhile, and `GriffinError` if the process that waits for arguments has ended."""
        if self._stopped:
            raise Stopped("The controller was stopped while it was starting.")
        if self._arguments is not None and self._popen_process.poll() is not None:
            raise self._ended_at_once(f"exit status {self._popen_process.returncode}")

    async def _withdraw(self) -> None:
        """Undo a failed start. Drop the stop callbacks: only the cause of the failure is reported."""
        self._give_back_reservation()
        if self._arguments is not None:
            self._arguments.unlink(missing_ok=True)
        if self.running:
            self.stop_callbacks.clear()
            self._end_group()
            await super().stop()
            if self.process_created:  # recorded: before that, the files are another process's
                self._remove_stale_files()
                if self.parent is not None:
                    self.parent.update_cluster_file()

    @property
    def _security_folder(self) -> Path:
        return Path(self.connection_files["engine"]).parent

    async def stop(self) -> None:
        """Tear the cluster down: its engine sets, everything else that it has in the cloud, then the controller.

        The hub must live while engines are shut down through it. Raises `GriffinError` naming what is left; the controller then keeps
        running and stays in the cluster file, so that another stop finds everything.
        """
        ipcluster.guard(self)
        self._stopped = True
        running = self.running
        self._learn_keys()  # from the connection files, before they are removed
        try:
            await self.take_down_engine_sets()
            if self.uid:
                await in_thread(self.sweep)
        except GriffinError as e:
            await ipcluster.end_failed_stop(self, e)
        await super().stop()
        if running:
            self._end_group()
            self.remove_connection_files()
        if self.running:  # restored without its main process
            self.notify_stop({"exit_code": None, "pid": self.pid, "identifier": self.identifier})

    async def join(self, timeout: float | None = None) -> None:
        """Wait for the process to end without blocking the event loop, as ipyparallel's own method does."""
        if self._wait_thread is None:
            return
        if not await in_thread(lambda: self._wait_for_end(timeout)):
            raise TimeoutError(f"Process {self.pid} did not exit in {timeout} seconds.")
        if self.state == "running":  # the loop has not run the waiting thread's callback yet
            self.notify_stop({"exit_code": 0, "pid": self.pid, "identifier": self.identifier})

    def _wait_for_end(self, timeout: float | None) -> bool:
        """Wait for the process to end. A zombie counts as ended: init may not have reaped it yet. Blocking."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._wait_thread.is_alive():
            with contextlib.suppress(psutil.Error):
                if self.process.status() == psutil.STATUS_ZOMBIE:
                    return True
            if deadline is not None and time.monotonic() > deadline:
                return False
            self._wait_thread.join(0.05)
        return True

    def _start_streaming(self) -> None:
        """Show the controller's output only under `ipcluster --debug`; ipyparallel shows it in every ipcluster run.

        ipyparallel checks the level of the application's logger, which traitlets sets to DEBUG; the handler's level is the right one.
        """
        app = ipcluster.application(self)
        if app is None or app.log_level <= logging.DEBUG:
            super()._start_streaming()

    def _stream_file(self, path: str) -> None:
        """Show the output in a thread, as ipyparallel does, with keys removed and control characters escaped."""
        with Path(path).open(errors="backslashreplace") as f:
            while self.state == "running" and not self._stop_waiting.is_set():
                if line := f.readline():
                    sys.stderr.write(self._redactor().text(line))
                else:
                    time.sleep(0.1)

    def get_output(self, remove: bool = False) -> str:
        """Return ipcontroller's output, with keys removed and control characters escaped."""
        with contextlib.suppress(OSError):
            if self._output is None:
                self._output = Path(self.output_file).read_text(errors="backslashreplace")
        return self._redactor().text(super().get_output(remove))

    def _redactor(self) -> Redactor:
        """Return a redactor for this controller's keys. Needed because the command may be the user's own, or another process may have started it.

        Called for every line that is streamed, so it makes a new one only when there is a new key.
        """
        self._learn_keys()
        known, redactor = self._made_redactor
        if known != self._secrets:
            redactor = Redactor(sorted(self._secrets))
            self._made_redactor = self._secrets, redactor
        return redactor

    def _learn_keys(self) -> None:
        self._secrets |= {self._session_key}
        for path in self.connection_files.values():
            with contextlib.suppress(OSError, ValueError, AttributeError):
                written = Path(path).stat().st_mtime_ns
                if self._keys_as_of.get(path) == written:
                    continue
                connection = json.loads(Path(path).read_text())
                self._secrets |= {str(connection.get(name) or "") for name in ("key", "curve_serverkey")}
                self._keys_as_of[path] = written

    def _make_output_private(self) -> None:
        """Make ipcontroller's output file private: at DEBUG it has arguments of tasks."""
        os.close(os.open(self.output_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
        Path(self.output_file).chmod(0o600)

    def signal(self, sig: int) -> None:
        """Signal the controller. SIGKILL goes to its whole process group: a surviving heart monitor would keep engines waiting."""
        if sig == signal.SIGKILL:
            self._end_group()
        else:
            super().signal(sig)

    def notify_stop(self, data: Any) -> Any:
        if self.state == "running":
            self._end_group()
            self._learn_keys()
            self.remove_connection_files()  # a killed controller can't do it; and ipyparallel does not call `stop` on one that has ended
        return super().notify_stop(data)

    def _end_group(self) -> None:
        """Kill what is left of the process group that ipcontroller leads."""
        if self.pid > 0:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)

    def _reconstruct_process(self, d: dict[str, Any]) -> None:
        """Find the process again, by pid and start time.

        If only ipcontroller's main process was killed, its children keep running, and the launcher must end them. Their group's id is
        safe to use: it is not reused while the group has members.
        """
        if d.get("pid", -1) > 0 and d.get("process_created"):
            if process_of(d["pid"]) is None and _group_lives(d["pid"]):
                return
            if process_of(d["pid"], d["process_created"]) is None:
                raise NotRunning(f"Process {d['pid']} has ended")
        super()._reconstruct_process(d)

    def poll(self) -> Any:
        return super().poll() if self.process is not None else "killed"

    async def _wait_until_written(self) -> Any:
        try:
            return await self.get_connection_info()
        except RuntimeError as e:
            self._check_not_ended()
            raise self._ended_at_once(str(e)) from e

    def _ended_at_once(self, why: str) -> GriffinError:
        """Return the error of a start whose ipcontroller has ended, with its last lines; ``why``: used if it printed none."""
        last = [line for line in self.get_output().splitlines() if line.strip()][-5:]
        return GriffinError(f"ipcontroller ended at once: {' | '.join(last) or why}")

    def _starts_engines_on_servers(self) -> bool:
        """Return whether engine sets of this cluster start on servers, and so will ask the cloud what it offers."""
        return issubclass(getattr(self.parent, "engine_launcher_class", object), OnCloud)

    def _give_back_reservation(self) -> None:
        if self._reservation is not None:
            self._reservation.close()
            self._reservation = None

    def _remove_stale_files(self) -> None:
        """Remove the files of a killed controller: engines would try to connect to it."""
        for path in self.connection_files.values():
            Path(path).unlink(missing_ok=True)

    def _decide_args(self, settings: GriffinCloud) -> list[str]:
        """Return the settings that must hold, as arguments: users may overwrite ``controller_args`` and profile files. Blocking."""
        user = self.controller_args
        args = ["--IPController.enable_curve=True", "--IPController.reuse_files=False"]
        address = self.ip or reachable_address(self.connect(), settings)
        listens = value_of(user, "ip", "IPController.ip") or address
        check_address(listens)
        if not value_of(user, "ip", "IPController.ip"):
            args.append(f"--ip={address}")
        if not value_of(user, "location", "IPController.location"):
            args.append(f"--location={address}")
        if not value_of(user, "ports", "IPController.ports", "port", "IPController.regport"):
            first, self._reservation = free_ports(self.ports, PORTS_NEEDED, listens)
            args.append(f"--ports={first}-{first + PORTS_NEEDED - 1}")
        return args


def _group_lives(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # somebody else's
    return True
