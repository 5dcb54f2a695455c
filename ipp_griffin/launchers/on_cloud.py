"""`OnCloud`: what all launchers have in common: which cloud they are on, as state that the cluster file keeps."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import HasTraits, TraitError, Unicode
from traitlets.config import Config

from ..cloud.shared import connect, open_store
from ..common.errors import GriffinError, SettingError
from ..model.connection import cluster_uid
from .arguments import check_arguments
from .cloud_settings import GriffinCloud
from .settings import ServerSettings

if TYPE_CHECKING:
    from ..cloud.cloud import Cloud
    from ..cloud.store.store import Store
    from ..controller.hub import Hub


def check_cluster_id(cluster_id: str) -> None:
    """Raise `SettingError` for a cluster id that can't be part of a file name."""
    if not re.fullmatch(r"[\w.@+-]*", cluster_id) or len(cluster_id.encode()) > 200:
        raise SettingError(
            f"The cluster id {cluster_id[:200]!r} can't be part of a file name: use letters, digits and any of . "
            "_ - + @, at most 200 characters."
        )


class OnCloud(HasTraits):
    """Tagged state: `ipcluster stop` may run under another profile's config, so it must not depend on config."""

    cloud = Unicode(help="Name of the cloud in clouds.yaml; empty: the OS_* variables").tag(to_dict=True)
    region = Unicode(help="Region of the cloud; empty: the cloud's default").tag(to_dict=True)
    project = Unicode(help="Id of the project that the servers are in").tag(to_dict=True)
    container = Unicode(help="First part of the name of the cluster's container").tag(to_dict=True)
    uid = Unicode(help="Names this run of the controller in the cloud project").tag(to_dict=True)

    parent: Any
    stop_timeout: int
    cluster_id: str
    connection_files: dict[str, str]

    # ipyparallel looks launcher classes up by the module that the entry point names, which is the package
    entrypoint_name = "griffin"

    wrong_setting: SettingError | None = None

    def __init__(self, **kwargs: Any) -> None:
        check_arguments(type(self), kwargs)
        try:
            super().__init__(**kwargs)
        except TraitError as e:  # ipcluster can't handle an exception here: `start` raises it
            try:
                super().__init__(**{**kwargs, "config": Config()})
            except TraitError as given:  # by whoever calls start_engines, and can
                raise SettingError(f"A setting is wrong: {given}") from given
            self.wrong_setting = SettingError(f"A setting is wrong: {e}")

    def check_settings(self) -> None:
        """Raise `SettingError` if a setting of this launcher is wrong."""
        if self.wrong_setting is not None:
            raise self.wrong_setting
        check_cluster_id(self.cluster_id)

    def remove_connection_files(self) -> None:
        """Remove the connection files that a killed controller left, but only those of this cluster."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if cluster_uid(json.loads(Path(self.connection_files["engine"]).read_text())) == self.uid:
                for path in self.connection_files.values():
                    Path(path).unlink(missing_ok=True)

    def settle_cloud(self) -> GriffinCloud:
        """Read the shared settings, overridden by this launcher's own, and record which cloud they name.

        Raises `SettingError` for invalid ones.
        """
        settings = GriffinCloud(parent=self, **(self.own_settings() if isinstance(self, ServerSettings) else {}))
        settings.check()
        self.cloud = settings.cloud_name()
        self.region = settings.region
        self.container = settings.container
        return settings

    def record_project(self, settings: GriffinCloud) -> None:
        """Log in, and record the project: `stop` must not take the empty listing of another project for success. Blocking.

        Raises `CloudError` if the cloud can't run clusters.
        """
        cloud = self.connect()
        settings.check_cloud(cloud)
        self.region, self.project = cloud.region or self.region, cloud.project_id

    def connect(self) -> Cloud:
        """Return the connection that the launchers of one `ipyparallel.Cluster` share. Blocking.

        Raises `SettingError` if the credentials are for another project than the servers'.
        """
        cloud = connect(self.parent, self.cloud, self.region)
        if self.project and cloud.project_id != self.project:
            raise SettingError(
                f"This cluster is in project {self.project}, but these credentials are for project "
                f"{cloud.project_id}. Use those that it was started with (cloud "
                f"{self.cloud or 'of the OS_* variables'!r})."
            )
        return cloud

    async def take_down_engine_sets(self) -> None:
        """Tear down the controller's engine sets while the hub lives, since engines are shut down through it. Raises `GriffinError` naming what is
        left."""
        for engine_set in list(getattr(self.parent, "engines", {}).values()):
            take_down = getattr(engine_set, "take_down", None)  # other launchers have no such method
            if take_down is not None and engine_set.uid == self.uid:
                await take_down()

    def try_again(self) -> str:
        """Return advice for when something could not be deleted."""
        path = getattr(self.parent, "cluster_file", "")
        return "Run the same stop again" + (f"; if that cloud is gone for good, delete {path}." if path else ".")

    def sweep(self, known: Iterable[str] = ()) -> None:
        """Delete everything that the cluster's uid has in the cloud, whichever process created it. Blocking. ``known``: ids of its servers."""
        from ..cluster.teardown import sweep

        try:
            sweep(self.connect(), self.open_store(), self.uid, timeout=self.stop_timeout, known=known)
        except GriffinError as e:
            e.args = (f"{e} {self.try_again()}",)
            raise

    def open_store(self, servers_url: str = "") -> Store:
        """Return the cloud's object store, which the launchers of one `ipyparallel.Cluster` share. Blocking."""
        return open_store(self.connect(), container=self.container, servers_url=servers_url)

    def open_hub(self, timeout: float = 30) -> Hub:
        """Return a client connection to the controller. Blocking. Raises `GriffinError` if it can't be reached."""
        from ..controller.hub import Hub

        path = self.connection_files["client"]
        try:
            info = json.loads(Path(path).read_text())
        except (OSError, ValueError) as e:
            raise GriffinError(f"No controller is running here: can't read {path}.") from e
        return Hub(info, timeout=timeout)
