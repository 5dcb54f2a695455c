"""What is reported when, and how much."""

import errno
import json
import time

import pytest

from ipp_griffin.agent import state
from ipp_griffin.agent.connection import secrets_of
from ipp_griffin.agent.reports import HEAD, TAIL, report_url

from .world import CONNECTION, PARAMETERS, PRIVATE_OBJECT, Net, World, end, engine_with_log, http_error, write_log


def test_report_names():
    assert report_url(PARAMETERS["reports"], 12, "engines") == (
        "http://store:8080/v1/a/c/s/2.1/0012-engines?temp_url_sig=5ecre7b&temp_url_prefix=s/2.1/"
    )
    urls = {"urls": {"agent": "http://s/0000-agent?x"}}
    assert [report_url(urls, 7, phase) for phase in ("agent", "gone")] == ["http://s/0000-agent?x", ""]


def test_a_report_that_can_not_be_written_holds_up_nothing_and_is_counted(world):
    w = world(Net(http_error(503), http_error(503), OSError("no route"), b""))
    w.agent.reports.write("agent", "one")
    w.agent.reports.write("gone", "two\nlines \x1b[1m " + CONNECTION["key"])
    assert w.net.names == ["0000-agent"] * 3 + ["0001-gone"]
    assert w.clock.slept == [1, 2]
    assert "was not written: no route" in w.lines[1]
    assert World(w.folder).agent.state.kept["sequence"] == 2  # also after a reboot


def test_a_full_disk_keeps_no_report_from_being_written(world, monkeypatch):
    """What fills it may be what the engines compute: they would be ended with an agent that breaks."""
    w = world()

    def full(path, data, mode=0o600):
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(state, "write", full)
    w.agent.reports.write("engines", "one")
    w.agent.reports.write("gone", "two")
    assert w.net.names == ["0000-engines", "0001-gone"]
    assert "what a reboot needs was not kept: No space left on device" in w.lines


def test_what_a_report_says(world):
    w = world()
    w.agent.redactor.hide(secrets_of(PARAMETERS, PRIVATE_OBJECT))
    w.agent.reports.write("failed", "with " + CONNECTION["curve_serverkey"] + "\nand 5ecre7b")
    report = w.net.reports[0][1]
    assert report.pop("time") > 0
    assert report == {
        "utc_offset": time.localtime().tm_gmtoff,
        "version": 1,
        "phase": "failed",
        "message": "with *** and ***",
        "server": "griffin-u-2",
        "engines": [],
    }


def test_where_each_phase_has_its_url_a_phase_without_one_is_only_logged(world):
    w = world(reports={"urls": {"agent": "http://s/0000-agent?sig=1"}})
    w.agent.reports.write("agent", "a")
    w.agent.reports.write("gone", "b")
    assert [r.full_url for r in w.net.requests] == ["http://s/0000-agent?sig=1"]


@pytest.mark.parametrize("shift", range(0, 30, 3))
def test_a_long_log_is_cut_in_the_middle_but_never_through_a_secret(world, shift):
    """A part of a key would pass for harmless text: wherever the cut falls, none is left."""
    w = world()
    w.agent.redactor.hide(["SecrKeyabcdefghTERM"])
    data = b"." * shift + b"SecrKeyabcdefghTERM" * 3000
    text = w.agent.reports.excerpt(engine_with_log(w, data), 1000)
    assert "bytes left out" in text
    assert "Secr" not in text and "TERM" not in text


def test_head_and_tail_of_a_log(world):
    w = world()
    data = b"h" * 20_000 + b"m" * 100_000 + b"t" * 60_000
    text = w.agent.reports.excerpt(engine_with_log(w, data), HEAD + TAIL)
    assert text == "h" * 16384 + f"\n[... {180_000 - 65536} bytes left out ...]\n" + "t" * 49152


def test_a_report_of_many_long_logs_stays_within_its_limit(world):
    w = world()
    for k in range(12):
        engine_with_log(w, b"\x1b\n" * 50_000, k)
    body = w.agent.reports.body("gone", "x")
    assert 100_000 < len(body) <= 256 * 1024
    assert [bool(e["output"]) for e in json.loads(body)["engines"]] == [True] * 12


def test_what_engines_log_is_reported_at_intervals_under_one_name_and_only_if_there_is_more(watched):
    watched.watch({70: write_log(watched, b"one\n"), 200: write_log(watched, b"two\n", 1)}, 400)
    assert watched.net.names == ["0000-engines", "0001-log", "0001-log"]
    (_, first), (_, second) = watched.net.reports[1:]
    assert (first["phase"], first["message"]) == ("log", "2 of 2 engines run")
    assert [e["output"].endswith("one\n") for e in first["engines"]] == [True, False]
    assert [e["output"].rpartition("\n")[0][-3:] for e in second["engines"]] == ["one", "two"]


def test_reports_of_logs_and_of_phases_do_not_get_into_each_others_way(watched):
    """What a phase's report has told of the logs is not told again, and the next phase has its own number."""
    first, second = watched.processes.all
    watched.watch({61: write_log(watched, b"x\n"), 125: end(first, 1), 130: end(second, 1)}, 400)
    assert watched.net.names == ["0000-engines", "0001-log", "0002-engines", "0003-gone"]


def test_with_an_interval_of_zero_logs_go_with_phases_only(watched):
    watched.agent.private_object["timeouts"]["log_interval"] = 0
    watched.watch({61: write_log(watched, b"x\n")}, 400)
    assert watched.net.names == ["0000-engines"]


def test_logs_that_could_not_be_reported_are_tried_again_and_that_is_told_once(watched):
    watched.net.answers = [b"", http_error(503), http_error(401), b""]
    watched.watch({70: write_log(watched, b"x\n")}, 400)
    assert watched.net.names == ["0000-engines"] + ["0001-log"] * 3
    told = [line for line in watched.lines if "logs can't be reported" in line]
    assert told == ["logs can't be reported now, will go on trying: HTTP Error 503: No"]


def test_a_phase_that_could_not_be_reported_is_tried_again_until_it_is(watched):
    """The object store was down for minutes: this server must not look like one that never reported."""
    watched.net.answers = [http_error(503)]
    watched.watch({200: lambda: watched.net.answers.append(b"") or watched.net.answers.pop(0)}, 400)
    phases = [name for name in watched.net.names if not name.endswith("-log")]
    assert phases == ["0000-engines"] * (3 + 7)  # three tries at once, then one in half a minute
    assert watched.lines.count("report engines was written at last") == 1


def test_of_phases_that_could_not_be_reported_the_last_counts(watched):
    first, second = watched.processes.all
    watched.net.answers = [http_error(503)] * 6 + [b""]  # three tries for each of the first two
    watched.watch({10: end(first, 1), 11: end(second, 1)}, 60)
    assert watched.net.names[-1] == "0002-gone"
    assert watched.net.reports[-1][1]["phase"] == "gone"
