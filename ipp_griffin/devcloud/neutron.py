"""Networks, ports and security groups: https://docs.openstack.org/api-ref/network/v2/

Security groups are kept, and shown. They hold nothing up between servers, which are processes of this machine; only what comes in by a
floating IP goes by their rules, see `forwarding`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from ipaddress import IPv4Network, ip_network
from typing import Any

from .api import ApiError, Call, Reply, Routes, fits, page
from .nova_servers import mac
from .things import (
    EPOCH,
    NETWORK_ID,
    PUBLIC,
    PUBLIC_ID,
    PUBLIC_SUBNET_ID,
    SUBNET_ID,
    Network,
    Port,
    SecurityGroup,
    Server,
    iso,
    stable_id,
)

routes = Routes()


def render(call: Call, error: ApiError) -> Reply:
    if error.status == 401:
        body: dict[str, Any] = {"error": {"code": 401, "title": "Unauthorized", "message": error.message}}
        return Reply(401, body, {"WWW-Authenticate": f'Keystone uri="{call.url}/identity"'})
    kind = error.kind or {404: "HTTPNotFound", 400: "HTTPBadRequest"}.get(error.status, "HTTPError")
    return Reply(error.status, {"NeutronError": {"type": kind, "message": error.message, "detail": ""}})


def common(name: str, thing_id: str, project_id: str, created: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    body = {"id": thing_id, "name": name, "description": "", "tags": [], "created_at": created, "updated_at": created}
    return {**body, "project_id": project_id, "tenant_id": project_id, "revision_number": 1}


_ADMIN = stable_id("project", "admin").replace("-", "")  # whose the external network is; nobody logs in there


def _networks(call: Call) -> list[dict[str, Any]]:
    """Return those of servers, and the external one, which each project sees."""
    public = _network(Network(PUBLIC_ID, PUBLIC, None, EPOCH, PUBLIC_SUBNET_ID), _ADMIN)
    ours = [_network(network, call.auth.project.id) for network in call.state.networks_of(call.auth.project)]
    return [*ours, {**public, "router:external": True, "is_default": False}]


def _network(network: Network, project_id: str) -> dict[str, Any]:
    return {
        **common(network.name, network.id, project_id, iso(network.created)),
        "admin_state_up": True,
        "status": "ACTIVE",
        "mtu": 1500,
        "subnets": [network.subnet_id] if network.subnet_id else [],
        "shared": False,
        "router:external": False,
        "port_security_enabled": True,
        "availability_zones": [],
        "availability_zone_hints": [],
    }


def _subnets(call: Call) -> list[dict[str, Any]]:
    """That of the external network, too, as Neutron of 2024 and later shows it."""
    external = Network(PUBLIC_ID, PUBLIC, None, EPOCH, PUBLIC_SUBNET_ID, f"{PUBLIC}-subnet", call.state.public)
    ours = [
        _subnet(network, call.auth.project.id) for network in call.state.networks_of(call.auth.project) if network.cidr
    ]
    return [*ours, {**_subnet(external, _ADMIN), "enable_dhcp": False, "router:external": True}]


def _subnet(network: Network, project_id: str) -> dict[str, Any]:
    subnet = network.cidr
    assert subnet
    return {
        **common(network.subnet_name, network.subnet_id, project_id, iso(network.created)),
        "network_id": network.id,
        "ip_version": 4,
        "cidr": str(subnet),
        "gateway_ip": str(subnet.network_address + 1),
        "allocation_pools": [{"start": str(subnet.network_address + 10), "end": str(subnet.broadcast_address - 1)}],
        "enable_dhcp": True,
        "dns_nameservers": [],
        "host_routes": [],
        "subnetpool_id": None,
        "router:external": False,
    }


@routes("POST", "/network/v2.0/networks")
def create_network(call: Call) -> Reply:
    given = call.json().get("network") or {}
    made = call.state.create_network(call.auth.project, str(given.get("name", "")))
    return Reply(201, {"network": _network(made, call.auth.project.id)})


@routes("POST", "/network/v2.0/subnets")
def create_subnet(call: Call) -> Reply:
    """Create a subnet. A network has at most one here, of this machine's loopback addresses, where servers can be reached."""
    given = call.json().get("subnet") or {}
    network = _find_network(call, given.get("network_id"))
    try:
        cidr = IPv4Network(given.get("cidr"))
        if not cidr.is_loopback or cidr.num_addresses < 64:
            raise ValueError("the dev cloud has subnets of 127.0.0.0/8 only, of 64 addresses at least")
    except (ValueError, TypeError) as e:
        raise ApiError(400, f"Invalid input for cidr. Reason: {e}.", "HTTPBadRequest") from None
    taken = [one.cidr for one in call.state.networks.values() if one.cidr] + [call.state.public]
    if network.cidr or any(cidr.overlaps(other) for other in taken):
        why = f"Requested subnet with cidr: {cidr} for network: {network.id} overlaps with another subnet"
        raise ApiError(400, f"Invalid input for operation: {why}.", "InvalidInput")
    network.subnet_id, network.subnet_name, network.cidr = str(uuid.uuid4()), str(given.get("name", "")), cidr
    return Reply(201, {"subnet": _subnet(network, call.auth.project.id)})


@routes("DELETE", "/network/v2.0/networks/{}")
def delete_network(call: Call, thing_id: str) -> Reply:
    network = _find_network(call, thing_id)
    if any(server.network is network for server in call.state.servers.values()):
        why = f"Unable to complete operation on network {thing_id}. There are one or more ports still in use on the network."
        raise ApiError(409, why, "NetworkInUse")
    del call.state.networks[network.id]
    return Reply(204)


def _find_network(call: Call, thing_id: str | None) -> Network:
    """One that a user of this project made."""
    found = call.state.networks.get(thing_id or "")
    if found is None or found.project is not call.auth.project:
        raise ApiError(404, f"Network {thing_id} could not be found.", "NetworkNotFound")
    return found


# Security groups and their rules


def _group(group: SecurityGroup) -> dict[str, Any]:
    return {
        **common(group.name, group.id, group.project.id, iso(group.created)),
        "description": group.description,
        "stateful": True,
        "shared": False,
        "security_group_rules": [_rule(group, rule_id) for rule_id in group.rules],
        "revision_number": group.revision,
    }


def _rule(group: SecurityGroup, rule_id: str) -> dict[str, Any]:
    body = {**common("", rule_id, group.project.id, iso(group.created)), "security_group_id": group.id}
    del body["name"]
    return {
        **body,
        **dict.fromkeys(("protocol", "port_range_min", "port_range_max", "remote_ip_prefix", "remote_group_id")),
        "description": None,
        "revision_number": 0,
        **group.rules[rule_id],
    }


def _find_group(call: Call, group_id: str) -> SecurityGroup:
    for group in call.state.security_groups_of(call.auth.project):
        if group.id == group_id:
            return group
    raise ApiError(404, f"Security group {group_id} does not exist", "SecurityGroupNotFound")


@routes("POST", "/network/v2.0/security-groups")
def create_group(call: Call) -> Reply:
    given = call.json().get("security_group") or {}
    for name in ("name", "description"):
        text = given.get(name, "")
        if len(text) > 255:
            raise ApiError(
                400, f"Invalid input for {name}. Reason: '{text}' exceeds maximum length of 255.", "HTTPBadRequest"
            )
    known = call.state.security_groups_of(call.auth.project)
    if given.get("name") == "default":
        raise ApiError(409, "Default security group already exists.", "SecurityGroupDefaultAlreadyExists")
    if len(known) >= call.auth.project.quota_security_groups:
        raise ApiError(409, "Quota exceeded for resources: ['security_group'].", "OverQuota")
    made = call.state.create_security_group(
        call.auth.project, str(given.get("name", "")), str(given.get("description", ""))
    )
    return Reply(201, {"security_group": _group(made)})


@routes("DELETE", "/network/v2.0/security-groups/{}")
def delete_group(call: Call, group_id: str) -> Reply:
    group = _find_group(call, group_id)
    used = any(group_id in server.security_groups for server in call.state.servers.values())
    if used or any(group_id in port.security_groups for port in call.state.ports.values()):
        raise ApiError(409, f"Security Group {group_id} in use.", "SecurityGroupInUse")
    if group.is_default:
        raise ApiError(
            409, "Insufficient rights for removing default security group.", "SecurityGroupCannotRemoveDefault"
        )
    call.state.delete_security_group(group)
    return Reply(204)


@routes("POST", "/network/v2.0/security-group-rules")
def create_rule(call: Call) -> Reply:
    given = dict(call.json().get("security_group_rule") or {})
    if remote := given.get("remote_group_id"):
        _find_group(call, remote)
    group = _find_group(call, str(given.pop("security_group_id", "")))
    for rule_id, rule in group.rules.items():
        if {**rule, "description": None} == {**given, "description": None}:
            why = f"Security group rule already exists. Rule id is {rule_id}."
            raise ApiError(409, why, "SecurityGroupRuleExists")
    prefix = given.get("remote_ip_prefix")
    try:
        ip_network(prefix or "0.0.0.0/0", strict=False)
    except ValueError:
        raise ApiError(400, f"Invalid CIDR {prefix} given as IP prefix.", "InvalidCIDR") from None
    rule_id = str(uuid.uuid4())
    group.rules[rule_id] = {"description": "", **given}
    group.revision += 1
    made = _rule(group, rule_id)
    del made["tags"]
    return Reply(201, {"security_group_rule": made})


@routes("DELETE", "/network/v2.0/security-group-rules/{}")
def delete_rule(call: Call, rule_id: str) -> Reply:
    for group in call.state.security_groups_of(call.auth.project):
        if group.rules.pop(rule_id, None) is not None:
            group.revision += 1
            return Reply(204)
    raise ApiError(404, f"Security group rule {rule_id} does not exist", "SecurityGroupRuleNotFound")


# Ports: those of servers, and those that users made


def _server_port(server: Server) -> dict[str, Any]:
    return {
        **common("", server.port_id, server.project.id, iso(server.launched or server.created)),
        "network_id": server.network.id if server.network else "",
        "mac_address": mac(server),
        "admin_state_up": True,
        "status": "ACTIVE",
        "device_id": server.id,
        "device_owner": "compute:nova",
        "fixed_ips": [{"subnet_id": server.network.subnet_id if server.network else "", "ip_address": server.address}],
        "security_groups": server.security_groups,
        "binding:vnic_type": "normal",
        "port_security_enabled": True,
    }


def _user_port(port: Port) -> dict[str, Any]:
    return {
        **common(port.name, port.id, port.project.id, iso(port.created)),
        "network_id": NETWORK_ID,
        "mac_address": port.mac,
        "admin_state_up": True,
        "status": "DOWN",
        "device_id": port.device_id,
        "device_owner": port.device_owner,
        "fixed_ips": [{"subnet_id": SUBNET_ID, "ip_address": port.address}],
        "security_groups": port.security_groups,
        "binding:vnic_type": "normal",
        "port_security_enabled": True,
        "revision_number": port.revision,
    }


def _ports(call: Call) -> list[dict[str, Any]]:
    project = call.auth.project
    made = [_user_port(port) for port in call.state.ports.values() if port.project is project]
    return [_server_port(server) for server in call.state.of_project(project) if server.address] + made


def _find_port(call: Call, thing_id: str) -> Port:
    port = call.state.ports.get(thing_id)
    if port is None or port.project is not call.auth.project:
        raise ApiError(404, f"Port {thing_id} could not be found.", "PortNotFound")
    return port


@routes("POST", "/network/v2.0/ports")
def create_port(call: Call) -> Reply:
    given = call.json().get("port") or {}
    if given.get("network_id") != NETWORK_ID:
        raise ApiError(404, f"Network {given.get('network_id')} could not be found.", "NetworkNotFound")
    fixed = (given.get("fixed_ips") or [{}])[0].get("ip_address")
    made = call.state.create_port(
        call.auth.project,
        name=given.get("name", ""),
        mac=given.get("mac_address"),
        address=fixed,
        device=(given.get("device_owner", ""), given.get("device_id", "")),
    )
    return Reply(201, {"port": _user_port(made)})


def check_revision(call: Call, revision: int) -> None:
    """Raise `ApiError` 412 where ``If-Match`` says that the caller has seen another one."""
    wanted = re.fullmatch(r"revision_number=(\d+)", call.headers.get("If-Match", f"revision_number={revision}"))
    if wanted is None or int(wanted[1]) != revision:
        why = f"Constrained to {wanted[1] if wanted else 'none'}, but current revision is {revision}"
        raise ApiError(412, why, "RevisionNumberConstraintFailed")


@routes("PUT", "/network/v2.0/ports/{}")
def update_port(call: Call, thing_id: str) -> Reply:
    """Of a port that a user made, its security groups."""
    port = _find_port(call, thing_id)
    check_revision(call, port.revision)
    groups = (call.json().get("port") or {}).get("security_groups", port.security_groups)
    for group_id in groups:
        _find_group(call, group_id)
    port.security_groups = list(groups)
    port.revision += 1
    return Reply(200, {"port": _user_port(port)})


@routes("DELETE", "/network/v2.0/ports/{}")
def delete_port(call: Call, thing_id: str) -> Reply:
    """Delete a port. Those of servers only an administrator may delete, as in Neutron of 2025 and later."""
    owners = {server.port_id: "compute:nova" for server in call.state.of_project(call.auth.project)}
    port = call.state.ports.get(thing_id)
    owner = port.device_owner if port else owners.get(thing_id, "")
    if owner.startswith("compute:"):
        raise ApiError(403, "rule:delete_port is disallowed by policy", "PolicyNotAuthorized")
    call.state.delete_port(_find_port(call, thing_id))
    return Reply(204)


# Listings


def _none(call: Call) -> list[dict[str, Any]]:
    return []


# Each: everything of one kind that the caller sees. What is made elsewhere adds its own.
KINDS: dict[str, Callable[[Call], list[dict[str, Any]]]] = {
    "networks": _networks,
    "subnets": _subnets,
    "security-groups": lambda call: [_group(group) for group in call.state.security_groups_of(call.auth.project)],
    "ports": _ports,
    **dict.fromkeys(("routers", "security-group-rules", "availability_zones", "extensions"), _none),
}


def _collection(call: Call, name: str) -> list[dict[str, Any]]:
    """Raises `ApiError` 404 for a kind that isn't kept here."""
    if name not in KINDS:
        raise ApiError(404, f"The dev cloud has no route {call.method} {call.path}")
    return KINDS[name](call)


@routes("GET", "/network", public=True)
def network_versions(call: Call) -> Reply:
    links = [{"rel": "self", "href": f"{call.url}/network/v2.0/"}]
    return Reply(200, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": links}]})


@routes("GET", "/network/v2.0/{}")
def network_list(call: Call, kind: str) -> Reply:
    found = [body for body in _collection(call, kind) if fits(call, body)]
    part, more = page(call, found, lambda body: str(body["id"]))
    key = kind.replace("-", "_")
    body: dict[str, Any] = {key: part}
    if more:
        body[f"{key}_links"] = [{"rel": "next", "href": f"{call.url}{call.path}?{more}"}]
    return Reply(200, body)


@routes("GET", "/network/v2.0/{}/{}")
def network_show(call: Call, kind: str, thing_id: str) -> Reply:
    singular = kind.removesuffix("s").replace("-", "_")
    for body in _collection(call, kind):
        if body["id"] == thing_id:
            return Reply(200, {singular: body})
    if kind == "floatingips":
        raise ApiError(404, f"Floating IP {thing_id} could not be found", "FloatingIPNotFound")
    name = "".join(word.capitalize() for word in singular.split("_"))
    raise ApiError(404, f"{name} {thing_id} could not be found.", f"{name}NotFound")
