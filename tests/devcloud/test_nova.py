"""Keystone, Nova, Glance and Neutron as clients see them: through openstacksdk, and over plain HTTP for what they refuse."""

import asyncio
import concurrent.futures
import types

import openstack
import pytest
import requests

from ipp_griffin.devcloud import DevCloud
from ipp_griffin.devcloud import http as devcloud_http
from ipp_griffin.devcloud.things import FLAVORS, IMAGES, NETWORK_ID, PUBLIC_ID

from .conftest import connect, create, wait_for

BOX = {
    "name": "box",
    "imageRef": IMAGES[0].id,
    "flavorRef": FLAVORS[0].id,
    "networks": [{"uuid": NETWORK_ID}],
}


OPTIONS = {"boot_time": 0.1, "guests": False}  # of `dev`: silent servers


# Identity


@pytest.mark.parametrize(
    "name", ["devcloud", "devcloud-other", "devcloud-tiny", "devcloud-app", "devcloud-app-reader", "devcloud-colleague"]
)
def test_every_entry_of_clouds_yaml_logs_in(dev, name):
    assert dev.clouds_yaml.stat().st_mode & 0o777 == 0o600
    with connect(dev, name) as opened:
        assert list(opened.compute.servers()) == []


@pytest.mark.parametrize(
    "change",
    [
        {"password": "wrong"},
        {"username": "nobody"},
        {"project_name": "other"},
        {"project_name": "none"},
        {"user_domain_name": "Other"},
    ],
)
def test_wrong_credentials_are_401(dev, change):
    config = openstack.config.OpenStackConfig(config_files=[str(dev.clouds_yaml)], load_envvars=False)
    region = config.get_one(cloud="devcloud", auth=change)
    with pytest.raises(openstack.exceptions.SDKException, match=r"HTTP 401.*Request-ID: req-"):
        openstack.connection.Connection(config=region).authorize()


def test_a_token_can_be_validated(http, connection):
    token = connection.auth_token
    reply = http("GET", "/identity/v3/auth/tokens", headers={"X-Subject-Token": token})
    assert reply.json()["token"]["project"]["name"] == "devcloud"
    assert {entry["type"] for entry in reply.json()["token"]["catalog"]} >= {"compute", "object-store"}
    assert http("GET", "/identity/v3/auth/tokens", headers={"X-Subject-Token": "no"}).status_code == 404


def test_a_token_that_another_token_got_has_no_more_roles(http, dev):
    with connect(dev, "devcloud-app-reader") as reader:
        token, project = reader.auth_token, reader.current_project_id
    identity = {"methods": ["token"], "token": {"id": token}}
    body = {"auth": {"identity": identity, "scope": {"project": {"id": project}}}}
    roles = http("POST", "/identity/v3/auth/tokens", json=body).json()["token"]["roles"]
    assert [role["name"] for role in roles] == ["reader"]


def test_an_expired_token_is_401_and_the_sdk_gets_another(tmp_path):
    with DevCloud(tmp_path / "cloud", guests=False, token_lifetime=1000) as cloud, connect(cloud) as opened:
        list(opened.compute.servers())
        cloud.state.tokens.clear()
        cloud.clear_requests()
        list(opened.compute.servers())
        assert [request[3] for request in cloud.requests] == [401, 201, 200]


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"auth": {"identity": {"methods": []}}}', '{"auth": 3}'])
def test_a_malformed_login_is_400(http, body):
    reply = http("POST", "/identity/v3/auth/tokens", data=body)
    assert reply.status_code == 400 and reply.json()["error"]["code"] == 400


# What there is


def test_the_sdk_sees_images_flavors_networks_and_limits(connection):
    assert [image.name for image in connection.image.images()] == ["snapshot10", "snapshot2", "snapshot1", "debian-12"]
    assert {(f.name, f.vcpus, f.ram) for f in connection.compute.flavors()} == {
        ("dev.small", 1, 2048),
        ("dev.medium", 4, 8192),
        ("dev.toobig", 1, 1_000_000),
    }
    networks = {network.id: network for network in connection.network.networks()}
    assert {
        n.name: (n.is_router_external, n.project_id == connection.current_project_id) for n in networks.values()
    } == {
        "devnet": (False, True),
        "public": (True, False),
    }
    assert {networks[s.network_id].name: s.cidr for s in connection.network.subnets()} == {
        "devnet": "127.80.0.0/16",
        "public": "127.90.0.0/16",
    }
    assert all(networks[s.network_id].subnet_ids == [s.id] for s in connection.network.subnets())
    assert connection.network.find_security_group("default") and connection.compute.find_keypair("griffin-key")
    limits = connection.compute.get_limits().absolute
    assert (limits.instances, limits.total_cores) == (64, 256)
    assert connection.image.find_image("nope") is None and connection.network.find_network("nope") is None
    assert connection.compute.find_flavor("nope") is None and connection.compute.find_keypair("nope") is None


def test_images_come_in_pages(connection, dev):
    names = [image.name for image in connection.image.images(limit=3)]
    assert names == ["snapshot10", "snapshot2", "snapshot1", "debian-12"]
    assert len([r for r in dev.requests if r[2] == "/image/v2/images"]) == 3  # the SDK asks until a page is empty


# Servers


def test_servers_are_created_with_tags_found_by_them_and_deleted(connection, dev):
    made = [create(connection, f"s{i}", tags=["ours", f"slot={i}"], metadata={"k": "v"}) for i in range(3)]
    active = wait_for(lambda: [s for s in connection.compute.servers(tags="ours") if s.status == "ACTIVE"][2:] and True)
    assert active
    assert [s.id for s in connection.compute.servers(tags=["ours", "slot=1"])] == [made[1].id]
    assert [s.name for s in connection.compute.servers(name="s[02]")] == ["s2", "s0"]
    assert [s.name for s in connection.compute.servers(status="BUILD")] == []
    shown = connection.compute.get_server(made[0].id)
    assert shown.tags == ["ours", "slot=0"] and shown.metadata == {"k": "v"}
    assert shown.addresses["devnet"][0]["addr"].startswith("127.80.")
    ports = list(connection.network.ports(device_id=made[0].id))
    assert [p.fixed_ips[0]["ip_address"] for p in ports] == [shown.addresses["devnet"][0]["addr"]]
    for server in made:
        connection.compute.delete_server(server)
    assert wait_for(lambda: not list(connection.compute.servers()) and not dev.servers())
    assert connection.compute.find_server(made[0].id) is None


def test_listings_come_in_pages_that_the_sdk_follows(connection, dev):
    for number in range(5):
        create(connection, f"s{number}", tags=["ours"])
    dev.clear_requests()
    assert [s.name for s in connection.compute.servers(tags="ours", limit=2)] == ["s4", "s3", "s2", "s1", "s0"]
    assert len(dev.requests) == 4  # the SDK asks until a page is empty


def test_projects_do_not_see_one_anothers_servers(connection, dev):
    made = create(connection)
    with connect(dev, "devcloud-other") as other:
        assert list(other.compute.servers()) == []
        with pytest.raises(openstack.exceptions.NotFoundException):
            other.compute.delete_server(made.id, ignore_missing=False)
    assert [(server["name"], server["project"]) for server in dev.servers()] == [("box", "devcloud")]


def test_over_quota_is_403_in_novas_words(dev):
    with connect(dev, "devcloud-tiny") as tiny:
        create(tiny), create(tiny)
        with pytest.raises(openstack.exceptions.ForbiddenException) as refused:
            create(tiny)
        assert "Quota exceeded for instances: Requested 1, but already used 2 of 2 instances" in str(refused.value)


def test_multi_create_numbers_the_names_and_fills_up_to_the_quota(dev):
    with connect(dev, "devcloud-tiny") as tiny:
        create(tiny, min_count=1, max_count=3)
        assert [server.name for server in tiny.compute.servers()] == ["box-2", "box-1"]


def test_a_flavor_that_fits_nowhere_ends_in_error_with_a_fault(connection):
    made = create(connection, flavor_id=FLAVORS[2].id)
    wait_for(lambda: connection.compute.get_server(made.id).status == "ERROR")
    fault = connection.compute.get_server(made.id).fault
    assert (fault["code"], fault["message"]) == (500, "No valid host was found. ")


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"flavorRef": "99"}, 400, "Flavor 99 could not be found."),
        ({"imageRef": NETWORK_ID}, 400, "Can not find requested image"),
        ({"networks": [{"uuid": PUBLIC_ID}]}, 403, "not allowed to create an interface on external network"),
        ({"networks": [{"uuid": IMAGES[0].id}]}, 400, f"Network {IMAGES[0].id} could not be found."),
        ({"networks": [{"uuid": "no"}]}, 400, "is not valid under any of the given schemas"),
        ({"networks": None}, 400, "'networks' is a required property"),
        ({"key_name": "zz"}, 400, "Invalid key_name provided."),
        ({"security_groups": [{"name": "zz"}]}, 400, "Unable to find security_group with name or id 'zz'"),
        ({"availability_zone": "zz"}, 400, "The requested availability zone is not available"),
        ({"tags": ["a/b"]}, 400, "'a/b' does not match '^[^,/]*$'"),
        ({"tags": ["x" * 61]}, 400, "is too long"),
        ({"tags": [str(n) for n in range(51)]}, 400, "is too long"),
        ({"tags": "a"}, 400, "is not of type 'array'"),
        ({"metadata": {"a": 1}}, 400, "1 is not of type 'string'"),
        ({"metadata": {"a/b": "1"}}, 400, "does not match any of the regexes"),
        ({"metadata": {"a": "x" * 256}}, 400, "is too long"),
        ({"metadata": {str(n): "x" for n in range(129)}}, 403, "Maximum number of metadata items exceeds 128"),
        ({"user_data": "A" * 65536}, 400, "A" * 65536 + "' is too long"),
        ({"name": "x" * 256}, 400, "is too long"),
        ({"bogus": 1}, 400, "Additional properties are not allowed ('bogus' was unexpected)"),
        ({"min_count": 3, "max_count": 2}, 400, "min_count must be <= max_count"),
    ],
)
def test_what_can_not_be_created_is_refused_in_novas_words(http, dev, change, status, message):
    server = {key: value for key, value in {**BOX, **change}.items() if value is not None}
    reply = http("POST", "/compute/v2.1/servers", json={"server": server})
    assert reply.status_code == status
    assert reply.json()[{400: "badRequest", 403: "forbidden"}[status]]["code"] == status
    assert message in reply.text
    assert dev.servers() == []


def test_user_data_of_almost_65535_characters_is_taken(http):
    longest = "A" * (65535 // 4 * 4)  # base64 comes in fours
    assert http("POST", "/compute/v2.1/servers", json={"server": {**BOX, "user_data": longest}}).status_code == 202


@pytest.mark.parametrize(("version", "status"), [("2.51", 400), ("2.52", 202)])
def test_tags_at_creation_need_microversion_2_52(http, version, status):
    reply = http("POST", "/compute/v2.1/servers", version=version, json={"server": {**BOX, "tags": ["a"]}})
    assert reply.status_code == status


@pytest.mark.parametrize(("version", "status"), [("2.36", 202), ("2.37", 400)])
def test_networks_are_mandatory_from_microversion_2_37(http, version, status):
    server = {key: value for key, value in BOX.items() if key != "networks"}
    assert http("POST", "/compute/v2.1/servers", version=version, json={"server": server}).status_code == status


def test_a_server_looks_as_its_microversion_has_it(http):
    server_id = http("POST", "/compute/v2.1/servers", json={"server": BOX}).json()["server"]["id"]
    old, new = (http("GET", f"/compute/v2.1/servers/{server_id}", version=v).json()["server"] for v in ("2.1", "2.96"))
    assert old["flavor"]["id"] == BOX["flavorRef"] and "tags" not in old
    assert new["flavor"]["original_name"] == "dev.small" and new["tags"] == []


def test_a_microversion_that_is_not_spoken_is_406(http):
    reply = http("GET", "/compute/v2.1/servers", version="2.999")
    assert reply.status_code == 406 and "maximum is 2.104" in reply.json()["computeFault"]["message"]


@pytest.mark.parametrize(("version", "found"), [("2.25", 1), ("2.26", 0)])
def test_a_listing_is_filtered_by_tags_from_microversion_2_26(http, version, found):
    http("POST", "/compute/v2.1/servers", json={"server": BOX})
    assert len(http("GET", "/compute/v2.1/servers?tags=nope", version=version).json()["servers"]) == found


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [("marker=nope", 400, "marker [nope] not found"), ("limit=x", 400, "limit"), ("all_tenants=1", 403, "Policy")],
)
def test_bad_filters_are_refused(http, query, status, message):
    reply = http("GET", f"/compute/v2.1/servers?{query}")
    assert reply.status_code == status and message in reply.text


def test_actions_are_404_just_after_create_and_409_in_the_wrong_state(http, dev):
    dev.faults.set(server="slow", boot_time=60)
    path = {}
    for name in ("slow", "box"):
        made = http("POST", "/compute/v2.1/servers", json={"server": {**BOX, "name": name}}).json()
        path[name] = f"/compute/v2.1/servers/{made['server']['id']}"
    assert http("POST", f"{path['slow']}/action", json={"os-stop": None}).status_code == 404
    assert http("POST", f"{path['slow']}/action", json={"os-getConsoleOutput": {}}).status_code == 409
    wait_for(lambda: http("GET", path["box"]).json()["server"]["status"] == "ACTIVE")
    refused = http("POST", f"{path['box']}/action", json={"os-start": None})
    assert refused.status_code == 409 and "Cannot 'start' instance" in refused.json()["conflictingRequest"]["message"]
    assert http("POST", f"{path['box']}/action", json={"bogus": None}).status_code == 400
    assert http("POST", f"{path['box']}/action", json={"lock": None}).status_code == 202
    assert http("DELETE", path["box"]).status_code == 409
    assert http("POST", f"{path['box']}/action", json={"unlock": None}).status_code == 202
    assert http("DELETE", path["slow"]).status_code == 204
    assert http("DELETE", path["box"]).status_code == 204


# Not known, not logged in, disturbed


@pytest.mark.parametrize(
    "path", ["/compute/v2.1/os-nope", "/network/v2.0/nopes", "/image/v2/nope", "/identity/v3/nope"]
)
@pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "COPY"])
def test_an_unknown_route_is_404_and_named(http, method, path):
    reply = http(method, path)
    assert reply.status_code == 404 and f"no route {method} {path}" in reply.text
    assert reply.headers["x-openstack-request-id"].startswith("req-")


@pytest.mark.parametrize("path", ["/compute/v2.1/servers", "/network/v2.0/networks", "/image/v2/images"])
def test_without_a_valid_token_it_is_401(http, path):
    assert http("GET", path, token="bad").status_code == 401


class Pauses:
    """What latency and faults wait for: no time, but that the test says ``go_on``. ``asked``: the seconds."""

    def __init__(self):
        self.asked, self.go_on = [], lambda: True

    async def sleep(self, seconds):
        self.asked.append(seconds)
        while seconds and not self.go_on():
            await asyncio.sleep(0.005)


@pytest.fixture
def pauses(monkeypatch):
    made = Pauses()
    monkeypatch.setattr(devcloud_http, "asyncio", types.SimpleNamespace(**{**vars(asyncio), "sleep": made.sleep}))
    return made


def test_a_fault_answers_with_its_status_headers_and_body_until_it_is_spent(http, dev):
    dev.faults.set(service="compute", methods=["GET"], status=429, headers={"Retry-After": "1"}, count=2)
    replies = [http("GET", "/compute/v2.1/servers") for _ in range(3)]
    assert [reply.status_code for reply in replies] == [429, 429, 200]
    assert replies[0].headers["Retry-After"] == "1" and "computeFault" in replies[0].json()
    dev.faults.set(service="image", status=503, body="<html>busy</html>")
    assert http("GET", "/image/v2/images").text == "<html>busy</html>"
    dev.faults.clear()
    assert http("GET", "/image/v2/images").status_code == 200


def test_a_fault_can_drop_the_connection_or_send_what_is_not_json(http, dev):
    http("GET", "/compute/v2.1/servers")  # and logs in
    dev.clear_requests()
    dev.faults.set({"path": "servers", "drop": True, "count": 1}, {"path": "servers", "malformed": True})
    with pytest.raises(OSError, match="aborted"):
        http("POST", "/compute/v2.1/servers", json={"server": BOX})
    with pytest.raises(ValueError, match="JSON|Expecting|Unterminated"):
        http("GET", "/compute/v2.1/servers").json()
    assert dev.servers() == []
    assert [request[3] for request in dev.requests] == [0, 200]


def test_an_after_fault_disturbs_the_answer_to_what_was_done(http, dev):
    dev.faults.set(methods=["POST"], path="servers", status=504, after=True)
    assert http("POST", "/compute/v2.1/servers", json={"server": BOX}).status_code == 504
    assert [server["name"] for server in dev.servers()] == ["box"]


def test_a_late_fault_does_what_was_asked_after_its_client_has_gone(http, dev, pauses):
    http("GET", "/compute/v2.1/servers")  # and logs in
    dev.faults.set(methods=["POST"], path="servers", delay=30, late=True, count=1)
    pauses.go_on = lambda: client_has_gone
    client_has_gone = False
    with pytest.raises(requests.Timeout):
        http("POST", "/compute/v2.1/servers", json={"server": BOX}, timeout=0.2)
    wait_for(lambda: 30 in pauses.asked)
    assert dev.servers() == []
    client_has_gone = True
    wait_for(lambda: [server["name"] for server in dev.servers()] == ["box"])


def test_a_person_sets_faults_over_http(http, dev):
    url = "/devcloud/faults"
    assert http("POST", url, json={"service": "compute", "status": 503}).json()["faults"] == dev.faults.snapshot()
    assert http("GET", "/compute/v2.1/servers").status_code == 503
    assert "no key 'x'" in http("POST", url, json=[{"x": 1}]).json()["error"]
    assert http("POST", url, data="{", headers={"Content-Type": "application/json"}).status_code == 400
    assert http("POST", url, data="{}").status_code == 415
    assert http("DELETE", url).json() == {"faults": []}
    assert http("GET", "/compute/v2.1/servers").status_code == 200
    assert http("GET", "/devcloud/nope").status_code == 404


def test_requests_that_wait_overlap(http, dev, pauses):
    """None is answered before all have been heard."""
    http("GET", "/compute/v2.1/servers")  # and logs in
    dev.latency = 0.3
    pauses.go_on = lambda: pauses.asked.count(0.3) == 8
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: http("GET", "/compute/v2.1/servers").status_code, range(8)))
    assert replies == [200] * 8
