"""`ipp-griffin ps`, `stop` and `reap`: clusters as the cloud has them, from any machine."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timezone
from typing import Any

from traitlets import Bool, Integer, Unicode

from ..calls import one_line
from ..clusters import Cluster, Clusters, Leftover
from .command import Command


class ClustersCommand(Command):
    """Base of what looks at the clusters of a project."""

    cloud = Unicode(
        "", config=True, help="Name of the cloud in clouds.yaml. Default: OS_CLOUD, else the OS_* variables."
    )
    region = Unicode("", config=True, help="Region of the cloud. Default: the one that clouds.yaml names.")
    container = Unicode("ipp-griffin", config=True, help="First part of the names of containers, where it was changed.")
    all_owners = Bool(False, config=True, help="Also the clusters of others in this project.")
    aliases: dict[str, Any] = {  # noqa: RUF012
        "cloud": "ClustersCommand.cloud",
        "region": "ClustersCommand.region",
        "container": "ClustersCommand.container",
    }
    flags: dict[str, Any] = {  # noqa: RUF012
        "all-owners": ({"ClustersCommand": {"all_owners": True}}, "Also the clusters of others in this project.")
    }

    def clusters(self) -> Clusters:
        """Those of the project that the credentials are for. Raises `CloudError`."""
        import os

        from ..cloud import Cloud
        from ..settings import open_store

        cloud = Cloud.connect(self.cloud or os.environ.get("OS_CLOUD", ""), region=self.region)
        return Clusters(cloud, lambda prefix: open_store(cloud, container=prefix), self.container)


class Ps(ClustersCommand):
    name = "ps"
    description = "List one's own clusters in the cloud project, whichever machine they were started on."
    examples = "ipp-griffin ps\nipp-griffin ps --cloud mycloud --all-owners --json"
    json = Bool(False, config=True, help="Print JSON.")
    flags = {**ClustersCommand.flags, "json": ({"Ps": {"json": True}}, "Print JSON.")}  # noqa: RUF012

    def run(self) -> None:
        found = self.clusters().all(everyone=self.all_owners)
        now = datetime.now(timezone.utc)
        if self.json:
            print(json.dumps([as_json(cluster, now) for cluster in found], indent=2))
        elif found:
            print(table([HEADINGS, *(row(cluster, now) for cluster in found)]))
        else:
            whose = "" if self.all_owners else " of yours (--all-owners shows those of others)"
            print(f"There is no cluster{whose} in this project.")


class Stop(ClustersCommand):
    name = "stop"
    description = """Delete a cluster's servers and container, named by its uid, its profile, or profile/cluster id.

    For when `ipcluster stop` can't: from another machine, or with the cluster file lost. A controller goes on.
    """
    examples = "ipp-griffin stop 85b7916ade4a\nipp-griffin stop griffin"
    timeout = Integer(120, min=1, config=True, help="Seconds until all servers must be gone.")
    aliases = {**ClustersCommand.aliases, "timeout": "Stop.timeout"}  # noqa: RUF012
    takes_arguments = True

    def run(self) -> None:
        if len(self.extra_args) != 1:
            self.fail("say which cluster: `ipp-griffin ps` lists them.")
        clusters = self.clusters()
        cluster = clusters.find(self.extra_args[0], everyone=self.all_owners)
        clusters.stop(cluster, timeout=self.timeout)
        count = len(cluster.members)
        print(f"Cluster {cluster.uid} is gone: {count} server{'' if count == 1 else 's'} and its container.")
        if cluster.labels["host"]:
            print(f"If its controller still runs on {cluster.labels['host']}, `ipcluster stop` there ends it.")


class Reap(ClustersCommand):
    name = "reap"
    description = """Delete what clusters left: servers that are powered off, in ERROR, or never reported, and unused containers.

    Nothing of a cluster that is still starting. Shows what it found, and asks.
    """
    examples = "ipp-griffin reap --dry-run\nipp-griffin reap --yes"
    yes = Bool(False, config=True, help="Delete without asking.")
    dry_run = Bool(False, config=True, help="Show what would be deleted, and delete nothing.")
    json = Bool(False, config=True, help="Print what was found as JSON; deletes only with --yes.")
    timeout = Integer(120, min=1, config=True, help="Seconds until all servers must be gone.")
    aliases = {**ClustersCommand.aliases, "timeout": "Reap.timeout"}  # noqa: RUF012
    flags = {  # noqa: RUF012
        **ClustersCommand.flags,
        "yes": ({"Reap": {"yes": True}}, "Delete without asking."),
        "dry-run": ({"Reap": {"dry_run": True}}, "Show what would be deleted, and delete nothing."),
        "json": ({"Reap": {"json": True}}, "Print what was found as JSON; deletes only with --yes."),
    }

    def run(self) -> None:
        clusters = self.clusters()
        found = clusters.leftovers(everyone=self.all_owners)
        if self.json:
            print(json.dumps([leftover_as_json(left) for left in found], indent=2))
        elif not found:
            print("There is nothing to reap.")
        else:
            print("\n".join(f"{_named(left)} {left.why}" for left in found))
        if not found or self.dry_run or not self._agreed(len(found)):
            return
        deleted = clusters.reap(found, timeout=self.timeout)
        if not self.json:
            print(f"Deleted: {len(deleted)}.")

    def _agreed(self, count: int) -> bool:
        if self.yes or self.json:
            return self.yes
        if not sys.stdin.isatty():
            self.fail("nobody is there to say yes: add --yes, or --dry-run to see only.")
        return input(f"Delete {'it' if count == 1 else f'these {count}'}? [y/N] ").strip().lower() in ("y", "yes")


def _named(left: Leftover) -> str:
    return f"Server {one_line(left.server.name)}" if left.server else f"The container of cluster {left.cluster.uid}"


def leftover_as_json(left: Leftover) -> dict[str, Any]:
    """What was found, and why it is left over. ``server`` is null for a container."""
    server = {"id": left.server.id, "name": left.server.name, "status": left.server.status} if left.server else None
    return {"cluster": left.cluster.uid, "owner": left.cluster.labels["owner"], "server": server, "why": left.why}


HEADINGS = ("CLUSTER", "OWNER", "PROFILE", "ID", "SERVERS", "ENGINES", "AGE", "VCPU-HOURS")


def row(cluster: Cluster, now: datetime) -> tuple[str, ...]:
    """A cluster as a line of the table."""
    servers = ", ".join(f"{phase}: {count}" for phase, count in sorted(cluster.phases.items())) or "none"
    hours, minutes = divmod(int(cluster.age(now)) // 60, 60)
    return (
        cluster.uid,
        cluster.labels["owner"] or "?",
        cluster.labels["profile"] or "?",
        cluster.labels["cluster_id"] or "-",
        servers,
        f"{cluster.engines_up} of {cluster.engines}",
        f"{hours}:{minutes:02d}" if cluster.members else "-",
        f"{cluster.vcpu_hours(now):.1f}",
    )


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns two spaces apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_json(cluster: Cluster, now: datetime) -> dict[str, Any]:
    """A cluster with all that is known of it. Times are ISO 8601, in UTC."""
    return {
        "uid": cluster.uid,
        **cluster.labels,
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
                "engine_set": member.engine_set,
                "slot": member.slot,
                "engines": member.engines,
                "address": member.server.address,
                "vcpus": member.server.vcpus,
                "created": member.server.created,
            }
            for member in cluster.members
        ],
    }
