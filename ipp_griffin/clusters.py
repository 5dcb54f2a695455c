"""The clusters in a cloud project, by what they have there alone: no cluster file, no profile, no local state. Blocking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from .calls import one_line
from .engine_set import DEAD, sweep
from .plan import MARKER_TAG, SettingError, place_of

if TYPE_CHECKING:
    from .cloud import Cloud, Server
    from .report import Report
    from .store import Store

LABELS = ("owner", "host", "container", "profile", "cluster_id", "start_deadline")


@dataclass(frozen=True)
class Member:
    """One server of a cluster. ``engines``: how many it is to run; ``phase``: see `phase_of`."""

    server: Server
    engine_set: str
    slot: int
    engines: int
    phase: str


@dataclass(frozen=True)
class Cluster:
    """One cluster. ``labels``: what its launcher wrote down for people, each a printable line ("" where it is unknown).

    ``mine``: the user of these credentials started it.
    """

    uid: str
    labels: Mapping[str, str]
    members: tuple[Member, ...]
    mine: bool

    @property
    def name(self) -> str:
        """As its owner calls it: the profile, with the cluster id where there is one."""
        return "/".join(part for part in (self.labels["profile"], self.labels["cluster_id"]) if part)

    @property
    def phases(self) -> dict[str, int]:
        """How many servers are in each phase."""
        return dict(Counter(member.phase for member in self.members))

    @property
    def engines(self) -> int:
        """How many engines it is to have."""
        return sum(member.engines for member in self.members)

    @property
    def engines_up(self) -> int:
        """How many of them their servers say are registered."""
        return sum(member.engines for member in self.members if member.phase == "engines")

    def age(self, now: datetime) -> float:
        """Seconds since its oldest server was created; 0 without servers."""
        return max((_seconds_since(member.server.created, now) for member in self.members), default=0.0)

    def vcpu_hours(self, now: datetime) -> float:
        """What the servers that are there have used, from their creation: clouds bill more than that, or less."""
        hours = (_seconds_since(m.server.created, now) / 3600 * m.server.vcpus for m in self.members)
        return sum(hours)


class Clusters:
    """Those in the project of ``cloud``.

    ``open_store``: the object store, for containers whose names start with its argument; ``prefix``: that of clusters
    which have no server that tells. All methods raise `cloud.CloudError`.
    """

    def __init__(self, cloud: Cloud, open_store: Callable[[str], Store], prefix: str) -> None:
        self._cloud, self._prefix = cloud, prefix
        self._open_store = open_store
        self._stores: dict[str, Store] = {}

    def all(self, *, everyone: bool = False) -> list[Cluster]:
        """One's own, or ``everyone``'s, the oldest last. Two listings, one of reports for each cluster, and one request
        for each container that has no server."""
        by_uid: dict[str, list[Server]] = {uid: [] for uid in self._store().containers()}
        for server in self._cloud.servers(MARKER_TAG):
            if place := place_of(server.tags):
                by_uid.setdefault(place.uid, []).append(server)
        found = [self._cluster(uid, servers) for uid, servers in by_uid.items()]
        now = datetime.now(timezone.utc)
        return sorted(
            (cluster for cluster in found if cluster and (everyone or cluster.mine)), key=lambda c: (c.age(now), c.uid)
        )

    def find(self, name: str, *, everyone: bool = False) -> Cluster:
        """The cluster with this uid, or this profile (or profile/cluster id). Raises `SettingError`."""
        known = self.all(everyone=True)
        mine = [cluster for cluster in known if cluster.mine or everyone]
        found = [c for c in mine if c.uid == name] or [c for c in mine if c.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise SettingError(f"Several clusters are called {name!r}: say which, by {_listing(found)}.")
        if any(name in (cluster.uid, cluster.name) for cluster in known):
            raise SettingError(f"Cluster {name!r} is somebody else's: add --all-owners if you mean it.")
        raise SettingError(f"There is no cluster {name!r} in this project. There is: {_listing(mine)}.")

    def stop(self, cluster: Cluster, *, timeout: float) -> None:
        """Delete all that it has in the cloud, and see that it is gone. Idempotent."""
        sweep(self._cloud, self._store(cluster.labels["container"]), cluster.uid, timeout=timeout)

    def _store(self, prefix: str = "") -> Store:
        prefix = prefix or self._prefix
        if prefix not in self._stores:
            self._stores[prefix] = self._open_store(prefix)
        return self._stores[prefix]

    def _cluster(self, uid: str, servers: list[Server]) -> Cluster | None:
        if servers:
            found = {k.removeprefix("griffin:"): v for k, v in servers[0].metadata.items()}
            users = {server.user_id for server in servers}
        else:
            found = {name.replace("-", "_"): text for name, text in self._store().labels(uid).items()}
            users = {found.get("user", "")}
            if not found:
                return None  # a container that is none of ours
        labels = {name: one_line(found.get(name, "")) for name in LABELS}
        reports: dict[tuple[str, int], Report] = {}
        if any(server.status == "ACTIVE" for server in servers):
            for report in self._store(labels["container"]).reports(uid):
                reports[report.engine_set, report.slot] = report
        return Cluster(uid, labels, tuple(_members(servers, reports)), users == {self._cloud.user_id})


def phase_of(server: Server, report: Report | None) -> str:
    """building, active, agent, connected, engines, gone or failed: what Nova says, and for a server that runs, its agent."""
    if server.status in DEAD:
        return "failed" if server.status == "ERROR" else "gone"
    if server.status == "BUILD":
        return "building"
    return report.phase if report else "active"


def _members(servers: Iterable[Server], reports: Mapping[tuple[str, int], Report]) -> list[Member]:
    members = []
    for server in servers:
        place = place_of(server.tags)
        assert place is not None
        engines = server.metadata.get("griffin:engines", "")
        members.append(
            Member(
                server=server,
                engine_set=place.engine_set,
                slot=place.slot,
                engines=int(engines) if engines.isdigit() else 0,
                phase=phase_of(server, reports.get((place.engine_set, place.slot))),
            )
        )
    return sorted(members, key=lambda member: (member.engine_set, member.slot, member.server.name))


def _seconds_since(created: str, now: datetime) -> float:
    try:
        return max(0.0, (now - datetime.fromisoformat(created.replace("Z", "+00:00"))).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def _listing(clusters: Iterable[Cluster]) -> str:
    return (
        ", ".join(f"{cluster.uid} ({cluster.name})" if cluster.name else cluster.uid for cluster in clusters) or "none"
    )
