"""`OnCloud`: what all launchers share: which cloud they are on, as state that the cluster file keeps."""

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
from .arguments import check_given
from .cloud_settings import GriffinCloud
from .settings import ServerSettings

if TYPE_CHECKING:
    from ..cloud.cloud import Cloud
    from ..cloud.store.store import Store
    from ..controller.hub import Hub


def check_cluster_id(cluster_id: str) -> None:
    """Raise `SettingError` for what can't be part of a file's name."""
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
        check_given(type(self), kwargs)
        try:
            super().__init__(**kwargs)
        except TraitError as e:  # ipcluster can't handle an exception here: `start` raises it
            try:
                super().__init__(**{**kwargs, "config": Config()})
            except TraitError as given:  # by whoever calls start_engines, and can
                raise SettingError(f"A setting is wrong: {given}") from given
            self.wrong_setting = SettingError(f"A setting is wrong: {e}")

    def check_settings(self) -> None:
        """Raise what was wrong with the settings of this launcher (`SettingError`)."""
        if self.wrong_setting is not None:
            raise self.wrong_setting
        check_cluster_id(self.cluster_id)

    def remove_connection_files(self) -> None:
        """Remove the cluster's connection files, which a controller that was killed left, and nobody else's."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if cluster_uid(json.loads(Path(self.connection_files["engine"]).read_text())) == self.uid:
                for path in self.connection_files.values():
                    Path(path).unlink(missing_ok=True)

    def settle_cloud(self) -> GriffinCloud:
        """Read the shared settings, with this launcher's own where it has such, and record which cloud they mean.

        Raises `SettingError` for those that can't be right.
        """
        settings = GriffinCloud(parent=self, **(self.own_settings() if isinstance(self, ServerSettings) else {}))
        settings.check()
        self.cloud = settings.cloud_name()
        self.region = settings.region
        self.container = settings.container
        return settings

    def record_project(self, settings: GriffinCloud) -> None:
        """Log in, and record where this is: `stop` must not take another project's emptiness for success. Blocking.

        Raises `CloudError` where the cloud is none for clusters.
        """
        cloud = self.connect()
        settings.check_cloud(cloud)
        self.region, self.project = cloud.region or self.region, cloud.project_id

    def connect(self) -> Cloud:
        """Return the connection that the launchers of one `ipyparallel.Cluster` share. Blocking.

        Raises `SettingError` where it leads to another project than the one that the servers are in.
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
        """End those of a controller, as long as the hub lives: they are shut down through it. Raises `GriffinError` naming what is left."""
        for engine_set in list(getattr(self.parent, "engines", {}).values()):
            take_down = getattr(engine_set, "take_down", None)  # engines of other launchers have none
            if take_down is not None and engine_set.uid == self.uid:
                await take_down()

    def try_again(self) -> str:
        """Return what to do when something could not be taken down."""
        path = getattr(self.parent, "cluster_file", "")
        return "Run the same stop again" + (f"; if that cloud is gone for good, delete {path}." if path else ".")

    def sweep(self, known: Iterable[str] = ()) -> None:
        """Delete whatever the cluster's uid has on the cloud, of whichever process. Blocking. ``known``: ids of its servers."""
        from ..cluster.teardown import sweep

        try:
            sweep(self.connect(), self.open_store(), self.uid, timeout=self.stop_timeout, known=known)
        except GriffinError as e:
            e.args = (f"{e} {self.try_again()}",)
            raise

    def open_store(self, servers_url: str = "") -> Store:
        """Return the object store of that cloud; the launchers of one `ipyparallel.Cluster` share it. Blocking."""
        return open_store(self.connect(), container=self.container, servers_url=servers_url)

    def open_hub(self, timeout: float = 30) -> Hub:
        """Return a client connection to the controller. Blocking. Raises `GriffinError` where there is none to be had."""
        from ..controller.hub import Hub

        path = self.connection_files["client"]
        try:
            info = json.loads(Path(path).read_text())
        except (OSError, ValueError) as e:
            raise GriffinError(f"No controller is running here: can't read {path}.") from e
        return Hub(info, timeout=timeout)
