"""The agent of a server that runs engines: start them, restart those that crash, and wait for a controller that is away.

An engine that was told to end stays down, one that crashed is restarted as the next generation: see `why_ended`.
"""

import json
import os
import re
import signal
from typing import List, Optional, Sequence

from .agent import POLL, PROBE, Agent, make_profile
from .children import Child, restart_pause
from .connection import own_address, unreachable_port
from .errors import ControllerGone, Expired, Failure
from .system import Json, acting_as, write
from .text import exit_text, last_lines, said

ABREAST = 2  # engines for each core that start at a time
OVERDUE = 5.0  # seconds that the next wait for one of them at most
SETTLED = 30.0  # seconds alive after which an engine that logs nothing counts as running


def connection_file(profile: str) -> str:
    return os.path.join(profile, "security", "ipcontroller-engine.json")


def engine_command(private_object: Json, python: str, profile: str, uuid: str) -> List[str]:
    """Return the argv of one engine. It holds no secret: every user of the server can read it."""
    args = list(private_object.get("engine_args", []))
    command = list(private_object.get("engine_cmd") or [python, "-m", "ipyparallel.engine"])
    command += ["--profile-dir=" + profile, "--Session.session=" + uuid]
    command.append("--IPEngine.url_file=" + connection_file(profile))
    if not any(re.match(r"--?(timeout|IPEngine\.timeout)(=|$)", a) for a in args):
        command.append("--timeout={}".format(private_object["timeouts"].get("register", 120)))
    return command + args


def is_registered(log: bytes) -> bool:
    """Return whether an engine's output says that it registered. The nanny's line is there at any log level."""
    return re.search(rb"Completed registration with id \d|Starting kernel nanny for engine \d", log) is not None


def why_ended(exit_code: int, log: bytes) -> str:
    """Return why a registered engine ended: "asked", "controller" (it lost it) or "crash". ``log``: its last output.

    Seen with ipyparallel 9.2: `Client.shutdown` and SIGTERM end an engine with exit code 1; the signals that
    `Client.send_signal` sends are logged by its nanny. Losing the controller ends it with 1 too, but says so.
    So an engine that ends itself by ``os._exit(1)`` can't be told from one that was shut down: it stays down.
    """
    if b"Maximum number of heartbeats misses" in log or b"Registration timed out" in log:
        return "controller"
    name = signal.Signals(-exit_code).name if -exit_code in list(signal.Signals) else ""
    sent = re.search(rf"Sending signal (?:{-exit_code}|Signals\.{name}) to pid \d".encode(), log)
    return "asked" if exit_code in (0, 1) or sent else "crash"


class EngineAgent(Agent):
    """Runs engines."""

    @property
    def engines(self) -> List[Child]:
        return self.children.all

    def work(self) -> None:
        self.reach_controller()
        profile = self.write_profile()
        self.children.all += [Child(k, self.state.path(f"engine-{k}.log")) for k in range(self.parameters["engines"])]
        self.start_engines(profile)
        if not self.state.kept["ran"]:
            self.state.keep(ran=True)
        self.watch(profile)

    def summary(self) -> str:
        alive = [e for e in self.engines if e.alive]
        ended = ", ".join(f"{e.index} {exit_text(e.process.returncode)}" for e in self.engines if e.process and e.ended)
        text = f"{len(alive)} of {len(self.engines)} engines run" + ("; ended: " + ended if ended else "")
        return ". ".join([text] + self.runtime.notes)

    # -- before they start --

    def unreachable(self) -> str:
        """Return which port of the controller does not answer, and why; "" if all do."""
        address = self.controller_address()
        found = unreachable_port(self.private_object["connection"], address, self.connect)
        if not found:
            return ""
        return (
            f"address {address} port {found[0]} ({found[1]}). Let this server's address {own_address(address)} reach that port of "
            "the controller"
        )

    def reach_controller(self) -> None:
        """Wait until the controller's ports answer. Raises Failure if they never do; after a reboot, ControllerGone."""
        ran = self.state.kept["ran"]
        timeout = self.timeout("controller_gone" if ran else "controller", 60)
        deadline = self.monotonic() + timeout
        problem = self.unreachable()
        while problem and self.monotonic() < deadline:
            self.sleep(1.0)
            problem = self.unreachable()
        if problem and not ran:
            raise Failure(f"controller port unreachable for {timeout} s: {problem}.")
        if problem:
            raise ControllerGone(problem)

    def write_profile(self) -> str:
        """Write the engines' profile folder; return its path."""
        profile = self.profile()
        config = self.private_object.get("ipengine_config", "")
        with acting_as(self.runtime.user):
            make_profile(profile)
            write(os.path.join(profile, "ipengine_config.py"), config.encode())
            write(connection_file(profile), json.dumps(self.private_object["connection"]).encode())
        return profile

    # -- their start --

    def start_engine(self, engine: Child, profile: str) -> None:
        """Start the next generation of an engine. Raises Failure if its command can't be run."""
        p, k = self.parameters, engine.index
        generations = self.state.kept["generations"]
        generations += [0] * (k + 1 - len(generations))
        engine.uuid = "{}-{}-{}-{}-{}".format(p["engine_set"], p["slot"], p["incarnation"], k, generations[k])
        generations[k] += 1
        self.state.keep()
        environment = self.runtime.environment()
        environment.pop("IPP_CONNECTION_INFO", None)  # would win over the file
        environment.pop("IPP_PROFILE_DIR", None)
        environment.update(GRIFFIN_SLOT=str(p["slot"]), GRIFFIN_ENGINE=str(k))
        environment["GRIFFIN_CONNECTION_FILE"] = connection_file(profile)  # for ipengine_config.py
        command = engine_command(self.private_object, self.runtime.python, profile, engine.uuid)
        self.children.spawn(engine, command, environment, self.runtime.user, self.runtime.home)

    def start_engines(self, profile: str) -> None:
        """Start all engines, and return when they are registered; after a reboot, when they are started.

        A few at a time: all are there as soon as if they had started at once, or, where many share a core, sooner. And the controller forgets
        an engine whose heart does not beat in time after it was let in. docs/performance.md has figures.
        """
        waiting, again = list(self.engines), self.state.kept["ran"]
        most = len(self.engines) if again else ABREAST * len(os.sched_getaffinity(0))
        connected = ". ".join(["the controller answers"] + self.runtime.notes)
        while waiting or not (again or all(e.registered for e in self.engines)):
            while waiting and self.on_their_way() < most:
                self.start_engine(waiting.pop(0), profile)
            if connected:  # not before: engines need longer to register than the store needs to take this
                self.reports.write("connected", connected)
                connected = ""
            if not again:
                self.sleep(POLL)
                self.poll_reports()
                self.check_registration()

    def on_their_way(self) -> int:
        """Return how many started engines have not registered yet, without those slower than OVERDUE: they may log nothing."""
        since = self.monotonic() - OVERDUE
        return sum(e.alive and not e.registered and e.started > since for e in self.engines)

    def check_registration(self) -> None:
        """Note which engines have registered. Raises Failure for one that ended before: a restart would not help."""
        for engine in self.poll():
            if engine.ended:
                output = last_lines(self.redactor.data(engine.output(16 << 10)), 20)
                why = exit_text(engine.process.returncode)
                raise Failure(f"engine {engine.index} ended before it had registered ({why}). {said(output)}")

    # -- their life --

    def poll(self) -> List[Child]:
        """Return the engines that ended or registered since the last poll."""
        changed = []
        for engine in self.engines:
            if not engine.alive:
                continue
            # The exit first: output that came before it is then in the log.
            code = engine.process.poll()
            if not engine.registered:
                log = engine.output(1 << 20)
                quiet = b"Registering with controller" not in log
                settled = code is None and quiet and self.monotonic() - engine.started >= SETTLED
                engine.registered = is_registered(log) or settled
                changed += [engine] if engine.registered else []
            if code is not None:
                engine.ended = why_ended(code, engine.output(8 << 10))
                if not engine.registered and engine.ended == "asked":
                    engine.ended = "crash"
                changed.append(engine)
        return changed

    def plan_restarts(self, changed: Sequence[Child]) -> None:
        """Note for each engine that ended when it is to be started again, if it is."""
        now = self.monotonic()
        for engine in changed:
            if not engine.ended:
                continue
            text = f"engine {engine.index} ended ({exit_text(engine.process.returncode)})"
            if engine.ended == "crash":
                engine.crashes.append(now)
                pause = restart_pause(engine.crashes, now, int(self.private_object.get("restarts", 5)))
                if pause is None:
                    engine.ended = "down"
                    self.runtime.notes.append(f"engine {engine.index} crashed too often and stays down")
                else:
                    engine.due = now + pause
            else:
                engine.due = now + 1.0
            self.log(f"{text}: {engine.ended}")

    def watch(self, profile: str) -> None:
        """Keep the engines running. Raises ControllerGone when none lives and the controller did not come back, Expired at the
        end of this server's life."""
        lost: Optional[float] = None
        next_probe, settled = 0.0, False
        patience = self.timeout("controller_gone", 300)
        while True:
            if self.expired():
                raise Expired()
            changed, now = self.poll(), self.monotonic()
            self.plan_restarts(changed)
            alive = [e for e in self.engines if e.alive]
            restarts = [e for e in self.engines if e.ended in ("crash", "controller")]
            settled = settled and not changed
            if not alive and changed:
                self.reports.write("gone", self.summary())  # before any restart: the launcher may wait for the output
            elif alive and not restarts and not settled and all(e.registered for e in alive):
                self.reports.write("engines", self.summary())
                settled = True
            if any(e.registered for e in alive):
                lost = None
            due = [e for e in restarts if now >= e.due]
            if now >= next_probe and (due or not alive):
                problem = self.unreachable()
                if problem or any(e.ended == "controller" for e in restarts):
                    lost = now if lost is None else lost
                    if not alive and now - lost >= patience:
                        raise ControllerGone(problem or "what answers there does not register our engines")
                else:
                    lost = None
                for engine in due if not problem else []:
                    self.start_engine(engine, profile)
                next_probe = now + (0 if due and not problem else PROBE)
            self.poll_reports()
            self.sleep(POLL)
