"""How long 32 servers take to be seen ACTIVE and to be gone, in how many requests, beside a plain openstacksdk loop.

    make bench

The dev cloud adds 50 ms to every request and takes 5 s to boot a server; the servers are silent (no engine runs),
so what is measured is this project's part. The plain loop is what a careful user would write by hand: one
connection, 10 threads that create, one listing a second, 10 threads that delete. Both in one run, on one cloud.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import ipyparallel as ipp
from traitlets.config import Config

from ipp_griffin.devcloud import DevCloud

N, LATENCY, BOOT_TIME, PARALLEL = 32, 0.05, 5.0, 10


class Figures(NamedTuple):
    """Seconds and requests until all servers were seen ACTIVE, and until a listing showed none."""

    start_seconds: float
    start_requests: int
    stop_seconds: float
    stop_requests: int


class AllActive(logging.Handler):
    """Hears the launcher say that it has seen every server ACTIVE."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        if f"{N} of {N} servers active" in record.getMessage():
            self._loop.call_soon_threadsafe(self.seen.set)


async def griffin(cloud: DevCloud, profile_dir: Path) -> Figures:
    """`start()` of the engine-set launcher in this process; the stop is a real `ipcluster stop`."""
    log = logging.getLogger("bench")
    log.setLevel(logging.INFO)
    log.propagate = False
    config = Config({"GriffinEngineSetLauncher": {"engines_per_server": 1}, "Cluster": {"delay": 0}})
    cluster = ipp.Cluster(
        controller="griffin", engines="griffin", profile_dir=str(profile_dir), cluster_id="", config=config, log=log
    )
    cluster.shutdown_atexit = False
    await cluster.start_controller()
    handler = AllActive()
    log.addHandler(handler)
    cloud.clear_requests()
    began = time.perf_counter()
    starting = asyncio.ensure_future(cluster.start_engines(N))
    await asyncio.wait_for(handler.seen.wait(), 120)
    start = time.perf_counter() - began, len(cloud.requests)
    cloud.clear_requests()
    began = time.perf_counter()
    stop = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("ipcluster"), "stop", f"--profile-dir={profile_dir}", "--log-level=40"
    )
    assert await stop.wait() == 0
    figures = Figures(*start, time.perf_counter() - began, _between(cloud))
    await cluster.engine_set.stop()
    await asyncio.wait({starting})
    starting.exception()  # "stopped while it was starting": by the other process
    await cluster.stop_cluster()
    return figures


def _between(cloud: DevCloud) -> int:
    """Requests of the stopping process: the starting one goes on polling beside it, which is not counted."""
    requests = list(cloud.requests)
    polls = [r for r in requests if r[1] == "GET" and "servers/detail" in r[2]]
    return len(requests) - max(0, len(polls) - 2)


def plain_loop(cloud: DevCloud) -> Figures:
    """The same by hand, with openstacksdk."""
    import openstack

    cloud.clear_requests()
    began = time.perf_counter()
    connection = openstack.connect(cloud="devcloud")
    image = next(i for i in connection.image.images() if i.name == "snapshot10")
    flavor = next(f for f in connection.compute.flavors() if f.vcpus == 1)
    network = next(iter(connection.network.networks()))

    def create(i: int) -> str:
        made = connection.compute.create_server(
            name=f"plain-{i}", image_id=image.id, flavor_id=flavor.id, networks=[{"uuid": network.id}], tags=["plain"]
        )
        return str(made.id)

    with ThreadPoolExecutor(PARALLEL) as pool:
        ids = list(pool.map(create, range(N)))
        while sum(s.status == "ACTIVE" for s in connection.compute.servers(tags="plain")) < N:
            time.sleep(1)
        start = time.perf_counter() - began, len(cloud.requests)
        cloud.clear_requests()
        began = time.perf_counter()
        list(pool.map(connection.compute.delete_server, ids))
        while list(connection.compute.servers(tags="plain")):
            time.sleep(0.2)
        return Figures(*start, time.perf_counter() - began, len(cloud.requests))


def main() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        DevCloud(Path(folder, "cloud"), latency=LATENCY, boot_time=BOOT_TIME, guests=False) as cloud,
    ):
        os.environ.update(
            OS_CLIENT_CONFIG_FILE=str(cloud.clouds_yaml), OS_CLOUD="devcloud", IPYTHONDIR=str(Path(folder, "ipython"))
        )
        subprocess.run([Path(sys.executable).with_name("ipp-griffin"), "init"], check=True, capture_output=True)
        ours = asyncio.run(griffin(cloud, Path(folder, "ipython", "profile_griffin")))
        plain = plain_loop(cloud)
    print(f"{N} servers, {LATENCY * 1000:.0f} ms a request, ACTIVE {BOOT_TIME:.0f} s after the request; ", end="")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores\n")
    print(f"{'':34}{'ipp-griffin':>12}{'plain loop':>12}{'ratio':>8}")
    for field, unit in zip(Figures._fields, ("s", "", "s", ""), strict=True):
        a, b = getattr(ours, field), getattr(plain, field)
        print(f"{field.replace('_', ': '):34}{a:>10.4g} {unit:1}{b:>10.4g} {unit:1}{a / b:>8.2f}")
    print("\nThe stop of ipp-griffin is a whole `ipcluster stop`: a Python process, the controller, the container too.")


if __name__ == "__main__":
    main()
