"""`ipp-griffin connect`, over fakes of all doors: what it leaves on a machine, what it refuses, and what it undoes.

What such a machine can do: tests/end_to_end/test_server_controller.py.
"""

import json
import logging
import os
import signal
import stat
from dataclasses import replace

import pytest

from ipp_griffin.cli.connect import Connect
from ipp_griffin.common.errors import GriffinError, QuotaError
from ipp_griffin.controller import hub as hub_module
from ipp_griffin.launchers import local_access as attaching
from ipp_griffin.launchers.connect import one_at_a_time
from ipp_griffin.model.connection import ControllerKeys

from ..fakes.cloud import make_server

KEYS = ControllerKeys.make()
UID, ENDED = KEYS.uid, "0123456789ab"
INFO = {
    "ssh": "",
    "interface": "tcp://10.0.0.9",
    "location": "10.0.0.9",
    "registration": 20000,
    "key": KEYS.session,
    "curve_serverkey": KEYS.curve_public,
}
CLUSTER_FILE = "profile_griffin/security/cluster-.json"
FILES = [
    CLUSTER_FILE,
    "profile_griffin/security/ipcontroller-client.json",
    "profile_griffin/security/ipcontroller-engine.json",
]


@pytest.fixture
def servers(fake_cloud):
    """``servers(uid, engine_set=engines, ...)``: those that the project then has of that cluster, which is called griffin."""

    def there(uid, **engine_sets):
        for engine_set, engines in engine_sets.items():
            server = make_server(0, uid=uid, engine_set=engine_set)
            metadata = {"griffin:profile": "griffin", "griffin:host": "headnode", "griffin:engines": str(engines)}
            fake_cloud.there[server.id] = replace(server, metadata=metadata, user_id=fake_cloud.user_id)

    return there


@pytest.fixture
def project(fake_cloud, store, servers, monkeypatch):
    """A cloud whose project has one cluster: two engines on a server, and a controller on another."""
    servers(UID, controller=0, a1b2c3d4=2)
    client = {**INFO, "mux": 20012}
    store.there[UID] = {
        "controller/0.0/handover": json.dumps({"engine": {**INFO, "mux": 20001}, "client": client}).encode(),
        "controller/client.json": json.dumps(client).encode(),
    }
    monkeypatch.setattr(attaching, "why_unreachable", lambda info: "")
    monkeypatch.setattr(attaching, "own_address", lambda address: "192.0.2.1/32")
    return fake_cloud


@pytest.fixture
def ipython(tmp_path, monkeypatch):
    """The IPython folder of a user who has nothing in it."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    return tmp_path / "ipython"


@pytest.fixture
def connect(project, hub, ipython, capsys):
    """``connect(option, ...)``: the status of the command, and what it prints to both streams."""
    logger = logging.getLogger("traitlets")
    level = logger.level

    def run(*options, name="griffin"):
        status = 0
        try:
            command = Connect()
            command.initialize([name, *options])
            command.start()
        except SystemExit as e:
            status = e.code or 0
        printed = capsys.readouterr()
        return status, printed.out + printed.err

    yield run
    logger.setLevel(level)


def files(ipython) -> list[str]:
    """What there is in the IPython folder, but for folders."""
    return sorted(str(path.relative_to(ipython)) for path in ipython.rglob("*") if not path.is_dir())


# --- what it leaves


def test_what_it_writes_is_private_and_names_the_controller_and_each_engine_set(connect, ipython):
    status, said = connect()
    assert (status, said) == (0, f'Cluster {UID} can be used from here: ipp.Client(profile="griffin").\n')
    assert [path for path in files(ipython) if "/security/" in path] == FILES
    assert {stat.S_IMODE((ipython / path).stat().st_mode) for path in FILES} == {0o600}
    cluster, client, engine = (json.loads((ipython / path).read_text()) for path in FILES)
    assert (cluster["controller"]["class"], cluster["controller"]["state"]["uid"]) == ("griffin-server", UID)
    (engine_set,) = cluster["engines"]["sets"].values()
    assert (engine_set["engine_set"], engine_set["n"]) == ("a1b2c3d4", 2)
    assert (client["mux"], engine["mux"]) == (20012, 20001)


def test_a_profile_that_it_makes_is_griffins_and_of_another_one_is_told_what_it_lacks(connect, ipython):
    """`ipcluster engines` with a profile that is not griffin's starts engines on this machine."""
    assert "has no settings of griffin" not in connect()[1]
    assert "\nc.GriffinCloud.cloud = '" in (ipython / "profile_griffin" / "ipcluster_config.py").read_text()
    status, said = connect("--profile=default")
    assert status == 0
    assert "profile 'default' has no settings of griffin: with it, `ipcluster engines` starts engines on this" in said


# --- what is refused before anything is made


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--profile=../up"], "'../up' is not the name of a profile: use letters, digits, - and _. Choose its names"),
        (
            ["--cluster-id=a/b"],
            "use letters, digits and any of . _ - + @, at most 200 characters. Choose its names on this machine with",
        ),
        (["--client-address=house"], "client_address 'house' is no IPv4 address, or range of such: give it as"),
        (["--timeout=nan"], "reach_timeout can't be nan seconds: set it to"),
        (["--timeout=1e400"], "reach_timeout can't be inf seconds: set it to"),
        (["--timeout=1e6"], "reach_timeout can't be 1000000.0 seconds: give a number from 1 to 86400."),
        (["--timeout=0.5"], "The value of the 'timeout' trait of a Connect instance should"),
        (["another"], "name a cluster. `ipp-griffin ps` lists them."),
    ],
)
def test_what_can_not_be_is_one_line_and_changes_nothing(connect, ipython, project, options, line):
    status, said = connect(*options)
    assert status == 1
    assert line in said.splitlines()[-1]
    assert "Traceback" not in said
    assert files(ipython) == []
    assert project.groups.asked("let_in") == []


def test_a_cluster_that_nobody_has(connect, ipython):
    status, said = connect(name="nobody")
    assert status == 1
    assert (
        said
        == f"ipp-griffin connect: There is no cluster 'nobody' in this project. Existing clusters: {UID} (griffin).\n"
    )
    assert files(ipython) == []


def test_one_whose_controller_is_on_no_server(connect, ipython, project):
    project.there = {id: server for id, server in project.there.items() if "-controller-" not in id}
    status, said = connect()
    assert status == 1
    assert f"The controller of cluster {UID} runs on headnode, not on a server of the cloud: copy its" in said
    assert said.endswith("ipcontroller-client.json from there.\n")
    assert files(ipython) == []


def test_one_that_is_starting(connect, ipython, store):
    store.there[UID].clear()
    status, said = connect()
    assert status == 1
    assert "has no connection file in the object store: its controller does not run on a server of the cloud" in said
    assert files(ipython) == []


@pytest.mark.parametrize(("server", "phase"), [("SHUTOFF", "gone"), ("ERROR", "failed")])
def test_one_that_has_ended(connect, ipython, project, server, phase):
    project.shows = lambda one: replace(one, status=server)
    status, said = connect()
    assert status == 1
    name = f"griffin-{UID}-controller-0"
    assert f"has ended: its server {name} is {phase}. `ipp-griffin stop {UID}` deletes what is left." in said
    assert files(ipython) == []


def test_a_file_of_the_profile_that_is_broken_is_told_and_changes_nothing(connect, ipython):
    broken = ipython / "profile_griffin" / "ipcluster_config.py"
    broken.parent.mkdir(parents=True)
    broken.write_text("c.Cluster.n = = 3\n")
    status, said = connect()
    assert status == 1
    assert f"{broken}, line 1: SyntaxError: invalid syntax" in said
    assert "Traceback" not in said
    assert not [path for path in files(ipython) if "/security/" in path]


def test_two_at_the_same_time_are_one_after_the_other(connect, ipython):
    with one_at_a_time():
        status, said = connect()
    assert status == 1
    assert "Another `ipp-griffin connect` of yours is running on this machine." in said
    assert files(ipython) == []
    assert connect()[0] == 0


# --- the name is taken


def name_taken(ipython, uid, *, kind="griffin-server", project="p1", **state) -> str:
    """The content of the file of a cluster that has the name already."""
    path = ipython / CLUSTER_FILE
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"controller": {"class": kind, "state": {"uid": uid, "project": project, **state}}}))
    return path.read_text()


@pytest.mark.parametrize(
    "taken",
    [
        {"uid": "ba9876543210"},  # it runs
        {"uid": ENDED, "project": "p2"},  # so it may, where nobody looks
        {"uid": ENDED, "kind": "griffin"},  # one on this machine has nothing in the cloud before its first engines
    ],
)
def test_another_cluster_that_may_run_is_never_replaced(connect, ipython, servers, taken):
    servers("ba9876543210", controller=0)
    before = name_taken(ipython, **taken)
    status, said = connect(name=UID)
    assert status == 1
    assert (
        "Stop it with `ipcluster stop --profile=griffin`, or choose another name for this one with --cluster-id=NAME."
        in said
    )
    assert (ipython / CLUSTER_FILE).read_text() == before
    assert files(ipython) == [CLUSTER_FILE]
    status, said = connect("--cluster-id=mine", name=UID)
    assert status == 0
    assert 'ipp.Client(profile="griffin", cluster_id="mine").\n' in said


def test_one_that_has_ended_is_replaced(connect, ipython):
    name_taken(ipython, ENDED)
    assert connect()[0] == 0
    assert json.loads((ipython / CLUSTER_FILE).read_text())["controller"]["state"]["uid"] == UID


def test_its_tunnels_end_whichever_version_opened_them(connect, ipython, monkeypatch):
    closed = []
    monkeypatch.setattr(attaching, "close_tunnel", closed.append)
    tunnels = ["/tmp/griffin-ssh-1", [4_000_000, 1.0]]
    name_taken(ipython, ENDED, tunnels=tunnels)
    assert connect()[0] == 0
    assert closed == tunnels
    assert json.loads((ipython / CLUSTER_FILE).read_text())["controller"]["state"]["tunnels"] == []


def test_a_file_that_is_damaged_stays_and_is_told(connect, ipython):
    name_taken(ipython, ENDED)
    (ipython / CLUSTER_FILE).write_text("{}}")
    status, said = connect()
    assert status == 1
    assert f"{ipython / CLUSTER_FILE} is damaged, or of a cluster that griffin did not start. Delete it" in said
    assert (ipython / CLUSTER_FILE).read_text() == "{}}"


# --- what fails later is undone


@pytest.fixture
def rules(project, monkeypatch):
    """The cluster has security groups of its own; ``rules(error)``: what happens after the first rule was made."""
    project.groups.make_for_server(UID)
    error = []

    def let_in(uid, *, made, client, **ports):
        made.append(f"{client} is let in")
        if error:
            raise error[0]

    monkeypatch.setattr(project.groups, "let_in", let_in)
    return error.append


def test_one_that_gets_no_answer_leaves_neither_file_nor_rule(connect, project, rules, hub, ipython):
    hub.down = GriffinError("The controller does not answer.")
    status, said = connect("--client-address=203.0.113.7", "--timeout=1")
    assert status == 1
    assert f"The controller of cluster {UID} runs on a server, but this machine does not reach it at 10.0.0.9" in said
    assert "Its security group lets in 203.0.113.7; if the cloud sees another one, say --client-address" in said
    assert project.groups.asked("shut", "rules") == [["203.0.113.7/32 is let in"]]
    assert list(ipython.iterdir()) == []


def test_a_second_rule_that_is_refused_leaves_no_first(connect, project, rules, ipython):
    rules(QuotaError("Quota exceeded for resources."))
    status, said = connect()
    assert status == 1
    assert said.endswith("Quota exceeded for resources.\n")
    assert project.groups.asked("shut", "rules") == [["192.0.2.1/32 is let in"]]
    assert list(ipython.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_somebody_writes_into_the_profile_meanwhile_stays_when_it_is_interrupted(
    connect, ipython, monkeypatch, number
):
    mine = ipython / "profile_griffin" / "ipengine_config.py"

    def interrupted(info, *, timeout):
        mine.write_text("c.IPEngine.mine = 1\n")
        os.kill(os.getpid(), number)

    monkeypatch.setattr(hub_module, "Hub", interrupted)
    assert connect()[0] == 128 + number
    assert files(ipython) == ["profile_griffin/ipengine_config.py"]
    assert mine.read_text() == "c.IPEngine.mine = 1\n"
