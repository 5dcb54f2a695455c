"""`Ports`, on the Neutron of a dev cloud, which answers as the real one does."""

import pytest

from ipp_griffin.cloud.cloud import Cloud
from ipp_griffin.cloud.ports import Port

MAC = "fa:16:3e:00:00:01"
OPTIONS = {"boot_time": 0.0, "guests": False}  # of `dev`: silent servers, ACTIVE at once


@pytest.fixture
def ports(dev):
    return Cloud.connect("devcloud", sleep=lambda seconds: None).ports


@pytest.fixture
def project(dev):
    return dev.state.projects[0]


def test_the_head_node_is_known_by_address_and_mac_address(dev, ports, project):
    """An address alone does not tell: other networks have the same ones."""
    dev.state.create_port(project, name="other", mac="fa:16:3e:99:99:99", address="127.80.0.5")
    assert ports.head("127.80.0.5", [MAC]) is None
    assert ports.head("127.80.0.5", [MAC.upper(), "FA:16:3E:99:99:99"]) is not None
    assert ports.head("127.80.0.6", ["fa:16:3e:99:99:99"]) is None


def test_ports_of_servers_are_found_by_these_alone(dev, ports, project):
    made = [
        dev.state.create_port(project, name="left", device=("compute:nova", "s-1")),
        dev.state.create_port(project, name="of another", device=("compute:nova", "s-2")),
        dev.state.create_port(project, name="no server's", device=("network:dhcp", "s-1")),
    ]
    (found,) = ports.of_servers(["s-0", "s-1"])
    assert found == Port(made[0].id, tuple(made[0].security_groups), made[0].mac, "s-1")


def test_hundreds_of_servers_take_a_request_for_each_hundred(dev, ports):
    dev.clear_requests()
    assert ports.of_servers(f"s-{n}" for n in range(250)) == []
    assert [method for service, method, _, _ in dev.requests if service == "network"].count("GET") == 3


def test_credentials_that_may_see_no_ports_have_none_to_delete(dev, ports):
    dev.faults.set(service="network", path="/ports", status=403)
    assert ports.of_servers(["s-1"]) == []


def test_a_port_is_deleted_and_one_that_is_gone_is_fine(dev, ports, project):
    made = dev.state.create_port(project, name="left")
    dev.faults.set(service="network", methods=["DELETE"], drop=True, after=True, count=1)
    ports.delete(made.id)
    assert dev.state.ports == {}
