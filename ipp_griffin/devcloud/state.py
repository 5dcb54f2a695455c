"""The cloud's rules, in memory: who may log in, servers and their life, security groups, floating IPs. No HTTP, no processes.

Jobs for guests go into `CloudState.outbox`; whoever runs them calls `CloudState.settled` afterwards. Times are seconds since the epoch,
from the injected ``clock``.
"""

from __future__ import annotations

import ipaddress
import secrets
import time
import uuid
from collections.abc import Callable, Collection
from typing import Any

from .faults import Faults
from .things import (
    EPOCH,
    NETWORK,
    NETWORK_ID,
    PUBLIC_SUBNET,
    READ_SERVERS,
    ROLES,
    SECURITY_GROUP,
    SUBNET,
    SUBNET_ID,
    Container,
    Credential,
    FloatingIp,
    Network,
    Port,
    Project,
    SecurityGroup,
    Server,
    Token,
    User,
    stable_id,
)


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
        own = Network(NETWORK_ID, NETWORK, None, EPOCH, SUBNET_ID, f"{NETWORK}-subnet", ipaddress.IPv4Network(subnet))
        self.networks = {own.id: own}
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
        self.public = ipaddress.IPv4Network(PUBLIC_SUBNET)
        self.floating_ips: dict[str, FloatingIp] = {}
        self.containers: dict[tuple[str, str], Container] = {}  # by (project id, name)
        self.account_keys: dict[str, dict[str, str]] = {}  # of object stores: headers, by project id
        self.outbox: list[tuple[str, Server]] = []  # ("boot" | "stop" | "reboot" | "delete", server)
        self.console: Callable[[str, int | None], str] = lambda server_id, lines: ""
        # Several dev clouds of a machine share its loopback addresses: each begins somewhere else.
        self._next: dict[ipaddress.IPv4Network, int] = {}

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
        """Return a new token; ``parent``: the one that it was got by, at whose end it ends."""
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
        """Return the token if it exists and has not expired."""
        token = self.tokens.get(token_id)
        return token if token and token.expires > self.clock() else None

    # Networks

    def networks_of(self, project: Project) -> list[Network]:
        """Return those that a project sees; not the external one."""
        return [network for network in self.networks.values() if network.project in (None, project)]

    def create_network(self, project: Project, name: str) -> Network:
        made = Network(str(uuid.uuid4()), name, project, self.clock())
        self.networks[made.id] = made
        return made

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
        """Return a port on the network, in the default security group. ``device``: its owner and id."""
        id = str(uuid.uuid4())
        mac = mac or "fa:16:3e:" + ":".join(id[i : i + 2] for i in (0, 2, 4))
        default = stable_id("security-group", project.name)
        self.ports[id] = Port(
            id,
            project,
            name,
            mac,
            address or self._address(self.networks[NETWORK_ID]),
            self.clock(),
            [default],
            *device,
        )
        return self.ports[id]

    def delete_port(self, port: Port) -> None:
        del self.ports[port.id]
        self._detach(port.id)

    def floating_ips_of(self, project: Project) -> list[FloatingIp]:
        return [floating for floating in self.floating_ips.values() if floating.project is project]

    def create_floating_ip(self, project: Project, description: str) -> FloatingIp | None:
        """None where the external network has no address left."""
        address = self._free(self.public, {floating.address for floating in self.floating_ips.values()})
        if not address:
            return None
        now = self.clock()
        made = FloatingIp(str(uuid.uuid4()), project, address, now, description, updated=now)
        self.floating_ips[made.id] = made
        return made

    def floating_ip_at(self, port_id: str) -> FloatingIp | None:
        """Return the one that is attached to this port."""
        return next((floating for floating in self.floating_ips.values() if floating.port_id == port_id), None)

    def attach(self, floating: FloatingIp, port_id: str) -> None:
        """Attach it to a port that has none; "": detach it."""
        floating.port_id = port_id
        floating.updated = self.clock()
        floating.revision += 1

    def _detach(self, port_id: str) -> None:
        """The port is gone."""
        if floating := self.floating_ip_at(port_id):
            self.attach(floating, "")

    # Servers

    def of_project(self, project: Project) -> list[Server]:
        """Newest first, as Nova lists them."""
        return [s for s in reversed(list(self.servers.values())) if s.project is project]

    def create(self, **what: Any) -> Server:
        """Return a new server in BUILD. ``what``: fields of `Server` from the request. The quota is not checked."""
        now = self.clock()
        server = Server(id=str(uuid.uuid4()), created=now, updated=now, **what)
        server.faults = faults = self.faults.for_server(server.name)
        boot_time = faults.get("boot_time", self.boot_time)
        server.silent = bool(faults.get("silent"))
        server.under = tuple(map(str, faults.get("under", ())))
        server.error = (
            "" if server.flavor.fits else "No valid host was found. "
        )  # the scheduler's; a build's has its id
        if reason := faults.get("fail_build"):
            server.error = f"Build of instance {server.id} aborted: {reason}"
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
            self._detach(server.port_id)
        elif server.task != "deleting":
            server.task = None
            server.status = "SHUTOFF" if action == "stop" else "ACTIVE"

    def tick(self) -> float | None:
        """Apply state changes that are due. Return when the next one is due, None if none is."""
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
                self._detach(server.port_id)
                self.outbox.append(("delete", server))
            elif server.shuts_off_at is not None and server.shuts_off_at <= now:
                self.act(server, "stop", "powering-off")
        dues = [due for s in self.servers.values() if s.task != "deleting" for due in s.dues()]
        return min(dues, default=None)

    def apply_faults(self) -> None:
        """Apply new faults to servers that are ACTIVE already."""
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
        if server.network:
            server.address = self._address(server.network)
        self._plan_end(server, server.faults)
        self.outbox.append(("boot", server))

    def _plan_end(self, server: Server, faults: dict[str, Any]) -> None:
        now = self.clock()
        if "vanish_after" in faults:
            server.vanishes_at = now + faults["vanish_after"]
        if "shutoff_after" in faults:
            server.shuts_off_at = now + faults["shutoff_after"]

    def _address(self, network: Network) -> str:
        used = {s.address for s in self.servers.values()} | {port.address for port in self.ports.values()}
        return self._free(network.cidr, used) if network.cidr else ""

    def _free(self, network: ipaddress.IPv4Network, used: Collection[str]) -> str:
        """Return the next address of ``network`` that is not ``used``; "" where all are."""
        size = network.num_addresses - 20
        first = self._next.get(network, secrets.randbelow(size))
        for number in range(first, first + size):
            address = str(network.network_address + 10 + number % size)
            if address not in used:
                self._next[network] = number + 1
                return address
        return ""
