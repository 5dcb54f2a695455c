"""What servers said, in one order, whatever they wrote."""

import math
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from ipp_griffin.common.times import iso
from ipp_griffin.model.history import Former, Record
from ipp_griffin.model.logs import LINE_LIMIT, Line, ServerLog, clock_difference, merge
from ipp_griffin.model.names import Place
from ipp_griffin.model.reports import Report
from ipp_griffin.model.server import Server

SET = "a1b2c3d4"
ZERO = datetime(2026, 11, 25, 5, 17, 0, tzinfo=timezone.utc)
RECORD = Record(
    "griffin-u-0", Place(SET, 0), Server("i", "griffin-u-0", "ACTIVE", launched="2026-11-25T05:16:50.000000")
)


def at(seconds: float) -> datetime:
    return ZERO + timedelta(seconds=seconds)


def clock(seconds: float) -> str:
    """As an engine writes it."""
    return iso(at(seconds)).replace("T", " ").rstrip("Z")


def said(seconds, message, phase="engines", number=0):
    report = Report(Place(SET, 0), number, phase, iso(at(seconds)))
    return report, {"time": at(seconds).timestamp(), "message": message, "engines": []}


def output(text, seconds=60.0, **more):
    return {"time": at(seconds).timestamp(), "engines": [{"index": 1, "output": text}], **more}


def lines(*logs):
    return [((line.when - ZERO).total_seconds() if line.when else None, line.source, line.text) for line in merge(logs)]


def test_reports_engines_and_console_are_one_sequence():
    log = ServerLog(
        RECORD,
        [said(3, "the agent runs on s", "agent"), said(9, "2 of 2 engines run")],
        output(f"{clock(5)} [IPEngine] Registering\n{clock(8)} [IPEngine] Completed\nTraceback:\n  no\n"),
        f"[ 0.0] Linux\nipp-griffin: {iso(at(4))} engines use /usr/bin/python3\nlogin:\n",
    )
    assert lines(log) == [
        (3, f"{SET}/0/agent", "agent: the agent runs on s"),
        (4, f"{SET}/0/console", "[ 0.0] Linux"),
        (4, f"{SET}/0/console", "engines use /usr/bin/python3"),
        (4, f"{SET}/0/console", "login:"),
        (5, f"{SET}/0/engine-1", "[IPEngine] Registering"),
        (8, f"{SET}/0/engine-1", "[IPEngine] Completed"),
        (8, f"{SET}/0/engine-1", "Traceback:"),
        (8, f"{SET}/0/engine-1", "  no"),
        (9, f"{SET}/0/agent", "engines: 2 of 2 engines run"),
    ]


def test_servers_are_merged_and_each_line_says_whose_it_is():
    other = replace(RECORD, place=Place(SET, 1, 2))
    found = lines(ServerLog(RECORD, [said(2, "b")]), ServerLog(other, [said(1, "a"), said(3, "c")]))
    assert [(source, text) for _, source, text in found] == [
        (f"{SET}/1.2/agent", "engines: a"),
        (f"{SET}/0/agent", "engines: b"),
        (f"{SET}/1.2/agent", "engines: c"),
    ]


def test_a_line_begins_with_its_utc_time():
    assert str(Line(at(1.5), "s/0/agent", "x")) == "2026-11-25T05:17:01.500Z s/0/agent  x"
    assert str(Line(None, "s/0/agent", "x")).split() == ["-", "s/0/agent", "x"]


def test_what_the_console_repeats_of_reports_is_said_once():
    console = "".join(
        f"[    5.1] python3[77]: ipp-griffin: {iso(at(n))} {text}\n"
        for n, text in enumerate(["engines: all\trun", "engines: another", "switching off"])
    )
    log = ServerLog(RECORD, [said(0, "all run")], console=console)
    assert [text for _, _, text in lines(log)] == ["engines: all run", "engines: another", "switching off"]


def test_lines_of_engines_are_by_the_time_zone_of_their_server():
    log = ServerLog(RECORD, output=output(f"{clock(7200)} [IPEngine] x", utc_offset=7200))
    assert lines(log) == [(0, f"{SET}/0/engine-1", "[IPEngine] x")]


@pytest.mark.parametrize("offset", ["1", None, math.nan, math.inf, 10**400, 1e9, [], -99999])
def test_a_time_zone_that_is_none_counts_as_utc(offset):
    assert lines(ServerLog(RECORD, output=output(f"{clock(1)} x", utc_offset=offset)))[0][0] == 1


def test_output_without_any_time_is_put_where_it_was_reported():
    assert lines(ServerLog(RECORD, output=output("hello\nworld", 30))) == [
        (30, f"{SET}/0/engine-1", "hello"),
        (30, f"{SET}/0/engine-1", "world"),
    ]


def test_a_console_without_any_time_is_put_where_the_server_was_launched():
    assert lines(ServerLog(RECORD, console="Linux\n"))[0][0] == -10
    gone = replace(RECORD, server=None)
    assert lines(ServerLog(gone, console="Linux\n"))[0][0] is None


def test_lines_of_one_voice_stay_in_their_order_whatever_its_clock_does():
    log = ServerLog(RECORD, [said(5, "between")], output(f"{clock(9)} one\n{clock(2)} two\n{clock(10)} three"))
    assert [text for _, _, text in lines(log)] == ["engines: between", "one", "two", "three"]


@pytest.mark.parametrize(
    "stamp", ["2026-13-45 05:17:48.123", "0001-01-01 00:00:00", "2026-11-25 99:00:00", "2026-11-25"]
)
def test_what_only_looks_like_a_time_is_text(stamp):
    assert lines(ServerLog(RECORD, output=output(f"{stamp} x", 30, utc_offset=50400))) == [
        (30, f"{SET}/0/engine-1", f"{stamp} x")
    ]


def test_nothing_that_a_server_writes_reaches_a_terminal_as_it_is():
    evil = "\x1b]0;title\x07\u202egnp\r\x00\x9b2J"
    log = ServerLog(
        RECORD,
        [],
        {"time": 1, "engines": [{"index": evil, "output": evil}]},
        f"\x1b[0;32mgreen\x1b[0m{evil}\nipp-griffin: {iso(ZERO)} {evil}",
    )
    found = [str(line) for line in merge([log])]
    assert len(found) == 3
    assert all(line.isprintable() for line in found)
    assert "green\\x1b]0;title" in found[1]


def test_no_secret_of_a_console_is_shown():
    log = ServerLog(RECORD, console="GET /v1/x?temp_url_sig=0123456789abcdef&temp_url_expires=1\n")
    assert "0123456789abcdef" not in lines(log)[0][2]


def test_no_line_is_longer_than_the_limit():
    found = lines(ServerLog(RECORD, output=output("\t" * 100_000 + "\n" + "\x1b" * 100_000)))
    assert [len(text) for _, _, text in found] == [LINE_LIMIT, LINE_LIMIT]


@pytest.mark.parametrize("engines", [[{}], [{"output": 7}], [{"output": None, "index": []}]])
def test_engines_without_output_say_nothing(engines):
    assert lines(ServerLog(RECORD, output={"engines": engines})) == []


@pytest.mark.parametrize("time", [None, "now", 1e300, math.nan, -(10**400)])
def test_a_report_without_a_time_that_makes_sense_is_put_where_the_store_got_it(time):
    report, content = said(5, "x")
    assert lines(ServerLog(RECORD, [(report, {**content, "time": time})]))[0][0] == 5


def test_why_a_server_was_replaced_is_said_too():
    log = ServerLog(replace(RECORD, server=None, former=Former(ended=iso(at(3)), why="went to ERROR")))
    assert lines(log) == [(3, f"{SET}/0/launcher", "the server was replaced: went to ERROR")]


@pytest.mark.parametrize(("written", "difference"), [(5, 0), (60, 0), (3605, 3600), (-3595, -3600)])
def test_a_clock_that_differs_grossly_from_the_stores_is_told(written, difference):
    report, content = said(5, "x")
    assert clock_difference(replace(report, written=iso(at(written))), content) == difference
    assert clock_difference(replace(report, written=""), content) == 0
    assert clock_difference(report, {}) == 0
