"""A controller on a server that this machine reaches through an SSH gateway only: a real `ssh` towards a real SSH server, on loopback.

The tests of this module share one cluster. What `ssh` says and does, and what becomes of it: tests/controller/test_ssh_tunnel.py and
tests/launchers/test_server_controller.py.
"""

import os
import re
import shutil
import signal
from pathlib import Path
from unittest import mock

import ipyparallel as ipp
import psutil
import pytest
from traitlets.config import Config

from ..ssh_gateway import ssh_gateway
from .commands import griffin
from .server_controllers import START, computes, rules, setting, suspended, uid_of

# Real services would show nothing more: what goes through a tunnel is TCP.
pytestmark = [pytest.mark.needs("devcloud"), pytest.mark.xdist_group(__name__)]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with ssh_gateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


def with_ssh(shell, gateway, **whose):
    """That shell, which has an `ssh` of its own; see `Gateway.path`."""
    others = [folder for folder in shell.env["PATH"].split(os.pathsep) if not folder.startswith(str(gateway.folder))]
    shell.env["PATH"] = os.pathsep.join([gateway.path(**whose), *others])
    return shell


@pytest.fixture(scope="module")
def here(shared_shell, gateway):
    """The machine that starts the cluster, and that has a tunnel to it until the stop."""
    shell = with_ssh(shared_shell, gateway)
    shell.run(*START, "-n", "1", "--GriffinCloud.manage_security_group=True", *setting(ssh_server=gateway.name))
    yield shell
    stop(shell)
    assert gateway.tunnels() == []


def stop(shell, **which):
    """What `ipcluster stop` does on that machine."""
    with mock.patch.dict(os.environ, shell.env):
        ipp.Cluster.from_file(profile="griffin", **which).stop_cluster_sync()


@pytest.fixture
def elsewhere(elsewhere, gateway):
    """Another machine with that `ssh`; it is switched off at the end."""
    before = gateway.tunnels()
    yield with_ssh(elsewhere, gateway)
    for pid in set(gateway.tunnels()) - set(before):
        tunnel = psutil.Process(pid)
        folder = folder_of(tunnel.cmdline())
        tunnel.kill()
        shutil.rmtree(folder)


def folder_of(command: list[str]) -> str:
    """What the tunnel of that `ssh` is on record by."""
    return str(Path(command[command.index("-E") + 1]).parent)


def ids_from_file(shell) -> list[int]:
    """The engines that a Client sees which `Cluster.from_file` makes on that machine."""
    with mock.patch.dict(os.environ, shell.env), ipp.Cluster.from_file(profile="griffin").connect_client_sync() as rc:
        return list(rc.ids)


def test_clients_here_and_elsewhere_reach_it_through_the_gateway(here, elsewhere, gateway):
    """CurveZMQ is on: with ipyparallel's own tunnels no task would arrive."""
    info = here.read_json("ipcontroller-client.json")
    assert (info["interface"], info["ssh"]) == ("tcp://127.0.0.1", "")
    computes(here)
    before = len(gateway.tunnels())
    elsewhere.run("ipp-griffin", "connect", "griffin")
    computes(elsewhere)
    griffin(elsewhere, "connect", "griffin")  # the first tunnel is replaced
    computes(elsewhere)
    assert len(gateway.tunnels()) == before + 1
    for path in (elsewhere.profile() / "security").glob("ipcontroller-*"):
        path.unlink()
    assert ids_from_file(elsewhere) == [0]  # fetches the files, with another tunnel
    assert len(gateway.tunnels()) == before + 1


def test_with_security_groups_it_is_the_gateway_that_is_let_in(here, elsewhere, neutron):
    before = rules(neutron, "-controller")
    assert {address for _, _, address, _ in before if address} == {"127.0.0.1/32"}
    griffin(elsewhere, "connect", "griffin")
    assert rules(neutron, "-controller") == before  # it was let in before


def test_after_a_tunnel_has_ended_the_cluster_opens_another(here, gateway):
    """This machine was rebooted, or moved."""
    (pid,) = gateway.tunnels()
    psutil.Process(pid).kill()
    assert ids_from_file(here) == [0]
    assert len(gateway.tunnels()) == 1
    computes(here)


def test_a_connect_that_is_interrupted_leaves_no_tunnel_and_no_file(here, elsewhere, gateway, eventually):
    """Ctrl-C, while the hub does not answer; SIGTERM, or a closed terminal: tests/launchers/test_connect.py."""
    before = gateway.tunnels()
    with suspended(uid_of(here)):
        connecting = elsewhere.start("ipp-griffin", "connect", "griffin", "--timeout=60")
        eventually(lambda: len(gateway.tunnels()) == len(before) + 1, "a tunnel that waits")
        connecting.send_signal(signal.SIGINT)
        assert connecting.wait(60) == 128 + signal.SIGINT
    assert gateway.tunnels() == before
    assert not elsewhere.profile().exists()


def test_the_controllers_own_server_is_a_gateway_whose_key_nobody_could_know_until_a_stop(
    here, elsewhere, gateway, eventually, monkeypatch
):
    """Servers of the dev cloud have no SSH server: their addresses lead to the one that is there, from which ports are forwarded all
    the same. The stop is from elsewhere, which is about to connect again just then: that is not undone."""
    with_ssh(elsewhere, gateway, known=False)
    monkeypatch.setenv("PATH", elsewhere.env["PATH"])
    monkeypatch.setenv("IPYTHONDIR", str(here.ipython))
    config = Config(
        {"GriffinServerControllerLauncher": {"ssh_server": "me@"}, "GriffinCloud": {"key_name": "griffin-key"}}
    )
    own = {"profile": "griffin", "controller": "griffin-server", "cluster_id": "own"}
    cluster = ipp.Cluster(**own, n=1, config=config)
    cluster.start_cluster_sync()
    griffin(elsewhere, "connect", "griffin/own")
    used = []
    for each in (here, elsewhere):
        computes(each, cluster_id="own")
        used += tunnels_of(each)
    assert ["me@127.80." in command[-1] for command in commands_of(used)] == [True, True]

    with suspended(uid_of(here, "own")):
        again = elsewhere.start("ipp-griffin", "connect", "griffin/own", "--timeout=5")
        eventually(lambda: len(tunnels_of(elsewhere)) == 2, "another tunnel")
        used += tunnels_of(elsewhere)
        stop(elsewhere, cluster_id="own")
        assert again.wait(90) == 1
        assert re.search("does not reach it|was stopped meanwhile", "".join(again.stdout))
    assert not list(elsewhere.ipython.glob("profile_*/security/*.json"))
    cluster.stop_cluster_sync()
    assert not [tunnel for tunnel in used if Path(tunnel).exists()]
    assert commands_of(used) == []


def commands_of(tunnels: list[str]) -> list[list[str]]:
    """The `ssh` of each that runs."""
    running = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [command for command in running if "ExitOnForwardFailure=yes" in command and folder_of(command) in tunnels]


def tunnels_of(shell) -> list[str]:
    """What is on record of that machine's, to the cluster of that id."""
    return list(shell.read_json("cluster-own.json")["controller"]["state"]["tunnels"])
