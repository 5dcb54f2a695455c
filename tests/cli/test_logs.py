"""`ipp-griffin logs` and `timeline`: what they ask, print and remark, on clusters that are made up."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest

from ipp_griffin.cli.command import ClustersCommand
from ipp_griffin.cli.logs import REPORTS_READ, Logs
from ipp_griffin.cli.timeline import Timeline
from ipp_griffin.cluster.cluster import LABELS, Cluster
from ipp_griffin.common.errors import CloudError
from ipp_griffin.common.times import iso
from ipp_griffin.model.history import Record
from ipp_griffin.model.names import Place
from ipp_griffin.model.reports import Report
from ipp_griffin.model.server import Server

from ..fakes import FakeClusters

SET, ZERO = "a1b2c3d4", datetime(2026, 11, 25, 5, 0, tzinfo=timezone.utc)
CLUSTER = Cluster("0123456789ab", dict.fromkeys(LABELS, "") | {"profile": "griffin"}, (), True)


def at(seconds: float) -> str:
    return iso(ZERO + timedelta(seconds=seconds))


def report(slot, sequence, phase, seconds) -> Report:
    return Report(Place(SET, slot), sequence, phase, at(seconds))


def know(clusters, *records, behind=0.0):
    """Have records and the contents of their reports, of agents whose clocks are so many seconds behind."""
    clusters.known = list(records)
    for one in (report for record in records for report in record.reports):
        time = datetime.fromisoformat(one.written.replace("Z", "+00:00")).timestamp() - behind
        engines = [{"index": 0, "output": one.phase}]
        clusters.contents[one.name] = {"time": time, "message": f"{one.phase} of {one.place.slot}", "engines": engines}


SERVER = Server("i0", "griffin-u-0", "ACTIVE", created=at(0), launched=at(2))
REPORTS = report(0, 0, "agent", 5), report(0, 2, "engines", 9), report(0, 1, "log", 60)
RECORDS = (
    Record("griffin-u-0", Place(SET, 0), SERVER, REPORTS),
    Record("griffin-u-1", Place(SET, 1), None, (report(1, 0, "engines", 8),)),
)


@pytest.fixture
def clusters(monkeypatch):
    """One cluster, of a server that is there and one that is gone."""
    made = FakeClusters(CLUSTER)
    know(made, *RECORDS)
    made.consoles["i0"] = f"ipp-griffin: {at(4)} starting\n"
    monkeypatch.setattr(ClustersCommand, "clusters", lambda self: made)
    return made


@pytest.fixture
def run(clusters, capsys):
    """Run a command; its status, and the lines on both streams."""

    def run(kind, *arguments):
        status = 0
        app = kind()
        try:
            app.initialize(list(arguments))
            app.start()
        except SystemExit as e:
            status = e.code
        printed = capsys.readouterr()
        return status, printed.out.splitlines(), printed.err.splitlines()

    return run


def test_all_servers_lines_come_by_time_also_of_those_that_are_gone(run, clusters):
    assert run(Logs, CLUSTER.uid) == (
        0,
        [
            f"{at(4)} {SET}/0/console  starting",
            f"{at(5)} {SET}/0/agent  agent: agent of 0",
            f"{at(8)} {SET}/1/agent  engines: engines of 1",
            f"{at(8)} {SET}/1/engine-0  engines",
            f"{at(9)} {SET}/0/agent  engines: engines of 0",
            f"{at(60)} {SET}/0/engine-0  log",
        ],
        [],
    )
    assert len(clusters.asked("read_report")) == 4


@pytest.mark.parametrize("name", ["griffin-u-1", "1", f"{SET}/1"])
def test_one_server_is_asked_about_alone(run, clusters, name):
    _, out, _ = run(Logs, CLUSTER.uid, name)
    assert {line.split()[1].rpartition("/")[0] for line in out} == {f"{SET}/1"}
    assert {report.place.slot for report in clusters.asked("read_report", "report")} == {1}


def test_the_tail_is_the_last_lines_of_all(run):
    assert run(Logs, CLUSTER.uid, "--tail", "2")[1] == run(Logs, CLUSTER.uid)[1][-2:]


def test_a_console_that_is_refused_is_a_remark_and_no_failure(run, clusters):
    clusters.fail["console"] = [CloudError("Can't read the console of server i0: the cloud said 403: no.")]
    status, out, err = run(Logs, CLUSTER.uid)
    assert (status, len(out)) == (0, 5)
    assert err == [
        f"ipp-griffin logs: The console of {SET}/0 can't be read: Can't read the console of server i0: the cloud said 403: no."
    ]


def test_a_report_that_can_not_be_read_is_a_remark_and_no_failure(run, clusters):
    clusters.contents[REPORTS[2].name] = CloudError("the cloud said 503.")
    status, out, err = run(Logs, CLUSTER.uid)
    assert (status, len(out)) == (0, 5)
    assert err == [f"ipp-griffin logs: A report of {SET}/0 can't be read: the cloud said 503."]


@pytest.mark.parametrize(("behind", "words"), [(3600, "3600 s behind"), (-90, "90 s ahead of")])
def test_a_servers_clock_that_is_wrong_is_told_once(run, clusters, behind, words):
    know(clusters, *RECORDS, behind=behind)
    _, _, err = run(Logs, CLUSTER.uid, "0")
    assert err == [
        f"ipp-griffin logs: The clock of {SET}/0 was {words} the object store's. Its times are shown uncorrected."
    ]


def test_of_many_reports_the_newest_are_read(run, clusters):
    many = tuple(report(1, n, "gone" if n % 2 else "engines", n) for n in range(100))
    know(clusters, Record("griffin-u-1", Place(SET, 1), None, many))
    _, _, err = run(Logs, CLUSTER.uid)
    assert clusters.asked("read_report", "report") == list(many[-REPORTS_READ:])
    assert err == [f"ipp-griffin logs: 80 earlier reports of {SET}/1 are not shown."]


@pytest.mark.parametrize(
    ("kind", "arguments", "line"),
    [
        (
            Logs,
            [],
            "ipp-griffin logs: name a cluster, and one of its servers if you like. `ipp-griffin ps` lists them.",
        ),
        (Logs, ["x"], "ipp-griffin logs: There is no cluster 'x' in this project."),
        (
            Logs,
            [CLUSTER.uid, "7"],
            f"ipp-griffin logs: There is no server '7' in this cluster. Its servers: {SET}/0, {SET}/1.",
        ),
        (Timeline, [], "ipp-griffin timeline: name a cluster. `ipp-griffin ps` lists them."),
        (
            Timeline,
            [CLUSTER.uid, "--output=start.png"],
            "ipp-griffin timeline: start.png must end in .svg: the picture is an SVG.",
        ),
        (
            Timeline,
            [CLUSTER.uid, "--output=/no/such/x.svg"],
            "ipp-griffin timeline: No such file or directory: /no/such/x.svg",
        ),
    ],
)
def test_what_can_not_be_shown_is_one_line_and_status_1(run, kind, arguments, line):
    assert run(kind, *arguments) == (1, [], [line])


def test_a_timeline_of_nothing_says_so(run, clusters):
    clusters.known = []
    assert run(Timeline, CLUSTER.uid) == (
        1,
        [],
        ["ipp-griffin timeline: no server of cluster 0123456789ab is known."],
    )


def test_a_timeline_is_text_or_json_and_a_picture(run, tmp_path):
    status, out, _ = run(Timeline, CLUSTER.uid)
    assert (status, out[0]) == (0, "Cluster 0123456789ab (griffin), from 2026-11-25 05:00:00 UTC")
    assert [line.split()[0] for line in out[1:4]] == ["SERVER", f"{SET}/0", f"{SET}/1"]
    path = tmp_path / "start.svg"
    status, out, _ = run(Timeline, CLUSTER.uid, "--json", "--output", str(path))
    found = json.loads("\n".join(out))
    assert (found["cluster"], found["slowest"]) == (CLUSTER.uid, "griffin-u-0")
    assert path.read_text().startswith("<svg ")


@pytest.mark.parametrize("arguments", [["plan", "--help-all"], ["talk"]])
def test_a_reader_that_has_enough_is_no_error(arguments):
    """`ipp-griffin ... | head`."""
    program = (
        "from ipp_griffin import cli\n"
        "class Talk(cli.Command):\n"
        "    name = 'talk'\n"
        "    def run(self):\n"
        "        for _ in range(100_000): print('x' * 100)\n"
        "cli.Griffin.subcommands['talk'] = (Talk, 'Talk without end.')\n"
        "cli.main()\n"
    )
    read, write = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    if arguments == ["talk"]:
        os.read(read, 100)
    os.close(read)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
