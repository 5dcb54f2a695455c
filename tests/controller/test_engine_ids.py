"""Which engine ids are on which server, out of connection files and what controllers say."""

import json
import os
import threading

import pytest

from ipp_griffin.common.errors import GriffinError
from ipp_griffin.controller import engine_ids as module
from ipp_griffin.controller.engine_ids import by_server, controllers, engine_ids
from ipp_griffin.model.connection import cluster_uid
from ipp_griffin.model.names import Place

from ..fakes import FakeHub

INFO = {"interface": "tcp://10.0.0.1", "registration": 20000, "location": "a", "key": "k", "curve_serverkey": "c"}
OTHER = {**INFO, "registration": 20100, "key": "l"}
UID, OTHER_UID = cluster_uid(INFO), cluster_uid(OTHER)


@pytest.fixture
def ipython(tmp_path):
    """An IPython folder with two clusters' files, and others that are none."""

    def write(profile, name, text):
        path = tmp_path / f"profile_{profile}" / "security" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write("griffin", "ipcontroller-client.json", json.dumps(INFO))
    write("lab", "ipcontroller-x-client.json", json.dumps(OTHER))
    write("lab", "ipcontroller-engine.json", json.dumps({**INFO, "registration": 1}))
    write("broken", "ipcontroller-client.json", "{")
    write("list", "ipcontroller-client.json", "[]")
    write("large", "ipcontroller-client.json", json.dumps({**INFO, "location": "x" * 100_000}))
    (tmp_path / "profile_pipe" / "security").mkdir(parents=True)
    os.mkfifo(tmp_path / "profile_pipe" / "security" / "ipcontroller-client.json")  # whose open would hang
    (tmp_path / "profile_folder" / "security" / "ipcontroller-client.json").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def hubs(monkeypatch):
    """The hub of each controller, by its registration port."""
    hubs = {20000: FakeHub(), 20100: FakeHub()}
    hubs[20000].listed, hubs[20100].listed = {"aaaa-1-0-0-3": 5}, {}
    monkeypatch.setattr(module, "Hub", lambda info, *, timeout: hubs[info["registration"]](info, timeout=timeout))
    return hubs


def test_the_controllers_of_this_machine_are_found_by_their_clusters_uid(ipython):
    assert controllers(ipython) == {UID: INFO, OTHER_UID: OTHER}


def test_without_an_ipython_folder_there_is_none(tmp_path):
    assert controllers(tmp_path / "none") == {}


def test_engines_are_grouped_by_their_server_and_those_of_others_left_out():
    engines = {
        "aaaa-0-0-1-0": 7,
        "aaaa-0-0-0-2": 3,
        "aaaa-0-1-0-0": 4,
        "bbbb-0-0-0-0": 1,
        "somebodys": 0,
        "a-b-c-d-e": 9,
    }
    assert by_server(engines) == {Place("aaaa", 0): [3, 7], Place("aaaa", 0, 1): [4], Place("bbbb", 0): [1]}


def test_only_the_controllers_of_these_clusters_are_asked(ipython, hubs):
    assert engine_ids([UID, "0" * 12], ipython, timeout=7) == {UID: {Place("aaaa", 1): [5]}}
    assert hubs[20000].asked("open", "timeout") == [7]
    assert hubs[20100].calls == []


@pytest.mark.parametrize("method", ["open", "engines"])
@pytest.mark.parametrize("error", [GriffinError("no answer"), ValueError("a bad key"), OSError("no route")])
def test_of_a_controller_that_does_not_answer_nothing_is_said(ipython, hubs, error, method):
    hubs[20000].fail[method] = [error]
    assert engine_ids([UID, OTHER_UID], ipython) == {OTHER_UID: {}}


def test_a_controller_that_hangs_holds_up_nobody_for_long(ipython, hubs, monkeypatch):
    """Time is over when the others have answered."""
    answered, woken = threading.Event(), threading.Event()
    hubs[20000].engines = lambda: woken.wait() and {}

    def within(seconds, ask_all):
        assert seconds == 14
        threading.Thread(target=ask_all, daemon=True).start()
        assert answered.wait(60)

    def in_parallel(uids, ask, parallel):
        assert (set(uids), parallel) == ({UID, OTHER_UID}, 2)
        ask(OTHER_UID)
        answered.set()
        ask(UID)

    monkeypatch.setattr(module, "within", within)
    monkeypatch.setattr(module, "in_parallel", in_parallel)
    assert engine_ids([UID, OTHER_UID], ipython, timeout=7) == {OTHER_UID: {}}
    woken.set()


def test_a_controller_behind_a_tunnel_is_not_asked(ipython, hubs):
    """ssh would want a password."""
    path = ipython / "profile_griffin" / "security" / "ipcontroller-client.json"
    path.write_text(json.dumps({**INFO, "ssh": "me@head"}))
    assert engine_ids([UID], ipython) == {}
    assert hubs[20000].calls == []
