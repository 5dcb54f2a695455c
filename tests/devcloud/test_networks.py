"""Networks that users make on the dev cloud, through the SDK."""

import pytest
from openstack.exceptions import SDKException

from .conftest import connect, create


@pytest.fixture
def network(connection):
    return connection.network.create_network(name="lab")


def with_subnet(connection, network, cidr="127.91.0.0/24"):
    return connection.network.create_subnet(network_id=network.id, ip_version=4, cidr=cidr, name="lab-subnet")


def test_a_server_on_a_network_of_its_own_has_an_address_of_its_subnet(connection, network):
    subnet = with_subnet(connection, network)
    assert connection.network.get_network(network.id).subnet_ids == [subnet.id]
    server = connection.compute.wait_for_server(create(connection, networks=[{"uuid": network.id}]), interval=0.1)
    assert server.addresses["lab"][0]["addr"].startswith("127.91.0.")
    (port,) = connection.network.ports(device_id=server.id)
    assert (port.network_id, port.fixed_ips[0]["subnet_id"]) == (network.id, subnet.id)


def test_a_network_is_deleted_when_no_server_is_on_it(connection, network):
    with_subnet(connection, network)
    server = connection.compute.wait_for_server(create(connection, networks=[{"uuid": network.id}]), interval=0.1)
    with pytest.raises(SDKException, match="still in use"):
        connection.network.delete_network(network)
    connection.compute.delete_server(server)
    connection.compute.wait_for_delete(server, interval=0.1)
    connection.network.delete_network(network)
    assert connection.network.find_network("lab") is None


def test_another_project_does_not_see_it(dev, network):
    with connect(dev, "devcloud-other") as other:
        assert other.network.find_network("lab") is None


@pytest.mark.parametrize("cidr", ["10.0.0.0/24", "127.80.1.0/24", "127.91.0.0/28", "nothing"])
def test_a_subnet_that_servers_could_not_be_reached_on_is_refused(connection, network, cidr):
    with pytest.raises(SDKException):
        with_subnet(connection, network, cidr)


def test_no_server_boots_on_a_network_without_a_subnet(connection, network):
    with pytest.raises(SDKException, match="requires a subnet"):
        create(connection, networks=[{"uuid": network.id}])
