"""The server of a cluster that runs its controller, and how clients reach it. Blocking; no traits, no loop.

It counts as an engine set of one server, named `CONTROLLER`, so that whatever looks for a cluster's servers finds it. Its agent hands both
connection files over through the object store, where only it can write them, and only the project's members can read them.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..cloud.failures import CloudError
from ..controller.heartbeats import MARK
from ..controller.ssh_tunnel import TO_SERVER
from ..model.connection import cluster_uid, ports_of
from ..model.plan import GriffinError
from .engine_set import EngineSet

if TYPE_CHECKING:
    from ..cloud.cloud import Cloud
    from ..cloud.store.store import Store

CONTROLLER = "controller"  # those of engine sets are random
HANDOVER = "handover"  # the object's name, below the server's place
CLIENT = "client.json"
SSH_PORT = 22
FILE_LIMIT = 1 << 16  # bytes of connection files

Json = dict[str, Any]


class ControllerServer(EngineSet):
    """The controller's server, whatever its incarnation. All methods block; each may raise `cloud.CloudError`."""

    more_objects = (HANDOVER,)

    def __init__(self, cloud: Cloud, store: Store, uid: str) -> None:
        super().__init__(cloud, store, uid, CONTROLLER)

    def connection_files(self, incarnation: int) -> dict[str, Json]:
        """What ipcontroller wrote: {"engine": ..., "client": ...}. Raises `GriffinError` where that is not this cluster's."""
        body = self.store.get(self.uid, f"{self.prefix}0.{incarnation}/{HANDOVER}", FILE_LIMIT)
        try:
            files = {name: dict(info) for name, info in json.loads(body).items()}
            uids = {cluster_uid(files[name]) for name in ("engine", "client")}
        except (ValueError, TypeError, KeyError, AttributeError):
            uids = set()
        if uids != {self.uid}:
            raise GriffinError("What the controller's server handed over are no connection files of this cluster.")
        files["engine"][MARK] = True
        return files

    def publish_client_file(self, info: Json) -> None:
        """Keep the connection file of clients, for other machines of theirs; no server can write it."""
        self.store.put(self.uid, f"{self.prefix}{CLIENT}", json.dumps(info).encode())

    def client_file(self) -> Json:
        """What `publish_client_file` kept. Raises `GriffinError` where there is none of this cluster."""
        try:
            info = json.loads(self.store.get(self.uid, f"{self.prefix}{CLIENT}", FILE_LIMIT))
            if cluster_uid(info) == self.uid and address_of(info)[0] and ports_of(info):
                return dict(info)
        except CloudError as error:
            if error.status != 404:
                raise
        except (ValueError, TypeError, KeyError, AttributeError):
            pass
        raise GriffinError(
            f"The connection file of cluster {self.uid} is not in the object store: its controller runs on no server of the cloud, or "
            "has not started yet."
        )


def client_view(info: Mapping[str, Any], address: str, ssh_server: str) -> Json:
    """The connection file for clients, wherever they are: they reach the controller at ``address``, or through a gateway that does. Pure.

    Where it names a gateway, each machine needs a tunnel: see `ssh`.
    """
    if ssh_server.endswith("@"):
        return {**info, "ssh": f"{ssh_server}{address}", TO_SERVER: True}  # and there to its own address
    if ssh_server:
        return {**info, "ssh": ssh_server}
    return {**info, "ssh": "", "interface": f"tcp://{address}", "location": address}


def port_ranges(ports: set[int]) -> list[tuple[int, int]]:
    """As few ranges, first and last, as hold exactly these ports. Pure."""
    ranges: list[tuple[int, int]] = []
    for port in sorted(ports):
        if ranges and ranges[-1][1] == port - 1:
            ranges[-1] = ranges[-1][0], port
        else:
            ranges.append((port, port))
    return ranges


def clients_way(info: Mapping[str, Any]) -> tuple[list[tuple[int, int]], str]:
    """What a controller's security group lets clients in to: ranges of ports, and the address that these are of, as clients see it.

    ``info``: their connection file as `client_view` made it. With a gateway, it is that that is let in. Pure.
    """
    if info.get(TO_SERVER):
        return [(SSH_PORT, SSH_PORT)], str(info["ssh"]).rpartition("@")[2]
    return port_ranges(ports_of(info)), address_of(info)[0]


def why_unreachable(info: Mapping[str, Any], timeout: float = 5) -> str:
    """Why this machine can't connect to the controller of a client's connection file; "" if it can."""
    try:
        socket.create_connection(address_of(info), timeout=timeout).close()
    except (OSError, UnicodeError) as e:
        return str(getattr(e, "strerror", "") or e or type(e).__name__)
    return ""


def own_address(address: str) -> str:
    """This machine's address on its way there, as a CIDR of one; the cloud sees another one behind a router that translates. Pure but
    for the routing table: nothing is sent. Raises `GriffinError` where there is no way."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return f"{probe.getsockname()[0]}/32"
    except OSError as e:
        raise GriffinError(f"This machine has no way to {address}: {e.strerror or e}.") from e


def address_of(info: Mapping[str, Any]) -> tuple[str, int]:
    """Host and port of a connection file."""
    return str(info["interface"]).partition("://")[2], int(info["registration"])
