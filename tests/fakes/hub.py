"""The door to the controller (`ipp_griffin.controller.hub`), without one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ipp_griffin.common.errors import GriffinError
from ipp_griffin.model.names import place_of

from .cloud import FakeCloud
from .door import Door


class FakeHub(Door):
    """Called as the class `Hub` is, it opens a connection. It lists one engine for each server of its cloud, or what is ``listed``.

    ``reachable``: the interfaces under which it answers; None: it does under any.
    """

    name = "hub"
    listed: Mapping[str, int] | None = None
    reachable: Collection[str] | None = None

    def __init__(self, cloud: FakeCloud | None = None) -> None:
        super().__init__(cloud.calls if cloud else None)
        self._cloud = cloud

    def __call__(self, client_info: Mapping[str, Any], *, timeout: float = 10) -> FakeHub:
        return self.open(client_info, timeout=timeout)

    def __enter__(self) -> FakeHub:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self, client_info: Mapping[str, Any], *, timeout: float = 10) -> FakeHub:
        if self.reachable is not None and client_info["interface"] not in self.reachable:
            raise GriffinError(f"The controller at {client_info['interface']} does not answer.")
        return self

    def close(self) -> None:
        pass

    def engines(self, engine_set: str = "") -> dict[str, int]:
        prefix = f"{engine_set}-" if engine_set else ""
        return {uuid: id for uuid, id in self._listed().items() if uuid.startswith(prefix)}

    def _listed(self) -> Mapping[str, int]:
        if self.listed is not None:
            return self.listed
        places = [place_of(server.tags) for server in self._cloud.there.values()] if self._cloud else []
        uuids = [f"{place.uuid_prefix}-0-0" for place in places if place]
        return {uuid: number for number, uuid in enumerate(uuids)}

    def signal(self, engine_set: str, sig: int | str) -> int:
        return len(self.engines(engine_set))

    def shut_down(self, engine_set: str, *, timeout: float, sleep: Callable[[float], None] = time.sleep) -> bool:
        return True
