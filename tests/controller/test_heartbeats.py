"""`heartbeats`: real engines and clients of a real controller whose connections die without a word, as by a power loss of its server."""

import contextlib
import json
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time

import ipyparallel as ipp
import pytest
from ipyparallel.engine.app import IPEngine
from traitlets.config import Config

from ipp_griffin.agent.controller import controller_command
from ipp_griffin.controller import heartbeats
from ipp_griffin.model.connection import ControllerKeys, ports_of

ASK, WAIT = 1.0, 4.0  # a machine that is busy may hold up everybody for a second
CONFIG = "c = get_config()\nc.HeartMonitor.period = 200\n"  # shorter than ASK, as it is: messages take back the limits of questions
NETWORK = f"127.83.{random.randrange(256)}"  # nobody else's, so that any ports of it are free
OWN, SEEN, PORTS = f"{NETWORK}.1", f"{NETWORK}.2", "21000-21040"  # of the controller; and where the others see it


class Wire:
    """Connections to ports of ``SEEN``, carried to those of ``OWN``, until `cut`: then those that are there carry nothing for ever."""

    def __init__(self, ports):
        self._selector, self._lock = selectors.DefaultSelector(), threading.Lock()
        self._dead, self._other, self._closed = [], {}, False
        self._listening = [socket.create_server((SEEN, port)) for port in ports]
        for one in self._listening:
            self._selector.register(one, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self):
        while not self._closed:
            for key, _ in self._selector.select(0.1):
                with self._lock:
                    if key.fileobj in self._listening:
                        self._accept(key.fileobj)
                    elif key.fileobj in self._other:
                        self._pass_on(key.fileobj)

    def _accept(self, listening):
        outer, _ = listening.accept()
        try:
            inner = socket.create_connection((OWN, listening.getsockname()[1]))
        except OSError:
            outer.close()
            return
        for one, other in ((outer, inner), (inner, outer)):
            self._other[one] = other
            self._selector.register(one, selectors.EVENT_READ, data=one is outer)

    def _pass_on(self, one):
        other = self._other[one]
        with contextlib.suppress(OSError):
            if data := one.recv(1 << 16):
                other.sendall(data)
                return
        for each in (one, other):
            self._selector.unregister(each)
            del self._other[each]
            each.close()

    def cut(self):
        """Neither end is told anything; that of the controller is closed, as nothing of it is there after a power loss."""
        with self._lock:
            for one in list(self._other):
                is_outer = self._selector.unregister(one).data
                self._dead.append(one) if is_outer else one.close()
            self._other.clear()

    def close(self):
        self._closed = True
        self._thread.join()
        for one in (*self._listening, *self._dead, *self._other):
            one.close()


class Machine:
    """What runs, and where its files are."""

    def __init__(self, folder):
        self.folder, self.processes, self.keys = folder, [], ControllerKeys.make()

    def spawn(self, name, argv, **environment):
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                argv,
                stdout=log,
                stderr=log,
                env={**os.environ, "IPYTHONDIR": str(self.folder / "ipython"), **environment},
                cwd=self.folder,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def profile(self, name, config):
        profile = self.folder / name
        (profile / "security").mkdir(parents=True, exist_ok=True)
        (profile / f"{name}_config.py").write_text(config)
        return profile

    def controller(self, again=False):
        profile = self.profile("ipcontroller", heartbeats.for_controller(CONFIG, ask=ASK, peers_wait=WAIT))
        settings = {"ports": PORTS, "address": OWN, "args": []}
        command = controller_command(settings, [sys.executable, "-m", "ipyparallel.controller"], str(profile), again)
        self.spawn(
            "controller",
            command,
            IPP_SESSION_KEY=self.keys.session,
            IPP_CURVE_SECRETKEY=self.keys.curve_secret,
            IPP_CURVE_PUBLICKEY=self.keys.curve_public,
        )
        return profile / "security"

    def engine(self, connection, config):
        profile = self.profile("ipengine", config)
        file = profile / "security" / "ipcontroller-engine.json"
        file.write_text(json.dumps(connection))
        argv = [sys.executable, "-m", "ipyparallel.engine", f"--profile-dir={profile}", f"--file={file}"]
        return self.spawn("engine", argv)

    def close(self):
        for process in self.processes:
            end(process)


def end(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def until(there, what, seconds=90):
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, f"no {what} within {seconds} s"
        time.sleep(0.1)


def files(security):
    """What engines and clients are told: where the wire begins. Empty while they are not written: in place, by ipcontroller."""
    try:
        found = {
            name: json.loads((security / f"ipcontroller-{name}.json").read_text()) for name in ("engine", "client")
        }
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return {name: {**info, "interface": f"tcp://{SEEN}", "location": SEEN} for name, info in found.items()}


def pid():
    import os

    return os.getpid()


pid.__module__ = "__main__"


def configured(text):
    """What a config file says, as traitlets reads it."""
    config = Config()
    exec(text, {"c": config, "get_config": lambda: config})
    return config


def test_engines_are_listed_soon_and_nobody_is_taken_for_dead_sooner_than_by_ipyparallels_defaults():
    monitor = configured(heartbeats.for_controller("")).HeartMonitor
    assert monitor.period <= 500
    assert monitor.period * monitor.max_heartmonitor_misses == 3000 * 10


@pytest.mark.parametrize(("period", "misses"), [(500, 150), (3000, 43), (10000, 14)])
def test_an_engine_waits_as_long_for_its_controller_whatever_its_period_is(monkeypatch, period, misses):
    """But as often as its own configuration says, where that says anything."""
    seen = []
    monkeypatch.setattr(IPEngine, "start_heartbeat", lambda self, *args: seen.append((self.max_heartbeat_misses, args)))
    configured(heartbeats.for_engine("", {}))
    for config in (Config(), Config({"IPEngine": {"max_heartbeat_misses": 9}})):
        IPEngine(config=config).start_heartbeat("ping", "pong", period, b"me")
    assert seen == [(misses, ("ping", "pong", period, b"me")), (9, ("ping", "pong", period, b"me"))]


def test_a_profiles_own_heartbeats_count():
    told = "c.HeartMonitor.period = 3000\nc.HeartMonitor.max_heartmonitor_misses = 7\nc.IPController.registration_timeout = 9"
    config = configured(heartbeats.for_controller(told))
    assert (config.HeartMonitor.period, config.HeartMonitor.max_heartmonitor_misses) == (3000, 7)
    assert config.IPController.registration_timeout == 9
    assert (
        configured(heartbeats.for_controller("")).IPController.registration_timeout > 30
    )  # too short for engines that share a core


def test_engines_nannies_and_clients_find_a_controller_again_that_lost_its_power(tmp_path):
    machine = Machine(tmp_path)
    with contextlib.closing(machine):
        security = machine.controller()
        until(lambda: files(security), "files")
        told = files(security)
        ports = ports_of(told["engine"]) | ports_of(told["client"])
        with contextlib.closing(Wire(ports)) as wire:
            engine = machine.engine(
                told["engine"], heartbeats.for_engine("", {heartbeats.MARK: True}, ask=ASK, wait=WAIT)
            )
            client = tmp_path / "client.json"
            client.write_text(json.dumps(told["client"]))
            with ipp.Client(str(client), timeout=60) as rc:
                rc.wait_for_engines(1, timeout=60)
                assert rc[:].apply_async(pid).get(60) == [engine.pid]
                # That answer took back the client's time limit: until the next question it would not notice.
                time.sleep(2 * ASK)
                wire.cut()
                end(machine.processes[0])
                machine.controller(again=True)

                def computes():
                    with contextlib.suppress(TimeoutError, ipp.error.TimeoutError):
                        return rc[:].apply_async(pid).get(2) == [engine.pid]

                until(computes, "answer after the power loss")
                log = tmp_path / "controller.log"
                until(lambda: "ignoring new heart" in log.read_text(), "heartbeat of the engine that the hub remembers")
                assert rc.ids == [0]
                rc.shutdown(targets=[0])  # goes by its nanny
                until(lambda: engine.poll() is not None, "end of the engine")
