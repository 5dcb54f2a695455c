"""Find the clusters of a project from the cloud alone: without cluster file, profile or local state. Blocking."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

from ..common.errors import CloudError, SettingError, Unavailable
from ..common.text import one_line
from ..common.times import seconds_since
from ..model.history import HISTORY, HISTORY_LIMIT, Former, Record, parse_history, records
from ..model.names import MARKER_TAG, uid_of
from .cluster import LABELS, SETTLED, Cluster, Leftover, is_settled, leftovers, members
from .controller_server import ControllerServer
from .teardown import delete_servers, sweep

if TYPE_CHECKING:
    from ..cloud.cloud import Cloud
    from ..cloud.floating_ips import FloatingIp
    from ..cloud.security_groups import SecurityGroup
    from ..cloud.store.store import Store
    from ..model.names import Place
    from ..model.reports import Report
    from ..model.server import Server

T = TypeVar("T")

CONSOLE_LINES, CONSOLE_LIMIT = 1000, 1 << 18  # the last lines of a console, and characters of them


class NoSuchCluster(SettingError):  # noqa: N818 - a state of the project
    """The project has no cluster with that name."""


class Clusters:
    """The clusters in the project of ``cloud``.

    ``open_store``: returns the object store for containers with the given prefix; ``prefix``: the prefix for clusters without a server
    that has it in its metadata. ``store_trouble``: why the object store did not answer `all` or `find`, which continue without it so
    that servers can be seen and deleted; "" if it did. All methods raise `CloudError`.
    """

    def __init__(self, cloud: Cloud, open_store: Callable[[str], Store], prefix: str) -> None:
        self._cloud, self._prefix = cloud, prefix
        self._open_store = open_store
        self._stores: dict[str, Store] = {}
        self.store_trouble = ""

    def all(self, *, everyone: bool = False) -> list[Cluster]:
        """Return this user's clusters, or ``everyone``'s, the oldest last. Sends two listings, one listing of reports for each cluster, and one or
        two requests for the container of each cluster without servers, or with servers of others."""
        return self._known(self._by_uid(strict=False), everyone, strict=False)

    def _ask_store(self, ask: Callable[[], T], otherwise: T, strict: bool) -> T:
        """Return what ``ask`` returns; ``otherwise`` while the object store is down, unless ``strict``."""
        if self.store_trouble and not strict:
            return otherwise
        try:
            return ask()
        except Unavailable as error:
            if strict:
                raise
            self.store_trouble = str(error)
            return otherwise

    def _by_uid(self, *, empty: bool = True, strict: bool = True) -> dict[str, list[Server]]:
        """Return the servers of each cluster; with ``empty``, also clusters that have only a container."""
        containers: list[str] = []
        if empty:
            containers = self._ask_store(lambda: self._store().containers(), containers, strict)
        by_uid: dict[str, list[Server]] = {uid: [] for uid in containers if re.fullmatch("[0-9a-f]{12}", uid)}
        for server in self._cloud.servers(MARKER_TAG):
            if uid := uid_of(server.tags):
                by_uid.setdefault(uid, []).append(server)
        return by_uid

    def _known(self, by_uid: Mapping[str, list[Server]], everyone: bool, *, strict: bool = True) -> list[Cluster]:
        found = [self._cluster(uid, servers, everyone, strict) for uid, servers in by_uid.items()]
        now = datetime.now(timezone.utc)
        return sorted((cluster for cluster in found if cluster), key=lambda c: (c.age(now), c.uid))

    def find(self, name: str, *, everyone: bool = False) -> Cluster:
        """Return the cluster with this uid, or this profile (or profile/cluster id). Raises `SettingError`."""
        known = self.all(everyone=True)
        mine = [cluster for cluster in known if cluster.mine or everyone]
        found = [c for c in mine if c.uid == name] or [c for c in mine if c.name == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise SettingError(f"Several clusters are called {name!r}. Name one of them: {_listing(found)}.")
        if any(name in (cluster.uid, cluster.name) for cluster in known):
            raise _somebody_elses(name)
        if self.store_trouble:
            raise Unavailable(
                f"No cluster {name!r} has servers, and its container can't be searched for: {self.store_trouble}"
            )
        raise NoSuchCluster(f"There is no cluster {name!r} in this project. Existing clusters: {_listing(mine)}.")

    def exists(self, uid: str) -> bool:
        """Return whether anybody in the project has a cluster of that uid; True also while the object store does not answer."""
        return any(cluster.uid == uid for cluster in self.all(everyone=True)) or bool(self.store_trouble)

    def rest_of(self, uid: str, *, everyone: bool = False) -> Cluster | None:
        """Return a cluster without servers and container, of which security groups or a floating IP may be left. So a stop that failed at its end,
        or ran at the same time as another, can be repeated. None if ``uid`` is not a uid. Raises `SettingError` if it is somebody
        else's."""
        if not re.fullmatch("[0-9a-f]{12}", uid):
            return None
        remaining: list[SecurityGroup | FloatingIp] = [*self._cloud.groups.of(uid), *self._cloud.floating_ips.of(uid)]
        mine = all(one.user_id == self._cloud.user_id for one in remaining)
        if not (mine or everyone):
            raise _somebody_elses(uid)
        return Cluster(uid, dict.fromkeys(LABELS, ""), (), mine)

    def stop(self, cluster: Cluster, *, timeout: float) -> None:
        """Delete everything that a cluster has in the cloud, and confirm it. Idempotent."""
        sweep(self._cloud, self._store(cluster.labels["container"]), cluster.uid, timeout=timeout)

    def leftovers(self, *, everyone: bool = False) -> list[Leftover]:
        """Return the leftovers of this user's clusters, without servers of others in them; or of ``everyone``'s."""
        by_uid = self._by_uid()
        unmarked = self._unmarked(uid for uid, servers in by_uid.items() if not servers)
        return self._left(by_uid, everyone) + unmarked + self._of_no_cluster(by_uid, everyone)

    def servers_left(self) -> list[Leftover]:
        """Return this user's leftover servers. Sends one listing, and one of reports for each running cluster."""
        return self._left(self._by_uid(empty=False), False)

    def _left(self, by_uid: Mapping[str, list[Server]], everyone: bool) -> list[Leftover]:
        now = datetime.now(timezone.utc)
        found = [left for cluster in self._known(by_uid, everyone) for left in leftovers(cluster, now)]
        return [left for left in found if left.mine or everyone]

    def _unmarked(self, uids: Iterable[str]) -> list[Leftover]:
        """Return unlabelled containers: whoever made them was killed before labelling them. Only empty ones are ever deleted."""
        found, now = [], time.time()
        for uid in uids:
            made = self._store().made_at(uid)
            if made is not None and now - made >= SETTLED:
                touched = datetime.fromtimestamp(made, timezone.utc).isoformat()
                nobodys = Cluster(uid, dict.fromkeys(LABELS, ""), (), True, touched)
                found.append(Leftover(nobodys, None, "was never used"))
        return found

    def _of_no_cluster(self, by_uid: Mapping[str, list[Server]], everyone: bool) -> list[Leftover]:
        """Return security groups and floating IPs whose cluster has neither container nor server. A start makes its container before them."""
        now = datetime.now(timezone.utc)

        def left(thing: SecurityGroup | FloatingIp, **which: Any) -> list[Leftover]:
            mine = thing.user_id == self._cloud.user_id
            if thing.uid in by_uid or seconds_since(thing.created, now) < SETTLED or not (mine or everyone):
                return []
            nobodys = Cluster(thing.uid, dict.fromkeys(LABELS, ""), (), mine)
            return [Leftover(nobodys, None, "belongs to no cluster any more", mine, **which)]

        groups = [found for group in self._cloud.groups.all() for found in left(group, group=group)]
        return groups + [f for ip in self._cloud.floating_ips.all() for f in left(ip, floating_ip=ip)]

    def reap(self, found: Iterable[Leftover], *, timeout: float) -> list[Leftover]:
        """Delete what was ``found`` and is still left over; return what was deleted. Idempotent.

        The user may have taken a while to agree, so servers are deleted one by one, never by their cluster's tag. Their container is
        deleted with the last server, unless another engine set wrote into it in the last hour: that may be starting. Raises
        `CloudError` naming the servers that are still there after ``timeout`` seconds.
        """
        asked = {_key(left) for left in found}
        everyone = any(not (left.mine and left.cluster.mine) for left in found)
        still = [left for left in self.leftovers(everyone=everyone) if _key(left) in asked]
        ids = {left.server.id for left in still if left.server}
        delete_servers(self._cloud, (), ids, timeout=timeout)
        now = datetime.now(timezone.utc)
        with_servers = {uid_of(server.tags) for server in self._cloud.servers(MARKER_TAG)}
        for cluster in {left.cluster.uid: left.cluster for left in still}.values():
            store = self._store(cluster.labels["container"])
            reaped = {member.place.engine_set for member in cluster.members}
            if cluster.uid not in with_servers and is_settled(_touched(store, cluster.uid, reaped), now):
                self._cloud.floating_ips.release(cluster.uid)
                store.delete_container(cluster.uid)
                self._cloud.groups.remove(cluster.uid, timeout=timeout)
        return still

    def records(self, cluster: Cluster) -> list[Record]:
        """Return a record of every server that a cluster has or had. Sends one listing, and reads one small object for each engine set."""
        store = self._store(cluster.labels["container"])
        reports = store.reports(cluster.uid, logs=True)
        formers: dict[Place, Former] = {}
        sets = {member.place.engine_set for member in cluster.members} | {report.place.engine_set for report in reports}
        for name in sorted(sets):
            formers |= parse_history(name, _read(store, cluster.uid, f"{name}/{HISTORY}"))
        servers = [member.server for member in sorted(cluster.members, key=lambda member: not member.mine)]
        return records(cluster.uid, servers, reports, formers)

    def controller_server(self, cluster: Cluster) -> ControllerServer:
        """Return the server that its controller runs on, with the connection files."""
        return ControllerServer(self._cloud, self._store(cluster.labels["container"]), cluster.uid)

    def read_report(self, cluster: Cluster, report: Report) -> dict[str, Any]:
        """Return what a report says, as `reports.content` has it; empty if it is gone."""
        return self._store(cluster.labels["container"]).read_report(cluster.uid, report)

    def console(self, server: Server) -> str:
        """Return the last lines of a server's console, raw; "" where there is none."""
        return self._cloud.console_output(server.id, CONSOLE_LINES)[-CONSOLE_LIMIT:]

    def _store(self, prefix: str = "") -> Store:
        prefix = prefix or self._prefix
        if prefix not in self._stores:
            self._stores[prefix] = self._open_store(prefix)
        return self._stores[prefix]

    def _cluster(self, uid: str, servers: list[Server], everyone: bool, strict: bool) -> Cluster | None:
        """Return the cluster; None for somebody else's, unless ``everyone``'s are wanted, and for a container of another program."""
        me = self._cloud.user_id
        noted: Mapping[str, str] = {}
        if not servers or any(server.user_id != me for server in servers):
            asked = next((server for server in servers if server.user_id == me), servers[0] if servers else None)
            container = one_line(asked.metadata.get("griffin:container", "")) if asked else ""
            found = self._ask_store(lambda: self._store(container).labels(uid), noted, strict)
            noted = {name.replace("-", "_"): text for name, text in found.items()}
        if not servers and not noted:
            return None
        others = [server.user_id for server in servers if server.user_id != me]
        # If it has servers of several users and the store does not answer, it counts as somebody else's.
        mine = len(others) < len(servers) and not (others and self.store_trouble)
        owner = noted.get("user") or (me if mine else next(iter(others), ""))
        if owner != me and not everyone:
            return None
        told = next((server.metadata for server in servers if server.user_id == owner), None)
        if told is not None:
            noted = {name.removeprefix("griffin:"): text for name, text in told.items()}
        labels = {name: one_line(noted.get(name, "")) for name in LABELS}
        store = self._store(labels["container"])
        running = any(server.status == "ACTIVE" for server in servers)
        written: Sequence[Report] = self._ask_store(lambda: store.reports(uid), [], strict) if running else []
        reports = {report.place: report for report in written}
        touched = "" if servers else _touched(store, uid)
        return Cluster(uid, labels, tuple(members(servers, reports, me)), owner == me, touched)


def _key(left: Leftover) -> tuple[str, str]:
    thing = left.server or left.group or left.floating_ip
    return left.cluster.uid, thing.id if thing else ""


def _touched(store: Store, uid: str, but: Collection[str] = ()) -> str:
    """Return when something was last written into a cluster's container, except by these engine sets; "" for never."""
    counted = (stored for stored in store.objects(uid) if stored.name.partition("/")[0] not in but)
    return max((stored.last_modified for stored in counted), default="")


def _read(store: Store, uid: str, name: str) -> bytes:
    """Return the content of an object that may not exist."""
    try:
        return store.get(uid, name, HISTORY_LIMIT)
    except CloudError as error:
        if error.status != 404:
            raise
        return b""


def _somebody_elses(name: str) -> SettingError:
    return SettingError(f"Cluster {name!r} belongs to somebody else. Add --all-owners if you mean it.")


def _listing(clusters: Iterable[Cluster]) -> str:
    return (
        ", ".join(f"{cluster.uid} ({cluster.name})" if cluster.name else cluster.uid for cluster in clusters) or "none"
    )
