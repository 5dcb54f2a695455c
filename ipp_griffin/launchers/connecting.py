"""Make this machine one that a cluster can be used and stopped from: its profile, connection files and cluster file. Blocking."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..calls import CloudError
from ..controller_server import CONTROLLER
from ..plan import SettingError
from ..profiles import is_blank, profile_folder, profile_path, write_profile
from ..ssh import close_tunnel
from .engines import GriffinEngineSetLauncher
from .server_controller import GriffinServerControllerLauncher

if TYPE_CHECKING:
    import ipyparallel

    from ..clusters import Cluster, Member
    from .attaching import Files


@dataclass(frozen=True)
class LocalName:
    """What a cluster is called on this machine: a profile and a cluster id."""

    profile: str
    cluster_id: str

    @property
    def options(self) -> str:
        """Of `ipcluster`."""
        return f"--profile={self.profile}" + (f" --cluster-id={self.cluster_id}" if self.cluster_id else "")

    def cluster(self) -> ipyparallel.Cluster:
        """ipyparallel's, of which nothing is written yet. Its profile's folder must exist."""
        import ipyparallel

        local = ipyparallel.Cluster(
            profile_dir=str(profile_path(self.profile)),
            cluster_id=self.cluster_id,
            controller=GriffinServerControllerLauncher,
            engines=GriffinEngineSetLauncher,
        )
        local.shutdown_atexit = False
        return local

    def check(self, uid: str, project: str, exists: Callable[[str], bool]) -> None:
        """Raise `SettingError` where another cluster than ``uid`` has this name here. One of ``project`` that does not exist there any more
        may be replaced."""
        path = profile_path(self.profile) / "security" / f"cluster-{self.cluster_id}.json"
        try:
            state = _state(path)
            known = str(state["uid"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError):
            state, known = {}, "another one"
        if known == uid or (state.get("project") == project and not exists(known)):
            return
        raise SettingError(
            f"Cluster {self.profile}{'/' if self.cluster_id else ''}{self.cluster_id} of this machine is {known}: its file is {path}. End it with "
            f"`ipcluster stop {self.options}`, or say --cluster-id=NAME to call this one otherwise."
        )


def connect(
    name: LocalName, cluster: Cluster, files: Files, on_cloud: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """See that this machine reaches the controller, and write what makes ``ipp.Client``, ``Cluster.from_file`` and `ipcluster stop` work.

    ``files``: the engines' connection file, and the clients' as `client_view` made it; ``on_cloud``: the traits of `OnCloud` that say
    where the cluster is; ``settings``: those of `GriffinServerControllerLauncher` that are about this machine.

    Raises `attaching.Unreachable` where the controller does not answer. After that, or any other end but a good one, this machine and the
    cluster's security group are as they were.
    """
    with _profile(name.profile, on_cloud):
        local = name.cluster()
        controller, engine_sets = _launchers(local, cluster, on_cloud, settings)
        controller.check_settings()
        local.controller = controller
        local.engines.update(engine_sets)
        path = Path(local.cluster_file)
        with _as_before(path), _let_in(controller, files["client"]):
            before = _tunnel(path)
            controller.attach(files, files["client"])
            local.update_cluster_file()
        close_tunnel(*before)


def _launchers(
    local: ipyparallel.Cluster, cluster: Cluster, on_cloud: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[GriffinServerControllerLauncher, dict[str, GriffinEngineSetLauncher]]:
    """That of the controller, and those of the engine sets by their ids, as if they had been started here."""
    common = {"parent": local, "profile_dir": local.profile_dir, "cluster_id": local.cluster_id, "work_dir": "."}
    sets: dict[str, list[Member]] = {}
    for member in cluster.members:
        sets.setdefault(member.engine_set, []).append(member)
    controller = GriffinServerControllerLauncher(**common, **settings)
    _restore(controller, cluster.uid, sets.pop(CONTROLLER, []), on_cloud)
    engine_sets = {name: GriffinEngineSetLauncher(**common, engine_set_id=name) for name in sets}
    for name, launcher in engine_sets.items():
        launcher.engine_set, launcher.n = name, sum(member.engines for member in sets[name])
        _restore(launcher, name, sets[name], on_cloud)
    return controller, engine_sets


def _restore(launcher: Any, identifier: str, members: list[Member], on_cloud: Mapping[str, Any]) -> None:
    """Set what is a launcher's state, not its settings: it runs."""
    launcher.servers = [member.server.id for member in members]
    for trait, value in on_cloud.items():
        setattr(launcher, trait, value)
    launcher.notify_start(identifier)


# --- each undoes what it did, unless the body succeeds


@contextlib.contextmanager
def _profile(name: str, on_cloud: Mapping[str, Any]) -> Iterator[None]:
    """See that the profile exists. A new one, or one that nobody has written anything into, gets the files of `ipp-griffin init`:
    without them, `ipcluster engines` would start engines on this machine."""
    folder = profile_path(name)
    new = not folder.exists()
    try:
        profile_folder(name)
        blank = name != "default" and is_blank(folder)
        yield
        if blank:
            write_profile(folder, **{setting: str(on_cloud[setting]) for setting in ("cloud", "region", "container")})
    except BaseException:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise


@contextlib.contextmanager
def _as_before(path: Path) -> Iterator[None]:
    """Of a cluster file."""
    before = path.read_bytes() if path.exists() else None
    try:
        yield
    except BaseException:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(before)
        raise


@contextlib.contextmanager
def _let_in(controller: GriffinServerControllerLauncher, client: Mapping[str, Any]) -> Iterator[None]:
    """By the cluster's security group, where it has one."""
    controller.check_gateway(client)
    rules = controller.let_in(client) if controller.has_groups else []
    try:
        yield
    except BaseException:
        with contextlib.suppress(CloudError):  # the first error counts; the rules go with the cluster
            controller.connect().groups.shut(rules)
        raise


def _tunnel(path: Path) -> tuple[int, float]:
    """Of the cluster that has this file: pid and start time of its process."""
    try:
        state = _state(path)
        return int(state["tunnel_pid"]), float(state["tunnel_created"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, 0.0


def _state(path: Path) -> dict[str, Any]:
    """What a cluster file has of its controller."""
    return dict(json.loads(path.read_text())["controller"]["state"])
