"""The private object, and what is read from it."""

import json

import pytest

from ipp_griffin.agent.connection import controller_address, controller_ports, parse_private_object, secrets_of

from .world import CONNECTION, PARAMETERS, PRIVATE_OBJECT


def test_secrets_are_keys_signatures_and_what_the_environment_calls_so():
    private_object = {
        "connection": {"key": "kkkk", "curve_serverkey": "cccc"},
        "environment": {"DB_PASSWORD": "pppppp", "OMP_NUM_THREADS": "1", "API_TOKEN": "x", "KEYBOARD": "qwertz"},
    }
    assert secrets_of(PARAMETERS, private_object) == ["kkkk", "cccc", "5ecre7a", "5ecre7b", "pppppp", "qwertz"]


def test_signatures_of_one_url_a_phase_are_secrets_too():
    parameters = {
        "private_object": "http://s/?temp_url_sig=1",
        "reports": {"urls": {"agent": "http://s/a?Signature=2"}},
    }
    assert secrets_of(parameters, {}) == ["", "", "2", "1"]


def test_the_connection_object_is_taken_as_it_is():
    assert parse_private_object(json.dumps(PRIVATE_OBJECT).encode()) == PRIVATE_OBJECT


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "no JSON"),
        (b'{"version": 1', "no JSON"),
        (b"\xff\xfe", "utf-8"),
        (b"[]", "incomplete"),
        (b"{}", "incomplete: 'connection'"),
        (json.dumps({**PRIVATE_OBJECT, "version": 2}).encode(), "its version is 2"),
        (json.dumps({**PRIVATE_OBJECT, "connection": {}}).encode(), "incomplete: 'interface'"),
        (json.dumps({**PRIVATE_OBJECT, "connection": {**CONNECTION, "interface": "ipc:///x"}}).encode(), "no address"),
        (json.dumps({**PRIVATE_OBJECT, "environment": 3}).encode(), "incomplete"),
    ],
)
def test_anything_else_is_not_a_connection_object(body, problem):
    with pytest.raises(ValueError, match=problem):
        parse_private_object(body)


@pytest.mark.parametrize(
    ("interface", "location", "address"),
    [
        ("tcp://10.0.0.5", "head", "10.0.0.5"),
        ("tcp://127.0.0.1", "10.0.0.5", "127.0.0.1"),
        ("tcp://*", "10.0.0.5", "10.0.0.5"),
        ("tcp://0.0.0.0", "head", "head"),
        ("tcp://0.0.0.0", "here", "127.0.0.1"),
        ("tcp://*", "", "127.0.0.1"),
    ],
)
def test_the_address_that_engines_connect_to(interface, location, address):
    assert controller_address({"connection": {"interface": interface, "location": location}}, "here") == address


def test_all_ports_that_engines_connect_to_registration_first():
    assert controller_ports(CONNECTION) == list(range(20001, 20010))
