"""Report at every start what earlier clusters of the same user left: many clouds bill servers that are off, too."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from ..cloud.shared import open_store
from ..common.threads import in_thread

if TYPE_CHECKING:
    from ..cloud.cloud import Cloud

PATIENCE = 10  # seconds that a start waits at its end for the answer
MOST_TOLD = 3


class Leftovers:
    """A search that runs during a start, from construction on. Its errors fail nothing."""

    def __init__(self, cloud: Cloud, container: str, *, uid: str, log: Any) -> None:
        self._cloud, self._container, self._uid, self._log = cloud, container, uid, log
        self._searching = asyncio.ensure_future(in_thread(self._search))

    def cancel(self) -> None:
        """Give up the search: the start has failed."""
        self._searching.cancel()

    async def tell(self) -> None:
        """Log what was found, if it is known soon."""
        with contextlib.suppress(asyncio.TimeoutError):
            if found := await asyncio.wait_for(self._searching, PATIENCE):
                more = f"; and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
                self._log.warning(
                    f"Earlier clusters of yours left {'a server' if len(found) == 1 else f'{len(found)} servers'}, which the cloud may "
                    f"bill: {'; '.join(found[:MOST_TOLD])}{more}. `ipp-griffin reap` deletes what is left."
                )

    def _search(self) -> list[str]:
        from ..cluster.inventory import Clusters

        clusters = Clusters(self._cloud, lambda prefix: open_store(self._cloud, container=prefix), self._container)
        try:
            found = clusters.servers_left()
        except Exception as e:  # whatever it is
            self._log.debug(f"Can't search for leftovers of earlier clusters: {type(e).__name__}: {e}")
            return []
        return [f"{left.server.name} {left.why}" for left in found if left.server and left.cluster.uid != self._uid]
