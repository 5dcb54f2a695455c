"""Clouds differ: what is too old, missing or ambiguous is one clear error; regions, endpoints and certificates are respected."""

import re
from typing import Any

import pytest
import responses

from ipp_griffin.cloud.cloud import Cloud
from ipp_griffin.cloud.shared import open_store
from ipp_griffin.common.errors import CloudError, CredentialsError, SettingError, Unavailable, Unsupported
from ipp_griffin.model.plan import choose_network

from ..openstack_responses import (
    ACCOUNT,
    AUTH,
    COMPUTE,
    IMAGE,
    NETWORK,
    PASSWORD,
    STORE,
    TOKEN,
    lines,
    regions,
    serve_identity,
    serve_services,
    token,
)
from ..relay import Relay
from ..tls import Authority, tls_in_front_of
from .conftest import connect

pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in a future release", "ignore:Comma separated lists")
ROOT = AUTH.removesuffix("/v3")


def serve_regions(mock: responses.RequestsMock, *names: str, content: dict[str, Any] | None = None) -> None:
    mock.get(AUTH, json={"version": {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": AUTH}]}})
    mock.post(
        f"{AUTH}/auth/tokens",
        json={"token": content or regions(*names)},
        headers={"X-Subject-Token": TOKEN},
        status=201,
    )


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
    serve_services(mock, latest=latest)
    with pytest.raises(Unsupported, match=re.escape(f"This cloud's Nova {said}(Pike, 2017) or later is needed")):
        connect().check_services()
    assert not [line for line in lines(mock) if line.startswith("POST") and "tokens" not in line]


@pytest.mark.parametrize("latest", ["2.52", "2.53", "2.104", "3.0"])
def test_a_nova_that_is_new_enough_passes(mock, configure, latest) -> None:
    serve_identity(mock)
    serve_services(mock, latest=latest)
    connect().check_services()


@pytest.mark.parametrize("failure", [{"status": 503}, {"body": ConnectionError("reset")}])
def test_an_outage_is_not_taken_for_a_nova_that_is_too_old(mock, configure, failure) -> None:
    """The library takes it for a service without versions."""
    serve_identity(mock)
    mock.get(re.compile(re.escape(COMPUTE) + "/?$"), **failure)
    mock.get(re.compile(re.escape(COMPUTE.removesuffix("v2.1")) + "/?$"), **failure)
    with pytest.raises(Unavailable, match="Can't ask compute for its versions: "):
        connect().check_services()
    mock.replace(responses.GET, re.compile(re.escape(COMPUTE) + "/?$"), json={"version": {"version": "2.96"}})
    connect().check_services()


def test_a_nova_without_a_version_document_is_too_old(mock, configure) -> None:
    serve_identity(mock)
    mock.get(re.compile(re.escape(COMPUTE.removesuffix("/v2.1"))), status=404)
    with pytest.raises(Unsupported, match=r"has no microversions; 2\.52 "):
        connect().check_services()


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


def test_services_are_checked_with_the_object_store_for_this_machine_and_for_servers(mock, configure) -> None:
    serve_identity(mock, without="object-store")
    serve_services(mock)
    with pytest.raises(Unsupported, match="no object store"):
        connect().check_services()
    answer = {"json": {"token": token()}, "headers": {"X-Subject-Token": TOKEN}, "status": 201}
    mock.replace(responses.POST, f"{AUTH}/auth/tokens", **answer)
    connect().check_services()
    with pytest.raises(Unsupported, match="no internal endpoint in region R1"):
        connect().check_services("internal")


def test_no_identity_at_a_longer_auth_url_is_told_from_an_outage(mock, configure) -> None:
    """The library tells of a path like this one that nothing could be discovered."""
    configure(url=f"{ROOT}/identity/v3")
    mock.get(re.compile(re.escape(ROOT)), status=404)
    with pytest.raises(Unsupported, match=r"there is no Keystone v3 at .*/identity/v3 .*Is auth_url right"):
        connect()


# -- networks ---------------------------------------------------------------------------------------------------------


def test_of_several_networks_shared_ones_are_to_choose_from_and_external_ones_are_not(mock, configure) -> None:
    serve_identity(mock)
    networks = [
        {"id": "a", "name": "mine", "project_id": "p1"},
        {"id": "b", "name": "public", "project_id": "x", "router:external": True, "shared": True},
        {"id": "c", "name": "theirs", "project_id": "x"},
        {"id": "d", "name": "campus", "project_id": "x", "shared": True},
    ]
    mock.get(f"{NETWORK}/v2.0/networks", json={"networks": networks})
    mock.get(f"{NETWORK}/v2.0/subnets", json={"subnets": []})
    found = connect().networks()
    with pytest.raises(
        SettingError, match=r"several networks: campus, mine\. Set GriffinCloud\.network to one of them\."
    ):
        choose_network("", found)
    assert choose_network("campus", found).id == "d"


# -- https ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("certificate", "keys", "said"),
    [
        ({}, {}, r"certificate is not trusted: unable to get local issuer certificate\. Set cacert of this cloud"),
        ({}, {"cacert": "/nope.pem"}, r"there is no file /nope\.pem\. Set cacert"),
        (
            {},
            {"cacert": "ca.pem", "cert": "/nope.crt"},
            r"there is no file /nope\.crt\. Set cacert \(or cert and key\)",
        ),
        ({}, {"cacert": "clouds.yaml"}, r"the file of cacert .* is not in PEM form"),
        (
            {"address": "192.0.2.7"},
            {"cacert": "ca.pem"},
            r"certificate of 127\.0\.0\.1 is for another name \(IP address mismatch",
        ),
        ({"days": -1}, {"cacert": "ca.pem"}, r"not valid now: certificate has expired\. Check this machine's clock"),
    ],
)
def test_a_certificate_that_does_not_do_says_why_and_what_next(configure, tmp_path, certificate, keys, said) -> None:
    with tls_in_front_of(9, Authority(tmp_path).server(**certificate)) as port:
        configure(url=f"https://127.0.0.1:{port}/v3", **keys)
        slept: list[float] = []
        with pytest.raises(CloudError, match=said) as error:
            Cloud.connect("fake", sleep=slept.append)
    assert "\n" not in str(error.value)
    assert slept == [], "it won't get better by itself"


def test_an_address_that_speaks_no_https_says_so(configure) -> None:
    with Relay() as plain:
        configure(url=plain.url.replace("http:", "https:"))
        with pytest.raises(CloudError, match="does not speak https at this address. Is auth_url in clouds.yaml right"):
            connect()


# -- regions and interfaces -------------------------------------------------------------------------------------------


def serve_one_flavor(mock: responses.RequestsMock, region: str, suffix: str = "") -> None:
    """All services of this region and interface, and of no other."""
    there = {url: url.replace("//127", f"//{region.lower()}.127") + suffix for url in (COMPUTE, IMAGE, NETWORK)}
    version = {"id": "v2.1", "status": "CURRENT", "version": "2.96", "min_version": "2.1"}
    for url in (there[COMPUTE], there[COMPUTE].removesuffix("/internal")):
        mock.get(
            re.compile(re.escape(url) + "/?$"), json={"version": version | {"links": [{"rel": "self", "href": url}]}}
        )
    mock.get(f"{there[COMPUTE]}/flavors/detail", json={"flavors": [{"id": "f", "name": "f", "vcpus": 1, "ram": 1}]})
    mock.get(f"{there[IMAGE]}/images", json={"images": [{"id": "i", "name": region}]})
    for key in ("networks", "subnets"):
        for version_path in ("", "/v2.0"):
            mock.get(f"{there[NETWORK]}{version_path}/{key}", json={key: []})


def assert_all_from(cloud: Cloud, region: str, suffix: str = "") -> None:
    cloud.check_services()
    assert [flavor.id for flavor in cloud.flavors()] == ["f"]
    assert [image.name for image in cloud.images()] == [region]
    assert cloud.networks() == []
    assert cloud.object_store_url() == f"http://{region.lower()}.127.0.0.1:8080/v1/AUTH_p1{suffix}"


@pytest.mark.parametrize("how", ["clouds.yaml", "setting", "OS_REGION_NAME"])
def test_the_region_decides_which_endpoints_are_used_of_every_service(mock, configure, monkeypatch, how) -> None:
    configure(region_name={"clouds.yaml": "R2", "setting": "R1"}.get(how))
    if how == "OS_REGION_NAME":
        monkeypatch.setenv("OS_REGION_NAME", "R2")
    serve_regions(mock, "R1", "R2")
    serve_one_flavor(mock, "R2")
    cloud = Cloud.connect("fake", region="R2" if how == "setting" else "", sleep=lambda seconds: None)
    assert_all_from(cloud, "R2")
    assert cloud.region == "R2"


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
    assert connect().object_store_url() == "http://r1.127.0.0.1:8080/v1/AUTH_p1"


def test_an_identity_service_for_all_regions_is_no_region_to_choose_from(mock, configure) -> None:
    configure(region_name="")
    content = regions("R1")
    for endpoint in content["catalog"][-1]["endpoints"]:
        endpoint.update(region="Global", region_id="Global")
    serve_regions(mock, content=content)
    assert connect().object_store_url() == "http://r1.127.0.0.1:8080/v1/AUTH_p1"


@pytest.mark.parametrize(
    "keys", [{"interface": "internal"}, {"interface": ["internal", "public"]}, {"endpoint_type": "internalURL"}, {}]
)
def test_the_interface_of_clouds_yaml_or_os_interface_is_for_every_service(mock, configure, monkeypatch, keys) -> None:
    configure(**keys)
    if not keys:
        monkeypatch.setenv("OS_INTERFACE", "internal")
    serve_regions(mock, "R1")
    serve_one_flavor(mock, "R1", "/internal")
    assert_all_from(connect(), "R1", "/internal")


def test_clouds_yaml_wins_over_os_interface_and_os_region_name(mock, configure, monkeypatch) -> None:
    configure(interface="public", region_name="R1")
    monkeypatch.setenv("OS_INTERFACE", "internal")
    monkeypatch.setenv("OS_REGION_NAME", "R2")
    serve_regions(mock, "R1", "R2")
    serve_one_flavor(mock, "R1")
    assert_all_from(connect(), "R1")


def test_an_interface_that_the_catalog_lacks_is_one_clear_error(mock, configure) -> None:
    configure(interface="admin")
    serve_regions(mock, "R1")
    with pytest.raises(
        Unsupported, match=r"admin endpoint for compute service in R1 region not found\. Are region and interface"
    ):
        connect().check_services()
    with pytest.raises(Unsupported, match=r"no object store"):
        connect().object_store_url()


@pytest.mark.parametrize("interface", ["public", "internal"])
@pytest.mark.parametrize(
    ("servers_url", "host"),
    [("", "own"), ("internal", "inside.lab"), ("public", "r1.lab"), ("https://store.lab", "store.lab")],
)
def test_servers_may_reach_the_store_by_another_endpoint(mock, configure, interface, servers_url, host) -> None:
    """By default the client's own; "public", "internal" and "admin" mean those of the catalog, whatever the client's is."""
    configure(interface=interface)
    content = regions("R1")
    for service in content["catalog"]:
        for endpoint, name in zip(service["endpoints"], ("r1.lab", "inside.lab"), strict=True):
            endpoint["url"] = endpoint["url"].replace("r1.127.0.0.1", name).removesuffix("/internal")
    serve_regions(mock, content=content)
    own = "r1.lab" if interface == "public" else "inside.lab"
    mock.get(f"http://{own}:8080/info", json={"swift": {"version": "2.30.0"}, "tempurl": {}})
    mock.head(
        f"{ACCOUNT}/c-u".replace("127.0.0.1", own),
        headers={"X-Container-Meta-Ipp-Griffin": "u", "X-Container-Meta-Temp-Url-Key": "k"},
    )
    url = open_store(connect(), container="c", servers_url=servers_url).get_url("u", "x", 60)
    expected = own if host == "own" else host
    assert re.match(rf"https?://{expected}(:8080)?/v1/AUTH_p1/c-u/x\?temp_url_sig=", url)


def test_an_endpoint_for_servers_that_the_catalog_lacks_is_named(mock, configure) -> None:
    serve_regions(mock, "R1")
    with pytest.raises(Unsupported, match=r"no object store \(no admin endpoint in region R1\)"):
        open_store(connect(), container="c", servers_url="admin")


def test_an_endpoint_in_clouds_yaml_overrides_the_catalog(mock, configure) -> None:
    configure(object_store_endpoint_override=f"{STORE}/elsewhere/v1/AUTH_p1")
    serve_identity(mock)
    assert connect().object_store_url() == f"{STORE}/elsewhere/v1/AUTH_p1"
