"""The controller on a server, with a floating IP: what ends its start, what its servers do, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipyparallel as ipp
import openstack
import psutil

from . import lives, processes, requests
from .bench import Bench, computes, eventually
from .matrix import GONE, REACHED, RELEASING, SERVER_RUNS, marks, met
from .processes import AFTER_STOP, DEAD, START_COMMAND, STOPPING, ended_by, held, killed_at
from .requests import failing_set, failing_start, one
from .row import FAILS, NOTHING, SECOND_STOP, WORKS, Row, Run, alone, on_one_cluster, one_by_one
from .stages import FLOATING

CONTROLLER = {"server": "-controller-"}
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


def controller_crashes(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    """Its engines come back to it."""
    cluster.start_engines_sync()
    before = controller_of(bench)
    before.kill()
    eventually(lambda: not before.is_running(), "its end")
    computes(cluster)


def part_of_controller_crashes(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    """A process that ipcontroller has started, and does not look after: its agent does."""
    cluster.start_engines_sync()
    before = controller_of(bench)
    listening = {p.pid: p for p in before.children() if p.net_connections()}
    assert len(listening) > 5  # schedulers, and the heart monitor
    next(iter(listening.values())).kill()
    eventually(lambda: not before.is_running(), "its end")
    computes(cluster)


def server_is_lost(how: Mapping[str, Any]) -> Callable[[Bench, ipp.Cluster, Row], None]:
    """The whole cluster goes: without it no engine is of use."""

    def run(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
        assert len(bench.cloud.servers()) == 2
        controller = cluster.controller
        bench.cloud.faults.set({**CONTROLLER, **how})
        eventually(lambda: controller.state == "after", "its launcher has ended")
        eventually(lambda: bench.cloud.left_over() == [], "nothing is left in the cloud")
        bench.cloud.faults.clear()

    return run


def replaced(bench: Bench, run: Run) -> None:
    """The controller's server fails, and so does each that takes its place, in another way, until one does not. Then a stop, at which
    somebody else has deleted the floating IP just before."""
    *failing, stop = run.rows
    faults = [fault for row in failing for fault in row.faults]
    for incarnation, fault in enumerate(faults):
        assert fault["server"] == f"-controller-0-{incarnation}$" if incarnation else "-controller-0$"
    bench.cloud.faults.set(*faults)
    with bench.proving(*failing):
        cluster = bench.started(on_server={**REACHED, **lives.SHORT, "max_replacements": len(faults)})
        bench.spent()
        assert [name for name in bench.cloud.servers() if name.endswith(f"-controller-0-{len(faults)}")]
        computes(cluster)
    with bench.proving(stop), met(bench, [stop]):
        bench.stop(cluster)
        assert bench.cloud.left_over() == []
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
        cluster = bench.with_controller({"floating_ip": own.floating_ip_address})
        with cluster.connect_client_sync() as rc:
            assert rc.ids == []  # it answers
        assert connection.network.get_ip(own.id).port_id
        bench.stop(cluster)
        assert connection.network.get_ip(own.id).port_id is None
        connection.network.delete_ip(own)
    cluster.stop_cluster_sync()


# -- the rows

ALLOCATING, ATTACHING = "start: allocating the floating IP", "start: attaching the floating IP"
READING, LETTING_IN = "start: reading the connection files", "start: admitting clients and engines"
SERVER, RUNS_ON = "start: the controller's server", "while the cluster runs"
REPLACED = WORKS + ": another server takes its slot"
OF_ENGINES = "griffin-[0-9a-f]{12}-[0-9a-f]{8}-"
RUNS = (
    *SERVER_RUNS,
    one_by_one("what ends its start", *(
        (row, failing_start) for row in (
            Row("403", ALLOCATING, FAILS, requests.LACKS_ROLE, faults=one(ALLOCATING, status=403), on_server=REACHED),
            Row("409: no address is left", ALLOCATING, FAILS, "No floating IP is left on network public",
                faults=one(ALLOCATING, status=409, body=NONE_LEFT), on_server=REACHED),
            Row("404: the floating IP was deleted behind our back", ATTACHING, FAILS, "Can't attach floating IP …404",
                faults=one(ATTACHING, status=404), on_server=REACHED),
            Row("all servers in ERROR", SERVER, FAILS, lives.FAULT,
                faults=({**CONTROLLER, "fail_build": lives.FAULTY},), on_server={**REACHED, "max_replacements": 1}),
            Row("a silent server, and no other", SERVER, FAILS, "was not ready within 2 s",
                faults=({**CONTROLLER, "silent": True},), on_server={**REACHED, "start_timeout": 2}),
            Row("the wrong Python", SERVER, FAILS, lives.GIVES_UP, on_server={**REACHED, "controller_python": "/no-python-here"}),
        )
    )),
    Run("its servers fail, one in the place of the other", (
        Row("a server in ERROR", SERVER, REPLACED, f"{lives.FAULT}…takes its slot",
            faults=({"server": "-controller-0$", "fail_build": lives.FAULTY, "count": 1},), on_server=REACHED),
        Row("a silent server", SERVER, REPLACED, "within 4 s (agent_timeout)",
            faults=({"server": "-controller-0-1$", "silent": True, "count": 1},), on_server=REACHED),
        Row("a server deleted behind our back", SERVER, REPLACED, "is gone: somebody deleted it",
            faults=({"server": "-controller-0-2$", "vanish_after": 0, "count": 1},), on_server=REACHED),
        *marks(GONE, [RELEASING], on_server=REACHED),
    ), replaced),
    on_one_cluster("while it runs",
        (Row("servers of engines in ERROR", "start: servers", FAILS, lives.FAULT,
            faults=({"server": OF_ENGINES, "fail_build": lives.FAULTY},), on_server=REACHED, settings={"max_replacements": 1}), failing_set),
        (Row("a crashed ipcontroller", RUNS_ON, WORKS + ": it is restarted on its server", on_server=REACHED), controller_crashes),
        (Row("its server deleted behind our back", RUNS_ON, "the cluster ends", "The controller's server is gone: stopped from elsewhere, or deleted.",
            on_server=REACHED), server_is_lost({"vanish_after": 0})),
        on_server=REACHED),
    on_one_cluster("while a part of it crashes",
        (Row("a crashed process of ipcontroller", RUNS_ON, WORKS + ": ipcontroller is restarted on its server", on_server=REACHED), part_of_controller_crashes),
        (Row("its server shut off behind our back", RUNS_ON, "the cluster ends, if a launcher watches it", "it is off", on_server=REACHED),
            server_is_lost({"shutoff_after": 0})),
        on_server=REACHED, slow=True),
    alone(Row("its floating IP deleted behind our back", RUNS_ON, "clients can't reach it; a stop cleans up", on_server=REACHED),
        floating_ip_is_deleted, slow=True),
    alone(Row("a floating IP that the project already had", RUNS_ON, WORKS, left="only that floating IP", on_server={}), own_floating_ip),
    alone(Row("503 of network for good", RELEASING, SECOND_STOP, "Run the same stop again",
        faults=({**FLOATING, "methods": ["DELETE"], "status": 503},), on_server=REACHED), requests.stop_again, slow=True),
    *(killed_at(stage, on_server=REACHED) for stage in (ALLOCATING, ATTACHING, READING, LETTING_IN)),
    alone(Row(f"{START_COMMAND}, and its machine is lost", ATTACHING, "`ps` shows it", "is gone: 1 server and its container…`ipcluster stop` removes its files",
        f"{NOTHING} in the cloud, after `ipp-griffin stop`", held(ATTACHING), on_server=REACHED), processes.killed_and_ended_from_elsewhere, slow=True),
    alone(Row(START_COMMAND, SERVER, "`reap` shows it after its deadline", processes.REAPED, processes.AFTER_REAP,
        on_server={**REACHED, "start_timeout": 15}), processes.killed_and_reaped, slow=True),
    Run("its start is killed, and a stop of it", (
        Row(START_COMMAND, RUNS_ON, WORKS + ": the cluster keeps running", left=AFTER_STOP, on_server=REACHED),
        Row(STOPPING, RELEASING, DEAD, left=AFTER_STOP, faults=held(RELEASING), on_server=REACHED),
    ), processes.killed_and_then_its_stop, slow=True),
    *(ended_by(*signal, stage, started, on_server=REACHED)
        for signal in processes.SIGNALS for stage, started in ((SERVER, False), (RUNS_ON, True))),
)  # fmt: skip
