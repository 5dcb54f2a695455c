"""Compute's servers: https://docs.openstack.org/api-ref/compute/#servers-servers"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

from .api import ApiError, Call, Reply
from .nova import forbidden, links, listing, microversion, need_member, routes
from .nova_create import create_servers
from .things import SECURITY_GROUP, ZONE, Server, iso, stable_id

__all__ = ["mac", "routes"]


def mac(server: Server) -> str:
    digits = server.id.replace("-", "")
    return f"fa:16:3e:{digits[0:2]}:{digits[2:4]}:{digits[4:6]}"


def _server(call: Call, server: Server) -> dict[str, Any]:
    states = {"BUILD": "building", "SHUTOFF": "stopped", "ERROR": "error"}
    floating = call.state.floating_ip_at(server.port_id)
    addresses = {"fixed": server.address, **({"floating": floating.address} if floating else {})}
    listed = [
        {"version": 4, "addr": address, "OS-EXT-IPS:type": kind, "OS-EXT-IPS-MAC:mac_addr": mac(server)}
        for kind, address in addresses.items()
    ]
    placed = server.launched is not None
    body: dict[str, Any] = {
        "accessIPv4": "",
        "accessIPv6": "",
        "addresses": {server.network.name: listed} if server.network and server.address else {},
        "created": iso(server.created),
        "hostId": stable_id("host", server.project.id).replace("-", "") if placed else "",
        "id": server.id,
        "image": _image(call, server),
        "links": links(call, "servers", server.id),
        "metadata": server.metadata,
        "name": server.name,
        "status": server.status,
        "tenant_id": server.project.id,
        "user_id": server.user.id,
        "updated": iso(server.updated),
        "OS-DCF:diskConfig": "MANUAL",
        "OS-EXT-AZ:availability_zone": ZONE if placed else server.zone or "",
        "config_drive": "",
        "key_name": server.key_name,
        "OS-SRV-USG:launched_at": iso(server.launched)[:-1] + ".000000" if server.launched else None,
        "OS-SRV-USG:terminated_at": None,
        "OS-EXT-STS:task_state": server.task,
        "OS-EXT-STS:vm_state": states.get(server.status, "active"),
        "OS-EXT-STS:power_state": {"ACTIVE": 1, "REBOOT": 1, "SHUTOFF": 4}.get(server.status, 0),
        "os-extended-volumes:volumes_attached": [],
    }
    if server.address:  # they are those of its ports
        groups = call.state.security_groups
        body["security_groups"] = [{"name": groups[id].name} for id in server.security_groups if id in groups]
    if server.status in ("ACTIVE", "BUILD"):
        body["progress"] = 0
    if server.status == "ERROR":
        body["fault"] = {"code": 500, "created": iso(server.updated), "message": server.error}
    return {**body, **_by_microversion(call, server)}


def _image(call: Call, server: Server) -> dict[str, Any]:
    return {"id": server.image.id, "links": links(call, "images", server.image.id)[1:]}


def _by_microversion(call: Call, server: Server) -> dict[str, Any]:
    """Return what a server shows only from some microversion on."""
    version, flavor = microversion(call), server.flavor
    body: dict[str, Any] = {"flavor": {"id": flavor.id, "links": links(call, "flavors", flavor.id)[1:]}}
    size = {"vcpus": flavor.vcpus, "ram": flavor.ram, "disk": flavor.disk, "ephemeral": 0, "swap": 0}
    for since, extra in (
        ((2, 47), {"flavor": {**size, "original_name": flavor.name, "extra_specs": {}}}),
        ((2, 9), {"locked": server.locked}),
        ((2, 19), {"description": server.description}),
        ((2, 26), {"tags": server.tags if server.task == "scheduling" else sorted(set(server.tags))}),
        ((2, 63), {"trusted_image_certificates": None}),
        ((2, 73), {"locked_reason": None}),
        ((2, 90), {"OS-EXT-SRV-ATTR:hostname": server.name}),
        ((2, 96), {"pinned_availability_zone": server.zone}),
        ((2, 98), {"image": {**_image(call, server), "properties": {}}}),
        ((2, 100), {"scheduler_hints": {}}),
    ):
        body.update(extra if version >= since else {})
    return body


def _find(call: Call, server_id: str) -> Server:
    server = call.state.servers.get(server_id)
    if server is None or server.project is not call.auth.project:
        raise ApiError(404, f"Instance {server_id} could not be found.")
    return server


def _matches(call: Call, server: Server) -> bool:
    own = set(server.tags)

    def tags(name: str) -> set[str]:
        return set(call.param(name).split(","))

    tests: dict[str, Callable[[], object]] = {
        "tags": lambda: tags("tags") <= own,
        "tags-any": lambda: bool(tags("tags-any") & own),
        "not-tags": lambda: not tags("not-tags") <= own,
        "not-tags-any": lambda: not tags("not-tags-any") & own,
        "name": lambda: re.search(call.param("name"), server.name) is not None,
        "status": lambda: server.status in [s.upper() for s in call.query["status"]],
        "flavor": lambda: server.flavor.id == call.param("flavor"),
        "image": lambda: server.image.id == call.param("image"),
        "ip": lambda: re.search(call.param("ip"), server.address) is not None,
        "key_name": lambda: server.key_name == call.param("key_name"),
        "uuid": lambda: server.id == call.param("uuid"),
    }
    ignored = {"tags", "tags-any", "not-tags", "not-tags-any"} if microversion(call) < (2, 26) else set()
    return all(test() for name, test in tests.items() if name in call.query and name not in ignored)


@routes("GET", "/compute/v2.1/servers")
@routes("GET", "/compute/v2.1/servers/detail")
def servers(call: Call) -> Reply:
    project = call.auth.project
    if call.param("all_tenants", "0").lower() not in ("0", "false", "no"):
        raise forbidden("servers:detail:get_all_tenants")
    found = [server for server in call.state.of_project(project) if _matches(call, server)]
    return listing(call, "servers", found, _server)


@routes("GET", "/compute/v2.1/servers/{}")
def server(call: Call, server_id: str) -> Reply:
    body = _server(call, _find(call, server_id))
    if microversion(call) >= (2, 71):
        body["server_groups"] = []
    return Reply(200, {"server": body})


@routes("DELETE", "/compute/v2.1/servers/{}")
def delete(call: Call, server_id: str) -> Reply:
    found = _find(call, server_id)
    need_member(call, "servers:delete")
    if found.locked:
        raise ApiError(409, f"Instance {server_id} is locked")
    call.state.delete(found)
    return Reply(204)


@routes("POST", "/compute/v2.1/servers")
def create(call: Call) -> Reply:
    need_member(call, "servers:create")
    made = create_servers(call, microversion(call))[0]
    own = links(call, "servers", made.id)
    body: dict[str, Any] = {"id": made.id, "links": own, "OS-DCF:diskConfig": "MANUAL"}
    body["security_groups"] = call.json()["server"].get("security_groups") or [{"name": SECURITY_GROUP}]
    return Reply(202, {"server": {**body, "adminPass": uuid.uuid4().hex[:12]}}, {"Location": own[0]["href"]})


@routes("POST", "/compute/v2.1/servers/{}/action")
def action(call: Call, server_id: str) -> Reply:
    found = _find(call, server_id)
    body = call.json()
    name = next(iter(body), "")
    need_member(call, {"os-getConsoleOutput": "os-console-output"}.get(name, f"servers:{name.removeprefix('os-')}"))
    if name == "os-getConsoleOutput":
        if found.launched is None:
            raise ApiError(409, f"Instance {server_id} is not ready")
        length = (body[name] or {}).get("length")
        lines = None if length is None else int(length)
        return Reply(200, {"output": call.state.console(server_id, lines)})
    if found.status == "BUILD" and found.task == "scheduling":
        raise ApiError(404, f"Instance {server_id} could not be found.")
    if name in ("lock", "unlock"):
        found.locked = name == "lock"
        return Reply(202)
    if found.locked:
        raise ApiError(409, f"Instance {server_id} is locked")
    steps = {
        "os-stop": ("stop", "powering-off", "stop", ("ACTIVE",), ""),
        "os-start": ("boot", "powering-on", "start", ("SHUTOFF",), ""),
        "reboot": ("reboot", "rebooting", "reboot", ("ACTIVE", "SHUTOFF"), "REBOOT"),
    }
    if name not in steps:
        raise ApiError(400, f"There is no such action: {name}")
    what, task, verb, allowed, status = steps[name]
    if name == "reboot" and (body[name] or {}).get("type") not in ("SOFT", "HARD"):
        why = f"Value: {body[name]}. 'type' is a required property"
        raise ApiError(400, f"Invalid input for field/attribute reboot. {why}")
    if (body[name] or {}).get("type") == "SOFT":
        allowed = ("ACTIVE",)
    if found.status not in allowed or found.task is not None:
        state = f"task_state {found.task}" if found.task else f"vm_state {_server(call, found)['OS-EXT-STS:vm_state']}"
        raise ApiError(409, f"Cannot '{verb}' instance {server_id} while it is in {state}")
    call.state.act(found, what, task, status)
    return Reply(202)
