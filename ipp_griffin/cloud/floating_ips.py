"""Floating IPs: the address by which clients reach a controller that runs on a server of the cloud.

A floating IP that was allocated for a cluster has the cluster's uid in its description, and is found by that from any process. One that
the project had before is only attached; Neutron detaches it when its server's port is deleted. API:
https://docs.openstack.org/api-ref/network/v2/#floating-ips-floatingips
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from ..common.errors import CloudError, QuotaError, SettingError, Unsupported
from ..common.text import one_line
from ..model.names import AUTO
from .ports import CHANGED, Ports
from .session import Api, parse

__all__ = ["FloatingIp", "FloatingIps"]

T = TypeVar("T")

TRAIT, POOL = "GriffinServerControllerLauncher.floating_ip", "GriffinServerControllerLauncher.floating_ip_pool"
# Neutron's texts (409 IpAddressGenerationFailure, 400 ExternalIpAddressExhausted) when an external network has no address left.
_EXHAUSTED = re.compile(r"(?i)no more ip addresses|unable to find any ip address")


@dataclass(frozen=True)
class FloatingIp:
    """A floating IP of the project. ``uid``: the cluster that it was allocated for, "" for none; ``port_id``: the port that it is attached to,
    "" for none; ``user_id``: who allocated it, "" if unknown; ``created``: ISO 8601, in UTC; ``revision``: Neutron's count of its
    changes, None if it keeps none."""

    id: str
    address: str
    uid: str = ""
    port_id: str = ""
    user_id: str = ""
    created: str = ""
    revision: int | None = None


class FloatingIps:
    """The floating IPs of a project. All methods block; each may raise `CloudError`."""

    def __init__(self, api: Api, ports: Ports) -> None:
        self._api, self._ports = api, ports
        self._ours: dict[str, set[str]] = {}  # the ports that this object attached each to

    def all(self) -> list[FloatingIp]:
        """Return those that were allocated for clusters. One request per page. None on a cloud without floating IPs, or if these credentials may
        not list any: then they can't have allocated one."""
        try:
            return [floating for floating in self._listed() if floating.uid]
        except CloudError as error:
            if error.status not in (403, 404):
                raise
            return []

    def of(self, uid: str) -> list[FloatingIp]:
        """Return those that were allocated for one cluster. One request per page."""
        return [floating for floating in self.all() if floating.uid == uid]

    def reserve(self, uid: str, wanted: str, pool: str) -> FloatingIp:
        """Return the floating IP for a cluster, not attached yet. Idempotent.

        ``wanted``: "auto" to allocate one for the cluster from the external network ``pool`` (name or id, "" for the only one); else
        the address of one that the project has.

        Raises `SettingError` listing what exists, `QuotaError` if none is left, `Unsupported` on a cloud without floating IPs.
        """
        return self._allocate(uid, pool) if wanted == AUTO else self._find(wanted)

    def attach(self, floating: FloatingIp, server_id: str) -> None:
        """Attach it to the port of an ACTIVE server; detach it from another server of the cluster if necessary. Idempotent.

        Somebody else may attach it at the same time: the revision number tells whether what was read is still true. Raises
        `SettingError` if one that the project had before is in use by then.
        """
        what = f"Can't attach floating IP {floating.address} to server {server_id}"
        ports = self._ports.of_servers([server_id])
        if not ports:
            raise CloudError(f"{what}: the server has no port, or these credentials may not see it.")
        ours = self._ours.setdefault(floating.id, set())

        def attempt() -> None:
            listed = self._listed()
            now = next((found for found in listed if found.id == floating.id), None)
            if now is None:
                raise CloudError(f"{what}: it is gone.", status=404)
            if now.port_id == ports[0].id:
                return
            if now.port_id and not now.uid and now.port_id not in ours:
                raise _in_use(now, listed)
            ours.add(ports[0].id)
            headers = {} if now.revision is None else {"If-Match": f"revision_number={now.revision}"}
            body = {"floatingip": {"port_id": ports[0].id}}
            self._api.send(what, "network", "PUT", _path(floating), json=body, headers=headers)

        try:
            self._api.retry(attempt, CHANGED)
        except CloudError as error:
            if error.status != 404 or "not reachable" not in str(error):
                raise
            raise CloudError(
                f"{one_line(error, 600)} Connect both networks with a router (`openstack router set --external-gateway`, "
                f"`openstack router add subnet`), or set {POOL} to another external network.",
                request_id=error.request_id,
                status=error.status,
            ) from None

    def release(self, uid: str) -> None:
        """Release those that were allocated for a cluster, attached or not. Idempotent; one request if there are none.

        Tries all of them, then raises the first error.
        """
        failed: list[CloudError] = []
        for floating in self.of(uid):
            try:
                self._release(floating)
            except CloudError as error:
                failed.append(error)
        if failed:
            raise failed[0]

    # -- the ways to get one

    def _allocate(self, uid: str, pool: str) -> FloatingIp:
        """Allocate a floating IP. A POST whose answer was lost may have succeeded, so the listing is read before each attempt."""

        def attempt() -> FloatingIp:
            for floating in self._listed():
                if floating.uid == uid:
                    return floating
            return self._post(uid, *self._external(pool))

        return self._api.retry(attempt, CHANGED)

    def _post(self, uid: str, network_id: str, name: str) -> FloatingIp:
        what = f"Can't allocate a floating IP from network {name}"
        text = f"ipp-griffin: controller of cluster {uid}, user {self._api.user_id}"
        body = {"floatingip": {"floating_network_id": network_id, "description": text}}
        try:
            response = self._api.send(what, "network", "POST", "/floatingips", json=body)
        except CloudError as error:
            if not isinstance(error, QuotaError) and not _EXHAUSTED.search(str(error)):
                raise
            # The usual advice for a quota, fewer engines, does not help here.
            said = str(error).removeprefix(f"{what}: ").partition(" Start fewer engines")[0].rstrip(". ")
            raise QuotaError(
                f"No floating IP is left on network {name}: {said}. Release one that nobody needs (`openstack floating ip list`, "
                f"`ipp-griffin reap`), ask for more, or set {TRAIT} to the address of one that the project has.",
                request_id=error.request_id,
                status=error.status,
            ) from None
        return parse(what, response, lambda answer: _floating(answer["floatingip"]))

    def _external(self, pool: str) -> tuple[str, str]:
        """Return the id and name of the external network ``pool``. Raises `SettingError` listing those that exist."""
        params = {"router:external": "true"}
        listed = self._api.listing("network", "/networks", "networks", _external, params=params)
        networks = [network for network in listed if network is not None]
        named = [network for network in networks if network[0] == pool] or [n for n in networks if pool in ("", n[1])]
        if len(named) == 1:
            return named[0]
        there = ", ".join(f"{name} ({id})" for id, name in sorted(networks, key=lambda n: n[::-1])) or "none"
        if not networks:
            raise SettingError(
                f"This project sees no external network to allocate a floating IP from ({POOL} = {pool!r}). "
                f"Leave {TRAIT} empty."
            )
        if not named:
            raise SettingError(
                f"There is no external network {pool!r}. External networks: {there}. Set {POOL} to one of them."
            )
        several = f"are called {pool!r}" if pool else "are there"
        raise SettingError(f"Several external networks {several}: {there}. Set {POOL} to the id of one of them.")

    def _find(self, wanted: str) -> FloatingIp:
        """Return the one with this address. Raises `SettingError`, listing those that are free, if it does not exist or is in use."""
        address = _address(wanted)
        if not address:
            raise SettingError(f'{TRAIT} {wanted!r} is neither "{AUTO}" nor an IP address.')
        listed = self._listed()
        found = next((floating for floating in listed if floating.address == address), None)
        if found is None:
            raise SettingError(f"This project has no floating IP {address}. {_others(listed)}")
        if found.port_id:
            raise _in_use(found, listed)
        if found.uid:  # that cluster will release it
            raise SettingError(f"Floating IP {address} was allocated for cluster {found.uid}. {_others(listed)}")
        return found

    # -- one request each

    def _release(self, floating: FloatingIp) -> None:
        what = f"Can't release floating IP {floating.address}"
        self._api.delete(what, "network", _path(floating), CHANGED)

    def _listed(self) -> list[FloatingIp]:
        params = {"project_id": self._api.project_id}  # an administrator sees those of all projects
        try:
            return self._api.listing("network", "/floatingips", "floatingips", _floating, params=params)
        except CloudError as error:
            if error.status != 404:
                raise
            raise Unsupported(
                f"This cloud has no floating IPs: its network service lacks the router extension. Leave {TRAIT} empty.",
                request_id=error.request_id,
                status=error.status,
            ) from None


def _in_use(floating: FloatingIp, listed: list[FloatingIp]) -> SettingError:
    return SettingError(
        f"Floating IP {floating.address} is in use: it is attached to port {floating.port_id}. {_others(listed)}"
    )


def _others(listed: list[FloatingIp]) -> str:
    """Return advice on what to set instead."""
    free = ", ".join(sorted(found.address for found in listed if not found.port_id and not found.uid)) or "none"
    return f'Set {TRAIT} to one that is free ({free}), or to "{AUTO}".'


def _path(floating: FloatingIp) -> str:
    return f"/floatingips/{quote(floating.id, safe='')}"


def _address(text: object) -> str:
    """Return the IP address of a floating IP, "" for anything else: it ends up in connection files and on command lines."""
    try:
        return str(ipaddress.ip_address(str(text)))
    except ValueError:
        return ""


def _external(found: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the id and name; None for a network that is not external: the filter alone is not trusted."""
    return (str(found["id"]), one_line(found.get("name") or "")) if found.get("router:external") else None


def _floating(found: Mapping[str, Any]) -> FloatingIp:
    text = str(found.get("description") or "")
    ours = re.fullmatch(r"ipp-griffin: controller of cluster ([0-9a-f]{12}), user (\S*)", text)
    return FloatingIp(
        id=str(found["id"]),
        address=_address(found.get("floating_ip_address")),
        uid=ours[1] if ours else "",
        port_id=str(found.get("port_id") or ""),
        user_id=one_line(ours[2]) if ours else "",
        created=one_line(found.get("created_at") or ""),
        revision=found.get("revision_number"),
    )
