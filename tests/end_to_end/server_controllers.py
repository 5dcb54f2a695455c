"""What tests of a controller on a server have in common: its commands, its processes, and what the cloud lets in to it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipyparallel as ipp
import psutil

from .conftest import Shell

ON_SERVER = ("ipcluster", "start", "--profile=griffin", "--controller=griffin-server")
START = (*ON_SERVER, "--daemonize")
STOP = ("ipcluster", "stop", "--profile=griffin")


def setting(**values: object) -> list[str]:
    """Options of `ipcluster start` for the controller's launcher."""
    return [f"--GriffinServerControllerLauncher.{name}={value}" for name, value in values.items()]


def client_file(shell: Shell, cluster_id: str = "") -> Path:
    part = f"-{cluster_id}" if cluster_id else ""
    return shell.profile() / "security" / f"ipcontroller{part}-client.json"


def uid_of(shell: Shell, cluster_id: str = "") -> str:
    """What names the cluster in the project."""
    return str(shell.read_json(f"cluster-{cluster_id}.json")["controller"]["state"]["uid"])


def computes(shell: Shell, n: int = 1, cluster_id: str = "") -> None:
    """Fail unless ``n`` engines compute for a client of that machine."""
    with ipp.Client(str(client_file(shell, cluster_id))) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32] * n


def pids(rc: ipp.Client, timeout: float = 60) -> dict[int, int]:
    """Engine id -> process."""

    def pid() -> int:
        import os

        return os.getpid()

    pid.__module__ = "__main__"
    return dict(zip(rc.ids, rc[:].apply_async(pid).get(timeout), strict=True))


def wait_for_answers(shell: Shell, eventually: Callable[..., None], n: int) -> dict[int, int]:
    """Until a new Client computes on ``n`` engines: the processes of these. What is sent to an engine that has not found the
    controller again is lost."""
    answers: dict[int, int] = {}

    def compute() -> bool:
        try:
            with ipp.Client(str(client_file(shell)), timeout=5) as rc:
                answers.update(pids(rc, timeout=3) if len(rc.ids) == n else {})
        except (OSError, TimeoutError):
            return False
        return len(answers) == n

    eventually(compute, f"answers of {n} engines", 120)
    return answers


def ipcontroller_of(uid: str) -> psutil.Process:
    """The first process of a cluster's ipcontroller; servers run on this machine."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "ipyparallel.controller" in process.cmdline() and process.environ().get("GRIFFIN_UID") == uid:
                found.append(process)
    parents = {process.pid for process in found}
    (first,) = (process for process in found if process.ppid() not in parents)
    return first


@contextlib.contextmanager
def suspended(uid: str) -> Iterator[None]:
    """While a cluster's hub answers nobody."""
    first = ipcontroller_of(uid)
    processes = [first, *first.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):  # its server was deleted
                process.resume()


def groups(neutron: SimpleNamespace) -> dict[str, Any]:
    """The security groups of clusters, by name."""
    found = neutron.network.security_groups(project_id=neutron.project)
    return {group.name: group for group in found if group.name.startswith("griffin-")}


def rules(neutron: SimpleNamespace, name: str) -> set[tuple[int, int, str | None, str | None]]:
    """What lets whom in to which ports of TCP, in the group whose name ends so."""
    (group,) = (group for found, group in groups(neutron).items() if found.endswith(name))
    return {
        (rule["port_range_min"], rule["port_range_max"], rule["remote_ip_prefix"], rule["remote_group_id"])
        for rule in group.security_group_rules
        if rule["direction"] == "ingress"
    }
