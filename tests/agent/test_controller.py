"""The agent of a server that runs the controller, with everything around it replaced: no network, no sleep, no process."""

import json
import os
import random
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from ipp_griffin.agent import children
from ipp_griffin.agent.connection import secrets_of
from ipp_griffin.agent.controller import ACTIVITY_PROGRAM, END_PROGRAM, ControllerAgent, Idle, controller_command
from ipp_griffin.agent.errors import ControllerGone, Expired, Failure

from ..fakes import Clock
from .world import PARAMETERS, Net, http_error
from .world import PRIVATE_OBJECT as OF_ENGINES

KEYS = {"session": "5e55ion", "curve_public": "publ1c", "curve_secret": "s3cret"}
CONTROLLER = {
    "server": PARAMETERS["server"],
    "address": "10.0.0.9",
    "ports": "20000-20019",
    "keys": KEYS,
    "args": ["--nodb"],
    "config": "c = get_config()",
}
PRIVATE_OBJECT = {
    **{
        name: value
        for name, value in OF_ENGINES.items()
        if name not in ("connection", "ipengine_config", "engine_args")
    },
    "controller": CONTROLLER,
    "timeouts": {"controller": 60, "controller_gone": 300, "log_interval": 60, "idle": 0},
}
FILES = {
    "engine": {"interface": "tcp://10.0.0.9", "registration": 20000, "mux": 20001, "key": KEYS["session"]},
    "client": {"interface": "tcp://10.0.0.9", "registration": 20000, "mux": 20012, "key": KEYS["session"]},
}


class Over(Exception):
    """The test has seen enough."""


class World:
    """An agent and all that is around it. ``script``: what happens at the n-th start of ipcontroller, instead of its connection files."""

    def __init__(self, folder, monkeypatch, *script, net=None, timeouts=(), hub=lambda program: ""):
        self.net, self.clock, self.lines, self.problem = net or Net(), Clock(now=1000.0), [], ""
        self.started, self.killed, self.asked, self.script = [], [], [], list(script)
        self.agent = ControllerAgent(
            {**PARAMETERS, "engine_set": "controller", "engines": 1},
            str(folder / "state"),
            False,
            self.net,
            run=lambda argv, **how: self.ask(argv, hub),
            sleep=self.clock.sleep,
            monotonic=self.clock,
            connect=lambda address, port: self.problem,
            log=self.lines.append,
        )
        private_object = json.loads(json.dumps(PRIVATE_OBJECT))
        private_object["timeouts"].update(timeouts)
        self.agent.private_object = self.agent.runtime.private_object = private_object
        self.agent.runtime.home, self.agent.runtime.python = "/", "/opt/python"
        self.agent.redactor.hide(secrets_of(PARAMETERS, private_object))
        monkeypatch.setattr(
            children, "subprocess", SimpleNamespace(Popen=self.start, DEVNULL=-3, STDOUT=-2, SubprocessError=OSError)
        )
        monkeypatch.setattr(os, "killpg", lambda pid, sig: self.kill(pid, sig))
        monkeypatch.setattr(random, "uniform", lambda low, high: high)

    def ask(self, argv, hub):
        self.asked.append(argv[2])
        answer = hub(argv[2])
        return (0, f"{answer}\n") if isinstance(answer, str) else (1, "no hub")

    def start(self, command, stdout, env, **kwargs):
        assert kwargs["start_new_session"]
        process = SimpleNamespace(pid=100 + len(self.started), returncode=None, command=command, env=env)
        process.poll = lambda: process.returncode
        process.wait = process.poll
        profile = Path(next(arg for arg in command if arg.startswith("--profile-dir=")).partition("=")[2])
        process.found = {path.name: json.loads(path.read_text()) for path in (profile / "security").glob("*.json")}
        process.hub = profile / "log" / "engines.json"
        process.engines = process.hub.read_text() if process.hub.exists() else ""
        step = self.script[len(self.started)] if len(self.started) < len(self.script) else "runs"
        self.started.append(process)
        stdout.write(f"using key {KEYS['session']} and {KEYS['curve_secret']}\n".encode())
        if isinstance(step, int):
            process.returncode = step
        elif step == "runs":
            for name, content in FILES.items():
                (profile / "security" / f"ipcontroller-{name}.json").write_text(json.dumps(content))
        return process

    def kill(self, pid, sig):
        assert sig == signal.SIGKILL
        self.killed.append(pid)
        self.started[pid - 100].returncode = -9

    def run(self, story=(), seconds=30):
        """Let the agent work; ``story`` maps seconds to what happens then."""
        story, began = dict(story), self.clock.now

        def on_sleep():
            for when in [t for t in story if self.clock.now >= began + t]:
                story.pop(when)()
            if self.clock.now >= began + seconds:
                raise Over

        self.clock.then = on_sleep
        with pytest.raises(Over):
            self.agent.work()

    def hub_writes(self, text, number=0):
        return lambda: self.started[number].hub.write_text(text)

    def end(self, code, number=0):
        return lambda: setattr(self.started[number], "returncode", code)

    @property
    def puts(self):
        return [(r.full_url.partition("?")[0].rpartition("/")[2], json.loads(r.data)) for r in self.net.requests]

    @property
    def names(self):
        return [name for name, _ in self.puts if not name.endswith("-log")]


@pytest.fixture
def world(tmp_path, monkeypatch):
    return lambda *script, **how: World(tmp_path, monkeypatch, *script, **how)


def test_it_waits_for_the_object_that_has_this_servers_address(world):
    """Not that of the server whose slot it has taken."""
    early = [
        {**PRIVATE_OBJECT, "controller": {**CONTROLLER, "server": server}} for server in ("", "griffin-u-2-before")
    ]
    w = world(net=Net(*(json.dumps(each).encode() for each in (*early, PRIVATE_OBJECT))))
    w.agent.load()
    assert w.agent.private_object == PRIVATE_OBJECT
    assert [line for line in w.lines if "address is not known yet" in line] == w.lines
    assert len(w.lines) == 2


def test_all_keys_of_a_controller_are_secrets():
    assert set(KEYS.values()) <= set(secrets_of(PARAMETERS, PRIVATE_OBJECT))


@pytest.mark.parametrize("again", [False, True])
def test_the_command_has_ports_and_address_and_no_key(again):
    assert controller_command(CONTROLLER, ["python", "-m", "ipyparallel.controller"], "/p", again) == [
        "python",
        "-m",
        "ipyparallel.controller",
        "--profile-dir=/p",
        "--IPController.enable_curve=True",
        f"--IPController.reuse_files={again}",
        f"--IPController.restore_engines={again}",
        "--IPController.client_ports=20012-20019",
        "--IPController.engine_ports=20000-20011",
        "--ip=10.0.0.9",
        "--location=10.0.0.9",
        "--nodb",
    ]


def test_both_files_are_handed_over_whole_before_it_reports_that_it_runs(world):
    w = world()
    w.run()
    assert w.names == ["0000-connected", "handover", "0001-engines"]
    assert dict(w.puts)["handover"] == FILES
    assert "ipcontroller answers at 10.0.0.9:20000" in dict(w.puts)["0001-engines"]["message"]


def test_keys_reach_it_by_its_environment_and_no_report(world):
    w = world()
    w.run(seconds=130)
    env = w.started[0].env
    assert (env["IPP_SESSION_KEY"], env["IPP_CURVE_PUBLICKEY"], env["IPP_CURVE_SECRETKEY"]) == tuple(KEYS.values())
    said = " ".join(w.lines) + json.dumps([body for name, body in w.puts if name != "handover"])
    assert "using key *** and ***" in said
    assert not any(key in said + " ".join(w.started[0].command) for key in KEYS.values())


def test_after_a_crash_it_comes_back_with_its_files_and_is_not_handed_over_again(world):
    w = world()
    w.run({5: w.end(-9)})
    assert [process.found for process in w.started] == [
        {},
        {f"ipcontroller-{name}.json": content for name, content in FILES.items()},
    ]
    assert "--IPController.restore_engines=True" in w.started[1].command
    assert w.killed == [100]  # what its first process left would hold the ports
    assert w.names == ["0000-connected", "handover", "0001-engines", "0002-engines"]
    assert dict(w.puts)["0002-engines"]["message"].endswith("20000, again")


def test_after_a_reboot_it_comes_back_with_its_files(world, tmp_path, monkeypatch):
    world().run()
    again = World(tmp_path, monkeypatch)
    again.run()
    assert again.started[0].found == {f"ipcontroller-{name}.json": content for name, content in FILES.items()}
    assert "--IPController.reuse_files=True" in again.started[0].command
    assert "handover" not in again.names


ONE, TWO = ({"engines": {str(i): f"a-0-0-{i}-0" for i in range(n)}, "next_id": n} for n in (1, 2))


@pytest.mark.parametrize("left", ["", '{"engines": {"0": "a-0', json.dumps(ONE), None])
def test_after_a_power_loss_the_hub_knows_its_engines_whatever_became_of_its_file(world, tmp_path, monkeypatch, left):
    first = world()
    first.run({5: first.hub_writes(json.dumps(ONE)), 10: first.hub_writes(json.dumps(TWO))})
    if left is None:
        first.started[0].hub.unlink()
    else:
        first.hub_writes(left)()
    again = World(tmp_path, monkeypatch)
    again.run()
    assert json.loads(again.started[0].engines) == TWO


def test_after_a_crash_the_hub_knows_the_engine_of_the_last_moment(world):
    w = world()

    def last_moment():
        w.hub_writes(json.dumps(TWO))()
        w.end(-9)()

    w.run({5: w.hub_writes(json.dumps(ONE)), 10: last_moment})
    assert json.loads(w.started[1].engines) == TWO


@pytest.mark.parametrize("text", ["", "[1]", '{"engines": {}}', '{"next_id": "x"}', "{"])
def test_a_hubs_file_that_can_not_be_read_does_not_keep_the_controller_from_coming_back(world, text):
    w = world()
    w.run({5: w.hub_writes(text), 10: w.end(-9)})
    assert w.started[1].engines == ""


def test_one_that_never_answers_is_a_failure_with_its_last_words(world):
    w = world("silent")
    with pytest.raises(
        Failure, match=r"does not answer: it wrote no connection files\. Its last lines: using key \*\*\*"
    ):
        w.agent.work()
    assert w.clock.now >= 1060
    assert "handover" not in w.names


def test_one_that_ends_at_once_is_a_failure_at_once(world):
    w = world(2)
    with pytest.raises(Failure, match="does not answer: exit code 2"):
        w.agent.work()
    assert w.clock.now < 1005


def test_a_port_that_does_not_answer_is_named(world):
    w = world()
    w.problem = "Connection refused"
    with pytest.raises(Failure, match=r"does not answer: port 20000 \(Connection refused\)"):
        w.agent.work()


def test_a_restart_that_fails_is_one_crash_more(world):
    w = world("runs", 3, "runs")
    w.run({5: w.end(-11)})
    assert len(w.started) == 3
    assert w.names[-1] == "0002-engines"


def refuses(world):
    return lambda: setattr(world, "problem", "Connection refused")


def answers(world):
    return lambda: setattr(world, "problem", "")


def test_one_of_whose_processes_nothing_is_heard_any_more_is_started_anew_as_a_whole(world):
    """A scheduler was killed, for want of memory perhaps: ipcontroller does not notice."""
    w = world()
    w.run({7: refuses(w), 16: answers(w)})
    assert len(w.started) == 2
    assert w.killed == [100]
    assert "a process of ipcontroller has ended: port 20000 (Connection refused)" in w.lines
    assert w.started[1].found == {f"ipcontroller-{name}.json": content for name, content in FILES.items()}


@pytest.mark.parametrize("problem", ["Connection refused", "timed out"])
def test_a_port_that_does_not_answer_for_a_moment_or_is_not_refused_is_no_end_of_a_process(world, problem):
    w = world()
    moment = 3 if problem == "Connection refused" else 20
    w.run({7: lambda: setattr(w, "problem", problem), 7 + moment: answers(w)})
    assert len(w.started) == 1


def test_after_a_reboot_a_start_that_fails_is_one_crash_more(world, tmp_path, monkeypatch):
    """Its address may not be there yet, or its disk be slow: engines wait for it."""
    world().run()
    again = World(tmp_path, monkeypatch, 1, 1)
    again.run()
    assert len(again.started) == 3
    assert again.names[-1].endswith("-engines")


def test_after_a_reboot_a_command_that_can_not_be_run_is_one_crash_more(world, tmp_path, monkeypatch):
    world().run()
    again, failures = World(tmp_path, monkeypatch), [OSError("no memory")]
    run = children.subprocess.Popen

    def popen(*args, **how):
        if failures:
            raise failures.pop()
        return run(*args, **how)

    monkeypatch.setattr(children.subprocess, "Popen", popen)
    again.run()
    assert len(again.started) == 1
    assert again.names[-1].endswith("-engines")


def test_one_that_crashes_too_often_is_given_up_with_the_cause(world):
    w = world("runs", 3, 3, 3)

    def crash():
        w.started[0].returncode = -11

    with pytest.raises(Failure, match="crashed too often; the last time: ipcontroller does not answer: exit code 3"):
        w.clock.then = lambda: crash() if w.clock.now > 1005 else None
        w.agent.work()
    assert len(w.started) == 3  # two restarts in an hour


def test_a_store_that_does_not_take_the_files_fails_clearly(world):
    w = world(net=Net(http_error(403)))
    with pytest.raises(Failure, match="the connection files could not be published: HTTP Error 403"):
        w.agent.work()


def test_one_that_was_told_to_end_stays_down(world):
    """`Client.shutdown(hub=True)`."""
    w = world()
    w.clock.then = lambda: w.started and w.clock.now > 1005 and w.end(0)()
    with pytest.raises(ControllerGone, match="it was told to end"):
        w.agent.work()
    assert len(w.started) == 1


def test_the_agents_own_end_kills_it_with_all_its_processes(world):
    """Told to end, it would forget its engines, which wait out a reboot."""
    w = world()
    w.run()
    w.agent.end()
    assert w.killed == [100]


def test_at_the_end_of_its_life_it_ends_and_its_engines_first(world):
    w = world()
    w.agent.parameters["expires"] = 1
    with pytest.raises(Expired, match="^$"):
        w.agent.work()
    assert w.asked == [END_PROGRAM]


def test_at_the_end_of_its_life_nobody_is_asked_where_no_python_is_known(world):
    """The controller's command is the user's own."""
    w = world()
    w.agent.parameters["expires"], w.agent.runtime.python = 1, ""
    w.agent.private_object["engine_cmd"] = ["/opt/controller"]
    with pytest.raises(Expired):
        w.agent.work()
    assert w.asked == []


def test_an_idle_cluster_ends_its_engines_first(world):
    w = world(hub=lambda program: '["done", "done"]', timeouts={"idle": 120})
    with pytest.raises(Expired, match=r"nothing|anything to do for 120 s \(idle_timeout\)"):
        w.agent.work()
    assert w.asked[-1] == END_PROGRAM
    assert set(w.asked[:-1]) == {ACTIVITY_PROGRAM}
    assert 1120 <= w.clock.now < 1200


def test_that_the_hub_can_not_be_asked_is_logged_once_and_is_no_idleness(world):
    w = world(hub=lambda program: None, timeouts={"idle": 120})
    w.run(seconds=400)
    assert [line for line in w.lines if "can't be asked" in line] == ["the hub can't be asked now: no hub"]
    assert len(w.asked) > 2


@pytest.mark.parametrize(("idle", "needed"), [(0, False), (60, True)])
def test_a_command_of_the_users_needs_a_python_beside_it_where_the_hub_is_to_be_asked(world, idle, needed):
    assert world(timeouts={"idle": idle}).agent.needs_python() is needed


def idle(answers, timeout=100.0):
    """When, of seconds from now, it is over; ``answers``: what was done before and after each look, the last ones for ever."""
    clock = Clock(now=1000.0)
    told = iter(answers)
    last = [("", "")]

    def activity():
        last[0] = next(told, last[0])
        return last[0]

    watch = Idle(timeout, activity, clock)
    for _ in range(2000):
        if watch.over():
            return clock.now - 1000
        clock.now += 1
    return None


@pytest.mark.parametrize(
    ("answers", "over"),
    [
        ([("a", "a")], 100),
        ([("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"), ("e", "f")], 100),  # the looks themselves are no work
        ([("a", "a"), ("a", "a"), ("b", "b")], 150),  # something was done before the third look
        ([("a", "b"), ("b", ""), ("b", "b")], 150),  # an engine was at work that the hub knew nothing of
        ([("a", "a"), ("", ""), ("a", "a")], 150),  # somebody is busy, or the hub can't be asked
        ([("", "")], None),
    ],
)
def test_idle_is_who_has_done_nothing_for_so_long(answers, over):
    assert idle(answers) == over


def test_without_a_timeout_nobody_is_asked():
    assert idle([("a", "a")], timeout=0) is None
