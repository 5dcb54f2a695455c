"""The address and the ports that a controller listens on."""

import socket

import pytest

from ipp_griffin.common.errors import SettingError
from ipp_griffin.launchers import addresses as module
from ipp_griffin.launchers.addresses import check_address, free_ports, reachable_address
from ipp_griffin.launchers.cloud_settings import GriffinCloud
from ipp_griffin.model.plan import Network

from .machine import Sockets, on

# --- ports


@pytest.mark.parametrize(
    "ports", ["80", "", "a-b", "1-2-3", "-5-100", "20000-20018", "20019-20000", "65520-65540", "70000-80000"]
)
def test_a_range_that_is_none_or_too_small_is_refused(ports):
    with pytest.raises(SettingError) as raised:
        free_ports(ports, 20, "127.0.0.1")
    assert str(raised.value) == (
        f"GriffinControllerLauncher.ports is {ports!r}: it must be a range FIRST-LAST of at least 20 ports below 65536."
    )


@pytest.mark.parametrize(("ports", "first"), [("20000-20019", 20000), (" 20000 - 20999 ", 20000), ("1-65535", 1)])
def test_the_first_block_of_a_range(monkeypatch, ports, first):
    sockets = Sockets(monkeypatch)
    assert free_ports(ports, 20, "10.0.0.1")[0] == first
    assert sockets.tried == [("10.0.0.1", port) for port in range(first, first + 20)]


def test_a_block_with_a_busy_port_is_skipped(monkeypatch):
    Sockets(monkeypatch, ("10.0.0.1", 20019), ("10.0.0.1", 20020))
    assert free_ports("20000-20999", 20, "10.0.0.1")[0] == 20040


def test_the_choice_begins_at_random_and_goes_round(monkeypatch):
    Sockets(monkeypatch, ("10.0.0.1", 20040))
    monkeypatch.setattr(module.random, "randrange", lambda n: n - 1)
    assert free_ports("20000-20059", 20, "10.0.0.1")[0] == 20000


def test_no_free_block_is_a_setting_error(monkeypatch):
    Sockets(monkeypatch, ("10.0.0.1", 20000), ("10.0.0.1", 20025))
    with pytest.raises(SettingError) as raised:
        free_ports("20000-20045", 20, "10.0.0.1")
    assert str(raised.value) == (
        "Of the ports 20000-20045, no 20 in a row are free. Stop a cluster, or set GriffinControllerLauncher.ports to another range."
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "*", "localhost"])
def test_a_port_that_somebody_listens_on_is_not_free(address):
    """ipcontroller binds some of its ports on loopback, whatever address it listens on."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        assert not module._is_free(address, busy.getsockname()[1])


def test_a_port_that_is_busy_at_another_address_is_free():
    with socket.create_server(("127.0.0.7", 0)) as other:
        assert module._is_free("127.0.0.9", other.getsockname()[1])


def test_a_port_whose_connections_ended_a_moment_ago_is_free():
    """Of a controller that was killed: the kernel keeps the ports of its connections in TIME_WAIT for a minute."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        served, _ = server.accept()
        served.close()  # who closes first is left in TIME_WAIT
        client.close()
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("127.0.0.1", port))
    assert module._is_free("127.0.0.1", port)


def test_a_block_that_another_start_has_reserved_is_skipped(monkeypatch):
    """Two clusters that start at the same moment see the same free ports."""
    monkeypatch.setattr(module, "_is_free", lambda address, port: True)
    monkeypatch.setattr(module.random, "randrange", lambda n: 0)
    first, reservation = free_ports("47000-47999", 20, "127.0.0.1")
    with reservation:
        second, other = free_ports("47000-47999", 20, "127.0.0.1")
        other.close()
    again, reservation = free_ports("47000-47999", 20, "127.0.0.1")
    reservation.close()
    assert second > first
    assert again == first


# --- address


def test_an_address_of_another_machine_is_refused_in_one_line():
    with pytest.raises(SettingError) as raised:
        check_address("192.0.2.77")
    assert str(raised.value) == (
        "The controller can't listen on 192.0.2.77 (Cannot assign requested address): "
        "it must be an address of this machine. Set GriffinControllerLauncher.ip."
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "localhost", "*", "0.0.0.0"])
def test_an_address_of_this_machine_passes(address):
    check_address(address)


@pytest.mark.parametrize(
    ("subnets", "address"),
    [
        (["10.1.0.0/16"], "10.1.2.3"),
        (["2001:db8::/64", "10.1.2.0/24"], "10.1.2.3"),
        (["127.80.0.0/16"], "198.51.100.7"),
        (["10.2.0.0/16"], "198.51.100.7"),
        ([], "198.51.100.7"),
    ],
)
def test_the_address_on_the_servers_network_wins_else_the_one_towards_the_cloud(addresses, subnets, address):
    assert reachable_address(on(*subnets), GriffinCloud()) == address


def test_a_network_that_does_not_exist_is_a_setting_error(addresses):
    with pytest.raises(SettingError, match="No network 'lan'. This cloud has: net, public"):
        reachable_address(on("10.1.0.0/16"), GriffinCloud(network="lan"))


OFFICE = Network("n0", "office", ("10.1.2.0/24",))


@pytest.mark.parametrize(("subnet", "address"), [("10.9.0.0/16", "10.1.2.3"), ("10.1.2.0/24", "10.1.2.3")])
def test_without_a_network_that_is_named_any_that_this_machine_is_on_will_do(addresses, subnet, address):
    """Engine sets may name theirs."""
    assert reachable_address(on(subnet, more=[OFFICE]), GriffinCloud()) == address


def test_a_machine_on_several_networks_is_told_to_choose_an_address(addresses):
    with pytest.raises(SettingError) as raised:
        reachable_address(on("127.0.0.0/8", more=[OFFICE]), GriffinCloud())
    assert str(raised.value) == (
        "This machine is on several networks of the project: 10.1.2.3 on office, 127.0.0.1 on net. "
        "Set GriffinControllerLauncher.ip to the address that engines should connect to."
    )
    assert reachable_address(on("127.0.0.0/8", more=[OFFICE]), GriffinCloud(network="net")) == "127.0.0.1"
