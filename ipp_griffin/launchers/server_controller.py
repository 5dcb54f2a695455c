"""`GriffinServerControllerLauncher`: ipcontroller on a server of the cloud."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipyparallel.cluster.launcher import ControllerLauncher, ipcontroller_cmd_argv

from ..cluster.controller_server import CONTROLLER
from ..cluster.wait import WaitForController, check_not_stopped
from ..common.errors import GriffinError, SettingError
from ..common.net import address_of
from ..common.threads import in_thread
from ..controller import heartbeats
from ..model.connection import ControllerKeys, build_for_controller, client_view
from ..model.plan import Plan, choose_network
from . import ipcluster
from .arguments import PORTS_NEEDED, check_args, port_range, value_of
from .local_access import NAME, Attaching, Unreachable

if TYPE_CHECKING:
    from ..cloud.floating_ips import FloatingIp
    from ..model.server import Server
    from .cloud_settings import GriffinCloud


class GriffinServerControllerLauncher(Attaching, ControllerLauncher):  # type: ignore[misc]
    """Start ipcontroller on a server, and return when this machine reaches it. `stop` deletes the whole cluster.

    Once started, the cluster does not need this process.
    """

    entrypoint_name = "griffin-server"
    role = CONTROLLER

    def find_args(self) -> list[str]:
        """Return a text for ipyparallel's log lines: there is no local process."""
        return ["griffin controller on a server"]

    # --- start

    async def start(self) -> None:
        """Create a server whose agent starts ipcontroller, and return when this machine reaches it.

        Raises `GriffinError` with the cause, after deleting what it created. Under ipcluster, which can't handle an exception here, it
        ends the application with status 1 instead.
        """
        await self._start_safely(self._start)

    async def _start(self) -> None:
        deadline = time.monotonic() + self.start_timeout
        args = self._checked_args()
        settings = self.settle_cloud()
        await in_thread(lambda: self._check_way(settings))
        await in_thread(lambda: self.record_project(settings))
        there = await in_thread(lambda: self.look_up(settings))
        network = choose_network(settings.network, there.networks, self.naming)
        keys = ControllerKeys.make()
        self.uid = keys.uid
        plan = await in_thread(
            lambda: self._plan_servers(1, settings, there, network, engine_set=CONTROLLER, engines_per_server=1)
        )
        plan = dataclasses.replace(plan, servers=tuple(_without_engines(server) for server in plan.servers))
        self.has_groups = settings.manage_security_group
        self.remove_stale_files()
        self.notify_start(self.uid)
        self._record()  # the uid: enough to find whatever is created from here on
        self.log.info(f"Starting the controller on a server: {plan.on}")

        def publish(server: str, address: str) -> None:
            self._publish(keys, args, server, address, settings)

        await in_thread(lambda: self._open_container(settings))
        await in_thread(lambda: publish("", ""))
        if self.has_groups:
            plan = await in_thread(lambda: self._admit(plan))
        floating = await in_thread(self._reserve_floating_ip) if self.floating_ip else None
        reconciler = self._reconciler_of(plan, settings, quorum=1, role=CONTROLLER)
        await in_thread(lambda: reconciler.create(plan.servers))
        self._record()
        waiting = WaitForController(
            reconciler,
            self.server,
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
        slot = reconciler.roster.slots[0]
        reconciler.roster.count({slot.place: 1}, reconciler.clock())
        self._record()
        self._watch(reconciler)

    def _checked_args(self) -> list[str]:
        """Return the user's arguments for ipcontroller. Raises `SettingError` for those that the launcher must set itself."""
        user = list(self.controller_args)
        check_args(user)
        port_range(self.ports, PORTS_NEEDED, "GriffinServerControllerLauncher.ports")
        for names in (
            ("ip", "IPController.ip"),
            ("location", "IPController.location"),
            ("ports", "IPController.ports"),
        ):
            if value_of(user, *names):
                raise SettingError(
                    f"The controller's server has its own address: remove --{names[0]} from the controller's "
                    "arguments (Cluster.controller_args, controller_ip, controller_location). To choose its ports, "
                    "set GriffinServerControllerLauncher.ports."
                )
        return user

    def _check_way(self, settings: GriffinCloud) -> None:
        """Raise `SettingError` if clients can't use ``ssh_server``. Blocking."""
        if self.ssh_server.endswith("@") and not settings.key_name:
            raise SettingError(
                f"{NAME}.ssh_server {self.ssh_server!r} means the controller's own server, which needs a key "
                "pair to let you in: set GriffinCloud.key_name."
            )
        self.check_gateway(client_view({}, "", self.ssh_server))

    def _publish(self, keys: ControllerKeys, args: list[str], name: str, address: str, settings: GriffinCloud) -> None:
        """Put the agent's private object into the object store. Blocking; `stop` waits for it."""
        import ipyparallel

        with self._cloud_work:
            check_not_stopped(self._stopping)
            server = self._on_cloud(settings.store_url)
            path = Path(self.profile_dir, "ipcontroller_config.py")
            private_object = build_for_controller(
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
            server.publish(private_object)

    def _admit(self, plan: Plan) -> Plan:
        """Make the cluster's security groups; return the plan with the controller's group. Blocking; `stop` waits for it."""
        with self._cloud_work:
            check_not_stopped(self._stopping)
            group = self.connect().groups.make_for_server(self.uid)
            return dataclasses.replace(plan, security_groups=(*plan.security_groups, group.id))

    def _reserve_floating_ip(self) -> FloatingIp:
        with self._cloud_work:
            check_not_stopped(self._stopping)
            return self.connect().floating_ips.reserve(self.uid, self.floating_ip, self.floating_ip_pool)

    def _settle_clients(self, server: Server, files: dict[str, dict[str, Any]], floating: FloatingIp | None) -> None:
        """Admit clients and engines, check that this machine reaches the controller, and write its connection files. Blocking."""
        address = floating.address if floating else address_of(files["client"])[0]
        client = client_view(files["client"], address, self.ssh_server)
        if self.has_groups:
            self.let_in(client, files["engine"])
        try:
            self.attach(files, client)
        except Unreachable as e:
            outside = (
                f'If this machine is outside the server\'s network, set {NAME}.floating_ip = "auto", or ssh_server. '
            )
            advice = self.advice(client, f"set {NAME}.client_address")
            if not self.has_groups:
                advice += " GriffinCloud.manage_security_group = True does that."
            if not self.floating_ip and not self.ssh_server:
                advice = outside + advice
            raise GriffinError(f"The controller runs on server {server.name}, but {e} {advice}") from e
        self.keep_tunnel()
        self.server.publish_client_file(client)
        self.log.info(f"The controller runs on server {server.name}, at {address}.")

    # --- the end

    async def stop(self) -> None:
        """Tear the cluster down: its engine sets, its server, and everything else that it has in the cloud. Idempotent.

        Raises `GriffinError` naming what is left; it then stays in the cluster file, so that another stop finds everything.
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

    def _tear_down(self, *, through_hub: bool = True) -> None:
        """Save the output, which would be lost with the server, and delete everything that the cluster has."""
        self._output.read(self._on_cloud(), 1)
        self.sweep(self.servers)
        self.close_tunnels()
        self.remove_connection_files()

    def signal(self, sig: int) -> Any:
        """Stop the cluster for SIGTERM and SIGKILL; other signals can't be sent to a server. Return an awaitable, or None."""
        if sig in (signal.SIGTERM, signal.SIGKILL):
            return self.stop()
        self.log.warning(f"Signal {sig} was not sent: the controller runs on a server.")
        return None

    async def join(self, timeout: float | None = None) -> None:
        """Wait until the controller has ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.running:
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"The controller did not end in {timeout} seconds.")
            await asyncio.sleep(0.1)

    def poll(self) -> int | None:
        """Return None while the controller runs, as far as its watcher knows."""
        return None if self.running else 0

    def get_output(self, remove: bool = False) -> str:
        """Return ipcontroller's output as its server last reported it, without keys; after `stop`, as it was at the end."""
        return self._read_output(1)


def _without_engines(server: Any) -> Any:
    """Set the number of engines in a server's plan to none: its only process is the controller."""
    return dataclasses.replace(server, metadata={**server.metadata, "griffin:engines": "0"})
