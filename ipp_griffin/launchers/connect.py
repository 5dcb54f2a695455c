"""Attach this machine to a cluster that runs elsewhere: profile, connection files and cluster file. Blocking."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cluster.controller_server import CONTROLLER
from ..common.errors import CloudError, SettingError, Stopped
from ..common.files import write_private
from .engines import GriffinEngineSetLauncher
from .local_access import Unreachable
from .profiles import check_files, is_blank, profile_files, profile_folder, profile_path
from .server_controller import GriffinServerControllerLauncher

if TYPE_CHECKING:
    import ipyparallel

    from ..cluster.cluster import Cluster, Member
    from ..controller.ssh_tunnel import Record
    from .local_access import Files


@dataclass(frozen=True)
class LocalName:
    """What a cluster is called on this machine: a profile and a cluster id."""

    profile: str
    cluster_id: str

    def __str__(self) -> str:
        return f"{self.profile}/{self.cluster_id}" if self.cluster_id else self.profile

    @property
    def options(self) -> str:
        """Return the options of `ipcluster` that mean this cluster."""
        return f"--profile={self.profile}" + (f" --cluster-id={self.cluster_id}" if self.cluster_id else "")

    @property
    def file(self) -> Path:
        """Return the cluster file."""
        return profile_path(self.profile) / "security" / f"cluster-{self.cluster_id}.json"

    def cluster(self) -> ipyparallel.Cluster:
        """Return a new `ipyparallel.Cluster`, not written to a file yet. The folder of its profile must exist."""
        import ipyparallel

        local = ipyparallel.Cluster(
            profile_dir=str(profile_path(self.profile)),
            cluster_id=self.cluster_id,
            controller=GriffinServerControllerLauncher,
            engines=GriffinEngineSetLauncher,
        )
        local.shutdown_atexit = False
        return local

    def check(self, uid: str, project: str, exists: Callable[[str], bool]) -> list[Record]:
        """Return the tunnels recorded under this name. Raises `SettingError` if the name belongs to another cluster than ``uid``.

        A cluster whose controller was on a server of ``project`` and that no longer exists there may be replaced.
        """
        try:
            controller = json.loads(self.file.read_text())["controller"]
            state, on_server = (
                dict(controller["state"]),
                controller["class"] == GriffinServerControllerLauncher.entrypoint_name,
            )
            known, tunnels = str(state["uid"]), list(state.get("tunnels", []))
        except FileNotFoundError:
            return []
        except OSError as e:
            raise SettingError(f"Can't read {self.file}: {e.strerror}.") from e
        except (ValueError, KeyError, TypeError):
            raise SettingError(
                f"{self.file} is damaged, or of a cluster that griffin did not start. Delete it if nobody needs "
                "it, or choose another name with --cluster-id=NAME."
            ) from None
        if known == uid or (on_server and state.get("project") == project and not exists(known)):
            return tunnels
        raise SettingError(
            f"Cluster {self} of this machine is another cluster, {known} ({self.file}). Stop it with "
            f"`ipcluster stop {self.options}`, or choose another name for this one with --cluster-id=NAME."
        )


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Lock this IPython folder against another `ipp-griffin connect`. Raises `SettingError` if one is running."""
    folder = profile_path("griffin").parent
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise SettingError(
            "Another `ipp-griffin connect` of yours is running on this machine. Wait until it has ended."
        ) from None
    finally:
        os.close(descriptor)


def connect(
    name: LocalName,
    cluster: Cluster,
    files: Files,
    on_cloud: Mapping[str, Any],
    settings: Mapping[str, Any],
    tunnels: list[Record],
) -> None:
    """Check that this machine reaches the controller, and write the files for ``ipp.Client``, ``Cluster.from_file`` and `ipcluster stop`.

    ``files``: the engines' connection file, and the clients' as `client_view` made it; ``on_cloud``: the traits of `OnCloud` that say
    where the cluster is; ``settings``: those of `GriffinServerControllerLauncher` that are about this machine; ``tunnels``: earlier
    ones, which are closed when the new one works.

    Raises `Unreachable` if the controller does not answer. On any failure, this machine and the cluster's security group are restored
    to what they were. Call it within `one_at_a_time`.
    """
    with _profile(name.profile, on_cloud):
        check_files(profile_path(name.profile))
        local = name.cluster()
        controller, engine_sets = _launchers(local, cluster, on_cloud, settings)
        controller.check_settings()
        controller.tunnels = tunnels
        local.controller = controller
        local.engines.update(engine_sets)
        _write_whole(local)
        with (
            _as_before(name.file, *map(Path, controller.connection_files.values())),
            _let_in(controller, files["client"]),
        ):
            try:
                controller.attach(files, files["client"])
            except Unreachable as e:
                advice = controller.advice(files["client"], "say --client-address=ADDRESS/32")
                raise Unreachable(f"{e} {advice}") from e
            try:
                local.update_cluster_file()
            except BaseException:
                controller.drop_tunnel()
                raise
    controller.keep_tunnel()
    local.update_cluster_file()


def _launchers(
    local: ipyparallel.Cluster, cluster: Cluster, on_cloud: Mapping[str, Any], settings: Mapping[str, Any]
) -> tuple[GriffinServerControllerLauncher, dict[str, GriffinEngineSetLauncher]]:
    """Return the controller's launcher, and those of the engine sets by their ids, as if they had been started here."""
    common = {"parent": local, "profile_dir": local.profile_dir, "cluster_id": local.cluster_id, "work_dir": "."}
    sets: dict[str, list[Member]] = {}
    for member in cluster.members:
        sets.setdefault(member.place.engine_set, []).append(member)
    controller = GriffinServerControllerLauncher(**common, **settings)
    _restore(controller, cluster.uid, sets.pop(CONTROLLER, []), on_cloud)
    engine_sets = {name: GriffinEngineSetLauncher(**common, engine_set_id=name) for name in sets}
    for name, launcher in engine_sets.items():
        launcher.engine_set, launcher.n = name, sum(member.engines for member in sets[name])
        _restore(launcher, name, sets[name], on_cloud)
    return controller, engine_sets


def _restore(launcher: Any, identifier: str, members: list[Member], on_cloud: Mapping[str, Any]) -> None:
    """Set a launcher's state to that of a running one. Its settings are not state."""
    launcher.servers = [member.server.id for member in members]
    for trait, value in on_cloud.items():
        setattr(launcher, trait, value)
    launcher.notify_start(identifier)


def _write_whole(local: ipyparallel.Cluster) -> None:
    """Make the cluster file be written atomically, and not again after a stop of any process has removed it."""
    path = Path(local.cluster_file)
    there = path.exists()

    def write() -> None:
        nonlocal there
        if there and not path.exists():
            raise Stopped("The cluster was stopped in the meantime.")
        write_private(path, json.dumps(local.to_dict()))
        there = True

    local.write_cluster_file = write


# --- each undoes what it did, unless the body succeeds


@contextlib.contextmanager
def _profile(name: str, on_cloud: Mapping[str, Any]) -> Iterator[None]:
    """Create the profile if necessary. A new or unused one gets the files of `ipp-griffin init`: without them, `ipcluster engines` would start
    engines on this machine."""
    folder = profile_path(name)
    new, before, texts = not folder.exists(), {}, {}
    if name != "default" and is_blank(folder):
        texts = profile_files(**{setting: str(on_cloud[setting]) for setting in ("cloud", "region", "container")})
        before = {file: (folder / file).read_bytes() for file in texts if (folder / file).exists()}
    try:
        profile_folder(name)
        for file, text in texts.items():
            (folder / file).write_text(text)
        yield
    except BaseException:
        for file, text in texts.items():
            path = folder / file
            if path.exists() and path.read_bytes() == text.encode():  # else somebody edited it in the meantime
                path.write_bytes(before[file]) if file in before else path.unlink()
        if new:
            _remove_empty(folder)
        raise


def _remove_empty(folder: Path) -> None:
    """Remove a profile's folder if it has only what IPython puts into a new one."""
    (folder / "startup" / "README").unlink(missing_ok=True)
    for path in [*(path for path in folder.glob("*") if path.is_dir()), folder]:
        with contextlib.suppress(OSError):
            path.rmdir()


@contextlib.contextmanager
def _as_before(*paths: Path) -> Iterator[None]:
    """Restore these files if the body fails. A file that is gone by then belongs to a stopped cluster, and is not restored."""
    before = {path: path.read_bytes() if path.exists() else None for path in paths}
    try:
        yield
    except BaseException:
        for path, content in before.items():
            if content is None:
                path.unlink(missing_ok=True)
            elif path.exists():
                path.write_bytes(content)
        raise


@contextlib.contextmanager
def _let_in(controller: GriffinServerControllerLauncher, client: Mapping[str, Any]) -> Iterator[None]:
    """Admit this machine to the cluster's security group, if there is one."""
    controller.check_gateway(client)
    made: list[str] = []
    try:
        if controller.has_groups:
            controller.let_in(client, made=made)
        yield
    except BaseException:
        with contextlib.suppress(CloudError):  # the first error counts; the rules go with the cluster
            if made:
                controller.connect().groups.shut(made)
        raise
