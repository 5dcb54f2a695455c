"""`Clusters`: what there is in a project, over fakes of the cloud and the object store."""

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from ipp_griffin.cloud.floating_ips import FloatingIp
from ipp_griffin.cloud.security_groups import SecurityGroup
from ipp_griffin.cluster.cluster import LABELS, Cluster, Member, leftovers, phase_of
from ipp_griffin.cluster.inventory import Clusters
from ipp_griffin.common.errors import CloudError, SettingError, Unavailable
from ipp_griffin.model.history import Former, Record
from ipp_griffin.model.names import Place, server_tags
from ipp_griffin.model.reports import Report
from ipp_griffin.model.server import Server

from ..fakes import FakeCloud, FakeStore

pytestmark = pytest.mark.usefixtures("no_pauses")

ADA, BOB, CAT = "0000000000aa", "0000000000bb", "0000000000cc"
SET = "a1b2c3d4"
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=timezone.utc)


def make_server(slot=0, *, uid=ADA, user="ada", status="ACTIVE", hours=1, **labels) -> Server:
    labels = {
        "owner": user,
        "profile": "griffin",
        "cluster_id": "",
        "container": "ipp-griffin",
        "engines": "2",
        **labels,
    }
    return Server(
        f"id-{uid}-{slot}",
        f"griffin-{uid}-{SET}-{slot}",
        status,
        tags=server_tags(uid, Place(SET, slot)),
        metadata={f"griffin:{name}": text for name, text in labels.items()},
        created=(NOW - timedelta(hours=hours)).isoformat().replace("+00:00", "Z"),
        user_id=user,
        vcpus=4,
    )


def adas(*servers) -> FakeCloud:
    """A cloud that ada is logged in to."""
    cloud = FakeCloud(*servers)
    cloud.user_id = "ada"
    return cloud


def look(*servers, store=None) -> Clusters:
    opened = store or FakeStore()
    return Clusters(adas(*servers), lambda prefix: opened, "ipp-griffin")


def store_with(uid, *reports) -> FakeStore:
    """One with these reports in a cluster's container."""
    store = FakeStore()
    write(store, uid, *reports)
    return store


def write(store, uid, *reports):
    store.there.setdefault(uid, {}).update({report.name: b"" for report in reports})
    store.times.update({report.name: report.written for report in reports})


def touch(store, uid, when, name="ffff0000/connection.json"):
    """Write an object of that name at that time."""
    store.there[uid][name] = b""
    store.times[name] = when


def test_a_clusters_servers_belong_together_and_the_youngest_cluster_comes_first():
    found = look(make_server(1), make_server(0), make_server(0, uid=BOB, hours=0.5)).all()
    assert [(cluster.uid, [member.place.slot for member in cluster.members]) for cluster in found] == [
        (BOB, [0]),
        (ADA, [0, 1]),
    ]
    assert found[1].labels == {
        "owner": "ada",
        "host": "",
        "container": "ipp-griffin",
        "profile": "griffin",
        "cluster_id": "",
        "started": "",
        "start_deadline": "",
        "expires": "",
    }


def down() -> FakeStore:
    """An object store that answers nothing."""
    store = FakeStore()
    store.down = Unavailable("the object store said 503")
    return store


def test_without_the_object_store_servers_are_seen_and_deleted_all_the_same():
    clusters = look(make_server(0), make_server(1), store=down())
    (cluster,) = clusters.all()
    assert (cluster.phases, clusters.store_trouble) == ({"active": 2}, "the object store said 503")
    with pytest.raises(Unavailable, match="servers of cluster .* are deleted, but not everything else: .*503"):
        clusters.stop(clusters.find("griffin"), timeout=5)
    assert clusters._cloud.there == {}
    with pytest.raises(Unavailable, match="No cluster 'griffin' has servers, and its container can't be searched for"):
        clusters.find("griffin")


def test_without_the_object_store_nothing_counts_as_never_reported():
    clusters = look(make_server(start_deadline="2026-01-01T00:00:00Z"), store=down())
    for ask in (clusters.leftovers, clusters.servers_left):
        with pytest.raises(Unavailable):
            ask()


def test_without_the_object_store_a_cluster_with_servers_of_several_users_is_nobodys_to_stop():
    clusters = look(make_server(0), make_server(1, user="bob"), store=down())
    with pytest.raises(SettingError, match="belongs to somebody else"):
        clusters.find(ADA)


def test_age_and_vcpu_hours_are_those_of_the_servers_that_are_there():
    (cluster,) = look(make_server(0, hours=2), make_server(1, hours=0.5)).all()
    assert cluster.age(NOW) == 2 * 3600
    assert cluster.vcpu_hours(NOW) == 4 * 2.5
    assert replace(cluster, members=()).age(NOW) == 0


def test_the_clusters_of_others_are_shown_only_when_asked_for():
    clusters = look(make_server(), make_server(uid=BOB, user="bob"))
    assert [cluster.uid for cluster in clusters.all()] == [ADA]
    assert sorted(cluster.uid for cluster in clusters.all(everyone=True)) == [ADA, BOB]


def foreign_server(slot=7, **options) -> Server:
    """A server that bob gave the tags of ada's cluster."""
    return make_server(slot, user="bob", **options)


@pytest.mark.parametrize("labels", [{}, {ADA: {"user": "ada", "owner": "ada"}}])
def test_a_server_of_somebody_else_that_bears_a_clusters_tag_hides_it_from_nobody(labels):
    """Anybody in the project can tag a server. What is said of the cluster is what its owner's servers say."""
    (cluster,) = look(foreign_server(owner="bob"), make_server(0), store=FakeStore.of_clusters(**labels)).all()
    assert (cluster.mine, cluster.labels["owner"]) == (True, "ada")
    assert [(member.place.slot, member.mine) for member in cluster.members] == [(0, True), (7, False)]


def test_a_cluster_is_its_containers_owners_whoever_has_servers_in_it():
    store = FakeStore.of_clusters(
        **{ADA: {"user": "bob", "owner": "bob"}, BOB: {"user": "ada", "owner": "ada", "profile": "lab"}}
    )
    clusters = look(make_server(0), foreign_server(1), foreign_server(0, uid=BOB), store=store)
    (cluster,) = clusters.all()
    assert (cluster.uid, cluster.labels["owner"], cluster.name) == (BOB, "ada", "lab")
    assert {c.uid: c.mine for c in clusters.all(everyone=True)} == {ADA: False, BOB: True}


def test_a_server_of_somebody_else_is_reaped_only_when_asked_for():
    long_ago = "2026-01-01T00:00:00Z"
    own, theirs = (make(status="ERROR", start_deadline=long_ago) for make in (make_server, foreign_server))
    clusters = look(own, theirs, store=FakeStore.of_clusters(**{ADA: {"user": "ada"}}))
    found = clusters.leftovers()
    assert [left.server for left in found] == [own]
    clusters.reap(found, timeout=5)
    assert list(clusters._cloud.there) == [theirs.id]
    assert ADA in clusters._store().there
    clusters.reap(clusters.leftovers(everyone=True), timeout=5)
    assert (clusters._cloud.there, clusters._store().there) == ({}, {})


def test_a_server_that_bears_our_tag_by_chance_is_no_cluster():
    assert look(replace(make_server(), tags=("ipp-griffin", "griffin-uid=x", "griffin-slot=y"))).all() == []


def test_a_container_without_servers_is_a_cluster_of_whom_it_says():
    store = FakeStore.of_clusters(
        **{
            ADA: {"owner": "ada", "user": "ada", "cluster-id": "x"},
            BOB: {"user": "bob"},
            "0" * 12: {},
            "lab": {"user": "ada"},
        }
    )
    (cluster,) = look(store=store).all()
    assert (cluster.uid, cluster.labels["cluster_id"], cluster.members) == (ADA, "x", ())


@pytest.mark.parametrize(
    ("status", "reported", "phase"),
    [
        ("BUILD", None, "building"),
        ("ACTIVE", None, "active"),
        ("ACTIVE", "connected", "connected"),
        ("ACTIVE", "engines", "engines"),
        ("REBOOT", "engines", "engines"),
        ("ACTIVE", "failed", "failed"),
        ("ERROR", "engines", "failed"),
        ("SHUTOFF", "engines", "gone"),
    ],
)
def test_the_phase_of_a_server_is_what_nova_says_and_then_its_agent(status, reported, phase):
    report = Report(Place(SET, 0), 1, reported) if reported else None
    assert phase_of(make_server(status=status), report) == phase


def test_engines_count_as_up_where_their_server_says_so():
    reports = (
        Report(Place(SET, 0), 1, "connected"),
        Report(Place(SET, 0), 2, "engines"),
        Report(Place(SET, 1), 1, "agent"),
    )
    store = store_with(ADA, *reports)
    (cluster,) = look(make_server(0), make_server(1), make_server(2, status="BUILD"), store=store).all()
    assert cluster.phases == {"engines": 1, "agent": 1, "building": 1}
    assert (cluster.engines_up, cluster.engines) == (2, 6)


def test_the_report_of_a_server_that_was_replaced_is_not_its_successors():
    store = store_with(ADA, Report(Place(SET, 0), 4, "engines"))
    successor = replace(make_server(), tags=server_tags(ADA, Place(SET, 0, 1)))
    (cluster,) = look(successor, store=store).all()
    assert cluster.phases == {"active": 1}


def test_a_report_of_logs_is_no_phase():
    store = store_with(ADA, Report(Place(SET, 0), 1, "engines"), Report(Place(SET, 0), 2, "log"))
    assert cluster_of(make_server(), store=store).phases == {"engines": 1}


def test_what_others_wrote_reaches_no_terminal_as_it_is():
    (cluster,) = look(make_server(owner="\x1b[2Jada\n", engines="many")).all()
    assert cluster.labels["owner"] == "\\x1b[2Jada"
    assert cluster.engines == 0


@pytest.mark.parametrize("name", [ADA, "griffin/x"])
def test_a_cluster_is_found_by_its_uid_or_its_profile_and_id(name):
    assert look(make_server(cluster_id="x"), make_server(uid=BOB, profile="lab")).find(name).uid == ADA


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "nope",
            rf"no cluster 'nope' in this project\. Existing clusters: {ADA} \(griffin\), {'1' * 12} \(griffin\)\.",
        ),
        ("griffin", f"Several clusters are called 'griffin'. Name one of them: {ADA}"),
        (BOB, "belongs to somebody else. Add --all-owners if you mean it"),
        ("bobs", "belongs to somebody else"),
    ],
)
def test_a_name_that_is_no_one_clusters_of_ones_own_says_what_there_is(name, why):
    servers = make_server(), make_server(uid="1" * 12), make_server(uid=BOB, user="bob", profile="bobs")
    with pytest.raises(SettingError, match=why):
        look(*servers).find(name)


def test_what_is_left_of_a_cluster_is_found_by_its_uid():
    """The security groups of one whose container went first, or nothing: another stop at the same time was faster."""
    clusters = look()
    clusters._cloud.groups.there = [make_group(ADA)]
    for uid in (ADA, BOB):
        rest = clusters.rest_of(uid)
        assert (rest.uid, rest.members, rest.mine) == (uid, (), True)
        clusters.stop(rest, timeout=5)
    assert clusters._cloud.groups.there == []
    assert clusters.rest_of("griffin") is None


def test_what_is_left_of_somebody_elses_cluster_is_theirs():
    clusters = look()
    clusters._cloud.groups.there = [make_group(CAT, user="bob")]
    with pytest.raises(SettingError, match="belongs to somebody else"):
        clusters.rest_of(CAT)
    assert clusters.rest_of(CAT, everyone=True).uid == CAT


def test_stopping_deletes_its_servers_and_container_and_nothing_else():
    store = FakeStore.of_clusters(**{ADA: {"user": "ada"}})
    clusters = look(make_server(0), make_server(1), make_server(uid=BOB, user="bob"), store=store)
    clusters.stop(clusters.find(ADA), timeout=5)
    assert [cluster.uid for cluster in clusters.all(everyone=True)] == [BOB]
    assert store.asked("delete_container", "uid") == [ADA]


def test_a_clusters_container_is_looked_for_where_its_servers_say():
    asked = []

    def open_store(prefix):
        asked.append(prefix)
        return FakeStore()

    Clusters(adas(make_server(container="lab")), open_store, "ipp-griffin").all()
    assert asked == ["ipp-griffin", "lab"]


def test_a_member_knows_its_place():
    (cluster,) = look(make_server(3)).all()
    assert isinstance(cluster, Cluster)
    assert cluster.members == (Member(make_server(3), Place(SET, 3), 2, "active"),)


BEFORE, AFTER = ((NOW + timedelta(minutes=m)).strftime("%Y-%m-%dT%H:%M:%SZ") for m in (-1, 1))


def cluster_of(*servers, store=None) -> Cluster:
    (cluster,) = look(*servers, store=store).all()
    return cluster


@pytest.mark.parametrize(
    ("status", "reported", "why"),
    [
        ("ERROR", None, "is in ERROR: no disk"),
        ("SHUTOFF", "engines", "is in SHUTOFF: no disk"),
        ("ACTIVE", None, f"never reported; its start had time until {BEFORE}"),
        ("BUILD", None, f"never reported; its start had time until {BEFORE}"),
        ("ACTIVE", "agent", None),
        ("ACTIVE", "engines", None),
        ("ACTIVE", "failed", None),  # it switches its server off, or its launcher deletes it
    ],
)
def test_left_over_is_what_nova_says_is_off_and_what_never_reported(status, reported, why):
    store = store_with(ADA, *([Report(Place(SET, 0), 1, reported)] if reported else []))
    server = replace(make_server(status=status, start_deadline=BEFORE), fault="no disk")
    found = leftovers(cluster_of(server, store=store), NOW)
    assert [left.why for left in found] == ([why] if why else [])
    assert all(left.server == server for left in found)


@pytest.mark.parametrize(
    ("phase", "minutes", "deadline", "why"),
    [
        ("gone", 16, 20, "runs nothing any more: its agent reported gone at 2026-01-01T11:44:00Z"),
        ("failed", 16, 20, "runs nothing any more: its agent reported failed at 2026-01-01T11:44:00Z"),
        ("failed", 14, 20, None),
        ("failed", 16, -1, None),  # its start is not over: a launcher may see to it
        ("agent", 90, 61, "got no further than 'agent'; its start had time until 2026-01-01T10:59:00Z"),
        ("connected", 90, 61, "got no further than 'connected'; its start had time until 2026-01-01T10:59:00Z"),
        ("connected", 90, 59, None),  # a set with its quorum may still wait for it
        ("engines", 9000, 9000, None),
    ],
)
def test_a_server_that_runs_for_nothing_is_left_over(phase, minutes, deadline, why):
    """Its agent was killed, or could not switch it off, and its launcher is no more."""

    def ago(minutes):
        return (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")

    store = store_with(ADA, Report(Place(SET, 0), 1, phase, ago(minutes)))
    found = leftovers(cluster_of(make_server(start_deadline=ago(deadline)), store=store), NOW)
    assert [left.why for left in found] == ([why] if why else [])


@pytest.mark.parametrize("deadline", [AFTER, "", "soon"])
@pytest.mark.parametrize("status", ["BUILD", "ACTIVE", "ERROR", "SHUTOFF"])
def test_a_cluster_that_is_still_starting_or_may_be_is_never_touched(status, deadline):
    assert leftovers(cluster_of(make_server(status=status, start_deadline=deadline)), NOW) == []


@pytest.mark.parametrize(
    ("deadline", "touched", "left"),
    [
        (BEFORE, "2026-01-01T10:59:00.000000", 1),
        (BEFORE, "2026-01-01T11:30:00.000000", 0),  # somebody may be about to use it
        (AFTER, "2026-01-01T10:59:00.000000", 0),
        ("", "2026-01-01T10:59:00.000000", 0),
        (BEFORE, "", 1),  # nothing was ever written into it, and now nobody will
        (AFTER, "", 0),
    ],
)
def test_a_container_is_left_over_when_nobody_has_used_it_for_an_hour(deadline, touched, left):
    store = FakeStore.of_clusters(**{ADA: {"user": "ada", "start-deadline": deadline}})
    if touched:
        touch(store, ADA, touched)
    assert [each.server for each in leftovers(cluster_of(store=store), NOW)] == [None] * left


def test_an_empty_container_whose_start_is_over_is_reaped():
    store = FakeStore.of_clusters(**{ADA: {"user": "ada", "start-deadline": "2026-01-01T00:00:00Z"}})
    clusters = look(store=store)
    assert len(clusters.reap(clusters.leftovers(), timeout=5)) == 1
    assert store.asked("delete_container", "uid") == [ADA]


@pytest.mark.parametrize(
    ("expires", "left"),
    [(BEFORE, [f"expired at {BEFORE}"]), (AFTER, []), ("", []), ("soon", [])],
)
@pytest.mark.parametrize("deadline", [BEFORE, AFTER])
def test_a_server_past_its_expiry_is_left_over_whatever_it_does(expires, left, deadline):
    store = store_with(ADA, Report(Place(SET, 0), 1, "engines"))
    server = make_server(start_deadline=deadline, **({"expires": expires} if expires else {}))
    assert [left.why for left in leftovers(cluster_of(server, store=store), NOW)] == left


def test_a_cluster_expires_with_its_first_server():
    servers = [
        make_server(0, expires=AFTER),
        make_server(1),
        make_server(2, expires=BEFORE),
        make_server(3, expires="x"),
    ]
    assert cluster_of(*servers).expires == BEFORE
    assert cluster_of(make_server()).expires == ""


def test_reaping_deletes_what_is_left_over_and_leaves_the_rest_of_the_cluster():
    long_ago = "2026-01-01T00:00:00Z"
    store = FakeStore.of_clusters(**{ADA: {"user": "ada"}, BOB: {"user": "ada"}})
    write(store, ADA, Report(Place(SET, 0), 2, "engines"))
    kept, off = (make_server(n, start_deadline=long_ago, status=s) for n, s in enumerate(["ACTIVE", "SHUTOFF"]))
    dead = make_server(uid=BOB, start_deadline=long_ago, status="ERROR")
    touch(store, BOB, "2026-01-01T00:00:00")
    clusters = look(kept, off, dead, store=store)
    assert len(clusters.reap(clusters.leftovers(), timeout=5)) == 2
    assert [member.server for cluster in clusters.all() for member in cluster.members] == [kept]
    assert store.asked("delete_container", "uid") == [BOB]
    assert clusters.leftovers() == []


def test_a_container_that_was_made_and_never_marked_is_reaped_after_an_hour():
    """It is what a process leaves that is killed between the two requests."""
    store = FakeStore.of_clusters(**{ADA: {}, BOB: {}, "lab": {}})
    an_hour_ago = datetime.now(timezone.utc).timestamp() - 3600
    store.made = {ADA: an_hour_ago - 1, BOB: an_hour_ago + 600, "lab": 0.0}
    clusters = look(store=store)
    found = clusters.leftovers()
    assert [(left.cluster.uid, left.server, left.why) for left in found] == [(ADA, None, "was never used")]
    assert clusters.reap(found, timeout=5) == found
    assert store.asked("delete_container", "uid") == [ADA]


def make_group(uid, *, user="ada", hours=2.0):
    created = (datetime.now(timezone.utc) - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return SecurityGroup(f"g-{uid}", f"griffin-{uid}-engines", uid, "engines", user, created)


def test_a_security_group_without_a_cluster_is_reaped_after_an_hour():
    """One that starts makes its groups before its servers."""
    clusters = look()
    clusters._cloud.groups.there = [make_group(ADA), make_group(BOB, hours=0.5), make_group(CAT, user="bob")]
    found = clusters.leftovers()
    assert [(left.group, left.server, left.why) for left in found] == [
        (make_group(ADA), None, "belongs to no cluster any more")
    ]
    assert clusters.reap(found, timeout=5) == found
    assert clusters._cloud.groups.asked("remove", "uid") == [ADA]
    assert [left.group.uid for left in clusters.leftovers(everyone=True)] == [CAT]


def test_a_security_group_of_a_cluster_is_not_left_over():
    clusters = look(
        make_server(), store=FakeStore.of_clusters(**{BOB: {"user": "ada", "start-deadline": "2099-01-01T00:00:00Z"}})
    )
    clusters._cloud.groups.there = [make_group(ADA), make_group(BOB)]
    assert clusters.leftovers() == []


def make_floating_ip(uid, *, user="ada", hours=2.0):
    created = make_group(uid, hours=hours).created
    return FloatingIp(f"f-{uid}", "203.0.113.5", uid, "", user, created)


def test_a_floating_ip_without_a_cluster_is_reaped_after_an_hour():
    clusters = look()
    floating = [make_floating_ip(ADA), make_floating_ip(BOB, hours=0.5), make_floating_ip(CAT, user="bob")]
    clusters._cloud.floating_ips.there = floating
    found = clusters.leftovers()
    assert [(left.floating_ip, left.group, left.server, left.why) for left in found] == [
        (floating[0], None, None, "belongs to no cluster any more")
    ]
    assert clusters.reap(found, timeout=5) == found
    assert clusters._cloud.floating_ips.asked("release", "uid") == [ADA]
    assert [left.floating_ip.uid for left in clusters.leftovers(everyone=True)] == [CAT]


def test_a_floating_ip_of_a_cluster_is_not_left_over():
    clusters = look(
        make_server(), store=FakeStore.of_clusters(**{BOB: {"user": "ada", "start-deadline": "2099-01-01T00:00:00Z"}})
    )
    clusters._cloud.floating_ips.there = [make_floating_ip(ADA), make_floating_ip(BOB)]
    assert clusters.leftovers() == []


def test_a_cluster_that_is_reaped_as_a_whole_takes_its_security_groups_and_floating_ips_along():
    clusters = look(make_server(status="ERROR", start_deadline="2026-01-01T00:00:00Z"))
    clusters.reap(clusters.leftovers(), timeout=5)
    cloud = clusters._cloud
    assert cloud.groups.asked("remove", "uid") == cloud.floating_ips.asked("release", "uid") == [ADA]


def test_ports_that_nova_left_of_what_is_reaped_are_deleted():
    clusters = look(make_server(status="ERROR", start_deadline="2026-01-01T00:00:00Z"))
    ports = clusters._cloud.ports
    ports.left = {f"id-{ADA}-0": "port-1"}
    clusters.reap(clusters.leftovers(), timeout=5)
    assert ports.left == {}


def test_reaping_names_a_server_that_outlives_its_deletion_and_keeps_its_container():
    off = make_server(status="SHUTOFF", start_deadline="2026-01-01T00:00:00Z")
    store = FakeStore.of_clusters(**{ADA: {"user": "ada"}})
    clusters = look(off, make_server(1, start_deadline="2999-01-01T00:00:00Z"), store=store)
    clusters._cloud.stuck = {off.id}
    with pytest.raises(CloudError, match=rf"These servers still exist 5 s after they were deleted: {off.name}\."):
        clusters.reap(clusters.leftovers(), timeout=5)
    assert store.asked("delete_container", "uid") == []


def test_what_began_to_start_while_somebody_was_asked_is_not_touched():
    """The same cluster gets new engines: their container has just been written to, and their servers are about to be."""
    dead = make_server(status="ERROR", start_deadline="2026-01-01T00:00:00Z")
    store = FakeStore.of_clusters(**{ADA: {"user": "ada"}})
    clusters = look(dead, store=store)
    found = clusters.leftovers()
    touch(store, ADA, datetime.now(timezone.utc).isoformat())
    new = make_server(7, status="BUILD", start_deadline="2999-01-01T00:00:00Z")
    clusters._cloud.there[new.id] = new
    assert [left.server for left in clusters.reap(found, timeout=5)] == [dead]
    assert [member.server for cluster in clusters.all() for member in cluster.members] == [new]
    assert store.asked("delete_container", "uid") == []


def test_the_container_goes_with_the_last_server_that_is_reaped():
    """It holds the cluster's keys, and what its own servers have just reported is no reason to keep it."""
    dead = make_server(status="SHUTOFF", start_deadline="2026-01-01T00:00:00Z")
    store = FakeStore.of_clusters(**{ADA: {"user": "ada"}})
    touch(store, ADA, datetime.now(timezone.utc).isoformat(), f"{SET}/0.0/0004-gone")
    clusters = look(dead, store=store)
    clusters.reap(clusters.leftovers(), timeout=5)
    assert store.asked("delete_container", "uid") == [ADA]


def test_the_container_stays_where_a_server_takes_the_slot_of_one_that_is_reaped():
    dead = make_server(status="SHUTOFF", start_deadline="2026-01-01T00:00:00Z")
    store = FakeStore.of_clusters(**{ADA: {"user": "ada"}})
    touch(store, ADA, datetime.now(timezone.utc).isoformat(), f"{SET}/history.json")
    clusters = look(dead, store=store)
    found = clusters.leftovers()
    successor = make_server(8, status="BUILD", start_deadline="2999-01-01T00:00:00Z")
    clusters._cloud.there[successor.id] = successor
    clusters.reap(found, timeout=5)
    assert (list(clusters._cloud.there), store.asked("delete_container", "uid")) == ([successor.id], [])


def test_what_came_back_while_somebody_was_asked_stays():
    off = make_server(status="SHUTOFF", start_deadline="2026-01-01T00:00:00Z")
    store = store_with(ADA, Report(Place(SET, 0), 2, "engines"))
    clusters = look(off, store=store)
    found = clusters.leftovers()
    clusters._cloud.there[off.id] = replace(off, status="ACTIVE")
    assert clusters.reap(found, timeout=5) == []
    assert list(clusters._cloud.there) == [off.id]


def test_servers_that_are_left_over_are_found_without_reading_containers():
    """Every start looks for them: once for all."""
    store = FakeStore.of_clusters(**{BOB: {"user": "ada", "start_deadline": "2026-01-01T00:00:00Z"}})
    off = make_server(status="SHUTOFF", start_deadline="2026-01-01T00:00:00Z")
    clusters = look(off, make_server(1, start_deadline="2999-01-01T00:00:00Z"), store=store)
    assert [left.server for left in clusters.servers_left()] == [off]
    assert store.methods == ["reports"]


def test_others_clusters_are_reaped_only_when_asked_for():
    clusters = look(make_server(user="bob", status="ERROR", start_deadline="2026-01-01T00:00:00Z"))
    assert clusters.leftovers() == []
    assert len(clusters.leftovers(everyone=True)) == 1


def test_a_cluster_without_anything_has_nothing_left_over():
    assert leftovers(Cluster(ADA, dict.fromkeys(LABELS, ""), (), True), NOW) == []


def test_records_are_of_servers_there_and_gone_with_all_their_reports():
    reports = [
        Report(Place(SET, 0), 0, "agent"),
        Report(Place(SET, 0, 1), 0, "agent"),
        Report(Place(SET, 0, 1), 1, "log"),
        Report(Place("bbbb", 0), 0, "agent"),
    ]
    store = store_with(ADA, *reports)
    history = [{"name": "x", "slot": 0, "incarnation": 0, "ended": "2026-01-01T00:00:00Z", "why": "went to ERROR"}]
    store.there[ADA][f"{SET}/history.json"] = json.dumps(history).encode()
    successor = replace(make_server(), id="new", tags=server_tags(ADA, Place(SET, 0, 1)))
    clusters = look(foreign_server(0), successor, make_server(1), store=store)
    name = f"griffin-{ADA}-{SET}"
    assert clusters.records(clusters.find(ADA)) == [
        Record(
            f"{name}-0",
            Place(SET, 0),
            foreign_server(0),
            (reports[0],),
            Former("", "", history[0]["ended"], "went to ERROR"),
        ),
        Record(f"{name}-0", Place(SET, 0, 1), successor, tuple(reports[1:3])),
        Record(f"{name}-1", Place(SET, 1), make_server(1)),
        Record(f"griffin-{ADA}-bbbb-0", Place("bbbb", 0), None, (reports[3],)),
    ]
