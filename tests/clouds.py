"""The clouds that the end-to-end tests run on: the dev cloud, or an entry of clouds.yaml (`--cloud NAME`).

Both have the same few attributes and methods, so that there is one body of tests. A test that needs more than every
cloud has says so by ``@pytest.mark.needs(...)``, and is left out, visibly, on a cloud that lacks it:

    faults     requests and servers can be disturbed from outside
    catalog    there are flavors of one and of four vCPUs and one that no host can fit, and images snapshot1, 2 and 10
    app, app-reader, app-rules, tiny, other, colleague    clouds.yaml has NAME-app (an application credential of the same project),
               NAME-app-reader (one with no role but reader), NAME-app-rules (one that may only GET /v2.1/servers and what is
               below), NAME-tiny (a project with a quota of 2 instances),
               NAME-other (another project), NAME-colleague (another user in the same project)
    address    it is known under which address servers reach this machine
    devcloud   a dev cloud: of a shape that no real one has, or where real services would show nothing more
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import openstack
import pytest
import yaml
from traitlets.config import Config, PyFileConfigLoader

from ipp_griffin.devcloud import DevCloud

REPO = Path(__file__).parents[1]
CLIENTS = ["python-openstackclient==8.3.0", "python-swiftclient==4.11.0"]
SIBLINGS = ("app", "app-reader", "app-rules", "tiny", "other", "colleague")
PREFIX = "griffin-test"  # of the names of containers that tests make on somebody's cloud
KINDS = ("server", "port", "security group", "floating ip", "keypair", "image", "network", "container")


class Faults(Protocol):
    """What disturbs requests and servers; the faults are those of `ipp_griffin.devcloud.faults`."""

    def set(self, *faults: Mapping[str, Any]) -> None: ...

    def clear(self) -> None: ...

    def unspent(self) -> list[dict[str, Any]]:
        """Those with a count that has not been used up."""
        ...


class OnDevCloud:
    """A dev cloud of its own for every test."""

    name = "devcloud"
    has = frozenset({"faults", "catalog", "address", *SIBLINGS, "devcloud"})
    too_big, four_cores = "dev.toobig", "dev.medium"
    address = "127.0.0.2"  # of this machine, as servers may call it
    slowness = 1  # how much longer a server takes to come up
    hang = (1, 2)  # seconds: a request's time-out that is long enough here, and a longer delay
    settings = ""  # lines for ipcluster_config.py

    def __init__(self, running: DevCloud) -> None:
        self.running = running
        self.faults: Faults = _DevCloudFaults(running)
        self.clouds_yaml = running.clouds_yaml

    def servers(self) -> list[str]:
        """The names of all servers that tests made."""
        return [str(server["name"]) for server in self.running.servers()]

    def containers(self) -> list[str]:
        """The names of all containers that tests made."""
        return [str(name) for name in self.running.containers()]

    def left_over(self) -> list[str]:
        """Whatever is there that was not before."""
        ports = [f"port {port.name}" for port in self.running.state.ports.values()]
        ports += [f"floating IP {floating.address}" for floating in self.running.state.floating_ips.values()]
        return self.servers() + self.containers() + self.running.security_groups() + ports


class _DevCloudFaults:
    def __init__(self, running: DevCloud) -> None:
        self.set, self.clear = running.faults.set, running.faults.clear
        self._snapshot = running.faults.snapshot

    def unspent(self) -> list[dict[str, Any]]:
        return [fault for fault in self._snapshot() if fault.get("count")]


class OnNamedCloud:
    """A project of an OpenStack cloud, and those of its siblings. What was there before the tests is none of their business.

    ``settings``: lines for ipcluster_config.py, such as the flavor. ``shared``: use projects in which others have servers.
    """

    slowness = 5
    engines_per_server = 1  # whatever the flavor: tests count servers

    def __init__(self, name: str, *, settings: str, shared: bool, folder: Path) -> None:
        self.name, self.shared = name, shared
        self.prefix = f"{PREFIX}-{secrets.token_hex(3)}"  # of this run alone
        self.settings = (
            f"c.GriffinEngineSetLauncher.engines_per_server = {self.engines_per_server}\n"
            f"{settings}\nc.GriffinCloud.container = {self.prefix!r}\n"
        )
        self.clouds_yaml = folder / "clouds.yaml"
        self.has = frozenset(_copy_clouds(name, self.clouds_yaml))
        by_id: dict[str, _Project] = {}
        for entry in (name, *(f"{name}-{s}" for s in sorted(self.has) if not s.startswith("app"))):
            project = _Project(entry, self.clouds_yaml, self.prefix)
            by_id.setdefault(project.id, project)
        self.projects = list(by_id.values())
        for project in self.projects:
            project.refuse(shared=shared)

    def describe(self) -> str:
        """What the tests will do there."""
        places = ", ".join(f"{project.name} ({len(project.before)} things are there now)" for project in self.projects)
        return (
            f"On cloud {self.name}, these tests create and delete: up to 8 servers at a time, named griffin-..., of the image and "
            f"flavor that the settings choose, and containers {self.prefix}-...; what others have is left alone. Projects: {places}. "
            "They try a wrong password, twice or so."
        )

    def servers(self) -> list[str]:
        """The names of all servers that tests made."""
        return [str(s.name) for project in self.projects for s in project.servers()]

    def containers(self) -> list[str]:
        """The names of all containers that tests made."""
        return [name for project in self.projects for name in project.containers()]

    def left_over(self) -> list[str]:
        """Whatever is there that was not before; in a shared project, of it only what tests made."""
        new = [] if self.shared else [thing for project in self.projects for thing in project.new()]
        return new or self.servers() + self.containers()

    def clean_up(self) -> None:
        """Delete what failed tests left."""
        for project in self.projects:
            project.clean_up(shared=self.shared)


class _Project:
    """What the tests see and do in the project of one entry of clouds.yaml."""

    def __init__(self, entry: str, clouds_yaml: Path, prefix: str) -> None:
        self._connection = plain_sdk(clouds_yaml, entry)
        self._prefix = prefix
        self.id = self._connection.current_project_id
        self.name = self._connection.current_project.name or self.id
        self._entry = entry
        self.before = set(self._things())

    def refuse(self, *, shared: bool) -> None:
        """Raise `pytest.UsageError` where others have servers, unless they are to be ``shared`` with."""
        theirs = sorted(thing for thing in self.before if thing.startswith("server "))
        tests = sorted(thing for thing in self.before if thing.startswith(f"container {PREFIX}-"))
        if tests:
            raise pytest.UsageError(
                f"Cloud {self._entry} has {', '.join(tests)}: of tests that run there now, or that were killed. "
                "Wait for them, or delete that, with the servers named griffin-... that belong to it."
            )
        if theirs and not shared:
            raise pytest.UsageError(
                f"Cloud {self._entry} has {', '.join(theirs)}: these tests delete what they make, and want a project "
                "without anybody's servers. Use another project, or add --cloud-shared (make: SHARED=1)."
            )

    def servers(self) -> list[Any]:
        """Those that tests made: the launchers write the prefix into the metadata."""
        found = self._connection.compute.servers()
        return [s for s in found if s.metadata.get("griffin:container") == self._prefix and s.status != "DELETED"]

    def containers(self) -> list[str]:
        """Those that tests made, by the names that launchers give."""
        pattern = re.compile(re.escape(self._prefix) + "-([0-9a-f]{12}|results)")
        return [c.name for c in self._connection.object_store.containers() if pattern.fullmatch(c.name)]

    def new(self) -> list[str]:
        return [thing for thing in self._things() if thing not in self.before]

    def clean_up(self, *, shared: bool) -> None:
        """In a project that is ``shared`` with others, these may have made something meanwhile: their user is in its description."""
        for server in self.servers():
            self._connection.compute.delete_server(server, ignore_missing=True)
        for server in self.servers():
            self._connection.compute.wait_for_delete(server, wait=600)
        new, of_user = self.new(), f", user {self._connection.current_user_id}"

        def may_go(found: Any) -> bool:
            return not shared or (found.description or "").endswith(of_user)

        for group in self._connection.network.security_groups(project_id=self.id):
            if f"security group {group.id}" in new and group.name.startswith("griffin-") and may_go(group):
                for port in self._connection.network.ports(project_id=self.id, security_group_ids=[group.id]):
                    others = [id for id in port.security_group_ids if id != group.id]
                    self._connection.network.update_port(port, security_groups=others)
                self._connection.network.delete_security_group(group, ignore_missing=True)
        for floating in self._connection.network.ips(project_id=self.id):
            if f"floating IP {floating.id}" in new and may_go(floating):
                self._connection.network.delete_ip(floating, ignore_missing=True)
        for container in self.containers():
            for stored in self._connection.object_store.objects(container):
                self._connection.object_store.delete_object(stored, container=container)
            self._connection.object_store.delete_container(container)

    def _things(self) -> list[str]:
        network = self._connection.network
        return [
            *(f"server {s.name}" for s in self._connection.compute.servers() if s.status != "DELETED"),
            *(f"port {p.id}" for p in network.ports(project_id=self.id)),
            *(f"security group {g.id}" for g in network.security_groups(project_id=self.id)),
            *(f"floating IP {f.id}" for f in network.ips(project_id=self.id)),
            *(f"container {c.name}" for c in self._connection.object_store.containers()),
        ]


class OnRealCloud(OnNamedCloud):
    """The services of ``tests/openstack/realcloud``, on this machine: they can be disturbed."""

    engines_per_server = 0  # as the flavor has vCPUs
    too_big, four_cores = "m1.toobig", "m1.medium"
    hang = (4, 6)
    address = "10.77.0.2"

    def __init__(self, name: str, *, state: Path, **options: Any) -> None:
        super().__init__(name, **options)
        self.has |= {"faults", "catalog", "address"}
        self.faults: Faults = _FaultFile(state / "faults.json")


class _FaultFile:
    """The faults of ``tests/openstack/realcloud/extras/realcloud/fault.py``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clear()

    def set(self, *faults: Mapping[str, Any]) -> None:
        with self.path.open("a+") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            f.truncate(0)
            json.dump(faults, f)

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)

    def unspent(self) -> list[dict[str, Any]]:
        return [fault for fault in json.loads(self.path.read_text()) if fault.get("count")]


Cloud = OnDevCloud | OnNamedCloud


def plain_sdk(clouds_yaml: Path, entry: str) -> openstack.connection.Connection:
    """The tests' own connection to an entry of clouds.yaml: never through a proxy, which a test may have for what it tests."""
    config = openstack.config.OpenStackConfig(config_files=[str(clouds_yaml)], load_envvars=False)
    connection = openstack.connection.Connection(config=config.get_one(entry))
    connection.session.session.trust_env = False
    return connection


def settings_of(cloud: Cloud) -> Config:
    """The cloud's settings, for a Cluster that loads no profile."""
    path = cloud.clouds_yaml.with_name("settings.py")
    path.write_text("c = get_config()\n" + cloud.settings)
    return PyFileConfigLoader(path.name, str(path.parent)).load_config()


def _copy_clouds(name: str, target: Path) -> list[str]:
    """The entry ``name`` and its siblings, from wherever this user has them, in one file: tests run in an empty home.

    Which siblings there are.
    """
    found = openstack.config.OpenStackConfig().cloud_config["clouds"]
    if name not in found:
        others = ", ".join(sorted(set(found) - {"defaults"})) or "none"
        raise pytest.UsageError(f"clouds.yaml has no cloud {name!r}. It has: {others}.")
    entries = {n: found[n] for n in (name, *(f"{name}-{s}" for s in SIBLINGS)) if n in found}
    target.touch(0o600)
    target.write_text(yaml.safe_dump({"clouds": entries}))
    return [s for s in SIBLINGS if f"{name}-{s}" in entries]


class OpenStackClient:
    """The plain ``openstack`` command, in a virtual environment of its own."""

    def __init__(self, cloud: Cloud, home: Path) -> None:
        self.cloud, self.home = cloud, home

    def __call__(self, *arguments: str) -> str:
        """What the command prints; it must succeed."""
        ran = subprocess.run(
            [client_tools() / "openstack", "--os-cloud", self.cloud.name, *arguments],
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "LANG": "C.UTF-8",
                "OS_CLIENT_CONFIG_FILE": str(self.cloud.clouds_yaml),
            },
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def everything(self) -> dict[str, str]:
        """What it lists, of each kind of thing that a cluster could leave behind."""
        return {kind: self(*kind.split(), "list", "-f", "csv") for kind in KINDS}


def client_tools() -> Path:
    """The folder of the real ``openstack`` and ``swift`` commands, in a virtual environment of their own.

    It is kept in the repository's .tools, one for each set of versions.
    """
    key = "-".join(requirement.split("==")[1] for requirement in CLIENTS)
    venv = REPO / ".tools" / "openstackclient" / f"{key}-py{sys.version_info[0]}.{sys.version_info[1]}"
    venv.parent.mkdir(parents=True, exist_ok=True)
    with (venv.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the tests may be making it
        if not (venv / "complete").exists():
            subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
            pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, *CLIENTS], check=True)
            (venv / "complete").touch()
    return venv / "bin"
