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

SETTLED = 3600  # seconds after which nobody is about to use a container that has no servers
OFF_BY = 900  # seconds after which a server whose agent has reported its end should have switched itself off
LABELS = ("owner", "host", "container", "profile", "cluster_id", "started", "start_deadline", "expires")


@dataclass(frozen=True)
class Member:
    """One server of a cluster. ``engines``: how many it is to run, none where it runs the controller; ``phase``: see `phase_of`;
    ``reported``: when its agent said so last, as ISO 8601; ``mine``: the user of these credentials created it. Anybody in the project
    can give a server a cluster's tags."""

    server: Server
    place: Place
    engines: int
    phase: str
    mine: bool = True
    reported: str = ""

    @property
    def expires(self) -> str:
        """Return when its launcher wants it gone at the latest, in ISO 8601; "": never."""
        return self.server.metadata.get("griffin:expires", "")


@dataclass(frozen=True)
class Cluster:
    """One cluster. ``labels``: what its launcher wrote down for people, each a printable line ("" where it is unknown).

    ``mine``: the user of these credentials started it: its container says so, or where there is none, one of its servers
    is theirs. ``touched``: when something was last written into its container,
    as ISO 8601; asked only of a cluster without servers.
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
        """Return the newest server that its controller runs on; None where the controller is on no server of the cloud."""
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
        """Return how many engines it is to have."""
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
        """Return the vCPU-hours of the servers that are there, since their creation. Clouds may bill more than that, or less."""
        hours = (seconds_since(m.server.created, now) / 3600 * m.server.vcpus for m in self.members)
        return sum(hours)


@dataclass(frozen=True)
class Leftover:
    """What nobody needs any more: a server, a security ``group``, a floating IP, or (all None) the container of a cluster that has no
    server. ``why``: one line. ``mine``: the user of these credentials made it."""

    cluster: Cluster
    server: Server | None
    why: str
    mine: bool = True
    group: SecurityGroup | None = None
    floating_ip: FloatingIp | None = None


def leftovers(cluster: Cluster, now: datetime) -> list[Leftover]:
    """Return what of a cluster can't become or be part of it. Pure.

    Servers past their expiry, those that Nova says are off or broken, those whose agent never reported, or has reported its end and
    did not switch its server off, or came no further than its start for an hour after its deadline. Of all but the first never
    one of an engine set that is still starting: its launcher sees to it.
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
    over = f"its start was over at {one_line(deadline, 40)}"
    if member.phase in ("building", "active"):
        return f"never reported; {over}"
    if member.phase in ENDED and seconds_since(member.reported, now) >= OFF_BY:
        return f"runs nothing: its agent reported {member.phase} at {one_line(member.reported, 40)}"
    unfinished = member.phase in ("agent", "connected") and seconds_since(deadline, now) >= SETTLED
    return f"came no further than {member.phase!r}; {over}" if unfinished else ""


def is_settled(touched: str, now: datetime) -> bool:
    """Return whether no start is about to use the container: a start writes into it as soon as it has made it."""
    return not touched or seconds_since(touched, now) >= SETTLED


def phase_of(server: Server, report: Report | None) -> str:
    """Return building, active, agent, connected, engines, gone or failed: what Nova says, and for a server that runs, its agent.

    Of one whose controller runs, "controller" instead of "engines".
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
