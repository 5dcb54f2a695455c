"""The clusters in a cloud project, by what they have there alone: no cluster file, no profile, no local state. Blocking."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from .calls import CloudError, one_line
from .engine_set import DEAD, sweep
from .plan import MARKER_TAG, SettingError, place_of

if TYPE_CHECKING:
    from .cloud import Cloud, Server
    from .report import Report
    from .store import Store

SETTLED = 3600  # seconds after which nobody is about to use a container that has no servers
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

    ``mine``: the user of these credentials started it. ``touched``: when something was last written into its container,
    as ISO 8601; asked only of a cluster without servers.
    """

    uid: str
    labels: Mapping[str, str]
    members: tuple[Member, ...]
    mine: bool
    touched: str = ""

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


@dataclass(frozen=True)
class Leftover:
    """What nobody needs any more: a server, or (``server`` None) the container of a cluster that has none. ``why``: one line."""

    cluster: Cluster
    server: Server | None
    why: str


def leftovers(cluster: Cluster, now: datetime) -> list[Leftover]:
    """What of a cluster can't become or be part of it. Pure.

    Servers that Nova says are off or broken, and those whose agent never reported; never one of an engine set that is
    still starting: its launcher sees to it.
    """
    found = []
    for member in cluster.members:
        server = member.server
        deadline = server.metadata.get("griffin:start_deadline", "")
        if not _is_past(deadline, now):
            continue
        if server.status in DEAD:
            found.append(Leftover(cluster, server, f"is in {server.status}{server.fault and ': '}{server.fault}"))
        elif member.phase in ("building", "active"):
            found.append(Leftover(cluster, server, f"never reported; its start was over at {one_line(deadline, 40)}"))
    unused = not cluster.members and _is_past(cluster.labels["start_deadline"], now)
    if unused and _seconds_since(cluster.touched, now) >= SETTLED:
        found.append(Leftover(cluster, None, "has no servers"))
    return found


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
        containers = self._store().containers()
        by_uid: dict[str, list[Server]] = {uid: [] for uid in containers if re.fullmatch("[0-9a-f]{12}", uid)}
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

    def leftovers(self, *, everyone: bool = False) -> list[Leftover]:
        """Those of all of one's own clusters, or of ``everyone``'s."""
        now = datetime.now(timezone.utc)
        clusters = self.all(everyone=everyone)
        return [left for cluster in clusters for left in leftovers(cluster, now)] + self._unmarked(now)

    def _unmarked(self, now: datetime) -> list[Leftover]:
        """Containers that somebody made and was killed before a label said whose they are. Only empty ones are ever deleted."""
        found = []
        for uid in self._store().containers():
            made = self._store().made_at(uid) if re.fullmatch("[0-9a-f]{12}", uid) else None
            if made is not None and now.timestamp() - made >= SETTLED:
                touched = datetime.fromtimestamp(made, timezone.utc).isoformat()
                nobodys = Cluster(uid, dict.fromkeys(LABELS, ""), (), True, touched)
                found.append(Leftover(nobodys, None, "was never used"))
        return found

    def reap(self, found: Iterable[Leftover], *, timeout: float) -> list[Leftover]:
        """Delete of what was ``found`` what is left over still; returns that. Idempotent.

        It may have taken a while to say yes: servers are deleted one by one, never by their cluster's tag, and a container
        only when nobody has written into it for an hour, so that an engine set that has begun to start since is not touched.
        """
        asked = {_key(left) for left in found}
        everyone = any(not left.cluster.mine for left in found)
        still = [left for left in self.leftovers(everyone=everyone) if _key(left) in asked]
        ids = {left.server.id for left in still if left.server}
        self._cloud.delete_servers(sorted(ids))
        deadline = time.monotonic() + timeout
        while names := [server.name for server in self._cloud.servers(MARKER_TAG) if server.id in ids]:
            if time.monotonic() > deadline:
                raise CloudError(
                    f"These servers are still there {timeout:.0f} s after their deletion: {', '.join(names)}."
                )
            time.sleep(0.5)
        now = datetime.now(timezone.utc)
        for cluster in {left.cluster.uid: left.cluster for left in still}.values():
            store = self._store(cluster.labels["container"])
            alone = all(member.server.id in ids for member in cluster.members)
            if alone and _seconds_since(cluster.touched or _touched(store, cluster.uid), now) >= SETTLED:
                store.delete_container(cluster.uid)
        return still

    def _store(self, prefix: str = "") -> Store:
        prefix = prefix or self._prefix
        if prefix not in self._stores:
            self._stores[prefix] = self._open_store(prefix)
        return self._stores[prefix]

    def _cluster(self, uid: str, servers: list[Server]) -> Cluster | None:
        touched = ""
        if servers:
            found = {k.removeprefix("griffin:"): v for k, v in servers[0].metadata.items()}
            users = {server.user_id for server in servers}
        else:
            found = {name.replace("-", "_"): text for name, text in self._store().labels(uid).items()}
            if not found:
                return None  # a container that is none of ours
            touched = _touched(self._store(), uid)
            users = {found.get("user", "")}
        labels = {name: one_line(found.get(name, "")) for name in LABELS}
        reports: dict[tuple[str, int], Report] = {}
        if any(server.status == "ACTIVE" for server in servers):
            for report in self._store(labels["container"]).reports(uid):
                reports[report.engine_set, report.slot] = report
        return Cluster(uid, labels, tuple(_members(servers, reports)), users == {self._cloud.user_id}, touched)


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


def _key(left: Leftover) -> tuple[str, str]:
    return left.cluster.uid, left.server.id if left.server else ""


def _touched(store: Store, uid: str) -> str:
    """When something was last written into a cluster's container; "" for an empty one."""
    return max((stored.last_modified for stored in store.objects(uid)), default="")


def _seconds_since(created: str, now: datetime) -> float:
    moment = _moment(created)
    return max(0.0, (now - moment).total_seconds()) if moment else 0.0


def _is_past(moment: str, now: datetime) -> bool:
    """Whether this moment is known, and over."""
    found = _moment(moment)
    return found is not None and found < now


def _moment(text: str) -> datetime | None:
    """ISO 8601, in UTC where it names no zone, as object stores write it; None for anything else."""
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def _listing(clusters: Iterable[Cluster]) -> str:
    return (
        ", ".join(f"{cluster.uid} ({cluster.name})" if cluster.name else cluster.uid for cluster in clusters) or "none"
    )
