"""The agent from its first report to its end."""

import email.message
import io
import json
import signal
import threading
import types
import urllib.request

import pytest

from ipp_griffin.agent import agent
from ipp_griffin.agent.errors import ControllerGone, Failure
from ipp_griffin.agent.system import write

from .world import PRIVATE_OBJECT, Net, http_error


def test_a_kept_object_is_used_without_fetching(world):
    w = world(Net(http_error(404)))
    write(w.agent.state.path("private_object.json"), json.dumps({**PRIVATE_OBJECT, "restarts": 9}).encode())
    w.agent.load()
    assert w.agent.private_object["restarts"] == 9 and w.net.requests == []


def test_the_first_report_is_written_once_the_store_is_back_before_packages_are_installed(world, monkeypatch):
    w = world(Net(*[http_error(503)] * 5, json.dumps(PRIVATE_OBJECT).encode(), b""))
    written = []

    def prepare(*args):
        written.extend(r.full_url for r in w.net.requests if not isinstance(r, str))
        w.agent.children.on_signal(signal.SIGTERM, None)

    monkeypatch.setattr(w.agent.runtime, "prepare", prepare)
    w.agent.main()
    assert ["0000-agent" in url for url in written] == [True] * 4


def test_the_first_report_and_the_connection_object_wait_for_the_store_at_the_same_time(world, monkeypatch):
    """And nothing is started before both are through: a child that is forked beside a thread may hang."""
    both = threading.Barrier(2, timeout=60)  # neither is answered before both have been asked

    def store(request, timeout):
        both.wait()
        return io.BytesIO(b"" if isinstance(request, urllib.request.Request) else json.dumps(PRIVATE_OBJECT).encode())

    w = world(store, thread=threading.Thread)
    threads = []
    monkeypatch.setattr(w.agent.runtime, "prepare", lambda *args: threads.append(threading.active_count()))
    monkeypatch.setattr(w.agent, "work", lambda: w.agent.children.on_signal(signal.SIGTERM, None))
    before = threading.active_count()
    assert w.agent.main() == 0
    assert threads == [before] and w.agent.reports.unsent is None


def test_a_connection_object_that_never_comes_is_reported_after_the_first_report(world):
    w = world(Net(http_error(404)), thread=threading.Thread)
    w.agent.main()
    names = [r.full_url.partition("?")[0].rpartition("/")[2] for r in w.net.requests if not isinstance(r, str)]
    assert names == ["0000-agent"] * 3 + ["0001-failed"] * 3


def test_a_failure_is_reported_and_is_the_exit_status_of_a_plain_process_only(world):
    """As a unit the status is 0: systemd would start it again and again."""
    for root, status in ((False, 1), (True, 0)):
        w = world(root=root)
        w.agent.load = lambda: (_ for _ in ()).throw(Failure("why"))
        assert w.agent.main() == status
        assert w.net.reports[-1][1]["message"] == "why"


@pytest.mark.parametrize("known", [True, False])
def test_after_a_failure_a_server_that_nobody_deletes_is_switched_off(world, tmp_path, monkeypatch, known):
    """The process that started it was killed, and the controller with it: `ipp-griffin reap` finds what is off."""
    (tmp_path / "instance-id").write_bytes(b"i-1")
    monkeypatch.setattr(agent, "INSTANCE_ID", str(tmp_path / "instance-id"))
    w = world(root=True)
    write(w.agent.state.path("instance-id"), b"i-1")
    w.agent.private_object = {"timeouts": {"controller_gone": 7}} if known else {}
    w.agent.load = lambda: (_ for _ in ()).throw(Failure("no controller"))
    assert w.agent.main() == 0
    assert w.clock.slept == [7 if known else 300]
    assert w.commands == [("", "systemctl poweroff")]


@pytest.mark.parametrize(
    ("made_for", "runs_on", "off"), [(b"i-1\n", b"i-1\n", True), (b"i-1\n", b"i-2\n", False), (b"", b"", False)]
)
def test_only_the_server_that_it_was_made_for_is_switched_off(world, tmp_path, monkeypatch, made_for, runs_on, off):
    (tmp_path / "instance-id").write_bytes(runs_on)
    monkeypatch.setattr(agent, "INSTANCE_ID", str(tmp_path / "instance-id"))
    w = world(root=True)
    write(w.agent.state.path("instance-id"), made_for)
    w.agent.power_off()
    assert w.commands == ([("", "systemctl poweroff")] if off else [])


@pytest.mark.parametrize(
    ("error", "status", "phase"), [(ControllerGone("it is gone"), 0, "gone"), (Failure("why"), 1, "failed")]
)
def test_a_plain_process_never_switches_anything_off(world, error, status, phase):
    w = world()
    w.agent.load = lambda: (_ for _ in ()).throw(error)
    assert w.agent.main() == status
    assert w.net.names == ["0000-agent", f"0001-{phase}"] and w.commands == []


def test_poweroff_is_tried_in_several_ways(world, tmp_path, monkeypatch):
    (tmp_path / "instance-id").write_bytes(b"i-1")
    monkeypatch.setattr(agent, "INSTANCE_ID", str(tmp_path / "instance-id"))
    w = world(root=True, run=lambda argv: (127, "not there"))
    write(w.agent.state.path("instance-id"), b"i-1")
    w.agent.power_off()
    assert [c for _, c in w.commands] == ["systemctl poweroff", "poweroff", "shutdown -P now"]


@pytest.mark.parametrize(
    ("date", "after", "over"),
    [
        ("Thu, 01 Jan 1970 00:16:00 GMT", 39, False),  # the store's 960 s
        ("Thu, 01 Jan 1970 00:16:00 GMT", 40, True),
        (None, 0, True),  # nobody told the time: by our own clock it is over since 1970
    ],
)
def test_a_server_lives_until_its_expiry_by_the_stores_clock(world, date, after, over):
    """Its own clock may be off by months at boot."""
    w = world(expires=1000)
    headers = email.message.Message()
    if date:
        headers["Date"] = date
    w.agent.store.note_time(types.SimpleNamespace(headers=headers))
    w.clock.now += after
    assert w.agent.expired() is over


def test_a_server_without_an_expiry_lives_on(world):
    assert not world(expires=0).agent.expired()
    assert not world().agent.expired()


def test_at_its_expiry_the_engines_are_ended_and_the_server_switched_off(world, monkeypatch):
    w = world(root=True, expires=1)
    done = []
    monkeypatch.setattr(w.agent, "load", lambda: None)
    monkeypatch.setattr(w.agent.runtime, "prepare", lambda *args: None)
    monkeypatch.setattr(w.agent, "reach_controller", lambda: None)
    monkeypatch.setattr(w.agent, "write_profile", lambda: "profile")
    monkeypatch.setattr(w.agent, "start_engines", lambda profile: None)
    monkeypatch.setattr(w.agent, "end", lambda: done.append("engines ended"))
    monkeypatch.setattr(w.agent, "power_off", lambda: done.append("off"))
    assert w.agent.main() == 0
    assert done == ["engines ended", "off"]
    name, report = w.net.reports[-1]
    assert (name.partition("-")[2], report["message"]) == ("gone", "the life of this server is over (max_lifetime)")
