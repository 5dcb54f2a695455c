"""Decide which phase each server of an engine set is in, which has failed, and whether another may take its slot. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from .names import Place, place_of, place_of_engine, server_name, server_tags, uid_of
from .phases import ENDED, PHASES, START
from .plan import ServerPlan

if TYPE_CHECKING:
    from .reports import Report
    from .server import Server

DEAD = frozenset({"ERROR", "SHUTOFF", "SOFT_DELETED", "SUSPENDED", "SHELVED", "SHELVED_OFFLOADED"})
HOUR = 3600
BELIEVED = 2  # polls in a row that must find a server off or missing: one may see a reboot, or an outdated listing
MOST_NAMED = 20  # servers that one line names


@dataclass(frozen=True)
class Deadlines:
    """Seconds that a server may take: to be built; until its agent's first report; until the agent is ready and has reached the controller;
    until the controller lists all of its engines, or, for a controller's server, until the controller answers (then ``last`` names that
    setting)."""

    build: float
    agent: float
    connection: float
    engines: float
    last: str = "engines_timeout"

    def of(self, phase: str) -> tuple[float, str]:
        """Return how long a server may stay in this phase, in seconds, and the name of the setting."""
        build, engines = (self.build, "build_timeout"), (self.engines, self.last)
        return {
            "requested": build,
            "building": build,
            "active": (self.agent, "agent_timeout"),
            "agent": (self.connection, "connection_timeout"),
            "connected": engines,
            "engines": engines,
        }[phase]


@dataclass(frozen=True)
class Failure:
    """A server that failed or disappeared. ``cause``: one line; "" if its agent's ``report`` has it. ``id``: "" if it was never created;
    ``server``: None if Nova does not list it. ``settled``: it had all of its engines before."""

    planned: ServerPlan
    phase: str
    cause: str
    id: str = ""
    server: Server | None = None
    report: Report | None = None
    settled: bool = False


@dataclass
class Slot:
    """The place of one server, and how far the incarnation is that has it. ``since``: when its phase began; ``asked``: when it was
    created, None before.

    ``id``: the server's; "" until it has been created. ``waits_for``: the id of the server before it, which has to go first.
    """

    planned: ServerPlan
    since: float
    id: str = ""
    waits_for: str = ""
    phase: str = "requested"
    registered: int = 0
    settled: bool = False
    alive: bool = True
    bad_polls: int = 0
    failure: Failure | None = None
    given_up: bool = False
    asked: float | None = None

    @property
    def place(self) -> Place:
        return self.planned.place

    def created(self, id: str, now: float) -> None:
        """Record that the server of this slot exists, with this id, since ``now``."""
        self.id, self.since, self.asked = id, now, now


@dataclass
class Roster:
    """The slots of an engine set. ``quorum``: how many engines it can't do without; ``replacements``: how many servers
    may be replaced in an hour. A controller's server counts as one of one engine; then ``role`` says "controller".
    """

    slots: list[Slot]
    deadlines: Deadlines
    quorum: int
    replacements: int = 0
    role: str = ""
    failures: list[Failure] = field(default_factory=list)  # all so far
    replaced_at: list[float] = field(default_factory=list)

    @classmethod
    def of_plan(cls, servers: Iterable[ServerPlan], now: float, **limits: object) -> Roster:
        """Return the roster of servers that are about to be created."""
        return cls([Slot(server, now) for server in servers], **limits)  # type: ignore[arg-type]

    # -- how it stands

    @property
    def engines(self) -> int:
        """Return how many engines the set should have."""
        return sum(slot.planned.engines for slot in self.slots)

    @property
    def possible(self) -> int:
        """Return how many engines it can still get, without those of servers that failed for good."""
        return sum(slot.planned.engines for slot in self.slots if not slot.given_up)

    @property
    def registered(self) -> int:
        """Return how many engines the controller listed at the last poll."""
        return sum(slot.registered for slot in self.slots)

    @property
    def alive(self) -> int:
        """Return how many servers live or are being created."""
        return sum(slot.alive and not slot.given_up for slot in self.slots)

    @property
    def unsettled(self) -> list[Slot]:
        """Return the slots that neither have all their engines nor failed for good."""
        return [slot for slot in self.slots if not slot.settled and not slot.given_up]

    def phases(self) -> dict[str, int]:
        """Return how many servers are in each phase, in the order of the phases."""
        found = Counter("failed" if slot.given_up else slot.phase for slot in self.slots)
        return {phase: found[phase] for phase in PHASES if found[phase]}

    def __str__(self) -> str:
        if self.registered == self.engines:
            return f"All {self.engines} engines are connected."
        on_their_way = sum(slot.planned.engines - slot.registered for slot in self.unsettled)
        rest = f", {on_their_way} more are starting" if on_their_way else ""
        return f"{self.registered} of {self.engines} engines are connected{rest}: enough for min_engines."

    # -- what happens

    def adopt(self, servers: Iterable[Server], now: float) -> None:
        """Add servers that another process created for this set. They count as having their engines."""
        known = {slot.planned.name for slot in self.slots}
        for server in servers:
            place = place_of(server.tags)
            if place is not None and server.name not in known:
                engines = server.metadata.get("griffin:engines", "")
                count = int(engines) if engines.isdigit() else 0
                planned = ServerPlan(server.name, place, count, server.tags, server.metadata)
                self.slots.append(Slot(planned, now, id=server.id, phase="engines", settled=True))

    def count(self, registered: Mapping[Place, int], now: float) -> int:
        """Update the slots with how many engines the controller lists of each server; return the sum over slots that did not fail."""
        for slot in self.slots:
            if not slot.given_up:
                self._count(slot, registered.get(slot.place, 0), now)
        return self.registered

    def observe(
        self,
        servers: Mapping[str, Server],
        reports: Mapping[Place, Report],
        registered: Mapping[Place, int],
        now: float,
    ) -> list[Failure]:
        """Update the slots with Nova's servers (by name), agents' reports and the engines that the controller lists; return what failed.

        A slot that failed before and was not replaced is returned again only if its server was alive in between.
        """
        failed = []
        for slot in self.slots:
            if slot.given_up:
                continue
            server, report = servers.get(slot.planned.name), reports.get(slot.place)
            self._advance(slot, server, report, registered.get(slot.place, 0), now)
            failure = self._judge(slot, server, report, now)
            if failure is not None and slot.failure is None:
                failed.append(failure)
            slot.failure = failure
        self.failures += failed
        return failed

    def give_up(self, failure: Failure) -> None:
        """Leave the slot of this failure empty."""
        for slot in self._slots_of(failure):
            slot.given_up, slot.alive, slot.registered = True, False, 0

    def fail(self, slot: Slot, cause: str) -> Failure:
        """Record that this slot can't be filled; return the failure."""
        failure = Failure(slot.planned, slot.phase, cause, slot.id)
        self.failures.append(failure)
        self.give_up(failure)
        return failure

    def explain(self, failure: Failure, cause: str) -> Failure:
        """Put the ``cause`` that the agent's report gives into a recorded failure, and return that."""
        explained = replace(failure, cause=cause)
        self.failures[self.failures.index(failure)] = explained
        return explained

    def replace(self, failure: Failure, now: float) -> ServerPlan | None:
        """Return the next incarnation for the slot of ``failure``, to be created once the failed server is gone; None if there were too many
        replacements.

        If an agent gave up (no ipyparallel, an unreachable controller), its server is replaced only if other servers got past that
        point; otherwise the next one would fail, too.
        """
        recent = sum(now - when < HOUR for when in self.replaced_at)
        hopeless = failure.report is not None and not any(slot.settled for slot in self.slots)
        if recent >= self.replacements or hopeless:
            return None
        planned = next_incarnation(failure.planned)
        for slot in self._slots_of(failure):
            self.slots[self.slots.index(slot)] = Slot(
                planned, now, waits_for=failure.server.id if failure.server else ""
            )
        self.replaced_at.append(now)
        return planned

    def vacant(self, listed: Iterable[str]) -> list[Slot]:
        """Return the slots whose server can be created now: its predecessor is no longer among the ``listed`` ids."""
        there = set(listed)
        return [s for s in self.slots if not s.id and not s.given_up and not (s.waits_for and s.waits_for in there)]

    def excuse(self, seconds: float) -> None:
        """Extend the deadlines by the seconds that the cloud did not answer: that is not the servers' fault."""
        for slot in self.unsettled:
            slot.since += seconds

    def _slots_of(self, failure: Failure) -> list[Slot]:
        return [slot for slot in self.slots if slot.planned == failure.planned]

    @staticmethod
    def _advance(slot: Slot, server: Server | None, report: Report | None, registered: int, now: float) -> None:
        phase = slot.phase
        if server is not None:
            phase = later(phase, "active" if server.status == "ACTIVE" else "building")
        if report is not None:  # even "failed" shows that the agent ran
            phase = later(phase, report.phase if report.phase in START else "agent")
        if phase != slot.phase:
            slot.phase, slot.since = phase, now
        Roster._count(slot, registered, now)
        bad = server is None or server.status in DEAD
        slot.bad_polls = slot.bad_polls + 1 if bad and slot.id else 0
        slot.alive = not slot.bad_polls

    @staticmethod
    def _count(slot: Slot, registered: int, now: float) -> None:
        if registered and slot.phase != "engines":
            slot.phase, slot.since = "engines", now
        slot.registered = min(registered, slot.planned.engines)
        slot.settled = slot.settled or slot.registered == slot.planned.engines

    def _judge(self, slot: Slot, server: Server | None, report: Report | None, now: float) -> Failure | None:
        """Return why the server can no longer be part of the set; None while it can."""

        def failure(cause: str, report: Report | None = None) -> Failure:
            return Failure(slot.planned, slot.phase, cause, slot.id, server, report, slot.settled)

        if slot.bad_polls and server is not None and (server.status == "ERROR" or slot.bad_polls >= BELIEVED):
            return failure(f"went to {server.status}: {server.fault or 'it is off'}")
        if slot.bad_polls >= BELIEVED:
            return failure("is gone: somebody deleted it")
        if slot.settled:
            return None
        # A report alone never makes a server fail: the controller must agree.
        if report is not None and report.phase in ENDED and not slot.registered:
            return failure("", report)
        seconds, setting = self.deadlines.of(slot.phase)
        if now - slot.since > seconds:
            return failure(f"{_late(slot, server, self.role)} within {seconds:.0f} s ({setting})")
        return None


def _late(slot: Slot, server: Server | None, role: str) -> str:
    if slot.phase in ("requested", "building"):
        return f"was not built (it is in {server.status if server else 'no listing'})"
    if slot.phase == "active":
        return "never reported (can it reach the object store?)"
    if role and slot.phase == "agent":
        return "had not found or installed ipyparallel"
    if role:
        return "had no ipcontroller that answered"
    if slot.phase == "agent":
        return "had not installed what it needs, or not reached the controller"
    return f"had only {slot.registered} of {slot.planned.engines} engines connected"


def later(one: str, other: str) -> str:
    """Return the later of two phases of a start."""
    return max(one, other, key=START.index)


def next_incarnation(planned: ServerPlan) -> ServerPlan:
    """Return the plan of the server that takes the slot of ``planned``, with a name and tags that were never used before."""
    uid, place = uid_of(planned.tags), replace(planned.place, incarnation=planned.place.incarnation + 1)
    return replace(planned, name=server_name(uid, place), place=place, tags=server_tags(uid, place))


def engines_by_place(uuids: Iterable[str]) -> dict[Place, int]:
    """Return how many engines each server has. Two generations of an engine count once."""
    engines = {found for uuid in uuids if (found := place_of_engine(uuid))}
    return dict(Counter(place for place, _ in engines))


def tell(failures: Iterable[Failure]) -> str:
    """Return sentences that name each failed server with its phase and cause; servers with the same cause are named together."""
    groups: dict[tuple[str, str], list[str]] = {}
    for failure in failures:
        groups.setdefault((failure.phase, failure.cause), []).append(failure.planned.name)
    lines = []
    for (phase, cause), names in groups.items():
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        which = "Each of the servers" if len(names) > 1 else "Server"
        lines.append(f"{which} {', '.join(names[:MOST_NAMED])}{more} ({phase}) {cause.rstrip('.')}.")
    return " ".join(lines)
