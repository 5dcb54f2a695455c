"""The one door to compute, network, image and identity, through openstacksdk.

A `Cloud` is one authenticated connection. Its methods return this project's own dataclasses, send as few requests as possible (one
listing for any number of servers, no polling per server), each with a time-out, retry what may be repeated, and raise a `CloudError` of
one line. API: https://docs.openstack.org/api-ref/compute/
"""

from __future__ import annotations

import base64
import fnmatch
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlsplit

from ..common.errors import CloudError, Unavailable, Unsupported
from ..common.text import one_line
from ..common.threads import concurrently, in_parallel
from ..model.plan import Flavor, Image, Limits, Network, Plan, ServerPlan
from ..model.server import Server
from .floating_ips import FloatingIps
from .ports import Ports
from .security_groups import ClusterGroups
from .session import PAGE, Api, parse

MICROVERSION = "2.52"  # tags at creation; listings show them and filter by them


class Cloud(Api):
    """One authenticated connection to one project of one cloud: see `Api.connect`. All methods may be called from several threads.

    Every method that sends a request raises `CredentialsError`, `Unavailable` (after retries), `Unsupported` or another `CloudError`;
    the docstrings name only additional errors.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ports = Ports(self)
        self.groups = ClusterGroups(self, self.ports)
        self.floating_ips = FloatingIps(self, self.ports)

    # -- what there is ---------------------------------------------------------------------------------

    def object_store_url(self, interface: str = "") -> str:
        """Return the URL of the project's account in the object store. Sends no request. Raises `Unsupported` if there is none.

        ``interface``: "public", "internal" or "admin"; "": as clouds.yaml says, else public.
        """
        url = self.endpoint("object-store", interface)
        if not url:
            raise Unsupported(
                f"The catalog of this cloud has no object store (no {interface + ' ' if interface else ''}endpoint in region "
                f"{self.region or '(any)'}): Swift, or Ceph's gateway, with TempURLs is needed."
            )
        return url.rstrip("/")

    def check_services(self, servers_interface: str = "") -> None:
        """Raise `Unsupported` if Nova is too old to set tags at creation, by which everything is found again, or if the catalog has no object
        store for this machine or on the ``servers_interface``."""
        latest = self.compute_microversion()
        if tuple(map(int, latest.split("."))) < tuple(map(int, MICROVERSION.split("."))) if latest else True:
            has = f"offers microversions up to {latest}" if latest else "has no microversions"
            raise Unsupported(
                f"This cloud's Nova {has}; {MICROVERSION} (Pike, 2017) or later is needed, to tag servers when "
                "they are created."
            )
        self.object_store_url()
        self.object_store_url(servers_interface)

    def ca_file(self) -> str | None:
        """Return the file with the CA certificates that clouds.yaml (``cacert``) or OS_CACERT names; "" for the system's own.

        None if this machine does not verify the object store's certificate (``verify: false``).
        """
        if self.session.verify is False and self.object_store_url().startswith("https:"):
            return None
        return self.session.verify if isinstance(self.session.verify, str) else ""

    def images(self, pattern: str = "") -> list[Image]:
        """Return the active images that this project sees; with ``pattern`` (like ``snapshot*``) only those with a matching name."""
        params = {"status": "active", "limit": PAGE}
        images = self.listing("image", "/images", "images", _image, params=params)
        return [i for i in images if fnmatch.fnmatchcase(i.name, pattern)] if pattern else images

    def flavors(self) -> list[Flavor]:
        """Return the flavors that servers of this project may have."""
        found = self.listing("compute", "/flavors/detail", "flavors", _flavor, params={"limit": PAGE})
        return [flavor for flavor in found if flavor is not None]

    def networks(self) -> list[Network]:
        """Return this project's networks, those shared with it and external ones, with their CIDRs. Two requests at the same time."""
        networks, subnets = concurrently(
            lambda: self.listing("network", "/networks", "networks", self._network),
            lambda: self.listing("network", "/subnets", "subnets", lambda s: (s["network_id"], s["cidr"])),
        )
        return [
            Network(n.id, n.name, tuple(cidr for id, cidr in subnets if id == n.id), n.external)
            for n in networks
            if n is not None
        ]

    def _network(self, found: Mapping[str, Any]) -> Network | None:
        external = bool(found.get("router:external"))
        # An administrator sees the networks of all projects.
        ours = found.get("project_id", self.project_id) == self.project_id
        if not (ours or external or found.get("shared")):
            return None
        return Network(id=str(found["id"]), name=str(found.get("name") or ""), external=external)

    def key_names(self) -> list[str]:
        """Return the names of this user's key pairs."""
        return self.listing("compute", "/os-keypairs", "keypairs", lambda k: str(k["keypair"]["name"]))

    def security_groups(self) -> dict[str, str]:
        """Return the id and name of each of this project's security groups."""
        params = {"project_id": self.project_id}  # an administrator sees those of all projects
        found = self.listing(
            "network", "/security-groups", "security_groups", lambda g: (str(g["id"]), str(g["name"])), params=params
        )
        return dict(found)

    def zones(self) -> list[str]:
        """Return the availability zones that accept servers."""
        found = self.listing(
            "compute",
            "/os-availability-zone",
            "availabilityZoneInfo",
            lambda z: str(z["zoneName"]) if z["zoneState"]["available"] else "",
        )
        return [name for name in found if name]

    def limits(self) -> Limits:
        """Return quota and usage of compute. One request."""

        def make(answer: dict[str, Any]) -> Limits:
            found = answer["limits"]["absolute"]
            return Limits(
                instances=int(found.get("maxTotalInstances", -1)),
                instances_used=int(found.get("totalInstancesUsed", 0)),
                cores=int(found.get("maxTotalCores", -1)),
                cores_used=int(found.get("totalCoresUsed", 0)),
                ram=int(found.get("maxTotalRAMSize", -1)),
                ram_used=int(found.get("totalRAMUsed", 0)),
            )

        return self.ask("Can't read the quota", "compute", "/limits", make)

    # -- servers ---------------------------------------------------------------------------------------

    def servers(self, *tags: str) -> list[Server]:
        """Return the servers that have all of ``tags``. One request for each page.

        Leave out those in DELETED, which Nova lists for a short time.
        """
        params = {"limit": PAGE, **({"tags": ",".join(tags)} if tags else {})}
        found = self.listing("compute", "/servers/detail", "servers", _tagged, params=params, microversion=MICROVERSION)
        # The filter alone is not trusted: on a cloud that ignores it, deleting by tag would delete every server.
        return [server for server in found if set(tags) <= set(server.tags) and server.status != "DELETED"]

    def create_server(self, plan: Plan, server: ServerPlan, user_data: bytes) -> Server:
        """Create one server, with ONE request that is never repeated: even if its answer is lost, the server may exist.

        Also raises `QuotaError`. After `Unavailable`, the server may exist, or appear later.
        """
        body: dict[str, Any] = {
            "name": server.name,
            "imageRef": plan.image.id,
            "flavorRef": plan.flavor.id,
            "networks": [{"uuid": plan.network.id}],
            "user_data": base64.b64encode(user_data).decode(),
            "metadata": dict(server.metadata),
            "tags": list(server.tags),
        }
        if plan.key_name:
            body["key_name"] = plan.key_name
        if plan.security_groups:
            body["security_groups"] = [{"name": name} for name in plan.security_groups]
        if plan.availability_zone:
            body["availability_zone"] = plan.availability_zone
        what = f"Can't create server {server.name}"
        response = self.send(what, "compute", "POST", "/servers", microversion=MICROVERSION, json={"server": body})
        id = parse(what, response, lambda answer: str(answer["server"]["id"]))
        return Server(id, server.name, "BUILD", tags=server.tags, metadata=dict(server.metadata))

    def delete_servers(self, ids: Iterable[str], parallel: int = 10) -> None:
        """Delete these servers; one that is gone counts as deleted. Tries all of them, then raises one `CloudError` that names those that failed."""
        failed: dict[str, CloudError] = {}

        def delete(id: str) -> None:
            try:
                self._delete(id)
            except CloudError as error:
                failed[id] = error

        in_parallel(dict.fromkeys(ids), delete, parallel)
        if failed:
            first = next(iter(failed.values()))
            names = ", ".join(failed)
            raise type(first)(
                f"{one_line(first, 400)} Servers that may still be there: {one_line(names, 500)}.",
                request_id=first.request_id,
                status=first.status,
            )

    def _delete(self, id: str) -> None:
        # 409: another action is in progress on it (or it is locked, and then retrying does not help).
        self.delete(f"Can't delete server {id}", "compute", f"/servers/{quote(id, safe='')}", HTTPStatus.CONFLICT)

    def console_output(self, id: str, length: int = 100) -> str:
        """Return the last ``length`` lines of the server's console, raw; "" where there is none (yet)."""
        what, path = f"Can't read the console of server {id}", f"/servers/{quote(id, safe='')}/action"
        body = {"os-getConsoleOutput": {"length": length}}
        try:
            return self.ask(what, "compute", path, lambda found: str(found["output"] or ""), method="POST", json=body)
        except CloudError as error:
            if error.status in (404, 409, 501):  # no such server, still being built, or not offered by this hypervisor
                return ""
            raise

    def local_address(self) -> str:
        """Return the address that this machine uses to reach the cloud. Nothing is sent.

        Raises `Unavailable` if there is no route.
        """
        url = urlsplit(self.auth_url)
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                url.hostname, port, socket.AF_INET, socket.SOCK_DGRAM
            )[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(address)
                return str(probe.getsockname()[0])
        except OSError as error:
            raise Unavailable(
                f"Can't tell which IPv4 address of this machine faces {url.hostname} ({one_line(error)}). "
                "Set GriffinControllerLauncher.ip."
            ) from None


def _image(found: Mapping[str, Any]) -> Image:
    return Image(
        id=str(found["id"]),
        name=str(found.get("name") or ""),
        created_at=str(found.get("created_at") or ""),
        min_ram=int(found.get("min_ram") or 0),
        min_disk=int(found.get("min_disk") or 0),
    )


def _flavor(found: Mapping[str, Any]) -> Flavor | None:
    if found.get("OS-FLV-DISABLED:disabled"):
        return None
    return Flavor(
        id=str(found["id"]),
        name=str(found["name"]),
        vcpus=int(found["vcpus"]),
        ram=int(found["ram"]),
        disk=int(found.get("disk") or 0),
    )


def _tagged(found: Mapping[str, Any]) -> Server:
    if "tags" not in found and found.get("status", "UNKNOWN") != "UNKNOWN":
        raise Unsupported(
            f"This cloud's Nova does not list the tags of servers: microversion {MICROVERSION} (2017) or later is "
            "needed."
        )
    return _server(found)


def _server(found: Mapping[str, Any]) -> Server:
    """Return the server in Nova's JSON. One in a cell that is down is UNKNOWN and has little more than an id."""
    return Server(
        id=str(found["id"]),
        name=str(found.get("name") or ""),
        status=str(found.get("status") or "UNKNOWN"),
        fault=_fault_text(found),
        address=_address(found.get("addresses") or {}),
        tags=tuple(found.get("tags") or ()),
        metadata=dict(found.get("metadata") or {}),
        created=str(found.get("created") or ""),
        user_id=str(found.get("user_id") or ""),
        vcpus=int((found.get("flavor") or {}).get("vcpus") or 0),  # the listing has the flavor's figures since 2.47
        launched=str(found.get("OS-SRV-USG:launched_at") or ""),
        flavor=one_line((found.get("flavor") or {}).get("original_name") or "", 60),
    )


def _fault_text(found: Mapping[str, Any]) -> str:
    """Return why a server is in ERROR. The id is cut from "Build of instance <id> aborted: ...", so that the same cause gives the same text."""
    fault = found.get("fault") or {}
    text = one_line(fault.get("message") or "") if isinstance(fault, Mapping) else ""
    return text.replace(f"instance {found['id']}", "the server")


def _address(addresses: Mapping[str, Any]) -> str:
    fixed = [
        str(port["addr"])
        for network in addresses.values()
        for port in network
        if port.get("OS-EXT-IPS:type", "fixed") == "fixed"
    ]
    return min(fixed, key=lambda a: ipaddress.ip_address(a).version, default="")
