"""Engines: their start, restarts, and end."""

import json
from pathlib import Path

import pytest

from ipp_griffin.agent.agent import POLL
from ipp_griffin.agent.children import Child
from ipp_griffin.agent.engines import OVERDUE, SETTLED, engine_command, is_registered, why_ended
from ipp_griffin.agent.errors import ControllerGone, Failure

from .world import CONNECTION, PRIVATE_OBJECT, end, engines_of, starting, write_log


@pytest.mark.parametrize(
    ("log", "registered"),
    [
        (b"[IPEngine.3] Completed registration with id 3\n", True),
        (b"[KernelNanny.0] Starting kernel nanny for engine 0, pid=29760", True),
        (b"[IPEngine] Registering with controller at tcp://127.0.0.1:34965", False),
        (b"", False),
    ],
)
def test_registration_is_read_off_the_log(log, registered):
    assert is_registered(log) is registered


@pytest.mark.parametrize(
    ("exit_code", "log", "why"),
    [
        (1, b"[KernelNanny.4] Pipe closed, parent 29759 has status: zombie", "asked"),  # Client.shutdown
        (1, b"received signal 15, stopping", "asked"),
        (0, b"", "asked"),
        (-9, b"[KernelNanny.2] Sending signal 9 to pid 29763", "asked"),
        (-15, b"Sending signal Signals.SIGTERM to pid 29763", "asked"),
        (-9, b"", "crash"),  # the kernel was out of memory
        (-11, b"Sending signal 10 to pid 29763", "crash"),
        (-9, b"Sending signal 2 to pid 29763", "crash"),
        (-64, b"", "crash"),
        (-70, b"", "crash"),
        (7, b"", "crash"),
        (1, b"Maximum number of heartbeats misses reached (50 times 3500 ms), shutting down.", "controller"),
        (255, b"Registration timed out after 120.0 seconds", "controller"),
    ],
)
def test_why_an_engine_ended(exit_code, log, why):
    assert why_ended(exit_code, log) == why


def test_the_command_of_an_engine():
    assert engine_command({**PRIVATE_OBJECT, "engine_args": ["--mpi"]}, "/py", "/p", "s-2-1-0-0") == [
        "/py",
        "-m",
        "ipyparallel.engine",
        "--profile-dir=/p",
        "--Session.session=s-2-1-0-0",
        "--IPEngine.url_file=/p/security/ipcontroller-engine.json",
        "--timeout=120",
        "--mpi",
    ]


@pytest.mark.parametrize("argument", ["--timeout=7", "--IPEngine.timeout=7", "-timeout=7"])
def test_the_users_own_registration_timeout_is_kept(argument):
    command = engine_command(
        {**PRIVATE_OBJECT, "engine_cmd": ["mpirun", "ipengine"], "engine_args": [argument]}, "/py", "/p", "u"
    )
    assert command[:2] == ["mpirun", "ipengine"]
    assert [a for a in command if "timeout" in a] == [argument]


def test_an_unreachable_controller_is_waited_for_and_then_a_failure(world):
    w = world()
    w.problem = "Connection refused"
    with pytest.raises(Failure, match=r"unreachable for 60 s: address 10.0.0.5 port 20001 \(Connection refused\)\."):
        w.agent.reach_controller()
    assert w.clock.now - 1000 == 60


def test_a_controller_that_comes_in_time_is_reached(world):
    w = world()
    w.problem = "timed out"
    w.clock.then = lambda: setattr(w, "problem", "" if w.clock.now >= 1030 else w.problem)
    w.agent.reach_controller()
    assert w.clock.now == 1030


def test_after_a_reboot_an_unreachable_controller_is_a_controller_that_is_gone(world):
    w = world()
    w.agent.state.keep(ran=True)
    w.problem = "no route"
    with pytest.raises(ControllerGone, match="no route"):
        w.agent.reach_controller()
    assert w.clock.now - 1000 == 300


def test_that_the_controller_answers_is_reported_when_the_engines_start_already(world, processes, monkeypatch):
    """They take longer to register than the store to take a report; what they are for comes first."""
    w = world()
    w.agent.runtime.home = "/"
    monkeypatch.setattr(w.agent, "watch", lambda profile: w.agent.reports.write("engines", w.agent.summary()))
    w.agent.work()
    assert w.net.names == ["0000-connected", "0001-engines"]
    assert engines_of(w.net.reports[0][1]) == [("0", True, None)] * 2
    assert [e["registered"] for e in w.net.reports[0][1]["engines"]] == [False, False]


def test_engines_that_take_long_to_register_have_their_logs_reported_meanwhile(world, processes):
    processes.log = b"Registering with controller at tcp://10.0.0.5:20001\n"
    w = starting(world, 1)

    def on_sleep():
        write_log(w, b"x\n")()
        processes.all[0].returncode = 255 if w.clock.now > 1100 else None

    w.clock.then = on_sleep
    with pytest.raises(Failure):
        w.agent.start_engines("/p")
    assert w.net.names == ["0000-connected", "0001-log"]


def test_engines_start_a_few_at_a_time_the_next_when_one_has_registered(world, processes, two_cores):
    processes.log = b"Registering with controller at tcp://10.0.0.5:20001\n"
    w, started = starting(world, 7), []

    def on_sleep():
        started.append(len(processes.all))
        write_log(w, b"Completed registration with id 0\n", len(started) - 1)()

    w.clock.then = on_sleep
    w.agent.start_engines("/p")
    assert started == [4, 5, 6, 7, 7, 7, 7]
    assert w.net.names == ["0000-connected"]
    first = w.net.reports[0][1]["engines"]  # it is written when the first ones are on their way
    assert [e["alive"] for e in first] == [True] * 4 + [False] * 3
    assert [e["uuid"] for e in first][3:5] == ["89abcdef-2-1-3-0", ""]


def test_engines_that_take_long_hold_up_the_others_for_a_while_only(world, processes, two_cores):
    """Those that never log anything would, for as long as it takes to believe that they run."""
    processes.log = b""
    w, started = starting(world, 7), {}
    w.clock.then = lambda: started.setdefault(len(processes.all), w.clock.now - 1000 - POLL)
    w.agent.start_engines("/p")
    assert started == {4: 0, 7: OVERDUE}
    assert w.clock.now - 1000 == pytest.approx(OVERDUE + SETTLED, abs=1)


def test_an_engine_that_ends_at_once_keeps_those_after_it_from_starting(world, processes, two_cores):
    processes.log = b"no luck\n"
    w = starting(world, 7)
    w.clock.then = lambda: setattr(processes.all[2], "returncode", 3)
    with pytest.raises(Failure, match=r"engine 2 ended before it had registered \(exit code 3\)"):
        w.agent.start_engines("/p")
    assert len(processes.all) == 4
    w.agent.end()  # also those that never started


def test_after_a_reboot_engines_start_at_once_and_are_not_waited_for(world, processes, two_cores):
    processes.log = b""
    w = starting(world, 7)
    w.agent.state.keep(ran=True)
    w.agent.start_engines("/p")
    assert len(processes.all) == 7 and w.clock.slept == []
    assert w.net.names == ["0000-connected"]


def test_the_environment_of_an_engine(watched, monkeypatch):
    environment = watched.processes.all[1].env
    assert {k: v for k, v in environment.items() if k.startswith("GRIFFIN") or k in ("A", "PYTHONUNBUFFERED")} == {
        "A": "b",
        "PYTHONUNBUFFERED": "1",
        "GRIFFIN_SERVER": "griffin-u-2",
        "GRIFFIN_UID": "0123456789ab",
        "GRIFFIN_SLOT": "2",
        "GRIFFIN_ENGINE": "1",
        "GRIFFIN_CONNECTION_FILE": "/p/security/ipcontroller-engine.json",
    }
    assert not {"IPP_CONNECTION_INFO", "OS_PASSWORD", "PYTEST_CURRENT_TEST"} & set(environment)


def test_engines_get_the_proxy_unless_the_environment_that_they_are_to_have_says_otherwise(world, processes):
    w = world(proxy="http://proxy:3128")
    w.agent.runtime.home = "/"
    w.agent.private_object["environment"] = {"https_proxy": "http://mine:1"}
    w.agent.start_engine(Child(0, w.agent.state.path("engine-0.log")), "/p")
    found = processes.all[0].env
    assert (found["http_proxy"], found["https_proxy"]) == ("http://proxy:3128", "http://mine:1")
    assert found["no_proxy"].startswith("localhost,127.0.0.1,")


def test_a_crashed_engine_is_restarted_as_the_next_generation(watched):
    watched.watch({2: end(watched.processes.all[0], -9)}, 10)
    assert watched.net.names == ["0000-engines", "0001-engines"]
    assert engines_of(watched.net.reports[1][1]) == [("1", True, None), ("0", True, None)]
    assert watched.agent.state.kept["generations"] == [2, 1]


def test_when_no_engine_lives_that_is_reported_before_any_restart(watched):
    first, second = watched.processes.all
    watched.watch({2: lambda: (end(first, -11)(), end(second, -11)())}, 10)
    assert watched.net.names == ["0000-engines", "0001-gone", "0002-engines"]
    assert engines_of(watched.net.reports[1][1]) == [("0", False, -11), ("0", False, -11)]
    assert watched.net.reports[1][1]["message"] == (
        "0 of 2 engines run; ended: 0 killed by signal 11, 1 killed by signal 11"
    )


def test_engines_that_were_shut_down_stay_down(watched):
    first, second = watched.processes.all
    watched.watch({2: end(first, 1), 20: end(second, 1)}, 2000)
    assert watched.net.names == ["0000-engines", "0001-engines", "0002-gone"]
    assert len(watched.processes.all) == 2


def test_an_engine_that_crashes_too_often_stays_down(watched):
    def crash_again():
        live = [p for p in watched.processes.all if p.returncode is None and p.env["GRIFFIN_ENGINE"] == "0"]
        for process in live:
            process.returncode = 3

    watched.watch(dict.fromkeys(range(10, 200, 10), crash_again), 300)
    assert len(watched.processes.all) == 2 + 2  # "restarts": 2
    assert watched.net.reports[-1][1]["message"].endswith("engine 0 crashed too often and stays down")
    assert engines_of(watched.net.reports[-1][1]) == [("2", False, 3), ("0", True, None)]


def test_engines_without_a_controller_wait_for_it(watched):
    """They ended because it was away for a while; when it is back they start again, however often."""
    lost = b"Maximum number of heartbeats misses reached (50 times 3500 ms), shutting down."

    def controller_dies():
        watched.problem = "Connection refused"
        for engine in watched.agent.engines:
            end(engine.process, 1, lost, engine.log)()

    watched.watch({10: controller_dies, 200: lambda: setattr(watched, "problem", "")}, 250)
    assert watched.net.names == ["0000-engines", "0001-gone", "0002-engines"]
    assert [e.crashes for e in watched.agent.engines] == [[], []]


def test_a_controller_that_stays_away_ends_the_watch(watched):
    def controller_dies():
        watched.problem = "Connection refused"
        for process in watched.processes.all:
            process.returncode = -9

    watched.clock.then = lambda: controller_dies() if watched.clock.now >= 1010 else None
    with pytest.raises(ControllerGone, match="Connection refused"):
        watched.agent.watch("/p")
    assert 1310 <= watched.clock.now <= 1320
    assert watched.net.names == ["0000-engines", "0001-gone"]
    assert len(watched.processes.all) == 2


def test_a_stranger_on_the_controllers_port_counts_as_no_controller(watched):
    """Another cluster may have got the port: engines restart and time out, and that ends too."""
    watched.processes.log = b"Registering with controller at tcp://10.0.0.5:20001\n"

    def time_out():
        for engine in watched.agent.engines:
            if engine.process.returncode is None and (not engine.registered or watched.clock.now < 1020):
                end(engine.process, 255, b"Registration timed out after 120.0 seconds", engine.log)()

    watched.clock.then = lambda: time_out() if watched.clock.now % 100 >= 99.7 else None
    with pytest.raises(ControllerGone, match="does not register our engines"):
        for engine in watched.agent.engines:
            end(engine.process, 1, b"Maximum number of heartbeats misses reached", engine.log)()
        watched.agent.watch("/p")
    assert watched.clock.now < 1600


def test_an_engine_that_logs_nothing_counts_as_running_after_a_while(world, processes):
    """With --log-level=40 and no nanny there is no line to wait for."""
    processes.log = b""
    w = starting(world, 1)
    w.agent.start_engines("/p")
    assert w.clock.now - 1000 == pytest.approx(SETTLED, abs=1)


def test_an_engine_that_says_it_is_registering_is_waited_for(world, processes):
    processes.log = b"Registering with controller at tcp://10.0.0.5:20001\n"
    w = starting(world, 1)
    w.clock.then = lambda: setattr(processes.all[0], "returncode", 255 if w.clock.now > 1120 else None)
    with pytest.raises(
        Failure, match=r"engine 0 ended before it had registered \(exit code 255\). Its last lines: Reg"
    ):
        w.agent.start_engines("/p")


def test_what_engines_read_is_theirs_alone(world):
    w = world()
    profile = Path(w.agent.write_profile())
    files = {str(p.relative_to(profile)): p.stat().st_mode & 0o777 for p in profile.rglob("*") if p.is_file()}
    assert files == {"ipengine_config.py": 0o600, "security/ipcontroller-engine.json": 0o600}
    assert json.loads((profile / "security/ipcontroller-engine.json").read_text()) == CONNECTION
