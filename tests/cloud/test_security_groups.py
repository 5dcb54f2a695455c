"""The clusters' own security groups, on the Neutron of a dev cloud, which answers as the real one does."""

import time

import pytest

from ipp_griffin.cloud.cloud import Cloud
from ipp_griffin.cloud.ports import Port
from ipp_griffin.cloud.security_groups import SecurityGroup
from ipp_griffin.common.errors import CloudError, QuotaError

UID, OTHER = "0123456789ab", "ba9876543210"
PORTS = (20000, 20019)
MAC = "fa:16:3e:00:00:01"


OPTIONS = {"boot_time": 0.0, "guests": False}  # of `dev`: silent servers, ACTIVE at once


@pytest.fixture
def door(dev):
    """The real door to that dev cloud."""
    return Cloud.connect("devcloud", sleep=lambda seconds: None)


@pytest.fixture
def groups(door):
    return door.groups


@pytest.fixture
def project(dev):
    return dev.state.projects[0]


@pytest.fixture
def head(dev, door, project):
    """The head node's port, in the project's default group."""
    dev.state.create_port(project, name="head", mac=MAC, address="127.80.0.5")
    found = door.ports.head("127.80.0.5", [MAC])
    assert found is not None
    return found


def rules(dev, name):
    """Those that let somebody in."""
    group = next(group for group in dev.state.security_groups.values() if group.name == name)
    return [rule for rule in group.rules.values() if rule["direction"] == "ingress"]


def ids(dev, port):
    return dev.state.ports[port.id].security_groups


def test_engines_may_connect_to_the_controllers_ports_and_nobody_may_to_anything_else(dev, groups, head):
    engines = groups.make(UID, head, PORTS)
    assert dev.security_groups() == [f"griffin-{UID}-controller", f"griffin-{UID}-engines"]
    assert rules(dev, f"griffin-{UID}-engines") == []
    (rule,) = rules(dev, f"griffin-{UID}-controller")
    assert {name: rule[name] for name in ("protocol", "port_range_min", "port_range_max", "remote_group_id")} == {
        "protocol": "tcp",
        "port_range_min": 20000,
        "port_range_max": 20019,
        "remote_group_id": engines.id,
    }
    assert "remote_ip_prefix" not in rule
    controller = next(group for group in groups.of(UID) if group.part == "controller")
    assert ids(dev, head) == [*head.groups, controller.id]


def test_the_requests_that_make_groups_carry_uid_and_user(dev, groups, project):
    groups.make(UID, None, PORTS)
    (made,) = (group for group in dev.state.security_groups_of(project) if not group.is_default)
    assert made.name == f"griffin-{UID}-engines"
    assert made.description == f"ipp-griffin: engines of cluster {UID}, user {dev.state.users[0].id}"
    (found,) = groups.all()
    assert found == SecurityGroup(made.id, made.name, UID, "engines", dev.state.users[0].id, found.created)


def test_a_machine_that_is_no_server_gets_no_group_of_its_own(dev, groups):
    groups.make(UID, None, PORTS)
    assert dev.security_groups() == [f"griffin-{UID}-engines"]


def test_making_them_again_makes_none(dev, groups, head):
    first = groups.make(UID, head, PORTS)
    assert groups.make(UID, head, PORTS) == first
    assert len(dev.security_groups()) == 2
    assert len(ids(dev, head)) == 2


@pytest.mark.parametrize("lost", ["drop", "malformed"])
@pytest.mark.parametrize("path", ["/security-groups$", "/security-group-rules$", "/ports/"])
def test_a_change_whose_answer_was_lost_is_not_made_twice(dev, groups, head, path, lost):
    dev.faults.set(service="network", methods=["POST", "PUT"], path=path, after=True, count=1, **{lost: True})
    groups.make(UID, head, PORTS)
    assert len(dev.security_groups()) == 2
    assert len(rules(dev, f"griffin-{UID}-controller")) == 1
    assert len(ids(dev, head)) == 2


def test_two_clusters_share_the_head_nodes_port(dev, groups, head):
    """Each puts it into its own group beside all others, also if both do at once: what was read must hold still."""
    dev.faults.set(service="network", methods=["PUT"], status=412, count=2)
    groups.make(UID, head, PORTS)
    groups.make(OTHER, head, (20020, 20039))
    assert len(ids(dev, head)) == 3
    groups.remove(UID, timeout=1)
    assert len(ids(dev, head)) == 2
    assert dev.security_groups() == [f"griffin-{OTHER}-controller", f"griffin-{OTHER}-engines"]
    groups.remove(OTHER, timeout=1)
    assert ids(dev, head) == list(head.groups)


def test_removing_takes_the_head_nodes_port_out_and_leaves_it_its_own_groups(dev, groups, head):
    groups.make(UID, head, PORTS)
    groups.remove(UID, timeout=1)
    assert dev.security_groups() == []
    assert ids(dev, head) == list(head.groups)


def test_removing_what_is_not_there_is_one_request(dev, groups):
    dev.clear_requests()
    groups.remove(UID, timeout=1)
    assert [(service, method) for service, method, _, _ in dev.requests if service == "network"] == [("network", "GET")]


def test_a_group_in_use_is_waited_for(dev, groups, project):
    """Neutron takes the ports of a deleted server away a moment later."""
    engines = groups.make(UID, None, PORTS)
    port = dev.state.create_port(project, name="of a server")
    port.security_groups = [engines.id]
    groups.remove(UID, timeout=60, sleep=lambda seconds: dev.state.ports.clear())
    assert dev.security_groups() == []


def test_a_group_that_stays_in_use_is_named(dev, groups, project):
    engines = groups.make(UID, None, PORTS)
    dev.state.create_port(project, name="somebody's").security_groups = [engines.id]
    ticks = iter(range(100))
    with pytest.raises(
        CloudError, match=f"still in use 5 s after .*: griffin-{UID}-engines. .*openstack security group"
    ):
        groups.remove(UID, timeout=5, sleep=lambda seconds: None, clock=lambda: next(ticks))


def test_the_quota_of_groups_is_final(dev, groups, project):
    project.quota_security_groups = 1  # the default one
    with pytest.raises(QuotaError, match=f"Can't make security group griffin-{UID}-engines: .*Quota exceeded for res"):
        groups.make(UID, None, PORTS)


def test_credentials_that_may_see_no_groups_have_none_to_remove(dev, groups):
    dev.faults.set(service="network", path="/security-groups", status=403)
    groups.remove(UID, timeout=1)


def test_groups_of_others_are_never_taken_for_a_clusters(dev, groups, project):
    for name in ("web", f"griffin-{UID}", f"griffin-{UID}-engines-2", "griffin-x-engines"):
        dev.state.create_security_group(project, name, "")
    assert groups.all() == []
    groups.remove(UID, timeout=1)
    assert len(dev.security_groups()) == 4


def test_a_port_that_went_meanwhile_is_fine(dev, groups, head):
    assert groups.make(UID, Port("00000000-0000-0000-0000-000000000000"), PORTS).part == "engines"


def test_groups_tell_when_they_were_made(groups):
    groups.make(UID, None, PORTS)
    (made,) = groups.all()
    assert abs(time.time() - time.mktime(time.strptime(made.created, "%Y-%m-%dT%H:%M:%SZ")) + time.timezone) < 60


def test_clients_are_let_in_to_their_ports_until_they_are_shut_out(dev, groups):
    groups.make_for_server(UID)
    made = []
    groups.let_in(UID, clients=[(20000, 20000), (20012, 20014)], client="203.0.113.7/32", made=made)
    found = rules(dev, f"griffin-{UID}-controller")
    assert [(rule["port_range_min"], rule["port_range_max"], rule["remote_ip_prefix"]) for rule in found] == [
        (20000, 20000, "203.0.113.7/32"),
        (20012, 20014, "203.0.113.7/32"),
    ]
    again = []
    groups.let_in(UID, clients=[(20000, 20000)], client="203.0.113.7/32", made=again)
    assert (again, len(made)) == ([], 2)  # no new one
    groups.shut(made)
    groups.shut(made)
    assert rules(dev, f"griffin-{UID}-controller") == []


def test_nobody_is_let_in_to_groups_that_a_stop_has_deleted(dev, groups):
    groups.make_for_server(UID)
    groups.remove(UID, timeout=5)
    with pytest.raises(
        CloudError, match=f"The security groups of cluster {UID} are gone: somebody stopped the cluster"
    ):
        groups.let_in(UID, clients=[(20000, 20000)], client="203.0.113.7/32")
    assert dev.security_groups() == []


def test_rules_that_are_there_when_another_is_refused_are_told(dev, groups):
    groups.make_for_server(UID)
    over = '{"NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: [\'security_group_rule\'].", "detail": ""}}'
    made = []
    rules_only = {"service": "network", "path": "/security-group-rules$"}
    dev.faults.set({**rules_only, "delay": 0.0, "count": 1}, {**rules_only, "status": 409, "body": over})
    with pytest.raises(QuotaError):
        groups.let_in(UID, clients=[(20000, 20000), (20012, 20014)], client="203.0.113.7/32", made=made)
    assert len(made) == 1
    groups.shut(made)
    assert rules(dev, f"griffin-{UID}-controller") == []


@pytest.mark.parametrize("status", [403, 404])
def test_where_groups_can_not_be_seen_there_are_none(dev, groups, status):
    groups.make_for_server(UID)
    assert groups.exist(UID)
    dev.faults.set(service="network", path="/security-groups", status=status)
    assert not groups.exist(UID)
