"""The private object that tells an agent how its engines find their controller. Pure.

It is what used to be copied by hand: ipcontroller-engine.json, put into the object store, with everything
else that engines need and that must not be in user-data. DESIGN: it never leaves the private container.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from .plan import SettingError

VERSION = 1


def cluster_uid(connection: Mapping[str, Any]) -> str:
    """Name of one run of one controller in the whole cloud project: 12 hexadecimal digits.

    Derived from what the engines' and the clients' connection file have in common, so that whoever holds
    either file can find the cluster's servers. The keys in it are random, so the hash tells nothing of them.
    """
    parts = [str(connection.get(k) or "") for k in ("key", "curve_serverkey", "location", "registration")]
    return hashlib.sha256(("ipp-griffin uid\0" + "\0".join(parts)).encode()).hexdigest()[:12]


def parse_connection(text: str, origin: str) -> dict[str, Any]:
    """The content of ipcontroller-engine.json. Raises `SettingError` naming ``origin`` where it is none."""
    try:
        connection = json.loads(text)
        if not connection["interface"].startswith("tcp://") or not int(connection["registration"]):
            raise ValueError("no tcp interface in it")
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise SettingError(f"{origin} is not an engine connection file of ipcontroller ({type(e).__name__}).") from e
    return dict(connection)


def controller_address(connection: Mapping[str, Any]) -> str:
    """The address that engines will connect to, as ipyparallel works it out from interface and location."""
    address = connection["interface"].partition("://")[2]
    if address in ("0.0.0.0", "*", "", "::"):
        return str(connection.get("location", ""))
    return str(address)


def controller_ports(connection: Mapping[str, Any]) -> tuple[int, int]:
    """The lowest and the highest of the ports that engines connect to."""
    names = ("registration", "control", "mux", "task", "iopub", "hb_ping", "hb_pong", "broadcast")
    given = [connection[name] for name in names if connection.get(name)]
    ports = [int(port) for one in given for port in (one if isinstance(one, list) else [one])]
    return min(ports), max(ports)


def build(
    connection: Mapping[str, Any],
    *,
    ipyparallel_version: str,
    ipengine_config: str = "",
    environment: Mapping[str, str] | None = None,
    engine_cmd: Iterable[str] = (),
    engine_args: Iterable[str] = (),
    engine_user: str = "ipp",
    engine_python: str = "",
    packages: Iterable[str] = (),
    pip_args: Iterable[str] = (),
    controller_timeout: float = 60,
    register_timeout: float = 120,
    controller_gone_timeout: float = 300,
    log_interval: float = 60,
    restarts: int = 5,
) -> bytes:
    """The object's bytes. Times in seconds; ``environment`` and ``ipengine_config`` may hold secrets."""
    return json.dumps(
        {
            "version": VERSION,
            "connection": dict(connection),
            "ipengine_config": ipengine_config,
            "environment": {k: v for k, v in (environment or {}).items() if k != "IPP_CONNECTION_INFO"},
            "engine_cmd": list(engine_cmd),
            "engine_args": list(engine_args),
            "ipyparallel": ipyparallel_version,
            "python": ".".join(platform.python_version_tuple()[:2]),
            "engine_user": engine_user,
            "engine_python": engine_python,
            "packages": list(packages),
            "pip_args": list(pip_args),
            "timeouts": {
                "controller": controller_timeout,
                "register": register_timeout,
                "controller_gone": controller_gone_timeout,
                "log_interval": log_interval,
            },
            "restarts": restarts,
        },
        sort_keys=True,
    ).encode()
