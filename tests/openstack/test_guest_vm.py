"""The agent under a real kernel, systemd and cloud-init, on virtual machines: run by ``make test-guest-vm``.

Emulated, a server takes a minute to its engine; each test is one server's life.
"""

import asyncio
import functools
import getpass
import http.server
import os
import re
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import ipyparallel as ipp
import pytest
from traitlets.config import Config

from ipp_griffin.controller import heartbeats
from ipp_griffin.launchers import GriffinEngineSetLauncher

from ..conftest import assert_empty, running_cloud
from .virtual_machines import GUEST, HOST, METADATA, STATE, VirtualMachines

pytestmark = [pytest.mark.guest_vm, pytest.mark.timeout(2400)]
AGENT = "ipp-griffin-agent.service"
# Emulated beside other work, a server takes minutes for each phase of its start.
PATIENT = dict.fromkeys(("start_timeout", "agent_timeout", "connection_timeout"), 1500)


@pytest.fixture(autouse=True, scope="module")
def own_network():
    """Controllers listen on every address, so these tests run only inside the namespace, which has METADATA for an address."""
    with socket.socket() as probe:
        try:
            probe.bind((METADATA, 0))
        except OSError:
            why = "not in the virtual machines' network namespace"
        else:
            why = "" if (STATE / "stamp").exists() else f"no image in {STATE}"
    if why:
        pytest.fail(f"{why}: run `make test-guest-vm`, as root on Debian", pytrace=False)


@pytest.fixture
def machines(monkeypatch):
    """The class of what the dev cloud boots: tests set its attributes."""

    class Machines(VirtualMachines):
        made: list[VirtualMachines] = []

        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.made.append(self)

        @classmethod
        def one(cls):
            """The only virtual machine."""
            (machine,) = cls.made[-1].all.values()
            return machine

    monkeypatch.setattr("ipp_griffin.devcloud.app.Guests", Machines)
    return Machines


@pytest.fixture
def guest_cloud(machines, tmp_path):
    """The dev cloud whose servers are virtual machines; nothing may be left on it."""
    with running_cloud(tmp_path / "cloud", subnet="10.0.2.0/24") as cloud:
        yield cloud
        assert_empty(cloud)


@pytest.fixture
def start(machines, guest_cloud, tmp_path):
    """``await start(**settings)``: a Cluster with one engine on a virtual machine, and a client of it.

    Its heartbeat is slow enough for an emulated server, and fast enough that engines see within a minute that their
    controller has gone.
    """
    clusters = []

    async def begin(**settings):
        host = METADATA if machines.metadata else HOST
        store_url = guest_cloud.url.replace("127.0.0.1", host)
        config = Config({"GriffinCloud": {"store_url": store_url}, "GriffinEngineSetLauncher": {**PATIENT, **settings}})
        cluster = ipp.Cluster(
            engines="griffin",
            controller="griffin",
            n=1,
            profile_dir=str(tmp_path / "profile"),
            load_profile=False,
            config=config,
            controller_args=["--ip=*", f"--location={host}", "--HeartMonitor.period=1000"],
        )
        clusters.append(cluster)
        try:
            await cluster.start_cluster()
        except Exception:
            print(machines.one().console.read_text(errors="replace")[-8000:])
            raise
        return cluster, await cluster.connect_client()

    yield begin
    for cluster in clusters:
        cluster.stop_cluster_sync()


async def until(condition, what, machines, timeout=1500):
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            print(machines.one().console.read_text(errors="replace")[-8000:])
            pytest.fail(f"not within {timeout} s: {what}")
        await asyncio.sleep(0.5)


def output_of(rc, *command):
    return rc[-1].apply_sync(subprocess.getoutput, " ".join(command)).strip()


def pid():
    import os

    return os.getpid()


pid.__module__ = "__main__"  # engines have no module of this name


def generation(rc):
    """(whose engine it is, which one in this place) out of the name of the only engine."""
    (id,) = rc.ids
    place, _, number = rc._engines[id].rpartition("-")
    return place, int(number)


async def test_a_servers_life(start, machines, guest_cloud):
    """Unit installed, engine unprivileged; back under new names after a crash and, with the object that is kept on disk,
    after a reset; off when the controller has been gone for the grace time."""
    cluster, rc = await start(controller_gone_timeout=15)
    assert rc.ids == [0]
    assert rc[0].apply_sync(getpass.getuser) == "ipp"
    assert rc[0].apply_sync(os.getuid) != 0
    assert output_of(rc, "systemctl is-active", AGENT) == "active"
    assert output_of(rc, "systemctl is-enabled", AGENT) == "enabled"
    assert output_of(rc, "systemctl is-system-running") in ("running", "starting")
    assert "sudo" not in output_of(rc, "id")

    place, born = generation(rc)
    first = rc[0].apply_sync(os.getpid)
    rc[0].apply_async(os.kill, first, signal.SIGKILL)
    await until(lambda: len(rc.ids) == 1 and rc.ids != [0], "the engine is back after a crash", machines)
    assert rc[-1].apply_sync(os.getpid) != first
    again, reborn = generation(rc)
    assert again == place and reborn > born
    boot = output_of(rc, "cat /proc/sys/kernel/random/boot_id")

    before = rc.ids
    guest_cloud.faults.set(service="object-store", methods=["GET"], path=r"/connection\.json$", status=404)
    machines.one().reset()
    await until(lambda: len(rc.ids) == 1 and rc.ids != before, "the engine is back after a reset", machines)
    assert output_of(rc, "cat /proc/sys/kernel/random/boot_id") != boot
    assert rc[-1].apply_sync(getpass.getuser) == "ipp"
    again, after_reset = generation(rc)
    assert again == place and after_reset > reborn

    rc.close()
    gone = time.monotonic()
    os.killpg(os.getpgid(cluster.controller.process.pid), signal.SIGKILL)
    await until(lambda: machines.one().process.poll() is not None, "the server is off", machines)
    assert time.monotonic() - gone >= 15
    assert machines.one().process.returncode == 0
    console = machines.one().console.read_text(errors="replace")
    assert re.search(r"ipp-griffin: \S+Z switching this server off", console)


@pytest.fixture
def index():
    """The port, on the namespace, of a package index with ipyparallel and what it needs."""
    wheels = functools.partial(_Quiet, directory=str(STATE / "wheels"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), wheels)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


async def test_the_metadata_service_an_image_that_has_only_python_and_the_end_of_a_life(
    start, machines, guest_cloud, index
):
    """Of one server: each takes a minute or two to boot."""
    # Instead of a config drive, the metadata service; ipyparallel comes from the user's own place.
    machines.metadata, machines.image = True, "bare"
    # An emulated CPU compiles for minutes what no engine imports.
    place = ["--no-index", "--no-compile", f"--find-links=http://{METADATA}:{index}", "--trusted-host", METADATA]
    _, rc = await start(pip_args=place, max_lifetime=1800, log_interval=1)
    assert "/dev/vdb" not in output_of(rc, "ls /dev/vd*")
    assert "DataSourceOpenStack" in output_of(rc, "cat /run/cloud-init/cloud-id /run/cloud-init/result.json")
    assert rc[0].apply_sync(os.getenv, "GRIFFIN_SLOT") == "0"
    has = "import importlib.util as u; print(*map(u.find_spec, ['pip', 'ensurepip', 'ipyparallel']))"
    assert output_of(rc, f'/usr/bin/python3 -c "{has}"') == "None None None"
    assert "/venv/bin/python" in output_of(rc, "readlink -f /proc/self/exe; tr '\\0' ' ' < /proc/$PPID/cmdline")
    assert rc[0].apply_sync(getpass.getuser) == "ipp"

    # At its expiry, by the object store's clock, the server powers itself off, while its controller lives.
    guest_cloud.state.clock = lambda: time.time() + 1800
    rc[0].apply_sync(os.write, 2, b"something to report: the answer tells the time\n")
    await until(lambda: machines.one().process.poll() is not None, "the server is off", machines)
    assert machines.one().process.returncode == 0
    assert "switching this server off" in machines.one().console.read_text(errors="replace")
    rc.close()


async def test_a_server_whose_agent_breaks_whenever_it_starts_is_switched_off(start, machines, tmp_path, monkeypatch):
    """By systemd: the agent itself, which ends idle servers and those whose life is over, can't."""
    settings = GriffinEngineSetLauncher.for_every_agent
    broken = {"controller_gone_timeout": "no number"}  # not needed before there is no controller
    monkeypatch.setattr(GriffinEngineSetLauncher, "for_every_agent", lambda self: {**settings(self), **broken})
    (tmp_path / "profile").mkdir()
    (tmp_path / "profile" / "ipengine_config.py").write_text("c.IPEngine.max_heartbeat_misses = 10")
    cluster, rc = await start()
    os.killpg(os.getpgid(cluster.controller.process.pid), signal.SIGKILL)
    console = machines.one().console
    await until(lambda: machines.one().process.poll() is not None, "the server is off", machines)
    assert console.read_text(errors="replace").count("the agent broke: TypeError") >= 5
    rc.close()


async def test_a_controller_on_a_server_is_back_after_a_reset_with_its_ports_and_keys_and_its_engine_carries_on(
    machines, guest_cloud, tmp_path, monkeypatch
):
    """As a unit of systemd. A reset ends no connection; the engine is a local one, configured as one on a server is."""
    machines.ports = range(20000, 20020)
    monkeypatch.setattr(guest_cloud.state, "_address", lambda network: GUEST)
    store_url = guest_cloud.url.replace("127.0.0.1", HOST)
    settings = {"reach_timeout": 1500, **PATIENT}
    cluster = ipp.Cluster(
        controller="griffin-server",
        engines="local",
        profile_dir=str(tmp_path / "profile"),
        load_profile=False,
        config=Config({"GriffinCloud": {"store_url": store_url}, "GriffinServerControllerLauncher": settings}),
    )
    try:
        await cluster.start_controller()
        # Beside other work, an emulated server takes minutes to boot.
        patient = "get_config().IPEngine.max_heartbeat_misses = 100_000"
        config = heartbeats.for_engine(patient, {heartbeats.MARK: True})
        Path(cluster.profile_dir, "ipengine_config.py").write_text(config)
        await cluster.start_engines(1)
        console = machines.one().console
        assert "the agent is installed as ipp-griffin-agent.service" in console.read_text(errors="replace")

        def engines():
            """Id -> process, as a client sees them that has the file of before."""
            try:
                with ipp.Client(cluster.controller.connection_files["client"], timeout=10) as rc:
                    return dict(zip(rc.ids, rc[:].apply_async(pid).get(10), strict=True)) if rc.ids else {}
            except (OSError, TimeoutError):
                return {}

        await until(engines, "an engine answers", machines)
        before = engines()
        machines.one().reset()
        again = re.compile(r"ipp-griffin: \S+Z engines: ipcontroller answers at 10\.0\.2\.15:20000, again")
        await until(lambda: again.search(console.read_text(errors="replace")), "it is back", machines)
        await until(engines, "the engine answers again", machines)
        assert engines() == before
    finally:
        await cluster.stop_cluster()
