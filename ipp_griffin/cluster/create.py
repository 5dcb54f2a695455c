"""Create many servers, each exactly once, although any answer may be lost.

A POST that timed out, whose connection broke or that was answered with a 5xx may still make a server. So creation goes in rounds: POST
what is missing; then, if any answer was doubtful, list the engine set by its tag, adopt the servers that exist, and delete those
created twice. Only a slot without a server is requested again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING

from ..common.errors import CloudError, Unavailable, logger
from ..common.retry import backoff
from ..common.threads import in_parallel
from ..model.names import Place, place_of, set_tag, uid_tag
from ..model.plan import Plan, ServerPlan

if TYPE_CHECKING:
    from ..cloud.cloud import Cloud
    from ..model.server import Server

SETTLE = 1.0  # seconds, at least, for a lost POST to take effect before the listing is trusted


def create_servers(
    cloud: Cloud,
    plan: Plan,
    work: Sequence[tuple[ServerPlan, bytes]],
    *,
    on_created: Callable[[ServerPlan, Server], None],
    stop: threading.Event,
    parallel: int = 10,
) -> None:
    """Create the servers of ``work``, each with its user-data, ``parallel`` at a time. Blocking.

    Call ``on_created`` for each as soon as it exists, one call at a time. Once ``stop`` is set or anything failed, request no more
    servers; wait for those requested, call ``on_created`` for them, then raise the first error: `QuotaError`, another `CloudError`, or
    what ``on_created`` raised.
    """
    _Creation(cloud, plan, work, on_created=on_created, stop=stop, parallel=parallel).run()


class _Creation:
    """One call of `create_servers`."""

    def __init__(
        self,
        cloud: Cloud,
        plan: Plan,
        work: Sequence[tuple[ServerPlan, bytes]],
        *,
        on_created: Callable[[ServerPlan, Server], None],
        stop: threading.Event,
        parallel: int,
    ) -> None:
        self._cloud, self._plan, self._parallel = cloud, plan, parallel
        self._on_created, self._stop = on_created, stop
        self._user_data = {server.place: data for server, data in work}
        self._missing = {server.place: server for server, _ in work}
        self._made: dict[Place, str] = {}  # the ids of servers
        self._doubtful: set[Place] = set()  # those with a POST of unknown end, once and for all
        self._error: Exception | None = None
        self._refused: list[Unavailable] = []  # failures of this round that justify another
        self._lock = threading.Lock()

    def run(self) -> None:
        """Return when all exist, or when ``stop`` is set; raise the first error."""
        fruitless = 0
        while self._missing and not self._over():
            before = len(self._made)
            refused = self._round(fruitless)
            fruitless = 0 if len(self._made) > before else fruitless + 1
            if fruitless > self._cloud.retries:
                self._fail(
                    refused
                    or Unavailable(
                        "Can't create servers: the cloud created none of them. Try again "
                        "later, or ask the cloud's operators."
                    )
                )
        if self._error is not None:
            raise self._error

    def _round(self, fruitless: int) -> Unavailable | None:
        """Send a POST for each missing server and settle doubtful answers; return the error that makes another round necessary, if any."""
        self._refused.clear()
        in_parallel(list(self._missing.values()), self._create, self._parallel)
        refused = max(self._refused, key=lambda e: e.retry_after or 0, default=None)
        if refused is not None:
            logger.debug("creating servers, %d to go: %s", len(self._missing), refused)
            self._pause(backoff(fruitless, refused.retry_after))
        if self._doubtful:
            self._reconcile()
        return refused

    def _over(self) -> bool:
        return self._stop.is_set() or self._error is not None

    def _create(self, server: ServerPlan) -> None:
        # If the service asks for a pause, the other servers wait for the next round.
        if self._over() or any(
            e.retry_after is not None or e.status == HTTPStatus.TOO_MANY_REQUESTS for e in list(self._refused)
        ):
            return
        try:
            made = self._cloud.create_server(self._plan, server, self._user_data[server.place])
        except Unavailable as error:
            with self._lock:
                self._refused.append(error)
                if error.status != HTTPStatus.TOO_MANY_REQUESTS:
                    self._doubtful.add(server.place)
        except Exception as error:
            self._fail(error)
        else:
            self._adopt(server, made)

    def _adopt(self, server: ServerPlan, made: Server) -> None:
        with self._lock:
            self._made[server.place] = made.id
            self._missing.pop(server.place, None)
            try:
                self._on_created(server, made)
            except Exception as error:
                self._error = self._error or error

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._error = self._error or error

    def _pause(self, seconds: float) -> None:
        """Wait in short steps, so that ``stop`` is soon seen. Requests with an unknown result always get their time to take effect."""
        if self._doubtful:
            self._cloud.sleep(SETTLE)
            seconds -= SETTLE
        while seconds > 0 and not self._over():
            self._cloud.sleep(min(seconds, 1.0))
            seconds -= 1.0

    def _reconcile(self) -> None:
        """Adopt servers that were created after all, and delete those created twice, until a listing shows one at most for each slot."""
        try:
            for attempt in range(self._cloud.retries + 1):
                spare = self._adopt_listed()
                if not spare:
                    return
                logger.debug("deleting servers that were created twice: %s", ", ".join(spare))
                self._cloud.delete_servers(spare, self._parallel)
                self._cloud.sleep(backoff(attempt))
        except CloudError as error:
            self._fail(error)

    def _adopt_listed(self) -> list[str]:
        """List the servers, adopt those that are missing, and return the ids of those created twice."""
        spare = []
        listed = self._cloud.servers(uid_tag(self._plan.uid), set_tag(self._plan.engine_set))
        for server in sorted(listed, key=lambda s: (s.status == "ERROR", s.created, s.id)):
            place = place_of(server.tags)
            if place in self._missing:
                self._adopt(self._missing[place], server)
            elif place in self._doubtful and self._made.get(place, server.id) != server.id:
                spare.append(server.id)
        return spare
