"""The controller on a server of its own, `--controller=griffin-server`, and `ipp-griffin connect` from other machines.

The tests of this module share one cluster; what ends one is in test_server_controller_ends.py. What `connect` refuses and undoes:
tests/launchers/test_connect.py. Wrong settings: tests/launchers/test_server_controller.py.
"""

import json
import os
import shutil
import stat
from types import SimpleNamespace
from unittest import mock

import ipyparallel as ipp
import openstack
import psutil
import pytest

from ipp_griffin.devcloud.guests import decode

from .commands import container, griffin
from .server_controllers import (
    START,
    STOP,
    client_file,
    computes,
    groups,
    ipcontroller_of,
    pids,
    rules,
    setting,
    suspended,
    uid_of,
    wait_for_answers,
)

pytestmark = pytest.mark.xdist_group(__name__)

ENGINES, SERVERS = 3, 2
OPTIONS = ("--GriffinCloud.manage_security_group=True", "--GriffinEngineSetLauncher.engines_per_server=2", "--debug")


@pytest.fixture(scope="module")
def cluster(shared_shell):
    """Three engines on two servers, and a controller on a third one, which clients reach by a floating IP where the cloud has such.

    ``output``: what its start said; ``uid``; ``flavor``: its controller's, which is not the engines'.
    """
    on_devcloud = shared_shell.cloud.name == "devcloud"
    flavor = "dev.medium" if on_devcloud else "m1.medium"
    own = setting(flavor=flavor, **({"floating_ip": "auto"} if on_devcloud else {}))
    output = shared_shell.run(*START, "-n", str(ENGINES), *OPTIONS, *own)
    keys = keys_in(json.loads(client_file(shared_shell).read_text()))
    yield SimpleNamespace(output=output, uid=uid_of(shared_shell), flavor=flavor)
    shown = {"stop": shared_shell.run(*STOP, "--debug"), **log_files(shared_shell)}
    assert [name for name in shown if name.startswith("ipcontroller-")]  # kept, though its server is gone
    assert found_in(shown, keys) == []


def keys_in(connection) -> dict[str, str]:
    """Those in a connection file."""
    return {name: connection[name] for name in ("key", "curve_serverkey")}


def log_files(shell) -> dict[str, str]:
    return {path.name: path.read_text() for path in (shell.profile() / "log").iterdir() if path.is_file()}


def found_in(shown, keys) -> list[tuple[str, str]]:
    """Which key is where."""
    assert all(len(key) > 30 for key in keys.values())
    return [(where, name) for where, text in shown.items() for name, key in keys.items() if key in text]


def test_it_runs_on_a_server_and_commands_tell_of_it(shared_shell, cluster):
    assert "The controller runs on server griffin-" in cluster.output
    assert shared_shell.controllers() == []  # none is a process of this user's machine
    computes(shared_shell, ENGINES)
    for kind in ("client", "engine"):
        path = shared_shell.profile() / "security" / f"ipcontroller-{kind}.json"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (found,) = json.loads(griffin(shared_shell, "ps", container(shared_shell), "--json"))
    servers = {server["engine_set"]: (server["phase"], server["flavor"]) for server in found["servers"]}
    assert servers.pop("controller") == ("controller", cluster.flavor)
    assert [phase for phase, _ in servers.values()] == ["engines"]
    assert (len(found["servers"]), found["engines"], found["engines_registered"]) == (1 + SERVERS, ENGINES, ENGINES)
    logs = griffin(shared_shell, "logs", container(shared_shell), "griffin")
    assert "ipcontroller answers at" in logs


def test_its_security_group_lets_clients_and_engines_in_to_their_own_ports_and_nobody_else(
    shared_shell, cluster, neutron
):
    (engines,) = (group.id for name, group in groups(neutron).items() if name.endswith("-engines"))
    files = {kind: shared_shell.read_json(f"ipcontroller-{kind}.json") for kind in ("client", "engine")}
    by_whom = {"client": set(), "engine": set()}
    for first, last, prefix, group in rules(neutron, "-controller"):
        assert (group == engines and prefix is None) or (group is None and prefix.endswith("/32"))
        by_whom["engine" if group else "client"] |= set(range(first, last + 1))
    names = ["registration", "control", "mux", "task", "iopub", "notification", "hb_ping", "hb_pong", "broadcast"]
    for kind, ports in by_whom.items():
        named = [files[kind].get(name) for name in names]
        assert ports == {int(p) for port in named if port for p in (port if isinstance(port, list) else [port])}


@pytest.mark.needs("devcloud")
def test_clients_reach_it_by_a_floating_ip_and_engines_by_its_own_address(shared_shell, cluster, neutron):
    (floating,) = neutron.network.ips(project_id=neutron.project)
    client, engine = (shared_shell.read_json(f"ipcontroller-{kind}.json")["interface"] for kind in ("client", "engine"))
    assert client == f"tcp://{floating.floating_ip_address}"
    assert engine == f"tcp://{floating.fixed_ip_address}"


@pytest.mark.needs("devcloud")
def test_no_key_of_it_is_shown_anywhere(shared_shell, cluster):
    """Keys are in connection files and in private objects only: not in user-data, metadata, arguments, consoles, logs or reports. All
    is at DEBUG; the fixture looks at what the stop says."""
    state = shared_shell.cloud.running.state
    (stored,) = (one.objects for (_, name), one in state.containers.items() if name.endswith(cluster.uid))
    keys = json.loads(stored["controller/connection.json"].data)["controller"]["keys"]
    assert sorted(keys) == ["curve_public", "curve_secret", "session"]
    logs = griffin(shared_shell, "logs", container(shared_shell), cluster.uid)
    shown = {"start": cluster.output, "logs": logs, **log_files(shared_shell)}
    for server in state.servers.values():
        shown[f"user-data of {server.name}"] = decode(server.user_data).decode()
        shown[f"metadata of {server.name}"] = json.dumps([server.metadata, server.tags])
        shown[f"console of {server.name}"] = state.console(server.id, None)
    for name, thing in stored.items():
        if not name.endswith(("connection.json", "client.json", "/handover")):
            shown[name] = thing.data.decode()
    for process in psutil.process_iter(["cmdline"]):
        shown[f"arguments of {process.pid}"] = " ".join(process.info["cmdline"] or ())
    assert found_in(shown, keys) == []


# --- from another machine


def test_another_machine_connects_again_and_again_and_under_another_name(shared_shell, cluster, elsewhere):
    connect = ("connect", container(shared_shell), "griffin")
    output = elsewhere.run("ipp-griffin", *connect)
    assert 'can be used from here: ipp.Client(profile="griffin").' in output
    griffin(elsewhere, *connect)
    griffin(elsewhere, *connect, "--cluster-id=mine")
    assert elsewhere.cluster_files() == [
        "profile_griffin/security/cluster-.json",
        "profile_griffin/security/cluster-mine.json",
    ]
    computes(elsewhere, ENGINES)
    mine = {"profile": "griffin", "cluster_id": "mine"}
    with mock.patch.dict(os.environ, elsewhere.env):
        with ipp.Client(**mine) as rc:
            assert rc.ids == list(range(ENGINES))
        cluster = ipp.Cluster.from_file(**mine)
    assert (cluster.cluster_id, cluster.controller.running) == ("mine", True)


def test_a_connect_that_fails_leaves_neither_file_nor_profile_nor_rule(shared_shell, cluster, elsewhere, neutron):
    before = rules(neutron, "-controller")
    shutil.rmtree(elsewhere.ipython)
    options = (container(shared_shell), "--client-address=203.0.113.7", "--timeout=1")
    with suspended(cluster.uid):
        output = elsewhere.run("ipp-griffin", "connect", "griffin", *options, status=1)
    assert "Its security group lets in 203.0.113.7; if the cloud sees another one, say --client-address" in output
    assert rules(neutron, "-controller") == before
    assert list(elsewhere.ipython.iterdir()) == []


@pytest.mark.needs("devcloud")
def test_a_machine_that_connects_can_start_more_engines_on_the_cloud_and_end_them(
    shared_shell, cluster, elsewhere, neutron
):
    """They are in the cluster's security group, though nothing on that machine says that it has any."""
    griffin(elsewhere, "connect", "griffin")
    elsewhere.run("ipcluster", "engines", "--profile=griffin", "--daemonize", "-n", "1")
    assert len(shared_shell.engine_ids()) == ENGINES + 1
    ids = {name.rpartition("-")[2]: group.id for name, group in groups(neutron).items()}
    ports = neutron.network.ports(project_id=neutron.project)
    servers = [port.security_group_ids for port in ports if port.device_owner.startswith("compute")]
    assert sorted(servers) == sorted([[ids["controller"]], *[[ids["engines"]]] * (SERVERS + 1)])
    there = ipp.Cluster.from_file(profile_dir=str(elsewhere.profile()))
    (added,) = (name for name, engine_set in there.engines.items() if engine_set.n == 1)
    there.stop_engines_sync(added)
    assert len(shared_shell.cloud.servers()) == 1 + SERVERS


# --- it comes back


def test_engines_keep_their_ids_and_processes_when_ipcontroller_is_killed(shared_shell, cluster, eventually):
    """It comes back with the same ports and keys; a client that was connected goes on, too."""
    before = client_file(shared_shell).read_text()
    with ipp.Client(str(client_file(shared_shell))) as rc:
        processes = pids(rc)
        assert len(processes) == ENGINES
        ipcontroller_of(cluster.uid).kill()
        assert wait_for_answers(shared_shell, eventually, ENGINES) == processes
        assert pids(rc) == processes
    assert client_file(shared_shell).read_text() == before
    logs = griffin(shared_shell, "logs", container(shared_shell), "griffin")
    assert "killed by signal 9" in logs


@pytest.mark.needs("devcloud")
def test_after_a_reboot_of_its_server_it_is_back_and_engines_carry_on(shared_shell, cluster, eventually):
    with ipp.Client(str(client_file(shared_shell))) as rc:
        processes = pids(rc)
    first = ipcontroller_of(cluster.uid)
    with openstack.connect(cloud="devcloud") as connection:
        (server,) = connection.compute.servers(name="-controller-")
        connection.compute.reboot_server(server, "HARD")
    eventually(lambda: not first.is_running(), "the reboot")
    assert wait_for_answers(shared_shell, eventually, ENGINES) == processes
    eventually(lambda: " controller: 1, engines: 2 " in griffin(shared_shell, "ps"), "its agent says so")
