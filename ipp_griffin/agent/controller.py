"""The agent of a server that runs the controller.

ipcontroller comes back after a crash, and after a reboot, with the same ports, keys and engines: its Curve keys are in the private
object; its connection files, and the hub's file of its engines, are kept in the agent's state.
"""

import contextlib
import errno
import json
import os
import signal
from typing import Callable, List, Sequence, Tuple

from .agent import POLL, PROBE, Agent, make_profile
from .children import Child, restart_pause
from .connection import unreachable_port
from .errors import ControllerGone, Expired, Failure
from .reports import report_url
from .system import Json, acting_as, read, write
from .text import exit_text, last_lines, said

ENGINE_PORTS = 12  # of a controller's 20: 9 at its default broadcast depth; clients need 7

ACTIVITY_PROGRAM = """
import json, sys, time, zlib, ipyparallel
def engines(client):
    status = client.queue_status() if client.ids else {}
    waiting = status.pop("unassigned", 0)
    return status, waiting or sum(e["queue"] + e["tasks"] for e in status.values())
def done(client):
    try:
        history = client.hub_history()
    except Exception:
        history = []  # of a hub that keeps none
    completed = sorted((str(id), e["completed"]) for id, e in engines(client)[0].items())
    return "%s %s" % (completed, zlib.crc32(" ".join(sorted(history)).encode()))
with ipyparallel.Client(sys.argv[1], timeout=20) as client:
    there, busy = engines(client)
    before = after = "" if busy else done(client)
    if there and not busy:  # the hub does not count broadcasts, nor what began before it came back: these keep engines from answering
        asked = client[:].apply_async(bool)
        asked.wait(10)
        after, deadline = "", time.monotonic() + 10
        while asked.done() and not after and time.monotonic() < deadline:
            if engines(client)[1]:  # the hub has not seen that answer yet
                time.sleep(0.05)
                continue
            client.purge_hub_results(asked)
            after = done(client)
    print(json.dumps([before, after]))
"""

END_PROGRAM = """
import sys, ipyparallel
with ipyparallel.Client(sys.argv[1], timeout=20) as client:
    client.ids and client.shutdown(block=True)
"""


def controller_command(settings: Json, command: Sequence[str], profile: str, again: bool) -> List[str]:
    """Return the argv of ipcontroller. It holds no secret: every user of the server can read it.

    ``again``: it has run before, and comes back with the same ports and engines. Ports that only its own processes connect to are not
    taken from a range: ipcontroller would take the first ones of the range again, even if they are in use.
    """
    first, last = (int(port) for port in settings["ports"].split("-"))
    pools = {"engine_ports": f"{first}-{first + ENGINE_PORTS - 1}", "client_ports": f"{first + ENGINE_PORTS}-{last}"}
    argv = list(command) + ["--profile-dir=" + profile, "--IPController.enable_curve=True"]
    argv += [f"--IPController.{name}={again}" for name in ("reuse_files", "restore_engines")]
    argv += [f"--IPController.{name}={pools[name]}" for name in sorted(pools)]
    return argv + ["--{}={}".format(name, settings["address"]) for name in ("ip", "location")] + list(settings["args"])


def hub_file(profile: str) -> str:
    """Return where the hub writes its engines."""
    return os.path.join(profile, "log", "engines.json")


def hub_state(profile: str) -> Json:
    """Return what the hub has written of its engines; nothing where it has not, or is just about to."""
    try:
        state = json.loads(read(hub_file(profile)).decode())
        return state if isinstance(state["next_id"], int) else {}
    except (ValueError, TypeError, KeyError):
        return {}


def file_of(profile: str, name: str) -> str:
    """Return the path of a connection file: "engine" or "client"."""
    return os.path.join(profile, "security", f"ipcontroller-{name}.json")


class Idle:
    """Tells when nothing was done for ``timeout`` seconds (0: never). ``activity``: as in `ControllerAgent.activity`."""

    def __init__(self, timeout: float, activity: Callable[[], Tuple[str, str]], monotonic: Callable[[], float]) -> None:
        self.timeout, self._activity, self._monotonic = timeout, activity, monotonic
        self._seen, self._since = "", monotonic()
        self._next = self._since

    def over(self) -> bool:
        now = self._monotonic()
        if not self.timeout or now < self._next:
            return False
        self._next = now + min(60.0, self.timeout / 4)
        before, after = self._activity()
        if not after or before != self._seen:
            self._since = now
        self._seen = after
        return now - self._since >= self.timeout


class ControllerAgent(Agent):
    """Runs ipcontroller."""

    unanswered = False  # whether the hub could not be asked the last time
    refused = ""  # the port that had no listener at the last poll of all of them
    next_poll = 0.0  # when the next one is due (monotonic)

    def check(self, private_object: Json) -> None:
        if private_object["controller"]["server"] != self.parameters["server"]:
            raise ValueError("this server's address is not known yet")

    def needs_python(self) -> bool:
        return bool(self.timeout("idle", 0))  # asks the hub

    def summary(self) -> str:
        return "ipcontroller runs" if self.children.all and self.children.all[0].alive else "ipcontroller has ended"

    def end(self) -> None:
        """Kill the controller with all its processes: on SIGTERM it would forget its engines, which wait through a reboot."""
        for controller in self.children.all:
            if controller.process is not None:
                self.end_group(controller)
                controller.ended = "asked"

    def work(self) -> None:
        self.reports.write("connected", ". ".join(["ipcontroller starts"] + self.runtime.notes))
        controller = Child(0, self.state.path("controller.log"))
        controller.uuid = "controller"
        self.children.all.append(controller)
        profile = self.write_profile()
        try:
            self.start_controller(controller, profile)
        except Failure as e:
            if not self.state.kept["ran"]:
                raise
            self.restart_controller(controller, profile, str(e))  # after a reboot: engines wait for it
        self.state.keep(ran=True)
        idle = Idle(self.timeout("idle", 0), lambda: self.activity(profile), self.monotonic)
        while True:
            if self.expired():
                self.end_engines(profile)
                raise Expired()
            if idle.over():
                self.end_engines(profile)
                raise Expired(f"no engine has had anything to do for {idle.timeout:g} s (idle_timeout)")
            code = controller.process.poll()
            if code == 0:
                self.end_group(controller)
                raise ControllerGone("it was told to end (Client.shutdown(hub=True))")
            problem = self.lost_part() if code is None else f"ipcontroller ended ({exit_text(code)})"
            if problem:
                self.restart_controller(controller, profile, problem)
            self.keep_hub(profile)
            self.poll_reports()
            self.sleep(POLL)

    # -- its start --

    def write_profile(self) -> str:
        """Write the controller's profile folder, with the connection files that it had before a reboot; return its path."""
        profile = self.profile()
        with acting_as(self.runtime.user):
            make_profile(profile)
            config = self.private_object["controller"]["config"]
            write(os.path.join(profile, "ipcontroller_config.py"), config.encode())
            for name in ("engine", "client"):
                path, kept = file_of(profile, name), self.state.kept["connection_files"].get(name)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # of one that ended before it was ready
                if kept:
                    write(path, json.dumps(kept).encode())
            state = max(hub_state(profile), self.state.kept["hub"], key=lambda state: state.get("next_id", -1))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(hub_file(profile))  # one that can't be read would end ipcontroller
            if state:
                write(hub_file(profile), json.dumps(state).encode())
        return profile

    def start_controller(self, controller: Child, profile: str) -> None:
        """Start ipcontroller, and return when all its ports answer. Raises Failure if they never do."""
        settings, kept = self.private_object["controller"], self.state.kept
        keys = settings["keys"]
        environment = self.runtime.environment()
        environment.update(IPP_SESSION_KEY=keys["session"])
        environment.update(IPP_CURVE_SECRETKEY=keys["curve_secret"], IPP_CURVE_PUBLICKEY=keys["curve_public"])
        command = self.private_object.get("engine_cmd") or [self.runtime.python, "-m", "ipyparallel.controller"]
        again = bool(kept["connection_files"])
        argv = controller_command(settings, command, profile, again)
        self.children.spawn(controller, argv, environment, self.runtime.user, self.runtime.home, leads=True)
        problem, deadline = "it wrote no connection files", self.monotonic() + self.timeout("controller", 60)
        while problem and self.monotonic() < deadline and controller.process.poll() is None:
            self.sleep(POLL)
            files = self.connection_files(profile)
            if files:
                kept["connection_files"] = files
                problem = self.unreachable()
        if problem:
            code = controller.process.poll()
            output = last_lines(self.redactor.data(controller.output(16 << 10)), 8)
            why = problem if code is None else exit_text(code)
            raise Failure(f"ipcontroller does not answer: {why}. {said(output)}")
        controller.registered = True
        self.state.keep()
        if not kept.get("published"):
            self.publish()
        port = kept["connection_files"]["engine"]["registration"]
        again_text = ", again" if again else ""
        self.reports.write("engines", f"ipcontroller answers at {self.controller_address()}:{port}{again_text}")

    def connection_files(self, profile: str) -> Json:
        """Return the content of both, once they are whole; else nothing."""
        try:
            with acting_as(self.runtime.user):
                return {name: json.loads(read(file_of(profile, name)).decode()) for name in ("engine", "client")}
        except ValueError:
            return {}

    def publish(self) -> None:
        """Put the connection files where the launcher reads them. Raises Failure if the store does not take them."""
        url = report_url(self.parameters["reports"], -1, "handover")
        problem = self.store.put(url, json.dumps(self.state.kept["connection_files"]).encode(), 30)
        if problem:
            raise Failure(f"the connection files could not be published: {problem}")
        self.state.keep(published=True)

    def unreachable(self) -> str:
        """Return which port of the controller does not answer, and why; "" if all do."""
        connection = self.state.kept["connection_files"]["engine"]
        found = unreachable_port(connection, self.controller_address(), self.connect)
        return f"port {found[0]} ({found[1]})" if found else ""

    # -- its life --

    def lost_part(self) -> str:
        """Return which of ipcontroller's processes has ended, by a port that had no listener in two polls in a row; "" for none.

        ipcontroller itself never checks: without a scheduler tasks wait for ever, without the heart monitor engines end one by one.
        """
        if self.monotonic() < self.next_poll:
            return ""
        self.next_poll = self.monotonic() + PROBE
        before, self.refused = self.refused, self.unreachable()
        if os.strerror(errno.ECONNREFUSED) not in self.refused or self.refused != before:
            return ""
        self.refused = ""
        return f"a process of ipcontroller has ended: {before}"

    def restart_controller(self, controller: Child, profile: str, why: str) -> None:
        """Start it anew after a crash. Raises Failure where that happens too often."""
        while True:
            self.log(why)
            self.end_group(controller)
            now = self.monotonic()
            controller.crashes.append(now)
            pause = restart_pause(controller.crashes, now, int(self.private_object.get("restarts", 5)))
            if pause is None:
                raise Failure(f"the controller crashed too often; the last time: {why}")
            self.sleep(pause)
            self.write_profile()
            try:
                return self.start_controller(controller, profile)
            except Failure as e:
                why = str(e)

    def end_group(self, controller: Child) -> None:
        """Kill what ipcontroller leaves behind: its schedulers and heart monitor would hold its ports, and keep engines waiting."""
        if controller.process is None:  # it could not even be run
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(controller.process.pid, signal.SIGKILL)
        controller.process.wait()

    def keep_hub(self, profile: str) -> None:
        """Keep the hub's list of engines: after a power loss its own file may be old, and engines that are missing from it are lost."""
        with acting_as(self.runtime.user):
            state = hub_state(profile)
        if state and state != self.state.kept["hub"]:
            self.state.keep(hub=state)

    # -- its hub --

    def ask_hub(self, profile: str, program: str) -> str:
        """Return what a client prints that runs on this server; "" where it fails, which is logged once."""
        environment = self.runtime.base_environment(self.runtime.user, self.runtime.python)
        argv = [self.runtime.python, "-c", program, file_of(profile, "client")]
        code, output = self.run(argv, user=self.runtime.user, env=environment, timeout=60)
        if code and not self.unanswered:
            self.log("the hub can't be asked now: " + last_lines(output, 1))
        self.unanswered = bool(code)
        return "" if code else output.strip().rpartition("\n")[2]

    def activity(self, profile: str) -> Tuple[str, str]:
        """Return how much work the engines have done, before and after this call, which adds some itself. Both are "" while an engine is
        busy, or if the hub does not answer."""
        try:
            before, after = json.loads(self.ask_hub(profile, ACTIVITY_PROGRAM))
        except ValueError:
            return "", ""
        return str(before), str(after)

    def end_engines(self, profile: str) -> None:
        """Tell the engines to end: without it they would look for the controller for minutes.

        Not where the controller's command is the user's own and nothing else asks the hub: no Python was looked for then.
        """
        if self.runtime.python:
            self.ask_hub(profile, END_PROGRAM)
