"""The private object: what this server runs, and the connection file or the controller's settings in it."""

import contextlib
import json
import re
import socket
import urllib.parse
from typing import Callable, List, Optional, Tuple

from .system import Json

CONNECT = 3.0  # seconds that one TCP connection may take

Connect = Callable[[str, int], str]


def parse_private_object(body: bytes) -> Json:
    """Return the private object, if ``body`` is one. Raises ValueError naming what is wrong (not its content)."""
    try:
        found = json.loads(body.decode())
        connection = None if "controller" in found else found["connection"]
        if found["version"] != 1:
            raise ValueError("its version is {!r}, this agent knows 1".format(found["version"]))
        if connection is not None and (
            not connection["interface"].startswith("tcp://") or int(connection["registration"]) < 1
        ):
            raise ValueError("no address or port in it")
        found["ipyparallel"] = str(found["ipyparallel"])
        found["environment"], found["timeouts"] = dict(found["environment"]), dict(found["timeouts"])
    except (KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"incomplete: {e}") from e
    except json.JSONDecodeError as e:
        raise ValueError(f"no JSON: {e.msg}") from e
    return dict(found)


def secrets_of(parameters: Json, private_object: Json) -> List[str]:
    """Return what no report and no line may show: keys, URL signatures, and environment values whose name says so."""
    connection = private_object.get("connection", {})
    secrets = [str(connection.get(k) or "") for k in ("key", "curve_serverkey")]
    secrets += [str(k) for k in private_object.get("controller", {}).get("keys", {}).values()]
    reports = parameters.get("reports", {})
    queries = [urllib.parse.urlsplit(u).query for u in list(reports.get("urls", {}).values())]
    queries += [urllib.parse.urlsplit(parameters.get("private_object", "")).query, reports.get("query", "")]
    for query in queries:
        secrets += [v for k, v in urllib.parse.parse_qsl(query) if k.lower().endswith(("sig", "signature"))]
    for name, value in private_object.get("environment", {}).items():
        if re.search("KEY|TOKEN|SECRET|PASS", name, re.I) and len(value) >= 6:
            secrets.append(value)
    return secrets


def controller_address(private_object: Json, hostname: str) -> str:
    """Return the controller's address: its own on its server, elsewhere as ipyparallel.util.disambiguate_ip_address has it."""
    if "controller" in private_object:
        return str(private_object["controller"]["address"])
    connection = private_object["connection"]
    address = str(connection["interface"].split("://", 1)[1])
    if address not in ("0.0.0.0", "*", ""):
        return address
    location = str(connection.get("location") or "")
    return location if location and location != hostname else "127.0.0.1"


def controller_ports(connection: Json) -> List[int]:
    """Return the registration port first, then all others that engines connect to: a firewall may block some of them."""
    ports = [connection["registration"]]
    for name in ("control", "mux", "task", "iopub", "notification", "hb_ping", "hb_pong", "broadcast"):
        port = connection.get(name, [])
        ports += port if isinstance(port, list) else [port]
    return [int(p) for p in ports]


def unreachable_port(connection: Json, address: str, connect: Connect) -> Optional[Tuple[int, str]]:
    """Return the first of the controller's ports that does not answer, and why; None if all do."""
    for port in controller_ports(connection):
        problem = connect(address, port)
        if problem:
            return port, problem
    return None


def connect_error(address: str, port: int) -> str:
    """Return why a TCP connection fails; "" if it doesn't."""
    try:
        socket.create_connection((address, port), timeout=CONNECT).close()
    except OSError as e:
        return e.strerror or str(e) or type(e).__name__
    return ""


def own_address(address: str) -> str:
    """Return this server's address as seen from there; connecting UDP sends nothing."""
    with contextlib.suppress(OSError), contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as s:
        s.connect((address, 9))
        return str(s.getsockname()[0])
    return "unknown"
