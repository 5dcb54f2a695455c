"""The dev cloud in this process: an HTTP server in a daemon thread, a thread for its guests, a clouds.yaml."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import fcntl
import itertools
import json
import logging
import os
import queue
import shutil
import socket
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.web import Application

from .faults import Faults
from .forwarding import Forwarding
from .guests import Guests, kill_cloud
from .http import Handler
from .state import CloudState
from .things import SUBNET, Server

log = logging.getLogger(__name__)
_ENTRY = """\
  {name}:
    auth_type: {kind}
    auth:
      auth_url: {url}/identity/v3
{auth}
    region_name: RegionOne
    identity_api_version: 3
"""


class DevCloudError(Exception):
    """The dev cloud can't start, stop or be found; the message is one line."""


class DevCloud:
    """An OpenStack look-alike on 127.0.0.1, whose servers are local processes.

    ``folder``: all its files. ``boot_time``: seconds from BUILD to ACTIVE. ``latency``: seconds added to every request (requests in
    parallel overlap). ``quota_instances``: of the projects devcloud and other; tiny has 2. ``port`` 0: any. ``guests`` False: servers
    run nothing. ``token_lifetime``: seconds. ``subnet``: the network's CIDR, as the API shows it; guests are processes of this machine
    in any case. The default is of loopback addresses, on which guests can listen; floating IPs forward to these, see `forwarding`.
    ``object_store``: one of `object_stores.KINDS`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        boot_time: float = 0.5,
        latency: float = 0.0,
        quota_instances: int = 64,
        port: int = 0,
        guests: bool = True,
        token_lifetime: float = 4 * 3600,
        subnet: str = SUBNET,
        object_store: str = "swift",
    ) -> None:
        self.folder = Path(folder).absolute()
        self.latency = latency
        self.faults = Faults(self._faults_changed)
        self.state = CloudState(
            faults=self.faults,
            boot_time=boot_time,
            quota_instances=quota_instances,
            token_lifetime=token_lifetime,
            subnet=subnet,
            object_store=object_store,
        )
        self._forwarding = Forwarding(self.state)
        self.id = ""
        self.url = ""
        self._port = port
        self._with_guests = guests
        self._log: list[tuple[str, str, str, int]] = []
        self._jobs: queue.SimpleQueue[tuple[str, Server] | None] = queue.SimpleQueue()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock: int | None = None
        self._pid = 0

    def start(self) -> DevCloud:
        """Serve, and write clouds.yaml. Raises `DevCloudError` if the port or the folder can't be used."""
        self._prepare_folder()
        try:
            listening = socket.create_server(("127.0.0.1", self._port), backlog=256)
            listening.setblocking(False)
        except OSError as error:
            self._release_folder()
            raise DevCloudError(f"Can't listen on 127.0.0.1:{self._port}: {os.strerror(error.errno or 0)}.") from error
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self._pid = os.getpid()
        self._guests = Guests(self.folder / "servers", self.id)
        self.state.console = self._guests.console
        ready = threading.Event()
        self._threads = [
            threading.Thread(target=lambda: asyncio.run(self._serve(listening, ready)), daemon=True, name="devcloud"),
            threading.Thread(target=self._run_guests, daemon=True, name="devcloud-guests"),
        ]
        for thread in self._threads:
            thread.start()
        ready.wait()
        atexit.register(self.stop)
        try:
            self._write_clouds_yaml()
        except OSError as error:
            self.stop()
            raise DevCloudError(f"Can't write {self.clouds_yaml}: {error.strerror}.") from error
        return self

    def stop(self) -> None:
        """Kill all guests, close, remove clouds.yaml and the servers' folders. Safe to call again."""
        loop, self._loop = self._loop, None
        if loop is None or os.getpid() != self._pid:
            return
        atexit.unregister(self.stop)
        loop.call_soon_threadsafe(self._stopping.set)
        self._jobs.put(None)
        for thread in self._threads:
            thread.join()
        self._guests.kill_all()
        shutil.rmtree(self.folder / "servers", ignore_errors=True)
        self.clouds_yaml.unlink(missing_ok=True)
        self._release_folder()

    def __enter__(self) -> DevCloud:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def clouds_yaml(self) -> Path:
        return self.folder / "clouds.yaml"

    def servers(self) -> list[dict[str, Any]]:
        """Return the servers of all projects: id, name, status, task, tags, metadata, address, project, flavor, image."""
        return [
            {
                "id": s.id,
                "name": s.name,
                "status": s.status,
                "task": s.task,
                "tags": list(s.tags),
                "metadata": dict(s.metadata),
                "address": s.address,
                "project": s.project.name,
                "flavor": s.flavor.name,
                "image": s.image.name,
            }
            for s in list(self.state.servers.values())
        ]

    def containers(self) -> list[str]:
        """Names of the containers of all projects."""
        return sorted(name for _, name in list(self.state.containers))

    def security_groups(self) -> list[str]:
        """Names of the security groups of all projects, without the default ones."""
        return sorted(group.name for group in list(self.state.security_groups.values()) if not group.is_default)

    @property
    def requests(self) -> list[tuple[str, str, str, int]]:
        """(service, method, path, status) of every request so far; status 0: the connection was dropped."""
        return list(self._log)

    def clear_requests(self) -> None:
        self._log = []

    # Files

    def _prepare_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            id_file = self.folder / "id"
            if not id_file.exists() or not id_file.read_text().strip():
                id_file.write_text(uuid.uuid4().hex)
        except BlockingIOError as error:
            self._release_folder()
            raise DevCloudError(f"Another dev cloud runs in {self.folder}.") from error
        except OSError as error:
            self._release_folder()
            raise DevCloudError(f"Can't use the folder {self.folder}: {error.strerror}.") from error
        self.id = id_file.read_text().strip()
        if (self.folder / "servers").exists():  # left by a killed dev cloud in this folder
            kill_cloud(self.folder / "servers", self.id)
            shutil.rmtree(self.folder / "servers", ignore_errors=True)

    def _release_folder(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _write_clouds_yaml(self) -> None:
        """The logins, as a file that only its owner can read (JSON strings are YAML strings)."""
        text = "clouds:\n"
        for user in self.state.users:
            name = "devcloud" if user.name == "devcloud" else f"devcloud-{user.name}"
            auth = {"username": user.name, "password": user.password, "project_name": user.project.name}
            auth |= {"user_domain_name": "Default", "project_domain_name": "Default"}
            text += self._entry(name, "password", auth)
        for credential in self.state.credentials:
            auth = {"application_credential_id": credential.id, "application_credential_secret": credential.secret}
            text += self._entry(f"devcloud-{credential.name}", "v3applicationcredential", auth)
        new = self.clouds_yaml.with_suffix(".new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(text)
        new.rename(self.clouds_yaml)

    def _entry(self, name: str, kind: str, auth: dict[str, str]) -> str:
        lines = "\n".join(f"      {key}: {json.dumps(value)}" for key, value in auth.items())
        return _ENTRY.format(name=name, kind=kind, url=self.url, auth=lines)

    # The server's thread

    async def _serve(self, listening: socket.socket, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        application = Application([(r".*", Handler, {"cloud": self})], log_function=lambda handler: None)
        server = HTTPServer(application, max_body_size=1 << 50)  # so that services themselves refuse what is too large
        server.add_socket(listening)
        ready.set()
        await self._stopping.wait()
        server.stop()
        await server.close_all_connections()
        await self._forwarding.close()

    def _faults_changed(self) -> None:
        def apply() -> None:
            self.state.apply_faults()
            self.turn()

        self._on_loop(apply)

    def turn(self) -> None:
        """Apply state changes that are due, pass jobs to the guests' thread, and schedule the next call."""
        due = self.state.tick()
        for job in self.state.outbox:
            if self._with_guests and not (job[0] == "boot" and job[1].silent):
                self._jobs.put(job)
            else:
                self.state.settled(*job)
        self.state.outbox.clear()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if due is not None and self._loop is not None:
            self._timer = self._loop.call_later(max(0.0, due - self.state.clock()) + 0.001, self.turn)
        self._forwarding.update()

    def note(self, service: str, method: str, path: str, status: int) -> None:
        self._log.append((service, method, path, status))

    # The guests' thread: a plain one, as executors refuse work when the interpreter is exiting

    def _run_guests(self) -> None:
        while (job := self._jobs.get()) is not None:
            batch = [job]
            with contextlib.suppress(queue.Empty):
                while (job := self._jobs.get_nowait()) is not None:
                    batch.append(job)
            for boots, jobs in itertools.groupby(batch, lambda j: j[0] == "boot"):
                self._do(boots, list(jobs))
            if job is None:
                return

    def _do(self, boots: bool, jobs: list[tuple[str, Server]]) -> None:
        """Do ``jobs``, which are all boots or all kills (with one scan of the process table), and report back."""
        try:
            if not boots:
                self._guests.kill(server.id for _, server in jobs)
            for action, server in jobs:
                if action == "delete":
                    self._guests.remove(server.id)
                elif action != "stop" and not server.silent:
                    self._guests.boot(server.id, server.user_data, server.under)
        except Exception:
            log.exception("The dev cloud's guests failed")

        def settle() -> None:
            for job in jobs:
                self.state.settled(*job)
            self.turn()

        self._on_loop(settle)

    def _on_loop(self, function: Callable[[], None]) -> None:
        """Have the server's thread call ``function``, if it runs."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                loop.call_soon_threadsafe(function)
