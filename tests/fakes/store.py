"""The door to the object store (`ipp_griffin.cloud.store.store`), without one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ipp_griffin.cloud.store.store import StoredObject
from ipp_griffin.common.errors import StoreError
from ipp_griffin.model.reports import Report

from .door import Door


class FakeStore(Door):
    """``there``: the containers by uid, each with its objects by name; ``labelled``: what was noted of each.

    Of objects by name: ``contents``: what a report says; ``times``: when it was written. ``made``: when each container that is not
    labelled yet was made. ``locked``: something in the containers can't be deleted. ``then``: called with what was put.
    """

    name = "store"
    locked = False
    then: Callable[[str, str, bytes], object] = staticmethod(lambda uid, name, data: None)

    def __init__(self, **containers: dict[str, bytes]) -> None:
        super().__init__()
        self.there = containers
        self.labelled: dict[str, Mapping[str, str]] = {}
        self.contents: dict[str, dict[str, Any]] = {}
        self.times: dict[str, str] = {}
        self.made: dict[str, float] = {}

    @classmethod
    def of_clusters(cls, **labels: Mapping[str, str]) -> FakeStore:
        """One with an empty container for each cluster, of which that was noted."""
        made = cls(**{uid: {} for uid in labels})
        made.labelled.update(labels)
        return made

    def prepare(self) -> None:
        pass

    def publish(self, uid: str, labels: Mapping[str, str], *, quota: bool = True) -> None:
        self.there.setdefault(uid, {})
        self.labelled.setdefault(uid, labels)

    def labels(self, uid: str) -> Mapping[str, str]:
        return self.labelled.get(uid, {})

    def containers(self) -> list[str]:
        return list(self.there)

    def made_at(self, uid: str) -> float | None:
        return self.made.get(uid)

    def put(self, uid: str, name: str, data: bytes) -> None:
        if uid not in self.there:
            raise StoreError("There is no such container.", status=404)
        self.there[uid][name] = data
        self.then(uid, name, data)

    def get(self, uid: str, name: str, limit: int = 1 << 20) -> bytes:
        if name not in self.there.get(uid, {}):
            raise StoreError("There is no such object.", status=404)
        return self.there[uid][name][:limit]

    def objects(self, uid: str, prefix: str = "", **how: Any) -> list[StoredObject]:
        named = [name for name in self.there.get(uid, {}) if name.startswith(prefix)]
        return [StoredObject(name, 0, self.times.get(name, "")) for name in named]

    def get_url(self, uid: str, name: str, seconds: float) -> str:
        return f"https://store/{uid}/{name}?get={seconds}"

    def report_urls(self, uid: str, prefix: str, seconds: float, more: Iterable[str] = ()) -> dict[str, Any]:
        return {"prefix": f"https://store/{uid}/{prefix}", "query": f"put={seconds}"}

    def expiry(self, seconds: float) -> int:
        return 4_000_000_000

    def reports(self, uid: str, engine_set: str = "", *, logs: bool = False) -> list[Report]:
        named = [Report.parse(name, self.times.get(name, "")) for name in self.there.get(uid, {})]
        found = [r for r in named if r and engine_set in ("", r.place.engine_set) and (logs or r.phase != "log")]
        return sorted(found, key=lambda r: (r.place, r.sequence))

    def read_report(self, uid: str, report: Report) -> dict[str, Any]:
        return self.contents.get(report.name, {})

    def delete_prefix(self, uid: str, prefix: str) -> None:
        objects = self.there.get(uid, {})
        for name in [name for name in objects if name.startswith(prefix)]:
            del objects[name]

    def remove_if_empty(self, uid: str) -> bool:
        return not self.there.get(uid) and self._remove(uid)

    def delete_container(self, uid: str) -> bool:
        return not self.locked and self._remove(uid)

    def _remove(self, uid: str) -> bool:
        self.there.pop(uid, None)
        self.labelled.pop(uid, None)
        return True
