"""`Watcher`: notices that the servers of a running engine set have gone."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..engine_set import Survey

SECOND_LOOK = 1.0  # seconds until a look that found no living server is repeated


class Watcher:
    """A daemon thread that looks at the servers of one engine set, by one request per interval.

    A thread, not a task: with ipyparallel's synchronous API the event loop of `start` is closed when it returns.
    An outage of the cloud changes nothing; only what Nova says of a server counts, twice in a row.
    """

    def __init__(
        self,
        *,
        look: Callable[[], Survey],
        on_gone: Callable[[], bool],
        stop: threading.Event,
        interval: float,
        log: logging.Logger,
    ) -> None:
        self._look, self._on_gone, self._stop, self._interval, self._log = look, on_gone, stop, interval, log
        self._told: dict[str, str] = {}
        self._unreachable = False

    def start(self) -> None:
        threading.Thread(target=self._run, name="griffin-watch", daemon=True).start()

    def _run(self) -> None:
        none_alive = False
        while not self._stop.wait(min(self._interval, SECOND_LOOK) if none_alive else self._interval):
            before, none_alive = none_alive, self.look_once() == 0
            if before and none_alive and self._on_gone():
                return

    def look_once(self) -> int | None:
        """How many servers live, None where the cloud does not say; tells of each change once."""
        from ..engine_set import DEAD

        try:
            survey = self._look()
        except Exception as e:  # whatever it is: the watch must go on
            if not self._unreachable:
                self._log.warning(f"Can't look at the servers now, will go on trying: {e}")
            self._unreachable = True
            return None
        self._unreachable = False
        status: dict[str, Any] = {server.name: server.status for server in survey.servers}
        if self._told and not status:
            self._log.warning(
                "All servers of this engine set are gone: it was stopped from elsewhere, or they were deleted."
            )
        for name in sorted(self._told.keys() - status.keys()) if status else ():
            self._log.warning(f"Server {name} is gone: somebody deleted it.")
        for server in survey.servers:
            if server.status in DEAD and self._told.get(server.name) != server.status:
                self._log.warning(f"Server {server.name} went to {server.status}: {server.fault or 'it is off'}")
        self._told = status
        return sum(value not in DEAD for value in status.values())
