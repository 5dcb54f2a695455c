"""`failures`, `retry` and `text`: what all calls to a cloud have in common."""

from __future__ import annotations

from ipp_griffin.common.retry import LONGEST_PAUSE, SHORT_PAUSE, Throttle

from ..fakes import Clock


def test_nobody_rests_where_nobody_asked() -> None:
    clock = Clock()
    Throttle(clock, clock.sleep).take()
    assert clock.slept == []


def test_a_pause_is_taken_once() -> None:
    clock = Clock()
    rest = Throttle(clock, clock.sleep)
    rest.ask(7)
    rest.take()
    rest.take()
    assert clock.slept == [7]


def test_one_of_unknown_length_is_short_and_one_without_end_has_one() -> None:
    for seconds, taken in ((None, SHORT_PAUSE), (1e9, LONGEST_PAUSE)):
        clock = Clock()
        rest = Throttle(clock, clock.sleep)
        rest.ask(seconds)
        rest.take()
        assert clock.slept == [taken]


def test_a_shorter_one_does_not_end_a_longer_one() -> None:
    clock = Clock()
    rest = Throttle(clock, clock.sleep)
    rest.ask(30)
    rest.ask(None)
    rest.take()
    assert clock.slept == [30]


def test_what_is_asked_for_while_one_sleeps_is_taken_too() -> None:
    clock = Clock()
    asked_meanwhile = [20]

    def sleep(seconds: float) -> None:
        if asked_meanwhile:
            rest.ask(asked_meanwhile.pop())
        clock.sleep(seconds)

    rest = Throttle(clock, sleep)
    rest.ask(7)
    rest.take()
    assert clock.slept == [7, 13]


def test_a_clock_that_was_set_back_makes_nobody_wait_for_long() -> None:
    clock = Clock()
    rest = Throttle(clock, clock.sleep)
    rest.ask(7)
    clock.now -= 3600
    rest.take()
    assert clock.slept == [LONGEST_PAUSE]
