"""Make this machine one that a cluster can be used and stopped from: its connection files, and its cluster file. Blocking."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..plan import SettingError
from .engines import GriffinEngineSetLauncher
from .server_controller import GriffinServerControllerLauncher

if TYPE_CHECKING:
    import ipyparallel

    from ..clusters import Cluster, Member
    from .servers import OnServers

Files = Mapping[str, Mapping[str, Any]]


def local_cluster(profile: str, cluster_id: str, uid: str) -> ipyparallel.Cluster:
    """The cluster of this profile and id on this machine, before anything is written.

    Raises `SettingError` where another than ``uid`` has its file.
    """
    import ipyparallel

    local = ipyparallel.Cluster(
        profile=profile,
        cluster_id=cluster_id,
        controller=GriffinServerControllerLauncher,
        engines=GriffinEngineSetLauncher,
    )
    local.shutdown_atexit = False
    try:
        state = json.loads(Path(local.cluster_file).read_text())
        known = str(state["controller"]["state"]["uid"])
    except FileNotFoundError:
        return local
    except (OSError, ValueError, KeyError, TypeError):
        known = "another one"
    if known != uid:
        name = f"{profile}/{cluster_id}" if cluster_id else profile
        raise SettingError(
            f"Cluster {name} of this machine is {known}: its file is {local.cluster_file}. Say --cluster-id=NAME to call this one otherwise."
        )
    return local


def record(
    local: ipyparallel.Cluster, cluster: Cluster, files: Files, on_cloud: Mapping[str, Any], *, timeout: float
) -> None:
    """See that this machine reaches the controller, and write the connection files and the cluster file, from which `ipcluster stop` and
    ``Cluster.from_file`` work.

    ``on_cloud``: the traits of `OnCloud` that say where the cluster is. Raises `GriffinError` where the controller does not answer
    within ``timeout`` seconds: then nothing is written.
    """
    common = {"parent": local, "profile_dir": local.profile_dir, "cluster_id": local.cluster_id, "work_dir": "."}
    sets: dict[str, list[Member]] = {}
    for member in cluster.members:
        sets.setdefault(member.engine_set, []).append(member)
    of_controller = sets.pop(GriffinServerControllerLauncher.role, [])
    controller = GriffinServerControllerLauncher(**common, reach_timeout=timeout)
    _restore(controller, **on_cloud, servers=[member.server.id for member in of_controller])
    client = controller.reach(files["client"], f"The controller of cluster {cluster.uid} runs on a server")
    controller.write_files({**files, "client": client})
    controller.notify_start(cluster.uid)
    local.controller = controller
    for engine_set, members in sets.items():
        launcher = GriffinEngineSetLauncher(**common, engine_set_id=engine_set)
        ids = [member.server.id for member in members]
        _restore(launcher, **on_cloud, engine_set=engine_set, servers=ids, n=sum(member.engines for member in members))
        launcher.notify_start(engine_set)
        local.engines[engine_set] = launcher
    local.update_cluster_file()


def _restore(launcher: OnServers, **state: Any) -> None:
    """Set what is a launcher's state, not its settings."""
    for name, value in state.items():
        setattr(launcher, name, value)
