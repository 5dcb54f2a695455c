"""`Attaching`: how the machine of a launcher becomes one that uses a controller on a server: let in by the cluster's security group, through
a tunnel where there is a gateway, and with connection files of its own."""

from __future__ import annotations

import ipaddress
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Float, Integer

from ..controller_server import ControllerServer, address_of, clients_way, own_address, port_ranges, why_unreachable
from ..floating_ips import AUTO
from ..plan import GriffinError, SettingError, Stopped
from ..rendezvous import ports_of
from ..ssh import TO_SERVER, Tunnel, check_gateway, check_name, close_tunnel, open_tunnel, resolved
from ..threads import in_thread
from .controller_settings import ControllerSettings
from .servers import OnServers
from .waiting import check_not_stopped

if TYPE_CHECKING:
    from collections.abc import Mapping

    Files = Mapping[str, Mapping[str, Any]]

TICK = 0.3  # seconds between two tries to reach the controller
NAME = "GriffinServerControllerLauncher"


class Unreachable(GriffinError):
    """This machine does not reach the controller."""


class Attaching(OnServers, ControllerSettings):
    """The part of `GriffinServerControllerLauncher` that is about this machine."""

    tunnel_pid = Integer(0, help="Process of the tunnel through an SSH gateway; 0: none").tag(to_dict=True)
    tunnel_created = Float(help="Start time of that process; tells a reused pid").tag(to_dict=True)

    connection_files: dict[str, str]
    _gateway = ""  # what it says of its address
    _tunnel: Tunnel | None = None  # where this process has opened it

    def check_settings(self) -> None:
        super().check_settings()
        if self.ssh_server:
            check_name(self.ssh_server + ("server" if self.ssh_server.endswith("@") else ""))
        if self.floating_ip not in ("", AUTO) and not _is_address(self.floating_ip):
            raise SettingError(f'{NAME}.floating_ip {self.floating_ip!r} is neither "{AUTO}" nor an IPv4 address.')
        if self.client_address and not _is_network(self.client_address):
            raise SettingError(
                f'{NAME}.client_address {self.client_address!r} is no IPv4 address, or range of such: give it as "203.0.113.7/32".'
            )
        if self.floating_ip and self.ssh_server and not self.ssh_server.endswith("@"):
            raise SettingError(
                f"{NAME}.floating_ip is of no use behind the gateway {self.ssh_server}, which connects to the server's own address: set one of them."
            )

    # --- let in

    def check_gateway(self, client: Mapping[str, Any]) -> None:
        """See that a gateway lets this user in, before anything is made. Blocking. Raises `SettingError` where it does not.

        ``client``: a connection file of clients, of which "ssh" counts.
        """
        if client.get("ssh") and not client.get(TO_SERVER):  # the server itself may have just begun to boot
            self._gateway = check_gateway(str(client["ssh"]))

    def let_in(self, client: Mapping[str, Any], engine: Mapping[str, Any] | None = None) -> list[str]:
        """Open exactly the ports of each to those who need them: this machine as a client, and the engines where their connection file is
        given. Returns the ids of the rules that are new. Blocking; `stop` waits for it.
        """
        ports, address = clients_way(client)
        whom = self.client_address or self._whom(client, address)
        with self._cloud_work:
            check_not_stopped(self._stopping)
            return self.connect().groups.let_in(
                self.uid,
                engines=port_ranges(ports_of(engine)) if engine else (),
                clients=ports,
                client=str(ipaddress.ip_network(whom, strict=False)),
            )

    def _whom(self, client: Mapping[str, Any], address: str) -> str:
        """Who comes to the controller, as far as can be known from here."""
        if client.get("ssh") and not client.get(TO_SERVER):
            return self._gateway or resolved(str(client["ssh"]))
        return own_address(address)

    # --- reach

    def attach(self, files: Files, client: Mapping[str, Any]) -> None:
        """Wait until the hub answers this machine, and write its connection files. Blocking.

        ``client``: the connection file of clients as `client_view` made it. Raises `Unreachable` where there is no answer within
        ``reach_timeout`` seconds: then there is no tunnel, and nothing is written.
        """
        try:
            local = self._reach(client)
            self._write({**files, "client": local})
        except BaseException:  # Ctrl-C, too
            self.close_tunnel()
            raise

    def _reach(self, client: Mapping[str, Any]) -> Mapping[str, Any]:
        """The content of the connection file for this machine: it names the ends of a tunnel where there is a gateway."""
        deadline = time.monotonic() + self.reach_timeout
        while True:
            check_not_stopped(self._stopping)
            patience = max(deadline - time.monotonic(), 1.0)
            try:
                local = self._through_tunnel(client, patience) if client.get("ssh") else client
                _see_that_it_answers(local, patience)
            except Stopped:
                raise
            except GriffinError as e:
                if time.monotonic() > deadline:
                    raise Unreachable(_told(client, str(e))) from e
                self._stopping.wait(TICK)
                continue
            if self._tunnel is not None:
                self._tunnel.leave()
            return local

    def _through_tunnel(self, client: Mapping[str, Any], patience: float) -> Mapping[str, Any]:
        """``client`` with the ends of a tunnel that is open, or is opened anew. Raises `GriffinError` where there is none."""
        if self._tunnel is None or self._tunnel.ended:
            self.close_tunnel()
            self._tunnel = open_tunnel(client)
            self.tunnel_pid, self.tunnel_created = self._tunnel.pid, self._tunnel.created
            self._record()  # at once: it outlives a process that is killed
        self._tunnel.wait(patience)
        return self._tunnel.info

    def close_tunnel(self) -> None:
        """End this machine's tunnel, if it has one. Idempotent."""
        if self._tunnel is not None:
            self._tunnel.close()
        elif self.tunnel_pid:
            close_tunnel(self.tunnel_pid, self.tunnel_created)
        self._tunnel, self.tunnel_pid = None, 0

    # --- connection files

    async def get_connection_info(self, timeout: float | None = None) -> Any:
        """What is in the connection files; where this machine has none, as the object store has them."""
        if not all(Path(path).exists() for path in self.connection_files.values()) and self.uid:
            await in_thread(self._fetch)
        return await super().get_connection_info(timeout)  # type: ignore[misc]  # ipyparallel's

    def _fetch(self) -> None:
        """Attach this machine anew, with what the object store has. Blocking. Raises `GriffinError` where it has nothing."""
        client = self.server.client_file()
        newest = max((incarnation for _, incarnation in self.server.last_reports()), default=0)
        self.close_tunnel()
        try:
            self.attach(self.server.connection_files(newest), client)
        except Unreachable as e:
            raise GriffinError(
                f"The controller of cluster {self.uid} runs on a server, but {e} Try `ipp-griffin connect {self.uid}`."
            ) from e

    def _write(self, files: Files) -> None:
        """Write the connection files of this machine, for its user only."""
        Path(self.profile_dir, "log").mkdir(parents=True, exist_ok=True)  # ipcontroller makes it; local engines need it
        for name, path in self.connection_files.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            scratch = Path(f"{path}.{os.getpid()}")
            with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as f:
                json.dump(files[name], f)
            scratch.replace(path)

    def remove_stale_files(self) -> None:
        """Those of a controller that was killed: clients would be sent to it."""
        for path in self.connection_files.values():
            Path(path).unlink(missing_ok=True)

    # --- doors

    @property
    def server(self) -> ControllerServer:
        server = self._on_cloud()
        assert isinstance(server, ControllerServer)
        return server

    def _open(self, servers_url: str) -> ControllerServer:
        return ControllerServer(self.connect(), self.open_store(servers_url), self.uid)


def _see_that_it_answers(local: Mapping[str, Any], patience: float) -> None:
    """Raise `GriffinError` saying why the hub that ``local`` names does not answer this machine."""
    from ..hub import Hub

    if why := why_unreachable(local):
        raise GriffinError(why)
    with Hub(local, timeout=max(patience, 10.0)):
        pass


def _told(client: Mapping[str, Any], why: str) -> str:
    address, port = address_of(client)
    through = f" through {client['ssh']}" if client.get("ssh") else ""
    return f"this machine does not reach it at {address} port {port}{through} ({why.rstrip('.')})."


def how_to_let_in(ports: str) -> str:
    """What to type where a cluster has no security groups of its own; ``ports``: the first and the last, as a range."""
    return (
        f"Let it in: `openstack security group rule create --ingress --protocol tcp --dst-port {ports.replace('-', ':')} --remote-ip ADDRESS/32 "
        "GROUP`, with a security group of that server and the address that this machine has for the cloud"
    )


def _is_address(text: str) -> bool:
    try:
        return bool(ipaddress.IPv4Address(text))
    except ValueError:
        return False


def _is_network(text: str) -> bool:
    try:
        return bool(ipaddress.IPv4Network(text, strict=False))
    except ValueError:
        return False
