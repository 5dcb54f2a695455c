"""How clusters whose controller is on a server begin and end: each test has one of its own. What is found when they run: test_server_controller.py."""

import os
import signal

import ipyparallel as ipp
import psutil
import pytest
from traitlets.config import Config

from .commands import container, griffin
from .server_controllers import ON_SERVER, START, STOP, computes, groups, setting


def test_a_cluster_outlives_its_launcher_and_is_used_and_stopped_from_another_machine(
    shell, elsewhere, eventually, neutron
):
    launcher = shell.start(*ON_SERVER, "-n", "1", "--GriffinCloud.manage_security_group=True")
    shell.wait_until_connected(eventually, 1)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    griffin(elsewhere, "connect", container(shell), "griffin")
    computes(elsewhere)
    elsewhere.run(*STOP)
    elsewhere.assert_nothing_left()
    assert groups(neutron) == {}
    ipp.Cluster.from_file(profile_dir=str(shell.profile())).stop_cluster_sync()  # forgets it here, too


@pytest.mark.needs("devcloud")
def test_in_python_and_on_networks_of_their_own_until_nobody_has_anything_to_do(
    shell, neutron, monkeypatch, eventually
):
    networks = {}
    for name, cidr in (("head", "127.91.0.0/24"), ("lab", "127.92.0.0/24")):
        networks[name] = neutron.network.create_network(name=name).id
        neutron.network.create_subnet(network_id=networks[name], ip_version=4, cidr=cidr)
    config = Config(
        {
            "GriffinServerControllerLauncher": {"network": networks["head"], "idle_timeout": 40},
            "GriffinEngineSetLauncher": {"network": networks["lab"]},
        }
    )
    monkeypatch.setenv("IPYTHONDIR", str(shell.ipython))
    cloud = shell.cloud.running
    with ipp.Cluster(profile="griffin", controller="griffin-server", engines="griffin", n=1, config=config) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32]
        servers = {server["name"].split("-")[2]: server["address"] for server in cloud.servers()}
        assert servers.pop("controller").startswith("127.91.0.")
        assert [address.rpartition(".")[0] for address in servers.values()] == ["127.92.0"]

        # Then the cluster is idle: its engines end, and its controller after them.
        (engine,) = rc[:].apply_sync(os.getpid)
        uid = rc.cluster.controller.uid
        (stored,) = cloud.state.containers.values()
        eventually(
            lambda: [
                name for name in list(stored.objects) if name.startswith("controller/") and name.endswith("-gone")
            ],
            "the controller's end",
            timeout=150,
        )
        eventually(lambda: not psutil.pid_exists(engine), "the engine's end")
        assert "no engine has had anything to do for 40 s (idle_timeout)" in griffin(shell, "logs", uid)
    shell.assert_nothing_left()
    for network in networks.values():
        neutron.network.delete_network(network)


@pytest.mark.needs("devcloud")
def test_a_wrong_setting_is_one_clear_line_and_leaves_nothing(shell):
    output = shell.run(*START, "-n", "1", *setting(floating_ip="203.0.113.9"), status=1)
    assert "This project has no floating IP 203.0.113.9." in output.splitlines()[-1]
    shell.assert_nothing_left()
