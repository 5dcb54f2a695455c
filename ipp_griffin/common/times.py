"""Timestamps as text: ISO 8601, as OpenStack's services, object stores and this project write them. Pure."""

from __future__ import annotations

from datetime import datetime, timezone


def timestamp(text: str) -> datetime | None:
    """Return the time that ``text`` means, in UTC if it names no zone; None for anything else."""
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return found.replace(tzinfo=timezone.utc) if found.tzinfo is None else found.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def iso(when: datetime | float) -> str:
    """Return ``when`` (seconds since 1970, or a datetime) in ISO 8601, in UTC, with milliseconds."""
    when = when if isinstance(when, datetime) else datetime.fromtimestamp(when, timezone.utc)
    return when.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_since(text: str, now: datetime) -> float:
    """Return the seconds from ``text`` to ``now``; 0 if that is unknown or in the future."""
    found = timestamp(text)
    return max(0.0, (now - found).total_seconds()) if found else 0.0


def is_past(text: str, now: datetime) -> bool:
    """Return whether ``text`` is a time in the past."""
    found = timestamp(text)
    return found is not None and found < now
