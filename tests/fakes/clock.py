"""Time for tests."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from ipp_griffin.cluster import engine_set
from ipp_griffin.cluster.engine_set import EngineSet
from ipp_griffin.cluster.teardown import delete_servers
from ipp_griffin.launchers import on_servers as servers


class Clock:
    """Time that passes only by sleeping. ``slept``: every pause, in seconds; ``then``: called after each of them."""

    def __init__(self, then: Callable[[], object] = lambda: None, *, now: float = 100.0) -> None:
        self.now, self.then = now, then
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.now += seconds
        self.then()


def without_pauses(patch: pytest.MonkeyPatch) -> None:
    """No time passes between a deletion and a listing that confirms it, nor between two tries to clean up."""
    clock = Clock()
    for function in (delete_servers, EngineSet.destroy, EngineSet.wait_until_gone):
        patch.setitem(function.__kwdefaults__, "sleep", clock.sleep)
        patch.setitem(function.__kwdefaults__, "clock", clock)
    patch.setattr(engine_set, "time", SimpleNamespace(sleep=clock.sleep, monotonic=clock))
    patch.setattr(servers, "CLEAN_UP_PAUSE", 0.0)
