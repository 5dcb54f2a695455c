"""`WaitForController`: wait until ipcontroller on a server has handed over its connection files, or fail with the cause."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..common.errors import GriffinError, Unavailable
from ..model.poll_interval import PollInterval
from .reconciler import Reconciler
from .wait import check_not_stopped

if TYPE_CHECKING:
    from ..model.server import Server
    from .controller_server import ControllerServer

Json = dict[str, Any]

QUICKER = 4  # polls in the time of one for engines


class WaitForController:
    """One wait. ``publish``: tells a server, by its name, that its address is known; ``attach``: makes a server, by its id, one that
    clients reach; ``timeout``: what ``deadline`` (of the reconciler's clock) stands for, in seconds.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        server: ControllerServer,
        *,
        publish: Callable[[str, str], None],
        attach: Callable[[str], None],
        stopping: threading.Event,
        timeout: float,
        deadline: float,
        poll_interval: float,
        log: Any,
    ) -> None:
        self._reconciler, self._server, self._publish, self._attach = reconciler, server, publish, attach
        self._stopping, self._timeout, self._deadline = stopping, timeout, deadline
        self._poll_interval, self._log = poll_interval, log
        self._published = self._attached = self._phase = self._trouble = ""

    def run(self) -> tuple[Server, dict[str, Json]]:
        """Return the server, and what its agent has handed over. Blocking.

        Raises `Stopped`, or `GriffinError` with the cause: servers that failed, or the deadline. An outage of the cloud is no cause.
        """
        # Each step of it is waited for here, and so is whoever starts it.
        polling = PollInterval(self._poll_interval / QUICKER, self._reconciler.clock())
        while True:
            check_not_stopped(self._stopping)
            began = self._reconciler.clock()
            self._reconciler.poll({}, reports=True, replace_settled=True)
            self._reconciler.check_quorum()
            try:
                found = self._go_on()
                self._trouble = ""
            except Unavailable as e:
                found = None
                if not self._trouble:
                    self._log.warning(f"Will try again: {e}")
                self._trouble = str(e)
            if found is not None:
                return found
            slot = self._reconciler.roster.slots[0]
            if self._reconciler.clock() > self._deadline:
                raise GriffinError(
                    f"The controller's server was not ready within {self._timeout:.0f} s (it is in phase {slot.phase}). It is deleted. "
                    "Set GriffinServerControllerLauncher.start_timeout for slower clouds."
                )
            self._stopping.wait(polling.pause(self._reconciler.roster, began, self._reconciler.clock()))

    def _go_on(self) -> tuple[Server, dict[str, Json]] | None:
        """Do what can be done of the server as it is now. May raise `CloudError`."""
        slot, survey = self._reconciler.roster.slots[0], self._reconciler.survey
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
        return server, self._server.connection_files(slot.planned.incarnation)
