"""The soak: clusters are started and stopped again and again, with random faults; after each of them nothing may be left.

``python -m tests.faults.soak --cycles 50 --seed 7``: the same faults each time, but for what depends on the clock. Several cycles
run at the same time, each on a cloud of its own: they wait more than they work. It prints a line for each, and ends with status 1
where anything was left, or anything but the package's own errors came out.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import ipyparallel as ipp

from ipp_griffin.common.errors import GriffinError

from ..clouds import OnDevCloud
from ..conftest import nobody_at_home, running_cloud
from ..end_to_end.conftest import Shell
from .bench import Bench, counted
from .lives import agents
from .processes import STOP_COMMAND
from .requests import FINAL
from .stages import PASSING, START, STOP, Fault, passing

SETTINGS = {"start_timeout": 40, "build_timeout": 5, "agent_timeout": 5, "stop_timeout": 30}
SERVERS: tuple[Fault, ...] = (
    {"server": "-0$", "fail_build": "No valid host was found.", "count": 1},
    {"server": "-0$", "silent": True, "count": 1},
    {"server": "-0$", "stuck": True, "count": 1},
    {"server": "-0$", "vanish_after": 0.5, "count": 1},
    {"server": "-0$", "shutoff_after": 0.5, "count": 1},
    {"server": ".*", "fail_build": "No valid host was found."},
    {"server": ".*", "boot_time": 2.0},
)


BAD = "left over or broken"


class Cycle:
    """What one cycle does, decided by its seed alone."""

    def __init__(self, seed: str) -> None:
        dice = random.Random(seed)
        self.n = dice.choice((1, 2))
        self.kill_after = dice.uniform(0.5, 6.0) if dice.random() < 0.2 else 0.0
        self.stopped_elsewhere = dice.random() < 0.5
        self.starting: list[Fault] = []
        self.names: list[str] = []
        for _ in range(dice.choice((0, 1, 1, 2, 3))):
            self.starting += self._disturbance(dice, START)
        self.living = dice.choice(sorted(LIVING))
        self.stopping: list[Fault] = []
        for _ in range(dice.choice((0, 0, 1, 2))):
            self.stopping += self._disturbance(dice, STOP)

    def _disturbance(self, dice: random.Random, stages: Mapping[str, Any]) -> list[Fault]:
        kind = dice.random()
        if stages is START and kind < 0.3:
            fault = dice.choice(SERVERS)
            self.names.append(", ".join(f"{k}={v}" for k, v in fault.items() if k != "server"))
            return [fault]
        if stages is START and kind < 0.4:
            name, stage, faults = dice.choice(FINAL)
        else:
            stage = dice.choice([stage for stage in stages if "agent" not in stage])
            name, faults = dice.choice([(k.name, faults) for k in PASSING if (faults := passing(k, stage))])
        self.names.append(f"{name} at {stage}")
        return list(faults)

    def __str__(self) -> str:
        killed = [f"SIGKILL to ipcluster after {self.kill_after:.1f} s"] if self.kill_after else [self.living]
        return "; ".join([*self.names, *killed])


# -- what happens while a cluster runs


def _nothing(bench: Bench, cluster: ipp.Cluster) -> None:
    pass


def _engine_crashes(bench: Bench, cluster: ipp.Cluster) -> None:
    with cluster.connect_client_sync() as rc:
        rc[:].apply_async(os._exit, 3)
        time.sleep(0.5)  # it may be on its way back, or not, when the stop comes


def _agent_is_killed(bench: Bench, cluster: ipp.Cluster) -> None:
    for process in agents(bench):
        process.kill()


def _controller_is_killed(bench: Bench, cluster: ipp.Cluster) -> None:
    os.killpg(cluster.controller.pid, signal.SIGKILL)


def _server_vanishes(bench: Bench, cluster: ipp.Cluster) -> None:
    bench.cloud.faults.set({"server": "-0(-[0-9]+)?$", "vanish_after": 0})


def _server_is_shut_off(bench: Bench, cluster: ipp.Cluster) -> None:
    bench.cloud.faults.set({"server": "-0(-[0-9]+)?$", "shutoff_after": 0})


LIVING: dict[str, Callable[[Bench, ipp.Cluster], None]] = {
    "nothing happens": _nothing,
    "an engine crashes": _engine_crashes,
    "the agents are killed": _agent_is_killed,
    "the controller is killed": _controller_is_killed,
    "a server vanishes": _server_vanishes,
    "a server is shut off": _server_is_shut_off,
}


# -- the cycles


def run(bench: Bench, cycle: Cycle) -> str:
    """One cycle, to its stop; how its start ended."""
    if cycle.kill_after:
        return _killed(bench, cycle)
    bench.cloud.faults.set(*cycle.starting)
    cluster = bench.cluster(cycle.n, replace=True, **SETTINGS)
    outcome = "started"
    try:
        cluster.start_cluster_sync()
    except GriffinError as error:
        outcome = f"failed ({str(error)[:60]}...)"
    else:
        LIVING[cycle.living](bench, cluster)
    bench.cloud.faults.set(*cycle.stopping)
    try:
        if cycle.stopped_elsewhere and Path(cluster.cluster_file).exists():
            bench.stop(cluster)
            assert bench.cloud.left_over() == []
        cluster.stop_cluster_sync()
    except GriffinError:
        bench.cloud.faults.clear()
        cluster.stop_cluster_sync()
    return outcome


def _killed(bench: Bench, cycle: Cycle) -> str:
    command = bench.start_options(*(f"--GriffinEngineSetLauncher.{name}={v}" for name, v in SETTINGS.items()))
    bench.cloud.faults.set(*cycle.starting)
    process = bench.shell.start(*command)
    time.sleep(cycle.kill_after)  # whatever it is doing then
    process.kill()
    process.wait()
    bench.cloud.faults.clear()
    if bench.shell.cluster_files():
        bench.run(*STOP_COMMAND)
    return "killed"


def soak(cycles: int, seed: int, jobs: int, folder: Path) -> int:
    """Run them, ``jobs`` at a time; returns how many left something, or broke."""
    print(f"Soak: {cycles} cycles, seed {seed}", flush=True)
    shares = [range(first, cycles + 1, jobs) for first in range(1, min(jobs, cycles) + 1)]
    with ProcessPoolExecutor(len(shares), multiprocessing.get_context("spawn")) as processes:
        results = [processes.submit(share, numbers, seed, folder / f"job{numbers[0]}") for numbers in shares]
    outcomes: Counter[str] = Counter()
    for result in results:
        outcomes += result.result()
    bad = outcomes.pop(BAD, 0)
    total = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"{cycles} cycles, seed {seed}: {total}; {bad} with something left over or broken")
    return bad


def share(numbers: Iterable[int], seed: int, folder: Path) -> Counter[str]:
    """Run these cycles, one after the other on one cloud; how they ended, and how many left something, or broke."""
    outcomes: Counter[str] = Counter()
    folder.mkdir()
    with nobody_at_home(folder), running_cloud(folder / "cloud") as cloud:
        for number in numbers:
            here = folder / f"cycle{number}"
            here.mkdir()
            cycle = Cycle(f"{seed}/{number}")
            begun = time.monotonic()
            shell = Shell(here, OnDevCloud(cloud))
            os.environ["IPYTHONDIR"] = str(shell.ipython)
            bench = Bench(shell)
            try:
                with bench.impatient():
                    outcome = run(bench, cycle)
            except Exception as error:  # whatever it is, the other cycles go on
                outcome = f"BROKE ({type(error).__name__}: {error})"
            cloud.faults.clear()
            left = bench.left_over()
            told = counted(left) if any(left.values()) else "nothing"
            print(
                f"{number:3} {time.monotonic() - begun:5.1f} s  {cycle}: {outcome}; left over: {told}",
                flush=True,
            )
            outcomes[outcome.partition(" ")[0]] += 1
            outcomes[BAD] += any(left.values()) or outcome.startswith("BROKE")
            bench.close()
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description="Start and stop clusters with random faults.")
    parser.add_argument("--cycles", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="default: a random one, which is printed")
    parser.add_argument("--jobs", type=int, default=4, help="cycles that run at the same time (%(default)s)")
    options = parser.parse_args()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    with tempfile.TemporaryDirectory(prefix="griffin-soak-") as folder:
        return 1 if soak(options.cycles, seed, options.jobs, Path(folder)) else 0


if __name__ == "__main__":
    sys.exit(main())
