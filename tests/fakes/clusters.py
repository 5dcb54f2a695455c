"""The clusters of a project (`ipp_griffin.cluster.inventory`), without a cloud."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ipp_griffin.cluster.cluster import Cluster, Leftover
from ipp_griffin.cluster.inventory import NoSuchCluster
from ipp_griffin.model.history import Record
from ipp_griffin.model.reports import Report
from ipp_griffin.model.server import Server

from .door import Door


class FakeClusters(Door):
    """``there``: its clusters; ``rest``: those of which only something is left; ``left``: what is left over; ``known``: the records
    of any; ``contents``: what reports say, by their names, or why they can't be read; ``consoles``: by the id of the server."""

    name = "clusters"
    store_trouble = ""

    def __init__(self, *there: Cluster) -> None:
        super().__init__()
        self.there, self.rest, self.left = list(there), list[Cluster](), list[Leftover]()
        self.known: list[Record] = []
        self.contents: dict[str, dict[str, Any] | Exception] = {}
        self.consoles: dict[str, str] = {}

    def all(self, *, everyone: bool = False) -> list[Cluster]:
        return self.there

    def find(self, name: str, *, everyone: bool = False) -> Cluster:
        for cluster in self.there:
            if name in (cluster.uid, cluster.name):
                return cluster
        raise NoSuchCluster(f"There is no cluster {name!r} in this project.")

    def rest_of(self, uid: str, *, everyone: bool = False) -> Cluster | None:
        return next((cluster for cluster in self.rest if cluster.uid == uid), None)

    def stop(self, cluster: Cluster, *, timeout: float) -> None:
        pass

    def leftovers(self, *, everyone: bool = False) -> list[Leftover]:
        return self.left

    def reap(self, found: Iterable[Leftover], *, timeout: float) -> list[Leftover]:
        return list(found)

    def records(self, cluster: Cluster) -> Sequence[Record]:
        return self.known

    def read_report(self, cluster: Cluster, report: Report) -> dict[str, Any]:
        found = self.contents[report.name]
        if isinstance(found, Exception):
            raise found
        return found

    def console(self, server: Server) -> str:
        return self.consoles.get(server.id, "")
