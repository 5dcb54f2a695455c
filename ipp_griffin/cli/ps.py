"""`ipp-griffin ps`, `stop` and `reap`: clusters as the cloud has them, from any machine."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Integer, Unicode

from ..cloud.failures import one_line
from ..cluster.inventory import Cluster, Clusters, Leftover, Member, NoSuchCluster
from ..common.times import is_past, moment, seconds_since
from .command import Command

if TYPE_CHECKING:
    from ..controller.engine_ids import Ids


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

        from ..cloud.cloud import Cloud
        from ..launchers.cloud_settings import open_store

        cloud = Cloud.connect(self.cloud or os.environ.get("OS_CLOUD", ""), region=self.region)
        return Clusters(cloud, lambda prefix: open_store(cloud, container=prefix), self.container)


class Ps(ClustersCommand):
    name = "ps"
    description = """List one's own clusters in the cloud project, whichever machine they were started on.

    With --engines: a line for each server, and the ids of the engines on it, where the controller can be reached from here.
    """
    examples = "ipp-griffin ps\nipp-griffin ps --engines\nipp-griffin ps --cloud mycloud --all-owners --json"
    json = Bool(False, config=True, help="Print JSON.")
    engines = Bool(False, config=True, help="List servers, with the ids of their engines.")
    flags = {  # noqa: RUF012
        **ClustersCommand.flags,
        "json": ({"Ps": {"json": True}}, "Print JSON."),
        "engines": ({"Ps": {"engines": True}}, "List servers, with the ids of their engines."),
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

    def engine_ids(self, found: Iterable[Cluster]) -> dict[str, Ids]:
        """Of those whose controllers' connection files are on this machine."""
        from IPython.paths import get_ipython_dir

        from ..controller.engine_ids import engine_ids

        return engine_ids([cluster.uid for cluster in found], Path(get_ipython_dir()))


class Stop(ClustersCommand):
    name = "stop"
    description = """Delete a cluster's servers and container, named by its uid, its profile, or profile/cluster id.

    For when `ipcluster stop` can't: from another machine, or with the cluster file lost. A controller on the machine that it was
    started from goes on.
    """
    examples = "ipp-griffin stop 85b7916ade4a\nipp-griffin stop griffin"
    timeout = Integer(120, min=1, config=True, help="Seconds until all servers must be gone.")
    aliases = {**ClustersCommand.aliases, "timeout": "Stop.timeout"}  # noqa: RUF012
    takes_arguments = True

    def run(self) -> None:
        if len(self.extra_args) != 1:
            self.fail("say which cluster: `ipp-griffin ps` lists them.")
        clusters = self.clusters()
        name = self.extra_args[0]
        try:
            cluster = clusters.find(name, everyone=self.all_owners)
        except NoSuchCluster:
            if (rest := clusters.rest_of(name, everyone=self.all_owners)) is None:
                raise
            cluster = rest
        try:
            clusters.stop(cluster, timeout=self.timeout)
        except KeyboardInterrupt:
            self.remark(f"Interrupted: `{self.called} {cluster.uid}` again deletes the rest.")
            self.exit(130)
        if not cluster.members and not cluster.labels["profile"]:
            print(f"Nothing is left of cluster {cluster.uid} in this project.")
            return
        count = len(cluster.members)
        print(f"Cluster {cluster.uid} is gone: {count} server{'' if count == 1 else 's'} and its container.")
        if cluster.labels["host"] and cluster.controller is None:
            print(
                f"If its controller still runs on {cluster.labels['host']}, `ipcluster stop` there ends it; or, with its cluster file lost, "
                "`pgrep -af ipp_griffin.controller.ipcontroller`, which shows its first process, and `kill`."
            )
        elif cluster.controller is not None:
            print(
                "On each machine that started it or was connected to it, `ipcluster stop` removes its files, and ends an SSH tunnel to it."
            )


class Reap(ClustersCommand):
    name = "reap"
    description = """Delete what clusters left: servers that are powered off, in ERROR, past their expiry, or never reported, and unused containers,
    security groups and floating IPs.

    Nothing of a cluster that is still starting, unless it has expired. Shows what it found, and asks.
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
        if not found or self.dry_run:
            return
        if not self.may_delete(len(found), yes=self.yes, ask=not self.json, look="--dry-run"):
            return
        deleted = clusters.reap(found, timeout=self.timeout)
        if not self.json:
            print(f"Deleted: {len(deleted)}.")


def _named(left: Leftover) -> str:
    if left.server:
        return f"Server {one_line(left.server.name)}"
    if left.floating_ip:
        return f"Floating IP {left.floating_ip.address}"
    return f"Security group {left.group.name}" if left.group else f"The container of cluster {left.cluster.uid}"


def leftover_as_json(left: Leftover) -> dict[str, Any]:
    """What was found, and why it is left over. ``server``, ``security_group`` and ``floating_ip``: what it is not is null, all for a container."""
    server = {"id": left.server.id, "name": left.server.name, "status": left.server.status} if left.server else None
    group = {"id": left.group.id, "name": left.group.name} if left.group else None
    floating_ip = {"id": left.floating_ip.id, "address": left.floating_ip.address} if left.floating_ip else None
    found = {"cluster": left.cluster.uid, "owner": left.cluster.labels["owner"], "server": server}
    return {**found, "security_group": group, "floating_ip": floating_ip, "why": left.why}


HEADINGS = ("CLUSTER", "OWNER", "PROFILE", "ID", "SERVERS", "ENGINES", "AGE", "EXPIRES", "VCPU-HOURS")
SERVER_HEADINGS = ("CLUSTER", "SERVER", "FLAVOR", "PHASE", "ENGINES", "IDS", "ADDRESS", "AGE", "EXPIRES")


def row(cluster: Cluster, now: datetime) -> tuple[str, ...]:
    """A cluster as a line of the table."""
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


def server_rows(cluster: Cluster, now: datetime, ids: Ids | None) -> list[tuple[str, ...]]:
    """A line for each server of a cluster. ``ids``: what its controller lists; None: it can't be reached from here."""
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


def _ids_of(member: Member, ids: Ids) -> list[int]:
    return ids.get((member.engine_set, member.slot, member.incarnation), [])


def _hours(seconds: float) -> str:
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours}:{minutes:02d}"


def _until(expires: str, now: datetime) -> str:
    """An expiry as hours and minutes from now."""
    when = moment(expires)
    if when is None:
        return "never"
    return "expired" if is_past(expires, now) else f"in {_hours((when - now).total_seconds())}"


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns two spaces apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def as_json(cluster: Cluster, now: datetime, ids: Ids | None = None) -> dict[str, Any]:
    """A cluster with all that is known of it. Times are ISO 8601, in UTC. ``ids``: as in `server_rows`."""
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
                "engine_set": member.engine_set,
                "slot": member.slot,
                "engines": member.engines,
                "address": member.server.address,
                "flavor": member.server.flavor,
                "vcpus": member.server.vcpus,
                "created": member.server.created,
                "incarnation": member.incarnation,
                "mine": member.mine,
                "expires": one_line(member.expires, 40) or None,
                "engine_ids": None if ids is None else _ids_of(member, ids),
            }
            for member in cluster.members
        ],
    }
