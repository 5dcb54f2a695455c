"""How long 32 servers take to be seen ACTIVE and to be gone, in how many requests, beside a plain openstacksdk loop.

    make bench

The dev cloud adds 50 ms to every request and takes 5 s to boot a server; the servers are silent (no engine runs),
so what is measured is this project's part. The plain loop is what a careful user would write by hand: one
connection, 10 threads that create, one listing a second, 10 threads that delete. Both in one run, on one cloud.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ipp_griffin.devcloud import DevCloud

N, LATENCY, BOOT_TIME, PARALLEL = 32, 0.05, 5.0, 10
IPCLUSTER = Path(sys.executable).with_name("ipcluster")


class Figures(NamedTuple):
    """Seconds and requests until all servers were seen ACTIVE, and until a listing showed none."""

    start_seconds: float
    start_requests: int
    stop_seconds: float
    stop_requests: int


def griffin(cloud: DevCloud) -> Figures:
    """`ipcluster start`, ended when it has seen all servers ACTIVE, and `ipcluster stop`, each a process of its own."""
    cloud.clear_requests()
    options = ["--profile=griffin", "--GriffinEngineSetLauncher.engines_per_server=1"]
    with subprocess.Popen([IPCLUSTER, "start", "-n", str(N), *options], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        began = 0.0
        for line in process.stderr:
            if f"Starting {N} engines with" in line:  # ipyparallel's line before it calls start()
                began = time.perf_counter()
            if f"servers: {N} active" in line:
                break
        start = time.perf_counter() - began, len(cloud.requests)
        process.kill()  # silent guests: it would wait for engines, and look on beside the stop
    cloud.clear_requests()
    began = time.perf_counter()
    subprocess.run([IPCLUSTER, "stop", "--profile=griffin", "--log-level=ERROR"], check=True)
    return Figures(*start, time.perf_counter() - began, len(cloud.requests))


def plain_loop(cloud: DevCloud) -> Figures:
    """The same by hand, with openstacksdk."""
    import openstack

    cloud.clear_requests()
    began = time.perf_counter()
    connection = openstack.connect(cloud="devcloud")
    image = next(i for i in connection.image.images() if i.name == "snapshot10")
    flavor = next(f for f in connection.compute.flavors() if f.name == "dev.small")
    network = next(n for n in connection.network.networks() if not n.is_router_external)

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
        subprocess.run([IPCLUSTER.with_name("ipp-griffin"), "init"], check=True, capture_output=True)
        ours = griffin(cloud)
        plain = plain_loop(cloud)
    print(f"{N} servers, {LATENCY * 1000:.0f} ms a request, ACTIVE {BOOT_TIME:.0f} s after the request; ", end="")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores\n")
    print(f"{'':34}{'ipp-griffin':>12}{'plain loop':>12}{'ratio':>8}")
    for field, unit in zip(Figures._fields, ("s", "", "s", ""), strict=True):
        a, b = getattr(ours, field), getattr(plain, field)
        print(f"{field.replace('_', ': '):34}{a:>10.4g} {unit:1}{b:>10.4g} {unit:1}{a / b:>8.2f}")
    print(
        "\nipp-griffin: from start(), with the controller's requests; the stop is a whole `ipcluster stop` process, and takes\nthe controller and the container away, too. The plain loop has neither."
    )


if __name__ == "__main__":
    main()
