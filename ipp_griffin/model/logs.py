"""Merge the logs of servers by time: agents' reports, engines' output, and consoles. Pure.

Servers wrote all of it, so it may contain anything: the result is printable lines of bounded length. Times are by the servers' clocks,
which may be wrong: see `clock_difference`.
"""

from __future__ import annotations

import heapq
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from operator import itemgetter
from typing import Any

from ..common.text import one_line, printable, redact
from ..common.times import iso, timestamp
from .history import Record
from .phases import REPORTED
from .reports import Report

LINE_LIMIT = 2000  # characters of a line that are shown
GROSS = 60.0  # seconds that a clock may differ, and an upload take, without a remark
FARTHEST = 14 * 3600  # seconds that a time zone is from UTC
# As ipyparallel's processes begin a line, by the clock and in the time zone of their server.
ENGINE_TIME = re.compile(r"(2\d{3}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d(?:[.,]\d{1,6})?)\s?")
AGENT_LINE = re.compile(r"ipp-griffin: (\S+Z) (.*)")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
NEVER = datetime.min.replace(tzinfo=timezone.utc)

Content = Mapping[str, Any]  # of a report, as `reports.content` has it


@dataclass(frozen=True)
class Line:
    """One line of a log. ``when``: None if unknown; ``source``: set/slot and agent, engine or console; ``text``: printable."""

    when: datetime | None
    source: str
    text: str

    def __str__(self) -> str:
        return f"{iso(self.when) if self.when else '-':24} {self.source}  {self.text}"


@dataclass(frozen=True)
class ServerLog:
    """The logs of one server. ``reports``: those of its phases, by age, with their content; ``output``: the newest report with its engines'
    output; ``console``: raw."""

    record: Record
    reports: Sequence[tuple[Report, Content]] = ()
    output: Content | None = None
    console: str = ""


def merge(logs: Iterable[ServerLog]) -> Iterator[Line]:
    """Return all lines by time; the lines of one source keep their order, whatever their times."""
    streams = [_ranked(stream) for log in logs for stream in _streams(log)]
    return (line for _, line in heapq.merge(*streams, key=itemgetter(0)))


def clock_difference(report: Report, content: Content) -> float:
    """Return by how many seconds the server's clock was behind the object store's when it wrote this report; 0 for a small difference."""
    said, written = _time_of(content), timestamp(report.written)
    behind = (written - said).total_seconds() if said and written else 0.0
    return behind if abs(behind) > GROSS else 0.0


def _streams(log: ServerLog) -> Iterator[list[Line]]:
    record, place = log.record, log.record.place
    told = {f"{report.phase}: {content.get('message', '')}" for report, content in log.reports}
    yield [
        Line(
            _time_of(content) or timestamp(report.written),
            f"{place}/agent",
            f"{report.phase}: {content.get('message', '')}",
        )
        for report, content in log.reports
    ]
    for engine in (log.output or {}).get("engines", ()):
        index, output = engine.get("index", "?"), engine.get("output")
        if isinstance(output, str):
            yield _engine_lines(f"{place}/engine-{one_line(index, 20)}", output, log.output or {})
    launched = timestamp(record.server.launched or record.server.created) if record.server else None
    yield _console_lines(f"{place}/console", log.console, launched, told)
    if record.former:
        yield [
            Line(
                timestamp(record.former.ended),
                f"{place}/launcher",
                f"the server was {'replaced' if record.former.replaced else 'given up'}: {record.former.why}",
            )
        ]


def _engine_lines(source: str, output: str, content: Content) -> list[Line]:
    """Return an engine's lines. A line without a time gets that of the line before, or, at the beginning, that of the report."""
    offset = _number(content.get("utc_offset")) or 0.0
    zone = timezone(timedelta(seconds=offset if abs(offset) <= FARTHEST else 0))
    lines: list[tuple[datetime | None, str]] = []
    for text in _split(output):
        match = ENGINE_TIME.match(text)
        when = timestamp(f"{match[1]}T{match[2].replace(',', '.')[:12]}") if match else None
        if match and when:
            text, when = text[match.end() :], when.replace(tzinfo=zone).astimezone(timezone.utc)
        lines.append((when, text))
    return _dated(source, lines, _time_of(content))


def _console_lines(source: str, console: str, launched: datetime | None, told: set[str]) -> list[Line]:
    """Return a console's lines without those that the agent also reported. Only the agent's lines have a time."""
    lines: list[tuple[datetime | None, str]] = []
    for text in _split(redact(COLOURS.sub("", console))):
        match = AGENT_LINE.search(text)
        when = timestamp(match[1]) if match else None
        if match and when:
            phase, _, message = match[2].partition(": ")
            if phase in REPORTED and f"{phase}: {one_line(message)}" in told:
                continue
            text = match[2]
        lines.append((when, text))
    return _dated(source, lines, launched)


def _dated(source: str, lines: Iterable[tuple[datetime | None, str]], otherwise: datetime | None) -> list[Line]:
    """Give each line a time. ``otherwise``: the time if no line has one; otherwise, lines before the first with a time get that time."""
    lines = list(lines)
    current = next((when for when, _ in lines if when), otherwise)
    found = []
    for when, text in lines:
        current = when or current
        found.append(Line(current, source, _shown(text)))
    return found


def _ranked(lines: Iterable[Line]) -> list[tuple[datetime, Line]]:
    """Return each line with the latest time so far of its source."""
    latest, found = NEVER, []
    for line in lines:
        latest = max(latest, line.when or NEVER)
        found.append((latest, line))
    return found


def _split(text: str) -> list[str]:
    return [line.rstrip("\r") for line in text.rstrip("\n").split("\n")] if text.strip() else []


def _shown(text: str) -> str:
    line = printable(text[: 2 * LINE_LIMIT].expandtabs())
    return line if len(line) <= LINE_LIMIT else line[: LINE_LIMIT - 1] + "…"


def _time_of(content: Content) -> datetime | None:
    """Return when the server wrote this report, by its own clock."""
    seconds = _number(content.get("time"))
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, OSError, ValueError):
        return None


def _number(value: Any) -> float | None:
    """Return a finite number; None for anything else."""
    try:
        found = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        return None
    return found if math.isfinite(found) else None
