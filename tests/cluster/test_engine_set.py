"""`EngineSet`, `sweep` and `delete_servers`, over fakes of the cloud and the object store; no test sleeps."""

import ast
import gzip
import re
import threading
from dataclasses import replace

import pytest

from ipp_griffin.cluster import engine_set as module
from ipp_griffin.cluster.engine_set import EngineSet, Survey
from ipp_griffin.cluster.teardown import delete_servers, sweep
from ipp_griffin.common.errors import CloudError, Unavailable
from ipp_griffin.model.names import Place, set_tag, uid_tag
from ipp_griffin.model.reports import Report
from ipp_griffin.model.userdata import UserDataSettings

from ..fakes import Clock, FakeCloud, FakeStore
from ..fakes.cloud import SET, UID, make_server, plan_of

pytestmark = pytest.mark.usefixtures("no_pauses")

OTHER_UID, OTHER_SET = "ba9876543210", "bbbb2222"


def destroy(engines, known=(), *, timeout=10.0, clock=None):
    clock = clock or Clock()
    engines.destroy(known, timeout=timeout, sleep=clock.sleep, clock=clock)


@pytest.fixture
def four_servers():
    """A cloud with two servers of the set, and one each of another set and another cluster."""
    return FakeCloud(
        make_server(0), make_server(1), make_server(0, engine_set=OTHER_SET), make_server(0, uid=OTHER_UID)
    )


@pytest.fixture
def store():
    objects = [f"{SET}/connection.json", f"{SET}/0.0/0001-agent", f"{OTHER_SET}/connection.json"]
    return FakeStore(**{UID: dict.fromkeys(objects, b"{}"), OTHER_UID: {"x": b""}})


@pytest.fixture
def engines(four_servers, store):
    return EngineSet(four_servers, store, UID, SET)


def only_others_are_left(four_servers, store):
    assert sorted(four_servers.there) == [f"id-griffin-{UID}-{OTHER_SET}-0", f"id-griffin-{OTHER_UID}-{SET}-0"]
    assert store.there == {UID: {f"{OTHER_SET}/connection.json": b"{}"}, OTHER_UID: {"x": b""}}


# --- create


def parameters(user_data: bytes) -> dict:
    """What the program in the user-data was given."""
    (line,) = re.findall(r"(?m)^PARAMETERS: Json = (.+)$", gzip.decompress(user_data).decode())
    return ast.literal_eval(line)


def test_publish_puts_the_private_object_into_the_clusters_container():
    store = FakeStore()
    engines = EngineSet(FakeCloud(), store, UID, SET)
    engines.open_container({"owner": "me"})
    engines.publish(b"secret")
    assert store.there == {UID: {f"{SET}/connection.json": b"secret"}}
    assert store.labelled[UID] == {"owner": "me"}


def test_each_server_gets_user_data_of_its_own_with_its_urls():
    cloud, created, stop = FakeCloud(), [], threading.Event()
    settings = UserDataSettings(read_seconds=11, report_seconds=22, fetch_timeout=33, proxy="http://proxy:3128")
    wanted = plan_of(2)
    EngineSet(cloud, FakeStore(), UID, SET, parallel=7).create(
        wanted, settings, on_created=lambda planned, server: created.append((planned, server.id)), stop=stop
    )
    asked = sorted(cloud.asked("create_server", "plan", "server", "user_data"), key=lambda one: one[1].place)
    assert [one[:2] for one in asked] == [(wanted, server) for server in wanted.servers]
    common = {
        "version": 1,
        "uid": UID,
        "engine_set": SET,
        "incarnation": 0,
        "engines": 1,
        "private_object": f"https://store/{UID}/{SET}/connection.json?get=11",
        "fetch_timeout": 33,
        "proxy": "http://proxy:3128",
        "ca_certificates": "",
        "expires": 0,
    }
    assert [parameters(data) for _, _, data in asked] == [
        {
            **common,
            "slot": slot,
            "server": f"griffin-{UID}-{SET}-{slot}",
            "reports": {"prefix": f"https://store/{UID}/{SET}/{slot}.0/", "query": "put=22"},
        }
        for slot in (0, 1)
    ]
    assert sorted(created, key=lambda one: one[1]) == [(p, f"id-{p.place.slot}") for p in wanted.servers]


# --- look


def test_a_survey_is_of_this_set_only(engines, store):
    survey = engines.survey()
    assert [server.name for server in survey.servers] == [f"griffin-{UID}-{SET}-0", f"griffin-{UID}-{SET}-1"]
    assert survey.reports == {Place(SET, 0): Report(Place(SET, 0), 1, "agent")}
    assert survey.active == 2
    store.fail["reports"] = [AssertionError("not asked for")]
    assert engines.survey(reports=False).reports == {}


def test_active_counts_what_nova_says_is_active():
    assert Survey((make_server(0), make_server(1, status="BUILD"), make_server(2, status="ERROR"))).active == 1


def test_the_last_report_of_an_incarnation_is_that_of_the_highest_sequence():
    names = ["0.0/0009-gone", "0.1/0002-connected", "0.1/0001-agent", "10.0/0003-engines", "10.0/0004-failed"]
    names += ["1.0/10000-gone", "1.0/9999-engines"]
    store = FakeStore(**{UID: {f"{SET}/{name}": b"" for name in names}})
    assert EngineSet(FakeCloud(), store, UID, SET).newest_reports() == {
        Place(SET, 0): Report(Place(SET, 0), 9, "gone"),
        Place(SET, 0, 1): Report(Place(SET, 0, 1), 2, "connected"),
        Place(SET, 1): Report(Place(SET, 1), 10000, "gone"),
        Place(SET, 10): Report(Place(SET, 10), 4, "failed"),
    }


def test_why_an_agent_gave_up_is_what_it_says_and_the_last_lines_of_engines_that_ended_at_once():
    failed, gone, silent = (
        Report(Place(SET, slot), 3, phase) for slot, phase in enumerate(("failed", "gone", "failed"))
    )
    store = FakeStore()
    ended = [{"output": "starting\nImportError: no numpy\n"}, {"output": "Killed"}, {"output": "unseen"}]
    store.contents = {
        failed.name: {"message": "The controller's port 10.0.0.1:20000 can't be reached."},
        gone.name: {"message": "exit status 1", "engines": ended},
    }
    engines = EngineSet(FakeCloud(), store, UID, SET)
    assert [engines.why(report) for report in (failed, gone, silent)] == [
        "The controller's port 10.0.0.1:20000 can't be reached.",
        "its engines ended at once: exit status 1. ImportError: no numpy | Killed",
        "it did not say why",
    ]


def test_a_set_is_published_from_its_start_until_the_end_of_its_stop(engines, store):
    engines.open_container({})
    engines.publish(b"{}")
    assert engines.is_published()
    engines.destroy(timeout=1, sleep=lambda seconds: None)
    assert not engines.is_published()


def test_output_is_of_the_newest_report_of_so_many_servers():
    names = ["0.0/0002-engines", "0.0/0001-agent", "1.0/0002-gone", "2.0/0002-engines"]
    store = FakeStore(**{UID: {f"{SET}/{name}": b"" for name in names}})
    store.contents = {
        f"{SET}/0.0/0001-agent": {"engines": [{"index": 0, "output": "old"}]},
        f"{SET}/0.0/0002-engines": {"engines": [{"index": 0, "output": "a"}, {"index": 1, "output": "b"}]},
        f"{SET}/1.0/0002-gone": {"engines": [{"output": 5}, {"index": 1}]},
        f"{SET}/2.0/0002-engines": {"engines": [{"index": 0, "output": "too many"}]},
    }
    output = dict(EngineSet(FakeCloud(), store, UID, SET).output(2))
    assert output == {"0.0": "a", "0.1": "b", "1.?": "5", "1.1": ""}


@pytest.mark.parametrize(
    ("times", "output"),
    [
        ({"0003-log": "2026-01-01T00:01", "0004-engines": "2026-01-01T00:00"}, "of the log"),
        ({"0003-log": "2026-01-01T00:01", "0004-engines": "2026-01-01T00:02"}, "of the phase"),
        ({"0003-log": "2026-01-01T00:01", "0004-agent": "2026-01-01T00:02"}, "of the log"),  # rebooted
    ],
)
def test_output_is_what_the_store_got_last_whether_of_a_phase_or_just_of_the_logs(times, output):
    """The report of logs keeps its number, however often it is written."""
    store = FakeStore(**{UID: {f"{SET}/0.0/{name}": b"" for name in times}})
    store.times = {f"{SET}/0.0/{name}": time for name, time in times.items()}
    for name in times:
        text = "of the log" if name.endswith("log") else "of the phase"
        store.contents[f"{SET}/0.0/{name}"] = {"engines": [{"index": 0, "output": text}]}
    assert dict(EngineSet(FakeCloud(), store, UID, SET).output(1)) == {"0.0": output}


def test_consoles_of_the_set_are_read_before_its_servers_go_and_move_no_terminal():
    cloud = FakeCloud(*(make_server(slot) for slot in range(3)), make_server(0, engine_set=OTHER_SET))
    ids = list(cloud.there)
    cloud.consoles = {ids[0]: "booting\n\x1b[2Jlogin: ", ids[1]: "", ids[3]: "another set's"}
    engines, read = EngineSet(cloud, FakeStore(), UID, SET), {}
    clock = Clock()

    def before_deletion(servers):
        assert cloud.deleted == []
        engines.read_consoles(servers, read.__setitem__)

    engines.destroy(timeout=10, sleep=clock.sleep, clock=clock, before_deletion=before_deletion)
    assert read == {make_server(0).name: "booting\n\\x1b[2Jlogin: "}


def test_no_more_is_asked_at_a_time_than_the_set_may(monkeypatch):
    """Deletions of servers, of those that were created twice, and consoles."""
    cloud = FakeCloud(*(make_server(slot) for slot in range(6)), replace(make_server(0), id="spare"))
    engines, clock, threads = EngineSet(cloud, FakeStore(), UID, SET, parallel=2), Clock(), []
    monkeypatch.setattr(module, "in_parallel", lambda work, do, parallel: threads.append((len(work), parallel)))
    engines.read_consoles(list(cloud.there.values()), lambda name, text: None)
    assert threads == [(7, 2)]
    engines.delete_spares(engines.survey(reports=False), [make_server(0).id])
    engines.destroy(timeout=10, sleep=clock.sleep, clock=clock)
    assert cloud.deleted[0] == ["spare"]
    assert set(cloud.asked("delete_servers", "parallel")) == {2}


def test_a_console_that_can_not_be_read_is_left_out():
    cloud = FakeCloud(make_server(0), make_server(1))
    cloud.consoles = dict.fromkeys(cloud.there, "booting")
    cloud.fail["console_output"] = [CloudError("the cloud said 403")]
    read = {}
    EngineSet(cloud, FakeStore(), UID, SET).read_consoles(list(cloud.there.values()), read.__setitem__)
    assert list(read.values()) == ["booting"]


def test_the_output_of_a_server_that_was_replaced_counts_until_its_successor_has_any():
    store = FakeStore(**{UID: {f"{SET}/0.0/0002-engines": b"", f"{SET}/0.1/0000-agent": b""}})
    store.contents[f"{SET}/0.0/0002-engines"] = {"engines": [{"index": 0, "output": "before"}]}
    store.contents[f"{SET}/0.1/0002-engines"] = {"engines": [{"index": 0, "output": "after"}]}
    engine_set = EngineSet(FakeCloud(), store, UID, SET)
    assert dict(engine_set.output(1)) == {"0.0": "before"}
    store.there[UID][f"{SET}/0.1/0002-engines"] = b""
    assert dict(engine_set.output(1)) == {"0.0": "after"}


def test_a_report_of_logs_is_no_phase(store, engines):
    """Neither for the state of a server, nor where its end is waited for."""
    store.there[UID] |= dict.fromkeys([f"{SET}/0.0/0002-gone", f"{SET}/0.0/0003-log", f"{SET}/1.0/0001-log"], b"")
    found = engines.survey()
    assert found.reports == {Place(SET, 0): Report(Place(SET, 0), 2, "gone")}
    engines.wait_until_gone(timeout=5, sleep=pytest.fail, clock=Clock())


def test_waiting_for_the_end_ends_when_every_server_has_reported_it(store, engines):
    store.there[UID][f"{SET}/1.0/0003-engines"] = b""
    endings = iter([f"{SET}/0.0/0003-gone", f"{SET}/1.0/0004-gone"])
    clock = Clock(then=lambda: store.there[UID].setdefault(next(endings), b""))
    engines.wait_until_gone(timeout=5, sleep=clock.sleep, clock=clock)
    assert clock.now == pytest.approx(100.6)


def test_nobody_waits_for_a_server_that_was_replaced(store, engines):
    store.there[UID] = {f"{SET}/0.0/0003-engines": b"", f"{SET}/0.1/0004-gone": b""}
    clock = Clock()
    engines.wait_until_gone(timeout=5, sleep=clock.sleep, clock=clock)
    assert clock.now == 100.0


def test_waiting_for_the_end_has_a_deadline(store, engines):
    store.there[UID][f"{SET}/1.0/0003-engines"] = b""
    clock = Clock()
    engines.wait_until_gone(timeout=5, sleep=clock.sleep, clock=clock)
    assert 105 <= clock.now < 105.4


# --- take away


def test_destroy_takes_the_set_and_leaves_every_other_alone(engines, four_servers, store):
    destroy(engines)
    only_others_are_left(four_servers, store)


def test_the_container_goes_with_the_last_set(engines, store):
    del store.there[UID][f"{OTHER_SET}/connection.json"]
    destroy(engines)
    assert store.there == {OTHER_UID: {"x": b""}}


def test_destroy_is_idempotent(engines, four_servers, store):
    destroy(engines)
    before = list(four_servers.deleted)
    destroy(engines)
    assert four_servers.deleted == before
    only_others_are_left(four_servers, store)


def test_a_known_server_that_is_not_listed_yet_is_deleted_too(engines, four_servers, store):
    """A server that was created a moment ago may be missing from the first listing."""
    late = make_server(2)
    four_servers.there[late.id] = late
    four_servers.hidden = {late.id}
    destroy(engines, [late.id])
    only_others_are_left(four_servers, store)


def test_a_server_that_lands_while_others_are_deleted_is_deleted_too(engines, four_servers, store):
    late = make_server(2)

    def land():
        four_servers.there.setdefault(late.id, late)
        clock.then = lambda: None

    clock = Clock(then=land)
    destroy(engines, clock=clock)
    assert [late.id] in four_servers.deleted
    only_others_are_left(four_servers, store)


def test_a_server_that_will_not_go_is_named_after_the_timeout(engines, four_servers, store):
    stuck = make_server(1)
    four_servers.stuck = {stuck.id}
    clock = Clock()
    with pytest.raises(CloudError) as raised:
        destroy(engines, timeout=10, clock=clock)
    assert str(raised.value) == (
        f"These servers still exist 10 s after they were deleted: {stuck.name}. "
        "If they stay, delete them with `openstack server delete`."
    )
    assert 110 < clock.now <= 112.1
    assert f"{SET}/connection.json" in store.there[UID]
    four_servers.stuck = set()
    destroy(engines)
    only_others_are_left(four_servers, store)


def test_a_deletion_is_asked_for_once_while_waiting(engines, four_servers):
    ids = sorted(make_server(slot).id for slot in (0, 1))
    four_servers.stuck = set(ids)
    clock = Clock(then=lambda: clock.now > 103 and four_servers.there.clear())
    destroy(engines, clock=clock)
    assert four_servers.deleted == [ids]


@pytest.mark.parametrize(
    ("door", "method"),
    [
        ("cloud", "servers"),
        ("cloud", "delete_servers"),
        ("store", "delete_prefix"),
        ("store", "remove_if_empty"),
    ],
)
def test_a_failure_at_any_stage_is_raised_and_a_second_destroy_succeeds(engines, four_servers, store, door, method):
    error = Unavailable("the cloud said 503")
    {"cloud": four_servers, "store": store}[door].fail[method] = [error]
    known = [make_server(0).id, make_server(1).id]
    with pytest.raises(Unavailable) as raised:
        destroy(engines, known)
    assert raised.value is error
    destroy(engines, known)
    only_others_are_left(four_servers, store)


def test_a_listing_that_fails_while_waiting_is_raised_too(engines, four_servers, store):
    clock = Clock(then=lambda: four_servers.fail.update(servers=[Unavailable("the cloud said 503")]))
    with pytest.raises(Unavailable):
        destroy(engines, clock=clock)
    assert f"{SET}/connection.json" in store.there[UID]
    destroy(engines)
    only_others_are_left(four_servers, store)


def test_sweep_takes_the_whole_cluster_and_no_other(four_servers, store):
    sweep(four_servers, store, UID, timeout=10)
    assert list(four_servers.there) == [f"id-griffin-{OTHER_UID}-{SET}-0"]
    assert store.there == {OTHER_UID: {"x": b""}}
    sweep(four_servers, store, UID, timeout=10)


def test_sweep_keeps_the_container_while_servers_are_left(four_servers, store):
    """Its objects name what is still there; and the next stop finds both."""
    four_servers.fail["delete_servers"] = [Unavailable("the cloud said 503")]
    with pytest.raises(Unavailable):
        sweep(four_servers, store, UID, timeout=10)
    assert UID in store.there


def test_sweep_takes_the_clusters_security_groups_and_floating_ips_along(four_servers, store):
    for uid in (UID, OTHER_UID):
        four_servers.groups.make_for_server(uid)
        four_servers.floating_ips.reserve(uid, "auto", "")
    sweep(four_servers, store, UID, timeout=10)
    assert {group.uid for group in four_servers.groups.there} == {OTHER_UID}
    assert [floating.uid for floating in four_servers.floating_ips.there] == [OTHER_UID]


def test_all_else_goes_although_a_floating_ip_stays(four_servers, store):
    four_servers.floating_ips.fail["release"] = [
        CloudError("Can't release floating IP 203.0.113.5: the cloud said 409")
    ]
    four_servers.groups.fail["remove"] = [CloudError("These security groups are still in use")]
    with pytest.raises(
        CloudError, match=f"servers of cluster {UID} are deleted, but .*release floating IP .*still in use"
    ):
        sweep(four_servers, store, UID, timeout=10)
    assert UID not in store.there


def test_the_container_goes_although_a_security_group_stays(four_servers, store):
    """The cluster's keys are in it."""
    four_servers.groups.fail["remove"] = [CloudError("These security groups are still in use")]
    with pytest.raises(CloudError, match="still in use"):
        sweep(four_servers, store, UID, timeout=10)
    assert UID not in store.there


@pytest.mark.parametrize(("groups", "others", "removed"), [(True, {}, [UID]), (True, {"x": b""}, []), (False, {}, [])])
def test_the_last_set_takes_the_security_groups_along(groups, others, removed):
    """Another set's servers are still in them; and where none were made, nobody asks for any."""
    cloud = FakeCloud()
    engines = EngineSet(cloud, FakeStore(**{UID: {f"{SET}/connection.json": b"", **others}}), UID, SET)
    engines.destroy(timeout=10, groups=groups)
    assert cloud.groups.asked("remove", "uid") == removed


def test_a_container_that_stays_is_an_error_that_says_how_to_delete_it(four_servers, store):
    store.locked = True
    with pytest.raises(CloudError, match=f"Something in its container .*container delete --recursive.*ends in -{UID}"):
        sweep(four_servers, store, UID, timeout=10)
    assert list(four_servers.there) == [f"id-griffin-{OTHER_UID}-{SET}-0"]


def test_a_port_that_nova_left_of_a_server_is_deleted(four_servers, store):
    clock = Clock()
    four_servers.ports.left = {f"id-griffin-{UID}-{SET}-0": "port-0", f"id-griffin-{OTHER_UID}-{SET}-0": "port-9"}
    delete_servers(four_servers, (uid_tag(UID),), (), timeout=10, sleep=clock.sleep, clock=clock)
    assert list(four_servers.ports.left.values()) == ["port-9"]


def test_a_port_that_stays_is_named(four_servers, store):
    clock = Clock()
    four_servers.ports.left = {f"id-griffin-{UID}-{SET}-0": "port-0"}
    four_servers.ports.fail["delete"] = [CloudError("the cloud said 500")] * 100
    with pytest.raises(
        CloudError, match="these ports of theirs still exist: port-0. the cloud said 500 .*openstack port delete"
    ):
        delete_servers(four_servers, (uid_tag(UID),), (), timeout=10, sleep=clock.sleep, clock=clock)


def test_nothing_to_delete_takes_one_listing_and_no_pause():
    cloud = FakeCloud(make_server(0, uid=OTHER_UID))
    delete_servers(cloud, (uid_tag(UID), set_tag(SET)), (), timeout=10, sleep=pytest.fail, clock=Clock())
    assert cloud.deleted == []
