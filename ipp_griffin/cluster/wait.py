"""`WaitForEngines`: wait until the controller lists the engines, or fail with the cause."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from ..common.errors import GriffinError, Stopped
from ..common.processes import has_ended
from ..model.poll_interval import PollInterval
from ..model.slots import engines_by_place
from .reconciler import Reconciler

if TYPE_CHECKING:
    from ..controller.hub import Hub

TICK = 0.1  # seconds between two questions to the hub, which are cheap


def check_not_stopped(stopping: threading.Event) -> None:
    """Raise `Stopped` if somebody stopped the cluster while it was starting."""
    if stopping.is_set():
        raise Stopped("It was stopped while it was starting.")


class Progress(Protocol):
    """Show how a start gets on."""

    def show(self, connected: int, phases: Mapping[str, int]) -> None:
        """``connected``: engines that the controller lists; ``phases``: how many servers are in which phase."""


class WaitForEngines:
    """One wait. ``timeout``: what ``deadline`` (monotonic) stands for, in seconds; ``settle``: wait until it is known of every
    server whether it gets its engines, not for the quorum only; ``controller``: its launcher, if here.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        settle: bool,
        controller: Any,
        stopping: threading.Event,
        timeout: float,
        deadline: float,
        poll_interval: float,
        progress: AbstractContextManager[Progress],
    ) -> None:
        self._reconciler, self._settle, self._controller, self._stopping = reconciler, settle, controller, stopping
        self._timeout, self._deadline, self._poll_interval = timeout, deadline, poll_interval
        self._progress = progress

    def run(self, open_hub: Callable[[], Hub]) -> None:
        """Return when the hub lists as many engines as the roster's quorum. Blocking.

        Raises `Stopped`, or `GriffinError` with the cause: failed servers, an ended controller, the deadline.
        """
        clock, roster = self._reconciler.clock, self._reconciler.roster
        polling, next_poll = PollInterval(self._poll_interval, clock()), 0.0
        self._check_controller()
        with open_hub() as hub, self._progress as progress:
            while True:
                check_not_stopped(self._stopping)
                self._check_controller()
                registered = engines_by_place(hub.engines(self._reconciler.engine_set.engine_set))
                listed = roster.count(registered, clock())
                if listed >= roster.engines or (listed >= roster.quorum and not self._settle):
                    progress.show(listed, roster.phases())
                    return
                if (began := clock()) >= next_poll:
                    self._reconciler.poll(registered, reports=True, replace_settled=True, hub=hub)
                    self._reconciler.check_quorum()
                    progress.show(listed, roster.phases())
                    next_poll = clock() + polling.pause(roster, began, clock())
                if listed >= roster.quorum and not roster.unsettled:
                    return
                if clock() > self._deadline:
                    if listed < roster.quorum:
                        raise GriffinError(self._too_late(listed))
                    self._reconciler.give_up_stragglers(f"was not there after {self._timeout:.0f} s (start_timeout)")
                    return
                self._stopping.wait(TICK)

    def _check_controller(self) -> None:
        if has_ended(self._controller):
            raise GriffinError(
                f"The controller ended while engines were starting: {self._controller.stop_data or 'it was killed'}."
            )

    def _too_late(self, listed: int) -> str:
        roster = self._reconciler.roster
        phases = ", ".join(f"{count} {phase}" for phase, count in roster.phases().items())
        silent = [slot.planned.name for slot in roster.unsettled if slot.phase == "active"]
        why = f" Never reported: {', '.join(silent[:5])} (can they reach the object store?)." if silent else ""
        return (
            f"Only {listed} of {roster.quorum} engines connected within {self._timeout:.0f} s; servers: {phases}.{why} "
            "All servers of this start are deleted. Set GriffinEngineSetLauncher.start_timeout for slower clouds."
        )
