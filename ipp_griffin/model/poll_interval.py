"""`PollInterval`: how long to wait between two polls of a start. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .names import Place
    from .slots import Roster

QUIET_PER_PAUSE = 20  # after a time without a change, pause for this fraction of it,
LONGEST = 5  # up to so many intervals
MARGIN = 0.05  # seconds after the time at which something should have happened
SOON = 0.25  # of the interval: the pause after a poll that should have been the last
STRETCH = 1.5  # a pause may be longer by this factor, so that one poll does instead of two


class PollInterval:
    """Poll often while something changes or is about to, rarely while nothing does.

    ``interval``: seconds between two polls while something changes. Once a server of this start has become ACTIVE, the others are
    expected to take as long, and the next poll waits until then if it would come just before.
    """

    def __init__(self, interval: float, now: float) -> None:
        self._interval, self._changed = interval, now
        self._phases: dict[Place, str] = {}
        self._asked: dict[Place, float] = {}  # when each server that is not ACTIVE yet was requested
        self._boot: float | None = None  # seconds, the shortest time that a server took to become ACTIVE

    def pause(self, roster: Roster, began: float, now: float) -> float:
        """Return the seconds until the next poll. ``began``: when the last one began, which updated the ``roster``."""
        phases = {slot.place: slot.phase for slot in roster.slots}
        if phases != self._phases:
            self._phases, self._changed = phases, now
        self._learn(roster, now)
        regular = min(max(self._interval, (now - self._changed) / QUIET_PER_PAUSE), LONGEST * self._interval)
        if self._boot is None or not self._asked:
            return regular
        expected = max(self._asked.values()) + self._boot + MARGIN
        if began < expected < now + regular * STRETCH:
            return max(expected - now, 0)
        if expected <= began:  # overdue: poll soon, then after pauses as long as the delay so far
            return min(max(now - expected, self._interval * SOON), regular)
        return regular

    def _learn(self, roster: Roster, now: float) -> None:
        for slot in roster.slots:
            if slot.phase in ("requested", "building"):
                if slot.asked is not None:
                    self._asked[slot.place] = slot.asked
            elif (since := self._asked.pop(slot.place, None)) is not None:
                self._boot = min(now - since, self._boot if self._boot is not None else now - since)
        for gone in self._asked.keys() - {slot.place for slot in roster.slots}:
            del self._asked[gone]
