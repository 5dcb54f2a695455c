"""Images and networks: https://docs.openstack.org/api-ref/image/v2/ and https://docs.openstack.org/api-ref/network/v2/"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from .api import ApiError, Call, Reply, Routes, page
from .nova_servers import mac, port_id
from .state import (
    IMAGES,
    NETWORK,
    NETWORK_ID,
    SECURITY_GROUP,
    SUBNET_ID,
    Image,
    Server,
    iso,
    stable_id,
)

images = Routes()
networks = Routes()


def html(status: int, title: str, text: str) -> str:
    """An error page as WebOb makes it."""
    return (
        f"<html>\n <head>\n  <title>{status} {title}</title>\n </head>\n <body>\n"
        f"  <h1>{status} {title}</h1>\n  {text}<br /><br />\n\n\n\n </body>\n</html>"
    )


_LOGIN = (
    "This server could not verify that you are authorized to access the document you requested. Either you supplied the "
    "wrong credentials (e.g., bad password), or your browser does not understand how to supply the credentials required."
)


def render_image(call: Call, error: ApiError) -> Reply:
    if error.status == 401:
        headers = {
            "Content-Type": "text/html; charset=UTF-8",
            "WWW-Authenticate": f'Keystone uri="{call.url}/identity"',
        }
        return Reply(401, html(401, "Unauthorized", _LOGIN), headers)
    title = {400: "Bad Request", 403: "Forbidden", 404: "Not Found"}.get(error.status, "Error")
    return Reply(error.status, html(error.status, title, error.message), {"Content-Type": "text/html; charset=UTF-8"})


def render_network(call: Call, error: ApiError) -> Reply:
    if error.status == 401:
        body: dict[str, Any] = {"error": {"code": 401, "title": "Unauthorized", "message": error.message}}
        return Reply(401, body, {"WWW-Authenticate": f'Keystone uri="{call.url}/identity"'})
    kind = error.kind or {404: "HTTPNotFound", 400: "HTTPBadRequest"}.get(error.status, "HTTPError")
    return Reply(error.status, {"NeutronError": {"type": kind, "message": error.message, "detail": ""}})


# Glance


def _image(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "name": image.name,
        "created_at": image.created_at,
        "updated_at": image.created_at,
        "status": "active",
        "visibility": "public",
        "size": 1024,
        "virtual_size": 1024,
        "min_ram": 0,
        "min_disk": 0,
        "disk_format": "raw",
        "container_format": "bare",
        "owner": stable_id("project", "admin").replace("-", ""),
        "protected": False,
        "checksum": "0" * 32,
        "os_hash_algo": "sha512",
        "os_hash_value": "0" * 128,
        "os_hidden": False,
        "tags": [],
        "self": f"/v2/images/{image.id}",
        "file": f"/v2/images/{image.id}/file",
        "schema": "/v2/schemas/image",
    }


@images("GET", "/image", public=True)
def image_versions(call: Call) -> Reply:
    links = [{"rel": "self", "href": f"{call.url}/image/v2/"}]
    return Reply(300, {"versions": [{"id": "v2.17", "status": "CURRENT", "links": links}]})


@images("GET", "/image/v2/images")
def image_list(call: Call) -> Reply:
    found = [body for body in map(_image, IMAGES) if _fits(call, body)]
    if "sort" in call.query:  # by one field: "name:desc"
        key, _, direction = call.query["sort"][0].partition(":")
        found.sort(key=lambda body: str(body[key]), reverse=direction != "asc")
    part, more = page(call, found, lambda body: str(body["id"]), most=25 if "limit" not in call.query else 1000)
    query = urlencode([(k, v) for k, values in call.query.items() for v in values if k != "marker"])
    first = f"/v2/images?{query}" if query else "/v2/images"
    body: dict[str, Any] = {"images": part, "first": first, "schema": "/v2/schemas/images"}
    if more:
        body["next"] = f"/v2/images?{more}"
    return Reply(200, body)


@images("GET", "/image/v2/images/{}")
def image_show(call: Call, image_id: str) -> Reply:
    for image in IMAGES:
        if image.id == image_id:
            return Reply(200, _image(image))
    raise ApiError(404, f"No image found with ID {image_id}")


# Neutron

_CONTROL = {"fields", "limit", "marker", "sort_key", "sort_dir", "page_reverse"}


def _fits(call: Call, body: dict[str, Any]) -> bool:
    for name, values in call.query.items():
        if name in _CONTROL or name not in body:
            continue
        own = body[name] if isinstance(body[name], list) else [body[name]]
        wanted = [w for value in values for w in value.lower().removeprefix("in:").split(",")]
        if not {str(value).lower() for value in own} & set(wanted):
            return False
    return True


def _common(call: Call, kind: str, name: str, thing_id: str, project_id: str) -> dict[str, Any]:
    then = "2026-01-01T00:00:00Z"
    body = {
        "id": thing_id,
        "name": name,
        "description": "",
        "tags": [],
        "created_at": then,
        "updated_at": then,
    }
    return {**body, "project_id": project_id, "tenant_id": project_id, "revision_number": 1}


def _network(call: Call) -> dict[str, Any]:
    return {
        **_common(call, "network", NETWORK, NETWORK_ID, call.auth.project.id),
        "admin_state_up": True,
        "status": "ACTIVE",
        "mtu": 1500,
        "subnets": [SUBNET_ID],
        "shared": False,  # each project takes it for its own
        "router:external": False,
        "port_security_enabled": True,
        "availability_zones": [],
        "availability_zone_hints": [],
    }


def _subnet(call: Call) -> dict[str, Any]:
    subnet = call.state.subnet
    return {
        **_common(call, "subnet", f"{NETWORK}-subnet", SUBNET_ID, call.auth.project.id),
        "network_id": NETWORK_ID,
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


def _group(call: Call) -> dict[str, Any]:
    group_id = stable_id("security-group", SECURITY_GROUP)
    common = _common(call, "group", SECURITY_GROUP, group_id, call.auth.project.id)
    rules = [
        {
            **_common(call, "rule", "", stable_id("rule", direction, version), call.auth.project.id),
            "security_group_id": group_id,
            "direction": direction,
            "ethertype": version,
            "remote_group_id": group_id if direction == "ingress" else None,
            "description": None,
            **dict.fromkeys(("protocol", "port_range_min", "port_range_max", "remote_ip_prefix")),
        }
        for direction in ("ingress", "egress")
        for version in ("IPv4", "IPv6")
    ]
    for rule in rules:
        del rule["name"]
    shown = {**common, "description": "Default security group", "stateful": True, "shared": False}
    return {**shown, "security_group_rules": rules}


def _port(call: Call, server: Server) -> dict[str, Any]:
    return {
        **_common(call, "port", "", port_id(server), server.project.id),
        "created_at": iso(server.launched or server.created),
        "network_id": NETWORK_ID,
        "mac_address": mac(server),
        "admin_state_up": True,
        "status": "ACTIVE",
        "device_id": server.id,
        "device_owner": "compute:nova",
        "fixed_ips": [{"subnet_id": SUBNET_ID, "ip_address": server.address}],
        "security_groups": [stable_id("security-group", SECURITY_GROUP)],
        "binding:vnic_type": "normal",
        "port_security_enabled": True,
    }


def _collection(call: Call, name: str) -> list[dict[str, Any]]:
    """Everything of one kind that the caller sees. Raises `ApiError` 404 for a kind that isn't kept here."""
    if name == "networks":
        return [_network(call)]
    if name == "subnets":
        return [_subnet(call)]
    if name == "security-groups":
        return [_group(call)]
    if name == "ports":
        return [_port(call, server) for server in call.state.of_project(call.auth.project) if server.address]
    if name in ("floatingips", "routers", "security-group-rules", "availability_zones", "extensions"):
        return []
    raise ApiError(404, f"The dev cloud has no route {call.method} {call.path}")


@networks("GET", "/network", public=True)
def network_versions(call: Call) -> Reply:
    links = [{"rel": "self", "href": f"{call.url}/network/v2.0/"}]
    return Reply(200, {"versions": [{"id": "v2.0", "status": "CURRENT", "links": links}]})


@networks("GET", "/network/v2.0/{}")
def network_list(call: Call, kind: str) -> Reply:
    found = [body for body in _collection(call, kind) if _fits(call, body)]
    part, more = page(call, found, lambda body: str(body["id"]))
    key = kind.replace("-", "_")
    body: dict[str, Any] = {key: part}
    if more:
        body[f"{key}_links"] = [{"rel": "next", "href": f"{call.url}{call.path}?{more}"}]
    return Reply(200, body)


@networks("GET", "/network/v2.0/{}/{}")
def network_show(call: Call, kind: str, thing_id: str) -> Reply:
    singular = kind.removesuffix("s").replace("-", "_")
    for body in _collection(call, kind):
        if body["id"] == thing_id:
            return Reply(200, {singular: body})
    name = "".join(word.capitalize() for word in singular.split("_"))
    raise ApiError(404, f"{name} {thing_id} could not be found.", f"{name}NotFound")
