"""The security groups that `GriffinCloud.manage_security_group` makes for each cluster.

Each cluster has two. Its servers are in ``griffin-<uid>-engines``, which admits nothing. If the controller's address is that of a port
of this project (the head node is a server of the cloud), that port is also put into ``griffin-<uid>-controller``, which admits the
first group to the controller's ports. A controller on a server is created in that group, which then also admits clients to their ports.
The groups are found by name, from any process. API: https://docs.openstack.org/api-ref/network/v2/#security-groups-security-groups
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ..common.errors import CloudError
from ..common.text import one_line
from .ports import Port, Ports
from .session import Api, parse

__all__ = ["ClusterGroups", "SecurityGroup"]

ENGINES, CONTROLLER = "engines", "controller"


@dataclass(frozen=True)
class SecurityGroup:
    """A group of a cluster. ``uid``: the cluster's; ``part``: "engines" or "controller"; ``user_id``: who made it, "" if unknown; ``created``:
    ISO 8601, in UTC."""

    id: str
    name: str
    uid: str
    part: str
    user_id: str = ""
    created: str = ""


def group_name(uid: str, part: str) -> str:
    return f"griffin-{uid}-{part}"


class ClusterGroups:
    """The clusters' security groups in one project. All methods block; each may raise `CloudError`."""

    def __init__(self, api: Api, ports: Ports) -> None:
        self._api, self._ports = api, ports

    def all(self) -> list[SecurityGroup]:
        """Return those of all clusters. One request per page."""
        return self._listed({})

    def of(self, uid: str) -> list[SecurityGroup]:
        """Return those of one cluster. One request."""
        found = self._listed({"name": [group_name(uid, part) for part in (ENGINES, CONTROLLER)]})
        return [group for group in found if group.uid == uid]

    def make(self, uid: str, head: Port | None, ports: tuple[int, int]) -> SecurityGroup:
        """Make a cluster's missing groups, admit its engines to ``ports`` (first, last) of the ``head`` port, and return the group for the
        servers. Idempotent.

        Raises `QuotaError` if the project may have no more groups or rules.
        """
        engines = self._ensure(uid, ENGINES)
        if head is not None:
            controller = self._ensure(uid, CONTROLLER)
            self._let_in(controller, engines.name, {"remote_group_id": engines.id}, ports)
            self._ports.change_groups(head.id, lambda now: [*now, controller.id] if controller.id not in now else now)
        return engines

    def make_for_server(self, uid: str) -> SecurityGroup:
        """Make both groups if missing, and return the one for the controller's server, which admits nobody yet. Idempotent."""
        self._ensure(uid, ENGINES)
        return self._ensure(uid, CONTROLLER)

    def let_in(
        self,
        uid: str,
        *,
        engines: Iterable[tuple[int, int]] = (),
        clients: Iterable[tuple[int, int]] = (),
        client: str = "",
        made: list[str] | None = None,
    ) -> None:
        """Admit a cluster's engines, and the addresses of ``client`` (a CIDR), to these ranges of TCP ports of its controller. Append the ids of
        new rules to ``made``, even if it fails half-way. Idempotent.

        Raises `QuotaError` if the project may have no more rules, `CloudError` if the groups are gone: somebody is stopping the
        cluster, so they are not made again.
        """
        parts = {group.part: group for group in self.of(uid)}
        if not parts.keys() >= {CONTROLLER, ENGINES}:
            raise CloudError(
                f"The security groups of cluster {uid} are gone: somebody stopped the cluster.", status=404
            )
        controller, members = parts[CONTROLLER], parts[ENGINES]
        wanted = [(members.name, {"remote_group_id": members.id}, ports) for ports in engines]
        wanted += [(client, {"remote_ip_prefix": client}, ports) for ports in clients]
        for rule in wanted:
            if (id := self._let_in(controller, *rule)) and made is not None:
                made.append(id)

    def shut(self, rules: Iterable[str]) -> None:
        """Delete rules, by their ids. Idempotent."""
        for id in rules:
            path = f"/security-group-rules/{quote(id, safe='')}"
            self._api.delete(f"Can't delete security group rule {id}", "network", path)

    def exist(self, uid: str) -> bool:
        """Return whether a cluster has any. One request. False if these credentials may not list any, or the cloud has no groups."""
        try:
            return bool(self.of(uid))
        except CloudError as error:
            if error.status not in (403, 404):
                raise
            return False

    def has_controller(self, uid: str) -> bool:
        """Return whether the port of the controller, on any server, is in a group of the cluster. One request."""
        return any(group.part == CONTROLLER for group in self.of(uid))

    def remove(
        self,
        uid: str,
        *,
        timeout: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Delete a cluster's groups, and confirm that they are gone. Idempotent; one request if there are none.

        The port of the controller is removed from its group first. A group is in use while a port of a server is in it: raises
        `CloudError` if one still is after ``timeout`` seconds.
        """
        deadline, pause = clock() + timeout, 0.2
        while groups := self._of_ours(uid):
            used = [group.name for group in groups if not self._delete(group)]
            if used and clock() > deadline:
                raise CloudError(
                    f"These security groups are still in use {timeout:.0f} s after their servers' deletion: "
                    f"{', '.join(used)}. Remove the ports that are in them, then delete them with `openstack "
                    "security group delete`."
                )
            if used:
                sleep(pause)
                pause = min(pause * 1.5, 2.0)

    # -- one request each

    def _of_ours(self, uid: str) -> list[SecurityGroup]:
        """Return what `of` returns; nothing if these credentials may not list groups: then they can't have made one."""
        try:
            return self.of(uid)
        except CloudError as error:
            if error.status != 403:
                raise
            return []

    def _listed(self, params: Mapping[str, Any]) -> list[SecurityGroup]:
        params = {**params, "project_id": self._api.project_id}  # an administrator sees those of all projects
        found = self._api.listing("network", "/security-groups", "security_groups", _group, params=params)
        return [group for group in found if group is not None]

    def _ensure(self, uid: str, part: str) -> SecurityGroup:
        """Return the group of that part; make it if missing. A POST whose answer was lost may have made it, so groups are listed before each
        attempt."""
        name = group_name(uid, part)
        what = f"Can't make security group {name}"
        text = f"ipp-griffin: {part} of cluster {uid}, user {self._api.user_id}"

        def attempt() -> SecurityGroup:
            for group in self.of(uid):
                if group.part == part:
                    return group
            body = {"security_group": {"name": name, "description": text}}
            response = self._api.send(what, "network", "POST", "/security-groups", json=body)
            return parse(what, response, lambda answer: _made(answer["security_group"]))

        return self._api.retry(attempt)

    def _let_in(self, controller: SecurityGroup, whom: str, remote: Mapping[str, str], ports: tuple[int, int]) -> str:
        """Make a rule and return its id; "" if it exists already, perhaps from an attempt whose answer was lost."""
        rule = {
            "security_group_id": controller.id,
            **remote,
            "direction": "ingress",
            "ethertype": "IPv4",
            "protocol": "tcp",
            "port_range_min": ports[0],
            "port_range_max": ports[1],
        }
        what = f"Can't admit {whom} to {controller.name}"
        body = {"security_group_rule": rule}

        def id_of(answer: Mapping[str, Any]) -> str:
            return str(answer["security_group_rule"]["id"])

        try:
            return self._api.ask(what, "network", "/security-group-rules", id_of, method="POST", json=body)
        except CloudError as error:
            if error.status != 409 or "exists" not in str(error):
                raise
            return ""

    def _delete(self, group: SecurityGroup) -> bool:
        """Return whether it is gone; False if there are still ports in it."""
        if group.part == CONTROLLER:
            for port in self._ports.of_group(group.id):
                self._ports.change_groups(port.id, lambda now: [id for id in now if id != group.id])
        try:
            what, path = f"Can't delete security group {group.name}", f"/security-groups/{quote(group.id, safe='')}"
            self._api.delete(what, "network", path)
        except CloudError as error:
            if error.status != 409:
                raise
            return False
        return True


def _made(found: Mapping[str, Any]) -> SecurityGroup:
    group = _group(found)
    if group is None:
        raise ValueError("not the group that was asked for")
    return group


def _group(found: Mapping[str, Any]) -> SecurityGroup | None:
    """Return the group in Neutron's JSON; None if it does not belong to a cluster."""
    name = str(found.get("name") or "")
    match = re.fullmatch(f"griffin-([0-9a-f]{{12}})-({ENGINES}|{CONTROLLER})", name)
    if match is None:
        return None
    user = re.search(r", user (\S+)$", str(found.get("description") or ""))
    return SecurityGroup(
        id=str(found["id"]),
        name=name,
        uid=match[1],
        part=match[2],
        user_id=one_line(user[1]) if user else "",
        created=one_line(found.get("created_at") or ""),
    )
