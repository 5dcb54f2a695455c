"""Connections to a floating IP reach the guest, where the security groups of its server let them in."""

import contextlib
import os
import socket
import subprocess
import sys
import threading

import psutil
import pytest

from ipp_griffin.devcloud import DevCloud, service
from ipp_griffin.devcloud.forwarding import listening, opens
from ipp_griffin.devcloud.things import PUBLIC_ID

from .conftest import connect, create, script, wait_for

BIG = os.urandom(1 << 20) * 3


OPTIONS = {"boot_time": 0.0, "guests": False}  # of `dev`: silent servers, ACTIVE at once


@pytest.fixture
def listener(server):
    """What a guest would do: it listens at its server's fixed address."""
    with listener_at(server.addresses["devnet"][0]["addr"]) as made:
        yield made


@contextlib.contextmanager
def listener_at(address):
    with socket.create_server((address, 0)) as made:
        made.settimeout(60)
        yield made


def port_of(listener):
    return listener.getsockname()[1]


@pytest.fixture
def floating(connection, server):
    port = next(connection.network.ports(device_id=server.id))
    return connection.network.create_ip(floating_network_id=PUBLIC_ID, port_id=port.id)


@pytest.fixture
def let_in(connection):
    """``let_in(ports, **more)``: a rule of the default group, which the server is in."""
    group = connection.network.find_security_group("default")

    def add(first, last, **more):
        rule = {"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp", "remote_ip_prefix": "127.0.0.1/32"}
        rule |= {"port_range_min": first, "port_range_max": last, **more}
        return connection.network.create_security_group_rule(security_group_id=group.id, **rule)

    return add


def dial(address, port):
    return socket.create_connection((address, port), timeout=60)


def look_again(dev):
    """Until it has looked once more, from the beginning to the end."""
    for _ in range(2):
        before = dev._forwarding._timer
        wait_for(lambda: dev._forwarding._timer is not before)  # noqa: B023


def answers(address, port):
    """Whether something listens there."""
    try:
        dial(address, port).close()
    except ConnectionRefusedError:
        return False
    return True


def test_a_connection_to_the_floating_ip_reaches_the_guest_and_back(floating, listener, let_in):
    let_in(port_of(listener), port_of(listener))
    wait_for(lambda: listening({floating.floating_ip_address}))
    with dial(floating.floating_ip_address, port_of(listener)) as client, listener.accept()[0] as guest:
        client.sendall(b"hello")
        assert guest.recv(9) == b"hello"
        guest.sendall(b"hi")
        assert client.recv(9) == b"hi"


def test_each_side_may_say_all_it_has_to_say_before_the_other_does(floating, listener, let_in):
    """As `ssh` and HTTP do: the end of what one says is not the end of the connection; and nothing is lost."""
    let_in(port_of(listener), port_of(listener))
    wait_for(lambda: listening({floating.floating_ip_address}))
    with dial(floating.floating_ip_address, port_of(listener)) as client, listener.accept()[0] as guest:
        sender = threading.Thread(target=lambda: (client.sendall(BIG), client.shutdown(socket.SHUT_WR)))
        sender.start()
        assert b"".join(iter(lambda: guest.recv(1 << 16), b"")) == BIG
        sender.join()
        sender = threading.Thread(target=lambda: (guest.sendall(BIG), guest.close()))
        sender.start()
        assert b"".join(iter(lambda: client.recv(1 << 16), b"")) == BIG
        sender.join()


def test_a_port_that_no_rule_opens_is_refused_until_one_does(dev, floating, listener, let_in):
    address, port = floating.floating_ip_address, port_of(listener)
    let_in(port + 1, port + 1)
    look_again(dev)
    assert not answers(address, port)
    let_in(port - 1, port)
    wait_for(lambda: answers(address, port))


def test_a_client_that_no_rule_admits_is_shut_out_at_once(floating, listener, let_in):
    address, port = floating.floating_ip_address, port_of(listener)
    let_in(port, port, remote_ip_prefix="127.0.0.9/32")
    wait_for(lambda: listening({address}))
    with dial(address, port) as client, pytest.raises((ConnectionError, EOFError)):
        if not client.recv(1):
            raise EOFError
    listener.settimeout(0.3)
    with pytest.raises(TimeoutError):
        listener.accept()
    with socket.socket() as other:  # from the address that is let in
        other.bind(("127.0.0.9", 0))
        other.connect((address, port))
        listener.accept()[0].close()


def test_the_members_of_a_group_do_not_come_by_a_floating_ip(dev, connection, floating, listener, let_in):
    group = connection.network.find_security_group("default")
    let_in(port_of(listener), port_of(listener), remote_ip_prefix=None, remote_group_id=group.id)
    look_again(dev)
    assert not answers(floating.floating_ip_address, port_of(listener))


def test_ports_come_and_go_with_what_listens(floating, listener, let_in):
    let_in(1, 65535)
    address, first = floating.floating_ip_address, port_of(listener)
    with listener_at(listener.getsockname()[0]) as other:
        second = port_of(other)
        wait_for(lambda: listening({address}) == {address: {first, second}})
    wait_for(lambda: listening({address}) == {address: {first}})


def test_a_connection_ends_when_the_floating_ip_is_detached(connection, floating, listener, let_in):
    let_in(1, 65535)
    address = floating.floating_ip_address
    wait_for(lambda: listening({address}))
    with dial(address, port_of(listener)) as client, listener.accept()[0] as guest:
        client.sendall(b"x")
        assert guest.recv(1) == b"x"
        connection.network.update_ip(floating, port_id=None)
        for side in (client, guest):
            side.settimeout(60)
            with contextlib.suppress(ConnectionError):
                assert side.recv(1) == b""
    wait_for(lambda: not listening({address}))


def test_it_follows_the_floating_ip_to_another_server(connection, floating, listener, let_in):
    let_in(1, 65535)
    address = floating.floating_ip_address
    wait_for(lambda: listening({address}))
    made = create(connection, "other")
    other = wait_for(lambda: (s := connection.compute.get_server(made.id)).status == "ACTIVE" and s)
    with listener_at(other.addresses["devnet"][0]["addr"]) as second:
        connection.network.update_ip(floating, port_id=next(connection.network.ports(device_id=other.id)).id)
        wait_for(lambda: listening({address}) == {address: {port_of(second)}})
        with dial(address, port_of(second)), second.accept()[0]:
            pass


def test_a_server_that_goes_is_not_reached_any_more(connection, server, floating, listener, let_in):
    let_in(1, 65535)
    wait_for(lambda: listening({floating.floating_ip_address}))
    connection.compute.delete_server(server)
    wait_for(lambda: not listening({floating.floating_ip_address}))


def test_a_guest_that_does_not_answer_ends_the_connection(floating, listener, let_in):
    let_in(1, 65535)
    address, port = floating.floating_ip_address, port_of(listener)
    wait_for(lambda: listening({address}))
    listener.close()
    with contextlib.suppress(ConnectionError), dial(address, port) as client:
        assert client.recv(1) == b""


def test_a_port_that_something_else_of_this_machine_has_is_taken_as_soon_as_it_is_free(dev, floating, listener, let_in):
    address, port = floating.floating_ip_address, port_of(listener)
    with socket.create_server((address, port)):
        let_in(1, 65535)
        look_again(dev)
    wait_for(lambda: listening({address}))


def test_nothing_is_looked_at_while_nothing_is_attached(connection, dev, floating):
    wait_for(lambda: dev._forwarding._timer)
    connection.network.update_ip(floating, port_id=None)
    wait_for(lambda: not dev._forwarding._timer)
    list(connection.compute.servers())
    assert dev._forwarding._timer is None


def test_a_dev_cloud_leaves_no_thread_and_no_socket(tmp_path):
    before, threads = psutil.Process().net_connections(), threading.active_count()
    with DevCloud(tmp_path / "cloud", boot_time=0.0, guests=False) as cloud:
        with connect(cloud) as connection:
            made = create(connection)
            server = wait_for(lambda: (s := connection.compute.get_server(made.id)).status == "ACTIVE" and s)
            port = next(connection.network.ports(device_id=server.id))
            group = connection.network.find_security_group("default")
            connection.network.create_security_group_rule(security_group_id=group.id, direction="ingress")
            address = connection.network.create_ip(floating_network_id=PUBLIC_ID, port_id=port.id).floating_ip_address
        with listener_at(server.addresses["devnet"][0]["addr"]) as listener:
            wait_for(lambda: listening({address}))
            with dial(address, port_of(listener)) as client, listener.accept()[0] as guest:
                guest.sendall(b"x")
                assert client.recv(1) == b"x"
                assert threading.active_count() == threads + 2
                cloud.stop()
                with contextlib.suppress(ConnectionError):
                    assert client.recv(1) == b""
    left = {c.laddr for c in psutil.Process().net_connections() if c.status == "LISTEN"} - {c.laddr for c in before}
    assert left == set() and threading.active_count() == threads


def test_the_background_dev_cloud_forwards_to_a_guest_and_ends_with_it(tmp_path):
    info = service.start(tmp_path / "cloud", boot_time=0.0)
    try:
        program = "import http.server, sys; http.server.HTTPServer((sys.argv[1], 8765), None).serve_forever()"
        config = DevCloud(tmp_path / "cloud")  # for the name of its clouds.yaml only
        with connect(config) as connection:
            made = create(connection, user_data=script("sleep 600"))
            server = wait_for(lambda: (s := connection.compute.get_server(made.id)).status == "ACTIVE" and s)
            fixed = server.addresses["devnet"][0]["addr"]
            port = next(connection.network.ports(device_id=server.id))
            group = connection.network.find_security_group("default")
            connection.network.create_security_group_rule(
                security_group_id=group.id, direction="ingress", protocol="tcp", remote_ip_prefix="127.0.0.0/8"
            )
            address = connection.network.create_ip(floating_network_id=PUBLIC_ID, port_id=port.id).floating_ip_address
        guest = subprocess.Popen([sys.executable, "-c", program, fixed])
        try:
            wait_for(lambda: answers(address, 8765))
        finally:
            guest.kill()
            guest.wait()
    finally:
        service.stop(info.folder)
    assert not answers(address, 8765)


@pytest.mark.parametrize(
    ("rule", "client", "opened"),
    [
        ({}, "", True),
        ({}, "192.0.2.1", True),
        ({"direction": "egress"}, "", False),
        ({"ethertype": "IPv6"}, "", False),
        ({"ethertype": None}, "", True),
        ({"protocol": "tcp"}, "", True),
        ({"protocol": "6"}, "", True),
        ({"protocol": "any"}, "", True),
        ({"protocol": "udp"}, "", False),
        ({"protocol": "icmp"}, "", False),
        ({"port_range_min": 80, "port_range_max": 80}, "", True),
        ({"port_range_min": 81, "port_range_max": 90}, "", False),
        ({"port_range_min": 70, "port_range_max": 79}, "", False),
        ({"port_range_min": None, "port_range_max": None}, "", True),
        ({"remote_ip_prefix": "192.0.2.0/24"}, "", True),
        ({"remote_ip_prefix": "192.0.2.0/24"}, "192.0.2.1", True),
        ({"remote_ip_prefix": "192.0.2.1"}, "192.0.2.1", True),
        ({"remote_ip_prefix": "192.0.2.0/24"}, "192.0.3.1", False),
        ({"remote_ip_prefix": "0.0.0.0/0"}, "192.0.3.1", True),
        ({"remote_ip_prefix": None}, "192.0.3.1", True),
        ({"remote_ip_prefix": "2001:db8::/32"}, "192.0.3.1", False),
        ({"remote_group_id": "g"}, "", False),
        ({"remote_group_id": "g"}, "192.0.2.1", False),
    ],
)
def test_what_a_rule_opens(rule, client, opened):
    assert opens({"direction": "ingress", "ethertype": "IPv4", **rule}, 80, client) is opened


def test_a_rule_for_what_is_no_network_is_refused(http, connection):
    group = connection.network.find_security_group("default")
    rule = {"security_group_id": group.id, "direction": "ingress", "remote_ip_prefix": "nope"}
    reply = http("POST", "/network/v2.0/security-group-rules", json={"security_group_rule": rule})
    assert (reply.status_code, reply.json()["NeutronError"]["message"]) == (
        400,
        "Invalid CIDR nope given as IP prefix.",
    )


def test_listening_sockets_are_told_by_their_exact_address():
    with listener_at("127.80.0.3") as one, listener_at("0.0.0.0"), dial("127.80.0.3", port_of(one)):
        assert listening({"127.80.0.3", "127.80.0.4"}) == {"127.80.0.3": {port_of(one)}}
        assert listening(()) == {}
