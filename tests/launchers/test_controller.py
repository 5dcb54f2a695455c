"""`GriffinControllerLauncher`: its arguments, its files and its process."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
from ipyparallel.cluster.launcher import LocalControllerLauncher, LocalEngineSetLauncher, NotRunning
from traitlets.config import Config, Configurable

from ipp_griffin.common.errors import GriffinError, SettingError, Stopped, Unavailable, Unsupported
from ipp_griffin.controller.ipcontroller import STARTER
from ipp_griffin.launchers import GriffinEngineSetLauncher
from ipp_griffin.launchers.cloud_settings import GriffinCloud
from ipp_griffin.launchers.controller import GriffinControllerLauncher

from ..fakes import FakeCloud
from .machine import Sockets, on

# --- arguments


@pytest.fixture
def launcher(tmp_path, monkeypatch, addresses):
    """On a cloud whose servers are on 10.1.0.0/16; all ports are free."""
    Sockets(monkeypatch)
    (tmp_path / "security").mkdir()
    made = GriffinControllerLauncher(profile_dir=str(tmp_path))
    monkeypatch.setattr(made, "connect", lambda: on("10.1.0.0/16"))
    return made


ALWAYS = ["--IPController.enable_curve=True", "--IPController.reuse_files=False"]


@pytest.mark.parametrize(
    ("given", "decided"),
    [
        ([], [*ALWAYS, "--ip=10.1.2.3", "--location=10.1.2.3", "--ports=20000-20019"]),
        (["--nodb"], [*ALWAYS, "--ip=10.1.2.3", "--location=10.1.2.3", "--ports=20000-20019"]),
        (["--ip=10.9.9.9"], [*ALWAYS, "--location=10.1.2.3", "--ports=20000-20019"]),
        (["--ip", "*", "--location", "me"], [*ALWAYS, "--ports=20000-20019"]),
        (["--location=head"], [*ALWAYS, "--ip=10.1.2.3", "--ports=20000-20019"]),
        (["--ports=5000-5100"], [*ALWAYS, "--ip=10.1.2.3", "--location=10.1.2.3"]),
        (["--IPController.ports=5000-5100"], [*ALWAYS, "--ip=10.1.2.3", "--location=10.1.2.3"]),
    ],
)
def test_only_what_the_user_did_not_give_is_added(launcher, given, decided):
    """A repeated option is fatal to ipcontroller."""
    launcher.controller_args = given
    assert launcher._decide_args(GriffinCloud()) == decided


def test_the_settings_of_the_launcher_decide(launcher, monkeypatch):
    launcher.ip, launcher.ports = "10.7.7.7", "30000-30100"
    monkeypatch.setattr(launcher, "connect", lambda: pytest.fail("no question to the cloud"))
    assert launcher._decide_args(GriffinCloud()) == [
        *ALWAYS,
        "--ip=10.7.7.7",
        "--location=10.7.7.7",
        "--ports=30000-30019",
    ]


def test_ports_are_looked_for_at_the_address_it_will_listen_on(launcher, monkeypatch):
    sockets = Sockets(monkeypatch, ("10.9.9.9", 20003))
    launcher.controller_args = ["--ip=10.9.9.9"]
    assert launcher._decide_args(GriffinCloud())[-1] == "--ports=20020-20039"
    assert {address for address, _ in sockets.tried} == {"10.9.9.9"}


@pytest.mark.parametrize("arg", ["--IPController.enable_curve=False", "--IPController.enable_curve=True"])
async def test_curve_is_not_the_users_to_set(launcher, arg):
    launcher.controller_args = [arg]
    with pytest.raises(SettingError, match="CurveZMQ is always on: remove --IPController.enable_curve"):
        await launcher.start()


def test_the_signing_key_is_random_stays_the_same_and_is_no_argument(launcher):
    key = launcher.get_env()["IPP_SESSION_KEY"]
    assert len(bytes.fromhex(key)) == 32
    assert launcher.get_env()["IPP_SESSION_KEY"] == key
    assert GriffinControllerLauncher().get_env()["IPP_SESSION_KEY"] != key
    launcher._own_args = launcher._decide_args(GriffinCloud())
    assert launcher.args[-5:] == launcher._own_args
    assert key not in launcher.arg_str
    assert key not in json.dumps(launcher.to_dict())


def test_a_signing_key_of_the_users_own_is_kept(launcher):
    launcher.environment = {"IPP_SESSION_KEY": "mine"}
    assert launcher.get_env()["IPP_SESSION_KEY"] == "mine"


def test_ipcontroller_is_told_who_started_it(launcher):
    launcher.environment = {STARTER: "1"}
    assert launcher.get_env()[STARTER] == str(os.getpid())


# --- files and process

CONNECTION = {"interface": "tcp://127.0.0.1", "registration": 20000, "key": "k", "location": "127.0.0.1"}

# A process of two, as ipcontroller is one of many: it writes its connection files, and waits.
FAKE_CONTROLLER = """
import json, os, sys, time
if os.fork() == 0:
    time.sleep(600)
for kind in ("client", "engine"):
    path = os.path.join({folder!r}, f"ipcontroller-{{kind}}.json")
    if not os.path.exists(path):
        with open(path + ".new", "w") as f:
            json.dump({connection!r}, f)
        os.rename(path + ".new", path)
time.sleep(600)
"""


@pytest.fixture
async def local(tmp_path, monkeypatch):
    """A launcher of a made-up controller; its whole process group has ended afterwards, whatever the test did."""
    security = tmp_path / "security"
    security.mkdir()
    source = FAKE_CONTROLLER.format(folder=str(security), connection=CONNECTION)
    made = GriffinControllerLauncher(profile_dir=str(tmp_path), controller_cmd=[sys.executable, "-c", source])
    made.security = security
    monkeypatch.setattr(made, "_decide_args", lambda settings: [])
    monkeypatch.setattr(made, "sweep", lambda: None)
    monkeypatch.setattr(made, "connect", lambda: "a cloud")
    monkeypatch.setattr(made, "record_project", lambda settings: None)
    yield made
    if made.pid > 0:
        made._end_group()
        await made.join(60)


def stale(launcher):
    for kind in ("client", "engine"):
        (launcher.security / f"ipcontroller-{kind}.json").write_text(json.dumps({**CONNECTION, "key": "old"}))


async def test_files_of_an_earlier_controller_are_removed_before_the_start(local):
    """Engines would be sent to it."""
    stale(local)
    await local.start()
    assert {p.name: json.loads(p.read_text())["key"] for p in local.security.iterdir()} == {
        "ipcontroller-client.json": "k",
        "ipcontroller-engine.json": "k",
    }
    assert local.state == "running"


@pytest.mark.parametrize("arg", ["--reuse", "--restore", "--IPController.reuse_files=True"])
async def test_using_connection_files_again_is_refused(launcher, arg):
    """ipcontroller makes new Curve keys in every run, and does not write them to files that are used again."""
    launcher.controller_args = [arg]
    with pytest.raises(SettingError, match="can't be reused"):
        await launcher.start()


async def test_a_controller_that_ends_at_once_fails_the_start_with_its_last_lines(local):
    local.controller_cmd = ["sh", "-c", "echo starting; echo No such port; exit 3"]
    with pytest.raises(Exception, match=r"ipcontroller ended at once: starting \| No such port"):
        await local.start()
    await local.join(60)
    assert local.state == "after"


async def test_its_output_is_private_and_read_without_keys_or_control_characters(local, capsys):
    """Whatever runs: here it is a command of the user's own, which prints what it has."""
    key = "5ecre7" * 6
    say = f"import os; print({key!r}, os.environ['IPP_SESSION_KEY'], '\\x1b]8;;http://x\\x07', flush=True)"
    local.controller_cmd = [
        sys.executable,
        "-c",
        f"{say}\n{local.controller_cmd[2]}".replace("'key': 'k'", f"'key': {key!r}"),
    ]
    old = Path(local.output_file)
    old.write_text("of an earlier run\n")  # ipyparallel's, which everybody may read
    await local.start()
    assert old.stat().st_mode & 0o777 == 0o600
    local._start_streaming()
    streamed = ""
    while streamed.count("\n") < 2:
        await asyncio.sleep(0.02)
        streamed += capsys.readouterr().err
    assert local._session_key and key in old.read_text()
    await local.stop()  # the connection files go, the keys in them are known still
    for text in (streamed, local.get_output()):
        assert text == "of an earlier run\n*** *** \\x1b]8;;http://x\\x07\n"
    local.get_output(remove=True)
    assert not old.exists()


async def test_keys_are_read_once_and_again_when_they_change(local, monkeypatch):
    """With `ipcluster --debug` every message that passes is a line."""
    monkeypatch.setattr(local, "_start_streaming", lambda: None)  # whose thread reads them, too, at any time
    await local.start()
    read = []
    read_text = Path.read_text

    def counted(path, *args, **how):
        if path.parent == local.security:
            read.append(path.name)
        return read_text(path, *args, **how)

    monkeypatch.setattr(Path, "read_text", counted)
    assert [local._redactor().text("a k, a secret") for _ in range(3)] == ["a ***, a secret"] * 3
    assert len(read) <= 2
    for path in local.security.iterdir():
        path.write_text(json.dumps({**CONNECTION, "key": "secret"}))
        os.utime(path, ns=(1, 1))
    assert local._redactor().text("a k, a secret") == "a ***, a ***"
    await local.stop()


@pytest.mark.parametrize("arg", ["--Session.key=abc", "--IPController.curve_secretkey=abc"])
async def test_a_key_in_the_arguments_is_refused(launcher, arg):
    launcher.controller_args = [arg]
    with pytest.raises(SettingError) as raised:
        await launcher.start()
    assert "every user of this machine can read" in str(raised.value)
    assert "abc" not in str(raised.value)


async def test_stop_ends_the_process_and_can_be_repeated(local):
    await local.start()
    members = group(local.pid)
    assert len(members) == 2
    await local.stop()
    await local.stop()
    assert local.state == "after"
    gone, alive = psutil.wait_procs(members, timeout=60)
    assert alive == []


async def test_the_state_in_the_cluster_file_survives_a_round_trip(local):
    await local.start()
    state = json.loads(json.dumps(local.to_dict()))
    assert (state["pid"], state["uid"], state["state"]) == (local.pid, local.uid, "running")
    assert len(local.uid) == 12
    restored = GriffinControllerLauncher.from_dict(state)
    try:
        assert restored.to_dict() == state
    finally:
        restored._stop_waiting.set()
    assert restored.process == psutil.Process(local.pid)


async def test_a_pid_that_another_process_has_now_is_not_running():
    """ipyparallel alone would take it for the controller, and signal it at the stop."""
    me = psutil.Process()
    state = {"pid": me.pid, "process_created": me.create_time() - 60, "state": "running"}
    with pytest.raises(NotRunning, match=f"Process {me.pid} has ended"):
        GriffinControllerLauncher.from_dict(state)


async def test_a_pid_that_no_process_has_is_not_running():
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(NotRunning):
        GriffinControllerLauncher.from_dict({"pid": process.pid, "process_created": 1.0, "state": "running"})


def group(leader: int) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == leader:
                found.append(process)
    return found


async def test_sigkill_ends_the_whole_process_group(local):
    """A heart monitor that outlives its ipcontroller keeps engines waiting for minutes."""
    await local.start()
    members = group(local.pid)
    assert len(members) == 2
    local.signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(members, timeout=60)
    assert alive == []


async def test_what_is_left_of_the_group_ends_with_its_leader(local):
    await local.start()
    members = group(local.pid)
    os.kill(local.pid, signal.SIGKILL)
    stopped = asyncio.Event()
    local.on_stop(lambda data: stopped.set())
    await asyncio.wait_for(stopped.wait(), 60)
    gone, alive = psutil.wait_procs(members, timeout=60)
    assert alive == []


async def test_another_signal_goes_to_the_controller_alone(local, monkeypatch):
    await local.start()
    sent = []
    monkeypatch.setattr(LocalControllerLauncher, "signal", lambda self, sig: sent.append(sig))
    local.signal(signal.SIGINT)
    assert sent == [signal.SIGINT]
    assert len(group(local.pid)) == 2


# --- what fails, and what is restored


async def test_a_start_records_which_project_it_is_in(launcher, monkeypatch):
    """`stop` must not take another project's emptiness for success."""
    cloud = FakeCloud()
    monkeypatch.setattr(launcher, "connect", lambda: cloud)
    launcher.record_project(GriffinCloud(store_url="internal"))
    assert cloud.asked("check_services", "servers_interface") == ["internal"]
    assert (launcher.region, launcher.project) == ("north", "p1")
    assert launcher.to_dict()["project"] == "p1"


async def test_the_process_is_in_the_cluster_file_before_it_is_ready(local, monkeypatch):
    """Whoever kills this one while it waits must leave nothing that a stop does not find."""
    recorded = []

    class Cluster(Configurable):
        def update_cluster_file(self):
            recorded.append((local.to_dict()["pid"], local.to_dict()["process_created"], local.uid))

    local.parent = Cluster()
    await local.start()
    assert recorded == [(local.pid, local.process_created, "")]
    assert local.process_created > 0 and local.uid
    await local.stop()


@pytest.mark.parametrize(("engines", "asked"), [(GriffinEngineSetLauncher, ["a cloud"]), (LocalEngineSetLauncher, [])])
async def test_what_engines_on_servers_will_need_is_asked_before_the_controller_starts(
    local, monkeypatch, engines, asked
):
    """And only where they are to be on servers."""

    class Cluster(Configurable):
        engine_launcher_class = engines

        def update_cluster_file(self):
            assert seen == asked

    seen = []
    monkeypatch.setattr(GriffinCloud, "prefetch", lambda settings, cloud: seen.append(cloud))
    local.parent = Cluster()
    await local.start()
    assert seen == asked
    await local.stop()


class RecordedCluster(Configurable):
    """ipyparallel's, as far as a controller's launcher needs it: notes whether the launcher ran when the file was written."""

    launcher = None

    def __init__(self, launcher):
        super().__init__()
        self.launcher, self.written = launcher, []
        launcher.parent = self

    def update_cluster_file(self):
        self.written.append(self.launcher.running)


async def test_a_cloud_that_lacks_a_service_fails_the_start_and_leaves_no_process(launcher, monkeypatch):
    """ipcontroller waits for its address then. Nobody is told that it ended: the cause is what counts. What another cluster of that id has on
    this machine stays."""
    Path(launcher.connection_files["engine"]).write_text(json.dumps(CONNECTION))
    cloud = FakeCloud()
    cloud.fail["check_services"] = [Unsupported("no object store")]
    monkeypatch.setattr(launcher, "connect", lambda: cloud)
    cluster, stopped = RecordedCluster(launcher), []
    launcher.on_stop(stopped.append)
    with pytest.raises(Unsupported, match="no object store"):
        await launcher.start()
    assert not launcher.running and not launcher.uid
    assert cluster.written == [] and stopped == []
    assert group(launcher.pid) == []
    assert [path.name for path in Path(launcher.profile_dir, "security").iterdir()] == ["ipcontroller-engine.json"]


async def test_ipcontroller_loads_while_the_launcher_logs_in_and_gets_its_address_afterwards(launcher, monkeypatch):
    started = []
    monkeypatch.setattr(launcher, "connect", lambda: "a cloud")
    monkeypatch.setattr(launcher, "record_project", lambda settings: started.append(launcher.running))
    monkeypatch.setattr(launcher, "_decide_args", lambda settings: [*ALWAYS, "--ip=127.0.0.1", "--location=here"])
    await launcher.start()
    try:
        assert started == [True]
        connection = json.loads(Path(launcher.connection_files["engine"]).read_text())
        assert (connection["interface"], connection["location"]) == ("tcp://127.0.0.1", "here")
        assert "--ip=127.0.0.1" not in launcher.process.cmdline()
    finally:
        launcher._end_group()
        await launcher.join(60)


@pytest.fixture
def waiting(launcher, monkeypatch):
    """A launcher of a real ipcontroller, which waits for its address; ``waiting.meanwhile()`` is what happens then."""
    monkeypatch.setattr(launcher, "connect", lambda: "a cloud")
    monkeypatch.setattr(launcher, "record_project", lambda settings: launcher.meanwhile())
    monkeypatch.setattr(launcher, "_decide_args", lambda settings: [*ALWAYS, "--ip=127.0.0.1", "--location=here"])
    monkeypatch.setattr(launcher, "sweep", lambda: None)
    launcher.meanwhile = lambda: None
    yield launcher
    assert group(launcher.pid) == []
    assert list(Path(launcher.profile_dir, "security").iterdir()) == []


async def test_one_that_ends_before_it_gets_its_address_fails_the_start(waiting):
    def ends():
        os.kill(waiting.pid, signal.SIGKILL)
        psutil.wait_procs([waiting.process], timeout=60)

    waiting.meanwhile = ends
    with pytest.raises(GriffinError, match="ipcontroller ended at once"):
        await waiting.start()


async def test_a_stop_while_it_waits_for_its_address_ends_it_and_the_start(waiting):
    loop = asyncio.get_running_loop()
    waiting.meanwhile = lambda: asyncio.run_coroutine_threadsafe(waiting.stop(), loop).result(60)
    with pytest.raises(Stopped, match="The controller was stopped while it was starting"):
        await waiting.start()


async def test_a_start_that_is_cancelled_while_it_waits_for_its_address_ends_it(waiting):
    reached, go = threading.Event(), threading.Event()
    waiting.meanwhile = lambda: (reached.set(), go.wait(60))
    start = asyncio.create_task(waiting.start())
    while not reached.is_set():
        await asyncio.sleep(0.01)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    go.set()


async def test_a_command_of_the_users_own_is_started_when_all_its_arguments_are_known(local, monkeypatch):
    started = []
    monkeypatch.setattr(local, "record_project", lambda settings: started.append(local.running))
    monkeypatch.setattr(local, "_decide_args", lambda settings: ["--ip=10.1.2.3"])
    await local.start()
    assert started == [False]
    assert local.process.cmdline()[-1] == "--ip=10.1.2.3"


async def test_a_stop_that_fails_leaves_the_controller_running_and_another_one_succeeds(local, monkeypatch):
    """Otherwise nobody could find what is left."""
    await local.start()
    error = Unavailable("the cloud said 503")

    def refuse():
        raise error

    monkeypatch.setattr(local, "sweep", refuse)
    with pytest.raises(Unavailable) as raised:
        await local.stop()
    assert raised.value is error
    assert local.state == "running"
    assert local.process.is_running()
    assert len(list(local.security.iterdir())) == 2
    monkeypatch.setattr(local, "sweep", lambda: None)
    await local.stop()
    assert local.state == "after"
    assert list(local.security.iterdir()) == []


async def test_the_connection_files_of_a_controller_that_was_killed_go_with_it(local):
    await local.start()
    stopped = asyncio.Event()
    local.on_stop(lambda data: stopped.set())
    os.kill(local.pid, signal.SIGKILL)
    await asyncio.wait_for(stopped.wait(), 60)
    assert list(local.security.iterdir()) == []


async def test_stop_keeps_the_connection_files_of_another_controller(local):
    await local.start()
    stale(local)
    for path in local.security.iterdir():
        path.write_text(json.dumps({**CONNECTION, "registration": 1, "key": "another"}))
    await local.stop()
    assert len(list(local.security.iterdir())) == 2


async def test_a_controller_that_was_killed_is_restored_while_its_group_lives_and_stop_ends_the_group(
    tmp_path, monkeypatch
):
    leader = subprocess.Popen(["sh", "-c", "sleep 600 & wait"], start_new_session=True)
    created = psutil.Process(leader.pid).create_time()
    while len(group(leader.pid)) < 2:
        await asyncio.sleep(0.01)
    (child,) = [p for p in group(leader.pid) if p.pid != leader.pid]
    leader.kill()
    leader.wait()
    try:
        state = {"pid": leader.pid, "process_created": created, "state": "running", "uid": "0123456789ab"}
        restored = GriffinControllerLauncher.from_dict(state, profile_dir=str(tmp_path))
        swept = []
        monkeypatch.setattr(restored, "sweep", lambda: swept.append(restored.uid))
        assert restored.running
        await restored.stop()
        assert (restored.state, swept) == ("after", ["0123456789ab"])
        gone, alive = psutil.wait_procs([child], timeout=60)
        assert alive == []
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


async def test_a_setting_of_a_wrong_type_is_told_by_the_start(tmp_path):
    wrong = Config({"GriffinControllerLauncher": {"ip": 5}})
    launcher = GriffinControllerLauncher(config=wrong, profile_dir=str(tmp_path))
    with pytest.raises(SettingError, match="A setting is wrong: .*'ip' trait"):
        await launcher.start()
