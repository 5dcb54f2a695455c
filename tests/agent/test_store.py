"""The object store as the agent sees it."""

import http.client
import json
from pathlib import Path

import pytest

from ipp_griffin.agent.errors import Failure

from .world import PRIVATE_OBJECT, Net, http_error


def test_fetching_outlives_everything_a_store_does_before_it_is_consistent(world):
    good = json.dumps(PRIVATE_OBJECT).encode()
    w = world(
        Net(
            *(http_error(status) for status in (401, 403, 404, 500, 503)),
            ConnectionRefusedError(111, "Connection refused"),
            http.client.IncompleteRead(b"{"),
            TimeoutError("timed out"),
            b"<html>",
            good[:-9],
            good,
        )
    )
    w.agent.load()
    assert w.agent.private_object == PRIVATE_OBJECT
    assert len(w.net.requests) == 11
    assert all(a * 0.6 <= b <= 10 for a, b in zip([1, *w.clock.slept], w.clock.slept, strict=False))
    assert "5ecre7a" not in "".join(w.lines)
    kept = Path(w.agent.state.path("private_object.json"))
    assert kept.read_bytes() == good and kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_fetching_ends_at_its_deadline_with_what_happened_last(world):
    w = world(Net(http_error(404), http_error(401)))
    with pytest.raises(Failure, match=r"never came from store:8080 within 60 s: HTTP Error 401: No\. See that"):
        w.agent.load()
    assert w.clock.now - 1000 == pytest.approx(60)
