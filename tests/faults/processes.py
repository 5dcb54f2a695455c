"""The process of a user dies, or is told to end: `ipcluster`, at each stage, and what ends what it left."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from .bench import CLIENTS_PAUSE, Bench, eventually
from .requests import one
from .row import NOTHING, WORKS, Row, Run, alone
from .stages import START

STOP_COMMAND = ("ipcluster", "stop", "--profile=griffin")
HELD = 60  # seconds that a request is held: longer than its process lives
SILENT = {"server": ".*", "silent": True}
AFTER_STOP = f"{NOTHING}, after `ipcluster stop`"
RUNNING = "while it runs"


def options(row: Row) -> list[str]:
    of_engines = [f"--GriffinEngineSetLauncher.{name}={value}" for name, value in row.settings.items()]
    if row.on_server is None:
        return of_engines
    of_controller = [f"--GriffinServerControllerLauncher.{name}={value}" for name, value in row.on_server.items()]
    return ["--controller=griffin-server", *of_controller, *of_engines]


def killed(bench: Bench, row: Row) -> None:
    """SIGKILL while a request of the start is held; then `ipcluster stop`, as somebody does who sees that it has died."""
    kill_at_a_held_request(bench, row)
    bench.cloud.faults.clear()
    # Before there is a cluster file there is nothing to stop, and ipcluster says so.
    bench.run(*STOP_COMMAND, status=0 if bench.shell.cluster_files() else 11)


NOTES_NOTHING = """
import os, signal
from ipyparallel.cluster.cluster import Cluster
Cluster.update_cluster_file = lambda self: os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_before_there_is_a_cluster_file(bench: Bench, row: Row) -> None:
    """ipcontroller runs, and nothing says so: it has to see by itself that nobody waits for it."""
    command = bench.start_options()
    with (bench.shell.profile() / "ipcluster_config.py").open("a") as config:
        config.write(NOTES_NOTHING)
    process = bench.shell.start(*command)
    bench.said.append(process.communicate(timeout=120)[0])
    assert process.returncode == -signal.SIGKILL
    assert bench.processes()
    assert not bench.shell.cluster_files()


def killed_and_ended_from_elsewhere(bench: Bench, row: Row) -> None:
    """The same, and `ipp-griffin stop` from a machine that has no file of it; the controller is this machine's to end."""
    kill_at_a_held_request(bench, row)
    bench.cloud.faults.clear()
    (uid,) = {name.rpartition("-")[2] for name in bench.cloud.containers()}
    bench.run("ipp-griffin", "stop", uid)
    assert bench.cloud.left_over() == []
    bench.run(*STOP_COMMAND)


def kill_at_a_held_request(bench: Bench, row: Row) -> None:
    command = bench.start_options(*options(row))
    bench.cloud.faults.set(*row.faults)
    process = bench.shell.start(*command)
    eventually(lambda: not bench.cloud.faults.unspent(), "the request that is held")
    process.kill()
    process.wait()


def killed_and_reaped(bench: Bench, row: Row) -> None:
    """While it waits for a server that never reports. A cluster that is just starting is not touched, until its deadline is over."""
    bench.cloud.faults.set(SILENT)
    process = bench.shell.start(*bench.start_options(*options(row)))
    eventually(lambda: [s for s in bench.cloud.running.servers() if s["status"] == "ACTIVE"], "a server that runs")
    process.kill()
    process.wait()
    assert "nothing to reap" in bench.run("ipp-griffin", "reap", "--dry-run")
    (server,) = bench.cloud.running.servers()
    deadline = datetime.fromisoformat(server["metadata"]["griffin:start_deadline"])
    eventually(lambda: datetime.now(timezone.utc) > deadline, "its deadline is over")
    assert "never reported" in bench.run("ipp-griffin", "reap", "--dry-run")
    an_hour_passes(bench)
    bench.run("ipp-griffin", "reap", "--yes")
    assert bench.cloud.left_over() == []
    bench.run(*STOP_COMMAND)


def killed_before_it_marked_its_container(bench: Bench, row: Row) -> None:
    """Nobody knows whose the empty container is, nor whether it is about to be used: it has an hour."""
    kill_at_a_held_request(bench, row)
    assert "nothing to reap" in bench.run("ipp-griffin", "reap", "--yes")
    assert len(bench.cloud.left_over()) == 1
    an_hour_passes(bench)
    assert "was never used" in bench.run("ipp-griffin", "reap", "--yes")
    assert bench.cloud.left_over() == []
    bench.run(*STOP_COMMAND)


def an_hour_passes(bench: Bench) -> None:
    """For what is in the object store."""
    for container in bench.cloud.running.state.containers.values():
        container.created -= 3700
        for stored in container.objects.values():
            stored.modified -= 3700


def killed_while_it_runs(bench: Bench, row: Row) -> None:
    kill_while_it_runs(bench, row)
    bench.run(*STOP_COMMAND)


def kill_while_it_runs(bench: Bench, row: Row) -> None:
    process = bench.shell.start(*bench.start_options(*options(row)))
    wait_until_connected(bench)
    process.kill()
    process.wait()
    wait_until_connected(bench)  # the cluster needs nobody


def stop_is_killed(bench: Bench, row: Row) -> None:
    """SIGKILL while a request of `ipcluster stop` is held."""
    bench.cloud.faults.set(*row.faults)
    process = bench.shell.start(*STOP_COMMAND)
    eventually(lambda: not bench.cloud.faults.unspent(), "the request that is held")
    process.kill()
    process.wait()
    bench.cloud.faults.clear()
    assert bench.shell.cluster_files()


def broken_file_and_stops(bench: Bench, run: Run) -> None:
    """Engines that can't be added to a cluster; then stops of it that are killed, each further than the one before; then two at once."""
    bench.run(*bench.start_options("--daemonize"))
    broken, *killed, both = run.rows
    with bench.proving(broken):
        broken_connection_file(bench)
    for row in killed:
        with bench.proving(row):
            stop_is_killed(bench, row)
    with bench.proving(both):
        two_stops(bench)


def killed_and_then_its_stop(bench: Bench, run: Run) -> None:
    """The start is killed, and the cluster goes on; a stop is killed, and another one ends all."""
    start, stop = run.rows
    with bench.proving(start):
        kill_while_it_runs(bench, start)
    with bench.proving(stop):
        stop_is_killed(bench, stop)
        bench.run(*STOP_COMMAND)


def signalled(number: signal.Signals, *, status: int, started: bool) -> Callable[[Bench, Row], None]:
    """A foreground `ipcluster start` takes down what it made."""

    def run(bench: Bench, row: Row) -> None:
        command = bench.start_options(*options(row))
        if not started:
            bench.cloud.faults.set({"server": ".*", "boot_time": 5})
        process = bench.shell.start(*command)
        if started:
            wait_until_connected(bench)
            eventually(lambda: is_recorded(bench), "the start is over")
        else:
            eventually(bench.cloud.servers, "a server")
        process.send_signal(number)
        output = process.communicate(timeout=120)[0]
        assert process.returncode == status, output
        assert "Traceback" not in output

    return run


def wait_until_connected(bench: Bench) -> None:
    """Until the controller of the shell's cluster lists its engine."""
    bench.shell.wait_until_connected(
        lambda condition, what: eventually(condition, what, 60 * bench.cloud.slowness, pause=CLIENTS_PAUSE), 1
    )


def is_recorded(bench: Bench) -> bool:
    """Whether the cluster file has the engine set's server."""
    return any(one.get("servers") for one in bench.shell.engine_sets())


def controller_is_killed(bench: Bench, row: Row) -> None:
    """The foreground `ipcluster start` whose controller it was takes all down, and its files."""
    process = bench.shell.start(*bench.start_options())
    wait_until_connected(bench)
    eventually(lambda: is_recorded(bench), "the start is over")
    for pid in bench.shell.controllers():
        os.kill(pid, signal.SIGKILL)
    output = process.communicate(timeout=120)[0]
    assert "Traceback" not in output


def two_stops(bench: Bench) -> None:
    both = [bench.shell.start(*STOP_COMMAND), bench.shell.start(*STOP_COMMAND)]
    for process in both:
        output = process.communicate(timeout=120)[0]
        assert process.returncode in (0, 11), output  # 11: ipyparallel's "already stopped"
        assert "Traceback" not in output


def broken_connection_file(bench: Bench) -> None:
    path = Path(bench.shell.profile() / "security" / "ipcontroller-engine.json")
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    bench.run("ipcluster", "engines", "--profile=griffin", "-n", "1", status=1)
    assert len(bench.cloud.servers()) == 1
    path.write_text(text)


def held(stage: str) -> tuple[dict[str, object], ...]:
    """The last request of a stage is held."""
    return one(stage, delay=HELD)


START_COMMAND, STOPPING = "SIGKILL to `ipcluster start`", "SIGKILL to `ipcluster stop`"
DEAD, TAKES_DOWN = "nothing more: the process is dead", "it tears down what it created"
AFTER_REAP, REAPED = f"{NOTHING} in the cloud, after `ipp-griffin reap`", "never reported; its start had time until"
SIGNALS = (("Ctrl-C", signal.SIGINT), ("SIGTERM", signal.SIGTERM), ("SIGHUP", signal.SIGHUP))
CONTAINER, CREATING = "start: making the container", "start: creating the server"


def killed_at(stage: str, **options: object) -> Run:
    return alone(Row(START_COMMAND, stage, DEAD, left=AFTER_STOP, faults=held(stage), **options), killed, slow=True)


def ended_by(name: str, number: signal.Signals, stage: str, started: bool, **options: object) -> Run:
    row = Row(f"{name} to `ipcluster start`", stage, TAKES_DOWN, **options)
    return alone(row, signalled(number, status=0, started=started), slow=True)


RUNS = (
    *(killed_at(stage) for stage in START if "agent" not in stage),
    alone(Row(START_COMMAND, "start: recording that ipcontroller runs", DEAD), killed_before_there_is_a_cluster_file),
    alone(Row(f"{START_COMMAND}, and its machine is lost", CREATING, "`ps` shows it", "is gone: 1 server and its container",
        f"{NOTHING} in the cloud, after `ipp-griffin stop`", held(CREATING)), killed_and_ended_from_elsewhere, slow=True),
    alone(Row(START_COMMAND, "start: servers", "`reap` shows it after its deadline", REAPED, AFTER_REAP, settings={"start_timeout": 15}),
        killed_and_reaped, slow=True),
    alone(Row(f"{START_COMMAND}, and its cluster file is lost", CONTAINER, "`reap` shows it after an hour", "was never used", AFTER_REAP, held(CONTAINER)),
        killed_before_it_marked_its_container, slow=True),
    alone(Row(START_COMMAND, RUNNING, WORKS + ": the cluster keeps running", left=AFTER_STOP), killed_while_it_runs, slow=True, needs=()),
    Run("a broken connection file, and stops that are killed", (
        Row("a broken connection file", "start: `ipcluster engines`", "it fails", "ipcontroller-engine.json"),
        *(Row(STOPPING, stage, DEAD, left=AFTER_STOP, faults=held(stage)) for stage in ("stop: deleting the server", "stop: deleting the container")),
        Row("`ipcluster stop` twice at the same time", "stop", WORKS),
    ), broken_file_and_stops, slow=True),
    *(ended_by(*signal, stage, started) for signal in SIGNALS for stage, started in (("start: servers", False), (RUNNING, True))),
    alone(Row("a killed controller of `ipcluster start`", RUNNING, TAKES_DOWN), controller_is_killed, slow=True),
)  # fmt: skip
