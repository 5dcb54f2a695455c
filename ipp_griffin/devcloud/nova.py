"""Compute: https://docs.openstack.org/api-ref/compute/"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

from .api import ApiError, Call, Reply, Routes, page
from .nova_create import create_servers
from .state import (
    FLAVORS,
    KEYPAIR,
    NETWORK,
    ZONE,
    Flavor,
    Server,
    iso,
    stable_id,
)

NEWEST = (2, 104)
_KINDS = {400: "badRequest", 403: "forbidden", 404: "itemNotFound", 409: "conflictingRequest"}


def microversion(call: Call) -> tuple[int, int]:
    """What the caller speaks; raises `ApiError` 406 if it isn't spoken here."""
    version = _asked_version(call)
    if not (2, 1) <= version <= NEWEST:
        raise ApiError(
            406,
            f"Version {version[0]}.{version[1]} is not supported by the API. Minimum is 2.1 and maximum is 2.{NEWEST[1]}.",
            "computeFault",
        )
    return version


def _asked_version(call: Call) -> tuple[int, int]:
    text = call.headers.get("X-OpenStack-Nova-API-Version", "2.1")
    for part in call.headers.get("OpenStack-API-Version", "").split(","):
        if part.strip().startswith("compute "):
            text = part.split()[1]
    if text == "latest":
        return NEWEST
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else (0, 0)


def _check(call: Call) -> None:
    microversion(call)
    if call.token and not call.token.scoped:
        raise _forbidden("servers:index")


def _forbidden(action: str) -> ApiError:
    return ApiError(403, f"Policy doesn't allow os_compute_api:{action} to be performed.")


def _need_member(call: Call, action: str) -> None:
    """Those who may only read may not do this."""
    if "member" not in call.auth.roles:
        raise _forbidden(action)


routes = Routes(check=_check)


def headers(call: Call, request_id: str, reply: Reply) -> dict[str, str]:
    """What every answer bears: ids, and, unless it comes from the login or the root, which microversion was asked for."""
    if call.path.rstrip("/") == "/compute":
        return {}
    ids = {"x-openstack-request-id": request_id, "x-compute-request-id": request_id}
    if reply.status == 401:
        return ids
    version = "{}.{}".format(*_asked_version(call))
    spoken = {"OpenStack-API-Version": f"compute {version}", "X-OpenStack-Nova-API-Version": version}
    return {**ids, **spoken, "Vary": ", ".join(spoken)}


def render(call: Call, error: ApiError) -> Reply:
    if error.status == 401:
        body: dict[str, Any] = {"error": {"code": 401, "title": "Unauthorized", "message": error.message}}
        return Reply(401, body, {"WWW-Authenticate": f'Keystone uri="{call.url}/identity"'})
    kind = error.kind or _KINDS.get(error.status, "computeFault")
    content_type = {"Content-Type": "application/json; charset=UTF-8"}
    return Reply(error.status, {kind: {"code": error.status, "message": error.message}}, content_type)


def _version(call: Call) -> dict[str, Any]:
    return {
        "id": "v2.1",
        "status": "CURRENT",
        "version": f"2.{NEWEST[1]}",
        "min_version": "2.1",
        "updated": "2013-07-23T11:33:21Z",
        "links": [{"rel": "self", "href": f"{call.url}/compute/v2.1/"}],
    }


@routes("GET", "/compute", public=True)
def versions(call: Call) -> Reply:
    version_2 = {
        "id": "v2.0",
        "status": "DEPRECATED",
        "version": "",
        "min_version": "",
        "updated": "2011-01-21T11:33:21Z",
    }
    version_2_links = [{"rel": "self", "href": f"{call.url}/compute/v2/"}]
    return Reply(200, {"versions": [{**version_2, "links": version_2_links}, _version(call)]})


@routes("GET", "/compute/v2.1", public=True)
def version(call: Call) -> Reply:
    kind = "application/vnd.openstack.compute+json;version=2.1"
    shown = {**_version(call), "media-types": [{"base": "application/json", "type": kind}]}
    shown["links"].append({"rel": "describedby", "type": "text/html", "href": "http://docs.openstack.org/"})
    return Reply(200, {"version": shown})


# What there is to choose from


def _links(call: Call, kind: str, thing_id: str) -> list[dict[str, str]]:
    return [
        {"rel": "self", "href": f"{call.url}/compute/v2.1/{kind}/{thing_id}"},
        {"rel": "bookmark", "href": f"{call.url}/compute/{kind}/{thing_id}"},
    ]


def _flavor(call: Call, flavor: Flavor) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": flavor.id,
        "name": flavor.name,
        "ram": flavor.ram,
        "disk": flavor.disk,
        "swap": "" if microversion(call) < (2, 75) else 0,
        "OS-FLV-EXT-DATA:ephemeral": 0,
        "OS-FLV-DISABLED:disabled": False,
        "vcpus": flavor.vcpus,
        "os-flavor-access:is_public": True,
        "rxtx_factor": 1.0,
        "links": _links(call, "flavors", flavor.id),
    }
    if microversion(call) >= (2, 55):
        body["description"] = None
    if microversion(call) >= (2, 61):
        body["extra_specs"] = {}
    return body


@routes("GET", "/compute/v2.1/flavors")
@routes("GET", "/compute/v2.1/flavors/detail")
def flavors(call: Call) -> Reply:
    found = [
        f
        for f in sorted(FLAVORS, key=lambda f: f.id)
        if f.ram >= call.number("minRam", 0) and f.disk >= call.number("minDisk", 0)
    ]
    part, more = page(call, found, lambda f: str(f.id))
    bodies = [_flavor(call, f) for f in part]
    if not call.path.rstrip("/").endswith("/detail"):
        bodies = [{key: body[key] for key in ("id", "name", "links")} for body in bodies]
    return _listing(call, "flavors", bodies, more)


@routes("GET", "/compute/v2.1/flavors/{}")
def flavor(call: Call, flavor_id: str) -> Reply:
    for candidate in FLAVORS:
        if candidate.id == flavor_id:
            return Reply(200, {"flavor": _flavor(call, candidate)})
    raise ApiError(404, f"Flavor {flavor_id} could not be found.")


def _keypair() -> dict[str, str]:
    public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFcw6T+eohJ8+jBnK8t/Cd3tKvI9pRXtyjQQvqSuCTpH\n"
    fingerprint = "47:45:f2:27:2c:62:bd:5a:01:78:6a:a1:f8:e8:95:4d"
    return {"name": KEYPAIR, "public_key": public, "fingerprint": fingerprint}


@routes("GET", "/compute/v2.1/flavors/{}/os-extra_specs")
def flavor_extras(call: Call, flavor_id: str) -> Reply:
    return Reply(200, {"extra_specs": {}})


@routes("GET", "/compute/v2.1/os-keypairs")
def keypairs(call: Call) -> Reply:
    return Reply(200, {"keypairs": [{"keypair": _keypair()}]})


@routes("GET", "/compute/v2.1/os-keypairs/{}")
def keypair(call: Call, name: str) -> Reply:
    if name != KEYPAIR:
        raise ApiError(404, f"Keypair {name} not found for user {call.auth.project.user_id}")
    life = {"created_at": "2026-01-01T00:00:00.000000", "updated_at": None, "deleted": False, "deleted_at": None}
    shown = {**_keypair(), "user_id": call.auth.project.user_id, "id": 1, **life}
    return Reply(200, {"keypair": shown})


@routes("GET", "/compute/v2.1/os-availability-zone")
def zones(call: Call) -> Reply:
    return Reply(
        200,
        {"availabilityZoneInfo": [{"zoneName": ZONE, "zoneState": {"available": True}, "hosts": None}]},
    )


@routes("GET", "/compute/v2.1/limits")
def limits(call: Call) -> Reply:
    project = call.auth.project
    servers = call.state.of_project(project)
    absolute = {
        "maxTotalInstances": project.quota_instances,
        "maxTotalCores": project.quota_cores,
        "maxTotalRAMSize": 4_000_000,
        "maxTotalKeypairs": 100,
        "maxServerMeta": 128,
        "maxServerGroups": 10,
        "maxServerGroupMembers": 10,
        "totalInstancesUsed": len(servers),
        "totalCoresUsed": sum(s.flavor.vcpus for s in servers),
        "totalRAMUsed": sum(s.flavor.ram for s in servers),
        "totalServerGroupsUsed": 0,
    }
    return Reply(200, {"limits": {"rate": [], "absolute": absolute}})


# Servers


def port_id(server: Server) -> str:
    return stable_id("port", server.id)


def mac(server: Server) -> str:
    digits = server.id.replace("-", "")
    return f"fa:16:3e:{digits[0:2]}:{digits[2:4]}:{digits[4:6]}"


def _server(call: Call, server: Server) -> dict[str, Any]:
    states = {"BUILD": "building", "SHUTOFF": "stopped", "ERROR": "error"}
    fixed = {"version": 4, "addr": server.address}
    fixed |= {"OS-EXT-IPS:type": "fixed", "OS-EXT-IPS-MAC:mac_addr": mac(server)}
    placed = server.launched is not None
    body: dict[str, Any] = {
        "accessIPv4": "",
        "accessIPv6": "",
        "addresses": {NETWORK: [fixed]} if server.address else {},
        "created": iso(server.created),
        "hostId": stable_id("host", server.project.id).replace("-", "") if placed else "",
        "id": server.id,
        "image": _image(call, server),
        "links": _links(call, "servers", server.id),
        "metadata": server.metadata,
        "name": server.name,
        "status": server.status,
        "tenant_id": server.project.id,
        "user_id": server.project.user_id,
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
        body["security_groups"] = [{"name": name} for name in server.security_groups]
    if server.status in ("ACTIVE", "BUILD"):
        body["progress"] = 0
    if server.status == "ERROR":
        body["fault"] = {"code": 500, "created": iso(server.updated), "message": server.error}
    return {**body, **_by_microversion(call, server)}


def _image(call: Call, server: Server) -> dict[str, Any]:
    return {"id": server.image.id, "links": _links(call, "images", server.image.id)[1:]}


def _by_microversion(call: Call, server: Server) -> dict[str, Any]:
    """What a server shows only from some microversion on."""
    version, flavor = microversion(call), server.flavor
    body: dict[str, Any] = {"flavor": {"id": flavor.id, "links": _links(call, "flavors", flavor.id)[1:]}}
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


def _listing(call: Call, kind: str, bodies: list[dict[str, Any]], more: str) -> Reply:
    body: dict[str, Any] = {kind: bodies}
    if more:
        body[f"{kind}_links"] = [{"rel": "next", "href": f"{call.url}{call.path}?{more}"}]
    return Reply(200, body)


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
        raise _forbidden("servers:detail:get_all_tenants")
    found = [server for server in call.state.of_project(project) if _matches(call, server)]
    part, more = page(call, found, lambda server: str(server.id))
    bodies = [_server(call, server) for server in part]
    if not call.path.rstrip("/").endswith("/detail"):
        bodies = [{key: body[key] for key in ("id", "name", "links")} for body in bodies]
    return _listing(call, "servers", bodies, more)


@routes("GET", "/compute/v2.1/servers/{}")
def server(call: Call, server_id: str) -> Reply:
    body = _server(call, _find(call, server_id))
    if microversion(call) >= (2, 71):
        body["server_groups"] = []
    return Reply(200, {"server": body})


@routes("DELETE", "/compute/v2.1/servers/{}")
def delete(call: Call, server_id: str) -> Reply:
    found = _find(call, server_id)
    _need_member(call, "servers:delete")
    if found.locked:
        raise ApiError(409, f"Instance {server_id} is locked")
    call.state.delete(found)
    return Reply(204)


@routes("POST", "/compute/v2.1/servers")
def create(call: Call) -> Reply:
    _need_member(call, "servers:create")
    made = create_servers(call, microversion(call))[0]
    links = _links(call, "servers", made.id)
    body: dict[str, Any] = {"id": made.id, "links": links, "OS-DCF:diskConfig": "MANUAL"}
    body["security_groups"] = [{"name": name} for name in made.security_groups]
    return Reply(202, {"server": {**body, "adminPass": uuid.uuid4().hex[:12]}}, {"Location": links[0]["href"]})


@routes("POST", "/compute/v2.1/servers/{}/action")
def action(call: Call, server_id: str) -> Reply:
    found = _find(call, server_id)
    body = call.json()
    name = next(iter(body), "")
    _need_member(call, {"os-getConsoleOutput": "os-console-output"}.get(name, f"servers:{name.removeprefix('os-')}"))
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
