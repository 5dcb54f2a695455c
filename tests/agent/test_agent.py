"""The agent's decisions, and the agent with everything around it replaced: no network, no sleep, no process."""

import ast
import email.message
import errno
import http.client
import io
import json
import signal
import ssl
import sys
import threading
import time
import types
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest

from ipp_griffin.agent import agent
from ipp_griffin.agent.agent import Agent, ControllerGone, Failure, Redactor
from ipp_griffin.model.userdata import agent_source

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
RENDEZVOUS = {
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


# -- the file ---------------------------------------------------------------------------------------------------------


def test_python_3_6_can_parse_it():
    """An old image must get as far as starting a newer Python."""
    ast.parse(agent_source(), feature_version=(3, 6))


def test_it_imports_the_standard_library_only():
    modules = set()
    for node in ast.walk(ast.parse(agent_source())):
        if isinstance(node, ast.Import):
            modules.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            modules.add(str(node.module).partition(".")[0])
    assert modules <= sys.stdlib_module_names


# -- redaction --------------------------------------------------------------------------------------------------------


def test_a_secret_is_replaced_in_every_form_it_is_printed_in():
    secret = CONNECTION["key"]
    redactor = Redactor([secret, ""])
    forms = [secret, repr(secret), repr(secret.encode()), json.dumps({"key": secret}), urllib.parse.quote(secret)]
    for form in forms:
        assert "quotes" not in redactor.text(f"before {form} after"), form
        assert "***" in redactor.text(form)


def test_control_characters_become_visible():
    assert Redactor().text("a\tb\n\x1b[31mred\r\x00\u202egnp.exe é😀") == (
        "a\tb\n\\x1b[31mred\\r\\x00\\u202egnp.exe é😀"
    )


def test_secrets_are_keys_signatures_and_what_the_environment_calls_so():
    private_object = {
        "connection": {"key": "kkkk", "curve_serverkey": "cccc"},
        "environment": {"DB_PASSWORD": "pppppp", "OMP_NUM_THREADS": "1", "API_TOKEN": "x", "KEYBOARD": "qwertz"},
    }
    assert agent.secrets_of(PARAMETERS, private_object) == ["kkkk", "cccc", "5ecre7a", "5ecre7b", "pppppp", "qwertz"]


def test_signatures_of_one_url_a_phase_are_secrets_too():
    parameters = {
        "private_object": "http://s/?temp_url_sig=1",
        "reports": {"urls": {"agent": "http://s/a?Signature=2"}},
    }
    assert agent.secrets_of(parameters, {}) == ["", "", "2", "1"]


# -- deciding ---------------------------------------------------------------------------------------------------------


def test_the_connection_object_is_taken_as_it_is():
    assert agent.parse_private_object(json.dumps(RENDEZVOUS).encode()) == RENDEZVOUS


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "no JSON"),
        (b'{"version": 1', "no JSON"),
        (b"\xff\xfe", "utf-8"),
        (b"[]", "incomplete"),
        (b"{}", "incomplete: 'connection'"),
        (json.dumps({**RENDEZVOUS, "version": 2}).encode(), "its version is 2"),
        (json.dumps({**RENDEZVOUS, "connection": {}}).encode(), "incomplete: 'interface'"),
        (json.dumps({**RENDEZVOUS, "connection": {**CONNECTION, "interface": "ipc:///x"}}).encode(), "no address"),
        (json.dumps({**RENDEZVOUS, "environment": 3}).encode(), "incomplete"),
    ],
)
def test_anything_else_is_not_a_connection_object(body, problem):
    with pytest.raises(ValueError, match=problem):
        agent.parse_private_object(body)


@pytest.mark.parametrize(
    ("interface", "location", "address"),
    [
        ("tcp://10.0.0.5", "head", "10.0.0.5"),
        ("tcp://127.0.0.1", "10.0.0.5", "127.0.0.1"),
        ("tcp://*", "10.0.0.5", "10.0.0.5"),
        ("tcp://0.0.0.0", "head", "head"),
        ("tcp://0.0.0.0", "here", "127.0.0.1"),
        ("tcp://*", "", "127.0.0.1"),
    ],
)
def test_the_address_that_engines_connect_to(interface, location, address):
    assert agent.controller_address({"interface": interface, "location": location}, "here") == address


def test_all_ports_that_engines_connect_to_registration_first():
    assert agent.controller_ports(CONNECTION) == list(range(20001, 20010))


def probe_of(**versions):
    return lambda python, user: {"python": "3.11", "ipyparallel": versions[python]} if python in versions else None


def test_the_first_python_with_the_clients_version_is_chosen():
    candidates = [("none", ""), ("without", "ipp"), ("old", "ipp"), ("right", "ubuntu"), ("also", "ipp")]
    probe = probe_of(without="", old="8.8.0", right="9.2.1", also="9.2.0")
    assert agent.choose(candidates, probe, "9.2.0") == {
        "python": "3.11",
        "ipyparallel": "9.2.1",
        "executable": "right",
        "user": "ubuntu",
    }


def test_other_versions_only_is_a_failure_that_names_them():
    with pytest.raises(Failure, match=r"has ipyparallel 8.8.0 of old, 9.1.0 of b, the client has 9.2.0"):
        agent.choose([("old", "a"), ("old", "b"), ("b", "")], probe_of(old="8.8.0", b="9.1.0"), "9.2.0")


def test_no_ipyparallel_at_all_is_nothing_chosen():
    assert agent.choose([("a", ""), ("b", "")], probe_of(a=""), "9.2.0") is None


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
    assert agent.is_registered(log) is registered


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
    assert agent.why_ended(exit_code, log) == why


@pytest.mark.parametrize(
    ("crashes", "now", "pause"),
    [([100], 100, 1), ([90, 100], 100, 2), ([80, 90, 100], 100, None), ([0, 10, 5000], 5000, 1)],
)
def test_restarts_wait_longer_each_time_and_end_at_the_hourly_limit(crashes, now, pause):
    assert agent.restart_pause(crashes, now, 2) == pause


def test_report_names():
    assert agent.report_url(PARAMETERS["reports"], 12, "engines") == (
        "http://store:8080/v1/a/c/s/2.1/0012-engines?temp_url_sig=5ecre7b&temp_url_prefix=s/2.1/"
    )
    urls = {"urls": {"agent": "http://s/0000-agent?x"}}
    assert [agent.report_url(urls, 7, phase) for phase in ("agent", "gone")] == ["http://s/0000-agent?x", ""]


def test_the_command_of_an_engine():
    assert agent.engine_command({**RENDEZVOUS, "engine_args": ["--mpi"]}, "/py", "/p", "s-2-1-0-0") == [
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
    command = agent.engine_command(
        {**RENDEZVOUS, "engine_cmd": ["mpirun", "ipengine"], "engine_args": [argument]}, "/py", "/p", "u"
    )
    assert command[:2] == ["mpirun", "ipengine"]
    assert [a for a in command if "timeout" in a] == [argument]


def test_the_unit():
    assert agent.unit_text("/usr/bin/python3", "/var/lib/ipp-griffin/agent.py").splitlines() == [
        "[Unit]",
        "Description=ipp-griffin: what this server runs of an ipyparallel cluster",
        "Wants=network-online.target",
        "After=network-online.target",
        "StartLimitIntervalSec=600",
        "StartLimitBurst=5",
        "StartLimitAction=poweroff",  # an agent that always breaks must not leave a server on for ever
        "",
        "[Service]",
        "ExecStart=/usr/bin/python3 /var/lib/ipp-griffin/agent.py",
        "Restart=on-failure",
        "RestartSec=5",
        "KillMode=control-group",
        "TimeoutStopSec=20",
        "OOMPolicy=continue",
        "TasksMax=infinity",
        "StandardOutput=journal+console",
        "StandardError=journal+console",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]


def test_a_python_path_that_systemd_would_expand_is_not_written_into_the_unit():
    text = agent.unit_text("/opt/50%n py/bin/python", "/a.py")
    assert "%" not in text and "ExecStart=/usr/bin/env python3 /a.py\n" in text


# -- the agent --------------------------------------------------------------------------------------------------------


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
    """An agent and all that is around it."""

    def __init__(self, folder, net=None, run=None, root=False, thread=AtOnce, **parameters):
        self.net, self.clock, self.lines, self.commands, self.problem = net or Net(), Clock(now=1000.0), [], [], ""

        def run_and_keep(argv, user="", env=None, timeout=60):
            self.commands.append((user, " ".join(argv)))
            return run(argv) if run else (0, "")

        self.agent = Agent(
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
        self.agent.private_object = json.loads(json.dumps(RENDEZVOUS))


@pytest.fixture
def world(tmp_path):
    return lambda *args, **kwargs: World(tmp_path / "state", *args, **kwargs)


def test_fetching_outlives_everything_a_store_does_before_it_is_consistent(world):
    good = json.dumps(RENDEZVOUS).encode()
    w = world(
        Net(
            *(http_error(status) for status in (401, 403, 404, 500, 503)),
            ConnectionRefusedError(111, "Connection refused"),
            http.client.IncompleteRead(b"{"),
            TimeoutError("timed out"),
            b"<html>",
            good[:-9],
            good,
        )
    )
    w.agent.load()
    assert w.agent.private_object == RENDEZVOUS
    assert len(w.net.requests) == 11
    assert all(a * 0.6 <= b <= 10 for a, b in zip([1, *w.clock.slept], w.clock.slept, strict=False))
    assert "5ecre7a" not in "".join(w.lines)
    kept = Path(w.agent.path("private_object.json"))
    assert kept.read_bytes() == good and kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700


def test_a_kept_object_is_used_without_fetching(world):
    w = world(Net(http_error(404)))
    agent.write(w.agent.path("private_object.json"), json.dumps({**RENDEZVOUS, "restarts": 9}).encode())
    w.agent.load()
    assert w.agent.private_object["restarts"] == 9 and w.net.requests == []


def test_fetching_ends_at_its_deadline_with_what_happened_last(world):
    w = world(Net(http_error(404), http_error(401)))
    with pytest.raises(Failure, match=r"never came from store:8080 within 60 s: HTTP Error 401: No\. See that"):
        w.agent.load()
    assert w.clock.now - 1000 == pytest.approx(60)


def test_a_report_that_can_not_be_written_holds_up_nothing_and_is_counted(world):
    w = world(Net(http_error(503), http_error(503), OSError("no route"), b""))
    w.agent.report("agent", "one")
    w.agent.report("gone", "two\nlines \x1b[1m " + CONNECTION["key"])
    assert w.net.names == ["0000-agent"] * 3 + ["0001-gone"]
    assert w.clock.slept == [1, 2]
    assert "was not written: no route" in w.lines[1]
    assert World(Path(w.agent.state)).agent.kept["sequence"] == 2  # also after a reboot


def test_a_full_disk_keeps_no_report_from_being_written(world, monkeypatch):
    """What fills it may be what the engines compute: they would be ended with an agent that breaks."""
    w = world()

    def full(path, data, mode=0o600):
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(agent, "write", full)
    w.agent.report("engines", "one")
    w.agent.report("gone", "two")
    assert w.net.names == ["0000-engines", "0001-gone"]
    assert "what a reboot needs was not kept: No space left on device" in w.lines


def test_what_a_report_says(world):
    w = world()
    w.agent.redactor = Redactor(agent.secrets_of(PARAMETERS, RENDEZVOUS))
    w.agent.report("failed", "with " + CONNECTION["curve_serverkey"] + "\nand 5ecre7b")
    report = w.net.reports[0][1]
    assert report.pop("time") > 0
    assert report == {
        "utc_offset": time.localtime().tm_gmtoff,
        "version": 1,
        "phase": "failed",
        "message": "with *** and ***",
        "server": "griffin-u-2",
        "engines": [],
    }


def test_where_each_phase_has_its_url_a_phase_without_one_is_only_logged(world):
    w = world(reports={"urls": {"agent": "http://s/0000-agent?sig=1"}})
    w.agent.report("agent", "a")
    w.agent.report("gone", "b")
    assert [r.full_url for r in w.net.requests] == ["http://s/0000-agent?sig=1"]


def test_a_line_on_the_console_has_its_mark_and_then_the_utc_time(monkeypatch):
    console = io.StringIO()
    monkeypatch.setattr(agent, "STREAMS", [console])
    monkeypatch.setattr(agent.time, "time", lambda: 1_700_000_000.0625)
    agent.say("engines: all run")
    assert console.getvalue() == "ipp-griffin: 2023-11-14T22:13:20.062Z engines: all run\n"


def engine_with_log(world, data, index=0):
    engine = agent.Engine(index, world.agent.path(f"engine-{index}.log"))
    Path(engine.log).write_bytes(data)
    world.agent.engines.append(engine)
    return engine


@pytest.mark.parametrize("shift", range(0, 30, 3))
def test_a_long_log_is_cut_in_the_middle_but_never_through_a_secret(world, shift):
    """A part of a key would pass for harmless text: wherever the cut falls, none is left."""
    w = world()
    w.agent.redactor = Redactor(["SecrKeyabcdefghTERM"])
    data = b"." * shift + b"SecrKeyabcdefghTERM" * 3000
    text = w.agent.excerpt(engine_with_log(w, data), 1000)
    assert "bytes left out" in text
    assert "Secr" not in text and "TERM" not in text


def test_head_and_tail_of_a_log(world):
    w = world()
    data = b"h" * 20_000 + b"m" * 100_000 + b"t" * 60_000
    text = w.agent.excerpt(engine_with_log(w, data), agent.HEAD + agent.TAIL)
    assert text == "h" * 16384 + f"\n[... {180_000 - 65536} bytes left out ...]\n" + "t" * 49152


def test_a_report_of_many_long_logs_stays_within_its_limit(world):
    w = world()
    for k in range(12):
        engine_with_log(w, b"\x1b\n" * 50_000, k)
    body = w.agent.report_body("gone", "x")
    assert 100_000 < len(body) <= 256 * 1024
    assert [bool(e["output"]) for e in json.loads(body)["engines"]] == [True] * 12


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
    w.agent.keep(ran=True)
    w.problem = "no route"
    with pytest.raises(ControllerGone, match="no route"):
        w.agent.reach_controller()
    assert w.clock.now - 1000 == 300


# -- Python and packages ----------------------------------------------------------------------------------------------

NONE = json.dumps({"python": "3.9", "ipyparallel": "", "paths": ["/usr/lib/site-packages"], "site": "SITE"})
FOUND = json.dumps({"python": "3.11", "ipyparallel": "9.2.0", "paths": ["/opt/site-packages"], "site": "SITE"})


class Image:
    """A server on which commands do what they would: `run` for `World`."""

    def __init__(self, folder, ipyparallel=False, ensurepip=True, pip=True, apt=True, index=True):
        self.venv, self.folder = str(folder / "state" / "venv"), folder
        self.ipyparallel, self.ensurepip, self.pip, self.apt, self.index = ipyparallel, ensurepip, pip, apt, index
        self.installed = False

    def __call__(self, argv):
        site = str(self.folder)
        if argv[1] == "-c":
            there = self.installed if argv[0].startswith(self.venv) else self.ipyparallel
            return 0, (FOUND if there or self.ipyparallel else NONE).replace("SITE", site)
        if argv[0] == "apt-get":
            self.ensurepip = self.apt
            return (0, "") if self.apt else (100, "E: no such package")
        if argv[1:3] == ["-m", "venv"]:
            return (0, "") if self.ensurepip or "--without-pip" in argv else (1, "ensurepip is not available")
        if argv[-1] == "--version":
            return (0, "") if self.pip else (1, "No module named pip")
        if "install" in argv:
            self.installed = self.index
            Path(self.venv).mkdir(parents=True, exist_ok=True)
            return (0, "") if self.index else (1, "ERROR: Ignored versions that require Python >=3.10\nERROR: No match")
        return 0, ""


def installs(w):
    return [c for _, c in w.commands if " -c " not in c]


def test_an_image_with_ipyparallel_is_used_as_it_is(world, tmp_path):
    w = world(run=Image(tmp_path, ipyparallel=True))
    w.agent.prepare()
    assert w.agent.python == sys.executable and w.agent.notes == []
    assert installs(w) == []


def test_another_minor_version_of_python_is_a_warning(world, tmp_path):
    w = world(run=Image(tmp_path, ipyparallel=True))
    w.agent.private_object["python"] = "3.13"
    w.agent.prepare()
    assert w.agent.notes == ["WARNING: Python 3.11 here, 3.13 at the client: functions may not travel"]


def test_an_image_without_ipyparallel_gets_a_venv_with_the_clients_version_and_the_packages(world, tmp_path):
    w = world(run=Image(tmp_path), proxy="http://proxy:3128")
    w.agent.private_object.update(
        packages=["numpy<3", "./x.whl"], pip_args=["--index-url=http://i"], engine_python=sys.executable
    )
    w.agent.prepare()
    venv = w.agent.path("venv")
    assert installs(w) == [
        f"{sys.executable} -m venv {venv}",
        f"{venv}/bin/python -m pip install --no-input --index-url=http://i ipyparallel==9.2.0 numpy<3 ./x.whl",
    ]
    assert w.agent.python == f"{venv}/bin/python"


def test_the_proxy_is_in_the_environment_of_pip_and_the_controller_is_not_behind_it(world):
    w = world(proxy="http://proxy:3128")
    w.agent.private_object["connection"] = {**CONNECTION, "interface": "tcp://10.9.8.7"}
    found = w.agent.pip_environment()
    assert {k.lower(): v for k, v in found.items() if k.lower().endswith("_proxy")} == {
        "http_proxy": "http://proxy:3128",
        "https_proxy": "http://proxy:3128",
        "no_proxy": "localhost,127.0.0.1,::1,10.9.8.7",
    }
    assert {k for k in found if k.endswith("_PROXY")} == {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    assert world().agent.proxy_environment() == {}


@pytest.mark.parametrize("where", ["default", "usual", "nowhere"])
def test_pip_trusts_the_clouds_own_ca_beside_the_public_ones(world, tmp_path, monkeypatch, where):
    """Never instead of them: without a bundle to add it to, pip goes on with its own."""
    bundles = {"default": str(tmp_path / "default.pem"), "usual": "/etc/ssl/certs/ca-certificates.crt"}
    monkeypatch.setattr(agent, "read", lambda path: b"PUBLIC\n" if path and path == bundles.get(where) else b"")
    paths = SimpleNamespace(cafile=bundles["default"] if where == "default" else None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
    found = world(ca_certificates="PRIVATE\n").agent.pip_environment()
    if where == "nowhere":
        assert "PIP_CERT" not in found
    else:
        assert Path(found["PIP_CERT"]).read_text().split() == ["PUBLIC", "PRIVATE"]


def test_packages_for_an_image_with_ipyparallel_go_into_a_venv_that_sees_the_images(world, tmp_path):
    w = world(run=Image(tmp_path, ipyparallel=True))
    w.agent.private_object.update(packages=["numpy"], engine_python=sys.executable)
    w.agent.prepare()
    assert installs(w)[-1].endswith("/venv/bin/python -m pip install --no-input numpy")
    assert (tmp_path / "image.pth").read_text() == "/opt/site-packages"


def test_the_venv_is_made_once(world, tmp_path):
    image = Image(tmp_path)
    w = world(run=image)
    w.agent.private_object["engine_python"] = sys.executable
    w.agent.prepare()
    (tmp_path / "state/venv/bin").mkdir()
    (tmp_path / "state/venv/bin/python").touch()
    again = World(tmp_path / "state", run=image)
    again.agent.private_object["engine_python"] = sys.executable
    again.agent.prepare()
    assert installs(again) == [] and again.agent.python == w.agent.python


def test_without_ensurepip_the_images_pip_fills_the_venv(world, tmp_path):
    w = world(run=Image(tmp_path, ensurepip=False))
    w.agent.private_object["engine_python"] = sys.executable
    w.agent.prepare()
    venv = w.agent.path("venv")
    assert installs(w)[1:] == [
        f"{sys.executable} -m pip --version",
        f"{sys.executable} -m venv --clear --without-pip {venv}",
        f"{sys.executable} -m pip install --no-input --target {tmp_path} ipyparallel==9.2.0",
    ]


@pytest.fixture
def as_root(monkeypatch, tmp_path):
    """The agent believes it is root on a server with a user ipp."""
    users = {"ipp": SimpleNamespace(pw_name="ipp", pw_uid=990, pw_gid=990, pw_dir=str(tmp_path / "state"))}
    users["toor"] = SimpleNamespace(pw_name="toor", pw_uid=0, pw_gid=0, pw_dir="/root")
    monkeypatch.setattr(agent.pwd, "getpwnam", users.__getitem__)
    monkeypatch.setattr(agent.pwd, "getpwall", lambda: list(users.values()))
    monkeypatch.setattr(agent, "acting_as", lambda user: agent.contextlib.suppress())
    monkeypatch.setattr(agent.shutil, "which", lambda name: f"/usr/bin/{name}")
    return users


def test_debians_python_without_pip_gets_its_venv_package_by_apt(world, tmp_path, as_root):
    image = Image(tmp_path, ensurepip=False, pip=False)
    image.venv = str(tmp_path / "state/.ipp-griffin/venv")
    w = world(run=image, root=True)
    w.agent.private_object["engine_python"] = sys.executable
    w.agent.prepare()
    assert [c for c in w.commands if "apt-get" in c[1]] == [
        ("", "apt-get -y -q -o DPkg::Lock::Timeout=300 update"),
        ("", "apt-get -y -q -o DPkg::Lock::Timeout=300 install python3-venv"),
    ]
    assert {user for user, c in w.commands if "apt-get" not in c} == {"ipp"}  # pip never runs as root
    assert w.agent.python == image.venv + "/bin/python"


def test_an_image_with_nothing_but_python_takes_pip_from_the_users_index(world, tmp_path):
    net = Net(
        b'<a href="../files/pip-9.0-py3-none-any.whl#sha256=1">pip</a> <a href="../files/pip-26.3-py3-none-any.whl">pip</a>'
        b'<a href="../files/pip-27.0.tar.gz">pip</a>',
        b"the wheel",
    )
    w = world(net, run=Image(tmp_path, ensurepip=False, pip=False))
    w.agent.private_object.update(engine_python=sys.executable, pip_args=["--index-url=http://index/simple"])
    w.agent.prepare()
    assert net.requests == ["http://index/simple/pip/", "http://index/simple/files/pip-26.3-py3-none-any.whl"]
    venv, wheel = w.agent.path("venv"), w.agent.path("pip-26.3-py3-none-any.whl")
    assert Path(wheel).read_bytes() == b"the wheel"
    assert installs(w)[2:] == [
        f"{sys.executable} -m venv --clear --without-pip {venv}",
        f"{venv}/bin/python {wheel}/pip install --no-input --index-url=http://index/simple ipyparallel==9.2.0",
    ]


@pytest.mark.parametrize("option", [["--find-links={}"], ["-f", "{}"]])
def test_an_image_with_nothing_but_python_takes_pip_from_a_folder_of_its_own(world, tmp_path, option):
    (tmp_path / "wheels").mkdir()
    wheel = tmp_path / "wheels" / "pip-26.3-py3-none-any.whl"
    wheel.touch()
    w = world(run=Image(tmp_path, ensurepip=False, pip=False))
    w.agent.private_object["engine_python"] = sys.executable
    w.agent.private_object["pip_args"] = ["--no-index", *(word.format(wheel.parent) for word in option)]
    w.agent.prepare()
    assert f"/venv/bin/python {wheel}/pip install --no-input --no-index" in installs(w)[-1]


@pytest.mark.parametrize(
    "answers", [[OSError()], [http_error(404)], [b"<html>"], [b'<a href="pip-1-py3-none-any.whl">', OSError()]]
)
def test_an_index_without_pip_is_a_failure_that_says_what_to_do(world, tmp_path, answers):
    w = world(Net(*answers), run=Image(tmp_path, ensurepip=False, pip=False))
    w.agent.private_object.update(engine_python=sys.executable, pip_args=["-i", "http://index/simple"])
    with pytest.raises(Failure, match="Put ipyparallel or python3-venv into the image"):
        w.agent.prepare()


def test_no_way_to_make_a_venv_is_a_failure_that_says_what_to_do(world, tmp_path):
    w = world(run=Image(tmp_path, ensurepip=False, pip=False))
    w.agent.private_object["engine_python"] = sys.executable
    with pytest.raises(Failure, match="ensurepip is not available. Put ipyparallel or python3-venv into the image"):
        w.agent.prepare()


def test_a_python_too_old_is_a_failure_in_pips_words(world, tmp_path):
    w = world(run=Image(tmp_path, index=False))
    w.agent.private_object["engine_python"] = sys.executable
    with pytest.raises(
        Failure, match=r"could not install ipyparallel==9.2.0 for Python 3.9: .*require Python >=3.10 \|"
    ):
        w.agent.prepare()


def test_an_engine_python_that_is_not_there_is_a_failure(world):
    w = world()
    w.agent.private_object["engine_python"] = "/no/such/python"
    with pytest.raises(Failure, match="engine_python /no/such/python is not there"):
        w.agent.prepare()


def test_an_engine_command_of_its_own_needs_no_python(world):
    w = world()
    w.agent.private_object["engine_cmd"] = ["singularity", "run", "engine.sif"]
    w.agent.prepare()
    assert w.commands == [] and w.agent.python == ""


def test_packages_in_somebodys_home_that_the_engine_user_can_not_read_make_engines_run_as_that_user(
    world, tmp_path, as_root, monkeypatch
):
    home = tmp_path / "ubuntu"
    (home / "venv/bin").mkdir(parents=True)
    python = home / "venv/bin/python"
    python.touch()
    as_root["ubuntu"] = SimpleNamespace(pw_name="ubuntu", pw_uid=1000, pw_gid=1000, pw_dir=str(home))
    monkeypatch.setattr(agent, "run_command", None)
    w = world(root=True)

    def run(argv, user="", env=None, timeout=60):
        return (0, FOUND) if (argv[0], user) == (str(python), "ubuntu") else (1, "Permission denied")

    w.agent.run = run
    w.agent.prepare()
    assert (w.agent.user, w.agent.home, w.agent.python) == ("ubuntu", str(home), str(python))
    assert w.agent.notes == ["engines run as ubuntu: the packages are in that home"]


@pytest.mark.parametrize(("name", "problem"), [("toor", "don't run as root"), ("-x y", "is no user name")])
def test_engines_never_run_as_root_and_only_as_a_proper_user(world, as_root, name, problem):
    w = world(root=True)
    w.agent.private_object["engine_user"] = name
    with pytest.raises(Failure, match=problem):
        w.agent.prepare()


def test_a_missing_engine_user_is_made_with_a_home(world, as_root):
    def useradd(argv):
        as_root["worker"] = SimpleNamespace(pw_name="worker", pw_uid=991, pw_gid=991, pw_dir="/home/worker")
        return 0, ""

    w = world(run=useradd, root=True)
    w.agent.private_object["engine_user"] = "worker"
    w.agent.make_user()
    assert w.commands == [("", "useradd --system --create-home --shell /bin/bash worker")]
    assert (w.agent.user, w.agent.home) == ("worker", "/home/worker")


def test_a_user_that_can_not_be_made_is_a_failure(world, as_root):
    w = world(run=lambda argv: (1, "useradd: cannot lock /etc/passwd"), root=True)
    w.agent.private_object["engine_user"] = "worker"
    with pytest.raises(Failure, match="could not make the user worker: useradd: cannot lock"):
        w.agent.make_user()


# -- engines ----------------------------------------------------------------------------------------------------------


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

    @property
    def uuids(self):
        return [p.env["UUID"] for p in self.all]


@pytest.fixture
def processes(monkeypatch):
    processes = Processes()
    monkeypatch.setattr(agent, "subprocess", processes)
    return processes


@pytest.fixture
def watched(world, processes):
    """A world whose two engines registered; `story` maps seconds to what happens then, and ends the watch."""
    w = world()
    w.agent.home = "/"
    w.agent.engines = [agent.Engine(k, w.agent.path(f"engine-{k}.log")) for k in range(2)]
    for engine in w.agent.engines:
        w.agent.start_engine(engine, "/p")

    class Over(Exception):
        pass

    def watch(story, seconds):
        story = dict(story)

        def on_sleep():
            for when in [t for t in story if w.clock.now >= 1000 + t]:
                story.pop(when)()
            if w.clock.now >= 1000 + seconds:
                raise Over

        w.clock.then = on_sleep
        with pytest.raises(Over):
            w.agent.watch("/p")

    w.watch, w.processes = watch, processes
    return w


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


def test_what_engines_log_is_reported_at_intervals_under_one_name_and_only_if_there_is_more(watched):
    watched.watch({70: write_log(watched, b"one\n"), 200: write_log(watched, b"two\n", 1)}, 400)
    assert watched.net.names == ["0000-engines", "0001-log", "0001-log"]
    (_, first), (_, second) = watched.net.reports[1:]
    assert (first["phase"], first["message"]) == ("log", "2 of 2 engines run")
    assert [e["output"].endswith("one\n") for e in first["engines"]] == [True, False]
    assert [e["output"].rpartition("\n")[0][-3:] for e in second["engines"]] == ["one", "two"]


def test_reports_of_logs_and_of_phases_do_not_get_into_each_others_way(watched):
    """What a phase's report has told of the logs is not told again, and the next phase has its own number."""
    first, second = watched.processes.all
    watched.watch({61: write_log(watched, b"x\n"), 125: end(first, 1), 130: end(second, 1)}, 400)
    assert watched.net.names == ["0000-engines", "0001-log", "0002-engines", "0003-gone"]


def test_with_an_interval_of_zero_logs_go_with_phases_only(watched):
    watched.agent.private_object["timeouts"]["log_interval"] = 0
    watched.watch({61: write_log(watched, b"x\n")}, 400)
    assert watched.net.names == ["0000-engines"]


def test_logs_that_could_not_be_reported_are_tried_again_and_that_is_told_once(watched):
    watched.net.answers = [b"", http_error(503), http_error(401), b""]
    watched.watch({70: write_log(watched, b"x\n")}, 400)
    assert watched.net.names == ["0000-engines"] + ["0001-log"] * 3
    told = [line for line in watched.lines if "logs can't be reported" in line]
    assert told == ["logs can't be reported now, will go on trying: HTTP Error 503: No"]


def test_a_phase_that_could_not_be_reported_is_tried_again_until_it_is(watched):
    """The object store was down for minutes: this server must not look like one that never reported."""
    watched.net.answers = [http_error(503)]
    watched.watch({200: lambda: watched.net.answers.append(b"") or watched.net.answers.pop(0)}, 400)
    phases = [name for name in watched.net.names if not name.endswith("-log")]
    assert phases == ["0000-engines"] * (3 + 7)  # three tries at once, then one in half a minute
    assert watched.lines.count("report engines was written at last") == 1


def test_of_phases_that_could_not_be_reported_the_last_counts(watched):
    first, second = watched.processes.all
    watched.net.answers = [http_error(503)] * 6 + [b""]  # three tries for each of the first two
    watched.watch({10: end(first, 1), 11: end(second, 1)}, 60)
    assert watched.net.names[-1] == "0002-gone"
    assert watched.net.reports[-1][1]["phase"] == "gone"


def test_the_first_report_is_written_once_the_store_is_back_before_packages_are_installed(world, monkeypatch):
    w = world(Net(*[http_error(503)] * 5, json.dumps(RENDEZVOUS).encode(), b""))
    written = []

    def prepare():
        written.extend(r.full_url for r in w.net.requests if not isinstance(r, str))
        w.agent.on_signal(signal.SIGTERM, None)

    monkeypatch.setattr(w.agent, "prepare", prepare)
    w.agent.main()
    assert ["0000-agent" in url for url in written] == [True] * 4


def test_the_first_report_and_the_connection_object_wait_for_the_store_at_the_same_time(world, monkeypatch):
    """And nothing is started before both are through: a child that is forked beside a thread may hang."""
    both = threading.Barrier(2, timeout=60)  # neither is answered before both have been asked

    def store(request, timeout):
        both.wait()
        return io.BytesIO(b"" if isinstance(request, urllib.request.Request) else json.dumps(RENDEZVOUS).encode())

    w = world(store, thread=threading.Thread)
    threads = []
    monkeypatch.setattr(w.agent, "prepare", lambda: threads.append(threading.active_count()))
    monkeypatch.setattr(w.agent, "work", lambda: w.agent.on_signal(signal.SIGTERM, None))
    before = threading.active_count()
    assert w.agent.main() == 0
    assert threads == [before] and w.agent.unsent is None


def test_a_connection_object_that_never_comes_is_reported_after_the_first_report(world):
    w = world(Net(http_error(404)), thread=threading.Thread)
    w.agent.main()
    names = [r.full_url.partition("?")[0].rpartition("/")[2] for r in w.net.requests if not isinstance(r, str)]
    assert names == ["0000-agent"] * 3 + ["0001-failed"] * 3


def test_that_the_controller_answers_is_reported_when_the_engines_start_already(world, processes, monkeypatch):
    """They take longer to register than the store to take a report; what they are for comes first."""
    w = world()
    w.agent.home = "/"
    monkeypatch.setattr(w.agent, "watch", lambda profile: w.agent.report("engines", w.agent.summary()))
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


def starting(world, engines):
    """A world whose engines are to start."""
    w = world()
    w.agent.home = "/"
    w.agent.engines = [agent.Engine(k, w.agent.path(f"engine-{k}.log")) for k in range(engines)]
    return w


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(agent.os, "sched_getaffinity", lambda pid: {0, 1})


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
    w.clock.then = lambda: started.setdefault(len(processes.all), w.clock.now - 1000 - agent.POLL)
    w.agent.start_engines("/p")
    assert started == {4: 0, 7: agent.OVERDUE}
    assert w.clock.now - 1000 == pytest.approx(agent.OVERDUE + agent.SETTLED, abs=1)


def test_an_engine_that_ends_at_once_keeps_those_after_it_from_starting(world, processes, two_cores):
    processes.log = b"no luck\n"
    w = starting(world, 7)
    w.clock.then = lambda: setattr(processes.all[2], "returncode", 3)
    with pytest.raises(Failure, match=r"engine 2 ended before it had registered \(exit code 3\)"):
        w.agent.start_engines("/p")
    assert len(processes.all) == 4
    w.agent.terminate()  # also those that never started


def test_after_a_reboot_engines_start_at_once_and_are_not_waited_for(world, processes, two_cores):
    processes.log = b""
    w = starting(world, 7)
    w.agent.keep(ran=True)
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
    w.agent.home = "/"
    w.agent.private_object["environment"] = {"https_proxy": "http://mine:1"}
    w.agent.start_engine(agent.Engine(0, w.agent.path("engine-0.log")), "/p")
    found = processes.all[0].env
    assert (found["http_proxy"], found["https_proxy"]) == ("http://proxy:3128", "http://mine:1")
    assert found["no_proxy"].startswith("localhost,127.0.0.1,")


def test_a_crashed_engine_is_restarted_as_the_next_generation(watched):
    watched.watch({2: end(watched.processes.all[0], -9)}, 10)
    assert watched.net.names == ["0000-engines", "0001-engines"]
    assert engines_of(watched.net.reports[1][1]) == [("1", True, None), ("0", True, None)]
    assert watched.agent.kept["generations"] == [2, 1]


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
    assert w.clock.now - 1000 == pytest.approx(agent.SETTLED, abs=1)


def test_an_engine_that_says_it_is_registering_is_waited_for(world, processes):
    processes.log = b"Registering with controller at tcp://10.0.0.5:20001\n"
    w = starting(world, 1)
    w.clock.then = lambda: setattr(processes.all[0], "returncode", 255 if w.clock.now > 1120 else None)
    with pytest.raises(
        Failure, match=r"engine 0 ended before it had registered \(exit code 255\). Its last lines: Reg"
    ):
        w.agent.start_engines("/p")


def test_old_output_is_not_taken_for_the_next_generations(world, processes):
    w = world()
    w.agent.home = "/"
    engine = agent.Engine(0, w.agent.path("engine-0.log"))
    w.agent.engines = [engine]
    w.agent.start_engine(engine, "/p")
    w.agent.look()
    assert engine.registered
    processes.log = b""
    w.agent.start_engine(engine, "/p")
    w.agent.look()
    assert not engine.registered


def test_a_command_that_can_not_be_run_is_a_failure(world, processes):
    w = world()
    w.agent.home = "/"
    processes.error = FileNotFoundError(2, "No such file")
    with pytest.raises(Failure, match="could not run "):
        w.agent.start_engine(agent.Engine(0, w.agent.path("engine-0.log")), "/p")


def test_what_engines_read_is_theirs_alone(world):
    w = world()
    profile = Path(w.agent.write_profile())
    files = {str(p.relative_to(profile)): p.stat().st_mode & 0o777 for p in profile.rglob("*") if p.is_file()}
    assert files == {"ipengine_config.py": 0o600, "security/ipcontroller-engine.json": 0o600}
    assert json.loads((profile / "security/ipcontroller-engine.json").read_text()) == CONNECTION


# -- the whole --------------------------------------------------------------------------------------------------------


def test_a_failure_is_reported_and_is_the_exit_status_of_a_plain_process_only(world):
    """As a unit the status is 0: systemd would start it again and again."""
    for root, status in ((False, 1), (True, 0)):
        w = world(root=root)
        w.agent.load = lambda: (_ for _ in ()).throw(Failure("why"))
        assert w.agent.main() == status
        assert w.net.reports[-1][1]["message"] == "why"


@pytest.mark.parametrize("known", [True, False])
def test_after_a_failure_a_server_that_nobody_deletes_is_switched_off(world, tmp_path, monkeypatch, known):
    """The process that started it was killed, and the controller with it: `ipp-griffin reap` finds what is off."""
    (tmp_path / "instance-id").write_bytes(b"i-1")
    monkeypatch.setattr(agent, "INSTANCE_ID", str(tmp_path / "instance-id"))
    w = world(root=True)
    agent.write(w.agent.path("instance-id"), b"i-1")
    w.agent.private_object = {"timeouts": {"controller_gone": 7}} if known else {}
    w.agent.load = lambda: (_ for _ in ()).throw(Failure("no controller"))
    assert w.agent.main() == 0
    assert w.clock.slept == [7 if known else 300]
    assert w.commands == [("", "systemctl poweroff")]


@pytest.mark.parametrize(
    ("made_for", "runs_on", "off"), [(b"i-1\n", b"i-1\n", True), (b"i-1\n", b"i-2\n", False), (b"", b"", False)]
)
def test_only_the_server_that_it_was_made_for_is_switched_off(world, tmp_path, monkeypatch, made_for, runs_on, off):
    (tmp_path / "instance-id").write_bytes(runs_on)
    monkeypatch.setattr(agent, "INSTANCE_ID", str(tmp_path / "instance-id"))
    w = world(root=True)
    agent.write(w.agent.path("instance-id"), made_for)
    w.agent.power_off()
    assert w.commands == ([("", "systemctl poweroff")] if off else [])


@pytest.mark.parametrize(
    ("error", "status", "phase"), [(ControllerGone("it is gone"), 0, "gone"), (Failure("why"), 1, "failed")]
)
def test_a_plain_process_never_switches_anything_off(world, error, status, phase):
    w = world()
    w.agent.load = lambda: (_ for _ in ()).throw(error)
    assert w.agent.main() == status
    assert w.net.names == ["0000-agent", f"0001-{phase}"] and w.commands == []


def test_poweroff_is_tried_in_several_ways(world, tmp_path, monkeypatch):
    (tmp_path / "instance-id").write_bytes(b"i-1")
    monkeypatch.setattr(agent, "INSTANCE_ID", str(tmp_path / "instance-id"))
    w = world(root=True, run=lambda argv: (127, "not there"))
    agent.write(w.agent.path("instance-id"), b"i-1")
    w.agent.power_off()
    assert [c for _, c in w.commands] == ["systemctl poweroff", "poweroff", "shutdown -P now"]


def test_installing_writes_a_private_copy_and_a_unit_and_does_not_wait_for_it(tmp_path):
    (tmp_path / "part-001").write_text("print()")
    (tmp_path / "state").mkdir()
    commands = []
    unit = tmp_path / "ipp-griffin-agent.service"
    assert agent.install(
        str(tmp_path / "part-001"),
        str(tmp_path / "state"),
        str(unit),
        lambda c: (commands.append(" ".join(c)), (0, ""))[1],
    )
    copy = tmp_path / "state/agent.py"
    assert copy.read_text() == "print()" and copy.stat().st_mode & 0o777 == 0o600
    assert f"ExecStart={sys.executable} {copy}" in unit.read_text() and unit.stat().st_mode & 0o777 == 0o644
    assert commands == [
        "systemctl daemon-reload",
        "systemctl enable ipp-griffin-agent.service",
        "systemctl restart --no-block ipp-griffin-agent.service",
    ]


def test_where_systemd_refuses_the_agent_is_not_installed(tmp_path, capsys):
    (tmp_path / "state").mkdir()
    assert not agent.install(
        "/dev/null", str(tmp_path / "state"), str(tmp_path / "u.service"), lambda c: (1, "refused")
    )


def test_on_another_instance_the_unit_does_nothing(tmp_path, monkeypatch, capsys):
    """A snapshot of a server with engines boots as a plain server."""
    (tmp_path / "instance-id").write_text("i-1")
    (tmp_path / "now").write_text("i-2")
    lines = []
    monkeypatch.setattr(agent, "STATE", str(tmp_path))
    monkeypatch.setattr(agent, "INSTANCE_ID", str(tmp_path / "now"))
    monkeypatch.setattr(agent, "__file__", str(tmp_path / "agent.py"))
    monkeypatch.setattr(agent, "say", lines.append)
    monkeypatch.setattr(agent.os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/usr/bin")  # which it changes
    assert agent.main() == 0
    assert lines == ["this agent was made for another server; nothing to do"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["instance-id", "now"]


# -- the end of a server's life


@pytest.mark.parametrize(
    ("date", "after", "over"),
    [
        ("Thu, 01 Jan 1970 00:16:00 GMT", 39, False),  # the store's 960 s
        ("Thu, 01 Jan 1970 00:16:00 GMT", 40, True),
        (None, 0, True),  # nobody told the time: by our own clock it is over since 1970
    ],
)
def test_a_server_lives_until_its_expiry_by_the_stores_clock(world, date, after, over):
    """Its own clock may be off by months at boot."""
    w = world(expires=1000)
    headers = email.message.Message()
    if date:
        headers["Date"] = date
    w.agent.note_time(types.SimpleNamespace(headers=headers))
    w.clock.now += after
    assert w.agent.expired() is over


def test_a_server_without_an_expiry_lives_on(world):
    assert not world(expires=0).agent.expired()
    assert not world().agent.expired()


def test_at_its_expiry_the_engines_are_ended_and_the_server_switched_off(world, monkeypatch):
    w = world(root=True, expires=1)
    done = []
    monkeypatch.setattr(w.agent, "load", lambda: None)
    for step in ("prepare", "reach_controller"):
        monkeypatch.setattr(w.agent, step, lambda: None)
    monkeypatch.setattr(w.agent, "write_profile", lambda: "profile")
    monkeypatch.setattr(w.agent, "start_engines", lambda profile: None)
    monkeypatch.setattr(w.agent, "terminate", lambda: done.append("engines ended"))
    monkeypatch.setattr(w.agent, "power_off", lambda: done.append("off"))
    assert w.agent.main() == 0
    assert done == ["engines ended", "off"]
    name, report = w.net.reports[-1]
    assert (name.partition("-")[2], report["message"]) == ("gone", "the life of this server is over (max_lifetime)")
