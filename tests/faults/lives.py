"""What happens to servers, engines, agents and the controller, while a cluster starts and while it runs."""

from __future__ import annotations

import asyncio
import os
import resource
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import openstack
import psutil
import pytest

from ipp_griffin.common.errors import GriffinError, Stopped

from .bench import CLIENTS_PAUSE, Bench, computes, eventually, listed, uuids
from .requests import failing_set
from .row import FAILS, SECOND_STOP, WORKS, Row, Run, alone, on_one_cluster
from .stages import COMPUTE, START, STORE

ALL = {"server": ".*"}
RUNS_ON = "while it runs"


def controller_group(cluster: ipp.Cluster) -> int:
    return int(cluster.controller.pid)


def agents(bench: Bench) -> list[psutil.Process]:
    """The processes that run user-data."""
    found = [process for process in bench.processes() if any(a.endswith("/user-data") for a in process.cmdline())]
    assert found
    return found


# -- servers that are not as they should be


def replaced(bench: Bench, run: Run) -> None:
    """A server fails, and so does each that takes its slot, in another way, until one does not; that is lost when it has its engine."""
    *starting, running = run.rows
    faults = [fault for row in starting for fault in row.faults]
    for incarnation, fault in enumerate(faults):
        assert fault["server"] == (f"-0-{incarnation}$" if incarnation else "-0$")
    bench.cloud.faults.set(*faults)
    with bench.proving(*starting):
        cluster = bench.started(**SHORT, max_replacements=len(faults) + 1, **running.settings)
        bench.spent()
        _took_its_slot(bench, len(faults))
        computes(cluster)
    with bench.proving(running):
        _lose(bench, vanish_after=0)
        eventually(bench.cloud.servers, "another one")
        _took_its_slot(bench, len(faults) + 1)
        computes(cluster)
    cluster.stop_cluster_sync()


def _took_its_slot(bench: Bench, times: int) -> None:
    (name,) = bench.cloud.servers()
    assert name.endswith(f"-0-{times}")  # slot 0, incarnation
    assert sum("takes its slot" in text for text in bench.said) == times


def lands_twice(bench: Bench, row: Row) -> None:
    """The client has given up, listed the servers and asked again, when the first request is done."""
    with bench.impatient():
        bench.cloud.faults.set(*row.faults)
        cluster = bench.started()
        posts = ("compute", "POST", 202)
        eventually(
            lambda: [(s, m, n) for s, m, _, n in bench.cloud.running.requests].count(posts) == 2, "it lands, too"
        )
        eventually(lambda: any("created twice" in text for text in bench.said), "one too many is seen")
        eventually(lambda: len(bench.cloud.servers()) == 1, "and deleted")
        computes(cluster)
        cluster.stop_cluster_sync()


def stopped_while_it_waits(bench: Bench, row: Row) -> None:
    bench.cloud.faults.set(*row.faults)

    async def scene() -> None:
        cluster = bench.cluster()
        await cluster.start_controller()
        starting = asyncio.ensure_future(cluster.start_engines())
        while not bench.cloud.servers():
            await asyncio.sleep(0.05)
        await cluster.stop_cluster()
        with pytest.raises(Stopped) as raised:
            await starting
        bench.said.append(str(raised.value))

    asyncio.run(scene())


def quota_is_used_up(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    project = bench.cloud.running.state.projects[0]
    before, asked = project.quota_instances, len(bench.cloud.running.requests)
    project.quota_instances = 2
    with pytest.raises(GriffinError) as raised:
        cluster.start_engines_sync(n=3)
    project.quota_instances = before
    bench.said.append(str(raised.value))
    assert not [r for r in bench.cloud.running.requests[asked:] if r[:2] == ("compute", "POST")]
    assert bench.cloud.left_over() == []


def clock_is_off(hours: int, ends: bool = True) -> Callable[[Bench, ipp.Cluster, Row], None]:
    def run(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
        folder = bench.shell.folder / f"clock{hours}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(
            f"import time\nreal = time.time\ntime.time = lambda: real() + {3600 * hours}\n"
        )
        bench.cloud.faults.set({**ALL, "under": ["env", f"PYTHONPATH={folder}"]})
        cluster.start_engines_sync(environment={"PYTHONPATH": str(folder)})
        bench.cloud.faults.clear()
        with cluster.connect_client_sync() as rc:
            (off,) = rc[:].apply_sync(time.time)
        assert abs(off - time.time() - 3600 * hours) < 600
        if ends:
            end_set(bench, cluster)

    return run


def controller_dies(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    """While an engine set waits for a server that takes long to come."""
    bench.cloud.faults.set(*row.faults)
    bench.once_said("0 of 1 engines connected", lambda: os.killpg(controller_group(cluster), signal.SIGKILL))
    with pytest.raises(GriffinError) as raised:
        cluster.start_engines_sync()
    bench.said.append(str(raised.value))
    bench.cloud.faults.clear()
    assert bench.cloud.left_over() == []


def end_set(bench: Bench, cluster: ipp.Cluster) -> None:
    """Stop the engine set; of a cluster with a controller beside its user, nothing is left in the cloud then."""
    cluster.stop_engines_sync()
    assert bench.cloud.left_over() == []
    eventually(lambda: not listed(cluster), "no engine is listed any more", pause=CLIENTS_PAUSE)


def with_python(write: Callable[[Path], Path]) -> Callable[[Bench, ipp.Cluster, Row], None]:
    """The start fails with the Python that ``write`` puts into a folder."""
    return lambda bench, cluster, row: failing_set(
        bench, cluster, row.having(engine_python=str(write(bench.shell.folder)))
    )


def _program(path: Path, line: str) -> Path:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


def missing_python(folder: Path) -> Path:
    return folder / "no-python-here"


def bare_python(folder: Path) -> Path:
    return _program(folder / "bare-python", f'exec {shlex.quote(sys._base_executable)} -S -E "$@"')


def python_with_another_ipyparallel(folder: Path) -> Path:
    """Its metadata says so, which is all that the agent asks for."""
    info = folder / "site" / "ipyparallel-8.8.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ipyparallel\nVersion: 8.8.0\n")
    (folder / "site" / "ipyparallel").mkdir()
    (folder / "site" / "ipyparallel" / "__init__.py").write_text("__version__ = '8.8.0'\n")
    return _program(
        folder / "python", f'PYTHONPATH={shlex.quote(str(folder / "site"))} exec {shlex.quote(sys.executable)} "$@"'
    )


# -- while it runs: an engine set of three, of which the steps leave less and less


def slow_servers(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    bench.cloud.faults.set(*row.faults)
    cluster.start_engines_sync(n=3)
    bench.spent()
    computes(cluster, 3)


def engine_crashes(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    with cluster.connect_client_sync() as rc:
        before = uuids(rc)
        rc[0].apply_async(os.kill, rc[0].apply_sync(os.getpid), signal.SIGKILL)
        eventually(lambda: uuids(rc) - before, "another engine")
        (second,) = uuids(rc) - before
    # The hub refuses a uuid that was in use: all is the same but the generation.
    (first,) = (uuid for uuid in before if uuid.rpartition("-")[0] == second.rpartition("-")[0])
    assert (first[-1], second[-1]) == ("0", "1")
    computes(cluster, 3)


def server_is_deleted(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    _lose(bench, vanish_after=0)
    computes(cluster, 2)


def server_is_shut_off(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    _lose(bench, shutoff_after=0)
    computes(cluster, 1)


def _lose(bench: Bench, **how: Any) -> None:
    """A server, in this way; that is told."""
    lost, told = min(bench.cloud.servers()), len(bench.said)
    bench.cloud.faults.set({"server": f"{lost}$", **how})
    eventually(lambda: any(lost in text for text in bench.said[told:]), "that is told")
    bench.cloud.faults.clear()


def server_reboots(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    (id,) = (server["id"] for server in bench.cloud.running.servers() if server["status"] == "ACTIVE")
    with cluster.connect_client_sync() as rc:
        before = uuids(rc)
        with openstack.connect(cloud=bench.cloud.name) as connection:
            connection.compute.reboot_server(id, "HARD")
        eventually(lambda: uuids(rc) - before, "its engine, under another uuid")
    computes(cluster)


def disk_fills(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    """No process of the server can write into any file any more: EFBIG stands for ENOSPC."""
    with cluster.connect_client_sync() as rc:
        pid = rc[rc.ids[0]].apply_sync(os.getpid)
    for process in agents(bench):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))
    computes(cluster)


def agent_is_killed(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    for process in agents(bench):
        process.kill()
    computes(cluster)


def controller_is_killed_and_the_stop_is_elsewhere(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    """By another process of this machine, from the cluster file."""
    os.killpg(controller_group(cluster), signal.SIGKILL)
    bench.stop(cluster)
    assert bench.cloud.left_over() == []


# -- while it runs: others


def controller_is_killed(bench: Bench, row: Row) -> None:
    cluster = bench.started()
    os.killpg(controller_group(cluster), signal.SIGKILL)
    cluster.stop_cluster_sync()


def all_servers_are_deleted(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    launcher = list(cluster.engines.values())[-1]
    bench.cloud.faults.set({**ALL, "vanish_after": 0})
    eventually(lambda: launcher.state == "after", "the set has ended")
    bench.cloud.faults.clear()
    end_set(bench, cluster)


def store_is_down(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    """When an engine crashes: it is restarted all the same, though its agent can tell nobody."""
    cluster.start_engines_sync()
    bench.cloud.faults.set(*row.faults)
    with cluster.connect_client_sync() as rc:
        before = uuids(rc)
        rc[:].apply_async(os.kill, rc[0].apply_sync(os.getpid), signal.SIGKILL)
        eventually(lambda: uuids(rc) - before, "another engine")
    bench.cloud.faults.clear()
    computes(cluster)


def compute_is_down(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    bench.cloud.faults.set(*row.faults)
    eventually(lambda: any("Can't list the servers now" in text for text in bench.said), "it is told")
    (launcher,) = cluster.engines.values()
    assert launcher.state == "running"
    computes(cluster)
    bench.cloud.faults.clear()


# -- at the stop


def server_is_locked(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    (server,) = bench.cloud.running.servers()
    with openstack.connect(cloud=bench.cloud.name) as connection:
        connection.compute.lock_server(server["id"])
        with pytest.raises(GriffinError) as raised:
            bench.stop(cluster, stop_timeout=1)
        bench.said.append(str(raised.value))
        connection.compute.unlock_server(server["id"])
    bench.stop(cluster)


FAULTY = "No valid host was found."
FAULT = "went to ERROR: …No valid host was found"
SHORT = {"build_timeout": 4, "agent_timeout": 4}  # seconds: a quiet machine needs 0.3
REPLACED = WORKS + ": another server takes its slot"
GIVES_UP = "gave up: …/no-python-here is not there"
SERVERS, SERVER, CREATING = "start: servers", "start: the server", "start: creating the server"
RUNS = (
    Run("servers fail, one in the place of the other", (
        Row("a server in ERROR", SERVERS, REPLACED, f"Server griffin-… (building) {FAULT}…It is deleted, and griffin-… takes its slot.",
            faults=({"server": "-0$", "fail_build": FAULTY, "count": 1},)),
        Row("a silent server", SERVERS, REPLACED, "never reported (can it reach the object store?) within 4 s (agent_timeout)…The end of griffin-…'s console",
            faults=({"server": "-0-1$", "silent": True, "count": 1},)),
        Row("a server that stays in BUILD", SERVERS, REPLACED, "within 4 s (build_timeout)",
            faults=({"server": "-0-2$", "stuck": True, "count": 1},)),
        Row("a server deleted behind our back", SERVERS, REPLACED, "is gone: somebody deleted it",
            faults=({"server": "-0-3$", "vanish_after": 0, "count": 1},)),
        Row("a server shut off behind our back", SERVERS, REPLACED, "it is off",
            faults=({"server": "-0-4$", "shutoff_after": 0, "silent": True, "count": 1},)),
        Row("a server deleted behind our back, with `replace`", RUNS_ON, REPLACED, "is gone: somebody deleted it…takes its slot",
            settings={"replace": True}),
    ), replaced),
    alone(Row("no answer, but the request is carried out after it was repeated", CREATING, WORKS + ": one of the two servers is deleted",
        "deleting servers that were created twice", faults=({**START[CREATING][0], "delay": 4, "late": True, "count": 1},)), lands_twice, slow=True),
    on_one_cluster("servers that are not as they should be",
        (Row("all servers in ERROR", SERVERS, FAILS, f"Each of the servers griffin-… (building) {FAULT}",
            faults=({**ALL, "fail_build": FAULTY},), settings={"max_replacements": 1}), failing_set),
        (Row("silent servers", SERVERS, FAILS, "Only 0 of 1 engines connected within 4 s; servers: 1 active. Never reported: griffin-",
            faults=({**ALL, "silent": True},), settings={"start_timeout": 4}), failing_set),
        (Row("a quota that is too small", "start: look-ups", FAILS, "needs 3 instances, but 0 of 2 are used"), quota_is_used_up),
        (Row("a full disk", SERVER, FAILS, "File too large", faults=({**ALL, "under": ["prlimit", "--fsize=0"]},)), failing_set),
        (Row("the wrong Python", SERVER, FAILS, GIVES_UP), with_python(missing_python)),
        (Row("another version of ipyparallel", SERVER, FAILS, "this server has ipyparallel 8.8.0 of …, the client has …Install that version in the image"),
            with_python(python_with_another_ipyparallel)),
        (Row("a clock an hour ahead", SERVER, WORKS), clock_is_off(1)),
        (Row("a clock an hour behind", SERVER, WORKS), clock_is_off(-1, ends=False)),
        (Row("all servers deleted behind our back", RUNS_ON, "the engine set ends", "All servers of this engine set are gone"), all_servers_are_deleted),
        (Row("a killed controller", SERVERS, FAILS, "The controller ended while engines were starting", faults=({**ALL, "stuck": True},)), controller_dies),
    ),
    on_one_cluster("no ipyparallel, and no way to install it",
        (Row("no ipyparallel, and no way to install it", SERVER, FAILS, "gave up: …ipyparallel", settings={"pip_args": ["--no-index"]}), with_python(bare_python)),
        slow=True),
    alone(Row("`stop()` while `start()` waits", SERVERS, FAILS, "The engine set was stopped while it was starting.",
        faults=({**ALL, "stuck": True},)), stopped_while_it_waits),
    on_one_cluster("while it runs",
        (Row("a slow server", SERVERS, WORKS + ", but later", faults=({**ALL, "boot_time": 3, "count": 3},)), slow_servers),
        (Row("a crashed engine", RUNS_ON, WORKS + ": it is restarted on its server"), engine_crashes),
        (Row("a server deleted behind our back", RUNS_ON, "its engines are missing", "is gone: somebody deleted it"), server_is_deleted),
        (Row("a server shut off behind our back", RUNS_ON, "its engines are missing", "it is off"), server_is_shut_off),
        (Row("a reboot", RUNS_ON, WORKS + ": its engines come back"), server_reboots),
        (Row("a full disk", RUNS_ON, WORKS), disk_fills),
        (Row("a killed agent", RUNS_ON, WORKS + ": its engines keep running"), agent_is_killed),
        (Row("a killed controller, and a stop from another process", RUNS_ON, "tasks fail; a stop cleans up"), controller_is_killed_and_the_stop_is_elsewhere),
    ),
    alone(Row("a killed controller", RUNS_ON, "tasks fail; a stop cleans up"), controller_is_killed, slow=True, needs=()),
    on_one_cluster("outages while it runs, and a stop that fails",
        (Row("503 of the object store, and a crashed engine", RUNS_ON, WORKS, faults=({**STORE, "status": 503},)), store_is_down),
        (Row("503 of compute", RUNS_ON, WORKS, "Can't list the servers now; will retry", faults=({**COMPUTE, "status": 503},)), compute_is_down),
        (Row("a locked server", "stop: deleting the server", SECOND_STOP, "Servers that may still be there"), server_is_locked),
        slow=True),
)  # fmt: skip
