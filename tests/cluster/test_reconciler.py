"""`Reconciler`: what it deletes, fills again and tells, over fakes of the cloud and the object store."""

import json
import logging
import threading
from dataclasses import replace

import pytest

from ipp_griffin.cluster.engine_set import EngineSet
from ipp_griffin.cluster.reconciler import Reconciler
from ipp_griffin.common.errors import CloudError, GriffinError, QuotaError, Unavailable
from ipp_griffin.model.names import Place
from ipp_griffin.model.server import Server
from ipp_griffin.model.slots import Deadlines, Roster

from ..fakes import Clock, FakeCloud, FakeHub, FakeStore
from ..fakes.cloud import SET, UID, plan_of

pytestmark = pytest.mark.usefixtures("no_pauses")


class Kept:
    """A reconciler of ``n`` servers that exist and are ACTIVE, unless ``n`` is of another process."""

    def __init__(self, n, *, replacements=3, quorum=None):
        self.cloud, self.store, self.clock = FakeCloud(), FakeStore(**{UID: {f"{SET}/connection.json": b""}}), Clock()
        self.goes_on, self.refusal, self.stopping, self.known = True, None, threading.Event(), []
        engine_set = EngineSet(self.cloud, self.store, UID, SET)
        self.roster = Roster.of_plan(
            plan_of(n).servers, self.clock(), deadlines=Deadlines(10, 20, 30, 40), quorum=n if quorum is None else quorum,
            replacements=replacements,
        )  # fmt: skip
        self.reconciler = Reconciler(
            lambda: engine_set,
            self.roster,
            create=self.create,
            on_change=lambda: self.known.append(self.reconciler.servers),
            goes_on=lambda: self.goes_on,
            stopping=self.stopping,
            log=logging.getLogger("kept"),
            clock=self.clock,
        )
        self.reconciler.create(plan_of(n).servers)

    def create(self, servers, created):
        if self.refusal is not None:
            raise self.refusal
        for planned in servers:
            server = Server(
                f"id-{planned.place.slot}.{planned.place.incarnation}", planned.name, "ACTIVE", tags=planned.tags
            )
            self.cloud.there[server.id] = server
            created(planned, server.id)

    def become(self, id, status, fault=""):
        self.cloud.there[id] = replace(self.cloud.there[id], status=status, fault=fault)

    def poll(self, registered=None, replace_settled=True):
        return self.reconciler.poll(registered or {}, reports=True, replace_settled=replace_settled)


def texts(caplog):
    return [record.getMessage() for record in caplog.records]


def test_a_failed_server_is_deleted_first_and_its_slot_filled_at_the_next_poll():
    """Quota counts a server until it is gone."""
    kept = Kept(2)
    kept.become("id-1.0", "ERROR", "No valid host")
    kept.poll()
    assert sorted(kept.cloud.there) == ["id-0.0"]
    kept.poll()
    assert sorted(kept.cloud.there) == ["id-0.0", "id-1.1"]
    assert kept.reconciler.servers == kept.known[-1] == ["id-0.0", "id-1.1"]


def test_what_was_replaced_is_kept_for_the_timeline():
    kept = Kept(1)
    kept.become("id-0.0", "ERROR", "No valid host")
    kept.poll()
    ((entry),) = json.loads(kept.store.there[UID][f"{SET}/history.json"])
    assert (entry["slot"], entry["incarnation"], entry["why"]) == (0, 0, "(building) went to ERROR: No valid host")


def test_ports_that_nova_left_of_a_replaced_server_are_deleted():
    kept = Kept(2)
    kept.cloud.ports.left = {"id-0.0": "port-0", "id-1.0": "port-1"}
    kept.become("id-1.0", "ERROR", "No valid host")
    kept.poll()
    kept.poll()
    assert kept.cloud.ports.left == {"id-0.0": "port-0"}


def test_ports_that_can_not_be_deleted_are_told_and_hold_up_no_replacement(caplog, monkeypatch):
    def refuse(servers):
        raise CloudError("The servers are deleted, but these ports of theirs still exist: port-0.")

    kept = Kept(1)
    monkeypatch.setattr(kept.reconciler.engine_set, "delete_ports", refuse)
    kept.become("id-0.0", "ERROR", "No valid host")
    kept.poll()
    kept.poll()
    assert any("port-0" in text for text in texts(caplog))
    assert sorted(kept.cloud.there) == ["id-0.1"]


def test_the_console_of_a_silent_server_is_told_without_what_moves_a_terminal(caplog):
    kept = Kept(1)
    kept.cloud.consoles = {"id-0.0": "booting\nkernel panic \x1b]0;pwned\x07\n"}
    kept.poll()
    kept.clock.now += 21
    kept.poll()
    assert texts(caplog)[1].endswith("console:\n  booting\n  kernel panic \\x1b]0;pwned\\x07")


def test_a_server_that_can_not_be_deleted_now_is_deleted_at_a_later_poll(caplog):
    kept = Kept(1)
    kept.become("id-0.0", "ERROR")
    kept.cloud.fail["delete_servers"] = [Unavailable("the cloud said 503")]
    kept.poll()
    assert "Will retry: the cloud said 503" in texts(caplog)
    kept.poll()
    kept.poll()
    assert sorted(kept.cloud.there) == ["id-0.1"]


def test_a_server_that_no_listing_ever_showed_is_deleted_by_its_id():
    """It was created: it may exist."""
    kept = Kept(1)
    kept.cloud.hidden.add("id-0.0")
    kept.clock.now += 11
    kept.poll()
    assert ["id-0.0"] in kept.cloud.deleted
    assert sorted(kept.cloud.there) == ["id-0.1"]


def test_a_replacement_that_the_quota_does_not_allow_is_final(caplog):
    kept = Kept(2, quorum=1)
    kept.become("id-1.0", "ERROR")
    kept.poll()
    kept.refusal = QuotaError("Quota exceeded for instances.")
    kept.poll()
    kept.refusal = None
    kept.poll()
    assert sorted(kept.cloud.there) == ["id-0.0"]
    assert "could not be created: Quota exceeded for instances." in texts(caplog)[-1]
    kept.reconciler.check_quorum()


def test_any_other_refusal_is_tried_again():
    kept = Kept(1)
    kept.become("id-0.0", "ERROR")
    kept.poll()
    kept.refusal = Unavailable("503")
    kept.poll()
    kept.refusal = None
    kept.poll()
    assert sorted(kept.cloud.there) == ["id-0.1"]


def test_a_replacement_whose_answer_was_lost_is_not_made_twice():
    kept = Kept(1)
    kept.become("id-0.0", "ERROR")
    kept.poll()
    planned = kept.roster.slots[0].planned
    kept.cloud.there["landed"] = Server("landed", planned.name, "ACTIVE", tags=planned.tags)
    kept.poll()
    assert sorted(kept.cloud.there) == ["landed"]
    assert kept.reconciler.servers == ["landed"]


def test_the_engines_of_a_failed_server_alone_are_shut_down_through_the_hub():
    kept, hub = Kept(2), FakeHub()
    kept.become("id-1.0", "ERROR")
    kept.reconciler.poll({}, reports=True, replace_settled=True, hub=hub)
    assert hub.asked("shut_down", "engine_set") == [f"{SET}-1-0"]


def test_a_quorum_that_can_not_be_had_is_an_error_with_each_cause():
    kept = Kept(2, replacements=0)
    kept.become("id-1.0", "ERROR", "No valid host")
    kept.poll()
    with pytest.raises(
        GriffinError,
        match=r"can no longer get its 2 engines\. Server \S+-1 \(building\) went to ERROR: No valid host\.",
    ):
        kept.reconciler.check_quorum()


def test_a_server_that_had_its_engines_is_only_told_of_where_nothing_is_replaced(caplog):
    kept = Kept(1)
    kept.poll({Place(SET, 0): 1}, replace_settled=False)
    kept.become("id-0.0", "ERROR", "disk full")
    for _ in range(3):
        kept.poll(replace_settled=False)
    assert sorted(kept.cloud.there) == ["id-0.0"]
    assert len(texts(caplog)) == 1


@pytest.mark.parametrize("how", ["stopped from elsewhere", "controller ended", "being stopped"])
def test_a_cluster_that_ends_gets_no_new_server(how):
    kept = Kept(1)
    kept.poll({Place(SET, 0): 1})
    if how == "stopped from elsewhere":
        del kept.store.there[UID]
    elif how == "controller ended":
        kept.goes_on = False
    else:
        kept.stopping.set()
    kept.cloud.there.clear()
    for _ in range(4):
        kept.poll()
    assert kept.cloud.there == {}
    assert kept.roster.alive == 0 or how == "being stopped"  # so the watcher sees that the set is gone


def test_a_server_that_lands_while_the_cluster_is_stopped_from_elsewhere_is_deleted():
    kept = Kept(1)
    kept.become("id-0.0", "ERROR")
    kept.poll()
    create = kept.create

    def stopped_meanwhile(servers, created):
        create(servers, created)
        del kept.store.there[UID]

    kept.reconciler._create = stopped_meanwhile
    kept.poll()
    assert kept.cloud.there == {}


def test_stragglers_are_deleted_when_their_time_is_over(caplog):
    kept = Kept(2, quorum=1)
    kept.poll({Place(SET, 0): 1})
    kept.reconciler.give_up_stragglers("had not all its engines after 9 s (start_timeout)")
    assert sorted(kept.cloud.there) == ["id-0.0"]
    assert texts(caplog)[-1].endswith("(active) had not all its engines after 9 s (start_timeout).")
