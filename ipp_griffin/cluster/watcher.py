"""`Watcher`: poll a running engine set, and notice that its servers have gone."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..common.errors import Stopped
from ..model.slots import engines_by_place
from .reconciler import Reconciler

if TYPE_CHECKING:
    from ..controller.hub import Hub
    from ..model.names import Place

SECOND_POLL = 1.0  # seconds until a poll that found a server off or gone is repeated


class Watcher:
    """Poll the servers of one engine set in a daemon thread, by one request per interval.

    A thread, not a task: with ipyparallel's synchronous API the event loop of `start` is closed when it returns.
    An outage of the cloud changes nothing; only what Nova says of a server counts, twice in a row.
    Servers that have not got their engines yet, stragglers of a start or replacements, are polled every
    ``poll_interval`` seconds, with their reports and what the controller lists.
    """

    def __init__(
        self,
        reconciler: Reconciler,
        *,
        open_hub: Callable[[], Hub],
        on_gone: Callable[[], bool],
        replace: bool,
        stop: threading.Event,
        interval: float,
        poll_interval: float,
        log: logging.Logger,
    ) -> None:
        self._reconciler, self._open_hub, self._on_gone, self._replace = reconciler, open_hub, on_gone, replace
        self._stop, self._interval, self._poll_interval, self._log = stop, interval, poll_interval, log
        self._hub: Hub | None = None
        self._told = ""

    def start(self) -> None:
        threading.Thread(target=self._run, name="griffin-watch", daemon=True).start()

    def _run(self) -> None:
        none_alive = False
        try:
            while not self._stop.wait(self._pause(none_alive)):
                before, none_alive = none_alive, self.poll_once() == 0
                if before and none_alive and self._on_gone():
                    return
        finally:
            self._close_hub()

    def _pause(self, none_alive: bool) -> float:
        """Return the seconds until the next poll."""
        roster = self._reconciler.roster
        if roster.unsettled:
            return self._poll_interval
        doubtful = none_alive or any(slot.bad_polls == 1 for slot in roster.slots)
        return min(self._interval, SECOND_POLL) if doubtful else self._interval

    def poll_once(self) -> int | None:
        """Poll once; handle what failed, and log each change once. Return how many servers live, None if the cloud does not answer."""
        roster = self._reconciler.roster
        open_end = bool(roster.unsettled)
        try:
            registered = self._registered() if open_end else {}
            if not self._reconciler.poll(registered, reports=open_end, replace_settled=self._replace, hub=self._hub):
                return None
        except Stopped:
            return None
        except Exception as e:  # any error: polling must continue
            if str(e) != self._told:
                self._log.warning(f"Polling the servers failed; will retry: {type(e).__name__}: {e}")
            self._told = str(e)
            return None
        self._told = ""
        if open_end and not roster.unsettled:
            self._close_hub()
            self._log.info(f"{roster.possible} of {roster.engines} engines are connected.")
        return roster.alive

    def _registered(self) -> dict[Place, int]:
        """Return how many engines the controller lists of each server; none while it does not answer."""
        try:
            if self._hub is None:
                self._hub = self._open_hub().__enter__()
            return engines_by_place(self._hub.engines(self._reconciler.engine_set.engine_set))
        except Exception as e:  # it may answer the next time
            self._log.debug(f"Can't ask the controller now; will retry: {e}")
            self._close_hub()
            return {}

    def _close_hub(self) -> None:
        if self._hub is not None:
            with contextlib.suppress(Exception):
                self._hub.__exit__(None, None, None)
            self._hub = None
