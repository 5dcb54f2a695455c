"""The private object and the uid that follows from it."""

import json

import pytest

from ipp_griffin.common.errors import SettingError
from ipp_griffin.model.connection import build, cluster_uid, controller_address, parse_connection

ENGINE = {
    "key": "k" * 32,
    "curve_serverkey": "c" * 40,
    "location": "10.0.0.5",
    "interface": "tcp://10.0.0.5",
    "registration": 20001,
    "mux": 20002,
    "pack": "json",
}
CLIENT = {**ENGINE, "mux": 20009, "notification": 20010}


def test_the_clients_file_gives_the_same_uid_as_the_engines():
    assert cluster_uid(CLIENT) == cluster_uid(ENGINE)


def test_the_uid_is_a_short_hash_that_changes_with_every_key():
    uid = cluster_uid(ENGINE)
    assert len(uid) == 12
    assert set(uid) <= set("0123456789abcdef")
    assert uid != cluster_uid({**ENGINE, "key": "other"})
    assert uid != cluster_uid({**ENGINE, "curve_serverkey": None})


def test_the_object_is_one_literal():
    made = build(
        ENGINE,
        ipyparallel_version="9.2.0",
        ipengine_config="c = get_config()",
        environment={"A": "1", "IPP_CONNECTION_INFO": "secret"},
        engine_args=["--log-level=10"],
        packages=["numpy"],
    )
    content = json.loads(made)
    assert content.pop("python").startswith("3.")
    assert content == {
        "version": 1,
        "connection": ENGINE,
        "ipengine_config": "c = get_config()",
        "environment": {"A": "1"},
        "engine_cmd": [],
        "engine_args": ["--log-level=10"],
        "ipyparallel": "9.2.0",
        "engine_user": "ipp",
        "engine_python": "",
        "packages": ["numpy"],
        "pip_args": [],
        "timeouts": {"controller": 60, "register": 120, "controller_gone": 300, "log_interval": 60},
        "restarts": 5,
    }


@pytest.mark.parametrize(
    ("interface", "location", "expected"),
    [
        ("tcp://10.0.0.5", "ignored", "10.0.0.5"),
        ("tcp://0.0.0.0", "10.0.0.5", "10.0.0.5"),
        ("tcp://*", "head", "head"),
        ("tcp://127.0.0.1", "head", "127.0.0.1"),
    ],
)
def test_the_location_counts_only_where_the_controller_listens_everywhere(interface, location, expected):
    assert controller_address({"interface": interface, "location": location}) == expected


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '"x"', "{}", '{"interface": "tcp://1", "registration": "x"}', '{"interface": 1}']
)
def test_what_is_no_connection_file_is_refused_by_name_and_never_quoted(text):
    with pytest.raises(SettingError, match=r"^/some/file is not an engine connection file of ipcontroller \(\w+\)\.$"):
        parse_connection(text, "/some/file")


def test_a_connection_file_is_read():
    assert parse_connection(json.dumps(ENGINE), "file") == ENGINE
