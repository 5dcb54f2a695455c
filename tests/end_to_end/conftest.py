"""A user's shell on a cloud: an IPython folder of its own, and the griffin profile in it."""

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipyparallel as ipp
import openstack
import psutil
import pytest

from ..clouds import Cloud, OpenStackClient, plain_sdk
from ..relay import Relay

BIN = Path(sys.executable).parent
_profiles: dict[tuple[str, str], Path] = {}  # by cloud and name; see Shell.make_profile


class Shell:
    """Runs commands as a user would; none may print a traceback or outlive the test."""

    def __init__(self, folder: Path, cloud: Cloud) -> None:
        self.folder, self.cloud = folder, cloud
        self.ipython = folder / "ipython"
        self.ipython.mkdir()
        self.env = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(folder),
            "IPYTHONDIR": str(self.ipython),
            "OS_CLIENT_CONFIG_FILE": str(cloud.clouds_yaml),
            "OS_CLOUD": cloud.name,
        }
        self._started: list[subprocess.Popen[str]] = []

    def run(self, *command: str, status: int = 0, timeout: float = 0, **env: str) -> str:
        """What the command prints to both streams; checks its status, and that it explains itself."""
        done = subprocess.run(
            command,
            env={**self.env, **env},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=timeout or 60 + 30 * self.cloud.slowness,
        )
        assert done.returncode == status, f"{command} ended with {done.returncode}:\n{done.stdout}"
        assert "Traceback" not in done.stdout, done.stdout
        return done.stdout

    def start(self, *command: str) -> subprocess.Popen[str]:
        """A command in the foreground of a terminal of its own, which the test ends."""
        process = subprocess.Popen(
            command,
            env=self.env,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests' own may be ignored, by nohup
        )
        self._started.append(process)
        return process

    def profile(self, name: str = "griffin") -> Path:
        return self.ipython / f"profile_{name}"

    def make_profile(self, name: str = "griffin", extra: str = "") -> None:
        """What `ipp-griffin init` makes; each kind is made once by that command, and copied from then on."""
        made = _profiles.get((self.cloud.name, name))
        if made is None:
            self.run("ipp-griffin", "init", "--profile", name)
            made = _profiles[self.cloud.name, name] = Path(tempfile.mkdtemp(prefix="griffin-profile-"))
            atexit.register(shutil.rmtree, made)
            shutil.copytree(self.profile(name), made, dirs_exist_ok=True)
        else:
            shutil.copytree(made, self.profile(name), dirs_exist_ok=True)
        with (self.profile(name) / "ipcontroller_config.py").open("a") as f:
            f.write("c.HeartMonitor.period = 200\n")
        with (self.profile(name) / "ipcluster_config.py").open("a") as f:
            f.write(self.cloud.settings + extra)

    def cluster_files(self) -> list[str]:
        return sorted(str(p.relative_to(self.ipython)) for p in self.ipython.glob("profile_*/security/cluster-*.json"))

    def read_json(self, name: str) -> dict[str, Any]:
        """A file of the profile's security folder; empty while ipyparallel has not written it: it does so in place."""
        path = self.profile() / "security" / name
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            return dict(json.loads(path.read_text()))
        return {}

    def engine_sets(self) -> list[dict[str, Any]]:
        """Those of the cluster file."""
        return list(self.read_json("cluster-.json").get("engines", {}).get("sets", {}).values())

    def wait_until_connected(self, eventually: Callable[..., None], n: int) -> None:
        """Until the controller lists ``n`` engines."""
        eventually(lambda: self.read_json("ipcontroller-client.json"), "the controller")
        eventually(lambda: len(self.engine_ids()) == n, f"{n} engines")

    def engine_ids(self) -> list[int]:
        """What the controller lists now. A Client that waits can miss what changes while it connects, for ever."""
        with ipp.Client(str(self.profile() / "security" / "ipcontroller-client.json")) as rc:
            return rc.ids

    def controllers(self) -> list[int]:
        """Pids of the ipcontrollers of this shell's profiles."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if "ipcontroller" in " ".join(process.cmdline()) and process.environ().get("HOME") == str(self.folder):
                    found.append(process.pid)
        return found

    def assert_nothing_left(self) -> None:
        assert self.cloud.left_over() == []
        assert self.controllers() == []
        assert self.cluster_files() == []

    def close(self) -> None:
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        for pid in self.controllers():  # of a controller that was killed, the children
            with contextlib.suppress(ProcessLookupError):
                os.killpg(os.getpgid(pid), signal.SIGKILL)


@pytest.fixture
def bare_shell(cloud: Cloud, tmp_path: Path) -> Iterator[Shell]:
    """A shell without a griffin profile."""
    shell = Shell(tmp_path, cloud)
    try:
        yield shell
    finally:
        shell.close()


@pytest.fixture
def shell(bare_shell: Shell) -> Iterator[Shell]:
    """A shell with the griffin profile; the test must leave nothing in the cloud and no process."""
    bare_shell.make_profile()
    yield bare_shell
    bare_shell.assert_nothing_left()


@pytest.fixture(scope="module")
def shared_shell(shared_cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A shell with the griffin profile for all tests of a module, which must leave nothing at its end.

    A module starts its cluster in a fixture of its own on top of this one. Its tests share it: they only read, or put back
    what they change. What starts processes on one machine only belongs into one group of pytest-xdist: mark the module
    ``pytest.mark.xdist_group(__name__)``, or each worker makes a cluster of its own.
    """
    shell = Shell(tmp_path_factory.mktemp("shell"), shared_cloud)
    try:
        shell.make_profile()
        yield shell
        shell.assert_nothing_left()
    finally:
        shell.close()


def _shell_of(request: pytest.FixtureRequest) -> Shell:
    """The shell that the test shares with its module, or its own."""
    return request.getfixturevalue("shared_shell" if "shared_shell" in request.fixturenames else "shell")


def _cloud_of(request: pytest.FixtureRequest) -> Cloud:
    return request.getfixturevalue("shared_cloud" if "shared_cloud" in request.fixturenames else "cloud")


@pytest.fixture
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    """A shell of the same user on another machine: nothing but credentials."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    other = Shell(folder, _shell_of(request).cloud)
    yield other
    other.close()


@pytest.fixture
def proxy(shell: Shell) -> Iterator[Relay]:
    """All that the commands of the shell ask of the cloud."""
    with Relay() as proxy:
        shell.env |= {"http_proxy": proxy.url}
        yield proxy


@pytest.fixture
def openstack_client(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStackClient:
    """The plain ``openstack`` command on that cloud."""
    return OpenStackClient(_cloud_of(request), tmp_path)


@pytest.fixture
def connection(request: pytest.FixtureRequest) -> openstack.connection.Connection:
    """That cloud as a user of the plain SDK sees it."""
    cloud = _cloud_of(request)
    return plain_sdk(cloud.clouds_yaml, cloud.name)


@pytest.fixture
def neutron(connection: openstack.connection.Connection) -> SimpleNamespace:
    """Its networks."""
    return SimpleNamespace(network=connection.network, project=connection.current_project_id)


@pytest.fixture
def head(request, neutron):
    """A port with this machine's address and MAC address: to Neutron, this machine is a server of the project."""
    cloud = _cloud_of(request)
    network = next(n for n in neutron.network.networks() if not n.is_router_external)
    port = neutron.network.create_port(
        network_id=network.id,
        name="griffin-head",
        mac_address=mac_of(address_of(cloud)),
        fixed_ips=[{"ip_address": address_of(cloud)}],
    )
    yield port
    neutron.network.delete_port(port)


def address_of(cloud) -> str:
    """Of this machine, that servers know, and that an interface has."""
    return "127.0.0.1" if cloud.address.startswith("127.") else cloud.address


def mac_of(address: str) -> str:
    """Of the interface with this address."""
    return next(
        one.address
        for addresses in psutil.net_if_addrs().values()
        if any(a.family == socket.AF_INET and a.address == address for a in addresses)
        for one in addresses
        if one.family == psutil.AF_LINK
    )
