"""`Roster`: what it says of servers, from what Nova, agents and the controller say; its clock is a number."""

import pytest

from ipp_griffin.model.names import Place, server_tags
from ipp_griffin.model.reports import Report
from ipp_griffin.model.server import Server
from ipp_griffin.model.slots import Deadlines, Roster, engines_by_place, next_incarnation, tell

from ..fakes.cloud import SET, UID, plan_of

LIMITS = Deadlines(build=10, agent=20, connection=30, engines=40)


def roster(n=1, *, quorum=None, replacements=1, created=True):
    made = Roster.of_plan(
        plan_of(n).servers, 0, deadlines=LIMITS, quorum=n if quorum is None else quorum, replacements=replacements
    )
    for slot in made.slots if created else ():
        slot.created(f"id-{slot.place.slot}", 0)
    return made


def name(slot, incarnation=0):
    return f"griffin-{UID}-{SET}-{slot}" + (f"-{incarnation}" if incarnation else "")


def servers(*states, fault=""):
    """Servers of slots 0, 1, ... by name; "": not listed."""
    return {
        name(slot): Server(f"id-{slot}", name(slot), status, fault=fault, tags=server_tags(UID, Place(SET, slot)))
        for slot, status in enumerate(states)
        if status
    }


def said(phase, slot=0, incarnation=0):
    place = Place(SET, slot, incarnation)
    return {place: Report(place, 0, phase)}


def causes(failures):
    return [(failure.phase, failure.cause) for failure in failures]


def test_a_server_goes_through_its_phases_and_settles_when_the_controller_lists_its_engines():
    one = roster()
    seen = []
    for found, reports, registered in (
        ({}, {}, {}),
        (servers("BUILD"), {}, {}),
        (servers("ACTIVE"), {}, {}),
        (servers("ACTIVE"), said("agent"), {}),
        (servers("ACTIVE"), said("connected"), {}),
        (servers("ACTIVE"), said("engines"), {}),
        (servers("ACTIVE"), said("engines"), {Place(SET, 0): 1}),
    ):
        assert one.observe(found, reports, registered, 1) == []
        seen.append(one.slots[0].phase)
    assert seen == ["requested", "building", "active", "agent", "connected", "engines", "engines"]
    assert (one.unsettled, one.registered) == ([], 1)


@pytest.mark.parametrize(
    ("found", "reports", "within", "cause"),
    [
        ({}, {}, 10, ("requested", "was not built (it is in no listing) within 10 s (build_timeout)")),
        (servers("BUILD"), {}, 10, ("building", "was not built (it is in BUILD) within 10 s (build_timeout)")),
        (
            servers("ACTIVE"),
            {},
            20,
            ("active", "never reported (can it reach the object store?) within 20 s (agent_timeout)"),
        ),
        (
            servers("ACTIVE"),
            said("agent"),
            30,
            (
                "agent",
                "had not installed what it needs, or not reached the controller within 30 s (connection_timeout)",
            ),
        ),
        (
            servers("ACTIVE"),
            said("connected"),
            40,
            ("connected", "had only 0 of 1 engines connected within 40 s (engines_timeout)"),
        ),
    ],
)
def test_each_phase_has_a_deadline_that_counts_from_its_beginning(found, reports, within, cause):
    one = roster(created=bool(found))
    assert one.observe(found, reports, {}, 5) == []
    began = 5 if found else 0
    assert one.observe(found, reports, {}, began + within) == []
    assert causes(one.observe(found, reports, {}, began + within + 1)) == [cause]


def test_time_in_which_the_cloud_could_not_be_asked_does_not_count():
    one = roster()
    one.observe(servers("BUILD"), {}, {}, 0)
    one.excuse(600)
    assert one.observe(servers("BUILD"), {}, {}, 609) == []
    assert len(one.observe(servers("BUILD"), {}, {}, 611)) == 1


def test_error_counts_at_once_and_is_told_once():
    one = roster()
    found = servers("ERROR", fault="No valid host was found.")
    assert causes(one.observe(found, {}, {}, 1)) == [("building", "went to ERROR: No valid host was found.")]
    assert one.observe(found, {}, {}, 2) == []


@pytest.mark.parametrize(
    ("state", "cause"), [("SHUTOFF", "went to SHUTOFF: it is off"), ("", "is gone: somebody deleted it")]
)
def test_off_or_gone_is_believed_at_the_second_poll(state, cause):
    """A listing may be late, and a server that reboots may be seen off."""
    one = roster()
    one.observe(servers("ACTIVE"), {}, {}, 0)
    assert one.observe(servers(state), {}, {}, 1) == []
    assert one.alive == 0
    assert causes(one.observe(servers(state), {}, {}, 2)) == [("active", cause)]


def test_one_that_was_back_in_between_is_told_again():
    one = roster()
    told = [
        len(one.observe(servers(s), {}, {Place(SET, 0): 1}, 1))
        for s in ("SHUTOFF", "SHUTOFF", "ACTIVE", "SHUTOFF", "SHUTOFF")
    ]
    assert told == [0, 1, 0, 0, 1]


def test_what_an_agent_says_ends_nothing_while_the_controller_lists_its_engines():
    one = roster()
    assert one.observe(servers("ACTIVE"), said("failed"), {Place(SET, 0): 1}, 1) == []
    other = roster()
    (failure,) = other.observe(servers("ACTIVE"), said("failed"), {}, 1)
    assert (failure.phase, failure.cause, failure.report) == ("agent", "", said("failed")[Place(SET, 0)])


def test_a_server_that_has_its_engines_is_under_no_deadline():
    one = roster()
    one.observe(servers("ACTIVE"), {}, {Place(SET, 0): 1}, 1)
    assert one.observe(servers("ACTIVE"), said("gone"), {}, 9999) == []


def test_a_replacement_takes_the_slot_under_a_new_name_once_the_failed_one_is_gone():
    one = roster()
    (failure,) = one.observe(servers("ERROR"), {}, {}, 1)
    successor = one.replace(failure, 2)
    assert (successor.name, successor.place) == (name(0, 1), Place(SET, 0, 1))
    assert successor.tags == server_tags(UID, Place(SET, 0, 1))
    assert successor.metadata == failure.planned.metadata
    assert one.vacant(["id-0"]) == []
    assert [slot.planned for slot in one.vacant([])] == [successor]
    one.slots[0].created("id-new", 3)
    assert one.vacant([]) == []


def test_replacements_are_so_many_in_an_hour():
    one = roster(2)
    first, second = one.observe(servers("ERROR", "ERROR"), {}, {}, 1)
    assert one.replace(first, 1) is not None
    assert one.replace(second, 1) is None
    assert one.replace(second, 3602) is not None


def test_what_an_agent_gave_up_for_is_tried_again_only_where_others_got_over_it():
    one = roster(2, replacements=9)
    failure = one.observe(servers("ACTIVE", "ACTIVE"), said("failed", 1), {}, 1)[0]
    assert one.replace(failure, 1) is None
    one.observe(servers("ACTIVE", "ACTIVE"), {}, {Place(SET, 0): 1}, 2)
    assert one.replace(failure, 2) is not None


def test_what_is_still_possible_leaves_out_slots_that_were_given_up():
    one = roster(3, quorum=2)
    failures = one.observe(servers("ERROR", "ACTIVE", "ACTIVE"), {}, {Place(SET, 1): 1}, 1)
    one.give_up(failures[0])
    assert (one.engines, one.possible, one.registered) == (3, 2, 1)
    assert one.phases() == {"active": 1, "engines": 1, "failed": 1}
    assert [slot.place.slot for slot in one.unsettled] == [2]


def test_engines_of_a_server_that_was_replaced_do_not_count():
    one = roster()
    (failure,) = one.observe(servers("ERROR"), {}, {}, 1)
    one.replace(failure, 1)
    assert one.count({Place(SET, 0): 1}, 2) == 0
    assert one.count({Place(SET, 0, 1): 1}, 2) == 1
    assert one.unsettled == []


def test_servers_that_somebody_else_made_are_taken_in_as_they_are():
    one = Roster([], LIMITS, quorum=0)
    found = servers("ACTIVE", "SHUTOFF")
    one.adopt(found.values(), 0)
    one.observe(found, {}, {}, 0)
    assert (one.unsettled, one.alive) == ([], 1)
    replaced = Server("id-x", name(1, 1), "ACTIVE", tags=server_tags(UID, Place(SET, 1, 1)))
    one.adopt([replaced], 1)
    assert [slot.place for slot in one.slots] == [Place(SET, 0), Place(SET, 1), Place(SET, 1, 1)]


def test_engines_are_counted_by_server_whatever_their_generation():
    uuids = [f"{SET}-0-0-0-0", f"{SET}-0-0-0-1", f"{SET}-0-0-1-0", f"{SET}-3-1-0-0", "stranger", "a-b-c-d-e"]
    assert engines_by_place(uuids) == {Place(SET, 0): 2, Place(SET, 3, 1): 1}


def test_servers_with_one_cause_are_named_in_one_sentence():
    one = roster(25, replacements=0)
    found = servers(*["ERROR"] * 25, fault="No valid host was found.")
    text = tell(one.observe(found, {}, {}, 1))
    assert text.startswith(f"Each of the servers {name(0)}, {name(1)}, ")
    assert text.endswith(f"{name(19)} and 5 more (building) went to ERROR: No valid host was found.")


def test_an_incarnation_follows_from_the_one_before():
    first = plan_of(1).servers[0]
    third, place = next_incarnation(next_incarnation(first)), Place(SET, 0, 2)
    assert (third.name, third.place, third.tags) == (name(0, 2), place, server_tags(UID, place))
