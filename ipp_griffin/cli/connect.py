"""`ipp-griffin connect`: use a cluster whose controller runs on a server from this machine."""

from __future__ import annotations

import logging

from traitlets import Float, Unicode

from ..controller_server import address_of, own_address, port_ranges
from ..plan import SettingError
from ..rendezvous import ports_of
from .clusters import ClustersCommand


class Connect(ClustersCommand):
    name = "connect"
    description = """Use a cluster whose controller runs on a server of the cloud from this machine.

    Writes its connection files and its cluster file into a profile: then ipp.Client, Cluster.from_file and `ipcluster stop` work here.
    """
    examples = "ipp-griffin connect griffin\nipp-griffin connect 85b7916ade4a --profile=griffin --cluster-id=big"
    profile = Unicode("", config=True, help="Profile to write to. Default: the one that it was started with.")
    cluster_id = Unicode(
        None, allow_none=True, config=True, help="Cluster id to write to. Default: the one that it was started with."
    )
    client_address = Unicode(
        "",
        config=True,
        help="""What to let in to the controller, where the cluster has security groups of its own: this machine's address as the
        cloud sees it, e.g. "203.0.113.7/32". Default: the address that this machine uses towards the controller.""",
    )
    timeout = Float(30, min=1, config=True, help="Seconds until the controller must answer.")
    aliases = {  # noqa: RUF012
        **ClustersCommand.aliases,
        "profile": "Connect.profile",
        "cluster-id": "Connect.cluster_id",
        "client-address": "Connect.client_address",
        "timeout": "Connect.timeout",
    }
    takes_arguments = True

    def run(self) -> None:
        from ..launchers.connecting import local_cluster, record

        if len(self.extra_args) != 1:
            self.fail("say which cluster: `ipp-griffin ps` lists them.")
        clusters = self.clusters()
        cluster = clusters.find(self.extra_args[0], everyone=self.all_owners)
        if cluster.controller is None:
            raise SettingError(
                f"The controller of cluster {cluster.uid} runs on {cluster.labels['host'] or 'no server of the cloud'}, not on a server of the "
                "cloud: copy its ipcontroller-client.json from there."
            )
        profile = self.profile or cluster.labels["profile"] or "griffin"
        cluster_id = cluster.labels["cluster_id"] if self.cluster_id is None else self.cluster_id
        logging.getLogger("traitlets").setLevel(logging.WARNING)
        local = local_cluster(profile, cluster_id, cluster.uid)
        server = clusters.controller_server(cluster)
        files = {**server.connection_files(cluster.controller.incarnation), "client": server.client_file()}
        cloud = server.cloud
        grouped = bool(cloud.groups.of(cluster.uid))
        if grouped:
            client = self.client_address or own_address(address_of(files["client"])[0])
            cloud.groups.let_in(cluster.uid, clients=port_ranges(ports_of(files["client"])), client=client)
        where = {"cloud": cloud.name, "region": cloud.region, "project": cloud.project_id, "uid": cluster.uid}
        record(
            local,
            cluster,
            files,
            {**where, "container": cluster.labels["container"], "has_groups": grouped},
            timeout=self.timeout,
        )
        named = f'profile="{profile}"' + (f', cluster_id="{cluster_id}"' if cluster_id else "")
        print(f"Cluster {cluster.uid} can be used from here: ipp.Client({named}).")
