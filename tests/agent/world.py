"""An agent with everything around it replaced: no network, no sleep, no process."""

import email.message
import io
import json
import urllib.error
from pathlib import Path
from types import SimpleNamespace

from ipp_griffin.agent.children import Child
from ipp_griffin.agent.engines import EngineAgent

from ..fakes import Clock

CONNECTION = {
    "ssh": "",
    "interface": "tcp://10.0.0.5",
    "location": "head",
    "registration": 20001,
    "control": 20002,
    "mux": 20003,
    "task": 20004,
    "iopub": 20005,
    "hb_ping": 20006,
    "hb_pong": 20007,
    "broadcast": [20008, 20009],
    "key": 'k3y\'\\with "quotes"',
    "curve_serverkey": "cVs@.8>[DPqjc*p60UdyBf!N/kH)umvtdY/h+=5N",
    "pack": "json",
    "unpack": "json",
    "signature_scheme": "hmac-sha256",
}


PRIVATE_OBJECT = {
    "version": 1,
    "connection": CONNECTION,
    "ipengine_config": "c = get_config()",
    "environment": {"A": "b"},
    "engine_cmd": [],
    "engine_args": [],
    "ipyparallel": "9.2.0",
    "python": "3.11",
    "engine_user": "ipp",
    "engine_python": "",
    "packages": [],
    "pip_args": [],
    "timeouts": {"controller": 60, "register": 120, "controller_gone": 300, "log_interval": 60},
    "restarts": 2,
}


PARAMETERS = {
    "version": 1,
    "uid": "0123456789ab",
    "engine_set": "89abcdef",
    "slot": 2,
    "incarnation": 1,
    "server": "griffin-u-2",
    "engines": 2,
    "private_object": "http://store:8080/v1/a/c/s/connection.json?temp_url_sig=5ecre7a&temp_url_expires=1",
    "reports": {"prefix": "http://store:8080/v1/a/c/s/2.1/", "query": "temp_url_sig=5ecre7b&temp_url_prefix=s/2.1/"},
    "fetch_timeout": 60,
    "proxy": "",
    "ca_certificates": "",
}


class Net:
    """Answers instead of urlopen: bytes, or an exception; the last answer stays."""

    def __init__(self, *answers):
        self.answers, self.requests = list(answers) or [b""], []

    def __call__(self, request, timeout):
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return io.BytesIO(answer)

    @property
    def reports(self):
        found = [(r.full_url.partition("?")[0].rpartition("/")[2], json.loads(r.data)) for r in self.requests]
        assert all(
            r.get_method() == "PUT" and r.full_url.endswith(PARAMETERS["reports"]["query"]) for r in self.requests
        )
        return found

    @property
    def names(self):
        return [name for name, _ in self.reports]


def http_error(status):
    return urllib.error.HTTPError("http://s?temp_url_sig=5ecre7a", status, "No", email.message.Message(), None)


class AtOnce:
    """Instead of threading.Thread: done when it has started."""

    def __init__(self, target, args, daemon):
        self.start = lambda: target(*args)

    def join(self, timeout):
        pass


class World:
    """An agent of engines and all that is around it. ``run``, ``run_as``: what a command answers, by its argv, or by argv and user."""

    def __init__(
        self, folder, net=None, run=None, run_as=lambda argv, user: (0, ""), root=False, thread=AtOnce, **parameters
    ):
        self.net, self.clock, self.lines, self.commands, self.problem = net or Net(), Clock(now=1000.0), [], [], ""

        def run_and_keep(argv, user="", env=None, timeout=60):
            self.commands.append((user, " ".join(argv)))
            return run(argv) if run else run_as(argv, user)

        self.folder = folder
        self.agent = EngineAgent(
            {**PARAMETERS, **parameters},
            str(folder),
            root,
            self.net,
            run=run_and_keep,
            sleep=self.clock.sleep,
            monotonic=self.clock,
            connect=lambda address, port: self.problem,
            log=self.lines.append,
            thread=thread,
        )
        self.agent.private_object = self.agent.runtime.private_object = json.loads(json.dumps(PRIVATE_OBJECT))

    def prepare(self):
        self.agent.runtime.prepare(self.agent.private_object)


def engine_with_log(world, data, index=0):
    engine = Child(index, world.agent.state.path(f"engine-{index}.log"))
    Path(engine.log).write_bytes(data)
    world.agent.children.all.append(engine)
    return engine


class Processes:
    """Instead of subprocess.Popen: engines that write what they are told to and end when a test says so."""

    PIPE, STDOUT, DEVNULL, SubprocessError = -1, -2, -3, OSError

    def __init__(self, log=b"Completed registration with id 0\n"):
        self.log, self.all, self.error = log, [], None

    def Popen(self, command, stdout, env, **kwargs):  # noqa: N802
        if self.error:
            raise self.error
        process = SimpleNamespace(pid=4_000_000 + len(self.all), returncode=None, command=command, env=env)
        process.poll = lambda: process.returncode
        process.terminate = process.kill = lambda: setattr(process, "returncode", -15)
        process.wait = process.poll
        stdout.write(self.log)
        self.all.append(process)
        return process


def end(process, code, last_words=b"", log=None):
    def happens():
        process.returncode = code
        if last_words:
            with Path(log).open("ab") as f:
                f.write(last_words)

    return happens


def engines_of(report):
    return [(e["uuid"].rpartition("-")[2], e["alive"], e["exit_code"]) for e in report["engines"]]


def write_log(watched, text, index=0):
    def happens():
        with Path(watched.agent.engines[index].log).open("ab") as f:
            f.write(text)

    return happens


def starting(world, engines):
    """A world whose engines are to start."""
    w = world()
    w.agent.runtime.home = "/"
    w.agent.children.all += [Child(k, w.agent.state.path(f"engine-{k}.log")) for k in range(engines)]
    return w
