"""`Hub`, over an `ipyparallel.Client` that is made up; no test sleeps."""

import ipyparallel
import pytest
from ipyparallel.error import EngineError, TimeoutError

from ipp_griffin.common.errors import GriffinError
from ipp_griffin.controller.hub import Hub

ENGINES = {0: "aaaa1111-0-0-0-0", 1: "aaaa1111-1-0-0-0", 2: "bbbb2222-0-0-0-0", 3: "some-engine-of-nobody"}


class Client:
    """As much of a Client as `Hub` uses. ``notices``: what the hub will have listed after each further look."""

    made: list["Client"]
    listed_now: dict[int, str]

    def __init__(self, info, timeout):
        self.info, self.timeout = info, timeout
        self._listed, self.notices, self.calls = dict(Client.listed_now), [], []
        self.refuse = None
        Client.made.append(self)

    @property
    def _engines(self):
        if self.notices:
            self._listed = self.notices.pop(0)
        return self._listed

    def send_signal(self, sig, targets, block):
        self.calls.append(("signal", sig, targets, block))

    def shutdown(self, targets, block):
        self.calls.append(("shutdown", targets, block))
        if self.refuse is not None:
            raise self.refuse

    def close(self):
        self.calls.append(("close",))


@pytest.fixture
def hub(monkeypatch, clock):
    Client.made, Client.listed_now = [], ENGINES
    monkeypatch.setattr(ipyparallel, "Client", Client)
    return Hub({"registration": 20000}, timeout=7, clock=clock)


@pytest.fixture
def client(hub):
    return hub._client


def test_the_client_gets_the_connection_info_and_the_timeout(client):
    assert (client.info, client.timeout) == ({"registration": 20000}, 7)


def test_engines_are_those_of_the_set(hub):
    assert hub.engines("aaaa1111") == {"aaaa1111-0-0-0-0": 0, "aaaa1111-1-0-0-0": 1}
    assert hub.engines("aaaa111") == {}
    assert hub.engines() == {uuid: id for id, uuid in ENGINES.items()}


def test_engines_that_came_since_the_last_question_are_listed(hub, client):
    assert hub.engines("cccc3333") == {}
    client.notices = [{**ENGINES, 4: "cccc3333-0-0-0-0"}]
    assert hub.engines("cccc3333") == {"cccc3333-0-0-0-0": 4}


def test_what_changed_before_the_client_had_subscribed_is_seen_after_a_second(hub, client, clock):
    """ipyparallel never tells a Client; a new one begins with the whole list."""
    Client.listed_now = {0: "cccc3333-1-0-0-0"}
    clock.sleep(0.9)
    assert hub.engines("cccc3333") == {}
    clock.sleep(0.2)
    assert hub.engines("cccc3333") == {"cccc3333-1-0-0-0": 0}
    assert hub.engines("aaaa1111") == {}
    assert client.calls == [("close",)]


def test_the_list_is_fetched_again_more_and_more_seldom(hub, clock):
    """Each time is a line in the controller's log."""
    for _ in range(36000):
        clock.sleep(0.1)
        hub.engines()
    assert 60 < len(Client.made) < 70


def test_a_controller_that_is_too_busy_for_a_new_client_keeps_the_old_one(hub, client, clock, monkeypatch):
    def refuse(info, timeout):
        raise TimeoutError("no answer")

    monkeypatch.setattr(ipyparallel, "Client", refuse)
    clock.sleep(2)
    assert hub.engines() == {uuid: id for id, uuid in ENGINES.items()}
    assert client.calls == []


def test_engines_are_told_to_shut_down_before_the_list_is_fetched_again(hub, client, clock):
    clock.sleep(0.999)
    hub.shut_down("aaaa1111", timeout=0.5, sleep=clock.sleep)
    assert client.calls == [("shutdown", [0, 1], False)]


def test_a_signal_goes_to_the_engines_of_the_set_only(hub, client):
    assert hub.signal("aaaa1111", 2) == 2
    assert client.calls == [("signal", 2, [0, 1], True)]


def test_a_signal_to_a_set_without_engines_goes_nowhere(hub, client):
    """To ipyparallel an empty list of targets is an error."""
    assert hub.signal("cccc3333", 2) == 0
    assert client.calls == []


def test_shut_down_returns_when_the_last_engine_of_the_set_has_left(hub, client, clock):
    others = {2: ENGINES[2], 3: ENGINES[3]}
    client.notices = [ENGINES, ENGINES, {1: ENGINES[1], **others}, others]
    assert hub.shut_down("aaaa1111", timeout=5, sleep=clock.sleep) is True
    assert client.calls == [("shutdown", [0, 1], False)]
    assert clock.now == pytest.approx(100.1)


def test_shut_down_gives_up_at_its_deadline(hub, clock):
    assert hub.shut_down("aaaa1111", timeout=5, sleep=clock.sleep) is False
    assert 105 < clock.now < 105.2


def test_shut_down_of_nothing_asks_for_nothing(hub, client):
    assert hub.shut_down("cccc3333", timeout=5, sleep=pytest.fail) is True
    assert client.calls == []


def test_an_engine_that_just_left_by_itself_does_not_disturb_the_others(hub, client):
    client.refuse = EngineError("no such engine")
    client.notices = [ENGINES, {}]
    assert hub.shut_down("aaaa1111", timeout=5, sleep=pytest.fail) is True


def test_the_connection_is_closed_also_after_an_error(hub, client):
    with pytest.raises(ZeroDivisionError), hub as entered:
        assert entered is hub
        raise ZeroDivisionError
    assert client.calls == [("close",)]


def test_a_controller_that_does_not_answer_is_one_line(monkeypatch):
    def refuse(info, timeout):
        raise TimeoutError("no answer")

    monkeypatch.setattr(ipyparallel, "Client", refuse)
    with pytest.raises(GriffinError) as raised:
        Hub({"interface": "tcp://10.0.0.1", "registration": 20000})
    assert str(raised.value) == (
        "The controller at tcp://10.0.0.1:20000 does not answer (no answer). Is it still running?"
    )
