"""Work out how long each server of a cluster took to start, and in which phases. Pure.

Times come from three clocks: the launcher's (requested), Nova's (building, active) and the object store's (the reports). A step that
would end before it began, because they differ, is shown as taking no time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from ..common.text import one_line
from ..common.times import iso, timestamp
from .history import Record
from .names import Place
from .phases import ENDED, PHASES, REPORTED, START
from .slots import DEAD

CLOCKS = 5.0  # seconds that clocks may differ without a remark
NARROWEST, WHY = 10, 60  # characters: of a bar at least, of a reason at most
SHADES = dict(zip(START, ".-=+*#", strict=True))


@dataclass(frozen=True)
class Track:
    """One server. ``times``: when each phase began, of those that are known, in their order.

    ``ended``: when it ended, if it did; ``why``: in one line.
    """

    name: str
    place: Place
    times: Mapping[str, datetime]
    ended: datetime | None = None
    why: str = ""

    @property
    def begun(self) -> datetime:
        """Return when it was requested, or its first known time."""
        return next(iter(self.times.values()))

    def seconds(self) -> dict[str, float]:
        """Return the seconds from `begun` until each phase began."""
        return {phase: start for phase, start, _ in self.spans(self.begun, self.begun)}

    def spans(self, zero: datetime, end: datetime) -> list[tuple[str, float, float]]:
        """Return each phase, and from when to when it lasted, in seconds since ``zero``; the last one lasts until ``end``."""
        starts: list[float] = []
        for when in self.times.values():
            starts.append(max([(when - zero).total_seconds(), *starts[-1:]]))
        last = max((((self.ended or end) - zero).total_seconds()), starts[-1])
        return list(zip(self.times, starts, [*starts[1:], last], strict=True))


@dataclass(frozen=True)
class Timeline:
    """The servers of a cluster, by set and slot, from ``zero`` until ``end``: when the last of them had its engines or ended, or now, if any
    is still starting."""

    zero: datetime
    end: datetime
    tracks: tuple[Track, ...]

    @property
    def seconds(self) -> float:
        return max((self.end - self.zero).total_seconds(), 0.1)

    def medians(self) -> dict[str, float]:
        """Return phase -> seconds until half of the servers (that reached it) had reached it, each from its own request."""
        known = [track.seconds() for track in self.tracks]
        reached = {phase: [seconds[phase] for seconds in known if phase in seconds] for phase in START[1:]}
        return {phase: median(seconds) for phase, seconds in reached.items() if seconds}

    def slowest(self) -> Track | None:
        """Return the server whose engines took longest."""
        done = [track for track in self.tracks if "engines" in track.times]
        return max(done, key=lambda track: track.seconds()["engines"], default=None)

    def clocks_differ(self) -> float:
        """Return by how many seconds the clocks differ at least, if that is more than `CLOCKS`; else 0."""
        differ = 0.0
        for track in self.tracks:
            times = list(track.times.values())
            differ = max([differ, *((a - b).total_seconds() for a, b in zip(times, times[1:], strict=False))])
        return differ if differ > CLOCKS else 0.0


def timeline(records: Iterable[Record], now: datetime) -> Timeline | None:
    """Return the timeline; None if no server is known."""
    tracks = tuple(track for record in records if (track := _track(record)) is not None)
    if not tracks:
        return None
    ends = [track.ended or track.times.get("engines") or now for track in tracks]
    return Timeline(min(track.begun for track in tracks), max(ends), tracks)


def _track(record: Record) -> Track | None:
    server, former = record.server, record.former
    metadata = server.metadata if server else {}
    started = metadata.get("griffin:started", "") if record.place.incarnation == 0 else ""
    found = {
        "requested": (former.requested if former else "") or metadata.get("griffin:requested", "") or started,
        "building": server.created if server else former.created if former else "",
        "active": server.launched if server else former.launched if former else "",
    }
    for phase in REPORTED:
        # After a reboot an agent goes through them again.
        found[phase] = min((r.written for r in record.reports if r.phase == phase and timestamp(r.written)), default="")
    times = {phase: when for phase in START if (when := timestamp(found[phase]))}
    if not times:
        return None
    ended, why = _end(record)
    return Track(record.name, record.place, times, ended, why)


def _end(record: Record) -> tuple[datetime | None, str]:
    """Return when a server ended, and why; None for one that still exists."""
    written = [when for report in record.reports if (when := timestamp(report.written))]
    last = max(written, default=None)
    if record.former:
        return timestamp(
            record.former.ended
        ) or last, f"{'replaced' if record.former.replaced else 'given up'}: {record.former.why}"
    if record.server is None:
        return last, "gone"
    phases = [report for report in record.reports if report.phase in PHASES]
    if phases and phases[-1].phase in ENDED:
        return timestamp(phases[-1].written), f"its agent reported {phases[-1].phase}"
    if record.server.status in DEAD:
        known = last or timestamp(record.server.launched) or timestamp(record.server.created)
        return known, f"is in {record.server.status}"
    return None, ""


# -- as text and JSON -------------------------------------------------------------------------------------------------


def as_text(shown: Timeline, width: int) -> str:
    """Return one line for each server, and medians below. ``width``: characters of a line, if that is enough."""
    numbers = [
        [f"{seconds[phase]:.1f}" if phase in seconds else "-" for phase in START[1:]]
        for seconds in (track.seconds() for track in shown.tracks)
    ]
    rows = [[phase.upper() for phase in START[1:]], *numbers]
    columns = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    right = ["  ".join(text.rjust(size) for text, size in zip(row, columns, strict=True)) for row in rows]
    names = ["SERVER", *(str(track.place) for track in shown.tracks)]
    left = max(map(len, names))
    room = max(NARROWEST, width - left - len(right[0]) - 4)
    axis = f"0{f'{shown.seconds:.1f} s':>{room - 1}}"
    bars = [axis, *(_bar(track, shown, room) for track in shown.tracks)]
    lines = ["  ".join([name.ljust(left), bar, text]) for name, bar, text in zip(names, bars, right, strict=True)]
    for number, track in enumerate(shown.tracks, start=1):
        lines[number] += f"  {one_line(track.why, WHY)}" if track.why else ""
    legend = "  ".join(f"{shade} {phase}" for phase, shade in SHADES.items())
    return "\n".join([*lines, "", f"{legend}   (seconds: from a server's request until each began)", *summary(shown)])


def _bar(track: Track, shown: Timeline, room: int) -> str:
    cells = [" "] * room
    for phase, start, end in track.spans(shown.zero, shown.end):
        first, after = (round(at / shown.seconds * room) for at in (start, end))
        cells[first:after] = SHADES[phase] * (after - first)
    return "".join(cells[:room])


def summary(shown: Timeline) -> list[str]:
    """Return the medians, the slowest server, and a remark on the clocks."""
    lines = []
    if medians := shown.medians():
        lines.append("Median: " + ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in medians.items()) + ".")
    if slowest := shown.slowest():
        lines.append(f"Slowest: {slowest.place}, {slowest.seconds()['engines']:.1f} s.")
    if differ := shown.clocks_differ():
        lines.append(
            f"The clocks of this cloud, its object store and the launcher's machine differ by {differ:.0f} s or more."
        )
    return lines


def as_json(shown: Timeline) -> dict[str, Any]:
    """Return everything as JSON. Times are ISO 8601, in UTC, uncorrected; ``seconds`` are from each server's request."""
    slowest = shown.slowest()
    return {
        "from": iso(shown.zero),
        "until": iso(shown.end),
        "servers": [
            {
                "name": track.name,
                "place": str(track.place),
                "times": {phase: iso(when) for phase, when in track.times.items()},
                "seconds": _rounded(track.seconds()),
                "ended": iso(track.ended) if track.ended else None,
                "why": track.why,
            }
            for track in shown.tracks
        ],
        "medians": _rounded(shown.medians()),
        "slowest": slowest.name if slowest else None,
    }


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {phase: round(number, 3) for phase, number in seconds.items()}
