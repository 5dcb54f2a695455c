"""The ports of a project's networks: that of the head node, and those left by deleted servers.

API: https://docs.openstack.org/api-ref/network/v2/#ports and, for ``If-Match``, https://docs.openstack.org/api-ref/network/v2/#revisions
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

from ..common.errors import CloudError
from ..common.threads import concurrently
from .session import Api

CHANGED = 412  # somebody else changed the port in the meantime
MOST_NAMED = 100  # servers that one request asks for: the length of a URL has limits


@dataclass(frozen=True)
class Port:
    """A Neutron port. ``groups``: the ids of its security groups; ``server``: the id of its server, "" for none."""

    id: str
    groups: tuple[str, ...] = ()
    mac: str = ""
    server: str = ""


class Ports:
    """The ports of a project. All methods block; each may raise `CloudError`."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def head(self, address: str, macs: Collection[str]) -> Port | None:
        """Return the port with this IPv4 ``address`` and one of these MAC addresses, which are this machine's, since another network may have the
        same address. None if this machine is not a server of the project."""
        wanted = {mac.lower() for mac in macs}
        return next((port for port in self._listed({"fixed_ips": f"ip_address={address}"}) if port.mac in wanted), None)

    def of_server_at(self, address: str) -> Port | None:
        """Return the one port of a server of this project that has this IPv4 ``address``; None if there is none, or several."""
        found = [port for port in self._listed({"fixed_ips": f"ip_address={address}"}) if port.server]
        return found[0] if len(found) == 1 else None

    def of_group(self, group_id: str) -> list[Port]:
        """Return the ports in a security group."""
        # Old releases don't filter by it.
        return [port for port in self._listed({"security_groups": group_id}) if group_id in port.groups]

    def of_servers(self, server_ids: Iterable[str]) -> list[Port]:
        """Return the ports of these servers. One request for each hundred servers, all at the same time. None if these credentials may not list
        any."""
        ids = sorted(server_ids)
        chunks = [ids[start : start + MOST_NAMED] for start in range(0, len(ids), MOST_NAMED)]
        try:
            found = concurrently(*(partial(self._listed, {"device_id": chunk}) for chunk in chunks))
        except CloudError as error:
            if error.status != 403:
                raise
            return []
        return [port for ports in found for port in ports if port.server in ids]

    def delete(self, port_id: str) -> None:
        """Delete a port. Idempotent."""
        self._api.delete(f"Can't delete port {port_id}", "network", f"/ports/{quote(port_id, safe='')}")

    def change_groups(self, port_id: str, groups: Callable[[list[str]], Iterable[str]]) -> None:
        """Change the security groups of a port to what ``groups`` returns for the current ones; a port that is gone is no error.

        Another cluster may do so at the same time: the revision number tells whether what was read is still true.
        """
        what, path = f"Can't change the security groups of port {port_id}", f"/ports/{quote(port_id, safe='')}"

        def attempt() -> None:
            now, revision = self._api.ask(
                what, "network", path, lambda a: (list(a["port"]["security_groups"]), a["port"].get("revision_number"))
            )
            wanted = list(groups(now))
            if wanted == now:
                return
            headers = {} if revision is None else {"If-Match": f"revision_number={revision}"}
            body = {"port": {"security_groups": wanted}}
            self._api.send(what, "network", "PUT", path, json=body, headers=headers)

        try:
            self._api.retry(attempt, CHANGED)
        except CloudError as error:
            if error.status != 404:
                raise

    def _listed(self, params: Mapping[str, Any]) -> list[Port]:
        params = {**params, "project_id": self._api.project_id}  # an administrator sees those of all projects
        return self._api.listing("network", "/ports", "ports", _port, params=params)


def _port(found: Mapping[str, Any]) -> Port:
    return Port(
        id=str(found["id"]),
        groups=tuple(str(id) for id in found.get("security_groups") or ()),
        mac=str(found.get("mac_address") or "").lower(),
        server=str(found.get("device_id") or "") if str(found.get("device_owner")).startswith("compute:") else "",
    )
