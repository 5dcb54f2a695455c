"""What both launchers have in common: which cloud they are on, as state that survives in the cluster file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from traitlets import HasTraits, Unicode

from ..settings import GriffinCloud, connect, open_store

if TYPE_CHECKING:
    from ..cloud import Cloud
    from ..store import Store


class OnCloud(HasTraits):
    """Tagged state: `ipcluster stop` may run under another profile's config, so it must not depend on config."""

    cloud = Unicode(help="Name of the cloud in clouds.yaml; empty: the OS_* variables").tag(to_dict=True)
    region = Unicode(help="Region of the cloud; empty: the cloud's default").tag(to_dict=True)
    container = Unicode(help="First part of the name of the cluster's container").tag(to_dict=True)
    uid = Unicode(help="Names this run of the controller in the cloud project").tag(to_dict=True)

    parent: Any

    # ipyparallel looks launcher classes up by the module that the entry point names, which is the package
    entrypoint_name = "griffin"

    def settle_cloud(self) -> GriffinCloud:
        """Read the shared settings, and record which cloud they mean."""
        settings = GriffinCloud(parent=self)
        self.cloud = settings.cloud_name()
        self.region = settings.region
        self.container = settings.container
        return settings

    def connect(self) -> Cloud:
        """The connection that the launchers of one `ipyparallel.Cluster` share. Blocking."""
        return connect(self.parent, self.cloud, self.region)

    def open_store(self, servers_url: str = "") -> Store:
        """The object store of that cloud. Blocking."""
        return open_store(self.connect(), container=self.container, servers_url=servers_url)
