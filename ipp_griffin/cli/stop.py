"""`ipp-griffin stop`: delete a cluster from any machine."""

from __future__ import annotations

from traitlets import Integer

from ..cluster.inventory import NoSuchCluster
from .command import ClustersCommand


class Stop(ClustersCommand):
    name = "stop"
    description = """Delete a cluster's servers and container. CLUSTER is its uid, its profile, or profile/cluster id.

    Use this if `ipcluster stop` can't: from another machine, or if the cluster file is lost. A controller that runs on the machine
    that started it keeps running.
    """
    examples = "ipp-griffin stop 85b7916ade4a\nipp-griffin stop griffin"
    timeout = Integer(120, min=1, config=True, help="Seconds to wait until all servers are gone.")
    aliases = {**ClustersCommand.aliases, "timeout": "Stop.timeout"}  # noqa: RUF012
    takes_arguments = True

    def run(self) -> None:
        if len(self.extra_args) != 1:
            self.fail("name a cluster. `ipp-griffin ps` lists them.")
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
            self.remark(f"Interrupted. Run `{self.called} {cluster.uid}` again to delete the rest.")
            self.exit(130)
        if not cluster.members and not cluster.labels["profile"]:
            print(f"Nothing is left of cluster {cluster.uid} in this project.")
            return
        count = len(cluster.members)
        print(f"Cluster {cluster.uid} is gone: {count} server{'' if count == 1 else 's'} and its container.")
        if cluster.labels["host"] and cluster.controller is None:
            print(
                f"If its controller still runs on {cluster.labels['host']}, `ipcluster stop` there ends it. If "
                "its cluster file is lost, find its process with `pgrep -af ipp_griffin.ipcontroller` and `kill` "
                "it."
            )
        elif cluster.controller is not None:
            print(
                "On each machine that started it or was connected to it, `ipcluster stop` removes its files, and ends an SSH tunnel to it."
            )
