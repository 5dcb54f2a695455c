"""Noise in clouds.yaml: what other programs need there changes nothing; what can't be used is one clear error."""

import json
import warnings
from typing import Any

import openstack.config.loader
import pytest
import responses

from ipp_griffin.cloud.clouds_yaml import tidy
from ipp_griffin.cloud.failures import TIMEOUT
from ipp_griffin.common.errors import CredentialsError

from ..openstack_responses import (
    ACCOUNT,
    AUTH,
    PASSWORD,
    TOKEN,
    lines,
    regions,
    serve_identity,
    serve_services,
)
from .conftest import connect

pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in a future release")
LOGIN = {"auth_url": AUTH, "username": "ada", "password": PASSWORD, "project_name": "p"}
DOMAINS = {"user_domain_name": "Default", "project_domain_name": "Default"}


# What it stands for matters as little as how it is spelt.
NOISE: list[dict[str, Any]] = [
    {"some_other_programs_key": {"a": 1}},
    {"verify": False},
    {"verify": "false"},
    {"verify": "yes"},
    {"verify": None},
    {"insecure": "true"},
    {"verify": False, "cacert": "/nope.pem"},
    {"connect_retries": 5, "status_code_retries": 5, "compute_connect_retries": "3"},
    {"connect_retries": "many", "status-code-retries": [], "compute_status_code_retry_delay": "x"},
    {"api_timeout": "30"},
    {"api_timeout": 0},
    {"api_timeout": None},
    {"compute_default_microversion": "2.1"},
    {"compute-default-microversion": "2.1", "compute-api-version": "2"},
    {"compute_api_version": 2.1},
    {"compute_api_version": "2", "image_api_version": "1", "network_api_version": 2.0, "object_store_api_version": "1"},
    {"identity_api_version": 3},
    {"identity_api_version": "2"},
    {"identity_api_version": "2.0"},
    {"identity_api_version": 2.0},
    {"auth_type": "v3password"},
    {"auth_type": None},
    {"auth": {**LOGIN, "user_domain_id": "default", "project_domain_id": "default", "passcode": None}},
    {"auth": {**LOGIN, **DOMAINS, "project_name": None, "tenant_name": "p"}},
    {"regions": []},
    {"regions": "R1"},
    {"regions": ["R1", "R2"]},
    {"regions": [{"name": "R1", "values": {"foo": 1}}]},
    {"regions": ["R2", "R1"], "region_name": "R1"},
    {"regions": [{"name": "R1", "values": {"verify": "false", "compute_connect_retries": "many"}}]},
    {"compute_rate_limit": "x", "network-concurrency": "many"},
    {"region_name": None},
    {"networks": []},
    {"networks": "x"},
    {"networks": ["x"]},
    {"networks": [{"no_name": 1}]},
    {"networks": [{"name": "x", "default_interface": True, "nat_destination": True}]},
    {"networks": [{"name": "x"}], "external_network": "x", "internal_network": "y"},
    {"floating_ip_source": "None", "secgroup_source": "nova", "requires_floating_ip": False},
    {"image_api_use_tasks": "true", "image_format": "raw", "disable_vendor_agent": {}},
    {"profile": "a-vendor-that-nobody-knows"},
    {"cloud": "a-vendor-that-nobody-knows"},
    {"force_ipv4": True, "message": "to be switched off", "status": "deprecated"},
    {"database_api_version": "1", "volume_api_version": 3},
    {"cert": "/nope.crt", "key": "/nope.key"},
    {"password": "x", "auth_url": "x"},
    {"vendor_hook": "no.such:hook"},
    {
        "top": {
            "cache": {
                "expiration_time": 3600,
                "expiration": {"server": 100, "compute.servers": 100, "compute.servers.detail": 100},
                "class": "dogpile.cache.memory",
            }
        }
    },
    {"top": {"cache": {"auth": True}}},
    {"top": {"client": {"force_ipv4": True}, "ansible": {"x": 1}, "metrics": {"statsd": {"host": "127.0.0.1"}}}},
]


def spelling(keys: dict[str, Any]) -> str:
    return ",".join(f"{key}={value}" for key, value in keys.get("top", keys).items() if key != "auth")[:60] or "auth"


@pytest.mark.parametrize("keys", NOISE, ids=spelling)
def test_what_other_programs_need_changes_nothing(mock, configure, capfd, keys) -> None:
    configure(**keys)
    serve_identity(mock)
    serve_services(mock)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        cloud = connect()
        cloud.check_services()
        assert cloud.object_store_url() == ACCOUNT
        assert (cloud.flavors(), cloud.images(), cloud.networks()) == ([], [], [])
        before = len(mock.calls)
        assert cloud.servers() == cloud.servers() == []
    asked = list(mock.calls)[before:]
    assert len(asked) == 2, "a listing came out of a cache"
    assert {call.request.headers["OpenStack-API-Version"] for call in asked} == {"compute 2.52"}
    assert {call.request.req_kwargs["timeout"] for call in asked} == {30 if keys == {"api_timeout": "30"} else TIMEOUT}
    assert lines(mock)[-1].split("?")[0] == "GET /v2.1/servers/detail"
    assert [str(w.message) for w in said if "will be removed in a future release" not in str(w.message)] == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("entry", [None, [], {}, "x", 5])
def test_an_entry_that_is_no_cloud_is_one_clear_error(configure, entry) -> None:
    path = configure(entry=entry)
    with pytest.raises(
        CredentialsError, match=rf"Can't use cloud 'fake': .*\. {path} has: fake, other\. Set "
    ) as error:
        connect()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"auth": None}, "auth_url"),
        ({"auth": []}, "auth is not a list of names and values"),
        ({"auth": "hunter2"}, "auth is not a list of names and values"),
        ({"auth": {"auth_url": AUTH}}, r"password is a required attribute\. Set it in clouds\.yaml or secure\.yaml"),
        (
            {"auth": {**LOGIN, **DOMAINS, "password": None}},
            r"password is a required attribute\. Set it in clouds\.yaml",
        ),
        ({"auth": {**LOGIN, **DOMAINS, "something_else": "x"}}, "its auth has 'something_else', which its auth_type"),
        ({"auth_type": "v3foo"}, "v3foo"),
        ({"api_timeout": "soon"}, "api_timeout is 'soon', not a number of seconds"),
        ({"api_timeout": [3]}, r"api_timeout is \[3\], not a number of seconds"),
        ({"top": {"cache": {"class": "no.such"}}}, "no cache|cache plugin to load: no.such"),
        ({"top": {"cache": "x"}}, "empty or broken"),
        ({"top": {"clouds": ["fake"]}}, "empty or broken"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_can_not_be_used_is_one_clear_error(mock, configure, keys, why) -> None:
    configure(**keys)
    serve_identity(mock)
    with pytest.raises(CredentialsError, match=rf"Can't (use|log in to) cloud 'fake': .*({why})") as error:
        connect()
    assert "\n" not in str(error.value)
    assert "hunter2" not in str(error.value)
    assert not [line for line in lines(mock) if line.startswith("POST")]


@pytest.mark.parametrize("listed", [["R1", "R2"], ["R2"], ["R1", "R3"], [{"name": "R2", "values": {}}, "R1"]], ids=str)
def test_the_region_that_an_entry_names_counts_whatever_it_lists(mock, configure, listed) -> None:
    configure(regions=listed, region_name="R2")
    answer = {"json": {"token": regions("R1", "R2")}, "headers": {"X-Subject-Token": TOKEN}, "status": 201}
    serve_identity(mock)
    mock.replace(responses.POST, f"{AUTH}/auth/tokens", **answer)
    assert connect().region == "R2"


OVERRIDE, VERSION = {"image_endpoint_override": "http://127.0.0.1:9999/glance/v2"}, {"image_api_version": "2"}


@pytest.mark.parametrize(
    "keys",
    [
        {**OVERRIDE, **VERSION},
        {**OVERRIDE, "regions": [{"name": "R1", "values": VERSION}]},
        {**VERSION, "regions": [{"name": "R1", "values": OVERRIDE}]},
    ],
    ids=["both", "version-of-the-region", "endpoint-of-the-region"],
)
def test_an_endpoint_of_the_entrys_own_may_come_with_its_version(mock, configure, keys) -> None:
    """Such an endpoint may tell nobody which versions it has."""
    configure(**keys)
    serve_identity(mock)
    mock.get("http://127.0.0.1:9999/glance/v2/images", json={"images": []})
    assert connect().images() == []


def test_an_empty_list_of_regions_does_not_hide_the_region(mock, configure) -> None:
    configure(regions=[], region_name="R2")
    answer = {"json": {"token": regions("R1", "R2")}, "headers": {"X-Subject-Token": TOKEN}, "status": 201}
    serve_identity(mock)
    mock.replace(responses.POST, f"{AUTH}/auth/tokens", **answer)
    assert connect().region == "R2"


@pytest.mark.parametrize(
    ("entry", "environment", "file"),
    [
        ({}, None, ""),
        ({}, "/env.pem", "/env.pem"),
        ({"cacert": "/own.pem"}, None, "/own.pem"),
        ({"cacert": "/own.pem"}, "/env.pem", "/own.pem"),
        ({"cacert": "~/own.pem"}, None, "HOME/own.pem"),
        ({"verify": False, "cacert": "/own.pem"}, "/env.pem", ""),
    ],
)
def test_which_file_has_the_ca_certificates(mock, configure, monkeypatch, tmp_path, entry, environment, file) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    if environment:
        monkeypatch.setenv("OS_CACERT", environment)
    configure(**entry)
    serve_identity(mock)
    assert connect().ca_file() == file.replace("HOME", str(tmp_path))


def test_an_object_store_whose_certificate_is_not_verified_is_told_apart(mock, configure) -> None:
    configure(verify=False, object_store_endpoint_override="https://store.lab/v1/AUTH_p1")
    serve_identity(mock)
    assert connect().ca_file() is None


def test_secure_yaml_holds_the_password(mock, configure, tmp_path, monkeypatch) -> None:
    path = configure()
    content = json.loads(path.read_text())
    password = content["clouds"]["fake"]["auth"].pop("password")
    path.write_text(json.dumps(content))
    monkeypatch.setenv("OS_CLIENT_SECURE_FILE", str(tmp_path / "secure.yaml"))
    (tmp_path / "secure.yaml").write_text(json.dumps({"clouds": {"fake": {"auth": {"password": password}}}}))
    serve_identity(mock)
    connect()
    assert json.loads(mock.calls[-1].request.body)["auth"]["identity"]["password"]["user"]["password"] == PASSWORD


def test_clouds_public_yaml_holds_the_site(mock, configure, tmp_path, monkeypatch) -> None:
    configure(entry={"profile": "site", "auth": {**LOGIN, **DOMAINS, "auth_url": None}})
    site = {"auth": {"auth_url": AUTH}, "region_name": "R1", "image_api_version": "1", "api_timeout": 40}
    (tmp_path / "clouds-public.yaml").write_text(json.dumps({"public-clouds": {"site": site}}))
    monkeypatch.setattr(openstack.config.loader, "VENDOR_FILES", [str(tmp_path / "clouds-public.yaml")])
    serve_identity(mock)
    serve_services(mock)
    cloud = connect()
    cloud.check_services()
    assert cloud.images() == []
    assert (cloud.region, cloud.auth_url, cloud.session.timeout) == ("R1", AUTH, 40)


def test_of_an_entry_stays_what_concerns_this_program(monkeypatch) -> None:
    monkeypatch.setenv("OS_CACERT", "/env.pem")
    assert tidy(
        {
            "auth": {"auth_url": AUTH},
            "region-name": "R1",
            "interface": "internal",
            "object_store_endpoint_override": ACCOUNT,
            "api_timeout": "30",
            "compute_api_version": "2",
            "connect_retries": 3,
            "networks": "x",
            "message": None,
        }
    ) == {
        "auth": {"auth_url": AUTH},
        "region_name": "R1",
        "interface": "internal",
        "object_store_endpoint_override": ACCOUNT,
        "api_timeout": 30.0,
        "cacert": "/env.pem",
    }


@pytest.mark.parametrize(("spelt", "means"), [("false", False), ("No", False), ("true", True), ("/ca.pem", "/ca.pem")])
def test_a_quoted_yes_or_no_is_no_file_of_certificates(spelt, means) -> None:
    assert tidy({"verify": spelt}) == {"auth": {}, "verify": means}
