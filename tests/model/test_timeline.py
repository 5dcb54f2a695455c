"""How long servers took to start: the figures, the text, the JSON and the picture."""

import json
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from xml.etree import ElementTree as ET

import pytest

from ipp_griffin.cli.timeline_svg import as_svg, ticks
from ipp_griffin.common.times import iso
from ipp_griffin.model.history import Former, Record
from ipp_griffin.model.names import Place
from ipp_griffin.model.reports import Report
from ipp_griffin.model.server import Server
from ipp_griffin.model.timeline import as_json, as_text, timeline

SET = "a1b2c3d4"
ZERO = datetime(2026, 1, 1, 12, 0, tzinfo=timezone.utc)


def at(seconds: float) -> str:
    return iso(ZERO + timedelta(seconds=seconds))


def reports(slot=0, incarnation=0, **when) -> tuple[Report, ...]:
    """Phases and when the store got them."""
    return tuple(Report(Place(SET, slot, incarnation), n, phase, at(s)) for n, (phase, s) in enumerate(when.items()))


def record(slot=0, incarnation=0, *, created=0.5, launched=5.0, status="ACTIVE", started=True, **when) -> Record:
    labels = {"griffin:started": at(0)} if started else {}
    shown = {"created": at(created), "launched": at(launched) if launched else "", "metadata": labels}
    server = Server("i", f"griffin-u-{slot}", status, **shown)
    return Record(server.name, Place(SET, slot, incarnation), server, reports(slot, incarnation, **when))


QUICK = record(0, agent=12, connected=13, engines=16)
SLOW = record(1, created=1, launched=9, agent=14, connected=15, engines=22)
LOST = replace(
    record(2, agent=12, connected=13, engines=16),
    server=None,
    former=Former(at(0), at(0.5), at(17), "went to ERROR: <no> host & more"),
)
SUCCESSOR = record(2, 1, created=18, launched=22, agent=27, connected=27.5, engines=29)


def shown(*records, now=29.0):
    found = timeline(records, ZERO + timedelta(seconds=now))
    assert found is not None
    return found


def test_each_phase_begins_when_the_launcher_nova_and_the_store_say():
    (track,) = shown(QUICK).tracks
    assert track.seconds() == {
        "requested": 0,
        "building": 0.5,
        "active": 5,
        "agent": 12,
        "connected": 13,
        "engines": 16,
    }
    assert (track.ended, track.why) == (None, "")


def test_it_begins_with_the_start_and_ends_when_the_last_engines_are_there():
    found = shown(QUICK, SLOW, now=1000)
    assert (found.zero, found.seconds) == (ZERO, 22)
    assert found.tracks[0].spans(found.zero, found.end)[-1] == ("engines", 16, 22)


def test_while_a_server_is_on_its_way_it_ends_now():
    found = shown(QUICK, record(1, agent=20), now=40)
    assert found.tracks[1].spans(found.zero, found.end)[-1] == ("agent", 20, 40)


def test_without_the_label_of_its_start_it_begins_with_the_first_creation():
    old = [record(slot, created=3 + slot, started=False, engines=16) for slot in range(2)]
    assert shown(*old).zero == ZERO + timedelta(seconds=3)
    assert "requested" not in shown(*old).tracks[0].times


def test_the_first_report_of_a_phase_counts_not_that_after_a_reboot():
    again = Report(Place(SET, 0), 9, "engines", at(900))
    rebooted = replace(QUICK, reports=(*QUICK.reports, again, Report(Place(SET, 0), 10, "log", at(950))))
    assert shown(rebooted).tracks[0].seconds()["engines"] == 16


def test_a_server_that_was_replaced_is_shown_until_its_end_and_its_successor_from_its_own_request():
    lost, successor = shown(LOST, SUCCESSOR).tracks
    assert [str(track.place) for track in (lost, successor)] == [f"{SET}/2", f"{SET}/2.1"]
    assert (lost.ended, lost.why) == (ZERO + timedelta(seconds=17), "replaced: went to ERROR: <no> host & more")
    assert successor.seconds()["engines"] == 11


def test_of_a_server_that_is_gone_the_reports_remain():
    gone = replace(QUICK, server=None)
    (track,) = shown(gone).tracks
    assert (track.why, track.ended) == ("gone", ZERO + timedelta(seconds=16))
    assert list(track.times) == ["agent", "connected", "engines"]


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        (record(agent=12, failed=20), "its agent reported failed"),
        (record(agent=12, engines=16, gone=20), "its agent reported gone"),
        (record(agent=12, engines=20, status="SHUTOFF"), "is in SHUTOFF"),
    ],
)
def test_a_server_that_failed_ends_with_the_last_that_is_known(ended, why):
    (track,) = shown(ended, now=1000).tracks
    assert (track.why, track.ended) == (why, ZERO + timedelta(seconds=20))


def test_engines_that_came_back_are_no_end():
    assert shown(record(agent=12, engines=16, gone=20)).tracks[0].ended
    back = record(agent=12, engines=16, gone=20)
    back = replace(back, reports=(*back.reports, Report(Place(SET, 0), 9, "engines", at(30))))
    assert shown(back).tracks[0].ended is None


def test_where_nothing_is_known_nothing_is_shown():
    assert timeline([], ZERO) is None
    assert timeline([Record("x", Place(SET, 0)), Record("y", Place(SET, 1), former=Former())], ZERO) is None


def test_medians_are_over_the_servers_that_got_so_far():
    found = shown(QUICK, SLOW, record(3, created=2, launched=None), now=60)
    assert found.medians() == {"building": 1, "active": 7, "agent": 13, "connected": 14, "engines": 19}
    assert found.slowest() is found.tracks[1]


def test_a_step_between_two_clocks_that_differ_takes_no_time_and_gross_differences_are_told():
    """Nova cuts the second of a creation; that is none."""
    found = shown(record(created=-0.9, agent=12, connected=13, engines=16))
    assert found.tracks[0].seconds()["building"] == 0
    assert found.clocks_differ() == 0
    wrong = shown(record(launched=3600, agent=12, engines=16))
    assert "differ by 3588 s or more." in as_text(wrong, 100)
    assert [end - start >= 0 for _, start, end in wrong.tracks[0].spans(wrong.zero, wrong.end)] == [True] * 5


def test_the_text_is_one_line_a_server_as_wide_as_the_terminal():
    assert as_text(shown(QUICK, SLOW, LOST, SUCCESSOR), 88).splitlines() == [
        "SERVER        0                      29.0 s  BUILDING  ACTIVE  AGENT  CONNECTED  ENGINES",
        "a1b2c3d4/0    -----=======+***#############       0.5     5.0   12.0       13.0     16.0",
        "a1b2c3d4/1    .--------=====+*******#######       1.0     9.0   14.0       15.0     22.0",
        "a1b2c3d4/2    ------------+***#                   0.5       -   12.0       13.0     16.0"
        "  replaced: went to ERROR: <no> host & more",
        "a1b2c3d4/2.1                    ----=====+*       0.0     4.0    9.0        9.5     11.0",
        "",
        ". requested  - building  = active  + agent  * connected  # engines   "
        "(seconds: from a server's request until each began)",
        "Median: building 0.5 s, active 5.0 s, agent 12.0 s, connected 13.0 s, engines 16.0 s.",
        "Slowest: a1b2c3d4/1, 22.0 s.",
    ]


def test_a_terminal_that_is_too_narrow_gets_a_short_bar():
    assert as_text(shown(QUICK), 20).splitlines()[1].split()[1].strip("-=+*#") == ""


def test_json_has_times_as_they_were_and_seconds():
    found = json.loads(json.dumps(as_json(shown(SLOW, LOST))))
    assert (found["from"], found["until"], found["slowest"]) == (at(0), at(22), "griffin-u-1")
    assert found["servers"][0] == {
        "name": "griffin-u-1",
        "place": f"{SET}/1",
        "times": {
            "requested": at(0),
            "building": at(1),
            "active": at(9),
            "agent": at(14),
            "connected": at(15),
            "engines": at(22),
        },
        "seconds": {"requested": 0, "building": 1, "active": 9, "agent": 14, "connected": 15, "engines": 22},
        "ended": None,
        "why": "",
    }
    assert (found["servers"][1]["ended"], found["servers"][1]["why"][:8]) == (at(17), "replaced")


# -- the picture


def rectangles(svg: str) -> list[dict[str, str]]:
    return [e.attrib for e in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect") if "fill" in e.attrib]


def test_the_picture_is_xml_whatever_is_in_the_names_and_the_same_each_time():
    title = 'Cluster <x> & "y"'
    svg = as_svg(shown(QUICK, LOST), title)
    assert svg == as_svg(shown(QUICK, LOST), title)
    texts = [e.text for e in ET.fromstring(svg).iter() if e.text]
    assert title in texts
    assert "replaced: went to ERROR: <no> host & more" in texts


def test_the_bars_are_to_scale():
    bars = rectangles(as_svg(shown(QUICK, SLOW), ""))[6:]  # after the legend
    assert len(bars) == 12
    first, second = bars[:6], bars[6:]
    per_second = float(first[2]["width"]) / 7  # ACTIVE from 5 to 12
    assert [round(float(bar["width"]) / per_second, 1) for bar in first] == [0.5, 4.5, 7, 1, 3, 6]
    assert [round((float(b["x"]) - float(second[0]["x"])) / per_second) for b in second] == [0, 1, 9, 14, 15, 22]
    assert {bar["y"] for bar in first} != {bar["y"] for bar in second}
    assert len({bar["fill"] for bar in first}) == 6


def test_the_picture_is_readable_in_light_and_dark():
    assert "@media (prefers-color-scheme: dark)" in as_svg(shown(QUICK), "")


@pytest.mark.parametrize(
    ("seconds", "at"),
    [(29, [0, 5, 10, 15, 20, 25]), (0.1, [0, 0.02, 0.04, 0.06, 0.08, 0.1]), (600, [0, 100, 200, 300, 400, 500, 600])],
)
def test_the_axis_has_round_numbers(seconds, at):
    assert ticks(seconds) == at
