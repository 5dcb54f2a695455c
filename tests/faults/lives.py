"""What happens to servers, engines, agents and the controller, while a cluster starts and while it runs."""

from __future__ import annotations

import asyncio
import os
import resource
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import ipyparallel as ipp
import openstack
import psutil
import pytest

from ipp_griffin.plan import GriffinError, Stopped

from .bench import Bench, eventually
from .requests import failing_start, start_and_stop
from .row import FAILS, SECOND_STOP, WORKS, Row

ALL = {"server": ".*"}
FIRST = {"server": "-0$"}
RUNS = "while it runs"


# -- how engines and servers are looked at


def uuids(rc: ipp.Client) -> set[str]:
    """Of the engines that the controller lists: they name set, slot, incarnation, engine and generation."""
    _ = rc.ids
    return set(rc._engines.values())


def computes(cluster: ipp.Cluster, n: int = 1) -> None:
    """Fail unless ``n`` engines do what they are asked, soon."""
    eventually(lambda: _computes(cluster, n), f"{n} engines that answer")


def _computes(cluster: ipp.Cluster, n: int) -> bool:
    """A new Client for each look: one that waits can miss what changes while it connects, for ever."""
    with cluster.connect_client_sync() as rc:
        return len(rc.ids) == n and _answers(rc)


def _answers(rc: ipp.Client) -> bool:
    try:
        return bool(rc[:].apply_async(os.getpid).get(timeout=5))
    except Exception:  # an engine that was listed and has died since
        return False


def controller_group(cluster: ipp.Cluster) -> int:
    return int(cluster.controller.pid)


def agents(bench: Bench) -> list[psutil.Process]:
    """The processes that run user-data."""
    found = [process for process in bench.processes() if any(a.endswith("/user-data") for a in process.cmdline())]
    assert found
    return found


def server_id(bench: Bench) -> str:
    (server,) = bench.cloud.running.servers()
    return str(server["id"])


def once_it_waits(bench: Bench, do: Callable[[], None]) -> threading.Thread:
    """``do``, beside a start, as soon as that waits for engines."""

    def wait_and_do() -> None:
        eventually(lambda: any("0 of 1 engines connected" in text for text in bench.said), "it waits")
        do()

    thread = threading.Thread(target=wait_and_do, daemon=True)
    thread.start()
    return thread


# -- during the start


def replaced(bench: Bench, row: Row) -> None:
    bench.cloud.faults.set(*row.faults)
    cluster = bench.started(**row.settings)
    bench.spent()
    (name,) = bench.cloud.servers()
    assert name.endswith("-0-1")  # slot 0, incarnation 1
    assert sum("takes its slot" in text for text in bench.said) == 1
    computes(cluster)
    cluster.stop_cluster_sync()


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


def controller_dies_during_the_start(bench: Bench, row: Row) -> None:
    bench.cloud.faults.set({**ALL, "boot_time": 2})
    cluster = bench.cluster()
    cluster.start_controller_sync()
    group = controller_group(cluster)
    thread = once_it_waits(bench, lambda: os.killpg(group, signal.SIGKILL))
    with pytest.raises(GriffinError) as raised:
        cluster.start_engines_sync()
    thread.join()
    bench.said.append(str(raised.value))
    assert bench.cloud.left_over() == []
    cluster.stop_cluster_sync()


def stopped_during_the_start(bench: Bench, row: Row) -> None:
    bench.cloud.faults.set({**ALL, "stuck": True})

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


def quota_is_used_up(bench: Bench, row: Row) -> None:
    os.environ["OS_CLOUD"] = f"{bench.cloud.name}-tiny"  # the fixture of the cloud puts it back
    cluster = bench.cluster(n=3)
    with pytest.raises(GriffinError) as raised:
        cluster.start_cluster_sync()
    bench.said.append(str(raised.value))
    assert not [r for r in bench.cloud.running.requests if r[:2] == ("compute", "POST")]
    cluster.stop_cluster_sync()


def clock_is_off(hours: int) -> Callable[[Bench, Row], None]:
    def run(bench: Bench, row: Row) -> None:
        folder = bench.shell.folder / "clock"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(
            f"import time\nreal = time.time\ntime.time = lambda: real() + {3600 * hours}\n"
        )
        bench.cloud.faults.set({**ALL, "under": ["env", f"PYTHONPATH={folder}"]})
        cluster = bench.started(environment={"PYTHONPATH": str(folder)})
        with cluster.connect_client_sync() as rc:
            (off,) = rc[:].apply_sync(time.time)
        assert abs(off - time.time() - 3600 * hours) < 60
        cluster.stop_cluster_sync()

    return run


def with_python(write: Callable[[Path], Path]) -> Callable[[Bench, Row], None]:
    """The start fails with the Python that ``write`` puts into a folder."""

    def run(bench: Bench, row: Row) -> None:
        python = write(bench.shell.folder)
        failing_start(bench, _with(row, engine_python=str(python)))

    return run


def _with(row: Row, **settings: object) -> Row:
    from dataclasses import replace

    return replace(row, settings={**row.settings, **settings})


def _program(path: Path, line: str) -> Path:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
    return path


def missing_python(folder: Path) -> Path:
    return folder / "no-python-here"


def bare_python(folder: Path) -> Path:
    return _program(folder / "python", f'exec {shlex.quote(sys._base_executable)} -S -E "$@"')


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


# -- while it runs


def engine_crashes(bench: Bench, row: Row) -> None:
    cluster = bench.started()
    with cluster.connect_client_sync() as rc:
        (first,) = uuids(rc)
        rc[:].apply_async(os.kill, rc[0].apply_sync(os.getpid), signal.SIGKILL)
        eventually(lambda: uuids(rc) - {first}, "another engine")
        (second,) = uuids(rc) - {first}
    # The hub refuses a uuid that was in use: all is the same but the generation.
    assert (first.rpartition("-")[0], first[-1], second[-1]) == (second.rpartition("-")[0], "0", "1")
    computes(cluster)
    cluster.stop_cluster_sync()


def agent_is_killed(bench: Bench, row: Row) -> None:
    cluster = bench.started()
    for process in agents(bench):
        process.kill()
    computes(cluster)
    cluster.stop_cluster_sync()


def controller_is_killed(bench: Bench, row: Row) -> None:
    cluster = bench.started()
    os.killpg(controller_group(cluster), signal.SIGKILL)
    cluster.stop_cluster_sync()


def controller_is_killed_and_the_stop_is_elsewhere(bench: Bench, row: Row) -> None:
    """By another process of this machine, from the cluster file."""
    cluster = bench.started()
    os.killpg(controller_group(cluster), signal.SIGKILL)
    bench.stop(cluster)
    assert bench.cloud.left_over() == []
    cluster.stop_cluster_sync()


def server_reboots(bench: Bench, row: Row) -> None:
    cluster = bench.started()
    with cluster.connect_client_sync() as rc:
        before = uuids(rc)
        with openstack.connect(cloud=bench.cloud.name) as connection:
            connection.compute.reboot_server(server_id(bench), "HARD")
        eventually(lambda: uuids(rc) - before, "its engine, under another uuid", timeout=60)
    computes(cluster)
    cluster.stop_cluster_sync()


def server_is_deleted(bench: Bench, row: Row) -> None:
    cluster = bench.started(n=2, **row.settings)
    lost = sorted(bench.cloud.servers())[0]
    bench.cloud.faults.set({"server": f"{lost}$", "vanish_after": 0})
    eventually(lambda: lost not in bench.cloud.servers(), "it is gone")
    eventually(lambda: any(lost in text for text in bench.said), "that is told")
    computes(cluster, 2 if row.settings.get("replace") else 1)
    cluster.stop_cluster_sync()


def server_is_shut_off(bench: Bench, row: Row) -> None:
    cluster = bench.started(n=2)
    lost = sorted(bench.cloud.servers())[0]
    bench.cloud.faults.set({"server": f"{lost}$", "shutoff_after": 0})
    eventually(lambda: any(lost in text for text in bench.said), "that is told")
    computes(cluster)
    cluster.stop_cluster_sync()


def all_servers_are_deleted(bench: Bench, row: Row) -> None:
    cluster = bench.started()
    (launcher,) = cluster.engines.values()
    bench.cloud.faults.set({**ALL, "vanish_after": 0})
    eventually(lambda: launcher.state == "after", "the set has ended")
    cluster.stop_cluster_sync()


def disk_fills(bench: Bench, row: Row) -> None:
    """No process of the server can write into any file any more: EFBIG stands for ENOSPC."""
    cluster = bench.started()
    with cluster.connect_client_sync() as rc:
        pid = rc[0].apply_sync(os.getpid)
    for process in agents(bench):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))
    computes(cluster)
    cluster.stop_cluster_sync()


def store_is_down(bench: Bench, row: Row) -> None:
    """When an engine crashes: it is restarted all the same, though its agent can tell nobody."""
    cluster = bench.started()
    bench.cloud.faults.set(*row.faults)
    with cluster.connect_client_sync() as rc:
        before = uuids(rc)
        rc[:].apply_async(os.kill, rc[0].apply_sync(os.getpid), signal.SIGKILL)
        eventually(lambda: uuids(rc) - before, "another engine", timeout=60)
    bench.cloud.faults.clear()
    computes(cluster)
    cluster.stop_cluster_sync()


def compute_is_down(bench: Bench, row: Row) -> None:
    cluster = bench.started()
    bench.cloud.faults.set(*row.faults)
    eventually(lambda: any("Can't look at the servers now" in text for text in bench.said), "it is told", timeout=60)
    (launcher,) = cluster.engines.values()
    assert launcher.state == "running"
    computes(cluster)
    bench.cloud.faults.clear()
    cluster.stop_cluster_sync()


# -- at the stop


def locked_server(bench: Bench, row: Row) -> None:
    cluster = bench.started(stop_timeout=1)
    with openstack.connect(cloud=bench.cloud.name) as connection:
        connection.compute.lock_server(server_id(bench))
        with pytest.raises(GriffinError) as raised:
            bench.stop(cluster)
        bench.said.append(str(raised.value))
        connection.compute.unlock_server(server_id(bench))
    bench.stop(cluster)
    cluster.stop_cluster_sync()


FAULTY = "No valid host was found."
FAULT = "went to ERROR: …No valid host was found"
ROWS = (
    Row("a server in ERROR", "start: servers", WORKS + ": another one takes its slot", replaced,
        f"Server griffin-… (building) {FAULT}…It is deleted, and griffin-… takes its slot.",
        faults=({**FIRST, "fail_build": FAULTY, "count": 1},)),
    Row("all servers in ERROR", "start: servers", FAILS, failing_start, f"Each of the servers griffin-… (building) {FAULT}",
        faults=({**ALL, "fail_build": FAULTY},), settings={"max_replacements": 1}),
    Row("a silent server", "start: servers", WORKS + ": another one takes its slot", replaced,
        "never reported (can it reach the object store?) within 1 s (agent_timeout)…The end of griffin-…'s console",
        faults=({**FIRST, "silent": True, "count": 1},), settings={"agent_timeout": 1}),
    Row("silent servers", "start: servers", FAILS, failing_start,
        "Only 0 of 1 engines connected within 2 s; servers: 1 active. Never reported: griffin-",
        faults=({**ALL, "silent": True},), settings={"start_timeout": 2}),
    Row("a server that stays in BUILD", "start: servers", WORKS + ": another one takes its slot", replaced,
        "within 1 s (build_timeout)", faults=({**FIRST, "stuck": True, "count": 1},), settings={"build_timeout": 1}),
    Row("a slow server", "start: servers", WORKS + ", later", start_and_stop,
        faults=({**ALL, "boot_time": 3, "count": 1},)),
    Row("a server deleted behind our back", "start: servers", WORKS + ": another one takes its slot", replaced,
        "is gone: somebody deleted it", faults=({**FIRST, "vanish_after": 0, "count": 1},)),
    Row("a server shut off behind our back", "start: servers", WORKS + ": another one takes its slot", replaced,
        "it is off", faults=({**FIRST, "shutoff_after": 0, "silent": True, "count": 1},)),
    Row("no answer, and it is done after all, when it was asked for again", "start: creating the server", WORKS + ": one of the two servers is deleted",
        lands_twice, "deleting servers that were created twice", needs=("devcloud",),
        faults=({"service": "compute", "methods": ["POST"], "path": "/servers$", "delay": 4, "late": True, "count": 1},)),
    Row("a killed controller", "start: servers", FAILS, controller_dies_during_the_start,
        "The controller ended while engines were starting"),
    Row("`stop()` while `start()` waits", "start: servers", FAILS, stopped_during_the_start,
        "The engine set was stopped while it was starting."),
    Row("a quota that is too small", "start: look-ups", FAILS, quota_is_used_up, "needs 3 instances, but 0 of 2 are used"),
    Row("a disk that is full", "start: the server", FAILS, failing_start, "File too large",
        faults=({**ALL, "under": ["prlimit", "--fsize=0"]},)),
    Row("a clock an hour ahead", "start: the server", WORKS, clock_is_off(1)),
    Row("a clock an hour behind", "start: the server", WORKS, clock_is_off(-1)),
    Row("the wrong Python", "start: the server", FAILS, with_python(missing_python),
        "gave up: engine_python …/no-python-here is not there"),
    Row("no ipyparallel, and none to be had", "start: the server", FAILS, with_python(bare_python), "gave up: …ipyparallel",
        settings={"pip_args": ["--no-index"]}, slow=True),
    Row("another version of ipyparallel", "start: the server", FAILS, with_python(python_with_another_ipyparallel),
        "this server has ipyparallel 8.8.0 of …, the client has …Install that version in the image"),
    Row("a crashed engine", RUNS, WORKS + ": it is restarted on its server", engine_crashes),
    Row("a killed agent", RUNS, WORKS + ": its engines go on", agent_is_killed),
    Row("a killed controller", RUNS, "tasks fail; a stop ends it", controller_is_killed, needs=()),
    Row("a killed controller, and a stop from another process", RUNS, "tasks fail; a stop ends it",
        controller_is_killed_and_the_stop_is_elsewhere),
    Row("a reboot", RUNS, WORKS + ": its engines come back", server_reboots),
    Row("a server deleted behind our back", RUNS, "its engines are missing", server_is_deleted, "is gone: somebody deleted it"),
    Row("a server deleted behind our back, with `replace`", RUNS, WORKS + ": another one takes its slot", server_is_deleted,
        "is gone: somebody deleted it…takes its slot", settings={"replace": True}),
    Row("a server shut off behind our back", RUNS, "its engines are missing", server_is_shut_off, "it is off"),
    Row("all servers deleted behind our back", RUNS, "the engine set ends", all_servers_are_deleted, "All servers of this engine set are gone"),
    Row("a disk that is full", RUNS, WORKS, disk_fills),
    Row("503 of the object store, and a crashed engine", RUNS, WORKS, store_is_down,
        faults=({"service": "object-store", "status": 503},), slow=True),
    Row("503 of compute", RUNS, WORKS, compute_is_down, "Can't look at the servers now, will go on trying",
        faults=({"service": "compute", "status": 503},), slow=True),
    Row("a locked server", "stop: deleting the server", SECOND_STOP, locked_server, "Servers that may still be there", slow=True),
)  # fmt: skip
