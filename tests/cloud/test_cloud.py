"""`ipp_griffin.cloud.cloud` against made-up answers of the services; no test sleeps or opens a connection."""

import json
import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import responses
from requests.exceptions import ConnectionError as Dropped
from requests.exceptions import ConnectTimeout, ReadTimeout

from ipp_griffin.cloud.cloud import Cloud
from ipp_griffin.cloud.failures import from_status
from ipp_griffin.cluster.create import create_servers
from ipp_griffin.common.errors import CloudError, CredentialsError, QuotaError, Unavailable, Unsupported
from ipp_griffin.common.text import one_line
from ipp_griffin.common.threads import concurrently, in_parallel
from ipp_griffin.model.names import set_tag, uid_tag
from ipp_griffin.model.plan import Flavor, Image, Limits, Network, ServerPlan
from ipp_griffin.model.server import Server

from ..fakes.cloud import SET, UID, plan_of
from ..openstack_responses import AUTH, COMPUTE, IMAGE, NETWORK, PASSWORD, TOKEN, Nova, lines, serve_identity, token

# The SDK deprecates what it does itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in a future release")

QUOTA = "Quota exceeded for instances: Requested 1, but already used 2 of 2 instances"


def create(
    cloud: Cloud,
    n: int,
    *,
    stop: threading.Event | None = None,
    on_created: Callable[[ServerPlan, Server], None] = lambda server, made: None,
    parallel: int = 1,
) -> None:
    wanted = plan_of(n)
    create_servers(
        cloud,
        wanted,
        [(server, b"#!") for server in wanted.servers],
        on_created=on_created,
        stop=stop or threading.Event(),
        parallel=parallel,
    )


class Told:
    """What ``on_created`` was told: slot -> ids."""

    def __init__(self) -> None:
        self.ids: dict[int, list[str]] = {}

    def __call__(self, server: ServerPlan, made: Server) -> None:
        self.ids.setdefault(server.place.slot, []).append(made.id)


# -- logging in -----------------------------------------------------------------------------------------------


def test_one_authentication_is_all_that_connecting_takes(mock: responses.RequestsMock, clouds_yaml: Path) -> None:
    serve_identity(mock)
    cloud = Cloud.connect("fake")
    assert lines(mock) == ["GET /v3", "POST /v3/auth/tokens"]
    assert (cloud.name, cloud.region, cloud.project_id, cloud.user_id, cloud.auth_url) == (
        "fake",
        "R1",
        "p1",
        "u1",
        AUTH,
    )
    assert cloud.object_store_url() == "http://127.0.0.1:8080/v1/AUTH_p1"
    assert len(mock.calls) == 2


def test_a_missing_clouds_yaml_is_named_with_the_files_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    with pytest.raises(CredentialsError) as raised:
        Cloud.connect("mine")
    assert f"There is no {tmp_path / 'clouds.yaml'} nor " in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_clouds_yaml_that_is_no_yaml_is_named_with_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "clouds.yaml"
    path.write_text("clouds:\n  mine: {\n  other: [\n")
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(path))
    with pytest.raises(CredentialsError) as raised:
        Cloud.connect("mine")
    assert re.search(rf"{re.escape(str(path))}, line \d+: not YAML \(", str(raised.value))
    assert len(str(raised.value).splitlines()) == 1


def test_every_request_has_a_time_out(mock: responses.RequestsMock, connected: Cloud) -> None:
    Nova(mock)
    connected.servers()
    assert [call.request.req_kwargs["timeout"] for call in mock.calls] == [60]


def test_no_name_means_os_cloud(
    mock: responses.RequestsMock, clouds_yaml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_CLOUD", "other")
    serve_identity(mock)
    assert Cloud.connect().project_id == "p1"


def test_no_name_and_no_os_cloud_means_the_os_variables(
    mock: responses.RequestsMock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variables = {"AUTH_URL": AUTH, "USERNAME": "ada", "PASSWORD": PASSWORD, "PROJECT_NAME": "p"}
    variables |= {"USER_DOMAIN_NAME": "Default", "PROJECT_DOMAIN_NAME": "Default", "REGION_NAME": "R1"}
    for name, value in variables.items():
        monkeypatch.setenv(f"OS_{name}", value)
    serve_identity(mock)
    assert Cloud.connect().project_id == "p1"


def test_an_unknown_cloud_name_lists_those_of_clouds_yaml(mock: responses.RequestsMock, clouds_yaml: Path) -> None:
    with pytest.raises(CredentialsError, match="'fakee'.*clouds.yaml has: fake, other") as error:
        Cloud.connect("fakee")
    assert "\n" not in str(error.value)
    assert len(mock.calls) == 0


def test_no_credentials_at_all_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CredentialsError, match="Set OS_CLOUD or GriffinCloud.cloud"):
        Cloud.connect()


@pytest.mark.parametrize("text", ["clouds: [", "clouds: 3", "- a", "clouds: {fake: {auth: 7}}", "\x00"])
def test_a_broken_clouds_yaml_is_one_clear_error(clouds_yaml: Path, text: str) -> None:
    clouds_yaml.write_text(text)
    with pytest.raises(CredentialsError) as error:
        Cloud.connect("fake")
    assert "\n" not in str(error.value)


def test_a_wrong_password_is_a_credentials_error_with_the_request_id(
    mock: responses.RequestsMock, clouds_yaml: Path
) -> None:
    mock.get(AUTH, json={"version": {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": AUTH}]}})
    body = {"error": {"code": 401, "message": "The request you have made requires authentication."}}
    mock.post(f"{AUTH}/auth/tokens", json=body, status=401, headers={"x-openstack-request-id": "req-7"})
    with pytest.raises(CredentialsError, match="Can't log in to cloud 'fake': the cloud said 401") as error:
        Cloud.connect("fake")
    assert (error.value.status, error.value.request_id) == (401, "req-7")
    assert PASSWORD not in str(error.value)
    assert len(mock.calls) == 2  # it is not tried again: accounts get locked


@pytest.mark.parametrize(
    "message", ["Could not recognize Fernet token", "Could not find Application Credential: 0123456789abcdef."]
)
def test_credentials_that_keystone_does_not_know_are_no_wrong_address(
    mock: responses.RequestsMock, clouds_yaml: Path, message: str
) -> None:
    """It answers 404, as it would where it is not."""
    serve_identity(mock)
    mock.replace(responses.POST, f"{AUTH}/auth/tokens", status=404, json={"error": {"code": 404, "message": message}})
    with pytest.raises(
        CredentialsError, match=f"cloud said 404: {message.rstrip('.')}. Check the credentials"
    ) as error:
        Cloud.connect("fake")
    assert error.value.status == 401  # where servers are deleted, 404 would mean that it is done


def test_a_404_that_speaks_of_tokens_is_not_always_about_credentials() -> None:
    for message in ("Keypair my-token not found for user ada", "The resource /v3/auth/tokens could not be found."):
        error = from_status("Can't look", 404, message, {})
        assert (type(error), error.status) == (CloudError, 404)


def test_credentials_without_a_project_are_refused(mock: responses.RequestsMock, clouds_yaml: Path) -> None:
    serve_identity(mock, project=False)
    with pytest.raises(CredentialsError, match="no project"):
        Cloud.connect("fake")


def test_an_unreachable_identity_service_is_tried_again_and_then_named(
    mock: responses.RequestsMock, clouds_yaml: Path, slept: list[float]
) -> None:
    refused = Dropped("HTTPConnectionPool: Max retries exceeded (Caused by ...: [Errno 111] Connection refused'))")
    mock.get(AUTH, body=refused)
    mock.post(f"{AUTH}/auth/tokens", body=refused)
    with pytest.raises(Unavailable, match=f"{AUTH}/auth/tokens: Connection refused. Is the address right") as error:
        Cloud.connect("fake", sleep=slept.append, retries=2)
    assert len(slept) == 2
    assert "Pool" not in str(error.value)


def test_a_503_of_the_identity_service_is_waited_out(
    mock: responses.RequestsMock, clouds_yaml: Path, slept: list[float]
) -> None:
    mock.post(f"{AUTH}/auth/tokens", status=503)
    serve_identity(mock)
    assert Cloud.connect("fake", sleep=slept.append).project_id == "p1"
    assert len(slept) == 1


def test_an_expired_token_is_renewed_without_a_word(mock: responses.RequestsMock, connected: Cloud) -> None:
    mock.get(f"{COMPUTE}/servers/detail", status=401)
    Nova(mock)
    assert connected.servers() == []
    assert [line.split("?")[0] for line in lines(mock)] == [
        "GET /v2.1/servers/detail",
        "POST /v3/auth/tokens",
        "GET /v2.1/servers/detail",
    ]


def test_revoked_credentials_are_a_credentials_error_in_any_call(
    mock: responses.RequestsMock, connected: Cloud
) -> None:
    mock.get(f"{COMPUTE}/limits", status=401, json={"error": {"message": "Unauthorized"}})
    mock.replace(responses.POST, f"{AUTH}/auth/tokens", status=401, json={"error": {"message": "Expired"}})
    with pytest.raises(CredentialsError, match="expired or revoked"):
        connected.limits()


def test_no_token_password_or_user_data_gets_into_any_log(
    mock: responses.RequestsMock, clouds_yaml: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    serve_identity(mock)
    cloud = Cloud.connect("fake")
    Nova(mock)
    cloud.create_server(plan_of(1), plan_of(1).servers[0], b"temp_url_sig=0123456789abcdef")
    cloud.servers()
    assert "POST compute /servers" in caplog.text
    for secret in (TOKEN, PASSWORD, "s3cr3t", "user_data", "dGVtcF91cmxfc2ln"):
        assert secret not in caplog.text


# -- what there is --------------------------------------------------------------------------------------------


def test_a_catalog_without_an_object_store_is_unsupported(mock: responses.RequestsMock, clouds_yaml: Path) -> None:
    serve_identity(mock, without="object-store")
    with pytest.raises(Unsupported, match="no object store .*region R1.*Swift"):
        Cloud.connect("fake").object_store_url()


def test_a_catalog_without_compute_is_unsupported(mock: responses.RequestsMock, clouds_yaml: Path) -> None:
    serve_identity(mock, without="compute")
    with pytest.raises(Unsupported, match="does the cloud have this service"):
        Cloud.connect("fake").limits()


def test_images_come_from_all_pages_and_are_active(mock: responses.RequestsMock, connected: Cloud) -> None:
    first = {"id": "a", "name": "snapshot1", "created_at": "2026-01-01T00:00:00Z", "min_ram": 512, "min_disk": 3}
    mock.get(f"{IMAGE}/images", json={"images": [first], "next": "/v2/images?marker=a"})
    mock.get(f"{IMAGE}/images", json={"images": [{"id": "b", "name": None}]})
    assert connected.images() == [Image("a", "snapshot1", "2026-01-01T00:00:00Z", 512, 3), Image("b", "")]
    assert lines(mock) == [
        "GET /v2/images?status=active&limit=1000",
        "GET /v2/images?status=active&limit=1000&marker=a",
    ]


def test_images_can_be_picked_by_pattern(mock: responses.RequestsMock, connected: Cloud) -> None:
    mock.get(f"{IMAGE}/images", json={"images": [{"id": "a", "name": "snapshot1"}, {"id": "b", "name": "debian"}]})
    assert [image.name for image in connected.images("snap*")] == ["snapshot1"]


def test_disabled_flavors_are_left_out(mock: responses.RequestsMock, connected: Cloud) -> None:
    flavor = {"id": "f", "name": "small", "vcpus": 2, "ram": 2048, "disk": 10}
    off = flavor | {"id": "g", "OS-FLV-DISABLED:disabled": True}
    mock.get(f"{COMPUTE}/flavors/detail", json={"flavors": [flavor, off]})
    assert connected.flavors() == [Flavor("f", "small", 2, 2048, 10)]


def test_networks_take_two_requests_and_leave_out_other_projects(
    mock: responses.RequestsMock, connected: Cloud
) -> None:
    networks = [
        {"id": "a", "name": "mine", "project_id": "p1"},
        {"id": "b", "name": "public", "project_id": "x", "router:external": True},
        {"id": "c", "name": "theirs", "project_id": "x"},
        {"id": "d", "name": "shared", "project_id": "x", "shared": True},
    ]
    subnets = [
        {"id": "s1", "network_id": "a", "cidr": "10.0.0.0/24"},
        {"id": "s2", "network_id": "a", "cidr": "fd00::/64"},
    ]
    mock.get(f"{NETWORK}/v2.0/networks", json={"networks": networks})
    mock.get(f"{NETWORK}/v2.0/subnets", json={"subnets": subnets})
    assert connected.networks() == [
        Network("a", "mine", ("10.0.0.0/24", "fd00::/64")),
        Network("b", "public", external=True),
        Network("d", "shared"),
    ]
    assert len(mock.calls) == 2


def test_the_names_of_keys_security_groups_and_zones(mock: responses.RequestsMock, connected: Cloud) -> None:
    mock.get(f"{COMPUTE}/os-keypairs", json={"keypairs": [{"keypair": {"name": "k1"}}, {"keypair": {"name": "k2"}}]})
    mock.get(f"{NETWORK}/v2.0/security-groups", json={"security_groups": [{"id": "g", "name": "default"}]})
    zones = [
        {"zoneName": "nova", "zoneState": {"available": True}},
        {"zoneName": "down", "zoneState": {"available": False}},
    ]
    mock.get(f"{COMPUTE}/os-availability-zone", json={"availabilityZoneInfo": zones})
    assert connected.key_names() == ["k1", "k2"]
    assert connected.security_groups() == {"g": "default"}
    assert connected.zones() == ["nova"]


def test_limits_are_one_request(mock: responses.RequestsMock, connected: Cloud) -> None:
    absolute = {"maxTotalInstances": -1, "totalInstancesUsed": 1, "maxTotalCores": 20, "totalCoresUsed": 2}
    mock.get(f"{COMPUTE}/limits", json={"limits": {"absolute": absolute | {"maxTotalRAMSize": 3, "totalRAMUsed": 4}}})
    assert connected.limits() == Limits(-1, 1, 20, 2, 3, 4)


def test_a_limit_that_a_cloud_does_not_tell_is_none(mock: responses.RequestsMock, connected: Cloud) -> None:
    mock.get(f"{COMPUTE}/limits", json={"limits": {"absolute": {"maxTotalCores": 20}}})
    assert connected.limits() == Limits(-1, 0, 20, 0, -1, 0)
    assert len(mock.calls) == 1


def test_the_local_address_is_the_one_towards_the_cloud(connected: Cloud) -> None:
    assert connected.local_address() == "127.0.0.1"


# -- failures that any call may meet ----------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_call_that_may_be_repeated_is(
    mock: responses.RequestsMock, connected: Cloud, slept: list[float], status: int
) -> None:
    mock.get(f"{COMPUTE}/servers/detail", status=status)
    Nova(mock)
    assert connected.servers() == []
    assert len(slept) == 1 and 0 < slept[0] <= 0.5


@pytest.mark.parametrize("failure", [Dropped("reset"), ReadTimeout("slow"), ConnectTimeout("slow")])
def test_a_dropped_connection_or_a_time_out_is_repeated(
    mock: responses.RequestsMock, connected: Cloud, slept: list[float], failure: Exception
) -> None:
    mock.get(f"{COMPUTE}/servers/detail", body=failure)
    Nova(mock)
    assert connected.servers() == []
    assert len(slept) == 1


def test_retry_after_is_honoured(mock: responses.RequestsMock, connected: Cloud, slept: list[float]) -> None:
    mock.get(f"{COMPUTE}/servers/detail", status=429, headers={"Retry-After": "7"})
    date = {"Retry-After": "Fri, 02 Jan 2026 00:00:20 GMT", "Date": "Fri, 02 Jan 2026 00:00:00 GMT"}
    mock.get(f"{COMPUTE}/servers/detail", status=503, headers=date)
    mock.get(f"{COMPUTE}/servers/detail", status=503, headers={"Retry-After": "86400"})
    mock.get(f"{COMPUTE}/servers/detail", status=503, headers={"Retry-After": "soon"})
    Nova(mock)
    connected.servers()
    assert 7 <= slept[0] < 8
    assert 20 <= slept[1] < 21
    assert 60 <= slept[2] < 61  # no service may hold us for a day
    assert slept[3] < 5


def test_a_token_that_expires_while_many_threads_use_it_is_renewed_for_all(
    mock: responses.RequestsMock, connected: Cloud
) -> None:
    """keystoneauth repeats a request of the thread that throws the old token away, and of no other."""
    barrier, refused = threading.Barrier(4, timeout=60), []

    def refuse(request: Any) -> Any:
        refused.append(request)
        if len(refused) <= 4:
            barrier.wait()
            return (
                401,
                {},
                json.dumps({"error": {"code": 401, "message": "The request you have made requires authentication."}}),
            )
        return 200, {}, json.dumps({"images": []})

    mock.add_callback(responses.GET, f"{IMAGE}/images", refuse)
    assert concurrently(*[connected.images] * 4) == [[]] * 4
    assert len(refused) == 8


def test_retries_end_with_unavailable_and_the_cause(
    mock: responses.RequestsMock, connected: Cloud, slept: list[float]
) -> None:
    error = {"computeFault": {"code": 500, "message": "Unexpected API Error."}}
    mock.get(f"{COMPUTE}/limits", status=500, json=error, headers={"x-compute-request-id": "req-9"})
    with pytest.raises(Unavailable, match="Can't read the quota: the cloud said 500: Unexpected API Error. Try") as e:
        connected.limits()
    assert (e.value.status, e.value.request_id) == (500, "req-9")
    assert len(mock.calls) == 5
    assert len(slept) == 4
    assert all(2**n / 4 <= pause <= 2**n / 2 for n, pause in enumerate(slept))  # doubling, with jitter


@pytest.mark.parametrize(
    "body",
    ["", "<html>captive portal</html>", "[]", "7", "null", "{", '{"servers": 3}', '{"servers": [7]}']
    + ['{"servers": null}', '{"servers": [{"status": "ACTIVE", "tags": []}]}', '{"servers": {}, "x": 1'],
)
def test_a_malformed_body_is_retried_and_then_one_clear_error(
    mock: responses.RequestsMock, connected: Cloud, slept: list[float], body: str
) -> None:
    mock.get(f"{COMPUTE}/servers/detail", body=body)
    with pytest.raises(Unavailable, match="the cloud's answer is malformed"):
        connected.servers()
    assert len(slept) == 4


def test_404_is_not_retried(mock: responses.RequestsMock, connected: Cloud, slept: list[float]) -> None:
    mock.get(f"{COMPUTE}/limits", status=404, body="<html><title>404</title>\nnothing here</html>")
    with pytest.raises(CloudError, match="the cloud said 404: 404 nothing here") as error:
        connected.limits()
    assert type(error.value) is CloudError
    assert slept == []


def test_what_the_cloud_says_is_cut_to_one_printable_line(mock: responses.RequestsMock, connected: Cloud) -> None:
    message = "bad\x1b[31m\r\nthing\u202e " + "word " * 2000
    mock.get(f"{COMPUTE}/limits", status=400, json={"badRequest": {"message": message}})
    with pytest.raises(CloudError) as error:
        connected.limits()
    text = str(error.value)
    assert len(text) < 400
    assert text.isprintable()
    assert "bad\\x1b[31m thing\\u202e word" in text


def test_user_data_that_is_echoed_back_does_not_get_into_the_error(
    mock: responses.RequestsMock, connected: Cloud
) -> None:
    echo = f"Invalid input for field/attribute user_data. Value: {'dGVt' * 9000}. 'x' is too long"
    Nova(mock, (400, {}, json.dumps({"badRequest": {"message": echo}})))
    with pytest.raises(CloudError, match="user_data. Value: .* is too long") as error:
        connected.create_server(plan_of(1), plan_of(1).servers[0], b"x")
    assert "dGVt" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "GET /c/o?temp_url_sig=5ec2e7&temp_url_expires=1",
        "X-Auth-Token: 5ec2e7",
        "'X-Container-Meta-Temp-URL-Key': '5ec2e7'",
        '{"adminPass": "5ec2e7"}',
        "password=5ec2e7",
    ],
)
def test_secrets_are_cut_out_of_any_text(text: str) -> None:
    assert "5ec2e7" not in one_line(text)
    assert "[redacted]" in one_line(text)


# -- servers --------------------------------------------------------------------------------------------------


def test_servers_by_tag_are_one_request_with_faults(mock: responses.RequestsMock, connected: Cloud) -> None:
    good = {
        "id": "a",
        "name": "one",
        "status": "ACTIVE",
        "tags": ["t", "u"],
        "metadata": {"owner": "ada"},
        "created": "2026-01-01T00:00:00Z",
        "OS-SRV-USG:launched_at": "2026-01-01T00:00:05.000000",
        "user_id": "u1",
        "flavor": {"vcpus": 2, "original_name": "small\x1b[2J"},
        "addresses": {
            "net": [
                {"addr": "fd00::5", "version": 6, "OS-EXT-IPS:type": "fixed"},
                {"addr": "203.0.113.9", "version": 4, "OS-EXT-IPS:type": "floating"},
                {"addr": "10.0.0.5", "version": 4, "OS-EXT-IPS:type": "fixed"},
            ]
        },
    }
    bad = {
        "id": "b",
        "name": "two",
        "status": "ERROR",
        "tags": ["t", "u"],
        "fault": {"message": "Build of instance b aborted: No valid\nhost"},
    }
    bad["OS-SRV-USG:launched_at"] = None
    mock.get(f"{COMPUTE}/servers/detail", json={"servers": [good, bad]})
    assert connected.servers("t", "u") == [
        Server(
            "a",
            "one",
            "ACTIVE",
            address="10.0.0.5",
            tags=("t", "u"),
            metadata={"owner": "ada"},
            created="2026-01-01T00:00:00Z",
            launched="2026-01-01T00:00:05.000000",
            user_id="u1",
            vcpus=2,
            flavor="small\\x1b[2J",
        ),
        Server(
            "b", "two", "ERROR", "Build of the server aborted: No valid host", "", ("t", "u")
        ),  # one cause, one text
    ]
    assert lines(mock) == ["GET /v2.1/servers/detail?limit=1000&tags=t%2Cu"]
    assert mock.calls[0].request.headers["OpenStack-API-Version"] == "compute 2.52"


def test_a_listing_follows_its_pages_on_our_own_address(mock: responses.RequestsMock, connected: Cloud) -> None:
    """The next link of a cloud behind a proxy may name a host that only the cloud can reach."""
    link = {"rel": "next", "href": "http://10.255.0.1/v2.1/servers/detail?marker=a"}
    server = {"name": "x", "status": "ACTIVE", "tags": []}
    mock.get(f"{COMPUTE}/servers/detail", json={"servers": [server | {"id": "a"}], "servers_links": [link]})
    mock.get(f"{COMPUTE}/servers/detail", json={"servers": [server | {"id": "b"}]})
    assert [found.id for found in connected.servers()] == ["a", "b"]
    assert lines(mock)[1] == "GET /v2.1/servers/detail?limit=1000&marker=a"


def test_a_server_that_is_deleted_is_listed_no_more(mock: responses.RequestsMock, connected: Cloud) -> None:
    """Nova shows DELETED for a moment; a deletion that can be taken back is another thing."""
    listed = [{"id": s, "name": s, "status": s, "tags": []} for s in ("ACTIVE", "DELETED", "SOFT_DELETED")]
    mock.get(f"{COMPUTE}/servers/detail", json={"servers": listed})
    assert [found.status for found in connected.servers()] == ["ACTIVE", "SOFT_DELETED"]


def test_a_cloud_that_repeats_its_first_page_does_not_hold_us_for_ever(
    mock: responses.RequestsMock, connected: Cloud
) -> None:
    page = {"servers": [{"id": "a", "status": "ACTIVE", "tags": []}], "servers_links": [{"rel": "next", "href": "x"}]}
    mock.get(f"{COMPUTE}/servers/detail", json=page)
    assert [found.id for found in connected.servers()] == ["a"]
    assert len(mock.calls) == 2


def test_a_cloud_that_ignores_the_tag_filter_shows_nobody_elses_servers(
    mock: responses.RequestsMock, connected: Cloud
) -> None:
    ours = {"id": "a", "status": "ACTIVE", "tags": ["t"]}
    mock.get(f"{COMPUTE}/servers/detail", json={"servers": [ours, {"id": "b", "status": "ACTIVE", "tags": []}]})
    assert [found.id for found in connected.servers("t")] == ["a"]


def test_a_nova_without_tags_is_unsupported(mock: responses.RequestsMock, connected: Cloud) -> None:
    mock.get(f"{COMPUTE}/servers/detail", json={"servers": [{"id": "a", "status": "ACTIVE"}]})
    with pytest.raises(Unsupported, match="2.52"):
        connected.servers("t")


def test_a_nova_that_is_too_old_is_unsupported(mock: responses.RequestsMock, connected: Cloud) -> None:
    said = "Version 2.52 is not supported by the API. Minimum is 2.1 and maximum is 2.38."
    mock.get(f"{COMPUTE}/servers/detail", status=406, json={"computeFault": {"message": said}})
    with pytest.raises(Unsupported, match="maximum is 2.38. A newer version"):
        connected.servers("t")


def test_a_server_in_a_cell_that_is_down_is_unknown_and_not_forgotten(
    mock: responses.RequestsMock, connected: Cloud
) -> None:
    mock.get(f"{COMPUTE}/servers/detail", json={"servers": [{"id": "a", "status": "UNKNOWN"}]})
    assert connected.servers() == [Server("a", "", "UNKNOWN")]


def test_console_output(mock: responses.RequestsMock, connected: Cloud) -> None:
    mock.post(f"{COMPUTE}/servers/a/action", json={"output": "line 1\nline 2\n"})
    assert connected.console_output("a", 7) == "line 1\nline 2\n"
    assert json.loads(mock.calls[0].request.body or b"") == {"os-getConsoleOutput": {"length": 7}}


@pytest.mark.parametrize("status", [404, 409, 501])
def test_a_console_that_is_not_there_yet_is_empty(mock: responses.RequestsMock, connected: Cloud, status: int) -> None:
    mock.post(f"{COMPUTE}/servers/a/action", status=status)
    assert connected.console_output("a") == ""


# -- creating -------------------------------------------------------------------------------------------------


def test_a_server_is_created_with_one_request_that_says_all(mock: responses.RequestsMock, connected: Cloud) -> None:
    nova = Nova(mock)
    wanted = plan_of(
        1, key_name="k", security_groups=("default", "web"), availability_zone="z1", metadata={"owner": "ada"}
    )
    made = connected.create_server(wanted, wanted.servers[0], b"#!/usr/bin/python3\n")
    tags = ("ipp-griffin", f"griffin-uid={UID}", f"griffin-set={SET}", "griffin-slot=0", "griffin-incarnation=0")
    metadata = {"owner": "ada", "griffin:engines": "1"}
    assert made == Server("id1", f"griffin-{UID}-{SET}-0", "BUILD", tags=tags, metadata=metadata)
    assert nova.posts == [
        {
            "name": f"griffin-{UID}-{SET}-0",
            "imageRef": "i1",
            "flavorRef": "f1",
            "networks": [{"uuid": "n1"}],
            "user_data": "IyEvdXNyL2Jpbi9weXRob24zCg==",
            "metadata": metadata,
            "tags": list(tags),
            "key_name": "k",
            "security_groups": [{"name": "default"}, {"name": "web"}],
            "availability_zone": "z1",
        }
    ]
    assert mock.calls[0].request.headers["OpenStack-API-Version"] == "compute 2.52"


def test_many_servers_take_one_request_each_and_each_is_told(mock: responses.RequestsMock, connected: Cloud) -> None:
    nova, told = Nova(mock), Told()
    create(connected, 20, on_created=told, parallel=5)
    assert sorted(told.ids) == list(range(20))
    assert sorted(id for ids in told.ids.values() for id in ids) == sorted(nova.servers)
    assert len(mock.calls) == 20


def test_a_creation_is_never_repeated_by_the_sdk(
    mock: responses.RequestsMock, clouds_yaml: Path, slept: list[float]
) -> None:
    """Although clouds.yaml tells it to: what got no answer may have made a server."""
    settings = json.loads(clouds_yaml.read_text())
    settings["clouds"]["fake"] |= {"connect_retries": 3, "status_code_retries": 3}
    settings["clouds"]["fake"] |= {"compute_connect_retries": 3, "compute_status_code_retries": 3}
    clouds_yaml.write_text(json.dumps(settings))
    serve_identity(mock)
    nova = Nova(mock, "lost", (503, {}, ""), "lost")
    cloud = Cloud.connect("fake", sleep=slept.append)
    for _ in range(3):
        with pytest.raises(Unavailable):
            cloud.create_server(plan_of(1), plan_of(1).servers[0], b"")
    assert len(nova.posts) == 3


@pytest.mark.parametrize("body", ["", "not json", '{"server": {}}', "[]"])
def test_a_malformed_answer_to_a_creation_is_a_lost_one(
    mock: responses.RequestsMock, connected: Cloud, body: str
) -> None:
    Nova(mock, (202, {}, body))
    with pytest.raises(Unavailable):
        connected.create_server(plan_of(1), plan_of(1).servers[0], b"")
    assert len(mock.calls) == 1


@pytest.mark.parametrize("failure", ["dropped", (500, {}, ""), (503, {}, ""), (429, {"Retry-After": "3"}, "")])
def test_a_creation_that_did_not_land_is_asked_for_again(
    mock: responses.RequestsMock, connected: Cloud, slept: list[float], failure: Any
) -> None:
    nova, told = Nova(mock, "ok", failure), Told()
    create(connected, 3, on_created=told)
    assert sorted(told.ids) == [0, 1, 2]
    assert len(nova.servers) == 3
    assert sum(slept) > 0
    if failure[0] == 429:
        assert 3 <= sum(slept) < 4


def test_a_creation_that_landed_unseen_is_adopted_and_not_repeated(
    mock: responses.RequestsMock, connected: Cloud
) -> None:
    nova, told = Nova(mock, "lost"), Told()
    create(connected, 2, on_created=told)
    assert told.ids == {0: ["id1"], 1: ["id2"]}
    assert len(nova.posts) == 2
    assert nova.deleted == []


def test_a_creation_that_landed_late_is_deleted_where_it_was_repeated(
    mock: responses.RequestsMock, connected: Cloud
) -> None:
    nova, told = Nova(mock, "late"), Told()
    create(connected, 1, on_created=told)
    assert told.ids == {0: ["id2"]}
    assert nova.deleted == ["id1"]
    assert list(nova.servers) == ["id2"]


def test_of_two_that_landed_the_one_without_an_error_is_kept(mock: responses.RequestsMock, connected: Cloud) -> None:
    nova, told = Nova(mock), Told()
    tags = list(plan_of(1).servers[0].tags)
    nova.servers["bad"] = {"id": "bad", "status": "ERROR", "tags": tags, "created": "1"}
    nova.servers["good"] = {"id": "good", "status": "BUILD", "tags": tags[::-1], "created": "2"}
    nova.outcomes = ["dropped"]
    create(connected, 1, on_created=told)
    assert told.ids == {0: ["good"]}
    assert nova.deleted == ["bad"]


def test_an_error_ends_creation_and_what_exists_has_been_told(mock: responses.RequestsMock, connected: Cloud) -> None:
    nova, told = Nova(mock, "ok", "ok", (403, {}, json.dumps({"forbidden": {"message": QUOTA}}))), Told()
    with pytest.raises(QuotaError, match=f"{SET}-2: the cloud said 403: {QUOTA}. Start fewer engines"):
        create(connected, 6, on_created=told)
    assert sorted(told.ids) == [0, 1]
    assert len(nova.posts) == 3


def test_403_without_a_quota_is_about_the_role(mock: responses.RequestsMock, connected: Cloud) -> None:
    Nova(mock, (403, {}, json.dumps({"forbidden": {"message": "Policy doesn't allow os_compute_api:servers:create"}})))
    with pytest.raises(CloudError, match="lack the role") as error:
        create(connected, 1)
    assert type(error.value) is CloudError


def test_a_service_that_fails_for_good_ends_creation_after_some_rounds(
    mock: responses.RequestsMock, connected: Cloud
) -> None:
    nova = Nova(mock, *[(503, {}, "")] * 99)
    with pytest.raises(Unavailable, match="the cloud said 503"):
        create(connected, 2)
    assert len(nova.posts) == 10


def test_rate_limiting_slows_creation_down_without_ending_it(mock: responses.RequestsMock, connected: Cloud) -> None:
    """Each round gets two through; a service that asks for a pause is not asked again in that round."""
    limited = (429, {"Retry-After": "1"}, "")
    nova, told = Nova(mock, *["ok", "ok", limited] * 9), Told()
    create(connected, 18, on_created=told)
    assert sorted(told.ids) == list(range(18))
    assert len(nova.posts) == 18 + 8


def test_rate_limiting_without_a_word_on_how_long_ends_the_round_too(
    mock: responses.RequestsMock, connected: Cloud
) -> None:
    """As a proxy before Nova limits its clients: the rest of the queue would be refused as well, each with a request."""
    nova, told = Nova(mock, *["ok", "ok", (429, {}, "")] * 9), Told()
    create(connected, 18, on_created=told)
    assert sorted(told.ids) == list(range(18))
    assert len(nova.posts) == 18 + 8


def test_a_pause_that_one_thread_was_asked_for_is_kept_by_all(
    mock: responses.RequestsMock, connected: Cloud, slept: list[float]
) -> None:
    mock.delete(f"{COMPUTE}/servers/a", status=429, headers={"Retry-After": "7"})
    mock.delete(f"{COMPUTE}/servers/a", status=204)
    mock.delete(f"{COMPUTE}/servers/b", status=204)
    connected.retries = 0
    with pytest.raises(Unavailable):
        connected.delete_servers(["a"])  # who was told gives up, without a pause
    assert slept == []
    connected.delete_servers(["b"])
    assert slept == [7]
    connected.delete_servers(["a"])
    assert slept == [7]  # it is over


def test_once_stopped_no_new_creation_begins(mock: responses.RequestsMock, connected: Cloud) -> None:
    nova, told, stop = Nova(mock), Told(), threading.Event()
    nova.on_post = stop.set
    create(connected, 5, on_created=told, stop=stop)
    assert len(nova.posts) == 1
    assert told.ids == {0: ["id1"]}  # the one in flight was waited for


def test_a_creation_lost_while_stopping_is_still_found(mock: responses.RequestsMock, connected: Cloud) -> None:
    nova, told, stop = Nova(mock, "lost"), Told(), threading.Event()
    nova.on_post = stop.set
    create(connected, 5, on_created=told, stop=stop)
    assert len(nova.posts) == 1
    assert told.ids == {0: ["id1"]}


def test_creations_in_flight_are_waited_for_after_an_error(mock: responses.RequestsMock, connected: Cloud) -> None:
    """Two POSTs are in flight; one fails while the other is still on its way, and is told all the same."""
    told, both, failed = Told(), threading.Barrier(2, timeout=60), threading.Event()

    def answer(request: Any) -> tuple[int, dict[str, str], str]:
        both.wait()
        if json.loads(request.body)["server"]["name"].endswith("-0"):
            failed.set()
            return 400, {}, json.dumps({"badRequest": {"message": "Flavor f1 could not be found."}})
        assert failed.wait(60)
        return 202, {}, json.dumps({"server": {"id": "x"}})

    mock.add_callback(responses.POST, f"{COMPUTE}/servers", answer)
    with pytest.raises(CloudError, match="Flavor f1 could not be found"):
        create(connected, 2, on_created=told, parallel=2)
    assert told.ids == {1: ["x"]}


def test_an_error_of_on_created_ends_creation_and_comes_out(mock: responses.RequestsMock, connected: Cloud) -> None:
    nova = Nova(mock)

    def full(server: ServerPlan, made: Server) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        create(connected, 5, on_created=full)
    assert len(nova.posts) == 1


def test_a_listing_that_fails_after_a_lost_creation_is_the_error(
    mock: responses.RequestsMock, connected: Cloud
) -> None:
    mock.post(f"{COMPUTE}/servers", body=Dropped("reset"))
    mock.get(f"{COMPUTE}/servers/detail", status=400, json={"badRequest": {"message": "no tags"}})
    with pytest.raises(CloudError, match="no tags"):
        create(connected, 1)


def test_servers_are_created_and_deleted_where_no_thread_can_be_started(
    mock: responses.RequestsMock, connected: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at interpreter exit."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    nova, told = Nova(mock), Told()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    create(connected, 3, on_created=told, parallel=10)
    assert sorted(told.ids) == [0, 1, 2]
    connected.delete_servers(nova.servers)
    assert nova.servers == {}


def test_an_interrupt_begins_nothing_new_and_waits_for_what_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []
    join = threading.Thread.join
    interrupts = [KeyboardInterrupt()]

    def interrupted(self: threading.Thread, timeout: float | None = None) -> None:
        if interrupts:
            assert begun.wait(60)
            raise interrupts.pop()
        go_on.set()
        join(self, timeout)

    def work(item: int) -> None:
        begun.set()
        assert go_on.wait(60)
        done.append(item)

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        in_parallel(range(100), work, 2)
    assert 1 <= len(done) <= 2


# -- deleting -------------------------------------------------------------------------------------------------


def test_deleting_is_idempotent_and_takes_one_request_a_server(mock: responses.RequestsMock, connected: Cloud) -> None:
    nova = Nova(mock)
    create(connected, 3)
    connected.delete_servers([*nova.servers, "gone", "gone"])
    assert nova.servers == {}
    assert sorted(nova.deleted) == ["gone", "id1", "id2", "id3"]


def test_deleting_nothing_makes_no_request(mock: responses.RequestsMock, connected: Cloud) -> None:
    connected.delete_servers([])
    assert len(mock.calls) == 0


@pytest.mark.parametrize("status", [409, 500, 503])
def test_a_deletion_that_is_refused_for_now_is_repeated(
    mock: responses.RequestsMock, connected: Cloud, slept: list[float], status: int
) -> None:
    mock.delete(f"{COMPUTE}/servers/a", status=status)
    mock.delete(f"{COMPUTE}/servers/a", status=204)
    connected.delete_servers(["a"])
    assert len(slept) == 1


def test_every_deletion_is_tried_and_the_failures_come_as_one_error(
    mock: responses.RequestsMock, connected: Cloud
) -> None:
    locked = {"conflictingRequest": {"message": "Instance a is locked"}}
    mock.delete(f"{COMPUTE}/servers/a", status=409, json=locked)
    mock.delete(f"{COMPUTE}/servers/b", status=204)
    mock.delete(f"{COMPUTE}/servers/c", status=403, json={"forbidden": {"message": "Policy doesn't allow"}})
    with pytest.raises(CloudError, match=re.compile("Servers that may still be there: .*")) as error:
        connected.delete_servers(["a", "b", "c"], parallel=1)
    assert "Instance a is locked" in str(error.value)
    assert str(error.value).endswith("there: a, c.")
    assert "DELETE /v2.1/servers/b" in lines(mock)


def test_a_server_id_can_not_name_another_path(mock: responses.RequestsMock, connected: Cloud) -> None:
    """Ids may come from a cluster file that anybody edited."""
    mock.delete(f"{COMPUTE}/servers/..%2Fimages%2Fa", status=404)
    connected.delete_servers(["../images/a"])
    assert lines(mock) == ["DELETE /v2.1/servers/..%2Fimages%2Fa"]


def test_the_tags_asked_for_are_those_of_the_plan(mock: responses.RequestsMock, connected: Cloud) -> None:
    Nova(mock, "dropped")
    create(connected, 1)
    assert f"tags={uid_tag(UID)},{set_tag(SET)}".replace("=", "%3D").replace(",", "%2C")[7:] in lines(mock)[1]
    assert token()["project"]["id"] == connected.project_id
