"""`Cluster`: one cluster as its servers, labels and reports show it, and what of it is left over. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ..common.text import one_line
from ..common.times import is_past, seconds_since, timestamp
from ..model.names import Place, place_of
from ..model.phases import ENDED
from ..model.slots import DEAD
from .controller_server import CONTROLLER

if TYPE_CHECKING:
    from ..cloud.floating_ips import FloatingIp
    from ..cloud.security_groups import SecurityGroup
    from ..model.reports import Report
    from ..model.server import Server

SETTLED = 3600  # seconds after which no start is about to use a container without servers
OFF_BY = 900  # seconds after which a server whose agent has reported its end should have switched itself off
LABELS = ("owner", "host", "container", "profile", "cluster_id", "started", "start_deadline", "expires")


@dataclass(frozen=True)
class Member:
    """One server of a cluster. ``engines``: how many it should run, 0 for the controller's; ``phase``: see `phase_of`; ``reported``: when its
    agent last reported, in ISO 8601; ``mine``: whether the user of these credentials created it, since anybody in the project can give
    a server a cluster's tags."""

    server: Server
    place: Place
    engines: int
    phase: str
    mine: bool = True
    reported: str = ""

    @property
    def expires(self) -> str:
        """Return when it expires, as its launcher decided, in ISO 8601; "": never."""
        return self.server.metadata.get("griffin:expires", "")


@dataclass(frozen=True)
class Cluster:
    """One cluster. ``labels``: its launcher's notes for people, each a printable line ("" if unknown).

    ``mine``: whether the user of these credentials started it, as its container says, or, without a container, because one of its
    servers is theirs. ``touched``: when something was last written into its container, in ISO 8601; only known for a cluster without
    servers.
    """

    uid: str
    labels: Mapping[str, str]
    members: tuple[Member, ...]
    mine: bool
    touched: str = ""

    @property
    def name(self) -> str:
        """Return what its owner calls it: the profile, with the cluster id if there is one."""
        return "/".join(part for part in (self.labels["profile"], self.labels["cluster_id"]) if part)

    @property
    def controller(self) -> Member | None:
        """Return the newest server that its controller runs on; None if the controller does not run on a server of the cloud."""
        found = [
            member for member in self.members if member.place.engine_set == CONTROLLER and member.mine == self.mine
        ]
        return max(found, key=lambda member: member.place.incarnation, default=None)

    @property
    def phases(self) -> dict[str, int]:
        """Return how many servers are in each phase."""
        return dict(Counter(member.phase for member in self.members))

    @property
    def engines(self) -> int:
        """Return how many engines it should have."""
        return sum(member.engines for member in self.members)

    @property
    def engines_up(self) -> int:
        """Return how many of them are registered, by their servers' reports."""
        return sum(member.engines for member in self.members if member.phase == "engines")

    @property
    def expires(self) -> str:
        """Return when the first of its servers expires, in ISO 8601; "": never."""
        known = {when: member.expires for member in self.members if (when := timestamp(member.expires))}
        return known[min(known)] if known else ""

    def age(self, now: datetime) -> float:
        """Return the seconds since its oldest server was created; 0 without servers."""
        return max((seconds_since(member.server.created, now) for member in self.members), default=0.0)

    def vcpu_hours(self, now: datetime) -> float:
        """Return the vCPU-hours of the existing servers since their creation. Clouds may bill more or less."""
        hours = (seconds_since(m.server.created, now) / 3600 * m.server.vcpus for m in self.members)
        return sum(hours)


@dataclass(frozen=True)
class Leftover:
    """Something that nobody needs any more: a server, a security ``group``, a floating IP, or (all None) the container of a cluster without
    servers. ``why``: one line. ``mine``: whether the user of these credentials created it."""

    cluster: Cluster
    server: Server | None
    why: str
    mine: bool = True
    group: SecurityGroup | None = None
    floating_ip: FloatingIp | None = None


def leftovers(cluster: Cluster, now: datetime) -> list[Leftover]:
    """Return the parts of a cluster that are of no use to it any more. Pure.

    These are servers that expired; that Nova lists as off or broken; whose agent never reported, or reported its end without switching
    the server off, or got no further than starting for an hour after its deadline. Servers of a set that is still starting count only
    if they expired: their launcher takes care of them.
    """
    found = []
    for member in cluster.members:
        if why := _why_left(member, now):
            found.append(Leftover(cluster, member.server, why, member.mine))
    over = not cluster.members and is_past(cluster.labels["start_deadline"], now)
    if over and is_settled(cluster.touched, now):
        found.append(Leftover(cluster, None, "has no servers", cluster.mine))
    return found


def _why_left(member: Member, now: datetime) -> str:
    server = member.server
    if is_past(member.expires, now):
        return f"expired at {one_line(member.expires, 40)}"
    deadline = server.metadata.get("griffin:start_deadline", "")
    if not is_past(deadline, now):
        return ""
    if server.status in DEAD:
        return f"is in {server.status}{server.fault and ': '}{server.fault}"
    over = f"its start had time until {one_line(deadline, 40)}"
    if member.phase in ("building", "active"):
        return f"never reported; {over}"
    if member.phase in ENDED and seconds_since(member.reported, now) >= OFF_BY:
        return f"runs nothing any more: its agent reported {member.phase} at {one_line(member.reported, 40)}"
    unfinished = member.phase in ("agent", "connected") and seconds_since(deadline, now) >= SETTLED
    return f"got no further than {member.phase!r}; {over}" if unfinished else ""


def is_settled(touched: str, now: datetime) -> bool:
    """Return whether no start is about to use the container. A start writes into its container as soon as it has made it."""
    return not touched or seconds_since(touched, now) >= SETTLED


def phase_of(server: Server, report: Report | None) -> str:
    """Return building, active, agent, connected, engines, gone or failed, from Nova and, for a running server, its agent's reports.

    For a server that runs the controller, "controller" instead of "engines".
    """
    if server.status in DEAD:
        return "failed" if server.status == "ERROR" else "gone"
    if server.status == "BUILD":
        return "building"
    if report and report.place.engine_set == CONTROLLER and report.phase == "engines":
        return CONTROLLER
    return report.phase if report else "active"


def members(servers: Iterable[Server], reports: Mapping[Place, Report], me: str) -> list[Member]:
    """Return these ``servers`` of one cluster with what they reported; ``me``: the user of these credentials."""
    found = []
    for server in servers:
        place = place_of(server.tags)
        assert place is not None
        engines = server.metadata.get("griffin:engines", "")
        report = reports.get(place)
        found.append(
            Member(
                server=server,
                place=place,
                engines=int(engines) if engines.isdigit() else 0,
                phase=phase_of(server, report),
                mine=server.user_id == me,
                reported=report.written if report else "",
            )
        )
    return sorted(found, key=lambda member: (member.place, member.server.name))
