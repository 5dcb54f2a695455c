"""`prefetch`: an answer that was asked for early is used, as long as it is good; else the question is asked again."""

import threading

import pytest

from ipp_griffin.cloud.prefetch import FRESH, Prefetch


class Question:
    """Counts how often it is asked; answers with that number once it is let."""

    def __init__(self):
        self.asked, self.free, self.errors = 0, threading.Event(), []
        self.free.set()

    def __call__(self):
        self.asked += 1
        number = self.asked
        assert self.free.wait(60)
        if self.errors:
            raise self.errors.pop()
        return number


@pytest.fixture
def now():
    return [100.0]


@pytest.fixture
def ahead(now):
    return Prefetch(clock=lambda: now[0])


def test_what_was_asked_ahead_is_not_asked_again_and_is_waited_for(ahead):
    early, late = Question(), Question()
    early.free.clear()
    ahead.ask({"early": early})
    threading.Timer(0.05, early.free.set).start()
    assert ahead.answers({"early": early, "late": late}) == {"early": 1, "late": 1}
    assert ahead.answers({"early": early})["early"] == 1
    assert (early.asked, late.asked) == (1, 1)


def test_an_answer_that_is_good_once_is_used_once(ahead):
    quota, images = Question(), Question()
    ahead.ask({"quota": quota, "images": images})
    asked = {"quota": quota, "images": images}
    assert ahead.answers({"images": images}, once=["quota"]) == {"images": 1}
    assert ahead.answers(asked, once=["quota"]) == {"quota": 1, "images": 1}
    assert ahead.answers(asked, once=["quota"]) == {"quota": 2, "images": 1}


def test_an_old_answer_is_none(ahead, now):
    images = Question()
    ahead.ask({"images": images})
    assert ahead.answers({"images": images}) == {"images": 1}
    now[0] += FRESH + 1
    assert ahead.answers({"images": images}) == {"images": 2}


def test_what_failed_is_asked_again_and_its_error_is_that_of_whoever_needs_it(ahead):
    once, always = Question(), Question()
    once.errors, always.errors = [OSError("down")], [OSError("still down"), OSError("down")]
    ahead.ask({"once": once, "always": always})
    assert ahead.answers({"once": once}) == {"once": 2}
    with pytest.raises(OSError, match="still down"):
        ahead.answers({"always": always})
