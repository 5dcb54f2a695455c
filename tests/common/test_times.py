"""Moments, as the services of a cloud and this project write them."""

from datetime import datetime, timedelta, timezone

import pytest

from ipp_griffin.common.times import is_past, iso, seconds_since, timestamp

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    "text",
    ["2026-01-01T12:00:00Z", "2026-01-01T12:00:00.000000", "2026-01-01T12:00:00.000Z", "2026-01-01T14:00:00+02:00"],
)
def test_a_timestamp_is_read_as_nova_the_store_and_we_write_it(text):
    assert timestamp(text) == NOON
    assert iso(NOON) == iso(NOON.timestamp()) == "2026-01-01T12:00:00.000Z"


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00", "12:00"])
def test_anything_else_is_none_and_neither_past_nor_long_ago(text):
    assert timestamp(text) is None
    assert is_past(text, NOON) is False
    assert seconds_since(text, NOON) == 0


def test_what_is_to_come_is_not_past():
    before, after = (iso(NOON + timedelta(minutes=m)) for m in (-1, 1))
    assert (is_past(before, NOON), is_past(after, NOON)) == (True, False)
    assert (seconds_since(before, NOON), seconds_since(after, NOON)) == (60, 0)
