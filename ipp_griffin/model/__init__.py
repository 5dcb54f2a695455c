"""Deciding: plan, slots, names, connection files, reports, logs, timeline. No I/O, no SDK, no clock."""
