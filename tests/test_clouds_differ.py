"""Clouds differ: what is too old or missing is one clear error; what does not matter does not disturb."""

import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import responses

from ipp_griffin.calls import CredentialsError, Unsupported
from ipp_griffin.cloud import Cloud
from ipp_griffin.settings import open_store

from .openstack_responses import (
    ACCOUNT,
    AUTH,
    COMPUTE,
    IMAGE,
    NETWORK,
    PASSWORD,
    STORE,
    TOKEN,
    lines,
    serve_identity,
    token,
    write_clouds_yaml,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in a future release", "ignore:Comma separated lists")
ROOT = AUTH.removesuffix("/v3")


@pytest.fixture
def mock() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``configure(top={...}, key=value, ...)``: more keys for the entry ``fake``, and for the whole file; ``auth`` as it is."""
    monkeypatch.chdir(tmp_path)

    def write(*, top: dict[str, Any] | None = None, **keys: Any) -> None:
        path = write_clouds_yaml(tmp_path)
        content = json.loads(path.read_text())
        content["clouds"]["fake"].update(keys)
        path.write_text(json.dumps(content | (top or {})))
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(path))

    write()
    return write


def connect() -> Cloud:
    return Cloud.connect("fake", sleep=lambda seconds: None)


def serve(mock: responses.RequestsMock, *, latest: str | None = "2.96") -> None:
    """All services, empty; compute with that latest microversion."""
    version = {"id": "v2.1", "status": "CURRENT", "links": [{"rel": "self", "href": COMPUTE}]}
    if latest:
        version |= {"version": latest, "min_version": "2.1"}
    mock.get(re.compile(re.escape(COMPUTE) + "/?$"), json={"version": version})
    for url, key in (
        (f"{COMPUTE}/servers/detail", "servers"),
        (f"{COMPUTE}/flavors/detail", "flavors"),
        (f"{IMAGE}/images", "images"),
        (f"{NETWORK}/v2.0/networks", "networks"),
        (f"{NETWORK}/v2.0/subnets", "subnets"),
    ):
        mock.get(url, json={key: []})


def regions(*names: str) -> dict[str, Any]:
    """A token whose catalog has every service in each of these regions, with internal endpoints as well."""
    content = token()
    for service in content["catalog"]:
        url = service["endpoints"][0]["url"]
        service["endpoints"] = [
            {
                "interface": interface,
                "region": name,
                "region_id": name,
                "id": name,
                "url": f"{url}{suffix}".replace("//127", f"//{name}.127"),
            }
            for name in names
            for interface, suffix in (("public", ""), ("internal", "/internal"))
        ]
    return content


def serve_regions(mock: responses.RequestsMock, *names: str) -> None:
    mock.get(AUTH, json={"version": {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": AUTH}]}})
    mock.post(f"{AUTH}/auth/tokens", json={"token": regions(*names)}, headers={"X-Subject-Token": TOKEN}, status=201)


# -- too old ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latest", "said"),
    [
        ("2.38", "offers microversions up to 2.38; 2.52 "),
        ("2.9", "offers microversions up to 2.9; 2.52 "),
        (None, "has no microversions; 2.52 "),
    ],
)
def test_a_nova_that_is_too_old_says_what_it_has_and_what_is_needed(mock, configure, latest, said) -> None:
    serve_identity(mock)
    serve(mock, latest=latest)
    with pytest.raises(Unsupported, match=re.escape(f"This cloud's Nova {said}(Pike, 2017) or later is needed")):
        connect().check_compute()
    assert not [line for line in lines(mock) if line.startswith("POST") and "tokens" not in line]


@pytest.mark.parametrize("latest", ["2.52", "2.53", "2.104", "3.0"])
def test_a_nova_that_is_new_enough_passes(mock, configure, latest) -> None:
    serve_identity(mock)
    serve(mock, latest=latest)
    connect().check_compute()


def serve_identity_v2(mock: responses.RequestsMock) -> None:
    version = {"id": "v2.0", "status": "deprecated", "links": [{"rel": "self", "href": f"{ROOT}/v2.0/"}]}
    mock.get(re.compile(re.escape(ROOT) + "/?$"), status=300, json={"versions": {"values": [version]}})
    mock.get(re.compile(re.escape(ROOT) + "/v2.0/?$"), json={"version": version})
    mock.get(re.compile(re.escape(AUTH) + "/?$"), status=404)
    mock.post(f"{AUTH}/auth/tokens", status=404)
    tenant = {"id": "p1", "name": "p"}
    access = {"token": {"id": "t", "expires": "2126-01-01T00:00:00Z", "tenant": tenant}, "serviceCatalog": []}
    mock.post(f"{ROOT}/v2.0/tokens", json={"access": {**access, "user": {"id": "u", "name": "ada", "roles": []}}})


V2_LOGIN = {"username": "ada", "password": PASSWORD, "tenant_name": "p", "auth_url": f"{ROOT}/v2.0"}


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"auth": {**V2_LOGIN, "auth_url": ROOT, "user_domain_name": "Default", "project_domain_name": "Default"}},
        {"auth": {**V2_LOGIN, "user_domain_name": "Default", "project_domain_name": "Default"}},
        {"auth": V2_LOGIN, "identity_api_version": "2"},
        {"auth": V2_LOGIN, "auth_type": "v2password"},
    ],
)
def test_a_cloud_with_identity_v2_alone_is_told_that_v3_is_needed(mock, configure, keys) -> None:
    configure(**keys)
    serve_identity_v2(mock)
    with pytest.raises(Unsupported, match=r"(offers v2.0 only|no Keystone v3 at).* Identity v3 .*is needed"):
        connect()


def test_a_cloud_without_an_object_store_says_what_is_needed(mock, configure) -> None:
    serve_identity(mock, without="object-store")
    with pytest.raises(
        Unsupported, match=r"no object store .*region R1.*Swift, or Ceph's gateway, with TempURLs is needed"
    ):
        open_store(connect(), container="c")


# -- regions and interfaces -------------------------------------------------------------------------------------------


def test_the_region_decides_which_endpoints_are_used(mock, configure) -> None:
    configure(region_name="R2")
    serve_regions(mock, "R1", "R2")
    mock.get("http://R2.127.0.0.1:8774/v2.1/flavors/detail", json={"flavors": []})
    mock.get("http://R2.127.0.0.1:8774/v2.1", json={})
    cloud = connect()
    assert cloud.flavors() == []
    assert cloud.object_store_url() == "http://R2.127.0.0.1:8080/v1/AUTH_p1"


def test_a_wrong_region_lists_those_there_are(mock, configure) -> None:
    configure(region_name="Mars")
    serve_regions(mock, "R1", "R2")
    with pytest.raises(CredentialsError, match=r"no region 'Mars'\. It has: R1, R2\. Set GriffinCloud\.region"):
        connect()


def test_several_regions_and_none_given_is_an_error_that_lists_them(mock, configure) -> None:
    configure(region_name="")
    serve_regions(mock, "R1", "R2")
    with pytest.raises(CredentialsError, match=r"several regions: R1, R2\. Set GriffinCloud\.region"):
        connect()


def test_one_region_needs_no_setting(mock, configure) -> None:
    configure(region_name="")
    serve_regions(mock, "R1")
    assert connect().object_store_url() == "http://R1.127.0.0.1:8080/v1/AUTH_p1"


def test_the_interface_of_clouds_yaml_is_for_every_service(mock, configure) -> None:
    configure(interface="internal")
    serve_regions(mock, "R1")
    mock.get("http://R1.127.0.0.1:8774/v2.1/internal", json={})
    mock.get("http://R1.127.0.0.1:8774/v2.1/internal/flavors/detail", json={"flavors": []})
    cloud = connect()
    assert cloud.flavors() == []
    assert cloud.object_store_url() == "http://R1.127.0.0.1:8080/v1/AUTH_p1/internal"


@pytest.mark.parametrize(("servers_url", "host"), [("", "R1"), ("internal", "R1"), ("https://store.lab", "store.lab")])
def test_servers_may_reach_the_store_by_another_endpoint(mock, configure, servers_url, host) -> None:
    serve_regions(mock, "R1")
    content = regions("R1")
    for service in content["catalog"]:
        service["endpoints"][1]["url"] = service["endpoints"][0]["url"].replace("R1.127.0.0.1", "inside.lab")
    mock.replace(
        responses.POST, f"{AUTH}/auth/tokens", json={"token": content}, headers={"X-Subject-Token": TOKEN}, status=201
    )
    mock.get("http://R1.127.0.0.1:8080/info", json={"swift": {"version": "2.30.0"}, "tempurl": {}})
    mock.head(
        f"{ACCOUNT}/c-u".replace("//", "//R1."),
        headers={"X-Container-Meta-Ipp-Griffin": "u", "X-Container-Meta-Temp-Url-Key": "k"},
    )
    url = open_store(connect(), container="c", servers_url=servers_url).get_url("u", "x", 60)
    expected = "inside.lab" if servers_url == "internal" else host
    assert re.match(rf"https?://{expected}\S*/v1/AUTH_p1/c-u/x\?temp_url_sig=", url)


def test_an_endpoint_in_clouds_yaml_overrides_the_catalog(mock, configure) -> None:
    configure(object_store_endpoint_override=f"{STORE}/elsewhere/v1/AUTH_p1")
    serve_identity(mock)
    assert connect().object_store_url() == f"{STORE}/elsewhere/v1/AUTH_p1"


# -- noise ------------------------------------------------------------------------------------------------------------

NOISE: list[dict[str, Any]] = [
    {"some_other_programs_key": {"a": 1}},
    {"verify": False},
    {"connect_retries": 5, "status_code_retries": 5, "compute_connect_retries": "3"},
    {"api_timeout": "30"},
    {"compute_default_microversion": "2.1"},
    {"compute_api_version": 2.1},
    {"compute_api_version": "2", "image_api_version": "1", "network_api_version": 2.0, "object_store_api_version": "1"},
    {"identity_api_version": "2"},
    {"identity_api_version": 2.0},
    {"auth_type": "v3password"},
    {"regions": ["R1", "R2"]},
    {"regions": [{"name": "R1", "values": {"foo": 1}}]},
    {"networks": [{"name": "x", "default_interface": True, "nat_destination": True}]},
    {"floating_ip_source": "None", "secgroup_source": "nova", "requires_floating_ip": False},
    {"image_api_use_tasks": "true", "image_format": "raw", "disable_vendor_agent": {}},
    {"profile": "a-vendor-that-nobody-knows"},
    {"force_ipv4": True, "message": "to be switched off", "status": "deprecated"},
    {"database_api_version": "1", "volume_api_version": 3},
    {"cert": "/nope.crt", "key": "/nope.key"},
    {"password": "x", "auth_url": "x"},
    {"top": {"cache": {"expiration_time": 3600, "expiration": {"server": 100}, "class": "dogpile.cache.memory"}}},
    {"top": {"cache": {"auth": True}}},
    {"top": {"client": {"force_ipv4": True}, "ansible": {"x": 1}, "metrics": {"statsd": {"host": "127.0.0.1"}}}},
]


@pytest.mark.parametrize("keys", NOISE, ids=lambda keys: ",".join(keys.get("top", keys)))
def test_what_other_programs_need_in_clouds_yaml_changes_nothing(mock, configure, keys) -> None:
    configure(**keys)
    serve_identity(mock)
    serve(mock)
    cloud = connect()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*[Uu]nverified HTTPS")
        cloud.check_compute()
        assert cloud.object_store_url() == ACCOUNT
        assert (cloud.flavors(), cloud.images(), cloud.networks()) == ([], [], [])
        before = len(mock.calls)
        assert cloud.servers() == cloud.servers() == []
    asked = list(mock.calls)[before:]
    assert len(asked) == 2, "a listing came out of a cache"
    assert {call.request.headers["OpenStack-API-Version"] for call in asked} == {"compute 2.52"}
    assert not list(Path.cwd().glob("**/*.log"))


@pytest.mark.parametrize("entry", [None, [], "x", 5, {"auth": None}, {"auth": []}, {"region_name": None}])
def test_an_entry_that_is_no_cloud_is_one_clear_error(mock, configure, tmp_path, entry) -> None:
    path = tmp_path / "clouds.yaml"
    content = json.loads(path.read_text())
    content["clouds"]["fake"] = entry if not isinstance(entry, dict) else content["clouds"]["fake"] | entry
    path.write_text(json.dumps(content))
    with pytest.raises(CredentialsError, match=r"Can't (use|log in to) cloud 'fake': .*\.") as error:
        connect()
    assert "\n" not in str(error.value)


def test_secure_yaml_holds_the_password(mock, configure, tmp_path, monkeypatch) -> None:
    content = json.loads((tmp_path / "clouds.yaml").read_text())
    password = content["clouds"]["fake"]["auth"].pop("password")
    (tmp_path / "clouds.yaml").write_text(json.dumps(content))
    monkeypatch.setenv("OS_CLIENT_SECURE_FILE", str(tmp_path / "secure.yaml"))
    (tmp_path / "secure.yaml").write_text(json.dumps({"clouds": {"fake": {"auth": {"password": password}}}}))
    serve_identity(mock)
    connect()
    assert json.loads(mock.calls[-1].request.body)["auth"]["identity"]["password"]["user"]["password"] == PASSWORD
