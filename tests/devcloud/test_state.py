"""The cloud's rules without HTTP and processes, under a clock of the test's own."""

import pytest

from ipp_griffin.devcloud.faults import Faults
from ipp_griffin.devcloud.state import CloudState
from ipp_griffin.devcloud.things import FLAVORS, IMAGES, NETWORK_ID

from ..fakes import Clock


@pytest.fixture
def clock() -> Clock:
    """It shows a date, as the cloud's own does."""
    return Clock(now=1_700_000_000.0)


@pytest.fixture
def state(clock: Clock) -> CloudState:
    return CloudState(clock=clock, boot_time=10)


def create(state: CloudState, name: str = "box", flavor: int = 0):
    what = {"name": name, "image": IMAGES[0], "flavor": FLAVORS[flavor], "tags": [], "metadata": {}}
    return state.create(user=state.users[0], network=state.networks[NETWORK_ID], **what)


def pass_time(state: CloudState, clock: Clock, seconds: float) -> list[str]:
    """Let ``seconds`` pass; the actions for guests that came of it, which are done at once."""
    clock.now += seconds
    state.tick()
    done, state.outbox = state.outbox, []
    for job in done:
        state.settled(*job)
    return [action for action, _ in done]


def test_a_server_goes_from_build_to_active_at_its_boot_time_and_starts_its_guest(state, clock):
    server = create(state)
    assert (server.status, server.task, server.address) == ("BUILD", "scheduling", "")
    assert state.tick() == clock.now + 2
    assert pass_time(state, clock, 3) == []
    assert (server.status, server.task) == ("BUILD", "spawning")
    assert pass_time(state, clock, 7) == ["boot"]
    assert (server.status, server.task, server.address[:7]) == ("ACTIVE", None, "127.80.")
    assert state.tick() is None


def test_each_server_gets_an_address_of_its_own(state, clock):
    servers = [create(state) for _ in range(300)]
    pass_time(state, clock, 10)
    assert len({server.address for server in servers}) == 300


def test_two_clouds_of_a_machine_begin_with_other_addresses(clock):
    """A chance of 1 in 65,000 that they don't is no use: ten clouds are asked."""
    clouds = [CloudState(clock=clock, boot_time=0) for _ in range(10)]
    for cloud in clouds:
        create(cloud)
        cloud.tick()
    assert len({server.address for cloud in clouds for server in cloud.servers.values()}) > 5
    assert len({cloud.create_floating_ip(cloud.projects[0], "").address for cloud in clouds}) > 5


def test_addresses_go_round_and_none_is_given_twice(clock):
    cloud = CloudState(clock=clock, boot_time=0, subnet="10.0.0.0/27")
    servers = [create(cloud) for _ in range(12)]
    cloud.tick()
    assert sorted(server.address for server in servers) == sorted(f"10.0.0.{10 + i}" for i in range(12))


def test_a_floating_ip_stays_when_its_server_or_port_goes(state, clock):
    project, server = state.projects[0], create(state)
    port = state.create_port(project, name="head")
    floating = [state.create_floating_ip(project, "") for _ in range(2)]
    state.attach(floating[0], server.port_id)
    state.attach(floating[1], port.id)
    pass_time(state, clock, 10)
    state.delete(server)
    assert floating[0].port_id == server.port_id
    pass_time(state, clock, 0)
    state.delete_port(port)
    assert [f.port_id for f in floating] == ["", ""] and len(state.floating_ips) == 2


def test_a_floating_ip_is_detached_from_a_server_that_vanishes(clock):
    state = CloudState(clock=clock, boot_time=10, faults=Faults())
    state.faults.set(server="box", vanish_after=5)
    server = create(state)
    floating = state.create_floating_ip(state.projects[0], "")
    state.attach(floating, server.port_id)
    pass_time(state, clock, 10)
    pass_time(state, clock, 6)
    assert floating.port_id == "" and state.servers == {}


def test_a_flavor_that_fits_nowhere_ends_in_error_without_a_guest(state, clock):
    server = create(state, flavor=2)
    assert pass_time(state, clock, 10) == []
    assert (server.status, server.error) == ("ERROR", "No valid host was found. ")


def test_a_deleted_server_is_listed_until_its_guest_is_dead(state, clock):
    server = create(state)
    pass_time(state, clock, 10)
    state.delete(server)
    state.delete(server)
    assert state.outbox == [("delete", server)]
    assert state.of_project(server.project) == [server]
    assert pass_time(state, clock, 0) == ["delete"]
    assert state.of_project(server.project) == []


def test_a_server_deleted_in_build_never_boots(state, clock):
    server = create(state)
    state.delete(server)
    state.outbox.clear()
    assert pass_time(state, clock, 100) == []
    assert server.status == "BUILD"


def test_stop_reboot_and_start_settle_when_the_guest_has_followed(state, clock):
    server = create(state)
    pass_time(state, clock, 10)
    for action, task, during, after in (
        ("reboot", "rebooting", "REBOOT", "ACTIVE"),
        ("stop", "powering-off", "ACTIVE", "SHUTOFF"),
        ("boot", "powering-on", "SHUTOFF", "ACTIVE"),
    ):
        state.act(server, action, task, "REBOOT" if action == "reboot" else "")
        assert (server.status, server.task) == (during, task)
        assert pass_time(state, clock, 0) == [action]
        assert (server.status, server.task) == (after, None)


def test_a_delete_wins_over_a_stop_that_is_on_its_way(state, clock):
    server = create(state)
    pass_time(state, clock, 10)
    state.act(server, "stop", "powering-off")
    state.delete(server)
    assert pass_time(state, clock, 0) == ["stop", "delete"]
    assert not state.servers


@pytest.mark.parametrize(
    ("fault", "after_10_s", "after_20_s"),
    [
        ({"fail_build": "No luck."}, "ERROR", "ERROR"),
        ({"boot_time": 15}, "BUILD", "ACTIVE"),
        ({"stuck": True}, "BUILD", "BUILD"),
        ({"shutoff_after": 5}, "ACTIVE", "SHUTOFF"),
        ({"vanish_after": 5}, "ACTIVE", None),
    ],
)
def test_server_faults_reach_the_servers_they_name(state, clock, fault, after_10_s, after_20_s):
    state.faults.set({"server": "^bad", **fault})
    bad, good = create(state, "bad-1"), create(state, "good")
    pass_time(state, clock, 10)
    assert bad.status == after_10_s
    pass_time(state, clock, 10)
    assert (bad.status if bad.id in state.servers else None) == after_20_s
    assert good.status == "ACTIVE"


def test_a_fault_set_later_ends_a_running_server_and_counts(state, clock):
    first, second = create(state, "a"), create(state, "b")
    pass_time(state, clock, 10)
    state.faults.set({"server": ".", "fail_build": "x", "count": 1}, {"server": ".", "vanish_after": 0, "count": 1})
    state.apply_faults()
    assert pass_time(state, clock, 0) == ["delete"]
    assert list(state.servers.values()) == [second] and first.id not in state.servers
    third = create(state, "c")  # the other fault was not used up by servers that run already
    pass_time(state, clock, 10)
    assert third.status == "ERROR"


def test_a_token_ends_at_its_expiry(state, clock):
    token = state.login(state.users[0], "password")
    assert state.token(token.id) is token
    clock.now += 4 * 3600
    assert state.token(token.id) is None
    state.login(state.users[0], "password")
    assert token.id not in state.tokens


@pytest.mark.parametrize(
    "fault",
    [
        {"servce": "compute"},
        {"service": "nova"},
        {"status": "503"},
        {"path": "("},
        {"server": "x", "status": 503},
        {"server": "*", "stuck": True},
        "everything",
    ],
)
def test_a_fault_that_makes_no_sense_is_refused_and_the_old_ones_stay(fault):
    faults = Faults()
    faults.set(service="compute", status=503)
    with pytest.raises(ValueError, match="."):
        faults.set(fault)
    assert faults.snapshot() == [{"service": "compute", "status": 503}]


def test_a_fault_is_spent_after_its_count():
    faults = Faults()
    faults.set({"service": "compute", "methods": ["POST"], "path": "servers$", "status": 503, "count": 2})
    assert faults.for_request("compute", "GET", "/compute/v2.1/servers") is None
    assert faults.for_request("image", "POST", "/compute/v2.1/servers") is None
    taken = [faults.for_request("compute", "POST", "/compute/v2.1/servers") for _ in range(3)]
    assert [bool(fault) for fault in taken] == [True, True, False]
