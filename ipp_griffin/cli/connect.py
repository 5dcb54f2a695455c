"""`ipp-griffin connect`: use a cluster whose controller runs on a server from this machine."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from traitlets import Float, Unicode

from ..common.errors import GriffinError, SettingError
from ..model.phases import ENDED
from .command import ClustersCommand

if TYPE_CHECKING:
    from ..cluster.cluster import Cluster
    from ..cluster.controller_server import ControllerServer
    from ..cluster.inventory import Clusters
    from ..launchers.connect import LocalName


class Connect(ClustersCommand):
    name = "connect"
    description = """Use, from this machine, a cluster whose controller runs on a server of the cloud.

    Writes its connection files and its cluster file into a profile. Then ipp.Client, Cluster.from_file and `ipcluster stop` work here.
    """
    examples = "ipp-griffin connect griffin\nipp-griffin connect 85b7916ade4a --profile=griffin --cluster-id=big"
    profile = Unicode("", config=True, help="Profile to write to. Default: the one that the cluster was started with.")
    cluster_id = Unicode(
        None,
        allow_none=True,
        config=True,
        help="Cluster id to use here. Default: the one that the cluster was started with.",
    )
    client_address = Unicode(
        "",
        config=True,
        help="""Address to admit to the controller, if the cluster has security groups of its own: this machine's as the cloud
        sees it, e.g. "203.0.113.7/32". Default: the address that this machine uses to reach the controller, or the gateway's.""",
    )
    timeout = Float(30, min=1, config=True, help="Seconds to wait for the controller's answer.")
    aliases = {  # noqa: RUF012
        **ClustersCommand.aliases,
        "profile": "Connect.profile",
        "cluster-id": "Connect.cluster_id",
        "client-address": "Connect.client_address",
        "timeout": "Connect.timeout",
    }
    takes_arguments = True

    def run(self) -> None:
        from ..launchers.connect import connect, one_at_a_time
        from ..launchers.local_access import Unreachable
        from ..launchers.profiles import names_griffin, profile_path

        if len(self.extra_args) != 1:
            self.fail("name a cluster. `ipp-griffin ps` lists them.")
        clusters = self.clusters()
        cluster = clusters.find(self.extra_args[0], everyone=self.all_owners)
        server, files = _controller(clusters, cluster)
        name, cloud = self._local_name(cluster), server.cloud
        logging.getLogger("traitlets").setLevel(logging.WARNING)
        on_cloud = {
            "cloud": cloud.name,
            "region": cloud.region,
            "project": cloud.project_id,
            "uid": cluster.uid,
            "container": cluster.labels["container"] or self.container,
            "has_groups": cloud.groups.exist(cluster.uid),
        }
        settings: dict[str, Any] = {"reach_timeout": self.timeout}
        settings |= {"client_address": self.client_address} if self.client_address else {}  # else the profile's
        with _undone_by_signals(), one_at_a_time():
            tunnels = name.check(cluster.uid, cloud.project_id, clusters.exists)
            try:
                connect(name, cluster, files, on_cloud, settings, tunnels)
            except Unreachable as e:
                raise GriffinError(f"The controller of cluster {cluster.uid} runs on a server, but {e}") from e
        named = f'profile="{name.profile}"' + (f', cluster_id="{name.cluster_id}"' if name.cluster_id else "")
        print(f"Cluster {cluster.uid} can be used from here: ipp.Client({named}).")
        if not names_griffin(profile_path(name.profile)):
            self.remark(
                f"profile {name.profile!r} has no settings of griffin: with it, `ipcluster engines` starts "
                "engines on this machine."
            )

    def _local_name(self, cluster: Cluster) -> LocalName:
        """Return its name on this machine. Raises `SettingError` if that can't be a file name: somebody else may have chosen it."""
        from ..launchers.connect import LocalName
        from ..launchers.on_cloud import check_cluster_id
        from ..launchers.profiles import profile_path

        profile = self.profile or cluster.labels["profile"] or "griffin"
        cluster_id = cluster.labels["cluster_id"] if self.cluster_id is None else self.cluster_id
        try:
            profile_path(profile)
            check_cluster_id(cluster_id)
        except SettingError as e:
            raise SettingError(f"{e} Choose its names on this machine with --profile and --cluster-id.") from None
        return LocalName(profile, cluster_id)


def _controller(clusters: Clusters, cluster: Cluster) -> tuple[ControllerServer, dict[str, Any]]:
    """Return the controller's server and its connection files. Raises `SettingError` if other machines can't use this controller."""
    if cluster.controller is None:
        raise SettingError(
            f"The controller of cluster {cluster.uid} runs on {cluster.labels['host'] or 'another machine'}, not "
            "on a server of the cloud: copy its ipcontroller-client.json from there."
        )
    if cluster.controller.phase in ENDED:
        raise SettingError(
            f"The controller of cluster {cluster.uid} has ended: its server {cluster.controller.server.name} is {cluster.controller.phase}. "
            f"`ipp-griffin stop {cluster.uid}` deletes what is left."
        )
    server = clusters.controller_server(cluster)
    client = server.client_file()
    return server, {**server.connection_files(cluster.controller.place.incarnation), "client": client}


@contextlib.contextmanager
def _undone_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the body as Ctrl-C does, so that it can undo what it did."""

    def end(number: int, frame: Any) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)  # the clean-up must not be interrupted
        sys.exit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}  # as under nohup
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
