"""In which order a server's engines should start: seconds until all are registered, with the orders taken in turns."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from ipp_griffin.agent.agent import POLL

from .clusters import griffin, logged
from .tables import table

CORES = os.cpu_count() or 1
PAUSE = 0.3  # seconds between two starts, where they are staggered: about what one costs, shared by two cores
PATIENCE = 120
Order = Callable[["Server"], bool]  # whether the next engine may start now
ORDERS: dict[str, Order] = {
    "all at once": lambda server: True,
    f"{CORES} at a time": lambda server: server.on_their_way < CORES,
    f"{2 * CORES} at a time": lambda server: server.on_their_way < 2 * CORES,
    f"every {PAUSE:g} s": lambda server: time.time() >= server.began + PAUSE * len(server.engines),
}


@dataclass
class Server:
    """The engines that one server has started."""

    folder: Path
    began: float = field(default_factory=time.time)
    engines: list[subprocess.Popen[bytes]] = field(default_factory=list)
    registered: dict[int, float] = field(default_factory=dict)  # when each wrote so

    @property
    def on_their_way(self) -> int:
        return len(self.engines) - len(self.registered)

    def log(self, k: int) -> Path:
        return self.folder / f"engine-{k}.log"

    def start(self, connection: Path) -> None:
        k = len(self.engines)
        command = [
            sys.executable,
            "-m",
            "ipyparallel.engine",
            f"--profile-dir={self.folder / 'profile'}",
            "--timeout=120",
        ]
        command += [f"--IPEngine.url_file={connection}", f"--Session.session={self.folder.name}-{k}"]
        with self.log(k).open("wb") as log:
            self.engines.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def look(self) -> None:
        for k, process in enumerate(self.engines):
            if k not in self.registered and (when := logged(self.log(k))):
                self.registered[k] = when
            elif process.poll() is not None:
                raise RuntimeError(f"an engine ended: {self.log(k).read_text()[-500:]}")

    def end(self) -> None:
        for process in self.engines:
            process.terminate()
        for process in self.engines:
            process.wait()


def measure(numbers: Sequence[int], repetitions: int) -> dict[int, dict[str, list[float]]]:
    """Engines a server -> order -> seconds, one for each repetition, all with one controller."""
    found: dict[int, dict[str, list[float]]] = {n: {order: [] for order in ORDERS} for n in numbers}
    with griffin() as (_, cluster), tempfile.TemporaryDirectory() as folder:
        connection = Path(cluster.controller.connection_files["engine"])
        for repetition in range(repetitions):
            for n in numbers:
                for k, order in enumerate(ORDERS):
                    server = Server(Path(folder, f"{repetition}-{n}-{k}"))
                    found[n][order].append(_start(server, n, ORDERS[order], connection))
    return found


def _start(server: Server, n: int, may_start: Order, connection: Path) -> float:
    """Looks as often as the agent does."""
    (server.folder / "profile").mkdir(parents=True)
    try:
        while len(server.registered) < n:
            while len(server.engines) < n and may_start(server):
                server.start(connection)
            time.sleep(POLL)
            server.look()
            if time.time() > server.began + PATIENCE:
                raise TimeoutError(f"{len(server.registered)} of {n} engines registered within {PATIENCE} s")
        return max(server.registered.values()) - server.began
    finally:
        server.end()


def order_table(measured: dict[int, dict[str, list[float]]]) -> str:
    rows = [
        (str(n), *(f"{median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})" for seconds in by_order.values()))
        for n, by_order in measured.items()
    ]
    repetitions = len(next(iter(next(iter(measured.values())).values())))
    return (
        f"Seconds until all engines of one server with {CORES} cores are registered, by the order in which they start (median, least and "
        f"most of {repetitions}):\n\n" + table(("engines", *ORDERS), rows)
    )
