"""Connection files: read them, find the cluster's uid in them, and build the private object that agents fetch. Pure.

The private object is ipcontroller-engine.json with everything else that engines need and that must not be in user-data. It never leaves
the private container.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import platform
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..common.errors import SettingError
from ..common.net import address_of

VERSION = 1


def cluster_uid(connection: Mapping[str, Any]) -> str:
    """Return the name of one run of one controller in the whole cloud project: 12 hexadecimal digits.

    Derived from what the engines' and the clients' connection files have in common, so that the cluster's servers can be found with
    either file. Keys are random and new in every run, so the hash reveals nothing and is unique. If a user has switched both keys off,
    location and port are used.
    """
    keys = [str(connection.get(name) or "") for name in ("key", "curve_serverkey")]
    parts = keys if any(keys) else [str(connection.get(name) or "") for name in ("location", "registration")]
    return hashlib.sha256(("ipp-griffin uid\0" + "\0".join(parts)).encode()).hexdigest()[:12]


def parse_connection(text: str, origin: str) -> dict[str, Any]:
    """Return the content of ipcontroller-engine.json. Raises `SettingError` naming ``origin`` if ``text`` is not one."""
    try:
        connection = json.loads(text)
        if not connection["interface"].startswith("tcp://") or not int(connection["registration"]):
            raise ValueError("no tcp interface in it")
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise SettingError(f"{origin} is not an engine connection file of ipcontroller ({type(e).__name__}).") from e
    return dict(connection)


def controller_address(connection: Mapping[str, Any]) -> str:
    """Return the address that engines will connect to, from interface and location as ipyparallel does."""
    address = connection["interface"].partition("://")[2]
    if address in ("0.0.0.0", "*", "", "::"):
        return str(connection.get("location", ""))
    return str(address)


def controller_ports(connection: Mapping[str, Any]) -> tuple[int, int]:
    """Return the lowest and the highest of the ports that engines connect to."""
    ports = ports_of(connection)
    return min(ports), max(ports)


def ports_of(connection: Mapping[str, Any]) -> set[int]:
    """Return the ports of a connection file, of engines or of clients."""
    names = ("registration", "control", "mux", "task", "iopub", "notification", "hb_ping", "hb_pong", "broadcast")
    given = [connection[name] for name in names if connection.get(name)]
    return {int(port) for one in given for port in (one if isinstance(one, list) else [one])}


@dataclass(frozen=True)
class ControllerKeys:
    """The keys of one controller. They are made by its launcher, because a controller on a server must come back with the same keys.

    ``session`` signs messages; whoever has ``curve_public`` is admitted. All three are secrets.
    """

    session: str = field(repr=False)
    curve_public: str = field(repr=False)
    curve_secret: str = field(repr=False)

    @classmethod
    def make(cls) -> ControllerKeys:
        import zmq

        public, secret = zmq.curve_keypair()
        return cls(secrets.token_hex(32), public.decode(), secret.decode())

    @property
    def uid(self) -> str:
        """Return the cluster's uid, as `cluster_uid` finds it in the controller's connection files."""
        return cluster_uid({"key": self.session, "curve_serverkey": self.curve_public})


def build(
    connection: Mapping[str, Any],
    *,
    ipengine_config: str = "",
    engine_args: Iterable[str] = (),
    controller_timeout: float = 60,
    register_timeout: float = 120,
    **common: Any,
) -> bytes:
    """Return the object's bytes, for a server of engines. Times in seconds; ``common``: as `_common` takes it, where
    ``environment`` and ``ipengine_config`` may hold secrets.
    """
    private_object = _common(**common)
    private_object["timeouts"].update(controller=controller_timeout, register=register_timeout)
    private_object.update(connection=dict(connection), ipengine_config=ipengine_config, engine_args=list(engine_args))
    return json.dumps(private_object, sort_keys=True).encode()


def build_for_controller(
    keys: ControllerKeys,
    *,
    server: str,
    address: str,
    ports: str,
    args: Iterable[str] = (),
    ipcontroller_config: str = "",
    controller_timeout: float = 60,
    idle_timeout: float = 0,
    **common: Any,
) -> bytes:
    """Return the same for the controller's server. ``server``: its name; ``address``: its own, which engines connect to; ``ports``:
    FIRST-LAST. An agent on a server of another name (replaced, or its successor) keeps asking until the object names it."""
    private_object = _common(**common)
    private_object["timeouts"].update(controller=controller_timeout, idle=idle_timeout)
    private_object["controller"] = {
        "server": server,
        "address": address,
        "ports": ports,
        "keys": asdict(keys),
        "args": list(args),
        "config": ipcontroller_config,
    }
    return json.dumps(private_object, sort_keys=True).encode()


def _common(
    *,
    ipyparallel_version: str,
    environment: Mapping[str, str] | None = None,
    engine_cmd: Iterable[str] = (),
    engine_user: str = "ipp",
    engine_python: str = "",
    packages: Iterable[str] = (),
    pip_args: Iterable[str] = (),
    controller_gone_timeout: float = 300,
    log_interval: float = 60,
    restarts: int = 5,
) -> dict[str, Any]:
    """Return the part that every agent gets. ``engine_cmd``, ``engine_user`` and ``engine_python`` also apply to an agent that runs the
    controller."""
    return {
        "version": VERSION,
        "environment": {k: v for k, v in (environment or {}).items() if k != "IPP_CONNECTION_INFO"},
        "engine_cmd": list(engine_cmd),
        "ipyparallel": ipyparallel_version,
        "python": ".".join(platform.python_version_tuple()[:2]),
        "engine_user": engine_user,
        "engine_python": engine_python,
        "packages": list(packages),
        "pip_args": list(pip_args),
        "timeouts": {"controller_gone": controller_gone_timeout, "log_interval": log_interval},
        "restarts": restarts,
    }


def unreachable_from(address: str, subnets: Iterable[str]) -> bool:
    """Return whether servers on ``subnets`` can't reach ``address`` because it is this machine's loopback.

    A loopback address is reachable only from servers on this very machine, whose subnets are loopback, too. A host name or any other
    address counts as reachable.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address == "localhost" and not any(ipaddress.ip_network(s).is_loopback for s in subnets)
    return parsed.is_loopback and not any(ipaddress.ip_network(s).is_loopback for s in subnets)


SSH_PORT = 22

Json = dict[str, Any]


def client_view(info: Mapping[str, Any], address: str, ssh_server: str) -> Json:
    """Return the connection file for clients on any machine, which reach the controller at ``address``, or through a gateway. Pure.

    If it names a gateway, each machine needs a tunnel: see `controller.ssh_tunnel`.
    """
    if ssh_server.endswith("@"):
        return {**info, "ssh": f"{ssh_server}{address}", TO_SERVER: True}  # and there to its own address
    if ssh_server:
        return {**info, "ssh": ssh_server}
    return {**info, "ssh": "", "interface": f"tcp://{address}", "location": address}


def port_ranges(ports: set[int]) -> list[tuple[int, int]]:
    """Return the fewest ranges (first, last) that hold exactly these ports. Pure."""
    ranges: list[tuple[int, int]] = []
    for port in sorted(ports):
        if ranges and ranges[-1][1] == port - 1:
            ranges[-1] = ranges[-1][0], port
        else:
            ranges.append((port, port))
    return ranges


def clients_way(info: Mapping[str, Any]) -> tuple[list[tuple[int, int]], str]:
    """Return what a controller's security group must open to clients: ranges of ports, and the address that clients use for them.

    ``info``: the clients' connection file as `client_view` made it. With a gateway, the gateway is admitted. Pure.
    """
    if info.get(TO_SERVER):
        return [(SSH_PORT, SSH_PORT)], str(info["ssh"]).rpartition("@")[2]
    return port_ranges(ports_of(info)), address_of(info)[0]


TO_SERVER = "ssh_to_server"  # in a client's connection file beside "ssh": that is the controller's own server

TUNNEL = "tunnel"  # in a client's connection file of a machine that has a tunnel: see `controller.ssh_tunnel.Record`

MARK = "griffin_heartbeats"  # in the engines' connection file, where the controller has them
