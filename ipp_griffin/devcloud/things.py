"""The resources of a dev cloud: projects and users, flavors and images, servers, security groups, ports and floating IPs, containers.

Times are seconds since the epoch.
"""

from __future__ import annotations

import functools
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Any

from .access_rules import AccessRule, allowed

REGION = "RegionOne"
_SPACE = uuid.UUID("5d0e8cbb-7a4f-4b0d-9a6c-0e9d3f6a2c11")


@functools.lru_cache(1024)
def stable_id(*names: str) -> str:
    """Return the same id for the same thing in every dev cloud."""
    return str(uuid.uuid5(_SPACE, "/".join(names)))


def iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@dataclass
class Project:
    """A project and its quota."""

    name: str
    quota_instances: int
    quota_cores: int
    quota_security_groups: int = 10
    quota_floating_ips: int = 50

    @property
    def id(self) -> str:
        return stable_id("project", self.name).replace("-", "")


@dataclass
class User:
    """Somebody who is a member of one project."""

    name: str
    password: str
    project: Project

    @property
    def id(self) -> str:
        return stable_id("user", self.name).replace("-", "")


@dataclass(frozen=True)
class Credential:
    """An application credential of a user, which bears only some of the roles. ``rules``: None where it has none."""

    name: str
    user: User
    secret: str
    roles: tuple[str, ...]
    rules: tuple[AccessRule, ...] | None = None

    @property
    def id(self) -> str:
        return stable_id("credential", self.user.name, self.name).replace("-", "")


@dataclass(frozen=True)
class Token:
    """``scoped``: it is for the project; else it tells only who somebody is. ``audit_ids``: its own, and its parent's."""

    id: str
    user: User
    methods: tuple[str, ...]
    issued: float
    expires: float
    audit_ids: tuple[str, ...] = ()
    scoped: bool = True
    credential: Credential | None = None

    @property
    def project(self) -> Project:
        return self.user.project

    @property
    def roles(self) -> tuple[str, ...]:
        return self.credential.roles if self.credential else ROLES

    @property
    def rules(self) -> tuple[AccessRule, ...] | None:
        return self.credential.rules if self.credential else None

    def within_rules(self, service: str, method: str, path: str) -> Token | None:
        """Return this token, or None if its rules forbid the request."""
        return self if allowed(self.rules, service, method, path) else None


@dataclass(frozen=True)
class Flavor:
    """``ram`` in MiB, ``disk`` in GiB."""

    name: str
    vcpus: int
    ram: int
    disk: int
    fits: bool = True

    @property
    def id(self) -> str:
        return stable_id("flavor", self.name)


@dataclass(frozen=True)
class Image:
    name: str
    created_at: str

    @property
    def id(self) -> str:
        return stable_id("image", self.name)


FLAVORS = (
    Flavor("dev.small", 1, 2048, 10),
    Flavor("dev.medium", 4, 8192, 40),
    Flavor("dev.toobig", 1, 1_000_000, 10, fits=False),
)
IMAGES = (  # newest first, as Glance lists them
    Image("snapshot10", "2026-10-01T10:00:00Z"),
    Image("snapshot2", "2026-02-01T10:00:00Z"),
    Image("snapshot1", "2026-01-01T10:00:00Z"),
    Image("debian-12", "2025-06-01T10:00:00Z"),
)
ROLES = ("reader", "member")
READ_SERVERS = (AccessRule("compute", "GET", "/v2.1/servers/**"), AccessRule("compute", "GET", "/v2.1/servers"))
NETWORK = "devnet"
SUBNET = "127.80.0.0/16"
NETWORK_ID = stable_id("network", NETWORK)
SUBNET_ID = stable_id("subnet", NETWORK)
PUBLIC = "public"  # the external network, whose addresses are floating IPs
PUBLIC_SUBNET = "127.90.0.0/16"
PUBLIC_ID = stable_id("network", PUBLIC)
PUBLIC_SUBNET_ID = stable_id("subnet", PUBLIC)
ROUTER_ID = stable_id("router", NETWORK)  # between the two
KEYPAIR = "griffin-key"
SECURITY_GROUP = "default"
ZONE = "nova"
EPOCH = 1767225600.0  # 2026-01-01: when all initial resources were created


@dataclass
class Network:
    """One that servers can be on. ``project``: None for that which each project takes for its own; ``cidr``: None without a subnet."""

    id: str
    name: str
    project: Project | None
    created: float
    subnet_id: str = ""
    subnet_name: str = ""
    cidr: IPv4Network | None = None


@dataclass
class Server:
    """One instance. ``status`` is what Nova shows; ``silent``: it never gets a guest process; ``under``: what runs its program."""

    id: str
    name: str
    user: User
    image: Image
    flavor: Flavor
    created: float
    tags: list[str]
    metadata: dict[str, str]
    user_data: str = ""
    key_name: str | None = None
    network: Network | None = None
    security_groups: list[str] = field(default_factory=list)  # their ids
    description: str | None = None
    zone: str | None = None  # that was asked for
    address: str = ""
    status: str = "BUILD"
    task: str | None = "scheduling"
    error: str = ""
    updated: float = 0.0
    launched: float | None = None
    scheduled_at: float = 0.0
    boots_at: float | None = None
    vanishes_at: float | None = None
    shuts_off_at: float | None = None
    silent: bool = False
    under: tuple[str, ...] = ()
    locked: bool = False
    faults: dict[str, Any] = field(default_factory=dict)

    @property
    def project(self) -> Project:
        return self.user.project

    @property
    def port_id(self) -> str:
        return stable_id("port", self.id)

    def dues(self) -> Iterator[float]:
        """When something happens to this server by itself."""
        dues = [self.vanishes_at, self.shuts_off_at, self.boots_at]
        if self.status == "BUILD" and self.task == "scheduling":
            dues.append(self.scheduled_at)
        return (due for due in dues if due is not None)


@dataclass
class SecurityGroup:
    """``rules``: what was given of each, by its id."""

    id: str
    project: Project
    name: str
    description: str
    created: float
    rules: dict[str, dict[str, Any]]
    revision: int = 1

    @property
    def is_default(self) -> bool:
        return self.name == SECURITY_GROUP


@dataclass
class Port:
    """A port that a user made: of a machine that Nova has no part in, or it says of which."""

    id: str
    project: Project
    name: str
    mac: str
    address: str
    created: float
    security_groups: list[str]
    device_owner: str = ""
    device_id: str = ""
    revision: int = 1


@dataclass
class FloatingIp:
    """``port_id``: of a server's port, or of one that a user made; "" while it is attached to none."""

    id: str
    project: Project
    address: str
    created: float
    description: str = ""
    port_id: str = ""
    updated: float = 0.0
    revision: int = 0


@dataclass
class StoredObject:
    data: bytes
    etag: str
    content_type: str
    modified: float
    headers: dict[str, str]


@dataclass
class Container:
    """``headers`` are its X-Container-... metadata, names in title case."""

    created: float
    headers: dict[str, str]
    objects: dict[str, StoredObject] = field(default_factory=dict)
