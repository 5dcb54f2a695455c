"""`GriffinServerControllerLauncher`: ipcontroller on a server of the cloud, that clients and engines reach."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipyparallel.cluster.launcher import ControllerLauncher, ipcontroller_cmd_argv
from traitlets import Float, Integer

from .. import heartbeats, ipcluster
from ..controller_server import (
    CONTROLLER,
    ControllerServer,
    address_of,
    client_view,
    own_address,
    port_ranges,
    why_unreachable,
)
from ..plan import GriffinError, Plan, SettingError, Stopped, choose_network
from ..rendezvous import ControllerKeys, build_for_controller, ports_of
from ..roster import Roster
from ..ssh import check_gateway, close_tunnel, gateway_address, open_tunnel
from ..threads import in_thread
from .controller_args import PORTS_NEEDED, check_args, given, port_range
from .controller_settings import ControllerSettings
from .controller_waiting import WaitForController
from .servers import OnServers
from .waiting import check_not_stopped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..cloud import Server
    from ..engine_set import EngineSet
    from ..floating_ips import FloatingIp
    from ..settings import GriffinCloud

SSH_PORT = 22
TICK = 0.3  # seconds between two tries to reach the controller


class GriffinServerControllerLauncher(OnServers, ControllerSettings, ControllerLauncher):  # type: ignore[misc]
    """Start ipcontroller on a server, and return when this machine reaches it. Its `stop` takes away everything of the cluster.

    The cluster does not need this process: once started, it lives on without.
    """

    entrypoint_name = "griffin-server"
    role = CONTROLLER
    parallel = 1

    tunnel_pid = Integer(0, help="Process of the tunnel through an SSH gateway; 0: none").tag(to_dict=True)
    tunnel_created = Float(help="Start time of that process; tells a reused pid").tag(to_dict=True)

    def find_args(self) -> list[str]:
        """For ipyparallel's log lines only: there is no local process."""
        return ["griffin controller on a server"]

    # --- start

    async def start(self) -> None:
        """Create a server, have its agent start ipcontroller, and return when this machine reaches that.

        Raises `GriffinError` with the cause, after taking down what it made. Under ipcluster, which can't
        handle an exception here, it ends the application with status 1 instead.
        """
        await self._start_safely(self._start)

    async def _start(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        args = self._checked_args()
        settings = self.settle_cloud()
        await in_thread(lambda: self._check_gateway())
        await in_thread(lambda: self.record_project(settings))
        network = await in_thread(lambda: choose_network(settings.network, self.connect().networks(), self.naming))
        keys = ControllerKeys.make()
        self.uid = keys.uid
        plan = await in_thread(
            lambda: self._plan_servers(1, settings, network, engine_set=CONTROLLER, engines_per_server=1)
        )
        plan = dataclasses.replace(plan, servers=tuple(_without_engines(server) for server in plan.servers))
        self.has_groups = settings.manage_security_group
        self._remove_stale_files()
        self.notify_start(self.uid)
        self._record()  # the uid: enough to find whatever is made from here on
        self.log.info(f"Starting the controller on a server: {plan.on}")

        def publish(server: str, address: str) -> None:
            self._publish(keys, args, server, address, settings)

        await in_thread(lambda: publish("", ""))
        if self.has_groups:
            plan = await in_thread(lambda: self._admit(plan))
        floating = await in_thread(self._reserve_floating_ip) if self.floating_ip else None
        keeper = self._make_keeper(
            Roster.of_plan(
                plan.servers,
                time.monotonic(),
                deadlines=self.deadlines(),
                quorum=1,
                replacements=self.replacements(1),
                role=CONTROLLER,
            ),
            create=lambda servers, created: self._create(plan, servers, settings, created),
        )
        await in_thread(lambda: keeper.create(plan.servers))
        self._record()
        waiting = WaitForController(
            keeper,
            self._server,
            publish=publish,
            attach=lambda id: self.connect().floating_ips.attach(floating, id) if floating else None,
            stopping=self._stopping,
            timeout=self.start_timeout,
            deadline=deadline,
            poll_interval=self.poll_interval,
            log=self.log,
        )
        server, files = await in_thread(waiting.run)
        await in_thread(lambda: self._settle_clients(server, files, floating))
        slot = keeper.roster.slots[0]
        keeper.roster.count({slot.place: 1}, keeper.clock())
        self._record()
        self._watch(keeper)

    def _checked_args(self) -> list[str]:
        """The user's own arguments for ipcontroller. Raises `SettingError` for those that are not the user's to give."""
        user = list(self.controller_args)
        check_args(user)
        port_range(self.ports, PORTS_NEEDED, "GriffinServerControllerLauncher.ports")
        for names in (
            ("ip", "IPController.ip"),
            ("location", "IPController.location"),
            ("ports", "IPController.ports"),
        ):
            if given(user, *names):
                raise SettingError(
                    f"The controller's server has an address of its own: take --{names[0]} out of the controller's arguments "
                    "(Cluster.controller_args, controller_ip, controller_location). Its ports are GriffinServerControllerLauncher.ports."
                )
        return user

    def _check_gateway(self) -> None:
        if self.ssh_server and not self.ssh_server.endswith("@"):
            check_gateway(self.ssh_server)

    def _publish(self, keys: ControllerKeys, args: list[str], name: str, address: str, settings: GriffinCloud) -> None:
        """Put what the agent goes by into the object store. Blocking; `stop` waits for it."""
        import ipyparallel

        with self._cloud_work:
            check_not_stopped(self._stopping)
            server = self._on_cloud(settings.store_url)
            path = Path(self.profile_dir, "ipcontroller_config.py")
            rendezvous = build_for_controller(
                keys,
                server=name,
                address=address,
                ports=self.ports,
                args=args,
                ipcontroller_config=heartbeats.for_controller(path.read_text() if path.is_file() else ""),
                controller_timeout=self.controller_timeout,
                idle_timeout=self.idle_timeout,
                ipyparallel_version=ipyparallel.__version__,
                environment=self.environment,
                engine_cmd=[] if self.controller_cmd == ipcontroller_cmd_argv else self.controller_cmd,
                engine_user=self.controller_user,
                engine_python=self.controller_python,
                **self.for_every_agent(),
            )
            server.publish(rendezvous, {**self._labels(), "user": server.cloud.user_id})

    def _admit(self, plan: Plan) -> Plan:
        """Make the cluster's security groups; its plan with that for the controller. Blocking; `stop` waits for it."""
        with self._cloud_work:
            check_not_stopped(self._stopping)
            group = self.connect().groups.make_for_server(self.uid)
            return dataclasses.replace(plan, security_groups=(*plan.security_groups, group.id))

    def _reserve_floating_ip(self) -> FloatingIp:
        with self._cloud_work:
            check_not_stopped(self._stopping)
            return self.connect().floating_ips.reserve(self.uid, self.floating_ip, self.floating_ip_pool)

    def _settle_clients(self, server: Server, files: dict[str, dict[str, Any]], floating: FloatingIp | None) -> None:
        """Let clients and engines in, see that this machine is one, and write its connection files. Blocking."""
        address = floating.address if floating else address_of(files["client"])[0]
        client = client_view(files["client"], address, self.ssh_server)
        if self.has_groups:
            self._let_in(files, address)
        self.write_files({**files, "client": self.reach(client, f"The controller runs on server {server.name}")})
        self._server.publish_client_file(client)
        self.log.info(f"The controller runs on server {server.name}, at {address}.")

    def _let_in(self, files: dict[str, dict[str, Any]], address: str) -> None:
        """Open exactly the ports of each to those who need them."""
        through_itself = self.ssh_server.endswith("@")
        gateway = "" if through_itself else self.ssh_server
        self.connect().groups.let_in(
            self.uid,
            engines=port_ranges(ports_of(files["engine"])),
            clients=port_ranges({SSH_PORT} if through_itself else ports_of(files["client"])),
            client=self.client_address or (gateway_address(gateway) if gateway else own_address(address)),
        )

    def reach(self, client: Mapping[str, Any], what: str) -> Mapping[str, Any]:
        """Wait until the hub answers this machine; returns the content of its connection file, which names the ends of a tunnel where
        there is a gateway. Blocking. Raises `GriffinError`, which begins with ``what``, saying what to do where it never does.
        """
        from ..hub import Hub

        deadline = time.monotonic() + self.reach_timeout
        if client.get("ssh"):
            self._close_tunnel()
            tunnel = open_tunnel(client, timeout=self.reach_timeout)
            self.tunnel_pid, self.tunnel_created, client = tunnel.pid, tunnel.created, tunnel.info
        try:
            while why := why_unreachable(client):
                check_not_stopped(self._stopping)
                if time.monotonic() > deadline:
                    raise GriffinError(f"{what}, but {self._advice(client, why)}")
                self._stopping.wait(TICK)
            with Hub(client, timeout=max(deadline - time.monotonic(), 10.0)):
                return client
        except GriffinError as e:
            self._close_tunnel()
            if isinstance(e, Stopped) or str(e).startswith(what):
                raise
            raise GriffinError(f"{what}, but {self._advice(client, str(e))}") from e

    def _close_tunnel(self) -> None:
        if self.tunnel_pid:
            close_tunnel(self.tunnel_pid, self.tunnel_created)
            self.tunnel_pid = 0

    def _advice(self, client: Mapping[str, Any], why: str) -> str:
        address, port = address_of(client)
        text = f"this machine does not reach it at {address} port {port} ({why.rstrip('.')}). "
        if not self.floating_ip and not self.ssh_server:
            text += 'If this machine is outside of the server\'s network: set GriffinServerControllerLauncher.floating_ip = "auto", or ssh_server. '
        if self.has_groups:
            return (
                text
                + "Its security group lets in "
                + (self.client_address or "the address that this machine uses")
                + (
                    "; if the cloud sees another one of this machine, set GriffinServerControllerLauncher.client_address."
                )
            )
        first, _, last = self.ports.partition("-")
        return text + (
            f"Let it in: `openstack security group rule create --ingress --protocol tcp --dst-port {first}:{last} --remote-ip ADDRESS/32 GROUP`, "
            "with a security group of that server and the address that this machine has for the cloud; or set "
            "GriffinCloud.manage_security_group = True."
        )

    # --- connection files

    async def get_connection_info(self, timeout: float | None = None) -> Any:
        """What is in the connection files; where this machine has none, as the object store has them."""
        if not all(Path(path).exists() for path in self.connection_files.values()) and self.uid:
            await in_thread(self.fetch_files)
        return await super().get_connection_info(timeout)

    def fetch_files(self) -> None:
        """Write this machine's connection files anew, out of the object store. Blocking. Raises `GriffinError` where it has none."""
        newest = max((incarnation for _, incarnation in self._server.last_reports()), default=0)
        files = self._server.connection_files(newest)
        client = self.reach(self._server.client_file(), f"The controller of cluster {self.uid} runs on a server")
        self.write_files({**files, "client": client})

    def write_files(self, files: Mapping[str, Mapping[str, Any]]) -> None:
        """Write the connection files of this machine, for its user only."""
        Path(self.profile_dir, "log").mkdir(parents=True, exist_ok=True)  # ipcontroller makes it; local engines need it
        for name, path in self.connection_files.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(f"{path}.{os.getpid()}")
            with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
                json.dump(files[name], f)
            scratch.replace(path)

    def _remove_stale_files(self) -> None:
        """Files of a controller that was killed: clients would be sent to it."""
        for path in self.connection_files.values():
            Path(path).unlink(missing_ok=True)

    # --- the end

    async def stop(self) -> None:
        """End the cluster: its engine sets, its server, and whatever else it has on the cloud. Idempotent.

        Raises `GriffinError` naming what is left; then the cluster file keeps it, so that another stop finds everything.
        """
        ipcluster.guard(self)
        self._stopping.set()
        try:
            await self.take_down_engine_sets()
            await in_thread(self._destroy)
        except GriffinError as e:
            await ipcluster.end_failed_stop(self, e)
        if self.running:
            self.notify_stop({"exit_code": 0, "identifier": self.identifier})

    def _take_away(self, *, through_hub: bool = True) -> None:
        """Keep the output, which goes with the server, and delete whatever the cluster has."""
        self._output.read(self._on_cloud(), 1)
        self.sweep()
        self._close_tunnel()
        self.remove_connection_files()

    def signal(self, sig: int) -> Any:
        """SIGTERM and SIGKILL stop the cluster; nothing else reaches another machine. Returns an awaitable, or None."""
        if sig in (signal.SIGTERM, signal.SIGKILL):
            return self.stop()
        self.log.warning(f"Signal {sig} does not reach the controller: it runs on a server.")
        return None

    async def join(self, timeout: float | None = None) -> None:
        """Wait until the controller has ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.running:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"The controller did not end in {timeout} seconds.")
            await asyncio.sleep(0.1)

    def poll(self) -> int | None:
        """None while it runs, as far as its watcher knows."""
        return None if self.running else 0

    def get_output(self, remove: bool = False) -> str:
        """ipcontroller's output as its server last reported it, without keys; after `stop`, as it was at the end."""
        return self._read_output(1)

    # --- doors

    @property
    def _server(self) -> ControllerServer:
        server = self._on_cloud()
        assert isinstance(server, ControllerServer)
        return server

    def _open(self, servers_url: str) -> EngineSet:
        return ControllerServer(self.connect(), self.open_store(servers_url), self.uid)


def _without_engines(server: Any) -> Any:
    """Its one process is the controller: nobody shall count it as an engine."""
    return dataclasses.replace(server, metadata={**server.metadata, "griffin:engines": "0"})
