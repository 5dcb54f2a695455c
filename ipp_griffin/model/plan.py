"""Decide which servers an engine set needs. Pure: no clock, no network, no SDK.

`choose_image`, `choose_flavor` and `choose_network` make one choice from a setting and what the cloud offers, or raise `SettingError`
with a list of that. `make_plan` turns the choices and ``n`` into a `Plan`, the one description of the servers to create.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ..common.errors import QuotaTooSmall, SettingError
from .names import Place, server_name, server_tags

Named = TypeVar("Named", "Image", "Flavor", "Network")
Naming = Callable[[str], str]  # returns the full name of a setting, for errors


def shared_setting(name: str) -> str:
    """Return the full name, for errors, of a setting that all servers of a cluster share."""
    return f"GriffinCloud.{name}"


@dataclass(frozen=True)
class Image:
    """A bootable image. ``created_at``: ISO 8601, sorts as text. ``min_ram`` in MiB, ``min_disk`` in GiB."""

    id: str
    name: str
    created_at: str = ""
    min_ram: int = 0
    min_disk: int = 0


@dataclass(frozen=True)
class Flavor:
    """A server size. ``ram`` in MiB, ``disk`` in GiB (0: the flavor sets no limit)."""

    id: str
    name: str
    vcpus: int
    ram: int
    disk: int = 0


@dataclass(frozen=True)
class Network:
    """A network of the project; ``subnets`` are CIDRs. ``external``: no servers can be put there."""

    id: str
    name: str
    subnets: tuple[str, ...] = ()
    external: bool = False


@dataclass(frozen=True)
class Limits:
    """The project's quota and what is used of it; -1: no limit. ``ram`` in MiB. ``known``: whether the cloud tells it."""

    instances: int
    instances_used: int
    cores: int
    cores_used: int
    ram: int
    ram_used: int
    known: bool = True


@dataclass(frozen=True)
class Catalogue:
    """What a cloud offers a project, as far as the settings refer to it. ``security_groups``: id -> name."""

    networks: Sequence[Network]
    images: Sequence[Image]
    flavors: Sequence[Flavor]
    limits: Limits
    key_names: Sequence[str] = ()
    security_groups: Mapping[str, str] = field(default_factory=dict)
    zones: Sequence[str] = ()


@dataclass(frozen=True)
class ServerPlan:
    """One server to create: everything but its user-data. Name and tags follow from uid and place."""

    name: str
    place: Place
    engines: int
    tags: tuple[str, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """The servers of one engine set, and what they have in common."""

    uid: str
    engine_set: str
    image: Image
    flavor: Flavor
    network: Network
    servers: tuple[ServerPlan, ...]
    key_name: str = ""
    security_groups: tuple[str, ...] = ()
    availability_zone: str = ""

    @property
    def engines(self) -> int:
        return sum(server.engines for server in self.servers)

    def __str__(self) -> str:
        servers = "1 server" if len(self.servers) == 1 else f"{len(self.servers)} servers"
        engines = "1 engine" if self.engines == 1 else f"{self.engines} engines"
        return f"{engines} on {servers}: {self.on}"

    @property
    def on(self) -> str:
        """Return a description of the servers, for people."""
        return f"image {self.image.name}, flavor {self.flavor.name} ({self.flavor.vcpus} vCPU), network {self.network.name}"


def make_plan(
    *,
    n: int,
    uid: str,
    engine_set: str,
    image: Image,
    flavor: Flavor,
    network: Network,
    engines_per_server: int = 0,
    key_name: str = "",
    security_groups: Iterable[str] = (),
    availability_zone: str = "",
    metadata: Mapping[str, str] | None = None,
) -> Plan:
    """Spread ``n`` engines over servers, ``engines_per_server`` on each (0: one per vCPU of the flavor).

    The last server may have fewer. Raises `SettingError` if ``n`` or ``engines_per_server`` is invalid.
    """
    if n < 1:
        raise SettingError(f"Can't start {n} engines: -n (Cluster.n) must be 1 or more.")
    if engines_per_server < 0:
        raise SettingError(
            f"GriffinEngineSetLauncher.engines_per_server is {engines_per_server}: it must be 1 or more, "
            "or 0 for one engine per vCPU."
        )
    each = engines_per_server or max(1, flavor.vcpus)
    servers = tuple(
        ServerPlan(
            name=server_name(uid, place),
            place=place,
            engines=engines,
            tags=server_tags(uid, place),
            metadata={**(metadata or {}), "griffin:engines": str(engines)},
        )
        for place, engines in ((Place(engine_set, start // each), min(each, n - start)) for start in range(0, n, each))
    )
    return Plan(
        uid=uid,
        engine_set=engine_set,
        image=image,
        flavor=flavor,
        network=network,
        servers=servers,
        key_name=key_name,
        security_groups=tuple(security_groups),
        availability_zone=availability_zone,
    )


def choose_image(wanted: str, images: Iterable[Image], naming: Naming = shared_setting) -> Image:
    """Return the image with this id or name, else the latest one whose name matches the pattern.

    Latest means the highest number in the name, so that snapshot10 beats snapshot2; among equal numbers, and names without one, the
    most recently created. If several images have exactly this name, it is the newest of them: clouds republish images under the same
    name.
    """
    images = list(images)
    exact = [i for i in images if i.id == wanted] or [i for i in images if i.name == wanted]
    found = exact or [i for i in images if fnmatch.fnmatchcase(i.name, wanted)]
    if not found:
        raise SettingError(
            f"No image {wanted!r}. This cloud has: {_listing(i.name for i in images)}. Set {naming('image')}."
        )
    return max(found, key=lambda i: (_number(i.name), i.created_at, i.id))


def choose_flavor(wanted: str, flavors: Iterable[Flavor], image: Image, naming: Naming = shared_setting) -> Flavor:
    """Return the flavor with this id or name; for "" the smallest that fits the image."""
    flavors = list(flavors)
    if wanted:
        return _one("flavor", wanted, flavors, lambda f: f"{f.name} ({f.vcpus} vCPU, {f.ram} MiB)", naming)
    fitting = [f for f in flavors if f.ram >= image.min_ram and (f.disk == 0 or f.disk >= image.min_disk)]
    if not fitting:
        raise SettingError(
            f"No flavor has the {image.min_ram} MiB and {image.min_disk} GiB that image {image.name!r} needs. "
            f"This cloud has: {_listing(f.name for f in flavors)}. Set {naming('image')}."
        )
    # A flavor without a disk may require a volume, which this project does not create.
    return min(fitting, key=lambda f: (f.disk == 0, f.vcpus, f.ram, f.disk, f.name))


def choose_network(wanted: str, networks: Iterable[Network], naming: Naming = shared_setting) -> Network:
    """Return the network with this id or name; for "" the project's only one. An external network is only taken by name."""
    networks = list(networks)
    if wanted:
        return _one("network", wanted, networks, lambda network: network.name or network.id, naming)
    usable = [network for network in networks if not network.external]
    if len(usable) == 1:
        return usable[0]
    if usable:
        raise SettingError(
            f"This project has several networks: {_labels(usable)}. Set {naming('network')} to one of them."
        )
    if networks:
        raise SettingError(
            f"This project has only external networks: {_labels(networks)}. Create a network, or, if servers may "
            f"be on an external one, set {naming('network')} to it."
        )
    raise SettingError("This project has no network for servers: create one.")


def _labels(networks: Iterable[Network]) -> str:
    """Return a list of names, with the id where a name is not enough."""
    networks = list(networks)
    names = [network.name for network in networks]
    return _listing(
        n.name if n.name and names.count(n.name) == 1 else f"{n.name or 'no name'} (id {n.id})" for n in networks
    )


def check_names(
    setting: str, kind: str, wanted: Iterable[str], existing: Iterable[str], ids: Iterable[str] = ()
) -> None:
    """Raise `SettingError` for names (or ``ids``) that this cloud does not have. ``setting``: its full name, for errors."""
    existing = set(existing)
    for name in wanted:
        if name not in existing and name not in set(ids):
            raise SettingError(f"No {kind} {name!r}. This cloud has: {_listing(existing)}. Set {setting}.")


def check_quota(plan: Plan, limits: Limits, *, role: str = "") -> None:
    """Raise `QuotaTooSmall` if the project's quota is too small for the plan now.

    ``role``: what its servers run, if not engines.
    """
    count = len(plan.servers)
    wanted = {
        "instances": (count, limits.instances, limits.instances_used),
        "cores": (count * plan.flavor.vcpus, limits.cores, limits.cores_used),
        "ram": (count * plan.flavor.ram, limits.ram, limits.ram_used),
    }
    short = [
        f"{need} {kind}, but {used} of {most} are used"
        for kind, (need, most, used) in wanted.items()
        if most >= 0 and used + need > most
    ]
    if short:
        what = f"the {role}'s server" if role else f"{plan.engines} engines on {count} servers"
        advice = "Free some" if role else "Start fewer engines, put more on each server, or free some"
        raise QuotaTooSmall(
            f"The project's quota is too small for {what} of flavor {plan.flavor.name}: this needs {'; '.join(short)}. {advice}: "
            "`ipp-griffin ps` shows your clusters, `ipp-griffin reap` deletes what earlier ones left."
        )


def _one(kind: str, wanted: str, offered: list[Named], describe: Callable[[Named], str], naming: Naming) -> Named:
    found = [t for t in offered if t.id == wanted] or [t for t in offered if t.name == wanted]
    if len(found) == 1:
        return found[0]
    if found:
        ids = ", ".join(t.id for t in found)
        raise SettingError(f"Several {kind}s are named {wanted!r}: set {naming(kind)} to one of the ids {ids}.")
    raise SettingError(
        f"No {kind} {wanted!r}. This cloud has: {_listing(describe(t) for t in offered)}. Set {naming(kind)}."
    )


def _number(name: str) -> int:
    digits = re.findall(r"\d+", name)
    return int(digits[-1]) if digits else -1


def _listing(names: Iterable[str], most: int = 20) -> str:
    names = sorted(set(names), key=_natural)
    if not names:
        return "none"
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in re.split(r"(\d+)", name)]
