"""The controller on a server, with a floating IP: what is more than of one beside its user, at each stage; and what becomes of it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import openstack
import psutil
import pytest

from ipp_griffin.plan import GriffinError

from . import lives, processes, requests
from .bench import Bench, eventually
from .lives import computes
from .processes import AFTER_STOP
from .requests import FAILS, STORE, WORKS, Kind, Requests, failing_start, start_and_stop, stop_in_spite
from .row import NOTHING, SECOND_STOP, Row

REACHED: Mapping[str, Any] = {"floating_ip": "auto"}
FLOATING = {"service": "network", "path": "/floatingips"}
CONTROLLER = {"server": "-controller-"}
FIRST = {"server": "-controller-0$"}
START: dict[str, Requests] = {
    "start: allocating the floating IP": ({**FLOATING, "methods": ["GET"]}, {**FLOATING, "methods": ["POST"]}),
    "start: attaching the floating IP": ({"service": "network", "path": "/ports$"}, {**FLOATING, "methods": ["PUT"]}),
    "start: the controller's agent hands the connection files over": ({**STORE, "methods": ["PUT"], "path": "/handover$"},),
    "start: reading the connection files": ({**STORE, "methods": ["GET"], "path": "/handover$"},),
    "start: keeping the clients' connection file": ({**STORE, "methods": ["PUT"], "path": "/client.json$"},),
    "start: letting clients and engines in": ({"service": "network", "methods": ["POST"], "path": "/security-group-rules"},),
}  # fmt: skip
STOP: dict[str, Requests] = {
    "stop: releasing the floating IP": ({**FLOATING, "methods": ["GET"]}, {**FLOATING, "methods": ["DELETE"]}),
}
AGENT = "start: the controller's agent hands the connection files over"
UNREAD = (AGENT, "start: keeping the clients' connection file")
KINDS = [kind for kind in requests.PASSING if kind.name != "malformed body"]
NONE_LEFT = {
    "NeutronError": {
        "type": "IpAddressGenerationFailure",
        "message": "No more IP addresses available on network public.",
        "detail": "",
    }
}


# -- what is done


def controller_of(bench: Bench) -> psutil.Process:
    """The first process of ipcontroller on its server."""
    found = [p for p in bench.processes() if "ipyparallel.controller" in p.cmdline()]
    (first,) = (p for p in found if p.ppid() not in {one.pid for one in found})
    return first


def controller_crashes(bench: Bench, row: Row) -> None:
    cluster = bench.started(on_server=row.on_server)
    before = controller_of(bench)
    before.kill()
    eventually(lambda: not before.is_running(), "its end")
    computes(cluster)
    cluster.stop_cluster_sync()


def part_of_controller_crashes(bench: Bench, row: Row) -> None:
    """A process that ipcontroller has started, and does not look after: its agent does."""
    cluster = bench.started(on_server=row.on_server)
    before = controller_of(bench)
    listening = {p.pid: p for p in before.children() if p.net_connections()}
    assert len(listening) > 5  # schedulers, and the heart monitor
    next(iter(listening.values())).kill()
    eventually(lambda: not before.is_running(), "its end")
    computes(cluster)
    cluster.stop_cluster_sync()


def replaced(bench: Bench, row: Row) -> None:
    bench.cloud.faults.set(*row.faults)
    cluster = bench.started(on_server={**(row.on_server or {}), **row.settings})
    bench.spent()
    assert [name for name in bench.cloud.servers() if name.endswith("-controller-0-1")]
    computes(cluster)
    cluster.stop_cluster_sync()


def engines_fail(bench: Bench, row: Row) -> None:
    """The controller is there until the stop, which takes its server."""
    bench.cloud.faults.set(*row.faults)
    cluster = bench.cluster(on_server=row.on_server, **row.settings)
    with pytest.raises(GriffinError) as raised:
        cluster.start_cluster_sync()
    bench.said.append(str(raised.value))
    bench.cloud.faults.clear()
    assert [name.rpartition("-controller-")[1] for name in bench.cloud.servers()] == ["-controller-"]
    cluster.stop_cluster_sync()


def server_is_lost(how: Mapping[str, Any]) -> Callable[[Bench, Row], None]:
    """The whole cluster goes: without it no engine is of use."""
    return lambda bench, row: _server_is_lost(bench, row, how)


def _server_is_lost(bench: Bench, row: Row, how: Mapping[str, Any]) -> None:
    cluster = bench.started(on_server=row.on_server)
    controller = cluster.controller
    bench.cloud.faults.set({**CONTROLLER, **how})
    eventually(lambda: controller.state == "after", "its launcher has ended", timeout=60)
    eventually(lambda: bench.cloud.left_over() == [], "nothing is left in the cloud")
    cluster.stop_cluster_sync()


def floating_ip_is_deleted(bench: Bench, row: Row) -> None:
    """Clients do not reach it any more: the engines can't be told, and go with their servers."""
    cluster = bench.started(on_server=row.on_server)
    with openstack.connect(cloud=bench.cloud.name) as connection:
        for floating in connection.network.ips():
            connection.network.delete_ip(floating)
    bench.stop(cluster)
    cluster.stop_cluster_sync()


def own_floating_ip(bench: Bench, row: Row) -> None:
    """One that was there before is there afterwards, and not attached."""
    with openstack.connect(cloud=bench.cloud.name) as connection:
        pool = next(network for network in connection.network.networks() if network.is_router_external)
        own = connection.network.create_ip(floating_network_id=pool.id)
        cluster = bench.started(on_server={"floating_ip": own.floating_ip_address})
        assert connection.network.get_ip(own.id).port_id
        bench.stop(cluster)
        assert connection.network.get_ip(own.id).port_id is None
        connection.network.delete_ip(own)
    cluster.stop_cluster_sync()


# -- the rows


def _passing() -> Iterator[Row]:
    for kind in KINDS:
        for stage, asked in {**START, **STOP}.items():
            run = start_and_stop if stage in START else stop_in_spite
            faults = requests.disturbed(asked, kind, _answer(kind, stage))
            slow = kind.name not in requests.QUICK_KINDS or stage in UNREAD
            yield Row(kind.name, stage, WORKS, run, faults=faults, on_server=REACHED, slow=slow)


def _answer(kind: Kind, stage: str) -> dict[str, Any]:
    answer = dict(kind.answer)
    if "delay" in answer and stage == AGENT:
        answer["delay"] = 31  # the agent's own time-out
    return answer


def _one(stage: str, which: int = -1, **answer: Any) -> Requests:
    return ({**{**START, **STOP}[stage][which], "count": 1, **answer},)


ALLOCATING, ATTACHING = "start: allocating the floating IP", "start: attaching the floating IP"
LETTING_IN, RELEASING = "start: letting clients and engines in", "stop: releasing the floating IP"
SERVER, RUNS = "start: the controller's server", "while the cluster runs"
HELD = [ALLOCATING, ATTACHING, "start: reading the connection files", LETTING_IN]
ROWS = (
    *_passing(),
    Row("403", ALLOCATING, FAILS, failing_start, requests.LACKS_ROLE, faults=_one(ALLOCATING, status=403), on_server=REACHED),
    Row("409: no address is left", ALLOCATING, FAILS, failing_start, "No floating IP is left on network public",
        faults=_one(ALLOCATING, status=409, body=NONE_LEFT), on_server=REACHED),
    Row("404: the floating IP was deleted behind our back", ATTACHING, FAILS, failing_start, "Can't attach floating IP …404",
        faults=_one(ATTACHING, status=404), on_server=REACHED),
    *(
        Row(f"{name}, though it was done", stage, WORKS, run, faults=_one(stage, after=True, **answer), on_server=REACHED, slow=slow)
        for stage, run, slow in ((ALLOCATING, start_and_stop, False), (ATTACHING, start_and_stop, True), (LETTING_IN, start_and_stop, True),
                                 (RELEASING, stop_in_spite, False))
        for name, answer in (("503", {"status": 503}), ("dropped connection", {"drop": True}))
    ),
    Row("404: it was deleted behind our back", RELEASING, WORKS, stop_in_spite, faults=_one(RELEASING, status=404, after=True), on_server=REACHED),
    Row("503 of network for good", RELEASING, SECOND_STOP, requests.stop_again, "Run the same stop again",
        faults=({**FLOATING, "methods": ["DELETE"], "status": 503},), on_server=REACHED, slow=True),
    Row("a server in ERROR", SERVER, WORKS + ": another one takes its place", replaced, f"{lives.FAULT}…takes its slot",
        faults=({**FIRST, "fail_build": lives.FAULTY, "count": 1},), on_server=REACHED),
    Row("all servers in ERROR", SERVER, FAILS, failing_start, lives.FAULT,
        faults=({**CONTROLLER, "fail_build": lives.FAULTY},), on_server={**REACHED, "max_replacements": 1}),
    Row("a silent server", SERVER, WORKS + ": another one takes its place", replaced, "within 1 s (agent_timeout)",
        faults=({**FIRST, "silent": True, "count": 1},), on_server=REACHED, settings={"agent_timeout": 1}),
    Row("a silent server, and no other", SERVER, FAILS, failing_start, "was not ready within 2 s",
        faults=({**CONTROLLER, "silent": True},), on_server={**REACHED, "start_timeout": 2}),
    Row("a server deleted behind our back", SERVER, WORKS + ": another one takes its place", replaced, "is gone: somebody deleted it",
        faults=({**FIRST, "vanish_after": 0, "count": 1},), on_server=REACHED),
    Row("the wrong Python", SERVER, FAILS, failing_start, "gave up: …/no-python-here is not there",
        on_server={**REACHED, "controller_python": "/no-python-here"}),
    Row("servers of engines in ERROR", "start: servers", FAILS, engines_fail, lives.FAULT,
        faults=({"server": "griffin-[0-9a-f]{12}-[0-9a-f]{8}-", "fail_build": lives.FAULTY},), on_server=REACHED, settings={"max_replacements": 1}),
    Row("a crashed ipcontroller", RUNS, WORKS + ": it is restarted on its server", controller_crashes, on_server=REACHED),
    Row("a crashed process of ipcontroller's", RUNS, WORKS + ": ipcontroller is restarted on its server", part_of_controller_crashes, on_server=REACHED, slow=True),
    Row("its server deleted behind our back", RUNS, "the cluster ends", server_is_lost({"vanish_after": 0}), "The controller's server is gone: stopped from elsewhere, or deleted.", on_server=REACHED),
    Row("its server shut off behind our back", RUNS, "the cluster ends, where a launcher watches it", server_is_lost({"shutoff_after": 0}), "it is off", on_server=REACHED),
    Row("its floating IP deleted behind our back", RUNS, "clients do not reach it; a stop ends it", floating_ip_is_deleted, on_server=REACHED),
    Row("a floating IP that was there before", RUNS, WORKS, own_floating_ip, left=f"{NOTHING}, but the floating IP", on_server={}),
    *(
        Row("SIGKILL to `ipcluster start`", stage, "nothing more: it is dead", processes.killed, left=AFTER_STOP,
            faults=_one(stage, delay=processes.HELD), on_server=REACHED, slow=True)
        for stage in HELD
    ),
    Row("SIGKILL to `ipcluster start`, and its machine is lost", ATTACHING, "`ps` shows it", processes.killed_and_ended_from_elsewhere,
        left=f"{NOTHING} in the cloud, after `ipp-griffin stop`", says="is gone: 1 server and its container…`ipcluster stop` removes its files",
        faults=_one(ATTACHING, delay=processes.HELD), on_server=REACHED, slow=True),
    Row("SIGKILL to `ipcluster start`", SERVER, "`reap` shows it, once its deadline is over", processes.killed_and_reaped,
        "never reported; its start was over at", f"{NOTHING} in the cloud, after `ipp-griffin reap`", on_server={**REACHED, "start_timeout": 6}, slow=True),
    Row("SIGKILL to `ipcluster start`", RUNS, WORKS + ": the cluster goes on", processes.killed_while_it_runs, left=AFTER_STOP, on_server=REACHED, slow=True),
    Row("SIGKILL to `ipcluster stop`", RELEASING, "nothing more: it is dead", processes.stop_is_killed, left=AFTER_STOP,
        faults=_one(RELEASING, delay=processes.HELD), on_server=REACHED, slow=True),
    *(
        Row(f"{name} to `ipcluster start`", stage, "it takes down what it made", processes.signalled(number, status=0, started=started),
            on_server=REACHED, slow=True)
        for name, number in (("Ctrl-C", signal.SIGINT), ("SIGTERM", signal.SIGTERM), ("SIGHUP", signal.SIGHUP))
        for stage, started in ((SERVER, False), (RUNS, True))
    ),
)  # fmt: skip
