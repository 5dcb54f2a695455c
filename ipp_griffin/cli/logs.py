"""`ipp-griffin logs`: the logs of a cluster's servers, from any machine, including servers that are gone."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from traitlets import Integer

from ..cluster.cluster import Cluster
from ..cluster.inventory import Clusters
from ..common.errors import CloudError
from ..common.text import one_line
from ..common.threads import in_parallel
from ..model.history import Record, select
from ..model.logs import ServerLog, clock_difference, merge
from ..model.reports import LOG, last_output
from .command import ClustersCommand

REPORTS_READ = 20  # of one server: its newest
PARALLEL = 10  # requests in flight at the same time


class Logs(ClustersCommand):
    name = "logs"
    description = """Show the logs of a cluster's servers, sorted by time: agents' reports, engines' output, consoles.

    CLUSTER is its uid, its profile, or profile/cluster id; SERVER is a server's name, its slot, or set/slot. A server that is gone
    only has reports. Times are UTC, by the servers' clocks.
    """
    examples = "ipp-griffin logs griffin\nipp-griffin logs griffin 2 --tail 50"
    tail = Integer(0, min=0, config=True, help="How many lines to show, the last ones. Default: 0, all.")
    aliases = {**ClustersCommand.aliases, "tail": "Logs.tail"}  # noqa: RUF012
    takes_arguments = True

    def run(self) -> None:
        if len(self.extra_args) not in (1, 2):
            self.fail("name a cluster, and one of its servers if you like. `ipp-griffin ps` lists them.")
        clusters = self.clusters()
        cluster = clusters.find(self.extra_args[0], everyone=self.all_owners)
        records = clusters.records(cluster)
        if len(self.extra_args) == 2:
            records = select(records, self.extra_args[1])
        logs, remarks = collect(clusters, cluster, records)
        for remark in remarks:
            self.remark(remark)
        lines = merge(logs)
        for line in deque(lines, maxlen=self.tail) if self.tail else lines:
            print(line)


def collect(clusters: Clusters, cluster: Cluster, records: Iterable[Record]) -> tuple[list[ServerLog], list[str]]:
    """Return the logs of these servers, and remarks. What can't be read is a remark, never a failure."""
    logs: dict[int, ServerLog] = {}
    remarks: dict[int, list[str]] = {}

    def read(item: tuple[int, Record]) -> None:
        number, record = item
        remarks[number] = []
        logs[number] = _read(clusters, cluster, record, remarks[number])

    in_parallel(enumerate(records), read, PARALLEL)
    return [log for _, log in sorted(logs.items())], [text for _, texts in sorted(remarks.items()) for text in texts]


def _read(clusters: Clusters, cluster: Cluster, record: Record, remarks: list[str]) -> ServerLog:
    phases = [report for report in record.reports if report.phase != LOG]
    newest, with_output = phases[-REPORTS_READ:], last_output(record.reports)
    if len(phases) > len(newest):
        remarks.append(f"{len(phases) - len(newest)} earlier reports of {record.place} are not shown.")
    said: dict[Any, Any] = {}
    for report in dict.fromkeys([*newest, *([with_output] if with_output else [])]):
        try:
            said[report] = clusters.read_report(cluster, report)
        except CloudError as error:
            remarks.append(f"A report of {record.place} can't be read: {error}")
    console = ""
    if record.server and record.server.status != "BUILD":
        try:
            console = clusters.console(record.server)
        except CloudError as error:
            remarks.append(f"The console of {record.place} can't be read: {one_line(error)}")
    if behind := next((d for r in reversed(list(said)) if (d := clock_difference(r, said[r]))), 0.0):
        remarks.append(
            f"The clock of {record.place} was {abs(behind):.0f} s {'behind' if behind > 0 else 'ahead of'} "
            "the object store's. Its times are shown uncorrected."
        )
    told = [(report, said[report]) for report in newest if report in said]
    return ServerLog(record, told, said.get(with_output), console)
