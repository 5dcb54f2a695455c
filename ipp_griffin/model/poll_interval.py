"""`PollInterval`: how long to wait between two polls of a start. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .names import Place
    from .slots import Roster

REST = 20  # a wait without a change is followed by a pause of this part of it,
LONGEST = 5  # up to so many intervals
MARGIN = 0.05  # seconds after the time at which something should have happened
SOON = 0.25  # of the interval: the pause after a poll that should have been the last
STRETCH = 1.5  # a pause may be longer by this factor, so that one poll does instead of two


class PollInterval:
    """Poll often while something happens or is about to, rarely while nothing does.

    ``interval``: seconds between two polls while something happens. Once a server of this start has become ACTIVE, the others are
    expected to take as long, and a poll that is nearly due waits until then.
    """

    def __init__(self, interval: float, now: float) -> None:
        self._interval, self._changed = interval, now
        self._phases: dict[Place, str] = {}
        self._asked: dict[Place, float] = {}  # when those that are not ACTIVE yet were asked for
        self._boot: float | None = None  # seconds, the least that a server has been seen to take

    def pause(self, roster: Roster, began: float, now: float) -> float:
        """Return the seconds until the next poll; the last one ``began`` then, and updated the ``roster``."""
        phases = {slot.place: slot.phase for slot in roster.slots}
        if phases != self._phases:
            self._phases, self._changed = phases, now
        self._learn(roster, now)
        regular = min(max(self._interval, (now - self._changed) / REST), LONGEST * self._interval)
        if self._boot is None or not self._asked:
            return regular
        expected = max(self._asked.values()) + self._boot + MARGIN
        if began < expected < now + regular * STRETCH:
            return max(expected - now, 0)
        if expected <= began:  # it is about to happen: soon, then after as long again as it is late by now
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
