"""Records of every server that a cluster has or had: from Nova, from its agent, and from its launcher. Pure.

A replaced server is gone from Nova. The reports of its agent remain in the container, and its launcher may have recorded it in
``<set>/history.json``, which no agent's URL can write.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..common.errors import SettingError
from ..common.text import one_line
from .names import Place, place_of, server_name

if TYPE_CHECKING:
    from .reports import Report
    from .server import Server

HISTORY = "history.json"
HISTORY_LIMIT = 1 << 18  # bytes of it that are read
MOST_NAMED = 8  # servers that an error names


@dataclass(frozen=True)
class Former:
    """A deleted server, as its launcher recorded it: times in ISO 8601 ("" if unknown), why in one line, and whether another took its slot."""

    requested: str = ""
    created: str = ""
    ended: str = ""
    why: str = ""
    launched: str = ""
    replaced: bool = True


@dataclass(frozen=True)
class Record:
    """One server. ``server``: None if Nova no longer lists it. ``reports``: its agent's, including those of logs, the newest last. ``former``:
    set if it was replaced and its launcher recorded that."""

    name: str
    place: Place
    server: Server | None = None
    reports: tuple[Report, ...] = ()
    former: Former | None = None


def parse_history(engine_set: str, body: bytes) -> dict[Place, Former]:
    """Return the servers in the history of an engine set. What is broken in it is left out."""
    try:
        entries = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    found: dict[Place, Former] = {}
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and _is_number(entry.get("slot")) and _is_number(entry.get("incarnation")):
            texts = {name: _text(entry.get(name)) for name in ("requested", "created", "launched", "ended", "why")}
            replaced = entry.get("replaced") is not False
            found[Place(engine_set, entry["slot"], entry["incarnation"])] = Former(**texts, replaced=replaced)
    return found


def records(
    uid: str, servers: Iterable[Server], reports: Iterable[Report], formers: Mapping[Place, Former]
) -> list[Record]:
    """Return one record for each server, by place. ``servers``: if two have the same place, the first counts."""
    written: dict[Place, list[Report]] = {}
    for report in reports:
        written.setdefault(report.place, []).append(report)
    gone = dict(formers)
    found: list[Record] = []
    for server in servers:
        place = place_of(server.tags)
        assert place is not None
        name = one_line(server.name, 100)
        found.append(Record(name, place, server, tuple(written.pop(place, ())), gone.pop(place, None)))
    found += [
        Record(server_name(uid, place), place, None, tuple(written.get(place, ())), gone.get(place))
        for place in {*written, *gone}
    ]
    return sorted(found, key=lambda record: (record.place, record.name))


def select(known: Iterable[Record], name: str) -> list[Record]:
    """Return the records that ``name`` means: a server's name, a slot, or set/slot. A slot means all its incarnations, unless one is named
    (2.1, set/2.1). Raises `SettingError` if there is none."""
    known = list(known)
    match = re.fullmatch(r"(?:([0-9a-z]{1,64})/)?([0-9]{1,9})(?:\.([0-9]{1,9}))?", name)
    found = [record for record in known if record.name == name]
    if match and not found:
        engine_set, slot, incarnation = match[1], int(match[2]), match[3]
        found = [
            record
            for record in known
            if engine_set in (None, record.place.engine_set)
            and record.place.slot == slot
            and (incarnation is None or record.place.incarnation == int(incarnation))
        ]
    if not found:
        there = ", ".join(str(record.place) for record in known[:MOST_NAMED]) or "none"
        more = f" and {len(known) - MOST_NAMED} more" if len(known) > MOST_NAMED else ""
        raise SettingError(f"There is no server {one_line(name, 100)!r} in this cluster. Its servers: {there}{more}.")
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9


def _text(value: Any) -> str:
    return one_line(value) if isinstance(value, str) else ""
