"""A cluster of this project on a dev cloud, both in this process, for figures of engines: what an agent, an engine and the hub have written."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import psutil
from traitlets.config import Config

from ipp_griffin.devcloud import DevCloud

REGISTERED = re.compile(r"^(\S+ \S+) \[IPEngine\S*\] Completed registration with id \d+$", re.MULTILINE)
REGISTERING = re.compile(r"^(\S+ \S+) \[IPEngine\S*\] Registering with controller", re.MULTILINE)


@contextmanager
def griffin(
    *, latency: float = 0.0, servers: int = 1, controller_args: Sequence[str] = (), **settings: Any
) -> Iterator[tuple[DevCloud, ipp.Cluster]]:
    """A dev cloud whose servers boot at once, and a cluster on it whose controller runs: `start_engines_sync` is the caller's."""
    with (
        tempfile.TemporaryDirectory() as folder,
        DevCloud(Path(folder, "cloud"), latency=latency, boot_time=0.1, quota_instances=servers + 8) as cloud,
        _environment(
            HOME=folder,
            IPYTHONDIR=str(Path(folder, "ipython")),
            OS_CLIENT_CONFIG_FILE=str(cloud.clouds_yaml),
            OS_CLOUD="devcloud",
        ),
    ):
        config = Config({"GriffinEngineSetLauncher": {"progress": False, **settings}})
        cluster = ipp.Cluster(
            engines="griffin", controller="griffin", controller_args=list(controller_args), log_level=40, config=config
        )
        cluster.start_controller_sync()
        try:
            yield cloud, cluster
        finally:
            cluster.stop_cluster_sync()


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def agents(cloud: DevCloud) -> list[psutil.Process]:
    """The agents of all servers: each leads the process group that its user-data is."""
    folder = str(cloud.folder / "servers")
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if any(word.startswith(folder) and word.endswith("/user-data") for word in process.info["cmdline"] or ())
    ]


def began(process: psutil.Process) -> float:
    """When it was started, as `time.time`, to 10 ms. (psutil's own counts from a second that the kernel rounds.)"""
    ticks = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def logged(log: Path, line: re.Pattern[str] = REGISTERED) -> float | None:
    """When an engine wrote this line, as `time.time`, by its own clock; None: not yet."""
    found = line.search(log.read_text(errors="replace")) if log.exists() else None
    return when(found[1]) if found else None


def when(text: str) -> float:
    """A time as ipyparallel's processes write it, as `time.time`."""
    return datetime.fromisoformat(text).timestamp()
