"""`PollInterval`: how long the pauses between two looks are, by what the servers have done so far."""

import pytest

from ipp_griffin.model.poll_interval import LONGEST, MARGIN, PollInterval

from .test_slots import roster as roster_of
from .test_slots import servers


@pytest.fixture
def roster():
    """Three servers, asked for at 0, 1 and 2 s."""
    made = roster_of(3)
    for number, slot in enumerate(made.slots):
        slot.created(f"id-{number}", float(number))
        slot.since, slot.phase = 2.5, "building"  # seen at the first look, which came after the last creation
    return made


def test_nothing_happens_for_long_and_polls_become_rare(roster):
    polling = PollInterval(1.0, 0.0)
    assert [round(polling.pause(roster, now, now), 3) for now in (2, 5, 23, 42, 82, 600)] == [1, 1, 1.05, 2, 4, LONGEST]


def test_a_change_makes_them_frequent_again(roster):
    polling = PollInterval(1.0, 0.0)
    assert polling.pause(roster, 40.0, 40.0) == 1  # the first look is one
    assert polling.pause(roster, 120.0, 120.0) == 4
    roster.slots[0].phase = "active"
    assert polling.pause(roster, 124.0, 124.0) == 1


def test_the_last_server_is_looked_for_when_it_should_be_there(roster):
    """The first took 4.6 s at most: the third, asked for at 2 s, is expected at 6.6 s."""
    polling = PollInterval(1.0, 0.0)
    polling.pause(roster, 3.6, 3.6)
    roster.slots[0].phase = "active"
    polling.pause(roster, 4.6, 4.6)
    roster.slots[1].phase = "active"
    roster.slots[0].phase = "agent"
    assert polling.pause(roster, 6.4, 6.4) == pytest.approx(2 + 4.6 + MARGIN - 6.4)


def test_a_poll_that_began_too_early_is_followed_by_another_at_once(roster):
    """It was on its way when the third became ACTIVE."""
    polling = PollInterval(1.0, 0.0)
    polling.pause(roster, 3.6, 3.6)
    roster.slots[0].phase = roster.slots[1].phase = "active"
    assert polling.pause(roster, 3.9, 4.0) == pytest.approx(2 + 3 + MARGIN - 4.0)  # the second took 3 s at most
    assert polling.pause(roster, 5.0, 5.2) == 0
    assert polling.pause(roster, 5.2, 5.4) == pytest.approx(
        5.4 - (2 + 3 + MARGIN)
    )  # late, and looked for the later the rarer
    assert polling.pause(roster, 5.8, 5.9) == pytest.approx(5.9 - (2 + 3 + MARGIN))
    assert polling.pause(roster, 6.8, 6.9) == 1


def test_a_poll_waits_for_the_expected_time_if_that_comes_soon_after_its_own(roster):
    polling = PollInterval(1.0, 0.0)
    polling.pause(roster, 3.6, 3.6)
    roster.slots[0].phase = roster.slots[1].phase = "active"
    assert polling.pause(roster, 4.0, 4.0) == pytest.approx(2 + 3 + MARGIN - 4.0)


def test_the_expected_time_is_counted_from_a_servers_creation_and_not_from_the_first_poll():
    """As a start does it: all are created, at 0, 1 and 2 s, before the first look; each takes 5 s."""
    polling, roster = PollInterval(1.0, 0.0), roster_of(3, created=False)
    for number, slot in enumerate(roster.slots):
        slot.created(f"id-{number}", float(number))
    pauses = []
    for now, states in (
        (2.1, ["BUILD"] * 3),
        (5.2, ["ACTIVE", "BUILD", "BUILD"]),
        (6.2, ["ACTIVE", "ACTIVE", "BUILD"]),
    ):
        assert roster.observe(servers(*states), {}, {}, now) == []
        pauses.append(polling.pause(roster, now - 0.1, now))
    assert pauses == [1.0, 1.0, pytest.approx(2 + 5.2 + MARGIN - 6.2)]


def test_one_that_is_late_is_looked_for_as_always(roster):
    polling = PollInterval(1.0, 0.0)
    polling.pause(roster, 4.0, 4.0)
    roster.slots[0].phase = roster.slots[1].phase = "active"
    polling.pause(roster, 5.0, 5.0)
    assert polling.pause(roster, 55.0, 55.0) == pytest.approx(2.5)


def test_a_server_that_takes_the_place_of_another_is_waited_for_again(roster):
    polling = PollInterval(1.0, 0.0)
    polling.pause(roster, 3.0, 3.0)
    del roster.slots[2]
    roster.slots[0].phase = "active"
    assert polling.pause(roster, 4.0, 4.0) == pytest.approx(1 + 4 + MARGIN - 4.0)  # the first took 4 s at most
    assert polling.pause(roster, 4.5, 4.5) == pytest.approx(1 + 4 + MARGIN - 4.5)
