"""Ask the controller, through a plain `ipyparallel.Client`, which engines it lists; signal them; shut them down."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..common.errors import GriffinError

if TYPE_CHECKING:
    from ipyparallel import Client

RECONNECT_AFTER = 1.0, 60.0  # seconds until the list is fetched again: at first, and at most (doubled each time)


class Hub:
    """One client connection to a controller. Blocking: use it in a thread, and close it.

    ``client_info`` is the content of ipcontroller-client.json. Raises `GriffinError` where the controller does not
    answer within ``timeout`` seconds.

    A Client gets the list of engines once, then subscribes to changes. It misses changes between the two (ipyparallel's
    ``Client._connect``), and while the connection was broken. So it is replaced by a new one from time to time.
    """

    def __init__(
        self, client_info: Mapping[str, Any], *, timeout: float = 10, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._info, self._timeout, self._clock = dict(client_info), timeout, clock
        self._client = self._connect(timeout)
        self._pause = RECONNECT_AFTER[0]
        self._reconnect_at = clock() + self._pause

    def _connect(self, timeout: float) -> Client:
        # Imported here: ipyparallel imports the launchers' module, and a Client costs half a second of imports.
        import ipyparallel

        try:
            return ipyparallel.Client(self._info, timeout=timeout)
        except OSError as e:  # TimeoutError is one
            where = f"{self._info.get('interface')}:{self._info.get('registration')}"
            raise GriffinError(f"The controller at {where} does not answer ({e}). Is it still running?") from e

    def _take_list_anew(self) -> None:
        with contextlib.suppress(GriffinError):  # a busy controller: keep the known list
            client = self._connect(min(self._timeout, 5))
            self._client.close()
            self._client = client
        self._pause = min(2 * self._pause, RECONNECT_AFTER[1])
        self._reconnect_at = self._clock() + self._pause

    def __enter__(self) -> Hub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def engines(self, engine_set: str = "") -> dict[str, int]:
        """Return engine uuid -> engine id, of the engines of this set (default: of all sets) that the hub lists now.

        The hub lists an engine only when its heartbeats are seen, seconds after the engine's own log says
        "Completed registration": only then does a Client that connects find it.
        """
        if self._clock() >= self._reconnect_at:
            self._take_list_anew()
        prefix = f"{engine_set}-" if engine_set else ""
        return {uuid: id for id, uuid in self._client._engines.copy().items() if uuid.startswith(prefix)}

    def signal(self, engine_set: str, sig: int | str) -> int:
        """Send a signal to every engine of the set through its nanny; returns how many there were."""
        ids = list(self.engines(engine_set).values())
        if ids:
            self._client.send_signal(sig, targets=ids, block=True)
        return len(ids)

    def shut_down(
        self,
        engine_set: str,
        *,
        timeout: float,
        sleep: Callable[[float], None] = time.sleep,
    ) -> bool:
        """Shut the set's engines down and wait until the hub lists none of them, at most ``timeout`` seconds.

        A hard kill leaves the ids of dead engines in the hub for many heartbeats. Returns whether all are gone.
        """
        from ipyparallel.error import IPythonError

        deadline = self._clock() + timeout
        ids = list(self.engines(engine_set).values())
        if ids:
            with contextlib.suppress(IPythonError):  # an engine that just left by itself
                self._client.shutdown(targets=ids, block=False)
            self._reconnect_at = self._clock() + RECONNECT_AFTER[0]  # not before the shutdown is sent
        while self.engines(engine_set):
            if self._clock() > deadline:
                return False
            sleep(0.05)
        return True
