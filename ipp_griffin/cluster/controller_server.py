"""The server that runs a cluster's controller: its connection files. Blocking; no traits, no event loop.

It counts as an engine set of one server, named `CONTROLLER`, so that whatever looks for a cluster's servers finds it. Its agent writes
both connection files into the object store, where only it can write them, and only members of the project can read them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ..common.errors import CloudError, GriffinError
from ..common.net import address_of
from ..model.connection import MARK, Json, cluster_uid, ports_of
from ..model.names import Place
from .engine_set import EngineSet

if TYPE_CHECKING:
    from ..cloud.cloud import Cloud
    from ..cloud.store.store import Store

CONTROLLER = "controller"  # names of engine sets are random
CONNECTION_FILES = "handover"  # name of the object with both connection files, below the server's prefix
CLIENT = "client.json"
FILE_LIMIT = 1 << 16  # bytes of connection files


class ControllerServer(EngineSet):
    """The controller's server, in any incarnation. All methods block; each may raise `CloudError`."""

    more_objects = (CONNECTION_FILES,)

    def __init__(self, cloud: Cloud, store: Store, uid: str) -> None:
        super().__init__(cloud, store, uid, CONTROLLER)

    def connection_files(self, incarnation: int) -> dict[str, Json]:
        """Return what ipcontroller wrote: {"engine": ..., "client": ...}. Raises `GriffinError` if that is not this cluster's."""
        body = self.store.get(self.uid, f"{Place(CONTROLLER, 0, incarnation).prefix}{CONNECTION_FILES}", FILE_LIMIT)
        try:
            files = {name: dict(info) for name, info in json.loads(body).items()}
            uids = {cluster_uid(files[name]) for name in ("engine", "client")}
        except (ValueError, TypeError, KeyError, AttributeError):
            uids = set()
        if uids != {self.uid}:
            raise GriffinError(
                "The connection files that the controller's server wrote are damaged, or not of "
                "this cluster. Stop it and start it again."
            )
        files["engine"][MARK] = True
        return files

    def publish_client_file(self, info: Json) -> None:
        """Store the clients' connection file for other machines, under a name that no server can write."""
        self.store.put(self.uid, f"{self.prefix}{CLIENT}", json.dumps(info).encode())

    def client_file(self) -> Json:
        """Return what `publish_client_file` stored. Raises `GriffinError` if this cluster has none."""
        try:
            info = json.loads(self.store.get(self.uid, f"{self.prefix}{CLIENT}", FILE_LIMIT))
            if cluster_uid(info) == self.uid and address_of(info)[0] and ports_of(info):
                return dict(info)
        except CloudError as error:
            if error.status != 404:
                raise
        except (ValueError, TypeError, KeyError, AttributeError):
            pass
        raise GriffinError(
            f"Cluster {self.uid} has no connection file in the object store: its controller does not run on a "
            "server of the cloud, or has not started yet."
        )
