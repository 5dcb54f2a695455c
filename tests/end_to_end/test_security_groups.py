"""`GriffinCloud.manage_security_group`: a cluster whose servers nobody can connect to, beside a head node that is a server."""

import json
import re
import socket

import ipyparallel as ipp
import pytest

from .conftest import address_of

MANAGED = "--GriffinCloud.manage_security_group=True"
START = ("ipcluster", "start", "--profile=griffin", "--daemonize", "-n", "1")


def groups(neutron) -> dict:
    found = neutron.network.security_groups(project_id=neutron.project)
    return {group.name: group for group in found if group.name.startswith("griffin-")}


@pytest.mark.needs("address")
def test_a_cluster_makes_its_groups_and_takes_them_along(shell, neutron, head):
    """The servers are in a group that lets nothing in; that of the head node lets them in to the controller's ports alone."""
    shell.run(*START, MANAGED, f"--GriffinControllerLauncher.ip={address_of(shell.cloud)}")
    with ipp.Client(str(shell.profile() / "security" / "ipcontroller-client.json")) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32]
    made = groups(neutron)
    controller, engines = (
        next(g for name, g in made.items() if name.endswith(part)) for part in ("-controller", "-engines")
    )
    assert [rule for rule in engines.security_group_rules if rule["direction"] == "ingress"] == []
    (rule,) = (rule for rule in controller.security_group_rules if rule["direction"] == "ingress")
    assert (rule["port_range_min"], rule["port_range_max"]) == ports_of(
        shell.profile() / "security" / "ipcontroller-engine.json"
    )
    assert (rule["protocol"], rule["remote_group_id"], rule["remote_ip_prefix"]) == ("tcp", engines.id, None)
    (server,) = [p for p in neutron.network.ports(project_id=neutron.project) if p.device_owner.startswith("compute")]
    assert server.security_group_ids == [engines.id]
    assert set(neutron.network.get_port(head.id).security_group_ids) == {*head.security_group_ids, controller.id}
    shell.run("ipcluster", "stop", "--profile=griffin")
    assert groups(neutron) == {}
    assert neutron.network.get_port(head.id).security_group_ids == head.security_group_ids
    neutron.network.delete_port(head)
    shell.assert_nothing_left()


@pytest.mark.needs("devcloud")
def test_a_start_that_fails_takes_the_groups_along(shell, neutron):
    shell.cloud.faults.set({"service": "compute", "methods": ["POST"], "path": "/servers$", "status": 400, "count": 1})
    output = shell.run(*START, MANAGED, status=1)
    assert "Can't create server" in output
    assert groups(neutron) == {}


@pytest.mark.needs("devcloud")
def test_groups_that_can_not_be_made_fail_the_start_before_any_server(shell, neutron):
    over = {
        "NeutronError": {
            "type": "OverQuota",
            "message": "Quota exceeded for resources: ['security_group'].",
            "detail": "",
        }
    }
    shell.cloud.faults.set(
        {"service": "network", "methods": ["POST"], "path": "/security-groups$", "status": 409, "body": over}
    )
    output = shell.run(*START, MANAGED, status=1)
    assert "Can't make security group griffin-" in output
    assert "Quota exceeded for resources" in output


@pytest.mark.needs("devcloud")
def test_a_set_that_joins_is_in_the_group_whatever_its_own_settings_say(shell, neutron):
    """The first start had it on its command line; on a machine that `ipp-griffin connect` made one of the cluster's no profile has it either."""
    shell.run(*START, MANAGED)
    shell.run("ipcluster", "engines", "--profile=griffin", "--daemonize", "-n", "1")
    (group,) = groups(neutron).values()
    servers = [p for p in neutron.network.ports(project_id=neutron.project) if p.device_owner.startswith("compute")]
    assert [port.security_group_ids for port in servers] == [[group.id], [group.id]]
    shell.run("ipcluster", "stop", "--profile=griffin")
    assert groups(neutron) == {}
    shell.assert_nothing_left()


def test_stop_from_elsewhere_takes_them_along(shell, neutron):
    shell.run(*START, MANAGED)
    assert len(groups(neutron)) == 1  # this machine is no server of the project
    uid = next(iter(groups(neutron))).split("-")[1]
    output = shell.run("ipp-griffin", "stop", "--container", container(shell), uid)
    assert f"Cluster {uid} is gone" in output
    assert groups(neutron) == {}
    shell.run("ipcluster", "stop", "--profile=griffin")


@pytest.mark.needs("devcloud")
def test_an_unreachable_controller_prints_the_rule_that_lets_engines_in(shell, neutron, closed_port):
    """The ports of this very controller, and the subnet of the servers."""
    shell.run(*START)
    path = shell.profile() / "security" / "ipcontroller-engine.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "iopub": closed_port}))
    output = shell.run(
        *("ipcluster", "engines", "--profile=griffin", "-n", "1", "--GriffinEngineSetLauncher.controller_timeout=1"),
        status=1,
    )
    assert re.search(
        rf"controller port unreachable for 1.* s: address .* port {closed_port} \(Connection refused\)", output
    )
    network = next(n for n in neutron.network.networks() if not n.is_router_external)
    (subnet,) = neutron.network.subnets(network_id=network.id)
    first, last = ports_of(path)
    assert (
        f"`openstack security group rule create --ingress --protocol tcp --dst-port {first}:{last} --remote-ip {subnet.cidr} GROUP`"
        in output
    )
    shell.run("ipcluster", "stop", "--profile=griffin")


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def ports_of(path) -> tuple[int, int]:
    """The lowest and the highest port in a connection file."""
    found = [
        p for value in json.loads(path.read_text()).values() for p in (value if isinstance(value, list) else [value])
    ]
    ports = [port for port in found if isinstance(port, int) and port > 1024]
    return min(ports), max(ports)


def container(shell) -> str:
    return getattr(shell.cloud, "prefix", "ipp-griffin")
