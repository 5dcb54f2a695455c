"""Ask the controller, through a plain `ipyparallel.Client`, which engines it lists; signal them; shut them down."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from .plan import GriffinError


class Hub:
    """One client connection to a controller. Blocking: use it in a thread, and close it.

    ``client_info`` is the content of ipcontroller-client.json. Raises `GriffinError` where the controller does not
    answer within ``timeout`` seconds.
    """

    def __init__(self, client_info: Mapping[str, Any], *, timeout: float = 10) -> None:
        # Imported here: ipyparallel imports the launchers' module, and a Client costs half a second of imports.
        import ipyparallel

        try:
            self._client = ipyparallel.Client(dict(client_info), timeout=timeout)
        except OSError as e:  # TimeoutError is one
            where = f"{client_info.get('interface')}:{client_info.get('registration')}"
            raise GriffinError(f"The controller at {where} does not answer ({e}). Is it still running?") from e

    def __enter__(self) -> Hub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def engines(self, engine_set: str = "") -> dict[str, int]:
        """Engine uuid -> engine id, of the engines of this set (default: of all sets) that the hub lists now.

        The hub lists an engine only when its heartbeats are seen, seconds after the engine's own log says
        "Completed registration": only then does a Client that connects find it.
        """
        _ = self._client.ids  # brings the notifications that have come in up to date
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
        clock: Callable[[], float] = time.monotonic,
    ) -> bool:
        """Shut the set's engines down and wait until the hub lists none of them, at most ``timeout`` seconds.

        A hard kill leaves the ids of dead engines in the hub for many heartbeats. Returns whether all are gone.
        """
        from ipyparallel.error import IPythonError

        deadline = clock() + timeout
        ids = list(self.engines(engine_set).values())
        if ids:
            with contextlib.suppress(IPythonError):  # an engine that just left by itself
                self._client.shutdown(targets=ids, block=False)
        while self.engines(engine_set):
            if clock() > deadline:
                return False
            sleep(0.05)
        return True
