"""The cloud's state and rules, in memory: who may log in, servers and their life, objects. No HTTP, no processes.

What has to happen to guests goes into `CloudState.outbox`; who runs them calls `CloudState.settled` afterwards.
Times are seconds since the epoch, from the injected ``clock``.
"""

from __future__ import annotations

import functools
import ipaddress
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from .access_rules import AccessRule
from .faults import Faults

REGION = "RegionOne"
_SPACE = uuid.UUID("5d0e8cbb-7a4f-4b0d-9a6c-0e9d3f6a2c11")


@functools.lru_cache(1024)
def stable_id(*names: str) -> str:
    """The same id for the same thing in every dev cloud."""
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
KEYPAIR = "griffin-key"
SECURITY_GROUP = "default"
ZONE = "nova"
EPOCH = 1767225600.0  # 2026-01-01: when all that is there from the beginning was made


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
    networked: bool = True
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

    def dues(self) -> Iterator[float]:
        """When something happens to this server by itself."""
        moments = [self.vanishes_at, self.shuts_off_at, self.boots_at]
        if self.status == "BUILD" and self.task == "scheduling":
            moments.append(self.scheduled_at)
        return (moment for moment in moments if moment is not None)


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


class CloudState:
    """All of it. To be used from one thread, except for what says otherwise."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        faults: Faults | None = None,
        boot_time: float = 0.5,
        quota_instances: int = 64,
        token_lifetime: float = 4 * 3600,
        subnet: str = SUBNET,
        object_store: str = "swift",
    ) -> None:
        self.clock = clock
        self.object_store = object_store  # one of `object_stores.KINDS`
        self.subnet = ipaddress.IPv4Network(subnet)
        self.faults = faults or Faults()
        self.boot_time = boot_time
        self.token_lifetime = token_lifetime
        self.projects = [
            Project(name, instances, cores)
            for name, instances, cores in (
                ("devcloud", quota_instances, 4 * quota_instances),
                ("other", quota_instances, 4 * quota_instances),
                ("tiny", 2, 4),
            )
        ]
        self.users = [User(project.name, secrets.token_urlsafe(16), project) for project in self.projects]
        self.users.append(User("colleague", secrets.token_urlsafe(16), self.projects[0]))
        first = self.users[0]
        self.credentials = [
            Credential("app", first, secrets.token_urlsafe(16), ROLES),
            Credential("app-reader", first, secrets.token_urlsafe(16), ("reader",)),
            Credential("app-rules", first, secrets.token_urlsafe(16), ROLES, READ_SERVERS),
        ]
        self.tokens: dict[str, Token] = {}
        self.servers: dict[str, Server] = {}
        self.security_groups = {group.id: group for group in map(self._default_group, self.projects)}
        self.ports: dict[str, Port] = {}
        self.containers: dict[tuple[str, str], Container] = {}  # by (project id, name)
        self.account_keys: dict[str, dict[str, str]] = {}  # of object stores: headers, by project id
        self.outbox: list[tuple[str, Server]] = []  # ("boot" | "stop" | "reboot" | "delete", server)
        self.console: Callable[[str, int | None], str] = lambda server_id, lines: ""
        self._addresses = 0

    # Who may log in

    def login(
        self,
        user: User,
        method: str,
        *,
        scoped: bool = True,
        credential: Credential | None = None,
        parent: Token | None = None,
    ) -> Token:
        """A new token; ``parent``: the one that it was got by, at whose end it ends."""
        now = self.clock()
        token = Token(
            id=secrets.token_hex(24),
            user=user,
            methods=(method, *(m for m in (parent.methods if parent else ()) if m != method)),
            issued=now,
            expires=parent.expires if parent else now + self.token_lifetime,
            audit_ids=(secrets.token_urlsafe(16), *(parent.audit_ids[-1:] if parent else ())),
            scoped=scoped,
            credential=credential,
        )
        self.tokens = {k: t for k, t in self.tokens.items() if t.expires > now}
        self.tokens[token.id] = token
        return token

    def token(self, token_id: str) -> Token | None:
        """The token if it exists and has not expired."""
        token = self.tokens.get(token_id)
        return token if token and token.expires > self.clock() else None

    # Networks

    def security_groups_of(self, project: Project) -> list[SecurityGroup]:
        return [group for group in self.security_groups.values() if group.project is project]

    def create_security_group(self, project: Project, name: str, description: str) -> SecurityGroup:
        """One that lets everything out and nothing in."""
        rules = {str(uuid.uuid4()): {"direction": "egress", "ethertype": version} for version in ("IPv4", "IPv6")}
        group = SecurityGroup(str(uuid.uuid4()), project, name, description, self.clock(), rules)
        self.security_groups[group.id] = group
        return group

    def delete_security_group(self, group: SecurityGroup) -> None:
        """With the rules of others that let its members in."""
        del self.security_groups[group.id]
        for other in self.security_groups.values():
            other.rules = {id: rule for id, rule in other.rules.items() if rule.get("remote_group_id") != group.id}

    def _default_group(self, project: Project) -> SecurityGroup:
        group_id = stable_id("security-group", project.name)
        rules = {
            stable_id("rule", project.name, direction, version): {
                "direction": direction,
                "ethertype": version,
                "remote_group_id": group_id if direction == "ingress" else None,
            }
            for direction in ("ingress", "egress")
            for version in ("IPv4", "IPv6")
        }
        return SecurityGroup(group_id, project, SECURITY_GROUP, "Default security group", EPOCH, rules)

    def create_port(
        self,
        project: Project,
        *,
        name: str,
        mac: str | None = None,
        address: str | None = None,
        device: tuple[str, str] = ("", ""),
    ) -> Port:
        """A port on the network, in the default security group. ``device``: its owner and id."""
        id = str(uuid.uuid4())
        mac = mac or "fa:16:3e:" + ":".join(id[i : i + 2] for i in (0, 2, 4))
        default = stable_id("security-group", project.name)
        self.ports[id] = Port(id, project, name, mac, address or self._address(), self.clock(), [default], *device)
        return self.ports[id]

    # Servers

    def of_project(self, project: Project) -> list[Server]:
        """Newest first, as Nova lists them."""
        return [s for s in reversed(list(self.servers.values())) if s.project is project]

    def create(self, **what: Any) -> Server:
        """A new server in BUILD. ``what``: fields of `Server` that the request gave. Quota is not looked at."""
        now = self.clock()
        server = Server(id=str(uuid.uuid4()), created=now, updated=now, **what)
        server.faults = faults = self.faults.for_server(server.name)
        boot_time = faults.get("boot_time", self.boot_time)
        server.silent = bool(faults.get("silent"))
        server.under = tuple(map(str, faults.get("under", ())))
        server.error = faults.get("fail_build", "" if server.flavor.fits else "No valid host was found. ")
        server.boots_at = None if faults.get("stuck") else now + boot_time
        server.scheduled_at = now + min(0.2 * boot_time, 2)
        self.servers[server.id] = server
        return server

    def delete(self, server: Server) -> None:
        """It stays listed until its guest is dead."""
        if server.task != "deleting":
            server.task = "deleting"
            server.boots_at = None
            self.outbox.append(("delete", server))

    def act(self, server: Server, action: str, task: str, status: str = "") -> None:
        """Hand ``action`` ("stop", "boot" or "reboot") to whoever runs the guests."""
        server.task = task
        server.status = status or server.status
        server.updated = self.clock()
        server.shuts_off_at = None
        self.outbox.append((action, server))

    def settled(self, action: str, server: Server) -> None:
        """The guest of ``server`` has done ``action``."""
        server.updated = self.clock()
        if action == "delete":
            self.servers.pop(server.id, None)
        elif server.task != "deleting":
            server.task = None
            server.status = "SHUTOFF" if action == "stop" else "ACTIVE"

    def tick(self) -> float | None:
        """Let happen what is due. Returns when the next thing is due, None if nothing is."""
        now = self.clock()
        for server in list(self.servers.values()):
            if server.task == "deleting":
                continue
            if server.boots_at is not None and server.boots_at <= now:
                self._boot(server)
            elif server.status == "BUILD" and server.task == "scheduling" and server.scheduled_at <= now:
                server.task = "spawning"
            if server.vanishes_at is not None and server.vanishes_at <= now:
                server.task = "deleting"
                self.servers.pop(server.id)
                self.outbox.append(("delete", server))
            elif server.shuts_off_at is not None and server.shuts_off_at <= now:
                self.act(server, "stop", "powering-off")
        dues = [due for s in self.servers.values() if s.task != "deleting" for due in s.dues()]
        return min(dues, default=None)

    def apply_faults(self) -> None:
        """Let faults that were just set reach the servers that are ACTIVE already."""
        for server in self.servers.values():
            if server.status == "ACTIVE" and server.task is None:
                self._plan_end(server, self.faults.for_server(server.name, {"vanish_after", "shutoff_after"}))

    def _boot(self, server: Server) -> None:
        now = self.clock()
        server.boots_at = None
        server.updated = now
        server.task = None
        if server.error:
            server.status = "ERROR"
            return
        server.status = "ACTIVE"
        server.launched = now
        if server.networked:
            server.address = self._address()
        self._plan_end(server, server.faults)
        self.outbox.append(("boot", server))

    def _plan_end(self, server: Server, faults: dict[str, Any]) -> None:
        now = self.clock()
        if "vanish_after" in faults:
            server.vanishes_at = now + faults["vanish_after"]
        if "shutoff_after" in faults:
            server.shuts_off_at = now + faults["shutoff_after"]

    def _address(self) -> str:
        used = {s.address for s in self.servers.values()} | {port.address for port in self.ports.values()}
        while True:
            self._addresses += 1
            address = str(self.subnet.network_address + 10 + self._addresses % (self.subnet.num_addresses - 20))
            if address not in used:
                return address
