"""Parse agents' reports. Servers write them, so they may contain anything, and little is trusted. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..common.text import one_line
from .names import Place
from .phases import REPORTED

LOG = "log"  # only the engines' output, not a phase; always written under the same name
KINDS = (*REPORTED, LOG)  # in the order of their numbers in `Store.report_urls`, which must not change
WITHOUT_OUTPUT = ("agent", "connected")  # no engine has written anything yet
REPORT_LIMIT = 1 << 18  # bytes of a report that are read
MESSAGE_LIMIT = 1000  # characters of an agent's message, which ends with the last lines of what failed


@dataclass(frozen=True)
class Report:
    """What the name of a report alone tells: ``<set>/<slot>.<incarnation>/<sequence>-<phase>``, of its server's `Place`.

    ``written``: when the store got it, in ISO 8601, UTC, by the store's clock; "" if unknown.
    """

    place: Place
    sequence: int
    phase: str
    written: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        return f"{self.place.prefix}{self.sequence:04d}-{self.phase}"

    @classmethod
    def parse(cls, name: str, written: str = "") -> Report | None:
        """Return the report of this object name; None if it is not the name of a report."""
        match = re.fullmatch(r"([0-9a-z]{1,64})/([0-9]{1,9})\.([0-9]{1,9})/([0-9]{4,9})-([a-z]{1,32})", name)
        if match is None:
            return None
        engine_set, slot, incarnation, sequence, phase = match.groups()
        report = cls(Place(engine_set, int(slot), int(incarnation)), int(sequence), phase, written)
        return report if report.name == name else None


def last_output(reports: Iterable[Report]) -> Report | None:
    """Return the one of a server's reports (the newest last) that has the newest output of engines; None if there is none.

    The report of logs always has the same name and number, so only the store knows its age.
    """
    with_output = [report for report in reports if report.phase not in WITHOUT_OUTPUT]
    logs = [report for report in with_output if report.phase == LOG]
    phases = [report for report in with_output if report.phase != LOG]
    return max(phases[-1:] + logs, key=lambda report: report.written, default=None)


def content(body: bytes) -> dict[str, Any]:
    """Return the content of a report; empty if it is broken.

    ``message`` is one printable line ("" if there was none), ``engines`` a list of objects. Everything else, also in ``engines``, is
    unchecked.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    engines = found.get("engines")
    found["engines"] = [e for e in engines if isinstance(e, dict)] if isinstance(engines, list) else []
    found["message"] = one_line(found["message"], MESSAGE_LIMIT) if isinstance(found.get("message"), str) else ""
    return found
