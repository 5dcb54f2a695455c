"""What is known of a cluster's servers, and which of them a name means."""

import json

import pytest

from ipp_griffin.common.errors import SettingError
from ipp_griffin.model.history import Former, Record, parse_history, records, select
from ipp_griffin.model.names import Place, server_tags
from ipp_griffin.model.reports import Report
from ipp_griffin.model.server import Server

UID, SET = "0123456789ab", "a1b2c3d4"


def record(slot=0, incarnation=0, engine_set=SET, **known) -> Record:
    return Record(f"griffin-{engine_set}-{slot}", Place(engine_set, slot, incarnation), **known)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"7", b'{"slot": 0}', b"[7, null, [], {}]", b'[{"slot": true, "incarnation": 0}]', b"[" * 100_000]
    + [
        b'[{"slot": "0", "incarnation": 0}]',
        b'[{"slot": -1, "incarnation": 0}]',
        b'[{"slot": 0, "incarnation": 1e400}]',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_a_broken_history_reads_as_nothing(body):
    assert parse_history(SET, body) == {}


def test_what_a_history_says_is_made_harmless():
    entry = {
        "slot": 2,
        "incarnation": 1,
        "requested": 7,
        "created": "c",
        "ended": "e\x1b[2J",
        "why": "no\nway",
        "more": [],
    }
    found = parse_history(SET, json.dumps([{}, entry]).encode())
    assert found == {Place(SET, 2, 1): Former("", "c", "e\\x1b[2J", "no way")}


def test_two_servers_of_one_place_are_two_records_and_the_first_has_the_reports():
    tags, report = server_tags(UID, Place(SET, 0)), Report(Place(SET, 0), 0, "agent")
    first, second = (Server(id, f"s\n{id}", "ACTIVE", tags=tags) for id in "ab")
    assert records(UID, [first, second], [report], {}) == [
        Record("s a", Place(SET, 0), first, (report,)),
        Record("s b", Place(SET, 0), second),
    ]


def test_a_server_that_only_its_launcher_remembers_is_a_record():
    place, former = Place(SET, 3, 1), Former(ended="2026-01-01T00:00:00Z")
    assert records(UID, [], [], {place: former}) == [Record(f"griffin-{UID}-{SET}-3-1", place, former=former)]


KNOWN = [record(0), record(0, 1), record(10), record(0, engine_set="bbbb")]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (f"griffin-{SET}-10", [2]),
        ("0", [0, 1, 3]),
        ("10", [2]),
        (f"{SET}/0", [0, 1]),
        ("0.1", [1]),
        ("0.0", [0, 3]),
        (f"{SET}/0.0", [0]),
        ("bbbb/0", [3]),
    ],
)
def test_a_server_is_named_by_its_name_its_slot_or_its_set_and_slot(name, found):
    assert select(KNOWN, name) == [KNOWN[n] for n in found]


@pytest.mark.parametrize("name", ["1", "bbbb/10", "0.2", "griffin", "", "-1", "٠", f"{SET}/"])
def test_a_name_of_no_server_says_what_there_is(name):
    with pytest.raises(SettingError, match=rf"Its servers: {SET}/0, {SET}/0\.1, {SET}/10, bbbb/0\.$"):
        select(KNOWN, name)


def test_of_many_servers_an_error_names_a_few():
    with pytest.raises(SettingError, match=r"/7 and 92 more\.$"):
        select([record(slot) for slot in range(100)], "x")
