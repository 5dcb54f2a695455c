"""`ipp-griffin ps`, `stop` and `reap`: clusters as the cloud has them, from any machine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool

from ..cluster.cluster import Cluster, Member
from ..common.text import one_line
from ..common.times import is_past, seconds_since, timestamp
from .command import ClustersCommand, table

if TYPE_CHECKING:
    from ..controller.engine_ids import EngineIds


class Ps(ClustersCommand):
    name = "ps"
    description = """List your clusters in the cloud project, whichever machine they were started on.

    With --engines: a line for each server, with the ids of its engines if the controller can be reached from here.
    """
    examples = "ipp-griffin ps\nipp-griffin ps --engines\nipp-griffin ps --cloud mycloud --all-owners --json"
    json = Bool(False, config=True, help="Print JSON.")
    engines = Bool(False, config=True, help="List servers and the ids of their engines.")
    flags = {  # noqa: RUF012
        **ClustersCommand.flags,
        "json": ({"Ps": {"json": True}}, "Print JSON."),
        "engines": ({"Ps": {"engines": True}}, "List servers and the ids of their engines."),
    }

    def run(self) -> None:
        clusters = self.clusters()
        found = clusters.all(everyone=self.all_owners)
        if clusters.store_trouble:
            self.remark(f"{clusters.store_trouble} What agents reported, and clusters without servers, are not shown.")
        now = datetime.now(timezone.utc)
        ids = self.engine_ids(found) if self.json or self.engines else {}
        if self.json:
            print(json.dumps([as_json(cluster, now, ids.get(cluster.uid)) for cluster in found], indent=2))
        elif found and self.engines:
            rows = [line for cluster in found for line in server_rows(cluster, now, ids.get(cluster.uid))]
            print(table([SERVER_HEADINGS, *rows]))
        elif found:
            print(table([HEADINGS, *(row(cluster, now) for cluster in found)]))
        else:
            whose = "" if self.all_owners else " of yours (--all-owners shows those of others)"
            print(f"There is no cluster{whose} in this project.")

    def engine_ids(self, found: Iterable[Cluster]) -> dict[str, EngineIds]:
        """Return the engine ids of the clusters whose controllers' connection files are on this machine."""
        from IPython.paths import get_ipython_dir

        from ..controller.engine_ids import engine_ids

        return engine_ids([cluster.uid for cluster in found], Path(get_ipython_dir()))


HEADINGS = ("CLUSTER", "OWNER", "PROFILE", "ID", "SERVERS", "ENGINES", "AGE", "EXPIRES", "VCPU-HOURS")
SERVER_HEADINGS = ("CLUSTER", "SERVER", "FLAVOR", "PHASE", "ENGINES", "IDS", "ADDRESS", "AGE", "EXPIRES")


def row(cluster: Cluster, now: datetime) -> tuple[str, ...]:
    """Return a cluster as a line of the table."""
    servers = ", ".join(f"{phase}: {count}" for phase, count in sorted(cluster.phases.items())) or "none"
    return (
        cluster.uid,
        cluster.labels["owner"] or "?",
        cluster.labels["profile"] or "?",
        cluster.labels["cluster_id"] or "-",
        servers,
        f"{cluster.engines_up} of {cluster.engines}",
        _hours(cluster.age(now)) if cluster.members else "-",
        _until(cluster.expires, now),
        f"{cluster.vcpu_hours(now):.1f}",
    )


def server_rows(cluster: Cluster, now: datetime, ids: EngineIds | None) -> list[tuple[str, ...]]:
    """Return a line for each server of a cluster. ``ids``: the engine ids that its controller lists; None if it can't be reached from here."""
    return [
        (
            cluster.uid,
            one_line(member.server.name, 100) + ("" if member.mine or not cluster.mine else " (somebody else's)"),
            member.server.flavor or "?",
            member.phase,
            str(member.engines),
            "?" if ids is None else ",".join(map(str, _ids_of(member, ids))) or "-",
            member.server.address or "-",
            _hours(seconds_since(member.server.created, now)),
            _until(member.expires, now),
        )
        for member in cluster.members
    ]


def _ids_of(member: Member, ids: EngineIds) -> list[int]:
    return ids.get(member.place, [])


def _hours(seconds: float) -> str:
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours}:{minutes:02d}"


def _until(expires: str, now: datetime) -> str:
    """Return an expiry as hours and minutes from now."""
    when = timestamp(expires)
    if when is None:
        return "never"
    return "expired" if is_past(expires, now) else f"in {_hours((when - now).total_seconds())}"


def as_json(cluster: Cluster, now: datetime, ids: EngineIds | None = None) -> dict[str, Any]:
    """Return everything known of a cluster, as JSON. Times are ISO 8601, in UTC. ``ids``: as in `server_rows`."""
    return {
        "uid": cluster.uid,
        **cluster.labels,
        "expires": cluster.expires or None,
        "mine": cluster.mine,
        "age_seconds": round(cluster.age(now)),
        "vcpu_hours": round(cluster.vcpu_hours(now), 3),
        "engines": cluster.engines,
        "engines_registered": cluster.engines_up,
        "servers": [
            {
                "id": member.server.id,
                "name": member.server.name,
                "status": member.server.status,
                "fault": member.server.fault,
                "phase": member.phase,
                "engine_set": member.place.engine_set,
                "slot": member.place.slot,
                "engines": member.engines,
                "address": member.server.address,
                "flavor": member.server.flavor,
                "vcpus": member.server.vcpus,
                "created": member.server.created,
                "incarnation": member.place.incarnation,
                "mine": member.mine,
                "expires": one_line(member.expires, 40) or None,
                "engine_ids": None if ids is None else _ids_of(member, ids),
            }
            for member in cluster.members
        ],
    }
