"""What agents report, and how little of it is believed: servers write it, so it may be anything. Pure."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from .calls import one_line

PHASES = ("agent", "connected", "engines", "gone", "failed")  # by their number
REPORT_LIMIT = 1 << 18  # bytes of a report that are read


@dataclass(frozen=True)
class Report:
    """What the name of a report alone tells: ``<set>/<slot>.<incarnation>/<sequence>-<phase>``."""

    engine_set: str
    slot: int
    incarnation: int
    sequence: int
    phase: str

    @property
    def name(self) -> str:
        return f"{self.engine_set}/{self.slot}.{self.incarnation}/{self.sequence:04d}-{self.phase}"

    @classmethod
    def parse(cls, name: str) -> Report | None:
        """The report of this object name; None if it is no report's."""
        match = re.fullmatch(r"([0-9a-z]{1,64})/([0-9]{1,9})\.([0-9]{1,9})/([0-9]{4,9})-([a-z]{1,32})", name)
        if match is None:
            return None
        engine_set, slot, incarnation, sequence, phase = match.groups()
        report = cls(engine_set, int(slot), int(incarnation), int(sequence), phase)
        return report if report.name == name else None


def content(body: bytes) -> dict[str, Any]:
    """What a report says; empty if it is broken.

    ``message`` is one printable line ("" if there was none), ``engines`` a list of objects; the rest, and
    all that is in ``engines``, is as it was written.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    engines = found.get("engines")
    found["engines"] = [e for e in engines if isinstance(e, dict)] if isinstance(engines, list) else []
    found["message"] = one_line(found["message"]) if isinstance(found.get("message"), str) else ""
    return found
