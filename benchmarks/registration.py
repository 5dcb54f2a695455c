"""Many engines that register at once with one controller: how long each step of it takes, and what the time-outs of it must be."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import ipyparallel as ipp
import psutil

from ipp_griffin.devcloud import DevCloud

from .clusters import REGISTERED, REGISTERING, agents, began, griffin, logged, when
from .tables import table

ANSWERED = re.compile(r"^(\S+ \S+) \[IPEngine\S*\] Shell_addrs:", re.MULTILINE)
PATIENCE = 240  # seconds until an engine must have answered
# In ipengine_config.py, which an engine reads when its imports are done, just before it registers.
WAIT = "import random, time\ntime.sleep(max(0, {moment} - time.time()) + random.uniform(0, {jitter}))\n"


@dataclass(frozen=True)
class Setting:
    """``together``: so many seconds after the start all engines, which have done their imports, register at the same moment; 0: each when it
    can. ``jitter``: how much longer each of them waits at most."""

    servers: int
    engines_per_server: int
    together: float = 0.0
    jitter: float = 0.0

    @property
    def n(self) -> int:
        return self.servers * self.engines_per_server

    def __str__(self) -> str:
        jitter = f", and up to {self.jitter:g} s" if self.jitter else ""
        return f"{self.together:g} s{jitter}" if self.together else ""


@dataclass
class Figures:
    """Seconds from the start of the engine set, or of what is said; MB. A list: of each engine."""

    setting: Setting
    registered: float = 0.0  # until the last engine wrote so
    listed: float = 0.0  # until the controller listed the last one
    first_apply: float = 0.0
    applies: list[float] = field(default_factory=list)
    stop: float = 0.0
    controller_cpu: float = 0.0  # until `start_engines` came back, all processes of the controller
    hub_cpu: float = 0.0  # of these its main process, where the hub is
    controller_mb: float = 0.0
    engines_mb: float = 0.0  # of all engines and nannies (PSS)
    imports: list[float] = field(default_factory=list)  # from an engine's process to its request
    answers: list[float] = field(default_factory=list)  # from its request to the answer: IPEngine.timeout
    heartbeats: list[float] = field(default_factory=list)  # then until it is listed: IPController.registration_timeout
    leaving: list[float] = field(default_factory=list)  # from the stop to when it left


def measure(setting: Setting) -> Figures:
    """Start, ask all engines for something, and stop."""
    figures = Figures(setting)
    with griffin(servers=setting.servers, engines_per_server=setting.engines_per_server) as (cloud, cluster):
        if setting.together:
            wait = WAIT.format(moment=time.time() + setting.together, jitter=setting.jitter)
            Path(cluster.profile_dir, "ipengine_config.py").write_text(wait)
        _start(cluster, figures)
        _apply(cluster, figures)
        _memory(cloud, cluster, figures)
        _engines(cloud, cluster, figures)
        _stop(cluster, figures)
    return figures


def _start(cluster: ipp.Cluster, figures: Figures) -> None:
    hub = psutil.Process(cluster.controller.pid)
    before = _cpu([hub]), _cpu(_family(hub))
    start = time.time()
    cluster.start_engines_sync(figures.setting.n)
    figures.hub_cpu, figures.controller_cpu = (_cpu([hub]) - before[0], _cpu(_family(hub)) - before[1])
    figures.listed = max(_hub_lines(cluster, r"registration::finished registering engine \d+:(\S+)").values()) - start
    figures.registered = -start  # `_engines` adds when that was


def _apply(cluster: ipp.Cluster, figures: Figures) -> None:
    with cluster.connect_client_sync() as client:
        client.wait_for_engines(figures.setting.n, timeout=PATIENCE, interactive=False)
        for _ in range(6):
            start = time.monotonic()
            pids = client[:].apply_async(os.getpid).get(PATIENCE)
            assert len(set(pids)) == figures.setting.n
            figures.applies.append(time.monotonic() - start)
    figures.first_apply = figures.applies.pop(0)


def _memory(cloud: DevCloud, cluster: ipp.Cluster, figures: Figures) -> None:
    figures.controller_mb = _megabytes(_family(psutil.Process(cluster.controller.pid)))
    figures.engines_mb = _megabytes([p for agent in agents(cloud) for p in agent.children(recursive=True)])


def _engines(cloud: DevCloud, cluster: ipp.Cluster, figures: Figures) -> None:
    """What each engine has written, and the controller of it."""
    accepted = _hub_lines(cluster, r"registration::accepting registration \d+:(\S+)")
    finished = _hub_lines(cluster, r"registration::finished registering engine \d+:(\S+)")
    figures.heartbeats = [finished[uuid] - accepted[uuid] for uuid in finished]
    last = 0.0
    for agent in agents(cloud):
        (state,) = Path(agent.cwd(), ".ipp-griffin-agent").iterdir()
        for engine in agent.children():
            k = next(word for word in engine.cmdline() if "--Session.session=" in word).split("-")[-2]
            log, start = state / f"engine-{k}.log", began(engine)
            request, answer, ready = (logged(log, line) or 0.0 for line in (REGISTERING, ANSWERED, REGISTERED))
            figures.imports.append(request - start)
            figures.answers.append(answer - request)
            last = max(last, ready)
    figures.registered += last


def _stop(cluster: ipp.Cluster, figures: Figures) -> None:
    start = time.time()
    cluster.stop_engines_sync()
    figures.stop = time.time() - start
    left = _hub_lines(cluster, r"registration::unregister_engine\((\d+)\)$")
    figures.leaving = [moment - start for moment in left.values()]


def _hub_lines(cluster: ipp.Cluster, text: str) -> dict[str, float]:
    """Engine -> when the controller wrote that of it."""
    (log,) = Path(cluster.profile_dir, "log").glob(f"ipcontroller-{cluster.cluster_id}*.log")
    content = log.read_text(errors="replace")
    found = re.finditer(rf"^\S+ \S+ \[IPController\] {text}", content, re.MULTILINE)
    return {match[1]: when(" ".join(match[0].split()[:2])) for match in found}


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _cpu(processes: Sequence[psutil.Process]) -> float:
    return sum(t.user + t.system for t in (process.cpu_times() for process in processes))


def _megabytes(processes: Sequence[psutil.Process]) -> float:
    return sum(process.memory_full_info().pss for process in processes) / 1e6


def registration_tables(measured: Sequence[Figures]) -> str:
    return (
        'Engines that start at the same time; the controller and all servers are on the same cores. "All at": the moment that engines wait for '
        "with their imports done, before they register, and how much longer each of them waits at random:\n\n"
        + _whole_table(measured)
        + "\n\nThe steps of each engine, in seconds (median / 95th percentile / most):\n\n"
        + _steps_table(measured)
    )


def _whole_table(measured: Sequence[Figures]) -> str:
    headings = ("engines", "servers", "all at", "all registered (s)", "all listed (s)", "first `apply` on all (s)")
    headings += ("further ones (s)", "controller's CPU (s)", "of it the hub", "controller (MB)")
    headings += ("engines and nannies (MB)", "stop (s)")
    rows = [
        (
            str(f.setting.n),
            str(f.setting.servers),
            str(f.setting),
            f"{f.registered:.1f}",
            f"{f.listed:.1f}",
            *(f"{value:.2f}" for value in (f.first_apply, median(f.applies), f.controller_cpu, f.hub_cpu)),
            f"{f.controller_mb:.0f}",
            f"{f.engines_mb:.0f}",
            f"{f.stop:.1f}",
        )
        for f in measured
    ]
    return table(headings, rows)


def _steps_table(measured: Sequence[Figures]) -> str:
    headings = (
        "engines",
        "all at",
        "process to request",
        "request to answer",
        "answer to listed",
        "stop to having left",
    )
    rows = [
        (
            str(f.setting.n),
            str(f.setting),
            *(_spread(values) for values in (f.imports, f.answers, f.heartbeats, f.leaving)),
        )
        for f in measured
    ]
    return table(headings, rows)


def _spread(values: Sequence[float]) -> str:
    """Median, 95th percentile and most."""
    ordered = sorted(values)
    return (
        f"{median(ordered):.2f} / {ordered[int(0.95 * (len(ordered) - 1))]:.2f} / {ordered[-1]:.2f}" if ordered else ""
    )
