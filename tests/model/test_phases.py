"""The list of phases, and its parts."""

from ipp_griffin.model import phases, reports


def test_the_phases_of_a_start_come_first_and_what_agents_report_last():
    assert phases.START == ("requested", "building", "active", "agent", "connected", "engines")
    assert phases.REPORTED == ("agent", "connected", "engines", "gone", "failed")
    assert phases.ENDED == ("gone", "failed")
    assert {*phases.START, *phases.ENDED} == set(phases.PHASES)


def test_reports_keep_the_numbers_that_running_agents_have():
    assert reports.KINDS == ("agent", "connected", "engines", "gone", "failed", "log")
