"""Compute, without its servers: versions, microversions, the form of answers, and what there is to choose from.

https://docs.openstack.org/api-ref/compute/
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .api import ApiError, Call, Reply, Routes, page
from .things import FLAVORS, KEYPAIR, ZONE, Flavor

NEWEST = (2, 104)
_KINDS = {400: "badRequest", 403: "forbidden", 404: "itemNotFound", 409: "conflictingRequest"}


def microversion(call: Call) -> tuple[int, int]:
    """Return the caller's microversion. Raises `ApiError` 406 if it is not supported."""
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
        raise forbidden("servers:index")


def forbidden(action: str) -> ApiError:
    return ApiError(403, f"Policy doesn't allow os_compute_api:{action} to be performed.")


def need_member(call: Call, action: str) -> None:
    """Those who may only read may not do this."""
    if "member" not in call.auth.roles:
        raise forbidden(action)


routes = Routes(check=_check)


def headers(call: Call, request_id: str, reply: Reply) -> dict[str, str]:
    """Return what every answer bears: ids, and, unless it comes from the login or the root, which microversion was asked for."""
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


def links(call: Call, kind: str, thing_id: str) -> list[dict[str, str]]:
    return [
        {"rel": "self", "href": f"{call.url}/compute/v2.1/{kind}/{thing_id}"},
        {"rel": "bookmark", "href": f"{call.url}/compute/{kind}/{thing_id}"},
    ]


def listing(call: Call, kind: str, things: list[Any], describe: Callable[[Call, Any], dict[str, Any]]) -> Reply:
    """Return a page of ``things``, as ``describe`` has them; without "/detail" in the path only their ids, names and links."""
    part, more = page(call, things, lambda thing: str(thing.id))
    bodies = [describe(call, thing) for thing in part]
    if not call.path.rstrip("/").endswith("/detail"):
        bodies = [{key: body[key] for key in ("id", "name", "links")} for body in bodies]
    body: dict[str, Any] = {kind: bodies}
    if more:
        body[f"{kind}_links"] = [{"rel": "next", "href": f"{call.url}{call.path}?{more}"}]
    return Reply(200, body)


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
        "links": links(call, "flavors", flavor.id),
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
    return listing(call, "flavors", found, _flavor)


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
        raise ApiError(404, f"Keypair {name} not found for user {call.auth.user.id}")
    life = {"created_at": "2026-01-01T00:00:00.000000", "updated_at": None, "deleted": False, "deleted_at": None}
    shown = {**_keypair(), "user_id": call.auth.user.id, "id": 1, **life}
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
