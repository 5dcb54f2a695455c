"""Admit engines to the controller: make the cluster's own security groups, or print the rule for the user to add."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import psutil

from ..common.errors import GriffinError
from ..model.connection import controller_address, controller_ports

if TYPE_CHECKING:
    from ..cloud.cloud import Cloud
    from ..model.plan import Network

UNREACHABLE = "controller port unreachable"  # the text that agents report


def admit_engines(cloud: Cloud, uid: str, connection: Mapping[str, Any], network: Network, log: Any) -> str:
    """Make the cluster's missing security groups; return the id of the one for its servers. Blocking.

    Raises `CloudError` if Neutron refuses.
    """
    address, ports = controller_address(connection), controller_ports(connection)
    head = cloud.ports.head(address, _macs(address))
    engines = cloud.groups.make(uid, head, ports)
    if head is None and cloud.groups.has_controller(uid):  # it runs on a server of its own
        log.info(
            f"The servers are in security group {engines.name}, the only one that the controller's group "
            "admits to the engines' ports."
        )
    elif head is None:
        log.info(
            f"The servers are in security group {engines.name}, which admits nothing. This machine is not a "
            f"server of the project, so its firewall must admit TCP {ports[0]}-{ports[1]} from "
            f"{', '.join(network.subnets)}."
        )
    else:
        log.info(
            f"Security group {engines.name}, and no other, is admitted to TCP {ports[0]}-{ports[1]} of this machine."
        )
    return engines.id


def admitting_rule(cloud: Cloud, connection: Mapping[str, Any], network: Network) -> str:
    """Return the command that admits engines to the controller. Blocking; asks Neutron for this machine's group, if it is a server."""
    address, (first, last) = controller_address(connection), controller_ports(connection)
    group, whose = "GROUP", ", where GROUP is a security group of this machine (or a similar rule in its firewall)"
    with contextlib.suppress(GriffinError):  # the rule helps without the group's name, too
        head, server = cloud.ports.head(address, _macs(address)), cloud.ports.of_server_at(address)
        if head is not None and head.groups:
            group, whose = head.groups[0], ", which changes a security group of this machine"
        elif server is not None and server.groups:
            group, whose = server.groups[0], ", which changes a security group of the controller's server"
    rules = " and ".join(
        f"`openstack security group rule create --ingress --protocol tcp --dst-port {first}:{last} --remote-ip {subnet} {group}`"
        for subnet in network.subnets
    )
    text = f"Admit engines to the controller: {rules}{whose}; or set GriffinCloud.manage_security_group = True."
    if not _is_on(address, network):
        text += f" If {address} is on another network, network {network.name or network.id!r} needs a router to it."
    return text


def _is_on(address: str, network: Network) -> bool:
    """Return whether ``address`` is in ``network``; True for a host name, which is not resolved."""
    try:
        return any(ipaddress.ip_address(address) in ipaddress.ip_network(subnet) for subnet in network.subnets)
    except ValueError:
        return True


def _macs(address: str) -> list[str]:
    """Return the MAC addresses of this machine's interfaces that have this IPv4 address."""
    return [
        one.address
        for addresses in psutil.net_if_addrs().values()
        if any(a.family == socket.AF_INET and a.address == address for a in addresses)
        for one in addresses
        if one.family == psutil.AF_LINK
    ]
