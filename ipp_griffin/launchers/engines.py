"""`GriffinEngineSetLauncher`: engines on OpenStack servers that it creates, watches and deletes."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import json
import secrets
import signal
import socket
import threading
import time
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from ipyparallel.cluster.launcher import EngineLauncher, ipengine_cmd_argv
from traitlets import Float, Integer, List, Unicode

from .. import ipcluster
from ..plan import (
    GriffinError,
    Network,
    Plan,
    SettingError,
    Stopped,
    check_names,
    check_quota,
    choose_flavor,
    choose_image,
    choose_network,
    make_plan,
    unreachable_from,
)
from ..rendezvous import build, cluster_uid, controller_address, parse_connection
from ..threads import in_thread
from .common import OnCloud
from .controller import GriffinControllerLauncher
from .watch import Watcher

if TYPE_CHECKING:
    from ..engine_set import EngineSet, Survey
    from ..hub import Hub
    from ..settings import GriffinCloud

WEEK = 7 * 24 * 3600
HOUR = 3600


class GriffinEngineSetLauncher(OnCloud, EngineLauncher):  # type: ignore[misc]
    """Start engines on servers, and return when the controller lists all of them."""

    engines_per_server = Integer(
        0,
        config=True,
        help="""Engines on each server; the last server may hold fewer. Default: 0, one for each vCPU of the flavor.""",
    )
    start_timeout = Float(
        1200,
        config=True,
        help="""Seconds from the start until all engines must be connected; then the start fails and all is deleted.
        Servers may take minutes to boot: ipyparallel's Cluster.engine_timeout does not matter here.""",
    )
    engine_user = Unicode(
        "ipp",
        config=True,
        help="""The user on the servers that engines run as; it is made where it does not exist. Set it to "ubuntu", say,
        to run as the user that owns the packages of your snapshot.""",
    )
    engine_python = Unicode(
        "",
        config=True,
        help="""The Python on the servers, e.g. "/opt/conda/bin/python". Default: the first one with ipyparallel out of the
        system's, /opt/*/bin, and the environments in the homes of the usual cloud users.""",
    )
    packages = List(
        Unicode(),
        config=True,
        help="""Packages to install with pip into an environment of their own on each server, e.g. ["numpy", "pandas>=2"].
        ipyparallel itself is installed where the image has none. A snapshot with all in it starts faster.""",
    )
    pip_args = List(
        Unicode(), config=True, help="""More arguments for that pip, e.g. ["--index-url", "http://10.0.0.1/simple"]."""
    )
    controller_timeout = Float(
        60, config=True, help="Seconds that a server keeps trying to reach the controller's port."
    )
    register_timeout = Float(
        120, config=True, help="Seconds that an engine keeps trying to register with the controller."
    )
    controller_gone_timeout = Float(
        300,
        config=True,
        help="""Seconds without a controller after which a server that lost all its engines powers itself off.""",
    )
    restarts = Integer(5, config=True, help="How many crashed engines a server starts anew in an hour.")
    parallel = Integer(10, config=True, help="Requests to Nova in flight at the same time, at most.")
    poll_interval = Float(1.0, config=True, help="Seconds between two looks at the servers while they start.")
    watch_interval = Float(
        10.0,
        config=True,
        help="""Seconds between two looks at the running servers, by ONE request for all of them. Only while the process
        lives that started them: nobody looks after `ipcluster start --daemonize`.""",
    )
    leave_timeout = Float(
        5.0, config=True, help="Seconds that engines get to leave the controller before their servers are deleted."
    )
    output_servers = Integer(
        16,
        config=True,
        help="From how many servers, at most, the engines' output is fetched for `get_output` at the end.",
    )

    engine_set = Unicode(help="Names this start of engines; random").tag(to_dict=True)
    servers = List(Unicode(), help="Ids of the servers").tag(to_dict=True)

    state: str  # ipyparallel's traits
    engine_set_id: str

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._stopping = threading.Event()
        self._cloud_work = threading.Lock()  # held while servers are created, and while they are deleted
        self._output: dict[str, str] = {}
        self._gone = False
        self._doors: EngineSet | None = None
        self._shared_file: ipcluster.SharedClusterFile | None = None

    def find_args(self) -> list[str]:
        """For ipyparallel's log lines only: there is no local process."""
        return ["griffin engine set"]

    # --- start

    async def start(self, n: int) -> None:
        """Create servers for ``n`` engines; returns when the controller lists all of them.

        Raises `GriffinError` with the cause, after taking down what it made. Under ipcluster, which can't
        handle an exception here, it ends the application with status 1 instead.
        """
        self.n = n
        try:
            ipcluster.guard(self)
            ipcluster.check_profile(self)
            await self._start(n)
        except asyncio.CancelledError:
            await self._clean_up_after(Stopped("The start of the engine set was cancelled."))
            raise
        except Exception as e:
            error = e
            if self._stopping.is_set() and not isinstance(e, Stopped):
                # `stop` takes servers and controller away from under a start: they did not fail.
                error = Stopped("The engine set was stopped while it was starting.")
                error.__cause__ = e
            await self._clean_up_after(error)
            await ipcluster.end_failed_start(self, error)

    async def _start(self, n: int) -> None:
        deadline = time.monotonic() + self.start_timeout
        settings = self.settle_cloud()
        if n is None or n < 1:
            raise SettingError(f"Can't start {n} engines: -n (Cluster.n) must be 1 or more.")
        network = await in_thread(lambda: choose_network(settings.network, self.connect().networks()))
        connection = await self._connection_info(network)
        self.uid, self.engine_set = cluster_uid(connection), secrets.token_hex(4)
        plan = await in_thread(lambda: self._decide(n, settings, network))
        self._shared_file = ipcluster.SharedClusterFile.take_over(self.parent)
        if self._shared_file is not None:
            self.engine_set_id = self._shared_file.free_id(self.engine_set_id)
        self.notify_start(self.engine_set)
        self._record()  # uid and engine set: enough to find whatever is made from here on
        self.log.info(_describe(plan))
        await in_thread(lambda: self._create(plan, connection, settings))
        self._record()
        await in_thread(lambda: self._wait_for_engines(plan, deadline))
        self.log.info(f"All {n} engines are connected.")
        self._watch()

    async def _connection_info(self, network: Network) -> dict[str, Any]:
        """The engines' connection info, of a controller that servers on this network can reach."""
        connection = self._given_connection()
        address = controller_address(connection)
        if not unreachable_from(address, network.subnets):
            return connection
        if not await self._may_restart_controller(connection):
            raise SettingError(
                f"The controller listens on {address}, where servers on network {network.name!r} can't reach it. "
                'Use controller="griffin" (ipcluster: --controller=griffin).'
            )
        self.log.warning(f"Servers can't reach the controller at {address}: restarting it as a griffin controller.")
        cluster = self.parent
        await cluster.stop_controller()
        cluster.controller_launcher_class = GriffinControllerLauncher
        await cluster.start_controller()
        connection = dict((await cluster.controller.get_connection_info())["engine"])
        self.environment["IPP_CONNECTION_INFO"] = json.dumps(connection)
        return connection

    def _given_connection(self) -> dict[str, Any]:
        """ipyparallel hands the connection info over after construction; `ipcluster engines` has only the file."""
        text = self.environment.get("IPP_CONNECTION_INFO")
        if text:
            return parse_connection(text, "IPP_CONNECTION_INFO")
        path = self.connection_files["engine"]
        try:
            return parse_connection(Path(path).read_text(), path)
        except OSError as e:
            raise SettingError(
                f"No controller is running here: {path} does not exist. Start one, with `ipcluster start`."
            ) from e

    async def _may_restart_controller(self, connection: dict[str, Any]) -> bool:
        """Whether the controller is ipyparallel's default one, untouched by the user, and nobody uses it yet."""
        from ipyparallel.cluster.launcher import LocalControllerLauncher

        cluster: Any = self.parent
        controller: Any = getattr(cluster, "controller", None)
        if type(controller) is not LocalControllerLauncher or len(cluster.engines) > 1:
            return False
        if (
            cluster.controller_args
            or cluster.controller_ip
            or cluster.controller_location
            or controller.controller_args
        ):
            return False
        return await in_thread(self._nobody_connected)

    def _nobody_connected(self) -> bool:
        with self._hub() as hub:
            return not hub.engines()

    def _decide(self, n: int, settings: GriffinCloud, network: Network) -> Plan:
        """Settings and what the cloud has -> the plan; refuses what the quota can't hold. Blocking."""
        cloud = self.connect()
        image = choose_image(settings.image, cloud.images())
        plan = make_plan(
            n=n,
            uid=self.uid,
            engine_set=self.engine_set,
            image=image,
            flavor=choose_flavor(settings.flavor, cloud.flavors(), image),
            network=network,
            engines_per_server=self.engines_per_server,
            key_name=settings.key_name,
            security_groups=settings.security_groups,
            availability_zone=settings.availability_zone,
            metadata={f"griffin:{k}": v[:255] for k, v in self._labels().items()},
        )
        if plan.key_name:
            check_names("key_name", "key pair", [plan.key_name], cloud.key_names())
        if plan.security_groups:
            check_names("security_groups", "security group", plan.security_groups, cloud.security_group_names())
        if plan.availability_zone:
            check_names("availability_zone", "availability zone", [plan.availability_zone], cloud.zones())
        check_quota(plan, cloud.limits())
        return plan

    def _labels(self) -> dict[str, str]:
        """For people who look at the cloud; nothing is ever deleted by them."""
        return {
            "owner": _user_name(),
            "host": socket.gethostname(),
            "profile": Path(self.profile_dir).name.removeprefix("profile_"),
            "cluster_id": self.cluster_id,
            "start_deadline": _iso(time.time() + self.start_timeout),
        }

    def _create(self, plan: Plan, connection: dict[str, Any], settings: GriffinCloud) -> None:
        """Publish the rendezvous, then create the servers. Blocking; `stop` waits for it."""
        import ipyparallel

        from ..engine_set import UserDataSettings

        with self._cloud_work:
            if self._stopping.is_set():
                raise Stopped("The engine set was stopped while it was starting.")
            engine_set = self._on_cloud(settings.store_url)
            rendezvous = build(
                connection,
                ipyparallel_version=ipyparallel.__version__,
                ipengine_config=self._ipengine_config(),
                environment={**self.cluster_env, **self.environment},
                engine_cmd=[] if self.engine_cmd == ipengine_cmd_argv else self.engine_cmd,
                engine_args=self.engine_args,
                engine_user=self.engine_user,
                engine_python=self.engine_python,
                packages=self.packages,
                pip_args=self.pip_args,
                controller_timeout=self.controller_timeout,
                register_timeout=self.register_timeout,
                controller_gone_timeout=self.controller_gone_timeout,
                restarts=self.restarts,
            )
            engine_set.publish(rendezvous, self._labels())
            engine_set.create(
                plan,
                UserDataSettings(
                    read_seconds=int(self.start_timeout) + HOUR,
                    report_seconds=WEEK,
                    fetch_timeout=int(self.start_timeout),
                    proxy=settings.proxy,
                    ca_certificates=settings.ca_text(),
                ),
                on_created=lambda planned, server: self.servers.append(server.id),
                stop=self._stopping,
                parallel=self.parallel,
            )

    def _ipengine_config(self) -> str:
        """The profile's ipengine_config.py, which travels with the connection info; "" where there is none."""
        path = Path(self.profile_dir, "ipengine_config.py")
        return path.read_text() if path.is_file() else ""

    def _wait_for_engines(self, plan: Plan, deadline: float) -> None:
        """Until the hub lists every engine of the plan. Blocking."""
        engine_set = self._on_cloud()
        told, next_look = "", 0.0
        with self._hub() as hub:
            while True:
                registered = len({uuid.rpartition("-")[0] for uuid in hub.engines(self.engine_set)})
                if registered >= plan.engines:
                    return
                if time.monotonic() >= next_look:
                    survey = engine_set.survey()
                    next_look = time.monotonic() + self.poll_interval
                    self._raise_failures(engine_set.failures(plan, survey), plan)
                    text = f"{survey.active} of {len(plan.servers)} servers active, {registered} of {plan.engines} engines connected"
                    if text != told:
                        self.log.info(text)
                        told = text
                    if time.monotonic() > deadline:
                        raise GriffinError(self._too_late(plan, survey, registered))
                self._check_controller()
                if self._stopping.wait(0.1):
                    raise Stopped("The engine set was stopped while it was starting.")

    def _raise_failures(self, failures: list[str], plan: Plan) -> None:
        if failures:
            more = f" And {len(failures) - 3} more." if len(failures) > 3 else ""
            raise GriffinError(
                f"{len(failures)} of {len(plan.servers)} servers failed. {' '.join(failures[:3])}{more} "
                "All servers of this start are deleted."
            )

    def _check_controller(self) -> None:
        controller = getattr(self.parent, "controller", None)
        if controller is not None and controller.state == "after":
            raise GriffinError(f"The controller ended while engines were starting: {controller.stop_data}.")

    def _too_late(self, plan: Plan, survey: Survey, registered: int) -> str:
        silent = [p.name for p in plan.servers if p.slot not in survey.reports]
        for server in [s for s in survey.servers if s.name in silent][:3]:
            with contextlib.suppress(GriffinError):
                console = self.connect().console_output(server.id, 20)
                self.log.error(f"Console of {server.name}, which never reported:\n{indent(console, '  ')}")
        why = f" Never reported: {', '.join(silent[:5])} (can they reach the object store?)." if silent else ""
        return (
            f"Only {registered} of {plan.engines} engines connected within {self.start_timeout:.0f} s.{why} "
            "All servers of this start are deleted. Set GriffinEngineSetLauncher.start_timeout for slower clouds."
        )

    async def _clean_up_after(self, error: Exception) -> None:
        """Take down what a failed start made; the error that counts is the first one."""
        if self.state == "before":
            self.state = "after"  # nothing was made
            return
        try:
            await in_thread(self._destroy)
        except GriffinError as e:
            error.args = (f"{error} And taking it down failed: {e}",)
        else:
            self._finish({"exit_code": 1, "identifier": self.identifier})

    # --- state in the cluster file

    def _record(self) -> None:
        self.servers = list(self.servers)
        if self._shared_file is not None:
            self._shared_file.put(self.engine_set_id, self.to_dict())
        elif self.parent is not None and hasattr(self.parent, "update_cluster_file"):
            self.parent.update_cluster_file()

    @classmethod
    def from_dict(cls, d: dict[str, Any], **kwargs: Any) -> GriffinEngineSetLauncher:
        """Restore from the cluster file, as running, without a request: the watcher finds out what is true."""
        launcher: GriffinEngineSetLauncher = super().from_dict(d, **kwargs)
        launcher._watch()
        return launcher

    # --- watching

    def _watch(self) -> None:
        _ = self.loop  # the thread needs it, and only this thread can find it
        Watcher(
            look=lambda: self._on_cloud().survey(reports=False),
            on_gone=self._all_gone,
            stop=self._stopping,
            interval=self.watch_interval,
            log=self.log,
        ).start()

    def _all_gone(self) -> None:
        """No server of the set lives any more: delete what is left of them (a powered-off server costs money)."""
        try:
            self._destroy(through_hub=False)
        except GriffinError as e:
            self.log.error(str(e))
            return
        data = {"exit_code": 1, "identifier": self.identifier}
        loop = getattr(self.loop, "asyncio_loop", None)
        if loop is None or loop.is_closed():  # ipyparallel's synchronous API closes the loop it started us in
            self._finish(data)
        else:
            self.loop.add_callback(self._finish, data)

    # --- stop

    async def stop(self) -> None:
        """Delete the servers and objects of this set; returns when a listing shows none. Idempotent.

        Raises `CloudError` naming what is left; then the set still counts as running, and can be stopped again.
        """
        ipcluster.guard(self)
        self._stopping.set()
        await in_thread(self._destroy)
        self._finish({"exit_code": 0, "identifier": self.identifier})

    def _finish(self, data: dict[str, Any]) -> None:
        if self._shared_file is not None:
            self._shared_file.remove(self.engine_set_id)
        self.notify_stop(data)

    def _destroy(self, *, through_hub: bool = True) -> None:
        """Shut the engines down, keep their output, delete the servers. Blocking; at most one at a time."""
        self._stopping.set()
        with self._cloud_work:
            if self._gone or not self.engine_set:
                return
            engine_set = self._on_cloud()
            if through_hub:
                self._leave_hub(engine_set)
            with contextlib.suppress(GriffinError):  # output is worth less than the servers' end
                self._output.update(engine_set.output(self.output_servers))
            engine_set.destroy(self.servers, timeout=self.stop_timeout)
            self._gone = True

    def _leave_hub(self, engine_set: EngineSet) -> None:
        """Shut the engines down through the hub, which otherwise keeps their ids for many heartbeats."""
        try:
            with self._hub(timeout=self.leave_timeout) as hub:
                if not hub.engines(self.engine_set):
                    return
                hub.shut_down(self.engine_set, timeout=self.leave_timeout)
        except Exception as e:  # no controller any more, or one that does not answer
            self.log.debug(f"Engines were not shut down through the controller: {type(e).__name__}: {e}")
            return
        engine_set.wait_until_gone(timeout=self.leave_timeout)

    # --- what ipyparallel asks of a running set

    def signal(self, sig: int | str) -> Any:
        """Send a signal to every engine, through its nanny. SIGTERM and SIGKILL stop the set: its servers go, too.

        Returns an awaitable.
        """
        if isinstance(sig, str):  # "INT" or "SIGINT": the engines' system looks it up
            sig = sig if sig.startswith("SIG") else f"SIG{sig}"
        if sig in (signal.SIGTERM, signal.SIGKILL, "SIGTERM", "SIGKILL"):
            return self.stop()
        return in_thread(lambda: self._signal(sig))

    def _signal(self, sig: int | str) -> None:
        with self._hub() as hub:
            if hub.signal(self.engine_set, sig) == 0:
                self.log.warning(f"No engine of {self.identifier} is connected: signal {sig} reached none.")

    def get_output(self, remove: bool = False) -> str:
        """The engines' output as their servers last reported it; after `stop`, as it was at the end."""
        if self.running and not self._stopping.is_set() and self.engine_set:
            with contextlib.suppress(GriffinError):
                self._output.update(self._on_cloud().output(self.output_servers))
        return "\n".join(
            f"Output for engine {name}\n{indent(text, '  ')}" for name, text in sorted(self._output.items()) if text
        )

    # --- doors

    def _on_cloud(self, servers_url: str = "") -> EngineSet:
        from ..engine_set import EngineSet

        if self._doors is None:
            self._doors = EngineSet(self.connect(), self.open_store(servers_url), self.uid, self.engine_set)
        return self._doors

    def _hub(self, timeout: float = 30) -> Hub:
        from ..hub import Hub

        path = self.connection_files["client"]
        try:
            return Hub(json.loads(Path(path).read_text()), timeout=timeout)
        except (OSError, ValueError) as e:
            raise GriffinError(f"No controller is running here: can't read {path}.") from e


def _describe(plan: Plan) -> str:
    servers = "1 server" if len(plan.servers) == 1 else f"{len(plan.servers)} servers"
    engines = "1 engine" if plan.engines == 1 else f"{plan.engines} engines"
    return (
        f"Starting {engines} on {servers}: image {plan.image.name}, flavor {plan.flavor.name} "
        f"({plan.flavor.vcpus} vCPU), network {plan.network.name}"
    )


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in some containers
        return "unknown"


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
