"""Timestamps as text: ISO 8601, as OpenStack's services, object stores and this project write them. Pure."""

from __future__ import annotations

from datetime import datetime, timezone


def timestamp(text: str) -> datetime | None:
    """The moment that is meant, in UTC where ``text`` names no zone; None for anything else."""
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return found.replace(tzinfo=timezone.utc) if found.tzinfo is None else found.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return None


def iso(when: datetime | float) -> str:
    """In UTC, with milliseconds. ``when`` may be seconds since 1970."""
    when = when if isinstance(when, datetime) else datetime.fromtimestamp(when, timezone.utc)
    return when.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_since(text: str, now: datetime) -> float:
    """From then to ``now``; 0 where that is not known, or to come."""
    found = timestamp(text)
    return max(0.0, (now - found).total_seconds()) if found else 0.0


def is_past(text: str, now: datetime) -> bool:
    """Whether this moment is known, and over."""
    found = timestamp(text)
    return found is not None and found < now
