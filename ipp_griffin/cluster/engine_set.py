"""Create, poll and delete the servers and objects of one engine set. Blocking; no traits, no event loop.

`EngineSet` joins the two doors (`cloud`, `store`) by the names that `plan` gives. It holds no state that the
cloud does not: uid and engine set nonce are enough to find everything again.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from ..common.errors import CloudError, logger
from ..common.text import one_line, printable, redact
from ..common.threads import in_parallel
from ..model.history import HISTORY
from ..model.names import Place, set_tag, uid_tag
from ..model.plan import Plan, ServerPlan
from ..model.reports import last_output
from ..model.userdata import UserDataSettings, agent_source, server_parameters, user_data
from .create import create_servers
from .teardown import PARALLEL, BeforeDeletion, delete_ports, delete_servers

if TYPE_CHECKING:
    from ..cloud.cloud import Cloud
    from ..cloud.store.store import Store
    from ..model.reports import Report
    from ..model.server import Server

CONSOLE_LINES, CONSOLE_LIMIT = 100, 1 << 16  # of a console, how many last lines and characters are kept


@dataclass(frozen=True)
class Survey:
    """What Nova and the agents' reports said of an engine set in one poll."""

    servers: tuple[Server, ...]
    reports: Mapping[Place, Report] = field(default_factory=dict)

    @property
    def active(self) -> int:
        return sum(server.status == "ACTIVE" for server in self.servers)

    @property
    def by_name(self) -> dict[str, Server]:
        return {server.name: server for server in self.servers}


class EngineSet:
    """The servers and objects of one engine set. All methods block; each may raise `CloudError`.

    ``parallel``: servers that are created, deleted or asked for their consoles at the same time, at most.
    """

    more_objects: tuple[str, ...] = ()  # that a server may write besides its reports

    def __init__(self, cloud: Cloud, store: Store, uid: str, engine_set: str, parallel: int = PARALLEL) -> None:
        self.cloud, self.store, self.uid, self.engine_set, self.parallel = cloud, store, uid, engine_set, parallel

    @property
    def prefix(self) -> str:
        """Return the prefix of the names of this set's objects in the cluster's container."""
        return f"{self.engine_set}/"

    def open_container(self, labels: Mapping[str, str]) -> None:
        """Make the cluster's private container if it does not exist yet."""
        self.store.publish(self.uid, labels)

    def publish(self, private_object: bytes) -> None:
        """Put the private object, which agents wait for, into the container."""
        self.store.put(self.uid, self._private_object, private_object)

    def is_published(self) -> bool:
        """Return whether the private object exists. A stop, by any process, deletes it last."""
        return any(stored.name == self._private_object for stored in self.store.objects(self.uid, self._private_object))

    @property
    def _private_object(self) -> str:
        return f"{self.prefix}connection.json"

    def create(
        self,
        plan: Plan,
        settings: UserDataSettings,
        *,
        on_created: Callable[[ServerPlan, Server], None],
        stop: threading.Event,
    ) -> None:
        """Create the servers of ``plan``; call ``on_created`` for each as soon as it exists.

        Once ``stop`` is set, send no further request, but wait for those in flight.
        """
        read_url = self.store.get_url(self.uid, self._private_object, settings.read_seconds)
        source = agent_source()
        wanted = []
        for server in plan.servers:
            parameters = server_parameters(
                server,
                settings,
                uid=self.uid,
                private_object_url=read_url,
                report_urls=self.store.report_urls(
                    self.uid, server.place.prefix, settings.report_seconds, self.more_objects
                ),
            )
            wanted.append((server, user_data(parameters, source)))
        create_servers(self.cloud, plan, wanted, on_created=on_created, stop=stop, parallel=self.parallel)

    def survey(self, *, reports: bool = True) -> Survey:
        """List the servers once, whatever their number; with ``reports``, also list the container once any server runs."""
        survey = Survey(tuple(self.cloud.servers(uid_tag(self.uid), set_tag(self.engine_set))))
        return Survey(survey.servers, self.newest_reports()) if reports and survey.active else survey

    def delete_spares(self, survey: Survey, known: Collection[str]) -> Survey:
        """Delete servers that were created twice, and return the survey without them.

        A POST that timed out may take effect much later, when its server has been requested again. ``known``: ids of the servers to
        keep.
        """
        known = set(known)
        kept = {server.name for server in survey.servers if server.id in known}
        spares = {server.id: server.name for server in survey.servers if server.id not in known and server.name in kept}
        if spares:
            logger.warning("deleting servers that were created twice: %s", ", ".join(spares.values()))
            self.cloud.delete_servers(spares, self.parallel)
        return Survey(tuple(server for server in survey.servers if server.id not in spares), survey.reports)

    def delete_ports(self, servers: Collection[str]) -> None:
        """Delete the ports that these deleted servers still have: see `teardown.delete_ports`."""
        delete_ports(self.cloud, servers, sleep=time.sleep, clock=time.monotonic)

    def newest_reports(self) -> dict[Place, Report]:
        """Return the newest report of each server."""
        return {report.place: report for report in self.store.reports(self.uid, self.engine_set)}  # the last one counts

    def why(self, report: Report) -> str:
        """Return why the agent that wrote this report gave up, in its own words: one line."""
        content = self.store.read_report(self.uid, report)
        message = str(content.get("message") or "it did not say why")
        if report.phase == "gone":  # engines that registered and then ended at once
            last = [str(engine.get("output", "")).rstrip().rpartition("\n")[2] for engine in content.get("engines", [])]
            message = f"its engines ended at once: {message}. {' | '.join(one_line(line) for line in last[:2])}"
        return message

    def write_history(self, ended: list[dict[str, str | int]]) -> None:
        """Store what is known of replaced servers, for `ipp-griffin timeline`. No agent's URL can write this object."""
        self.store.put(self.uid, f"{self.prefix}{HISTORY}", json.dumps(ended).encode())

    def output(self, most: int) -> Iterator[tuple[str, str]]:
        """Yield the name and the output of each engine, from the newest report with output of each of at most ``most`` servers."""
        newest: dict[int, Report] = {}
        reports = self.store.reports(self.uid, self.engine_set, logs=True)
        for place, of_server in groupby(reports, lambda report: report.place):
            if report := last_output(of_server):
                newest[place.slot] = report  # of the latest incarnation that has any
        for report in list(newest.values())[:most]:
            for engine in self.store.read_report(self.uid, report).get("engines", []):
                yield f"{report.place.slot}.{engine.get('index', '?')}", str(engine.get("output", ""))

    def read_consoles(self, servers: Collection[Server], keep: Callable[[str, str], None]) -> None:
        """Call ``keep`` with the name of each server and the last lines of its console, made printable, as they are read.

        One request for each; a console that can't be read, or is empty, is left out."""

        def read(server: Server) -> None:
            try:
                console = self.cloud.console_output(server.id, CONSOLE_LINES)[-CONSOLE_LIMIT:]
            except CloudError as error:
                logger.debug("the console of %s can't be read: %s", server.name, error)
                return
            if lines := redact(console).splitlines():
                keep(server.name, "\n".join(printable(line.expandtabs()) for line in lines))

        in_parallel(servers, read, self.parallel)

    def wait_until_gone(
        self,
        *,
        timeout: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wait, at most ``timeout`` seconds, until every server that reported engines has reported their end, with their output.

        A replaced server is not waited for.
        """
        deadline = clock() + timeout
        while clock() < deadline:
            newest = {place.slot: report for place, report in sorted(self.newest_reports().items())}
            if not any(report.phase == "engines" for report in newest.values()):
                return
            sleep(0.3)

    def destroy(
        self,
        known: Iterable[str] = (),
        *,
        timeout: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        groups: bool = False,
        before_deletion: BeforeDeletion = lambda servers: None,
    ) -> None:
        """Delete every server of the set, whether listed or ``known`` by id, and its objects; confirm by listing.

        Idempotent. ``before_deletion``: called with the servers that are there, before they are deleted. The cluster's container goes
        with its last set, and its security groups if ``groups`` says that there are any. Raises `CloudError` naming the servers or
        groups that still exist after ``timeout`` seconds.
        """
        tags = uid_tag(self.uid), set_tag(self.engine_set)
        delete_servers(
            self.cloud,
            tags,
            known,
            timeout=timeout,
            sleep=sleep,
            clock=clock,
            before_deletion=before_deletion,
            parallel=self.parallel,
        )
        self.store.delete_prefix(self.uid, self.prefix)
        if self.store.remove_if_empty(self.uid) and groups:
            self.cloud.groups.remove(self.uid, timeout=timeout, sleep=sleep, clock=clock)
