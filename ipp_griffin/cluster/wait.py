"""`WaitForEngines` and `WaitForController`: wait for the end of a start, or fail with the cause. Blocking."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from ..common.errors import GriffinError, Stopped, Unavailable
from ..common.processes import has_ended
from ..model.poll_interval import PollInterval
from ..model.slots import engines_by_place
from .reconciler import Reconciler

if TYPE_CHECKING:
    from ..controller.hub import Hub
    from ..model.connection import Json
    from ..model.names import Place
    from ..model.server import Server
    from .controller_server import ControllerServer

TICK = 0.1  # seconds between two questions to the hub, which cost little
QUICKER = 4  # times as many polls for a controller as for engines: its start waits for each step


def check_not_stopped(stopping: threading.Event) -> None:
    """Raise `Stopped` if somebody stopped the cluster while it was starting."""
    if stopping.is_set():
        raise Stopped("It was stopped while it was starting.")


class Progress(Protocol):
    """Shows the progress of a start."""

    def show(self, connected: int, phases: Mapping[str, int]) -> None:
        """Show ``connected`` (engines that the controller lists) and ``phases`` (how many servers are in which phase)."""


class Wait:
    """What both waits share. ``timeout``: the seconds that ``deadline`` (by the reconciler's clock) stands for; ``poll_interval``: seconds."""

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        stopping: threading.Event,
        timeout: float,
        deadline: float,
        poll_interval: float,
    ) -> None:
        self._reconciler, self._roster, self._clock = reconciler, reconciler.roster, reconciler.clock
        self._stopping, self._timeout, self._deadline = stopping, timeout, deadline
        self._polling = PollInterval(poll_interval, self._clock())

    def _poll(self, registered: Mapping[Place, int], hub: Hub | None = None) -> float:
        """Poll the servers, and return the time of the next poll. Raises `GriffinError` if too many have failed."""
        began = self._clock()
        self._reconciler.poll(registered, reports=True, replace_settled=True, hub=hub)
        self._reconciler.check_quorum()
        now = self._clock()
        return now + self._polling.pause(self._roster, began, now)


class WaitForEngines(Wait):
    """Wait for engines. ``settle``: wait until each server has its engines or has failed, not only for the quorum; ``controller``: its
    launcher, if it is in this process; ``progress``: shown during the wait; for the others, see `Wait`."""

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        settle: bool,
        controller: Any,
        progress: AbstractContextManager[Progress],
        **wait: Any,
    ) -> None:
        super().__init__(reconciler, **wait)
        self._settle, self._controller, self._progress = settle, controller, progress

    def run(self, open_hub: Callable[[], Hub]) -> None:
        """Return when the hub lists as many engines as the roster's quorum.

        Raises `Stopped`, or `GriffinError` with the cause: failed servers, an ended controller, the deadline.
        """
        roster, next_poll = self._roster, 0.0
        self._check_controller()
        with open_hub() as hub, self._progress as progress:
            while True:
                check_not_stopped(self._stopping)
                self._check_controller()
                registered = engines_by_place(hub.engines(self._reconciler.engine_set.engine_set))
                listed = roster.count(registered, self._clock())
                if listed >= roster.engines or (listed >= roster.quorum and not self._settle):
                    progress.show(listed, roster.phases())
                    return
                if self._clock() >= next_poll:
                    next_poll = self._poll(registered, hub)
                    progress.show(listed, roster.phases())
                if listed >= roster.quorum and not roster.unsettled:
                    return
                if self._clock() > self._deadline:
                    if listed < roster.quorum:
                        raise GriffinError(self._too_late(listed))
                    self._reconciler.give_up_stragglers(
                        f"had not all its engines after {self._timeout:.0f} s (start_timeout)"
                    )
                    return
                self._stopping.wait(TICK)

    def _check_controller(self) -> None:
        if has_ended(self._controller):
            raise GriffinError(
                f"The controller ended while engines were starting: {self._controller.stop_data or 'it was killed'}."
            )

    def _too_late(self, listed: int) -> str:
        roster = self._roster
        phases = ", ".join(f"{count} {phase}" for phase, count in roster.phases().items())
        silent = [slot.planned.name for slot in roster.unsettled if slot.phase == "active"]
        why = f" Never reported: {', '.join(silent[:5])} (can they reach the object store?)." if silent else ""
        return (
            f"Only {listed} of {roster.quorum} engines connected within {self._timeout:.0f} s; servers: "
            f"{phases}.{why} All servers of this start are deleted. If the cloud is only slow, increase "
            "GriffinEngineSetLauncher.start_timeout."
        )


class WaitForController(Wait):
    """Wait for ipcontroller on a ``server``. ``publish``: called with a server's name and address once it has one; ``attach``: called with a
    server's id, to let clients reach it; for the others, see `Wait`."""

    def __init__(
        self,
        reconciler: Reconciler,
        server: ControllerServer,
        *,
        publish: Callable[[str, str], None],
        attach: Callable[[str], None],
        poll_interval: float,
        log: Any,
        **wait: Any,
    ) -> None:
        super().__init__(reconciler, poll_interval=poll_interval / QUICKER, **wait)
        self._server, self._publish, self._attach, self._log = server, publish, attach, log
        self._published = self._attached = self._phase = self._trouble = ""

    def run(self) -> tuple[Server, dict[str, Json]]:
        """Return the server, and the connection files that its agent wrote.

        Raises `Stopped`, or `GriffinError` with the cause: failed servers, or the deadline. An outage of the cloud does not fail it.
        """
        while True:
            check_not_stopped(self._stopping)
            next_poll = self._poll({})
            try:
                found = self._advance()
                self._trouble = ""
            except Unavailable as e:
                found = None
                if not self._trouble:
                    self._log.warning(f"Will retry: {e}")
                self._trouble = str(e)
            if found is not None:
                return found
            if self._clock() > self._deadline:
                raise GriffinError(
                    f"The controller's server was not ready within {self._timeout:.0f} s (it is in phase "
                    f"{self._roster.slots[0].phase}). It is deleted. If the cloud is only slow, increase "
                    "GriffinServerControllerLauncher.start_timeout."
                )
            self._stopping.wait(max(next_poll - self._clock(), 0))

    def _advance(self) -> tuple[Server, dict[str, Json]] | None:
        """Take the next step that the server's state allows. May raise `CloudError`."""
        slot, survey = self._roster.slots[0], self._reconciler.survey
        if slot.phase != self._phase:
            what = "runs ipcontroller" if slot.phase == "engines" else slot.phase
            self._log.info(f"The controller's server {slot.planned.name}: {what}")
            self._phase = slot.phase
        server = survey.by_name.get(slot.planned.name) if survey else None
        if server is None:
            return None
        if server.address and self._published != server.id:
            self._publish(server.name, server.address)
            self._published = server.id
        if server.status == "ACTIVE" and self._attached != server.id:
            self._attach(server.id)
            self._attached = server.id
        if slot.phase != "engines" or self._attached != server.id:
            return None
        return server, self._server.connection_files(slot.place.incarnation)
