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
        """Return ipyparallel's cluster, of which nothing is written yet. Its profile's folder must exist."""
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
        """Return the tunnels that are on record under this name. Raises `SettingError` where that is another cluster than ``uid``.

        One whose controller was on a server of ``project``, and that does not exist there any more, may be replaced.
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
    """Keep others from connecting with this IPython folder meanwhile. Raises `SettingError` where somebody does."""
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
    """See that this machine reaches the controller, and write what makes ``ipp.Client``, ``Cluster.from_file`` and `ipcluster stop` work.

    ``files``: the engines' connection file, and the clients' as `client_view` made it; ``on_cloud``: the traits of `OnCloud` that say
    where the cluster is; ``settings``: those of `GriffinServerControllerLauncher` that are about this machine; ``tunnels``: those that
    were there before, which end when this one works.

    Raises `Unreachable` where the controller does not answer. After that, or any other end but a good one, this machine and the
    cluster's security group are as they were. Call it within `one_at_a_time`.
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
    """Set what is a launcher's state, not its settings: it runs."""
    launcher.servers = [member.server.id for member in members]
    for trait, value in on_cloud.items():
        setattr(launcher, trait, value)
    launcher.notify_start(identifier)


def _write_whole(local: ipyparallel.Cluster) -> None:
    """Have the cluster file written whole or not at all, and not again where a stop, of whichever process, has removed it."""
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
    """See that the profile exists. A new one, or one that nobody has written anything into, gets the files of `ipp-griffin init`:
    without them, `ipcluster engines` would start engines on this machine."""
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
            if path.exists() and path.read_bytes() == text.encode():  # else somebody has edited it meanwhile
                path.write_bytes(before[file]) if file in before else path.unlink()
        if new:
            _remove_empty(folder)
        raise


def _remove_empty(folder: Path) -> None:
    """Remove a profile's folder that has nothing in it but what IPython puts into a new one; what somebody else put there stays."""
    (folder / "startup" / "README").unlink(missing_ok=True)
    for path in [*(path for path in folder.glob("*") if path.is_dir()), folder]:
        with contextlib.suppress(OSError):
            path.rmdir()


@contextlib.contextmanager
def _as_before(*paths: Path) -> Iterator[None]:
    """Restore, on failure, files that only the body writes; one that is gone by then is a stopped cluster's, and stays so."""
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
    """Let this machine in by the cluster's security group, where it has one."""
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
