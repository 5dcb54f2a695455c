"""What agents report, and how little of it is believed."""

import json
from typing import Any

import pytest

from ipp_griffin.model.names import Place
from ipp_griffin.model.reports import Report, content

SET = "a1b2c3d4"


def test_a_reports_name_says_it_all() -> None:
    report = Report(Place(SET, 12, 3), 7, "connected")
    assert report.name == f"{SET}/12.3/0007-connected"
    assert Report.parse(report.name) == report


@pytest.mark.parametrize(
    "name",
    ["", "connection.json", f"{SET}/connection.json", f"{SET}/0.0/", f"{SET}/0.0/1-agent", f"{SET}/0.0/0001-AGENT"]
    + [f"{SET}/00.0/0001-agent", f"{SET}/-1.0/0001-agent", f"{SET}/0.0/0001-agent\n", f"x/{SET}/0.0/0001-agent"]
    + [f"{SET}/٣.0/0001-agent", f"{SET}/0.0/0001-agent/x", f"{SET}/{'9' * 5000}.0/0001-agent"],
)
def test_any_other_name_is_no_report(name: str) -> None:
    assert Report.parse(name) is None


def test_what_a_report_says_is_made_harmless() -> None:
    body = {"version": 1, "message": "no\x1b[2J\nway", "engines": [{"index": 0}, 7, "x"], "time": 1.5}
    assert content(json.dumps(body).encode()) == {
        "version": 1,
        "message": "no\\x1b[2J way",
        "engines": [{"index": 0}],
        "time": 1.5,
    }


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff\xfe", b"[" * 100_000], ids=lambda body: repr(body[:9]))
def test_a_broken_report_reads_as_nothing(body: bytes) -> None:
    assert content(body) == {}


@pytest.mark.parametrize("body", [{}, {"message": 7, "engines": {"a": 1}}, {"message": None, "engines": None}])
def test_a_report_with_fields_of_the_wrong_type_is_read_without_them(body: dict[str, Any]) -> None:
    assert content(json.dumps(body).encode()) == {"message": "", "engines": []}
