import gzip
import json
import random
import re

import pytest

from ipp_griffin.common.errors import SettingError
from ipp_griffin.model.names import Place
from ipp_griffin.model.plan import ServerPlan
from ipp_griffin.model.userdata import LIMIT, UserDataSettings, agent_source, render, server_parameters, user_data

URL = "https://store.example/v1/AUTH_a/ipp-griffin-u/s"
SERVER = ServerPlan(name="griffin-u-s-2", place=Place("89abcdef", 2, 1), engines=4, tags=("ipp-griffin",))


AWKWARD = {"version": 1, "proxy": "http://proxy:3128", "ca_certificates": "-----é'\"\\\n😀\u2028"}


def parameters(**changes):
    settings = UserDataSettings(**{"read_seconds": 1, "report_seconds": 2, "fetch_timeout": 600, **changes})
    given = {
        "uid": "0123456789ab",
        "private_object_url": URL + "/connection.json?temp_url_sig=aa&temp_url_expires=1",
        "report_urls": {"prefix": URL + "/2.1/", "query": "temp_url_sig=bb&temp_url_expires=2&temp_url_prefix=s/2.1/"},
    }
    return server_parameters(SERVER, settings, **given)


def test_parameters_of_a_server():
    assert parameters() == {
        "version": 1,
        "uid": "0123456789ab",
        "engine_set": "89abcdef",
        "slot": 2,
        "incarnation": 1,
        "server": "griffin-u-s-2",
        "engines": 4,
        "private_object": "https://store.example/v1/AUTH_a/ipp-griffin-u/s/connection.json?temp_url_sig=aa&temp_url_expires=1",
        "reports": {
            "prefix": "https://store.example/v1/AUTH_a/ipp-griffin-u/s/2.1/",
            "query": "temp_url_sig=bb&temp_url_expires=2&temp_url_prefix=s/2.1/",
        },
        "fetch_timeout": 600,
        "proxy": "",
        "ca_certificates": "",
        "expires": 0,
    }


def test_the_parameters_line_of_the_program():
    lines = render(parameters(), agent_source()).decode().splitlines()
    assert [line for line in lines if line.startswith("PARAMETERS")] == [
        'PARAMETERS: Json = {"ca_certificates": "", "engine_set": "89abcdef", "engines": 4, "expires": 0, "fetch_timeout": 600, '
        '"incarnation": 1, "private_object": "https://store.example/v1/AUTH_a/ipp-griffin-u/s/connection.json'
        '?temp_url_sig=aa&temp_url_expires=1", "proxy": "", "reports": {"prefix": "https://store.example/v1/AUTH_a/ipp-griffin-u/s/'
        '2.1/", "query": "temp_url_sig=bb&temp_url_expires=2&temp_url_prefix=s/2.1/"}, "server": "griffin-u-s-2", '
        '"slot": 2, "uid": "0123456789ab", "version": 1}'
    ]


def test_the_result_is_a_program_that_cloud_init_runs():
    data = render(AWKWARD, agent_source())
    assert data.startswith(b"#!/usr/bin/env python3\n")
    scope = {"__name__": "user-data", "__file__": "user-data"}
    exec(compile(data, "user-data", "exec"), scope)
    assert scope["PARAMETERS"] == AWKWARD


def test_nothing_but_the_two_urls_is_secret():
    """Signatures appear in no other parameter, and each of them once."""
    text = json.dumps(parameters())
    assert text.count("temp_url_sig") == 2
    without = {k: v for k, v in parameters().items() if k not in ("private_object", "reports")}
    assert not re.search("sig|key|secret|token|passw", json.dumps(without), re.I)


def test_nova_gets_the_program_compressed_and_always_the_same_bytes():
    """A third of the size, and the same for a retried request."""
    data = user_data(parameters(), agent_source())
    assert data == user_data(parameters(), agent_source())
    assert gzip.decompress(data) == render(parameters(), agent_source())
    assert LIMIT - len(data) > 20_000  # room for a dozen CA certificates


def test_too_much_for_nova_is_an_error_that_says_how_big_and_what_to_do():
    noise = random.Random(1).randbytes(45_000).hex()
    message = r"The user-data has \d{5} bytes, but Nova takes 49149 at most; 90000 bytes of it, .*\. Set GriffinCloud\.ca_certificates to a file"
    with pytest.raises(SettingError, match=message):
        user_data({**parameters(), "ca_certificates": noise}, agent_source())


@pytest.mark.parametrize("source", ["", "PARAMETERS: Json = {}\n" * 2, "# PARAMETERS: Json = {}\n"])
def test_a_program_without_exactly_one_place_for_parameters_is_refused(source):
    with pytest.raises(ValueError, match="not one"):
        render(parameters(), source)


@pytest.mark.parametrize("value", [True, None, float("inf")])
def test_parameters_that_are_no_python_literal_in_json_are_refused(value):
    with pytest.raises(ValueError):
        render({"version": value}, agent_source())


def test_certificates_that_are_none_are_refused_before_a_server_is_made():
    with pytest.raises(SettingError, match="GriffinCloud.ca_certificates does not have certificates"):
        parameters(ca_certificates="/etc/ssl/ca.pem")
