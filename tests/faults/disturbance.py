"""`Disturbance`: the faults of several stages at the same time, and the proof that each stage met its own."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol

from .stages import AFTER, Fault, Faults

GONE = 404  # to a deletion as good an answer as 204


class Disturbed(Protocol):
    """What of a dev cloud is needed."""

    faults: Any
    requests: list[tuple[str, str, str, int]]

    def note(self, service: str, method: str, path: str, status: int) -> None: ...


class Disturbance:
    """Faults by the stage that is to meet them, set for the time of a ``with``.

    ``after``: stages whose faults are not set before a request of that kind has been answered well. ``beside``: faults of servers,
    of no stage.
    """

    def __init__(
        self, cloud: Disturbed, faults: Mapping[str, Faults], after: Mapping[str, Fault] = AFTER, beside: Faults = ()
    ) -> None:
        self._cloud, self._faults, self._beside = cloud, faults, beside
        self._waiting = {stage: after[stage] for stage in faults if stage in after}
        self._set: list[tuple[str, Fault]] = []  # in the order in which the cloud has them
        self._lock = threading.Lock()

    def __enter__(self) -> Disturbance:
        self._before = len(self._cloud.requests)
        self._note = self._cloud.note
        self._cloud.note = self._noted  # type: ignore[method-assign]  # before the answer is sent
        self._cloud.faults.set(*self._beside)
        self._add(stage for stage in self._faults if stage not in self._waiting)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cloud.note = self._note  # type: ignore[method-assign]
        self._cloud.faults.clear()

    def check(self) -> None:
        """Fail unless each stage has met all of its faults, and no request can have taken another stage's."""
        assert not self.unmet(), f"not met: {'; '.join(self.unmet())}"
        assert not self.claimed_twice(), f"of more stages than one: {'; '.join(self.claimed_twice())}"

    def unmet(self) -> list[str]:
        """The stages that have not met all of their faults, and which."""
        with self._lock:
            there = self._cloud.faults.snapshot()[len(self._beside) :]
            left = [
                f"{stage}: {named(now)} ({now['count']} left)"
                for (stage, _), now in zip(self._set, there, strict=True)
                if now["count"]
            ]
            return left + [f"{stage}: nothing came of {named(one)} before it" for stage, one in self._waiting.items()]

    def claimed_twice(self) -> list[str]:
        """The requests so far which fit the faults of several stages: one of these may have met those of another."""
        found = []
        for service, method, path, _ in self._cloud.requests[self._before :]:
            stages = sorted({stage for stage, fault in self._set if fits(fault, service, method, path)})
            if len(stages) > 1:
                found.append(f"{service} {method} {path}: {', '.join(stages)}")
        return found

    def _noted(self, service: str, method: str, path: str, status: int) -> None:
        self._note(service, method, path, status)
        if not (200 <= status < 300 or (method == "DELETE" and status == GONE)):
            return
        with self._lock:
            due = [stage for stage, first in self._waiting.items() if fits(first, service, method, path)]
            for stage in due:
                del self._waiting[stage]
            self._add(due)

    def _add(self, stages: Iterable[str]) -> None:
        new = [(stage, fault) for stage in stages for fault in self._faults[stage]]
        if new:
            self._set += new
            self._cloud.faults.set(*self._cloud.faults.snapshot(), *(fault for _, fault in new))


def fits(fault: Fault, service: str, method: str, path: str) -> bool:
    """Whether a fault is for such a request."""
    return (
        fault.get("service", service) == service
        and method in fault.get("methods", [method])
        and re.search(fault.get("path", ""), path) is not None
    )


def named(fault: Fault) -> str:
    """A fault, by the requests that it is for."""
    return " ".join([str(fault["service"]), *fault.get("methods", []), str(fault.get("path", ""))]).rstrip()
