"""The security groups of a cluster's own, which `GriffinCloud.manage_security_group` makes: what Neutron lets through to whom.

Two for each cluster. Its servers are in ``griffin-<uid>-engines``, which lets nothing in. Where the controller's address is that of
a port of this project (the head node is a server of the cloud), that port is put into ``griffin-<uid>-controller`` besides its own
groups, which lets the former one in, to the controller's ports. A controller on a server of its own is in that group from its creation
on, which lets clients in, too, to their ports. Their names find them again: no id is needed, whoever made them.
API: https://docs.openstack.org/api-ref/network/v2/#security-groups-security-groups
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
    """A group of a cluster. ``uid`` names the cluster, ``part`` is "engines" or "controller", ``user_id`` who made it ("" if it
    does not say), ``created`` ISO 8601 in UTC."""

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
        """Return those of all clusters. One request a page."""
        return self._listed({})

    def of(self, uid: str) -> list[SecurityGroup]:
        """Return those of one cluster. One request."""
        found = self._listed({"name": [group_name(uid, part) for part in (ENGINES, CONTROLLER)]})
        return [group for group in found if group.uid == uid]

    def make(self, uid: str, head: Port | None, ports: tuple[int, int]) -> SecurityGroup:
        """Make what is missing of a cluster's groups, and let its engines in to the first to the last of ``ports`` of the
        ``head`` port. Returns the group for the servers. Idempotent.

        Raises `QuotaError` where the project may have no more groups or rules.
        """
        engines = self._ensure(uid, ENGINES)
        if head is not None:
            controller = self._ensure(uid, CONTROLLER)
            self._let_in(controller, engines.name, {"remote_group_id": engines.id}, ports)
            self._ports.change_groups(head.id, lambda now: [*now, controller.id] if controller.id not in now else now)
        return engines

    def make_for_server(self, uid: str) -> SecurityGroup:
        """Make what is missing of both groups, and return that for the controller's server, which lets nobody in yet. Idempotent."""
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
        """Let a cluster's engines, and the addresses of ``client`` (a CIDR), in to these ranges of TCP ports of its controller. The ids of
        rules that were not there before go into ``made``, also where it fails half-way. Idempotent.

        Raises `QuotaError` where the project may have no more rules, `CloudError` where the groups are gone: they are not made
        again for a cluster that somebody stops at the same time.
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
        """Return whether a cluster has any. One request; none where these credentials may not see any, or the cloud has no groups."""
        try:
            return bool(self.of(uid))
        except CloudError as error:
            if error.status not in (403, 404):
                raise
            return False

    def has_controller(self, uid: str) -> bool:
        """Return whether the controller's port, of whichever server, is in a group of the cluster's. One request."""
        return any(group.part == CONTROLLER for group in self.of(uid))

    def remove(
        self,
        uid: str,
        *,
        timeout: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Delete a cluster's groups, and see that they are gone. Idempotent; one request where there are none.

        The port of the controller is taken out of its group first. A group is in use for as long as a port of a server is
        in it: raises `CloudError` where one still is after ``timeout`` seconds.
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
        """Return what `of` returns; nothing where these credentials may not see any: then they can't have made one."""
        try:
            return self.of(uid)
        except CloudError as error:
            if error.status != 403:
                raise
            return []

    def _listed(self, params: Mapping[str, Any]) -> list[SecurityGroup]:
        params = {**params, "project_id": self._api.project_id}  # an administrator would see those of all projects
        found = self._api.listing("network", "/security-groups", "security_groups", _group, params=params)
        return [group for group in found if group is not None]

    def _ensure(self, uid: str, part: str) -> SecurityGroup:
        """Return the group of that part. A POST whose answer was lost may have made it: listed before each try."""
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
        """Return the id of the rule; "" for one that was there, or that a try whose answer was lost has made."""
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
        """Return whether it is gone; False if ports are in it still."""
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
    """Return the group of Neutron's JSON; None for one of no cluster."""
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
