"""A whole `ipcluster start`, from the moment at which it is typed until all engines are listed, and the least that this can take.

Medians of several starts, in turns with as many by hand: the hub lists engines with its heartbeats, half a second apart.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import ipyparallel as ipp

from ipp_griffin.controller.heartbeats import PERIOD

from .measure import BIN, PATIENCE, Setting, cloud_for, stop


@dataclass
class Typed:
    """Seconds. ``controller``, ``engines``: those of ipcontroller and of ipengines that were started by hand, on this machine."""

    setting: Setting
    registered: float
    gone: float
    controller: float
    engines: float

    @property
    def over(self) -> float:
        """How much longer it took than what nobody can do without: controller, one request, boot, engines."""
        return self.registered - self.controller - self.setting.latency - self.setting.boot - self.engines


def measure(setting: Setting, starts: int = 1) -> Typed:
    """One engine a server; they share this machine's cores."""
    found = []
    for _ in range(starts):
        controller, engines = by_hand(setting.n)
        with cloud_for(setting, guests=True) as (_, environment):
            found.append((_start(setting.n, environment), stop(environment), controller, engines))
    return Typed(setting, *(median(values) for values in zip(*found, strict=True)))


def _start(n: int, environment: Mapping[str, str]) -> float:
    settings = ["--GriffinEngineSetLauncher.engines_per_server=1", "--GriffinEngineSetLauncher.progress=False"]
    command = [BIN / "ipcluster", "start", "--profile=griffin", "-n", str(n), *settings]
    began = time.monotonic()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        there = any(f"All {n} engines are connected" in line for line in process.stderr)
        took = time.monotonic() - began
        process.kill()  # as if by --daemonize: nothing of it looks on beside the stop
    if not there:
        sys.exit(f"{n} engines did not start.")
    return took


def by_hand(n: int) -> tuple[float, float]:
    """Seconds until ipcontroller has written its files; and from then, until the hub lists ``n`` ipengines, all started at once."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "HOME": folder, "IPYTHONDIR": folder}
        file = Path(folder, "profile_default", "security", "ipcontroller-client.json")
        processes: list[subprocess.Popen[bytes]] = []

        def spawn(*command: str) -> None:
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            processes.append(subprocess.Popen([sys.executable, "-m", *command], env=environment, **quiet))

        try:
            began = time.monotonic()
            spawn("ipyparallel.controller", f"--HeartMonitor.period={PERIOD}", "--IPController.enable_curve=True")
            _until(lambda: file.exists() and file.stat().st_size > 0)
            controller = time.monotonic() - began
            with ipp.Client(str(file), timeout=PATIENCE) as rc:
                began = time.monotonic()
                for _ in range(n):
                    spawn("ipyparallel.engine")
                _until(lambda: len(rc.ids) == n)
                engines = time.monotonic() - began
        finally:
            _end(processes)
        return controller, engines


def _until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not there():
        if time.monotonic() > deadline:
            sys.exit(f"Not within {PATIENCE} s.")
        time.sleep(0.01)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """By signals: ``Client.shutdown`` waits without end for the answer of an engine that has ended before it was sent."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
