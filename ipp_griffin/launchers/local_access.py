"""`Attaching`: how the machine of a launcher becomes one that uses a controller on a server: let in by the cluster's security group, through
a tunnel where there is a gateway, and with connection files of its own."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import List, Unicode, Union

from ..cluster.controller_server import ControllerServer
from ..cluster.wait import check_not_stopped
from ..common.errors import GriffinError, SettingError, Stopped
from ..common.files import write_private
from ..common.net import address_of, own_address, why_unreachable
from ..common.threads import in_thread
from ..controller.ssh_tunnel import (
    Record,
    check_gateway,
    check_name,
    close_tunnel,
    is_ipv4,
    is_open,
    local_end,
    open_tunnel,
    resolved,
    said,
)
from ..model.connection import TO_SERVER, TUNNEL, clients_way, cluster_uid, port_ranges, ports_of
from ..model.names import AUTO
from .arguments import PORTS_NEEDED
from .on_servers import OnServers
from .settings import ControllerSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    Files = Mapping[str, Mapping[str, Any]]

TICK = 0.3  # seconds between two tries to reach the controller
TRY = 10.0  # seconds that one may take: a signal that comes just before zmq's poll is seen only when the poll ends
NAME = "GriffinServerControllerLauncher"
DAY = 86400


class Unreachable(GriffinError):
    """This machine does not reach the controller."""


class Attaching(OnServers, ControllerSettings):
    """The part of `GriffinServerControllerLauncher` that is about this machine."""

    tunnels = List(
        Union([Unicode(), List()]), help="Of each tunnel through a gateway: the folder of its control socket"
    ).tag(to_dict=True)

    connection_files: dict[str, str]
    _gateway = ""  # what it says of its address
    _opened = ""  # the tunnel that the last `attach` has opened

    def check_settings(self) -> None:
        super().check_settings()
        if not 1 <= self.reach_timeout <= DAY:  # nan
            raise SettingError(
                f"{NAME}.reach_timeout can't be {self.reach_timeout} seconds: give a number from 1 to {DAY}."
            )
        if self.ssh_server:
            check_name(self.ssh_server + ("server" if self.ssh_server.endswith("@") else ""))
        if self.floating_ip not in ("", AUTO) and not is_ipv4(self.floating_ip):
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

    def let_in(
        self, client: Mapping[str, Any], engine: Mapping[str, Any] | None = None, made: list[str] | None = None
    ) -> None:
        """Open exactly the ports of each to those who need them: this machine as a client, and the engines where their connection file is
        given. The ids of the rules that are new go into ``made``. Blocking; `stop` waits for it.
        """
        ports, address = clients_way(client)
        whom = self.client_address or self._whom(client, address)
        with self._cloud_work:
            check_not_stopped(self._stopping)
            self.connect().groups.let_in(
                self.uid,
                engines=port_ranges(ports_of(engine)) if engine else (),
                clients=ports,
                client=str(ipaddress.ip_network(whom, strict=False)),
                made=made,
            )

    def _whom(self, client: Mapping[str, Any], address: str) -> str:
        """Return who comes to the controller, as far as can be known from here."""
        if client.get("ssh") and not client.get(TO_SERVER):
            return self._gateway or resolved(str(client["ssh"]))
        return own_address(address)

    def advice(self, client: Mapping[str, Any], setting: str) -> str:
        """Return what to do where the controller can't be reached. ``setting``: what names the ``client_address``."""
        if not self.has_groups:
            return f"{how_to_let_in(client)}."
        through_gateway = client.get("ssh") and not client.get(TO_SERVER)
        whom = self.client_address or (
            "the gateway's address" if through_gateway else "the address that this machine uses"
        )
        return f"Its security group lets in {whom}; if the cloud sees another one, {setting}."

    # --- reach

    def attach(self, files: Files, client: Mapping[str, Any]) -> None:
        """Wait until the hub answers this machine, and write its connection files. Blocking. `keep_tunnel` is to follow.

        ``client``: the connection file of clients as `client_view` made it. Raises `Unreachable` where there is no answer within
        ``reach_timeout`` seconds: then nothing is written, and a tunnel that was there before is there still.
        """
        client = {name: value for name, value in client.items() if name != TUNNEL}  # which only this machine knows
        self._opened = ""  # an earlier one stays until `keep_tunnel`
        try:
            local = self._reach(client)
            self._write({**files, "client": local})
        except BaseException:  # Ctrl-C, too
            self.drop_tunnel()
            raise

    def _reach(self, client: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the content of the connection file for this machine: it names the ends of a tunnel where there is a gateway."""
        deadline, local = time.monotonic() + self.reach_timeout, client
        while True:
            check_not_stopped(self._stopping)
            patience = max(deadline - time.monotonic(), 1.0)
            try:
                if client.get("ssh") and (local is client or not is_open(local[TUNNEL])):
                    local = self._through_tunnel(client, patience)
                _see_that_it_answers(local, min(patience, TRY))
                return local
            except (Stopped, SettingError):
                raise
            except GriffinError as e:
                if time.monotonic() > deadline:
                    # Only `ssh` knows that a gateway does not forward.
                    why = "" if local is client else said(local[TUNNEL])
                    raise Unreachable(_told(client, f"{e} ssh says: {why}" if why else str(e))) from e
            self._stopping.wait(TICK)

    def _through_tunnel(self, client: Mapping[str, Any], patience: float) -> Mapping[str, Any]:
        """Return ``client`` with the ends of a new tunnel. Raises `GriffinError` where there is none."""
        self.drop_tunnel()
        local = local_end(client)
        self._opened = local[TUNNEL]
        self.tunnels = [*self.tunnels, self._opened]
        self._record()  # at once: it outlives a process that is killed
        open_tunnel(client, local, patience)
        return local

    def drop_tunnel(self) -> None:
        """End the tunnel that `attach` has opened, if any. Idempotent."""
        self._end([record for record in self.tunnels if record == self._opened])

    def keep_tunnel(self) -> None:
        """End the tunnels that were there before the one that `attach` has opened, if any. Idempotent."""
        self._end([record for record in self.tunnels if record != self._opened])

    def close_tunnels(self) -> None:
        """End all that this machine has to the controller, whichever process opened them. Idempotent."""
        self._end([*self.tunnels, self._tunnel_of_clients()])

    def _end(self, tunnels: list[Record]) -> None:
        for record in tunnels:
            close_tunnel(record)
        self.tunnels = [record for record in self.tunnels if record not in tunnels]

    def _tunnel_of_clients(self) -> Record:
        """Return the tunnel of this machine's clients, by their connection file: another process may have opened it since. "" for none."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            info = json.loads(Path(self.connection_files["client"]).read_text())
            if cluster_uid(info) == self.uid:
                return info.get(TUNNEL, "")  # type: ignore[no-any-return]
        return ""

    # --- connection files

    async def get_connection_info(self, timeout: float | None = None) -> Any:
        """Return what is in the connection files; where this machine has none, as the object store has them."""
        if self.uid and (self._lacks_files() or await in_thread(self._is_cut_off)):
            await in_thread(self._fetch)
        return await super().get_connection_info(timeout)  # type: ignore[misc]  # ipyparallel's

    def _lacks_files(self) -> bool:
        return not all(Path(path).exists() for path in self.connection_files.values())

    def _is_cut_off(self) -> bool:
        """Return whether clients of this machine go through a tunnel that is gone: it was rebooted, or is on another network."""
        record = self._tunnel_of_clients()
        return bool(record) and not is_open(record)

    def _fetch(self) -> None:
        """Attach this machine anew, with what the object store has. Blocking. Raises `GriffinError` where it has nothing."""
        client = self.server.client_file()
        newest = max((place.incarnation for place in self.server.newest_reports()), default=0)
        try:
            self.attach(self.server.connection_files(newest), client)
        except Unreachable as e:
            raise GriffinError(
                f"The controller of cluster {self.uid} runs on a server, but {e} `ipp-griffin connect` can say more."
            ) from e
        self.keep_tunnel()
        self._record()

    def _write(self, files: Files) -> None:
        """Write the connection files of this machine, for its user only."""
        Path(self.profile_dir, "log").mkdir(parents=True, exist_ok=True)  # ipcontroller makes it; local engines need it
        scratches = {Path(path): Path(f"{path}.{os.getpid()}") for path in self.connection_files.values()}
        try:
            for name, path in self.connection_files.items():
                write_private(scratches[Path(path)], json.dumps(files[name]))
            for to, scratch in scratches.items():
                scratch.replace(to)
        finally:
            for scratch in scratches.values():
                scratch.unlink(missing_ok=True)

    def remove_stale_files(self) -> None:
        """Remove the files of a controller that was killed: clients would be sent to it."""
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
    from ..controller.hub import Hub

    if why := why_unreachable(local):
        raise GriffinError(why)
    with Hub(local, timeout=patience):
        pass


def _told(client: Mapping[str, Any], why: str) -> str:
    address, port = address_of(client)
    through = f" through {client['ssh']}" if client.get("ssh") else ""
    return f"this machine does not reach it at {address} port {port}{through} ({why.rstrip('.')})."


def how_to_let_in(client: Mapping[str, Any]) -> str:
    """Return what to type where a cluster has no security groups of its own."""
    first, last = clients_way(client)[0][0]
    if not client.get(TO_SERVER):
        last = first + PORTS_NEEDED - 1  # those of engines are among them
    whose = "the gateway" if client.get("ssh") and not client.get(TO_SERVER) else "this machine"
    return (
        f"Let it in: `openstack security group rule create --ingress --protocol tcp --dst-port {first}:{last} --remote-ip ADDRESS/32 GROUP`, "
        f"with a security group of that server and the address that {whose} has for the cloud"
    )


def _is_network(text: str) -> bool:
    try:
        return bool(ipaddress.IPv4Network(text, strict=False))
    except ValueError:
        return False
