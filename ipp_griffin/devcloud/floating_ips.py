"""Neutron's floating IPs: https://docs.openstack.org/api-ref/network/v2/#floating-ips-floatingips; texts as seen from Neutron 29.

`forwarding` lets connections through.
"""

from __future__ import annotations

import uuid
from typing import Any

from .api import ApiError, Call, Reply
from .neutron import KINDS, check_revision, common, routes
from .things import NETWORK_ID, PUBLIC_ID, ROUTER_ID, FloatingIp, iso

__all__ = ["routes"]


def _floating_ip(call: Call, floating: FloatingIp) -> dict[str, Any]:
    port = _port(call, floating.port_id)
    body = common("", floating.id, floating.project.id, iso(floating.created))
    del body["name"]
    details = ("name", "network_id", "mac_address", "admin_state_up", "status", "device_id", "device_owner")
    return {
        **body,
        "description": floating.description,
        "floating_ip_address": floating.address,
        "floating_network_id": PUBLIC_ID,
        "router_id": ROUTER_ID if port else None,
        "port_id": port["id"] if port else None,
        "fixed_ip_address": port["fixed_ips"][0]["ip_address"] if port else None,
        "status": "ACTIVE" if port else "DOWN",
        "port_details": {name: port[name] for name in details} if port else None,
        "updated_at": iso(floating.updated),
        "revision_number": floating.revision,
    }


def _port(call: Call, port_id: str) -> dict[str, Any] | None:
    """Of a server or of a user of the caller's project."""
    return next((port for port in KINDS["ports"](call) if port["id"] == port_id), None)


def _find(call: Call, thing_id: str) -> FloatingIp:
    floating = call.state.floating_ips.get(thing_id)
    if floating is None or floating.project is not call.auth.project:
        raise ApiError(404, f"Floating IP {thing_id} could not be found", "FloatingIPNotFound")
    return floating


def _bad(why: str) -> ApiError:
    return ApiError(400, f"Bad floatingip request: {why}.", "BadRequest")


def _check(given: dict[str, Any], known: set[str]) -> None:
    """Names, types and lengths."""
    if unknown := given.keys() - known:
        raise ApiError(400, f"Unrecognized attribute(s) '{', '.join(sorted(unknown))}'", "HTTPBadRequest")
    for name in ("floating_network_id", "port_id"):
        value = given.get(name)
        if value is None and (name not in given or name == "port_id"):
            continue
        try:
            uuid.UUID(value)
        except (ValueError, TypeError, AttributeError):
            why = f"Invalid input for {name}. Reason: '{value}' is not a valid UUID."
            raise ApiError(400, why, "HTTPBadRequest") from None
    text = given.get("description", "")
    if not isinstance(text, str):
        raise ApiError(400, f"Invalid input for description. Reason: '{text}' is not a valid string.", "HTTPBadRequest")
    if len(text) > 255:
        why = f"Invalid input for description. Reason: '{text}' exceeds maximum length of 255."
        raise ApiError(400, why, "HTTPBadRequest")


def _checked_port(call: Call, port_id: str | None, floating: FloatingIp | None, fixed: str | None = None) -> str:
    """Return the id of a port that ``floating``, or one that is to be made, may be attached to; "" for none."""
    if not port_id:
        if fixed:
            raise _bad("fixed_ip_address cannot be specified without a port_id")
        return ""
    port = _port(call, port_id)
    if port is None:
        raise ApiError(404, f"Port {port_id} could not be found.", "PortNotFound")
    address = port["fixed_ips"][0]["ip_address"]
    if fixed not in (None, address):
        raise _bad(f"Port {port_id} does not have fixed ip {fixed}")
    other = call.state.floating_ip_at(port_id)
    if other is not None and other is not floating:
        named = f"{floating.address} ({floating.id})" if floating else "of the request"
        why = f"Cannot associate floating IP {named} with port {port_id} using fixed IP {address}, as that fixed IP "
        why += f"already has a floating IP on external network {PUBLIC_ID}."
        raise ApiError(409, why, "FloatingIPPortAlreadyAssociated")
    return port_id


@routes("POST", "/network/v2.0/floatingips")
def create_floating_ip(call: Call) -> Reply:
    given = call.json().get("floatingip")
    if not isinstance(given, dict):
        raise ApiError(400, "Unable to find 'floatingip' in request body", "HTTPBadRequest")
    project, network_id = call.auth.project, given.get("floating_network_id")
    names = {"floating_network_id", "port_id", "fixed_ip_address", "description", "floating_ip_address"}
    _check(given, names | {"project_id", "tenant_id"})
    if network_id is None:
        why = "Failed to parse request. Required attribute 'floating_network_id' not specified"
        raise ApiError(400, why, "HTTPBadRequest")
    if given.get("floating_ip_address"):
        why = "(rule:create_floatingip and rule:create_floatingip:floating_ip_address) is disallowed by policy"
        raise ApiError(403, why, "PolicyNotAuthorized")
    if len(call.state.floating_ips_of(project)) >= project.quota_floating_ips:
        raise ApiError(409, "Quota exceeded for resources: ['floatingip'].", "OverQuota")
    if network_id == NETWORK_ID:
        raise _bad(f"Network {network_id} is not a valid external network")
    if network_id != PUBLIC_ID:
        raise ApiError(404, f"Network {network_id} could not be found.", "NetworkNotFound")
    port_id = _checked_port(call, given.get("port_id"), None, given.get("fixed_ip_address"))
    made = call.state.create_floating_ip(project, given.get("description", ""))
    if made is None:
        why = f"No more IP addresses available on network {network_id}."
        raise ApiError(409, why, "IpAddressGenerationFailure")
    if port_id:
        call.state.attach(made, port_id)
    return Reply(201, {"floatingip": _floating_ip(call, made)})


@routes("PUT", "/network/v2.0/floatingips/{}")
def update_floating_ip(call: Call, thing_id: str) -> Reply:
    """Attach it to a port, away from another one; null detaches it."""
    floating = _find(call, thing_id)
    given = call.json().get("floatingip")
    if not isinstance(given, dict):
        raise ApiError(400, "Unable to find 'floatingip' in request body", "HTTPBadRequest")
    _check(given, {"port_id", "fixed_ip_address", "description"})
    check_revision(call, floating.revision)
    if "port_id" in given or given.get("fixed_ip_address"):
        port_id = _checked_port(call, given.get("port_id"), floating, given.get("fixed_ip_address"))
        call.state.attach(floating, port_id)
    floating.description = given.get("description", floating.description)
    return Reply(200, {"floatingip": _floating_ip(call, floating)})


@routes("DELETE", "/network/v2.0/floatingips/{}")
def delete_floating_ip(call: Call, thing_id: str) -> Reply:
    del call.state.floating_ips[_find(call, thing_id).id]
    return Reply(204)


KINDS["floatingips"] = lambda call: [
    _floating_ip(call, found) for found in call.state.floating_ips_of(call.auth.project)
]
