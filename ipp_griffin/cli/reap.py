"""`ipp-griffin reap`: delete what clusters left."""

from __future__ import annotations

import json
from typing import Any

from traitlets import Bool, Integer

from ..cluster.cluster import Leftover
from ..common.text import one_line
from .command import ClustersCommand


class Reap(ClustersCommand):
    name = "reap"
    description = """Delete leftovers of clusters: servers that are powered off, in ERROR, expired, or that never reported, and unused containers,
    security groups and floating IPs.

    A cluster that is still starting is left alone, unless it has expired. Shows what it found, and asks.
    """
    examples = "ipp-griffin reap --dry-run\nipp-griffin reap --yes"
    yes = Bool(False, config=True, help="Delete without asking.")
    dry_run = Bool(False, config=True, help="Show what would be deleted, and delete nothing.")
    json = Bool(False, config=True, help="Print what was found as JSON; deletes only with --yes.")
    timeout = Integer(120, min=1, config=True, help="Seconds to wait until all servers are gone.")
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
        if not self.may_delete(len(found), yes=self.yes, ask=not self.json, dry_run="--dry-run"):
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
    """Return what was found, and why it is left over. Of ``server``, ``security_group`` and ``floating_ip``, at most one is not null; all are
    null for a container."""
    server = {"id": left.server.id, "name": left.server.name, "status": left.server.status} if left.server else None
    group = {"id": left.group.id, "name": left.group.name} if left.group else None
    floating_ip = {"id": left.floating_ip.id, "address": left.floating_ip.address} if left.floating_ip else None
    found = {"cluster": left.cluster.uid, "owner": left.cluster.labels["owner"], "server": server}
    return {**found, "security_group": group, "floating_ip": floating_ip, "why": left.why}
