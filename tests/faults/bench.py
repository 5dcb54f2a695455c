"""`Bench`: where the rows of the tables are run, and what is looked at afterwards. Independent of the package's own listings."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import ipyparallel as ipp
import openstack
import psutil
from traitlets.config import Config

from ipp_griffin.devcloud.guests import MARKER

from ..clouds import OnDevCloud, settings_of
from ..end_to_end.conftest import Shell

if TYPE_CHECKING:
    from .row import Row

CLIENTS_PAUSE = 0.5  # seconds between two clients that are made to look at engines: each costs
PROCESSES_LINGER = 30  # seconds, at most: nannies leave their process group, and see by themselves that all is over
UNWATCHED = {"watch_interval": 1000}  # seconds: as if the process that started it had ended
QUICK = {"poll_interval": 0.2, "watch_interval": 0.3, "leave_timeout": 2.0}
QUICK_CONTROLLER = {"poll_interval": 0.2, "watch_interval": 0.3}
HEARTBEATS = "c.HeartMonitor.period = 100\nc.HeartMonitor.max_heartmonitor_misses = 30\n"  # 3 s, and nobody lists an engine that died
OF_CLOUD = {"manage_security_group": True}  # so that every row has groups that could be left
ORDER = (
    "servers",
    "ports",
    "security groups",
    "floating IPs",
    "containers",
    "TempURL keys",
    "processes",
    "connection files",
)


class Bench:
    """A user on a cloud: clusters in this process, commands in a shell, and all that was said to that user.

    ``shell``: whose IPython folder is this process's, too.
    """

    def __init__(self, shell: Shell) -> None:
        self.shell, self.cloud = shell, shell.cloud
        self.said: list[str] = []
        self.proved: list[Row] = []
        self._clusters: list[ipp.Cluster] = []
        profile = shell.ipython / "profile_default"
        profile.mkdir(exist_ok=True)
        (profile / "ipcontroller_config.py").write_text(HEARTBEATS)
        self._log = logging.getLogger(f"bench-{id(self)}")
        self._log.setLevel(logging.INFO)
        self._log.propagate = False
        self._keeps = _Into(self.said)
        self.once_said = self._keeps.react
        for logger in (self._log, logging.getLogger("ipp_griffin")):
            logger.addHandler(self._keeps)
        self._made_profile = False

    # -- clusters of this process

    def cluster(self, n: int = 1, on_server: Mapping[str, Any] | None = None, **traits: Any) -> ipp.Cluster:
        """Not started yet. ``on_server``: settings of a controller on a server; ``traits``: of the engine set's launcher."""
        cluster = ipp.Cluster(
            engines="griffin",
            controller="griffin" if on_server is None else "griffin-server",
            n=n,
            config=self._config(on_server or {}, traits),
            log=self._log,
            cluster_id=f"bench{len(self._clusters)}",
            delay=0.1,
        )
        self._clusters.append(cluster)
        return cluster

    def _config(self, of_controller: Mapping[str, Any], of_engines: Mapping[str, Any]) -> Config:
        config = Config(
            {
                "GriffinEngineSetLauncher": {**QUICK, **of_engines},
                "GriffinServerControllerLauncher": {**QUICK_CONTROLLER, **of_controller},
                "GriffinCloud": OF_CLOUD,
            }
        )
        if self.cloud.settings:
            config.merge(settings_of(self.cloud))
        return config

    def with_controller(self, on_server: Mapping[str, Any] | None = None) -> ipp.Cluster:
        """One whose controller runs, without engines yet."""
        cluster = self.cluster(on_server=on_server)
        cluster.start_controller_sync()
        return cluster

    def started(self, n: int = 1, on_server: Mapping[str, Any] | None = None, **traits: Any) -> ipp.Cluster:
        """One that runs, of ``n`` engines."""
        cluster = self.cluster(n, on_server, **traits)
        cluster.start_cluster_sync()
        return cluster

    def stop(self, cluster: ipp.Cluster, stop_timeout: int = 60) -> None:
        """As somebody does who has nothing but the cluster's file: a new login, and new objects for all."""
        of_both = {"stop_timeout": stop_timeout, "watch_interval": 10.0}
        config = self._config(of_both, of_both)
        ipp.Cluster.from_file(cluster.cluster_file, config=config, log=self._log).stop_cluster_sync()

    # -- commands

    def start_options(self, *more: str) -> tuple[str, ...]:
        """`ipcluster start` with the griffin profile, which is made at the first time."""
        if not self._made_profile:
            lines = "".join(
                f"c.{kind}.{name} = {value}\n"
                for kind, settings in (
                    ("GriffinEngineSetLauncher", QUICK),
                    ("GriffinServerControllerLauncher", QUICK_CONTROLLER),
                    ("GriffinCloud", OF_CLOUD),
                )
                for name, value in settings.items()
            )
            self.shell.make_profile(extra=lines)
            self._made_profile = True
        return ("ipcluster", "start", "--profile=griffin", "-n", "1", *more)

    def run(self, *command: str, status: int = 0) -> str:
        """A command, to its end, with what it says kept."""
        self.said.append(output := self.shell.run(*command, status=status))
        return output

    # -- what is looked at

    @contextlib.contextmanager
    def proving(self, *rows: Row) -> Iterator[None]:
        """What is done in it shows these rows: where it fails, it was one of them; their user is told what they say by then."""
        begun = len(self.said)
        try:
            yield
            for row in rows:
                self.says(row.says, since=begun)
        except Exception as error:
            raise AssertionError(f"{'; '.join(map(str, rows))}: {error}") from error
        self.proved += rows

    def says(self, text: str, since: int = 0) -> None:
        """Fail unless the user was told ``text``, in which "…" stands for anything, after the first ``since`` sayings."""
        said = "\n".join(self.said[since:])
        pattern = ".*".join(re.escape(part) for part in re.split(r"\s*…\s*", text))
        assert re.search(pattern, said, re.DOTALL), f"nobody said {text!r}, but:\n{said}"

    def spent(self) -> None:
        """Fail unless every fault that was set has happened."""
        assert self.cloud.faults.unspent() == []

    def close(self) -> None:
        """End what a failed row left running on this machine; the cloud's own fixture sees to the rest."""
        logging.getLogger("ipp_griffin").removeHandler(self._keeps)
        for cluster in self._clusters:
            with contextlib.suppress(Exception):
                cluster.stop_cluster_sync()
        self.shell.close()
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()

    def left_over(self) -> dict[str, list[str]]:
        """What is there after all, by kind, as the cloud's own listings and this machine have it."""
        found = {kind: sorted(names) for kind, names in self._in_cloud().items()}
        deadline = time.monotonic() + PROCESSES_LINGER
        while (processes := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.2)
        found["processes"] = [f"{process.pid} ({_command(process)})" for process in processes]
        found["connection files"] = sorted(str(p.name) for p in self.shell.ipython.glob("profile_*/security/*.json"))
        return {kind: found.get(kind, []) for kind in ORDER}

    def _in_cloud(self) -> dict[str, list[str]]:
        if not isinstance(self.cloud, OnDevCloud):  # a project in which other things were before
            return {"servers": self.cloud.servers(), "containers": self.cloud.containers()}
        with openstack.connect(cloud=self.cloud.name) as connection:
            store = connection.object_store
            account = store.head("", params={}).headers
            return {
                "servers": [server.name for server in connection.compute.servers()],
                "ports": [port.id for port in connection.network.ports()],
                "security groups": [g.name for g in connection.network.security_groups() if g.name != "default"],
                "floating IPs": [ip.floating_ip_address for ip in connection.network.ips()],
                "containers": [container.name for container in store.containers()],
                "TempURL keys": [name for name in account if "temp-url-key" in name.lower()],
            }

    def processes(self) -> list[psutil.Process]:
        """The controllers, launchers and engines of this user, wherever they went."""
        guest, homes = (
            (f"{self.cloud.running.id}:", str(self.cloud.running.folder))
            if isinstance(self.cloud, OnDevCloud)
            else ("-", "-")
        )
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                environment = process.environ()
                ours = environment.get("IPYTHONDIR") == str(self.shell.ipython)
                in_guest = environment.get(MARKER, "").startswith(guest) or environment.get("HOME", "").startswith(
                    homes
                )
                if (ours or in_guest) and process.pid != os.getpid():
                    found += [process] if process.status() != psutil.STATUS_ZOMBIE else []
        return found

    @contextlib.contextmanager
    def impatient(self) -> Iterator[None]:
        """With the shortest time-out of requests that this cloud allows."""
        import yaml

        clouds = yaml.safe_load(self.cloud.clouds_yaml.read_text())
        clouds["clouds"][self.cloud.name]["api_timeout"] = self.cloud.hang[0]
        path = self.shell.folder / "impatient.yaml"
        path.write_text(yaml.safe_dump(clouds))
        before = os.environ["OS_CLIENT_CONFIG_FILE"]
        os.environ["OS_CLIENT_CONFIG_FILE"] = self.shell.env["OS_CLIENT_CONFIG_FILE"] = str(path)
        try:
            yield
        finally:
            os.environ["OS_CLIENT_CONFIG_FILE"] = self.shell.env["OS_CLIENT_CONFIG_FILE"] = before


class _Into(logging.Handler):
    """Keeps what is logged, at INFO and above."""

    def __init__(self, said: list[str]) -> None:
        super().__init__(logging.INFO)
        self._said = said
        self._reactions: list[tuple[str, Callable[[], object]]] = []

    def react(self, text: str, do: Callable[[], object]) -> None:
        """Call ``do`` when the next message with this ``text`` is logged, before the thread that logs it continues."""
        self._reactions.append((text, do))

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        self._said.append(message)
        due = [reaction for reaction in self._reactions if reaction[0] in message]
        for reaction in due:
            self._reactions.remove(reaction)
            reaction[1]()


def counted(found: Mapping[str, list[str]]) -> str:
    """What `Bench.left_over` found, in one line."""
    return ", ".join(
        f"{len(names)} {kind}" + (f" ({'; '.join(names)})" if names else "") for kind, names in found.items()
    )


def eventually(condition: Callable[[], object], what: str, timeout: float = 60, pause: float = 0.05) -> None:
    """Wait for a condition, without a fixed sleep. ``pause``: seconds between two looks."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(pause)


def listed(cluster: ipp.Cluster) -> list[int]:
    """The ids of the engines that the controller lists. By a new Client: one that waits can miss what changes while it connects, for ever."""
    with cluster.connect_client_sync() as rc:
        return list(rc.ids)


def uuids(rc: ipp.Client) -> set[str]:
    """Of the engines that the controller lists: they name set, slot, incarnation, engine and generation."""
    _ = rc.ids
    return set(rc._engines.values())


def computes(cluster: ipp.Cluster, n: int = 1) -> None:
    """Fail unless ``n`` engines, and no other, do what they are asked, soon."""
    eventually(lambda: _computes(cluster, n), f"{n} engines that answer", pause=CLIENTS_PAUSE)


def _computes(cluster: ipp.Cluster, n: int) -> bool:
    with cluster.connect_client_sync() as rc:
        return len(rc.ids) == n and _answers(rc)


def _answers(rc: ipp.Client) -> bool:
    try:
        return bool(rc[:].apply_async(os.getpid).get(timeout=5))
    except Exception:  # an engine that was listed and has died since
        return False


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline()[:4])
    return "gone"
