"""Choose the address and the ports of this machine that a controller listens on."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import random
import socket
from typing import TYPE_CHECKING

import psutil

from ..common.errors import SettingError
from ..model.plan import choose_network
from .arguments import port_range

if TYPE_CHECKING:
    from ..cloud.cloud import Cloud
    from ..model.plan import Network
    from .cloud_settings import GriffinCloud


def reachable_address(cloud: Cloud, settings: GriffinCloud) -> str:
    """Return the address of this machine that servers can reach: on their network, else the one used to reach the cloud. Blocking.

    If `GriffinCloud` names no network, engine sets may name theirs; then any network of the project that this machine is on is taken.
    Raises `SettingError` if there are several.
    """
    networks = settings.networks(cloud)
    if settings.network:
        servers_on = [choose_network(settings.network, networks)]
    else:
        servers_on = [network for network in networks if not network.external]
    found: dict[str, str] = {}
    for network in servers_on:
        if address := _address_on(network):
            found.setdefault(address, network.name or network.id)
    if len(found) > 1:
        raise SettingError(
            "This machine is on several networks of the project: "
            f"{', '.join((f'{a} on {n}' for a, n in found.items()))}. Set GriffinControllerLauncher.ip to the "
            "address that engines should connect to."
        )
    return next(iter(found), "") or cloud.local_address()


def _address_on(network: Network) -> str:
    """Return this machine's first IPv4 address on ``network``, "" if it has none."""
    subnets = [ipaddress.ip_network(s) for s in network.subnets]
    for addresses in psutil.net_if_addrs().values():
        for address in addresses:
            if address.family == socket.AF_INET and any(ipaddress.ip_address(address.address) in s for s in subnets):
                return str(address.address)
    return ""


def check_address(address: str) -> None:
    """Raise `SettingError` if this machine does not have the address."""
    if address in ("*", "0.0.0.0", "localhost"):
        return
    with socket.socket() as s:
        try:
            s.bind((address, 0))
        except OSError as e:
            raise SettingError(
                f"The controller can't listen on {address} ({e.strerror or e}): it must be an address of this machine. "
                "Set GriffinControllerLauncher.ip."
            ) from e


def free_ports(ports: str, count: int, address: str) -> tuple[int, socket.socket]:
    """Return the first of ``count`` consecutive free ports of the range "FIRST-LAST", and a reservation of them.

    Close the reservation when the ports are in use. It keeps a cluster that starts on this machine at the same time from choosing the
    same ports: it is a UDP socket on the number of the first port.
    """
    first, last = port_range(ports, count, "GriffinControllerLauncher.ports")
    blocks = list(range(first, last - count + 2, count))
    start = random.randrange(len(blocks))
    for block in blocks[start:] + blocks[:start]:
        reservation = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError):
            reservation.bind(("127.0.0.1", block))
            if all(_is_free(address, port) for port in range(block, block + count)):
                return block, reservation
        reservation.close()
    raise SettingError(
        f"Of the ports {ports}, no {count} in a row are free. Stop a cluster, or set "
        "GriffinControllerLauncher.ports to another range."
    )


def _is_free(address: str, port: int) -> bool:
    for host in {"127.0.0.1", address if address not in ("*", "localhost") else "0.0.0.0"}:
        with socket.socket() as s:
            # As ZeroMQ binds: connections of a killed controller in TIME_WAIT don't matter.
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((host, port))
            except PermissionError:
                return False
            except OSError as e:
                if e.errno == errno.EADDRINUSE:
                    return False
    return True
