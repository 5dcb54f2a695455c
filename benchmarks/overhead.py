"""What the agent adds on a server: seconds until its engine is registered, against ``ipengine`` typed there, and memory."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import ipyparallel as ipp
import psutil

from ipp_griffin.devcloud import DevCloud

from .clusters import agents, began, griffin, logged
from .tables import table

PATIENCE = 60  # seconds that one engine may take


@dataclass
class Start:
    """One engine started by an agent, then one by hand. Seconds, and MB of the agent once its engine is registered."""

    spawned: float  # from the user-data's start to the engine's process
    registered: float  # from the user-data's start to what the engine writes then
    by_hand: float
    rss: float
    pss: float
    uss: float


def measure(latency: float, repetitions: int) -> list[Start]:
    """Alternately by an agent and by hand, with the same controller, Python, environment and profile."""
    with griffin(latency=latency, controller_args=["--HeartMonitor.period=500"]) as (cloud, cluster):
        return [_start(cloud, cluster, k) for k in range(repetitions)]


def _start(cloud: DevCloud, cluster: ipp.Cluster, k: int) -> Start:
    name = cluster.start_engines_sync(1)
    (agent,) = agents(cloud)
    (engine,) = agent.children()
    log = next((cloud.folder / "servers").glob("*/home/.ipp-griffin-agent/*/engine-0.log"))
    registered = _wait(lambda: logged(log))
    memory = agent.memory_full_info()
    by_hand = _by_hand(engine, log.with_name(f"by-hand-{k}.log"), k)
    start = began(agent)
    found = Start(
        began(engine) - start,
        registered - start,
        by_hand,
        *(size / 1e6 for size in (memory.rss, memory.pss, memory.uss)),
    )
    cluster.stop_engines_sync(name)
    return found


def _by_hand(engine: psutil.Process, log: Path, k: int) -> float:
    """Seconds that an engine takes to register that is started just as this one was, under another name."""
    command = [f"--Session.session=by-hand-{k}" if "--Session.session=" in word else word for word in engine.cmdline()]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env=engine.environ(), cwd=engine.cwd(), stdin=subprocess.DEVNULL, stdout=file, stderr=file
        )
    start = began(psutil.Process(process.pid))
    try:
        return _wait(lambda: logged(log)) - start
    finally:
        process.terminate()
        process.wait()


def _wait(look: Callable[[], float | None]) -> float:
    deadline = time.monotonic() + PATIENCE
    while (found := look()) is None:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no engine registered within {PATIENCE} s")
        time.sleep(0.1)
    return found


def overhead_table(measured: Sequence[tuple[float, Sequence[Start]]]) -> str:
    """``measured``: seconds added to each request, and the starts on that cloud."""
    rows = []
    for latency, starts in measured:
        numbers = {name: median(getattr(s, name) for s in starts) for name in Start.__dataclass_fields__}
        numbers["extra"] = median(s.registered - s.by_hand for s in starts)
        seconds = [f"{numbers[name]:.2f}" for name in ("spawned", "registered", "by_hand", "extra")]
        sizes = [f"{numbers[name]:.1f}" for name in ("rss", "pss", "uss")]
        rows.append((f"{latency * 1000:.0f}", str(len(starts)), *seconds, *sizes))
    headings = (
        "ms a request",
        "starts",
        "engine's process is there (s)",
        "registered (s)",
        "by hand (s)",
        "overhead (s)",
    )
    headings += ("MB resident (RSS)", "PSS", "its own (USS)")
    return "An agent with one engine, from the start of the user-data, and `ipengine` by hand (medians):\n\n" + table(
        headings, rows
    )
