"""Addresses: of a connection file, of this machine, and whether one can be reached from here."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from .errors import GriffinError


def why_unreachable(info: Mapping[str, Any], timeout: float = 5) -> str:
    """Return why this machine can't connect to the controller of a client's connection file; "" if it can."""
    try:
        socket.create_connection(address_of(info), timeout=timeout).close()
    except (OSError, UnicodeError) as e:
        return str(getattr(e, "strerror", "") or e or type(e).__name__)
    return ""


def own_address(address: str) -> str:
    """Return the address that this machine uses to reach ``address``, as a CIDR with /32. Nothing is sent.

    Behind a router that translates addresses, the cloud sees another one. Raises `GriffinError` if there is no route.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return f"{probe.getsockname()[0]}/32"
    except OSError as e:
        raise GriffinError(f"This machine has no route to {address}: {e.strerror or e}.") from e


def address_of(info: Mapping[str, Any]) -> tuple[str, int]:
    """Return host and port of a connection file."""
    return str(info["interface"]).partition("://")[2], int(info["registration"])
