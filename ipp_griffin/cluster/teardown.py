"""Delete what a cluster has on the cloud: servers, ports, objects, security groups, floating IPs. Blocking."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING

from ..common.errors import CloudError
from ..common.threads import in_parallel
from ..model.names import MARKER_TAG, uid_tag

if TYPE_CHECKING:
    from ..cloud.cloud import Cloud
    from ..cloud.ports import Port
    from ..cloud.store.store import Store
    from ..model.server import Server


PORTS_TIMEOUT = 10.0  # seconds that ports may outlive their servers

PARALLEL = 10  # requests in flight at the same time

BeforeDeletion = Callable[["list[Server]"], None]


def sweep(cloud: Cloud, store: Store, uid: str, *, timeout: float, known: Iterable[str] = ()) -> None:
    """Delete everything that a cluster has, of any engine set and from any process. Idempotent.

    ``known``: ids of its servers, whose ports are searched for even if the servers are gone. Raises `CloudError` naming what still
    exists. A container of that name that belongs to another program stays, without an error.
    """
    delete_servers(cloud, (uid_tag(uid),), known, timeout=timeout)
    failed: list[CloudError] = []

    def attempt(delete: Callable[[], object]) -> None:
        try:
            delete()
        except CloudError as error:
            failed.append(error)

    rest = (
        partial(cloud.floating_ips.release, uid),
        partial(_delete_container, store, uid),
        partial(cloud.groups.remove, uid, timeout=timeout),
    )
    in_parallel(rest, attempt, len(rest))
    if failed:
        failed[0].args = (
            f"The servers of cluster {uid} are deleted, but not everything else: {' '.join(map(str, failed))} "
            f"Run `ipp-griffin stop {uid}` to try again.",
        )
        raise failed[0]


def _delete_container(store: Store, uid: str) -> None:
    """Delete a cluster's container. Raises `CloudError` if it stays."""
    if not store.delete_container(uid):
        raise CloudError(
            "Something in its container can't be deleted. If it stays, delete the container with `openstack "
            f"container delete --recursive`; its name ends in -{uid}."
        )


def delete_servers(
    cloud: Cloud,
    tags: tuple[str, ...],
    known: Iterable[str],
    *,
    timeout: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    before_deletion: BeforeDeletion = lambda servers: None,
    parallel: int = PARALLEL,
) -> None:
    """Delete the servers with all of ``tags`` and those ``known`` by id, and wait until a listing shows none.

    Without ``tags``: only those ``known``. Then delete the ports that Nova left of them, as it does when Neutron fails at that time.
    Raises `CloudError` naming the servers that are still there after ``timeout`` seconds.
    """
    deadline = clock() + timeout
    pause = 0.2
    known = set(known)
    asked: set[str] = set()
    while True:
        try:
            found = cloud.servers(*(tags or (MARKER_TAG,)))
            listed = {server.id: server for server in found if tags or server.id in known}
        except CloudError:
            cloud.delete_servers(sorted(known - asked), parallel)  # known servers can be deleted without a listing
            raise
        if not asked:
            before_deletion(list(listed.values()))
        # A server that was created a moment ago may be missing from the first listing.
        todo = (set(listed) | known) - asked
        if todo:
            cloud.delete_servers(sorted(todo), parallel)
            asked |= todo
        elif not listed:
            break
        if clock() > deadline:
            names = ", ".join(sorted(server.name for server in listed.values()))
            raise CloudError(
                f"These servers still exist {timeout:.0f} s after they were deleted: {names}. If they stay, "
                "delete them with `openstack server delete`."
            )
        sleep(pause)
        pause = min(pause * 1.5, 2.0)
    if asked:
        delete_ports(cloud, asked, sleep=sleep, clock=clock)


def delete_ports(
    cloud: Cloud, servers: Collection[str], *, sleep: Callable[[float], None], clock: Callable[[], float]
) -> None:
    """Delete the ports that these deleted ``servers`` still have, and wait until a listing shows none.

    Raises `CloudError` naming those that remain. Since 2025, Neutron lets only administrators delete a server's port.
    """
    deadline = clock() + PORTS_TIMEOUT
    while ports := cloud.ports.of_servers(servers):
        failed: list[CloudError] = []

        def delete(port: Port, failed: list[CloudError] = failed) -> None:
            try:
                cloud.ports.delete(port.id)
            except CloudError as error:
                failed.append(error)

        in_parallel(ports, delete, PARALLEL)
        if clock() > deadline:
            ids = ", ".join(port.id for port in ports)
            raise CloudError(
                f"The servers are deleted, but these ports of theirs still exist: {ids}. "
                f"{' '.join(map(str, failed[:1]))} The cloud's operators can delete them with `openstack port "
                "delete`."
            )
        sleep(0.5)
