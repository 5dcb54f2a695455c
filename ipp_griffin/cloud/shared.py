"""The connection and the object store that the launchers of one cluster share, so that a start logs in once."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any

from .prefetch import Prefetch

if TYPE_CHECKING:
    from .cloud import Cloud
    from .store.store import Store


INTERFACES = ("public", "internal", "admin")

# The connection that the launchers of one Cluster share, so that a start logs in once.
_connections: weakref.WeakKeyDictionary[Any, dict[tuple[str, str], Cloud]] = weakref.WeakKeyDictionary()

# What was opened and asked through a connection.
_stores: weakref.WeakKeyDictionary[Cloud, dict[tuple[str, str], Store]] = weakref.WeakKeyDictionary()

_prefetched: weakref.WeakKeyDictionary[Cloud, Prefetch] = weakref.WeakKeyDictionary()

_connecting = threading.Lock()


def connect(cluster: Any, name: str, region: str) -> Cloud:
    """Return the connection to the cloud that the launchers of ``cluster`` (ipyparallel's) share.

    Raises `CloudError` if the cloud can't be reached or refuses the credentials.
    """
    from ..cloud.cloud import Cloud

    with _connecting:
        shared = {} if cluster is None else _connections.setdefault(cluster, {})
        if (name, region) not in shared:
            cloud = Cloud.connect(name, region=region)
            # Launchers record the region that an empty one means.
            shared[name, region] = shared[name, cloud.region] = cloud
        return shared[name, region]


def open_store(cloud: Cloud, *, container: str, servers_url: str = "") -> Store:
    """Return the object store of ``cloud``, always the same object, since it caches answers. Raises `Unsupported` if there is none."""
    from ..cloud.store.store import Store

    if servers_url in INTERFACES:
        servers_url = cloud.object_store_url(servers_url)
    with _connecting:
        opened = _stores.setdefault(cloud, {})
        if (container, servers_url) not in opened:
            opened[container, servers_url] = Store(
                cloud.session, cloud.object_store_url(), prefix=container, servers_url=servers_url
            )
        return opened[container, servers_url]


def prefetch_of(cloud: Cloud) -> Prefetch:
    """Return the `Prefetch` of ``cloud``: always the same, which remembers what it has asked."""
    with _connecting:
        return _prefetched.setdefault(cloud, Prefetch())
