"""`controller_server`: what a controller's server hands over, what counts of it, and how clients reach it."""

import json
import socket

import pytest

from ipp_griffin.cluster.controller_server import ControllerServer
from ipp_griffin.common.errors import GriffinError, Unavailable
from ipp_griffin.common.net import own_address, why_unreachable
from ipp_griffin.controller import heartbeats
from ipp_griffin.model.connection import TO_SERVER, ControllerKeys, client_view, port_ranges, ports_of

from ..fakes import FakeCloud, FakeStore

KEYS = ControllerKeys.make()
INFO = {
    "ssh": "",
    "interface": "tcp://10.0.0.9",
    "location": "10.0.0.9",
    "registration": 20000,
    "key": KEYS.session,
    "curve_serverkey": KEYS.curve_public,
}
FILES = {"engine": {**INFO, "mux": 20001}, "client": {**INFO, "mux": 20012}}


def server_with(**objects) -> ControllerServer:
    objects = {name.replace("_", "/"): body for name, body in objects.items()}
    return ControllerServer(FakeCloud(), FakeStore(**{KEYS.uid: objects}), KEYS.uid)


def with_handover(body: bytes, incarnation=0) -> ControllerServer:
    server = server_with()
    server.store.there[KEYS.uid][f"controller/0.{incarnation}/handover"] = body
    return server


def test_the_connection_files_are_those_that_its_last_server_handed_over():
    """And the engines' says what engines have to do to notice the end of its power."""
    marked = {**FILES, "engine": {**FILES["engine"], heartbeats.MARK: True}}
    assert with_handover(json.dumps(FILES).encode(), 2).connection_files(2) == marked


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        json.dumps({"engine": FILES["engine"]}).encode(),
        json.dumps({**FILES, "client": {**INFO, "key": "forged"}}).encode(),
        json.dumps({**FILES, "engine": {**INFO, "curve_serverkey": "forged"}}).encode(),
        json.dumps({**FILES, "client": "no file"}).encode(),
    ],
)
def test_files_without_the_keys_that_were_made_for_it_are_refused(body):
    with pytest.raises(GriffinError, match="damaged, or not of this cluster"):
        with_handover(body).connection_files(0)


def test_the_clients_file_is_kept_where_no_server_writes():
    server = server_with()
    server.publish_client_file(FILES["client"])
    assert list(server.store.there[KEYS.uid]) == ["controller/client.json"]
    assert server.client_file() == FILES["client"]


@pytest.mark.parametrize("body", [None, b"{", b"[]", json.dumps({**INFO, "key": "another"}).encode()])
def test_without_a_clients_file_of_this_cluster_that_is_said(body):
    server = server_with()
    if body is not None:
        server.store.there[KEYS.uid]["controller/client.json"] = body
    with pytest.raises(GriffinError, match="has no connection file in the object store"):
        server.client_file()


def test_a_store_that_is_down_is_no_missing_file():
    server = server_with()
    server.store.fail["get"] = [Unavailable("the store said 503", status=503)]
    with pytest.raises(Unavailable):
        server.client_file()


def test_keys_do_not_show_and_make_the_uid():
    assert KEYS.session not in repr(KEYS) and KEYS.curve_secret not in repr(KEYS)
    assert len({KEYS.uid, ControllerKeys.make().uid}) == 2


@pytest.mark.parametrize(
    ("address", "ssh_server", "changed"),
    [
        ("10.0.0.9", "", {}),
        ("203.0.113.5", "", {"interface": "tcp://203.0.113.5", "location": "203.0.113.5"}),
        ("10.0.0.9", "me@gate:2222", {"ssh": "me@gate:2222"}),
        (
            "203.0.113.5",
            "debian@",
            {"ssh": "debian@203.0.113.5", TO_SERVER: True},
        ),  # to the server, and there to its own address
    ],
)
def test_clients_connect_where_they_can(address, ssh_server, changed):
    assert client_view(INFO, address, ssh_server) == {**INFO, **changed}


@pytest.mark.parametrize(
    ("ports", "ranges"),
    [
        (set(), []),
        ({20000}, [(20000, 20000)]),
        ({20003, 20001, 20000, 20007}, [(20000, 20001), (20003, 20003), (20007, 20007)]),
    ],
)
def test_ranges_hold_exactly_the_ports(ports, ranges):
    assert port_ranges(ports) == ranges


def test_the_ports_of_a_file_are_all_that_it_names():
    assert ports_of({**INFO, "broadcast": [1, 2], "notification": 3, "hb_ping": 0}) == {20000, 1, 2, 3}


def test_a_controller_that_can_not_be_reached_says_why():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        info = {**INFO, "interface": "tcp://127.0.0.1", "registration": s.getsockname()[1]}
        assert why_unreachable(info) == "Connection refused"
        s.listen()
        assert why_unreachable(info) == ""


def test_the_own_address_is_that_on_the_way_there():
    assert own_address("127.0.0.1") == "127.0.0.1/32"


def test_without_a_way_there_is_no_own_address():
    with pytest.raises(GriffinError, match="has no route to"):
        own_address("no address at all")
