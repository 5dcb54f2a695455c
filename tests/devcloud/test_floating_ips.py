"""Neutron's floating IPs as clients see them: through openstacksdk, and over plain HTTP for what is refused."""

import ipaddress
import re

import openstack
import pytest

from ipp_griffin.devcloud.things import NETWORK_ID, PUBLIC_ID

from .conftest import connect, wait_for

NOTHING = "00000000-0000-0000-0000-000000000000"
PATH = "/network/v2.0/floatingips"


OPTIONS = {"boot_time": 0.0, "guests": False}  # of `dev`: silent servers, ACTIVE at once


@pytest.fixture
def project(dev):
    return dev.state.projects[0]


def port_of(connection, server):
    return next(connection.network.ports(device_id=server.id))


def allocate(connection, **more):
    return connection.network.create_ip(floating_network_id=PUBLIC_ID, **more)


def test_one_is_allocated_attached_shown_at_its_server_detached_and_released(connection, server):
    made = allocate(connection, description="mine")
    assert ipaddress.ip_address(made.floating_ip_address) in ipaddress.ip_network("127.90.0.0/16")
    assert (made.port_id, made.status, made.description, made.fixed_ip_address) == (None, "DOWN", "mine", None)
    port = port_of(connection, server)
    attached = connection.network.update_ip(made, port_id=port.id)
    fixed = port.fixed_ips[0]["ip_address"]
    assert (attached.port_id, attached.status, attached.fixed_ip_address) == (port.id, "ACTIVE", fixed)
    assert attached.port_details["device_id"] == server.id
    shown = connection.compute.get_server(server.id).addresses["devnet"]
    assert [(a["addr"], a["OS-EXT-IPS:type"]) for a in shown] == [
        (fixed, "fixed"),
        (made.floating_ip_address, "floating"),
    ]
    connection.network.update_ip(made, port_id=port.id)  # again
    assert connection.network.update_ip(made, port_id=None).port_id is None
    assert len(connection.compute.get_server(server.id).addresses["devnet"]) == 1
    connection.network.delete_ip(made, ignore_missing=False)
    assert list(connection.network.ips()) == []


def test_one_is_found_by_its_address_and_by_its_project(connection, dev):
    made = allocate(connection)
    with connect(dev, "devcloud-other") as other:
        allocate(other)
        assert other.network.find_ip(made.floating_ip_address) is None
    assert [ip.id for ip in connection.network.ips(project_id=connection.current_project_id)] == [made.id]
    assert [ip.id for ip in connection.network.ips(floating_ip_address=made.floating_ip_address)] == [made.id]
    assert connection.network.get_ip(made.id).floating_ip_address == made.floating_ip_address


def test_the_ports_of_users_may_have_one_too(connection):
    port = connection.network.create_port(network_id=NETWORK_ID)
    made = allocate(connection, port_id=port.id)
    assert made.fixed_ip_address == port.fixed_ips[0]["ip_address"]
    connection.network.delete_port(port)
    assert connection.network.get_ip(made.id).port_id is None


def test_it_stays_without_a_port_when_its_server_goes(connection, server):
    made = allocate(connection, port_id=port_of(connection, server).id)
    connection.compute.delete_server(server)
    wait_for(lambda: connection.network.get_ip(made.id).port_id is None)


def test_a_port_has_one_only(connection, server):
    port = port_of(connection, server)
    made, other = allocate(connection, port_id=port.id), allocate(connection)
    with pytest.raises(openstack.exceptions.ConflictException, match=f"{other.floating_ip_address} .*already has a fl"):
        connection.network.update_ip(other, port_id=port.id)
    with pytest.raises(openstack.exceptions.ConflictException, match="already has a floating IP"):
        allocate(connection, port_id=port.id)
    assert connection.network.get_ip(made.id).port_id == port.id
    assert len(list(connection.network.ips())) == 2


@pytest.mark.parametrize(
    ("given", "status", "kind", "message"),
    [
        ({}, 400, "HTTPBadRequest", "Required attribute 'floating_network_id' not specified"),
        ({"floating_network_id": "public"}, 400, "HTTPBadRequest", "'public' is not a valid UUID."),
        ({"floating_network_id": NOTHING}, 404, "NetworkNotFound", f"Network {NOTHING} could not be found."),
        ({"floating_network_id": NETWORK_ID}, 400, "BadRequest", "Bad floatingip request: .* not a valid external net"),
        ({"floating_network_id": PUBLIC_ID, "nope": 1}, 400, "HTTPBadRequest", r"Unrecognized attribute\(s\) 'nope'"),
        ({"floating_network_id": PUBLIC_ID, "description": "x" * 256}, 400, "HTTPBadRequest", "maximum length of 255"),
        ({"floating_network_id": PUBLIC_ID, "port_id": NOTHING}, 404, "PortNotFound", f"Port {NOTHING} could not"),
        ({"floating_network_id": PUBLIC_ID, "fixed_ip_address": "127.80.0.9"}, 400, "BadRequest", "without a port_id"),
        ({"floating_network_id": PUBLIC_ID, "floating_ip_address": "127.90.0.9"}, 403, "PolicyNotAuthorized", "policy"),
    ],
)
def test_what_is_wrong_is_refused_in_neutrons_words(http, dev, given, status, kind, message):
    reply = http("POST", PATH, json={"floatingip": given})
    error = reply.json()["NeutronError"]
    assert (reply.status_code, error["type"]) == (status, kind)
    assert re.search(message, error["message"])
    assert dev.state.floating_ips == {}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_one_that_is_not_there_or_somebody_elses_is_not_found(http, dev, method):
    with connect(dev, "devcloud-other") as other:
        theirs = allocate(other).id
    for id in (NOTHING, theirs):
        reply = http(method, f"{PATH}/{id}", json={"floatingip": {"port_id": None}})
        assert reply.status_code == 404
        assert reply.json()["NeutronError"] == {
            "type": "FloatingIPNotFound",
            "message": f"Floating IP {id} could not be found",
            "detail": "",
        }


def test_the_quota_is_a_projects_own(http, dev, project):
    project.quota_floating_ips = 1
    body = {"floatingip": {"floating_network_id": PUBLIC_ID}}
    assert http("POST", PATH, json=body).status_code == 201
    reply = http("POST", PATH, json=body)
    assert (reply.status_code, reply.json()["NeutronError"]) == (
        409,
        {"type": "OverQuota", "message": "Quota exceeded for resources: ['floatingip'].", "detail": ""},
    )
    with connect(dev, "devcloud-other") as other:
        assert allocate(other)


def test_an_external_network_can_have_no_address_left(http, dev):
    dev.state.public = ipaddress.IPv4Network("127.90.0.0/27")
    body = {"floatingip": {"floating_network_id": PUBLIC_ID}}
    statuses = [http("POST", PATH, json=body).status_code for _ in range(13)]
    assert statuses == [201] * 12 + [409]
    assert http("POST", PATH, json=body).json()["NeutronError"]["type"] == "IpAddressGenerationFailure"
