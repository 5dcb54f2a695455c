"""The agent as a real process: rendered user-data, a tiny object store, a real ipcontroller, all on loopback."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import ipyparallel as ipp
import pytest

from ipp_griffin.agent.store import url_opener
from ipp_griffin.agent.system import run_command
from ipp_griffin.model.connection import build
from ipp_griffin.model.names import Place
from ipp_griffin.model.plan import ServerPlan
from ipp_griffin.model.userdata import UserDataSettings, agent_source, render, server_parameters

KEY = "a-signing-key-0123456789"
SIGNATURE = "5161747572655f6f665f746865"
TIMEOUT = 120  # seconds: only a broken agent takes that long


class TinyStore:
    """Serves one object and keeps what is PUT, in the order it came."""

    def __init__(self):
        self.body, self.status, self.reports, self.requests = b"", 200, [], []
        store = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):  # noqa: N802
                store.requests.append(self.path)
                self.send_response(store.status)
                self.send_header("Content-Length", str(len(store.body)))
                self.end_headers()
                self.wfile.write(store.body)

            def do_PUT(self):  # noqa: N802
                body = self.rfile.read(int(self.headers["Content-Length"]))
                store.reports.append((self.path, body))
                self.send_response(201)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    def names(self):
        return [path.partition("?")[0].rpartition("/")[2] for path, _ in self.reports]

    def last(self):
        return json.loads(self.reports[-1][1])

    def wait_for(self, *names):
        """Until exactly these reports are there; their last one's content."""
        deadline = time.monotonic() + TIMEOUT
        while self.names()[: len(names)] != list(names):
            on_the_way = self.names() == list(names)[: len(self.reports)]
            assert on_the_way and time.monotonic() < deadline, (self.names(), self.last() if self.reports else None)
            time.sleep(0.05)
        return json.loads(self.reports[len(names) - 1][1])

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def end_processes_of(home):
    """End whatever was started with this HOME: engines' nannies leave the process group."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"HOME={home}".encode() in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)


@pytest.fixture
def store():
    store = TinyStore()
    yield store
    store.close()


def start_controller(folder):
    """A real ipcontroller with Curve and a signing key; (process, engine connection, client connection file)."""
    security = folder / "ipython" / "profile_default" / "security"
    log = (folder / "controller.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "ipyparallel.controller", "--ip=127.0.0.1", "--IPController.enable_curve=True"]
        + ["--HeartMonitor.period=200", "--Session.key=" + KEY],
        env={**os.environ, "IPYTHONDIR": str(folder / "ipython"), "HOME": str(folder)},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    log.close()
    deadline = time.monotonic() + TIMEOUT
    files = [security / f"ipcontroller-{who}.json" for who in ("engine", "client")]
    while not all(f.exists() and f.read_bytes().endswith(b"}") for f in files):
        assert time.monotonic() < deadline and process.poll() is None, (folder / "controller.log").read_text()
        time.sleep(0.05)
    return process, json.loads(files[0].read_text()), str(files[1])


def stop_group(process):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.fixture(scope="module")
def controller(tmp_path_factory):
    folder = tmp_path_factory.mktemp("controller")
    process, connection, client_file = start_controller(folder)
    yield connection, client_file
    stop_group(process)
    end_processes_of(folder)


@pytest.fixture
def client(controller):
    client = ipp.Client(controller[1], timeout=TIMEOUT)
    yield client
    client.close()


@pytest.fixture
def start_agent(store, tmp_path, request):
    """Start a server's agent; its store has the connection file."""
    started = []

    def start(connection, *, engine_set, engines=1, fetch_timeout=60, publish=True, again=False, expires=0, **settings):
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        if publish:
            settings.setdefault("ipyparallel_version", ipp.__version__)
            store.body = build(connection, **settings)
        query = f"temp_url_sig={SIGNATURE}&temp_url_expires=1800000000"
        parameters = server_parameters(
            ServerPlan(f"griffin-u-{engine_set}-3", Place(engine_set, 3, 1), engines, ()),
            UserDataSettings(read_seconds=1, report_seconds=1, fetch_timeout=fetch_timeout, expires=expires),
            uid="0123456789ab",
            private_object_url=f"{store.url}/v1/a/c/connection.json?{query}",
            report_urls={"prefix": f"{store.url}/v1/a/c/{engine_set}/3.1/", "query": query + "&temp_url_prefix=x"},
        )
        program = tmp_path / "user-data"
        program.write_bytes(render(parameters, agent_source()))
        log = (tmp_path / "agent.log").open("ab")
        process = subprocess.Popen(
            [sys.executable, str(program)],
            env={"HOME": str(home), "PATH": os.environ["PATH"]},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        started.append(process)
        return process

    yield start
    for process in started:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        stop_group(process)
    end_processes_of(tmp_path / "home")


def engine_uuids(client, n):
    client.wait_for_engines(n, timeout=TIMEOUT, interactive=False)
    return sorted(client._engines.values())


def wait_until(condition):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_engines_register_crash_and_come_back_and_stay_down_when_told_to_end(
    start_agent, store, controller, client, tmp_path
):
    connection, _ = controller
    agent = start_agent(
        connection,
        engine_set="aaaa0001",
        engines=2,
        engine_args=["--log-level=10"],
        environment={"MY_SETTING": "17", "IPP_CLUSTER_ID": "other", "IPP_CONNECTION_INFO": "not json"},
        ipengine_config="c.IPEngine.startup_command = 'import os; configured = 1'",
    )
    report = store.wait_for("0000-agent", "0001-connected", "0002-engines")
    assert [(e["index"], e["uuid"], e["alive"], e["exit_code"], e["registered"]) for e in report["engines"]] == [
        (0, "aaaa0001-3-1-0-0", True, None, True),
        (1, "aaaa0001-3-1-1-0", True, None, True),
    ]
    assert engine_uuids(client, 2) == ["aaaa0001-3-1-0-0", "aaaa0001-3-1-1-0"]
    client[:].execute("seen = os.environ['MY_SETTING'], os.environ['GRIFFIN_SERVER'], configured", block=False).get(60)
    assert client[:]["seen"] == [("17", "griffin-u-aaaa0001-3", 1)] * 2

    # At this log level ipengine prints its whole configuration, signing key included: nothing of it leaves.
    log = (tmp_path / "home/.ipp-griffin-agent/aaaa0001-3-1/engine-0.log").read_text()
    assert KEY in log and "'key': b'***'" in report["engines"][0]["output"]
    for text in [body.decode() for _, body in store.reports] + [(tmp_path / "agent.log").read_text()]:
        assert KEY not in text and connection["curve_serverkey"] not in text and SIGNATURE not in text
    for process in report["engines"]:
        command = Path(f"/proc/{process['pid']}/cmdline").read_text()
        assert KEY not in command and connection["curve_serverkey"] not in command

    os.kill(report["engines"][1]["pid"], signal.SIGKILL)
    report = store.wait_for("0000-agent", "0001-connected", "0002-engines", "0003-engines")
    assert [e["uuid"] for e in report["engines"]] == ["aaaa0001-3-1-0-0", "aaaa0001-3-1-1-1"]
    wait_until(lambda: sorted(client._engines.values()) == ["aaaa0001-3-1-0-0", "aaaa0001-3-1-1-1"])

    client.shutdown(targets=client.ids, hub=False, block=False)
    wait_until(lambda: "0005-gone" in store.names() or "0004-gone" in store.names())
    report = store.last()
    assert [(e["alive"], e["exit_code"]) for e in report["engines"]] == [(False, 1)] * 2
    assert all("Completed registration with id" in e["output"] for e in report["engines"])
    assert agent.poll() is None  # they stay down, and the agent watches the controller
    agent.terminate()
    assert agent.wait(TIMEOUT) == 0


def test_at_the_end_of_a_servers_life_its_engines_are_ended_and_said_to_be_gone(start_agent, store, controller):
    """A life that is over already, by the clock of the store."""
    agent = start_agent(controller[0], engine_set="aaaa0009", expires=1)
    report = store.wait_for("0000-agent", "0001-connected", "0002-gone")
    assert report["message"] == "the life of this server is over (max_lifetime)"
    assert [(e["registered"], e["alive"]) for e in report["engines"]] == [(True, False)]
    assert agent.wait(TIMEOUT) == 0


def test_sigterm_ends_engines_and_their_nannies_and_the_next_start_counts_on(
    start_agent, store, controller, client, tmp_path
):
    """As in a reboot: the kept connection file is used, no name is used twice."""
    agent = start_agent(controller[0], engine_set="aaaa0002")
    store.wait_for("0000-agent", "0001-connected", "0002-engines")
    agent.terminate()
    assert agent.wait(TIMEOUT) == 0
    left = [p for p in Path("/proc").glob("[0-9]*/environ") if f"HOME={tmp_path / 'home'}".encode() in read_bytes(p)]
    assert left == []
    report = store.wait_for("0000-agent", "0001-connected", "0002-engines", "0003-gone")
    assert "Registering with controller" in report["engines"][0]["output"]
    store.status = 404
    start_agent(controller[0], engine_set="aaaa0002", publish=False)
    report = store.wait_for(
        *("0000-agent", "0001-connected", "0002-engines", "0003-gone", "0004-agent", "0005-connected", "0006-engines")
    )
    assert report["engines"][0]["uuid"] == "aaaa0002-3-1-0-1"
    assert len(store.requests) == 1


def read_bytes(path):
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def test_controller_gone_for_good_ends_the_agent(start_agent, store, tmp_path):
    """The engine is killed with the controller: it is not restarted into nothing."""
    process, connection, _ = start_controller(tmp_path)
    try:
        agent = start_agent(connection, engine_set="aaaa0003", controller_gone_timeout=0.5)
        report = store.wait_for("0000-agent", "0001-connected", "0002-engines")
    finally:
        stop_group(process)
    os.kill(report["engines"][0]["pid"], signal.SIGKILL)
    report = store.wait_for("0000-agent", "0001-connected", "0002-engines", "0003-gone", "0004-gone")
    assert report["message"].startswith("the controller is gone: address 127.0.0.1 port")
    assert agent.wait(TIMEOUT) == 0


def test_controller_unreachable_is_a_failure_that_names_address_port_and_own_address(start_agent, store, controller):
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as s:
        port = s.getsockname()[1]
    agent = start_agent(dict(controller[0], iopub=port), engine_set="aaaa0004", controller_timeout=0.2)
    report = store.wait_for("0000-agent", "0001-failed")
    assert report["message"] == (
        f"controller port unreachable for 0.2 s: address 127.0.0.1 port {port} (Connection refused). "
        "Let this server's address 127.0.0.1 reach that port of the controller."
    )
    assert agent.wait(TIMEOUT) == 1


def test_an_object_that_never_comes_is_a_failure_that_says_why(start_agent, store):
    store.status, store.body = 200, b"<html>log in to our wifi</html>"
    agent = start_agent({}, engine_set="aaaa0005", fetch_timeout=0.3, publish=False)
    report = store.wait_for("0000-agent", "0001-failed")
    host = store.url.partition("//")[2]
    assert report["message"].startswith(f"the connection file never came from {host} within 0.3 s: ")
    assert "no JSON" in report["message"] and SIGNATURE not in report["message"]
    assert agent.wait(TIMEOUT) == 1


def test_another_version_of_ipyparallel_is_a_failure_that_names_both(start_agent, store, controller):
    start_agent(controller[0], engine_set="aaaa0006", ipyparallel_version="7.1.0", engine_python=sys.executable)
    report = store.wait_for("0000-agent", "0001-failed")
    assert report["message"] == (
        f"this server has ipyparallel {ipp.__version__} of {sys.executable}, the client has 7.1.0. Install that version "
        "in the image, or here and there the same."
    )


def test_an_engine_that_dies_at_once_is_a_failure_with_its_last_lines(start_agent, store, controller):
    start_agent(controller[0], engine_set="aaaa0007", ipengine_config="print('no luck'); raise SystemExit(3)")
    report = store.wait_for("0000-agent", "0001-connected", "0002-failed")
    assert re.match(r"engine 0 ended before it had registered \(exit code 3\)\. Its last lines: ", report["message"])
    assert "no luck" in report["message"] and "\n" not in report["message"]
    assert not any(e["alive"] for e in report["engines"])


def test_an_engine_command_that_is_not_there_is_a_failure(start_agent, store, controller):
    start_agent(controller[0], engine_set="aaaa0008", engine_cmd=["no-such-ipengine"])
    report = store.wait_for("0000-agent", "0001-failed")
    assert "could not run no-such-ipengine" in report["message"]


def test_the_proxy_setting_is_used_and_no_other(store, monkeypatch):
    """Without the setting a proxy in the environment is not used: the agent does what its parameters say."""
    store.body = b"from the store"
    with url_opener(store.url, "")("http://store.invalid/v1/a?x=1", timeout=5) as response:
        assert response.read() == b"from the store"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with url_opener("", "")(store.url + "/direct", timeout=5) as response:
        assert response.read() == b"from the store"
    assert store.requests == ["http://store.invalid/v1/a?x=1", "/direct"]


def test_a_command_that_takes_too_long_or_is_not_there_is_an_exit_code():
    assert run_command([sys.executable, "-c", "print(1)"]) == (0, "1\n")
    assert run_command([sys.executable, "-c", "import time; time.sleep(60)"], timeout=0.2)[0] == 124
    assert run_command(["no-such-command"])[0] == 127
