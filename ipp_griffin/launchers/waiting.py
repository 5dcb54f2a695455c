"""`WaitForEngines`: from created servers to engines that the controller lists, or to the cause of the failure."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection
from textwrap import indent
from typing import TYPE_CHECKING, Any

from ..plan import GriffinError, Plan, Stopped

if TYPE_CHECKING:
    from ..engine_set import EngineSet, Survey
    from ..hub import Hub

TICK = 0.1  # seconds between two questions to the hub, which cost nothing
MOST_NAMED = 3  # servers that an error, or the log, tells of


def check_not_stopped(stopping: threading.Event) -> None:
    """Raise `Stopped` where somebody has stopped what is starting."""
    if stopping.is_set():
        raise Stopped("The engine set was stopped while it was starting.")


class WaitForEngines:
    """One wait. ``known``: the ids of the plan's servers; ``timeout``: what ``deadline`` (monotonic) stands for, in seconds; ``controller``: its launcher, if here."""

    def __init__(
        self,
        engine_set: EngineSet,
        plan: Plan,
        *,
        known: Collection[str],
        controller: Any,
        stopping: threading.Event,
        timeout: float,
        deadline: float,
        poll_interval: float,
        log: Any,
    ) -> None:
        self._engine_set, self._plan, self._known = engine_set, plan, known
        self._controller, self._stopping = controller, stopping
        self._timeout, self._deadline, self._poll_interval, self._log = timeout, deadline, poll_interval, log
        self._survey: Survey | None = None
        self._told = ""
        self._outage = False

    def run(self, open_hub: Callable[[], Hub]) -> None:
        """Return when the hub lists every engine of the plan. Blocking.

        Raises `Stopped`, or `GriffinError` with the cause: failed servers, an ended controller, the deadline.
        """
        next_look = 0.0
        self._check_controller()
        with open_hub() as hub:
            while True:
                check_not_stopped(self._stopping)
                self._check_controller()
                registered = len({uuid.rpartition("-")[0] for uuid in hub.engines(self._engine_set.engine_set)})
                if registered >= self._plan.engines:
                    return
                if time.monotonic() >= next_look:
                    self._look(registered)
                    next_look = time.monotonic() + self._poll_interval
                if time.monotonic() > self._deadline:
                    raise GriffinError(self._too_late(registered))
                self._stopping.wait(TICK)

    def _look(self, registered: int) -> None:
        """See how the servers are, and tell what is new. An outage of the cloud fails nothing before the deadline."""
        try:
            survey = self._engine_set.delete_spares(self._engine_set.survey(), self._known)
            failures = self._engine_set.failures(self._plan, survey)
        except GriffinError as e:
            if not self._outage:
                self._log.warning(f"Can't look at the servers now, will go on trying: {e}")
            self._outage = True
            return
        self._outage = False
        self._survey = survey
        if failures:
            more = f" And {len(failures) - MOST_NAMED} more." if len(failures) > MOST_NAMED else ""
            named = " ".join(line if line.endswith(".") else f"{line}." for line in failures[:MOST_NAMED])
            raise GriffinError(
                f"{len(failures)} of {len(self._plan.servers)} servers failed. {named}{more} "
                "All servers of this start are deleted."
            )
        text = (
            f"{survey.active} of {len(self._plan.servers)} servers active, "
            f"{registered} of {self._plan.engines} engines connected"
        )
        if text != self._told:
            self._log.info(text)
        self._told = text

    def _check_controller(self) -> None:
        if self._controller is not None and self._controller.state == "after":
            raise GriffinError(f"The controller ended while engines were starting: {self._controller.stop_data}.")

    def _too_late(self, registered: int) -> str:
        """What to say at the deadline; the consoles of servers that never reported go to the log."""
        servers, reports = (self._survey.servers, self._survey.reports) if self._survey else ((), {})
        silent = [planned.name for planned in self._plan.servers if self._survey and planned.slot not in reports]
        for server in [server for server in servers if server.name in silent][:MOST_NAMED]:
            with contextlib.suppress(GriffinError):
                console = self._engine_set.cloud.console_output(server.id, 20) or "(nothing)"
                self._log.error(f"Console of {server.name}, which never reported:\n{indent(console, '  ')}")
        why = f" Never reported: {', '.join(silent[:5])} (can they reach the object store?)." if silent else ""
        return (
            f"Only {registered} of {self._plan.engines} engines connected within {self._timeout:.0f} s.{why} "
            "All servers of this start are deleted. Set GriffinEngineSetLauncher.start_timeout for slower clouds."
        )
