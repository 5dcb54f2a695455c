#!/usr/bin/env python3
# This file must also run on the Python 3.6 of an old image, to start engines with a newer one: no newer syntax or API.
# ruff: noqa: UP006, UP035, UP045, PTH100, PTH103, PTH105, PTH108, PTH109, PTH110, PTH111, PTH112, PTH118, PTH119, PTH120, PTH123, PTH202, PTH207
"""The agent: runs ON a server as its user-data, starts its engines, or the controller, watches them and reports. Standard library only.

`model.userdata.render` fills in PARAMETERS. Three ways to run, told apart by `main`:

* cloud-init starts it as root from its scripts folder: it installs itself as a systemd unit (without systemd: goes into
  the background) and returns, so that cloud-init isn't held up;
* the unit starts it, now and after each reboot, on the instance it was installed on and on no other (a snapshot of a
  server with engines boots as a plain server). It makes an unprivileged user for the engines, and switches the server
  off when the controller is gone for good, or when it gave up and nobody deleted the server;
* anything else is a plain process in the foreground: engines run as the same user, and at the end it just exits.

An engine that was told to end stays down, one that crashed is restarted as the next generation: see `why_ended`.
Where the connection file names a controller to run, instead of one to connect to, `ControllerAgent` does.
The connection file, logs and counters are in a folder that only the agent can read; what engines need is written
into the engine user's home with that user's rights, so that nothing planted there can misdirect root.
"""

import contextlib
import email.utils
import errno
import glob
import http.client
import json
import os
import pwd
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Set, Tuple

Json = Dict[str, Any]
PARAMETERS: Json = {}

STATE = "/var/lib/ipp-griffin"
UNIT = "/etc/systemd/system/ipp-griffin-agent.service"
INSTANCE_ID = "/var/lib/cloud/data/instance-id"
LOG = "/var/log/ipp-griffin-agent.log"

POLL = 0.25  # seconds between two looks at the engines
ABREAST = 2  # engines for each core that start at a time
OVERDUE = 5.0  # seconds that the next wait for one of them at most
PROBE = 5.0  # seconds between two tries to reach a controller that is gone
CONNECT = 3.0  # seconds that one TCP connection may take
SETTLED = 30.0  # seconds alive after which an engine that logs nothing counts as running
REPORT_TRIES, REPORT_TIMEOUT = 3, 5.0
ENGINE_PORTS = 12  # of a controller's 20: 9 at its default broadcast depth; clients need 7
REPORT_AGAIN = 30.0  # seconds until a phase that could not be reported is tried again
HEAD, TAIL, BODY = 16 << 10, 48 << 10, 256 << 10  # bytes of one engine's log in a report; of a whole report
STREAMS = [sys.stdout]
PIP = re.compile(r"(?:^|/)pip-[0-9.]+-py3-none-any\.whl$")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

Run = Callable[..., Tuple[int, str]]


class Failure(Exception):
    """The agent gives up; the message is for a person."""


class Stopped(BaseException):
    """SIGTERM came."""


# -- deciding: no I/O ---------------------------------------------------------------------------------------------


class Redactor:
    """Replaces secrets by ``***`` and makes control characters visible, in whatever leaves this server."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        variants: Set[bytes] = set()
        for secret in secrets:
            if secret:
                forms = (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], urllib.parse.quote(secret, safe=""))
                variants.update(form.encode() for form in forms)
        ordered = sorted(variants, key=len, reverse=True)
        self.longest = len(ordered[0]) if ordered else 0
        self._pattern = re.compile(b"|".join(re.escape(v) for v in ordered)) if ordered else None

    def data(self, data: bytes) -> str:
        if self._pattern is not None:
            data = self._pattern.sub(b"***", data)
        return escape(data.decode("utf-8", "backslashreplace"))

    def text(self, text: str) -> str:
        return self.data(text.encode("utf-8", "backslashreplace"))

    def cut(self, data: bytes, at: int, step: int) -> int:
        """Return ``at``, moved to the end (step 1) or start (step -1) of the secret that it would cut in two."""
        for found in self._pattern.finditer(data) if self._pattern is not None else ():
            if found.start() < at < found.end():
                return found.end() if step > 0 else found.start()
        return at


def escape(text: str) -> str:
    """Escape control characters but newline and tab, and those that reorder text, as ``\\x1b``."""
    hidden = "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
    return re.sub(hidden, lambda m: m.group().encode("unicode_escape").decode(), text)


def secrets_of(parameters: Json, private_object: Json) -> List[str]:
    """Return what no report and no line may show: keys, URL signatures, and environment values whose name says so."""
    connection = private_object.get("connection", {})
    secrets = [str(connection.get(k) or "") for k in ("key", "curve_serverkey")]
    secrets += [str(k) for k in private_object.get("controller", {}).get("keys", {}).values()]
    reports = parameters.get("reports", {})
    queries = [urllib.parse.urlsplit(u).query for u in list(reports.get("urls", {}).values())]
    queries += [urllib.parse.urlsplit(parameters.get("private_object", "")).query, reports.get("query", "")]
    for query in queries:
        secrets += [v for k, v in urllib.parse.parse_qsl(query) if k.lower().endswith(("sig", "signature"))]
    for name, value in private_object.get("environment", {}).items():
        if re.search("KEY|TOKEN|SECRET|PASS", name, re.I) and len(value) >= 6:
            secrets.append(value)
    return secrets


def parse_private_object(body: bytes) -> Json:
    """Return the connection file, if ``body`` is one. Raises ValueError naming what is wrong (not its content)."""
    try:
        found = json.loads(body.decode())
        connection = None if "controller" in found else found["connection"]
        if found["version"] != 1:
            raise ValueError("its version is {!r}, this agent knows 1".format(found["version"]))
        if connection is not None and (
            not connection["interface"].startswith("tcp://") or int(connection["registration"]) < 1
        ):
            raise ValueError("no address or port in it")
        found["ipyparallel"] = str(found["ipyparallel"])
        found["environment"], found["timeouts"] = dict(found["environment"]), dict(found["timeouts"])
    except (KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"incomplete: {e}") from e
    except json.JSONDecodeError as e:
        raise ValueError(f"no JSON: {e.msg}") from e
    return dict(found)


def controller_address(connection: Json, hostname: str) -> str:
    """Return where engines will connect, as ipyparallel.util.disambiguate_ip_address has it."""
    address = str(connection["interface"].split("://", 1)[1])
    if address not in ("0.0.0.0", "*", ""):
        return address
    location = str(connection.get("location") or "")
    return location if location and location != hostname else "127.0.0.1"


def controller_ports(connection: Json) -> List[int]:
    """Return the registration port first, then all others that engines connect to: a firewall may block some of them."""
    ports = [connection["registration"]]
    for name in ("control", "mux", "task", "iopub", "notification", "hb_ping", "hb_pong", "broadcast"):
        port = connection.get(name, [])
        ports += port if isinstance(port, list) else [port]
    return [int(p) for p in ports]


def controller_command(settings: Json, command: Sequence[str], profile: str, again: bool) -> List[str]:
    """Return the argv of ipcontroller. It holds no secret: every user of the server can read it.

    ``again``: it has run before, and comes back with the ports and the engines that it had. Ports that only its own processes
    connect to are any that are free: those of a range would be taken from its start again, whoever has them.
    """
    first, last = (int(port) for port in settings["ports"].split("-"))
    pools = {"engine_ports": f"{first}-{first + ENGINE_PORTS - 1}", "client_ports": f"{first + ENGINE_PORTS}-{last}"}
    argv = list(command) + ["--profile-dir=" + profile, "--IPController.enable_curve=True"]
    argv += [f"--IPController.{name}={again}" for name in ("reuse_files", "restore_engines")]
    argv += [f"--IPController.{name}={pools[name]}" for name in sorted(pools)]
    return argv + ["--{}={}".format(name, settings["address"]) for name in ("ip", "location")] + list(settings["args"])


def minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def choose(
    candidates: Sequence[Tuple[str, str]], probe: Callable[[str, str], Optional[Json]], wanted: str
) -> Optional[Json]:
    """Return the first (python, user) whose ipyparallel is of the client's major.minor version; None if none has any.

    ``probe`` gives {"python": "3.11", "ipyparallel": "9.2.0" or "", "paths": [...]}, or None if it doesn't run.
    Raises Failure if ipyparallel is there, but in other versions only.
    """
    others = []
    for python, user in candidates:
        found = probe(python, user)
        if not found or not found["ipyparallel"]:
            continue
        if minor(found["ipyparallel"]) == minor(wanted):
            return dict(found, executable=python, user=user)
        others.append("{} of {}".format(found["ipyparallel"], python))
    if others:
        raise Failure(
            "this server has ipyparallel {}, the client has {}. Install that version in the image, or here and "
            "there the same.".format(", ".join(dict.fromkeys(others)), wanted)
        )
    return None


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


def restart_pause(crashes: Sequence[float], now: float, limit: int) -> Optional[float]:
    """Return the seconds to wait after the last of ``crashes`` (monotonic times); None: more than ``limit`` in an hour."""
    recent = [t for t in crashes if now - t < 3600]
    return None if len(recent) > limit else min(2.0 ** len(recent) / 2, 30.0)


def report_url(reports: Json, sequence: int, phase: str) -> str:
    if "urls" in reports:
        return str(reports["urls"].get(phase, ""))
    name = phase if sequence < 0 else f"{sequence:04d}-{phase}"
    return "{}{}?{}".format(reports["prefix"], name, reports["query"])


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


def unit_text(python: str, program: str) -> str:
    """Return the systemd unit. OOMPolicy: the kernel killing one engine must not end the others. StartLimitAction: an agent that breaks
    whenever it starts would neither end an idle server nor one whose life is over. No % may be in here."""
    if re.search(r"[^\w./+-]", python):
        python = "/usr/bin/env python3"
    return f"""[Unit]
Description=ipp-griffin: what this server runs of an ipyparallel cluster
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=600
StartLimitBurst=5
StartLimitAction=poweroff

[Service]
ExecStart={python} {program}
Restart=on-failure
RestartSec=5
KillMode=control-group
TimeoutStopSec=20
OOMPolicy=continue
TasksMax=infinity
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
"""


# -- the server ---------------------------------------------------------------------------------------------------


def write(path: str, data: bytes, mode: int = 0o600) -> None:
    """Write a file whole or not at all."""
    temporary = path + ".new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as f:
        os.fchmod(f.fileno(), mode)
        f.write(data)
        f.flush()
        os.fsync(f.fileno())  # a server that is reset must not use an engine's uuid again
    os.replace(temporary, path)
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: str) -> bytes:
    """Return a file's content; nothing if it can't be read."""
    with contextlib.suppress(OSError), open(path, "rb") as f:
        return f.read()
    return b""


def switch_to(user: str) -> Optional[Callable[[], None]]:
    """Return a preexec_fn for Popen that drops to ``user``; None for "", which keeps the present user."""
    if not user:
        return None
    entry = pwd.getpwnam(user)

    def switch() -> None:
        os.initgroups(user, entry.pw_gid)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)

    return switch


@contextlib.contextmanager
def acting_as(user: str) -> Iterator[None]:
    """Give file operations inside only the rights of ``user`` ("": the present user's)."""
    if not user:
        yield
        return
    entry, groups = pwd.getpwnam(user), os.getgroups()
    os.initgroups(user, entry.pw_gid)
    os.setegid(entry.pw_gid)
    os.seteuid(entry.pw_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def run_command(
    argv: Sequence[str], user: str = "", env: Optional[Dict[str, str]] = None, timeout: float = 60
) -> Tuple[int, str]:
    """Run to the end; exit code (127: not there, 124: took too long) and output."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
            cwd="/",
            timeout=timeout,
            preexec_fn=switch_to(user),
        )
    except subprocess.TimeoutExpired:
        return 124, f"{argv[0]} took more than {timeout:.0f} s"
    except (OSError, subprocess.SubprocessError) as e:
        return 127, str(e)
    return done.returncode, done.stdout.decode("utf-8", "replace")


def descendants(pids: Sequence[int]) -> Dict[int, str]:
    """Return pid -> start time of all processes below ``pids``. An engine's nanny leaves its process group."""
    parents = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(path) as f:
            fields = f.read().rpartition(")")[2].split()
            parents[int(path.split("/")[2])] = (int(fields[1]), fields[19])
    found: Dict[int, str] = {}
    level = set(pids)
    while level:
        level = {pid for pid, (parent, _) in parents.items() if parent in level and pid not in found}
        found.update((pid, parents[pid][1]) for pid in level)
    return found


def own_address(address: str) -> str:
    """Return our address as seen from there; connecting UDP sends nothing."""
    with contextlib.suppress(OSError), contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as s:
        s.connect((address, 9))
        return str(s.getsockname()[0])
    return "unknown"


def connect_error(address: str, port: int) -> str:
    """Return why a TCP connection fails; "" if it doesn't."""
    try:
        socket.create_connection((address, port), timeout=CONNECT).close()
    except OSError as e:
        return e.strerror or str(e) or type(e).__name__
    return ""


def wheel_places(pip_args: Sequence[str]) -> Iterator[str]:
    """Yield the folders, and the pages of URLs, where pip would look for a package named pip, from its arguments."""
    words = iter(pip_args)
    for word in words:
        option, _, value = word.partition("=")
        if option in ("-i", "--index-url", "--extra-index-url"):
            yield (value or next(words, "")).rstrip("/") + "/pip/"
        elif option in ("-f", "--find-links"):
            yield value or next(words, "")


def system_certificates() -> bytes:
    """Return the CA certificates that this server trusts, in one text; nothing where they are in no such file."""
    usual = [  # of Debian and Ubuntu, Red Hat, SUSE, Alpine: a Python may know a folder only, or none
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ]
    found = (read(path) for path in [ssl.get_default_verify_paths().cafile or "", *usual])
    return next((text for text in found if text), b"")


def url_opener(proxy: str, ca_certificates: str) -> Callable[..., Any]:
    """Return a function like urllib's urlopen that uses exactly this proxy ("": none), and these certificates besides the system's."""
    context = ssl.create_default_context()
    if ca_certificates:
        context.load_verify_locations(cadata=ca_certificates)
    proxies = {"http": proxy, "https": proxy} if proxy else {}
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler(proxies), urllib.request.HTTPSHandler(context=context)
    )
    return opener.open


def say(message: str) -> None:
    """Print to the console, and in the background to the log too, with this server's UTC time. Both may be gone."""
    now = time.time()
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    for stream in STREAMS:
        with contextlib.suppress(OSError):
            # With its end of line, at once: threads may say something.
            stream.write(f"ipp-griffin: {moment}.{int(now % 1 * 1000):03d}Z {message}\n")
            stream.flush()


class Engine:
    """One place for an engine, and the process that is in it now."""

    def __init__(self, index: int, log: str) -> None:
        self.index, self.log = index, log
        self.process: Any = None
        self.uuid, self.started, self.offset, self.registered = "", 0.0, 0, False
        self.ended = ""  # as in why_ended, or "down": restarted too often
        self.crashes: List[float] = []
        self.due = 0.0  # when to restart it (monotonic)

    @property
    def alive(self) -> bool:
        return self.process is not None and not self.ended

    @property
    def written(self) -> int:
        """Bytes that all its generations wrote."""
        try:
            return os.path.getsize(self.log)
        except OSError:
            return 0

    def output(self, most: int) -> bytes:
        """Return up to ``most`` last bytes that this generation wrote."""
        with open(self.log, "rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(max(min(self.offset, size), size - most))
            return f.read()


class Agent:
    """One server's agent. ``root``: runs as the unit, so engines get a user of their own and it may power off."""

    def __init__(
        self,
        parameters: Json,
        state: str,
        root: bool,
        urlopen: Callable[..., Any],
        run: Run = run_command,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        connect: Callable[[str, int], str] = connect_error,
        log: Callable[[str], None] = say,
        thread: Callable[..., Any] = threading.Thread,
    ) -> None:
        self.parameters, self.state, self.root = parameters, state, root
        self.urlopen, self.run, self.sleep, self.monotonic, self.connect = urlopen, run, sleep, monotonic, connect
        self._log, self.thread = log, thread
        self.redactor = Redactor(secrets_of(parameters, {}))
        self.private_object: Json = {}
        self.engines: List[Engine] = []
        self.notes: List[str] = []
        self.reported = 0  # bytes of engines' logs when a report was last written
        self.log_sequence: Optional[int] = None  # the number of this run's one report of the logs
        self.log_due: Optional[float] = None  # when to look whether there is something to report in it (monotonic)
        self.log_trouble = ""
        self.unsent: Optional[Tuple[int, str, str]] = None  # number, phase and message of a report that was not written
        self.unsent_due = 0.0  # when to try that again (monotonic)
        self.unusable: List[str] = []  # Pythons that the engines' user can't run
        self.user, self.home, self.python = "", os.path.expanduser("~"), ""
        self.starting = self.stopping = False
        self.ahead: Optional[float] = None  # the store's clock, ahead of our monotonic one
        os.makedirs(state, mode=0o700, exist_ok=True)
        self.kept: Json = {"sequence": 0, "generations": [], "ran": False, "connection_files": {}, "hub": {}}
        with contextlib.suppress(ValueError):
            self.kept.update(json.loads(read(self.path("state.json")).decode() or "{}"))

    def path(self, name: str) -> str:
        return os.path.join(self.state, name)

    def keep(self, **changes: Any) -> None:
        """Remember this, also after a reboot. Where the disk is full, engines go on, and reports come, all the same."""
        self.kept.update(changes)
        try:
            write(self.path("state.json"), json.dumps(self.kept).encode())
        except OSError as e:
            self.log(f"what a reboot needs was not kept: {e.strerror or e}")

    def log(self, line: str) -> None:
        self._log(self.redactor.text(line))

    # -- reports --

    def excerpt(self, engine: Engine, most: int) -> str:
        """Return head and tail of an engine's log, redacted, about ``most`` bytes."""
        head, tail = most // 4, most - most // 4
        margin = self.redactor.longest
        with contextlib.suppress(FileNotFoundError), open(engine.log, "rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(0)
            if size <= most:
                return self.redactor.data(f.read())
            first = f.read(head + margin)
            f.seek(max(0, size - tail - margin))
            last = f.read()
            first = first[: self.redactor.cut(first, head, -1)]
            last = last[self.redactor.cut(last, max(0, len(last) - tail), 1) :]
            gap = f"\n[... {size - len(first) - len(last)} bytes left out ...]\n"
            return self.redactor.data(first) + gap + self.redactor.data(last)
        return ""

    def report_body(self, phase: str, message: str) -> bytes:
        """Return the report's JSON, at most `BODY` bytes: the more there is, the shorter the excerpts."""
        most = HEAD + TAIL
        while True:
            engines = [
                {
                    "index": e.index,
                    "uuid": e.uuid,
                    "pid": e.process.pid if e.process else 0,
                    "alive": e.alive,
                    "exit_code": e.process.poll() if e.process else None,
                    "registered": e.registered,
                    "output": self.excerpt(e, most) if most > 100 else "",
                }
                for e in self.engines
            ]
            report = {"version": 1, "phase": phase, "message": message, "server": self.parameters.get("server", "")}
            # Engines date their lines by the server's own time zone.
            report.update(engines=engines, time=time.time(), utc_offset=time.localtime().tm_gmtoff)
            body = json.dumps(report, ensure_ascii=False).encode("utf-8", "backslashreplace")
            if len(body) <= BODY or most <= 100:
                return body
            most //= 2

    def report(self, phase: str, message: str, tries: int = REPORT_TRIES) -> None:
        """Write a report. A store that is away must not stop engines: after a few tries they go on, and `report_unsent` sees
        to it."""
        message = " ".join(self.redactor.text(message).split())[:2000]
        self.log(f"{phase}: {message}")
        sequence = self.next_sequence()
        problem = self.put_report(sequence, phase, message, tries)
        self.unsent = (sequence, phase, message) if problem else None
        self.unsent_due = self.monotonic() + REPORT_AGAIN
        if problem:
            self.log(f"report {phase} was not written: {problem}")

    @contextlib.contextmanager
    def reporting(self, phase: str, message: str) -> Iterator[None]:
        """Write a report while what is inside happens: each of both waits for the network. It must start no process: a child that
        is forked beside a thread may hang before it is another program."""
        thread = self.thread(target=self.report, args=(phase, message), daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join(REPORT_TIMEOUT if self.stopping else None)

    def report_unsent(self) -> None:
        """Try the last phase again, if it could not be reported: a server that never reported would count as a dead one."""
        if self.unsent is None:
            return
        self.unsent_due = self.monotonic() + REPORT_AGAIN
        if not self.put_report(*self.unsent, tries=1):
            self.log(f"report {self.unsent[1]} was written at last")
            self.unsent = None

    def report_logs(self) -> None:
        """Once in an interval, write what engines have logged since the last report: always under the same name, so
        that the container does not grow. It is no phase, and not worth more than one try. And what could not be reported."""
        if self.monotonic() >= self.unsent_due:
            self.report_unsent()
        interval, now = self.private_object["timeouts"].get("log_interval", 60), self.monotonic()
        if not interval or (self.log_due is not None and now < self.log_due):
            return
        first, self.log_due = self.log_due is None, now + interval
        if first or self.written() == self.reported:
            return
        if self.log_sequence is None:
            self.log_sequence = self.next_sequence()
        problem = self.put_report(self.log_sequence, "log", self.redactor.text(self.summary()), 1)
        if problem and not self.log_trouble:
            self.log(f"logs can't be reported now, will go on trying: {problem}")
        self.log_trouble = problem

    def written(self) -> int:
        return sum(e.written for e in self.engines)

    def next_sequence(self) -> int:
        sequence = int(self.kept["sequence"])
        self.keep(sequence=sequence + 1)
        return sequence

    def put_report(self, sequence: int, phase: str, message: str, tries: int) -> str:
        """Return why a report could not be written; "" if it was, or where it has no place."""
        url = report_url(self.parameters["reports"], sequence, phase)
        written, problem = self.written(), ""
        if url:
            problem = self.put(url, self.report_body(phase, message), tries)
            self.reported = self.reported if problem else written
        return problem

    def put(self, url: str, body: bytes, tries: int) -> str:
        """Write an object; why it could not be written, "" if it was."""
        problem = ""
        for attempt in range(tries):
            if attempt:
                self.sleep(attempt)
            request = urllib.request.Request(url, data=body, method="PUT", headers={"Content-Type": "application/json"})
            try:
                with self.urlopen(request, timeout=REPORT_TIMEOUT) as response:
                    response.read()
                    self.note_time(response)
                return ""
            except (OSError, http.client.HTTPException, ValueError) as e:
                problem = str(e) or type(e).__name__
        return problem

    # -- the end of its life --

    def note_time(self, response: Any) -> None:
        """Learn the time from the object store: this server's own clock may be off."""
        with contextlib.suppress(TypeError, ValueError, AttributeError):
            told = email.utils.parsedate_to_datetime(response.headers["Date"])
            self.ahead = told.timestamp() - self.monotonic()

    def expired(self) -> bool:
        """Return whether the life that this server was given is over."""
        now = time.time() if self.ahead is None else self.monotonic() + self.ahead
        return bool(self.parameters.get("expires")) and now >= self.parameters["expires"]

    # -- getting ready --

    def fetch(self) -> bytes:
        """Return the connection file, from the store. The store may need a while until it is consistent: retry all."""
        timeout = self.parameters.get("fetch_timeout", 600)
        deadline, pause = self.monotonic() + timeout, 1.0
        while True:
            try:
                with self.urlopen(self.parameters["private_object"], timeout=10) as response:
                    body = response.read()
                    self.note_time(response)
                self.check(parse_private_object(body))
                return bytes(body)
            except ValueError as e:
                problem = "the answer is no connection file: " + str(e)
            except (OSError, http.client.HTTPException) as e:
                problem = str(e) or type(e).__name__
            left = deadline - self.monotonic()
            if left <= 0:
                host = urllib.parse.urlsplit(self.parameters["private_object"]).netloc.rpartition("@")[2]
                raise Failure(
                    f"the connection file never came from {host} within {timeout} s: {problem}. See that servers reach the object "
                    "store at that address."
                )
            self.log("no connection file yet: " + problem)
            self.sleep(min(left, pause * random.uniform(0.7, 1.0)))
            pause = min(pause * 1.6, 10.0)

    def check(self, private_object: Json) -> None:
        """Raise ValueError for an object that is not for this server, or not yet."""

    def load(self) -> None:
        """Get the connection file: the kept one after a reboot, else from the store."""
        body = read(self.path("private_object.json"))
        try:
            self.private_object = parse_private_object(body)
        except ValueError:
            body = self.fetch()
            write(self.path("private_object.json"), body)
            self.private_object = parse_private_object(body)
        self.redactor = Redactor(secrets_of(self.parameters, self.private_object))

    def make_user(self) -> None:
        """Make the unprivileged user that engines run as. ipython wants a home, and a name for its uid."""
        name = self.private_object.get("engine_user") or "ipp"
        if not re.match(r"[a-z_][a-z0-9_-]{0,31}$", name):
            raise Failure(f"engine_user {name!r} is no user name")
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            code, output = self.run(["useradd", "--system", "--create-home", "--shell", "/bin/bash", name])
            if code:
                raise Failure(f"could not make the user {name}: {last_lines(output, 3)}") from None
            entry = pwd.getpwnam(name)
        if entry.pw_uid == 0:
            raise Failure(f"engine_user is {name}: engines don't run as root. Name another user.")
        self.user, self.home = name, entry.pw_dir

    def candidates(self) -> List[Tuple[str, str]]:
        """Return (python, user) in the order of preference. What is in somebody's home may be readable to them only."""
        wanted = self.private_object.get("engine_python")
        if wanted and not os.access(wanted, os.X_OK):
            raise Failure(f"engine_python {wanted} is not there, or can't be run")
        paths = [wanted] if wanted else [sys.executable, "/opt/ipp/bin/python"] + sorted(glob.glob("/opt/*/bin/python"))
        owned = []
        for home, owner in homes() if self.root else [(self.home, "")]:
            pythons = [home + "/.venv/bin/python"] + sorted(glob.glob(home + "/*/bin/python"))
            pythons = [p for p in pythons if not wanted] + [p for p in [wanted] if p and p.startswith(home + "/")]
            paths += pythons
            owned += [(p, owner) for p in pythons + ["/usr/bin/python3"] if not wanted or p == wanted]  # user site
        paths += [] if wanted else ["/usr/local/bin/python3", "/usr/bin/python3"]
        found = [(self.engine_path("venv/bin/python"), self.user)] + [(p, self.user) for p in paths] + owned
        return [c for c in dict.fromkeys(found) if c[0] and os.path.exists(c[0])]

    def engine_path(self, name: str) -> str:
        """Below the folder of what engines need, in the home of who runs them."""
        return os.path.join(self.home, ".ipp-griffin", name) if self.root else self.path(name)

    def probe(self, python: str, user: str) -> Optional[Json]:
        """Return what `choose` wants to know. Looks for ipyparallel without importing it, which takes seconds."""
        code, output = self.run(
            [python, "-c", PROBE_PROGRAM], user=user, env=self.base_environment(user, python), timeout=60
        )
        if code:
            self.unusable.append(f"{python} is there, but {user or own_name()} can't run it")
            return None
        try:
            return dict(json.loads(output.strip().splitlines()[-1]))
        except (ValueError, IndexError):
            return None

    def base_environment(self, user: str, python: str = "") -> Dict[str, str]:
        """Return the environment that processes for ``user`` start with."""
        home = pwd.getpwnam(user).pw_dir if user else self.home
        path = SYSTEM_PATH if self.root else os.environ.get("PATH", SYSTEM_PATH)
        kept = ("LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH")
        environment = {"LANG": "C.UTF-8"}
        environment.update((k, os.environ[k]) for k in kept if k in os.environ)
        environment.update(HOME=home, PATH=os.path.dirname(python) + ":" + path if python else path)
        name = user or own_name()
        environment.update(USER=name, LOGNAME=name)
        return environment

    def needs_python(self) -> bool:
        """Return whether a Python is wanted besides the command that the user gave."""
        return bool(self.private_object.get("packages") or self.private_object.get("engine_python"))

    def prepare(self) -> None:
        """Find or make a Python with the client's ipyparallel; sets python, user and home."""
        private_object = self.private_object
        if self.root:
            self.make_user()
        packages = list(private_object.get("packages", []))
        if private_object.get("engine_cmd") and not self.needs_python():
            return  # the command itself says what it runs
        wanted = private_object["ipyparallel"]
        candidates = self.candidates()
        venv = self.engine_path("venv/bin/python")
        made = read(self.engine_path("venv/made-for")).decode() == json.dumps([wanted, packages])
        if not made:
            candidates = [c for c in candidates if c[0] != venv]
        elif packages:
            candidates = [c for c in candidates if c[0] == venv]
        found = choose(candidates, self.probe, wanted)
        if found and self.root and found["user"] != self.user:
            self.notes.append("engines run as {}: the packages are in that home".format(found["user"]))
            self.user, self.home = found["user"], pwd.getpwnam(found["user"]).pw_dir
        if not found or (packages and not made):
            found = self.make_venv(found, wanted, packages)
        self.python = found["executable"]
        if found["python"] != minor(private_object.get("python") or found["python"]):
            self.notes.append(
                "WARNING: Python {} here, {} at the client: functions may not travel".format(
                    found["python"], private_object["python"]
                )
            )
        self.log("engines use {} (ipyparallel {})".format(self.python, found["ipyparallel"]))

    def make_venv(self, image: Optional[Json], wanted: str, packages: List[str]) -> Json:
        """Make a venv with ipyparallel and ``packages``. If the image has ipyparallel (``image``), its packages are
        visible in the venv too, and only ``packages`` are installed. Everything runs as the engines' user."""
        base = image["executable"] if image else self.private_object.get("engine_python") or ""
        base = base or shutil.which("python" + self.private_object.get("python", "3")) or sys.executable
        folder = self.engine_path("venv")
        python = os.path.join(folder, "bin", "python")
        requirements = packages if image else ["ipyparallel==" + wanted] + packages
        self.log("making {} with {} from {}".format(folder, " ".join(requirements), base))
        with acting_as(self.user):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(os.path.dirname(folder), mode=0o700, exist_ok=True)
        environment = self.pip_environment()
        pip = self.bare_venv(base, folder, environment)
        found = self.probe(python, self.user)
        if not found:
            raise Failure(f"the venv made by {base} does not run")
        if image:
            with acting_as(self.user):
                write(os.path.join(found["site"], "image.pth"), "\n".join(image["paths"]).encode())
        install = pip + ["install", "--no-input"] + (["--target", found["site"]] if pip[0] == base else [])
        arguments = install + list(self.private_object.get("pip_args", [])) + requirements
        code, output = self.run(arguments, user=self.user, env=environment, timeout=1800)
        found = self.probe(python, self.user)
        if code or not found or not found["ipyparallel"]:
            raise Failure(
                "no ipyparallel {} in this image{}, and pip could not install {} for Python {}: {}".format(
                    wanted,
                    "".join(f" ({why})" for why in self.unusable[:2]),
                    " ".join(requirements),
                    found["python"] if found else "?",
                    last_lines(output, 6),
                )
                if not image
                else "pip could not install {}: {}".format(" ".join(requirements), last_lines(output, 6))
            )
        with acting_as(self.user):
            write(os.path.join(folder, "made-for"), json.dumps([wanted, packages]).encode())
        return dict(found, executable=python, user=self.user)

    def bare_venv(self, base: str, folder: str, environment: Dict[str, str]) -> List[str]:
        """Make the venv; returns the pip command for it. Debian's python3 has neither ensurepip nor pip."""
        python = os.path.join(folder, "bin", "python")
        code, output = self.run([base, "-m", "venv", folder], user=self.user, env=environment, timeout=300)
        pip = [base, "-m", "pip"]
        if code and self.run(pip + ["--version"], user=self.user, env=environment)[0]:
            wheel = self.pip_wheel()
            pip = [python, wheel + "/pip"] if wheel else []
        if code and pip:
            arguments = [base, "-m", "venv", "--clear", "--without-pip", folder]
            code, output = self.run(arguments, user=self.user, env=environment, timeout=300)
            if code == 0:
                return pip
        elif code and self.root and shutil.which("apt-get"):
            apt = ["apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=300"]
            environment = dict(environment, DEBIAN_FRONTEND="noninteractive", HOME="/root")
            self.run(apt + ["update"], env=environment, timeout=600)
            code, output = self.run(apt + ["install", "python3-venv"], env=environment, timeout=900)
            if code == 0:
                arguments = [base, "-m", "venv", "--clear", folder]
                code, output = self.run(arguments, user=self.user, env=environment, timeout=300)
        if code:
            raise Failure(
                f"no ipyparallel in this image, and no venv could be made for it with {base}: {last_lines(output, 4)}. Put ipyparallel or "
                "python3-venv into the image."
            )
        return [python, "-m", "pip"]

    def pip_wheel(self) -> str:
        """Return pip's own wheel, from the index or the folder that ``pip_args`` name; "" if there is none.

        It can be run as it is, so that an image needs nothing but Python where packages come from a place of the user's.
        """
        wheels: Dict[str, str] = {}
        for place in wheel_places(self.private_object.get("pip_args", [])):
            try:
                if "://" not in place:
                    page, found = "", glob.glob(os.path.join(place, "pip-*.whl"))
                else:
                    with self.urlopen(place, timeout=30) as response:
                        page, found = place, re.findall(r'href="([^"#]+)', response.read(1 << 24).decode())
            except (OSError, ValueError, http.client.HTTPException) as e:
                self.log("no pip at {}: {}".format(place.rpartition("@")[2], type(e).__name__))
                continue
            wheels.update((w.rpartition("/")[2], urllib.parse.urljoin(page, w)) for w in found if PIP.search(w))
        if not wheels:
            return ""
        newest = max(wheels, key=lambda name: [int(n) for n in re.findall(r"\d+", name.split("-")[1])])
        if "://" not in wheels[newest]:
            return wheels[newest]
        try:
            with self.urlopen(wheels[newest], timeout=60) as response, acting_as(self.user):
                write(self.engine_path(newest), response.read(1 << 26))
        except (OSError, http.client.HTTPException) as e:
            self.log(f"can't fetch {newest}: {type(e).__name__}")
            return ""
        return self.engine_path(newest)

    def proxy_environment(self) -> Dict[str, str]:
        """Return what tells programs to use the proxy, but not towards the controller; in both spellings, as they differ."""
        proxy = self.parameters.get("proxy")
        if not proxy:
            return {}
        controller = self.controller_address()
        direct = ",".join(dict.fromkeys(("localhost", "127.0.0.1", "::1", controller)))
        lower = {"http_proxy": proxy, "https_proxy": proxy, "no_proxy": direct}
        return dict(lower, **{k.upper(): v for k, v in lower.items()})

    def pip_environment(self) -> Dict[str, str]:
        environment = dict(self.base_environment(self.user), PIP_DISABLE_PIP_VERSION_CHECK="1")
        environment.update(self.proxy_environment())
        certificates = self.parameters.get("ca_certificates")
        if certificates:
            system = system_certificates()
            if system:  # else pip goes on with its own: PIP_CERT is instead of them
                bundle = self.engine_path("ca.pem")
                with acting_as(self.user):
                    write(bundle, system + b"\n" + certificates.encode())
                environment["PIP_CERT"] = bundle
        return environment

    def controller_address(self) -> str:
        return controller_address(self.private_object["connection"], socket.gethostname())

    def unreachable(self) -> str:
        """Return which port of the controller does not answer, and why; "" if all do."""
        connection = self.private_object["connection"]
        address = self.controller_address()
        for port in controller_ports(connection):
            problem = self.connect(address, port)
            if problem:
                return f"address {address} port {port} ({problem}). Let this server's address {own_address(address)} reach that port of the controller"
        return ""

    def reach_controller(self) -> None:
        """Wait until the controller's ports answer."""
        timeout = self.private_object["timeouts"].get("controller_gone" if self.kept["ran"] else "controller", 60)
        deadline = self.monotonic() + timeout
        problem = self.unreachable()
        while problem and self.monotonic() < deadline:
            self.sleep(1.0)
            problem = self.unreachable()
        if problem and not self.kept["ran"]:
            raise Failure(f"controller port unreachable for {timeout} s: {problem}.")
        if problem:
            raise ControllerGone(problem)

    # -- engines --

    def write_profile(self) -> str:
        """Write the engines' profile folder; returns its path."""
        profile = self.engine_path("profile_" + self.parameters["engine_set"])
        config = self.private_object.get("ipengine_config", "")
        with acting_as(self.user):
            for folder in ("security", "log"):
                os.makedirs(os.path.join(profile, folder), mode=0o700, exist_ok=True)
            write(os.path.join(profile, "ipengine_config.py"), config.encode())
            connection = json.dumps(self.private_object["connection"]).encode()
            write(connection_file(profile), connection)
        return profile

    def start_engine(self, engine: Engine, profile: str) -> None:
        """Start the next generation of an engine. Raises Failure if its command can't be run."""
        p, k = self.parameters, engine.index
        generations = self.kept["generations"]
        generations += [0] * (k + 1 - len(generations))
        engine.uuid = "{}-{}-{}-{}-{}".format(p["engine_set"], p["slot"], p["incarnation"], k, generations[k])
        generations[k] += 1
        self.keep()
        environment = dict(self.base_environment(self.user, self.python), **self.proxy_environment())
        environment.update((k, str(v)) for k, v in self.private_object["environment"].items())
        environment.pop("IPP_CONNECTION_INFO", None)  # would win over the file
        environment.pop("IPP_PROFILE_DIR", None)
        environment.update(PYTHONUNBUFFERED="1", GRIFFIN_SERVER=p["server"], GRIFFIN_UID=p["uid"])
        environment.update(GRIFFIN_SLOT=str(p["slot"]), GRIFFIN_ENGINE=str(k))
        environment["GRIFFIN_CONNECTION_FILE"] = connection_file(profile)  # for ipengine_config.py
        self.spawn(engine, engine_command(self.private_object, self.python, profile, engine.uuid), environment)

    def spawn(self, engine: Engine, command: List[str], environment: Dict[str, str], leads: bool = False) -> None:
        """Start a process in the place of ``engine``. ``leads``: a process group of its own."""
        self.starting = True  # SIGTERM waits, or a process would be forgotten
        try:
            with os.fdopen(os.open(engine.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as log:
                engine.offset = os.fstat(log.fileno()).st_size
                engine.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    cwd=self.home if os.path.isdir(self.home) else "/",
                    preexec_fn=switch_to(self.user),
                    start_new_session=leads,
                )
        except (OSError, subprocess.SubprocessError) as e:
            raise Failure(f"could not run {command[0]}: {e}") from e
        finally:
            self.starting = False
        engine.started, engine.registered, engine.ended = self.monotonic(), False, ""
        if self.stopping:
            raise Stopped()

    def look(self) -> List[Engine]:
        """See how the engines are; returns those that ended or registered since the last look."""
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

    def start_engines(self, profile: str) -> None:
        """Start all engines. After a reboot that is all; else return when they are registered.

        A few at a time: all are there as soon as if they had started at once, or, where many share a core, sooner. And the controller forgets
        an engine whose heart does not beat in time after it was let in. docs/performance.md has figures.
        """
        waiting, again = list(self.engines), self.kept["ran"]
        most = len(self.engines) if again else ABREAST * len(os.sched_getaffinity(0))
        connected = ". ".join(["the controller answers"] + self.notes)
        while waiting or not (again or all(e.registered for e in self.engines)):
            while waiting and self.on_their_way() < most:
                self.start_engine(waiting.pop(0), profile)
            if connected:  # not before: engines need longer to register than the store needs to take this
                self.report("connected", connected)
                connected = ""
            if not again:
                self.sleep(POLL)
                self.report_logs()
                self.check_registration()

    def on_their_way(self) -> int:
        """Return how many engines are about to register. One that takes long counts no more: it may be one that logs nothing."""
        since = self.monotonic() - OVERDUE
        return sum(e.alive and not e.registered and e.started > since for e in self.engines)

    def check_registration(self) -> None:
        """Note who has registered. An engine that ends before it ever did is the end: a restart would not help."""
        for engine in self.look():
            if engine.ended:
                output = last_lines(self.redactor.data(engine.output(16 << 10)), 20)
                why = exit_text(engine.process.returncode)
                raise Failure(f"engine {engine.index} ended before it had registered ({why}). {said(output)}")

    def plan_restarts(self, changed: Sequence[Engine]) -> None:
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
                    self.notes.append(f"engine {engine.index} crashed too often and stays down")
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
        patience = self.private_object["timeouts"].get("controller_gone", 300)
        while True:
            if self.expired():
                raise Expired()
            changed, now = self.look(), self.monotonic()
            self.plan_restarts(changed)
            alive = [e for e in self.engines if e.alive]
            restarts = [e for e in self.engines if e.ended in ("crash", "controller")]
            settled = settled and not changed
            if not alive and changed:
                self.report("gone", self.summary())  # before any restart: the launcher may wait for the output
            elif alive and not restarts and not settled and all(e.registered for e in alive):
                self.report("engines", self.summary())
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
            self.report_logs()
            self.sleep(POLL)

    def summary(self) -> str:
        alive = [e for e in self.engines if e.alive]
        ended = ", ".join(f"{e.index} {exit_text(e.process.returncode)}" for e in self.engines if e.process and e.ended)
        text = f"{len(alive)} of {len(self.engines)} engines run" + ("; ended: " + ended if ended else "")
        return ". ".join([text] + self.notes)

    def terminate(self) -> None:
        """End the engines and what they started. Nannies get a moment to tell the hub."""
        alive = [e for e in self.engines if e.process is not None and e.process.poll() is None]
        below = descendants([e.process.pid for e in alive])
        for engine in alive:
            engine.process.terminate()
        wait_until(lambda: all(e.process.poll() is not None for e in alive), 3)
        for engine in alive:
            engine.process.kill()
            engine.process.wait()
            engine.ended = "asked"
        wait_until(lambda: not any(start_time(pid) == start for pid, start in below.items()), 2.5)
        for pid, start in below.items():
            if start_time(pid) == start:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    # -- the whole --

    def work(self) -> None:
        """All that comes after the preparations: until something is raised."""
        self.reach_controller()
        profile = self.write_profile()
        self.engines = [Engine(k, self.path(f"engine-{k}.log")) for k in range(self.parameters["engines"])]
        self.start_engines(profile)
        if not self.kept["ran"]:
            self.keep(ran=True)
        self.watch(profile)

    def on_signal(self, number: int, frame: object) -> None:
        self.stopping = True
        if not self.starting:
            raise Stopped()

    def main(self) -> int:
        """From the first report to the end; the exit status. 0 also after a final failure as a unit: no restart."""
        try:
            with self.reporting("agent", f"the agent runs on {socket.gethostname()}"):
                self.load()
            self.report_unsent()  # the store is back; and packages may take minutes now
            self.prepare()
            self.work()
        except Stopped:
            self.starting = True  # a second SIGTERM changes nothing
            self.terminate()
            if self.engines:
                self.report("gone", "the agent was told to end", tries=1)
        except ControllerGone as e:
            self.report("gone", f"the controller is gone: {e}")
            if self.root:
                self.power_off()
        except Expired as e:
            self.terminate()
            self.report("gone", str(e) or "the life of this server is over (max_lifetime)")
            if self.root:
                self.power_off()
        except Failure as e:
            self.terminate()
            self.report("failed", str(e))
            if not self.root:
                return 1
            self.give_up()
        return 0

    def give_up(self) -> None:
        """Power off. A launcher that lives deletes this server within seconds; if it is dead, powering off makes the server visible to `reap`."""
        self.sleep(self.private_object.get("timeouts", {}).get("controller_gone", 300))
        self.power_off()

    def power_off(self) -> None:
        """Switch the server off, if it is still the one that the agent was made for."""
        if read(INSTANCE_ID) != read(self.path("instance-id")) or not read(INSTANCE_ID):
            self.log("not switched off: this is another server than the one I was made for")
            return
        self.log("switching this server off")
        for command in (["systemctl", "poweroff"], ["poweroff"], ["shutdown", "-P", "now"]):
            if self.run(command, timeout=30)[0] == 0:
                return


class ControllerAgent(Agent):
    """The agent of a server that runs the controller.

    One place, as for an engine, holds ipcontroller. It comes back after a crash, and after a reboot, with the same ports, keys and
    engines: its Curve keys are in the connection file; its connection files, and the hub's file of its engines, are kept here.
    """

    unanswered = False  # whether the hub could not be asked the last time
    refused = ""  # the port that nobody listened on at the last look at all of them
    next_poll = 0.0  # when the next one is due

    def check(self, private_object: Json) -> None:
        if private_object["controller"]["server"] != self.parameters["server"]:
            raise ValueError("this server's address is not known yet")

    def controller_address(self) -> str:
        return str(self.private_object["controller"]["address"])

    def unreachable(self) -> str:
        """Return which port of the controller does not answer, and why; "" if all do."""
        for port in controller_ports(self.kept["connection_files"]["engine"]):
            problem = self.connect(self.controller_address(), port)
            if problem:
                return f"port {port} ({problem})"
        return ""

    def work(self) -> None:
        self.report("connected", ". ".join(["ipcontroller starts"] + self.notes))
        controller = Engine(0, self.path("controller.log"))
        self.engines = [controller]
        profile = self.write_profile()
        try:
            self.start_controller(controller, profile)
        except Failure as e:
            if not self.kept["ran"]:
                raise
            self.restart_controller(controller, profile, str(e))  # after a reboot: engines wait for it
        self.keep(ran=True)
        idle = Idle(self.private_object["timeouts"].get("idle", 0), lambda: self.activity(profile), self.monotonic)
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
            self.report_logs()
            self.sleep(POLL)

    def lost_part(self) -> str:
        """Return which of ipcontroller's processes has ended, by a port that two looks in a row have found without a listener; "" for none.

        ipcontroller itself never looks: without a scheduler tasks wait for ever, without the heart monitor engines end one by one.
        """
        if self.monotonic() < self.next_poll:
            return ""
        self.next_poll = self.monotonic() + PROBE
        before, self.refused = self.refused, self.unreachable()
        if os.strerror(errno.ECONNREFUSED) not in self.refused or self.refused != before:
            return ""
        self.refused = ""
        return f"a process of ipcontroller has ended: {before}"

    def write_profile(self) -> str:
        """Write the controller's profile folder, with the connection files that it had before a reboot; returns its path."""
        profile = self.engine_path("profile_" + self.parameters["engine_set"])
        with acting_as(self.user):
            for folder in ("security", "log"):
                os.makedirs(os.path.join(profile, folder), mode=0o700, exist_ok=True)
            config = self.private_object["controller"]["config"]
            write(os.path.join(profile, "ipcontroller_config.py"), config.encode())
            for name in ("engine", "client"):
                path, kept = self.file_of(profile, name), self.kept["connection_files"].get(name)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)  # of one that ended before it was ready
                if kept:
                    write(path, json.dumps(kept).encode())
            state = max(self.hub_state(profile), self.kept["hub"], key=lambda state: state.get("next_id", -1))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.hub_file(profile))  # what can't be read would end ipcontroller
            if state:
                write(self.hub_file(profile), json.dumps(state).encode())
        return profile

    def hub_file(self, profile: str) -> str:
        return os.path.join(profile, "log", "engines.json")

    def hub_state(self, profile: str) -> Json:
        """Return what the hub has written of its engines; nothing where it has not, or is just about to."""
        try:
            state = json.loads(read(self.hub_file(profile)).decode())
            return state if isinstance(state["next_id"], int) else {}
        except (ValueError, TypeError, KeyError):
            return {}

    def keep_hub(self, profile: str) -> None:
        """Keep that here: the hub's own file is not on the disk yet when the power goes, and engines that it forgets are lost to it."""
        with acting_as(self.user):
            state = self.hub_state(profile)
        if state and state != self.kept["hub"]:
            self.keep(hub=state)

    def file_of(self, profile: str, name: str) -> str:
        return os.path.join(profile, "security", f"ipcontroller-{name}.json")

    def start_controller(self, controller: Engine, profile: str) -> None:
        """Start ipcontroller, and return when all its ports answer. Raises Failure if they never do."""
        settings = self.private_object["controller"]
        environment = dict(self.base_environment(self.user, self.python), **self.proxy_environment())
        environment.update((k, str(v)) for k, v in self.private_object["environment"].items())
        keys = settings["keys"]
        environment.update(
            PYTHONUNBUFFERED="1", GRIFFIN_SERVER=self.parameters["server"], GRIFFIN_UID=self.parameters["uid"]
        )
        environment.update(IPP_SESSION_KEY=keys["session"])
        environment.update(IPP_CURVE_SECRETKEY=keys["curve_secret"], IPP_CURVE_PUBLICKEY=keys["curve_public"])
        command = self.private_object.get("engine_cmd") or [self.python, "-m", "ipyparallel.controller"]
        again = bool(self.kept["connection_files"])
        controller.uuid = "controller"
        self.spawn(controller, controller_command(settings, command, profile, again), environment, leads=True)
        problem, deadline = (
            "it wrote no connection files",
            self.monotonic() + self.private_object["timeouts"].get("controller", 60),
        )
        while problem and self.monotonic() < deadline and controller.process.poll() is None:
            self.sleep(POLL)
            files = self.connection_files(profile)
            if files:
                self.kept["connection_files"] = files
                problem = self.unreachable()
        if problem:
            code = controller.process.poll()
            output = last_lines(self.redactor.data(controller.output(16 << 10)), 8)
            why = problem if code is None else exit_text(code)
            raise Failure(f"ipcontroller does not answer: {why}. {said(output)}")
        controller.registered = True
        self.keep()
        if not self.kept.get("handed_over"):
            self.hand_over()
        address, port = self.controller_address(), self.kept["connection_files"]["engine"]["registration"]
        self.report("engines", f"ipcontroller answers at {address}:{port}" + (", again" if again else ""))

    def connection_files(self, profile: str) -> Json:
        """Return the content of both, once they are whole; else nothing."""
        try:
            with acting_as(self.user):
                return {name: json.loads(read(self.file_of(profile, name)).decode()) for name in ("engine", "client")}
        except ValueError:
            return {}

    def hand_over(self) -> None:
        """Put the connection files where the launcher reads them. Raises Failure if the store does not take them."""
        url = report_url(self.parameters["reports"], -1, "handover")
        problem = self.put(url, json.dumps(self.kept["connection_files"]).encode(), 30)
        if problem:
            raise Failure(f"the connection files could not be handed over: {problem}")
        self.keep(handed_over=True)

    def restart_controller(self, controller: Engine, profile: str, why: str) -> None:
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

    def end_group(self, controller: Engine) -> None:
        """Kill what ipcontroller leaves behind: its schedulers and heart monitor would hold its ports, and keep engines waiting."""
        if controller.process is None:  # it could not even be run
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(controller.process.pid, signal.SIGKILL)
        controller.process.wait()

    def terminate(self) -> None:
        """Kill the controller with all its processes: told to end, it would forget its engines, which wait out a reboot."""
        for controller in self.engines:
            if controller.process is not None:
                self.end_group(controller)
                controller.ended = "asked"

    def needs_python(self) -> bool:
        return super().needs_python() or bool(self.private_object["timeouts"].get("idle"))

    def ask_hub(self, profile: str, program: str) -> str:
        """Return what a client prints that runs on this server; "" where it fails, which is logged once."""
        environment = self.base_environment(self.user, self.python)
        argv = [self.python, "-c", program, self.file_of(profile, "client")]
        code, output = self.run(argv, user=self.user, env=environment, timeout=60)
        if code and not self.unanswered:
            self.log("the hub can't be asked now: " + last_lines(output, 1))
        self.unanswered = bool(code)
        return "" if code else output.strip().rpartition("\n")[2]

    def activity(self, profile: str) -> Tuple[str, str]:
        """Return how much the engines have done, before and after this question, which is some work, too. Both are "" while one is at work,
        or where nobody knows."""
        try:
            before, after = json.loads(self.ask_hub(profile, ACTIVITY_PROGRAM))
        except ValueError:
            return "", ""
        return str(before), str(after)

    def end_engines(self, profile: str) -> None:
        """Tell the engines to end: without it they would look for the controller for minutes.

        Not where the controller's command is the user's own and nothing else asks the hub: no Python was looked for then.
        """
        if self.python:
            self.ask_hub(profile, END_PROGRAM)

    def summary(self) -> str:
        return "ipcontroller runs" if self.engines and self.engines[0].alive else "ipcontroller has ended"


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


class ControllerGone(Exception):
    """The controller did not come back."""


class Expired(Exception):
    """The server's life is over; the message says why, where that is not its expiry."""


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

PROBE_PROGRAM = """
import json, sys, sysconfig
version = ""
try:
    from importlib import metadata, util
    if util.find_spec("ipyparallel"):
        version = metadata.version("ipyparallel")
except ImportError:
    try:
        from ipyparallel import __version__ as version
    except ImportError:
        pass
except Exception:
    pass
print(json.dumps({"python": "%d.%d" % sys.version_info[:2], "ipyparallel": version,
    "paths": [p for p in sys.path if p.endswith("-packages")], "site": sysconfig.get_paths()["purelib"]}))
"""


def exit_text(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"killed by signal {-code}"


def last_lines(text: str, most: int) -> str:
    """Return the last lines, in one; its end where that is too long: what went wrong is said last."""
    return " | ".join(line.strip() for line in text.strip().splitlines()[-most:] if line.strip())[-700:]


def said(output: str) -> str:
    """Return the end of what a process has said, as a sentence without its full stop."""
    return "Its last lines: " + output if output else "It said nothing"


def wait_until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.05)


def start_time(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def own_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def homes() -> List[Tuple[str, str]]:
    """Return (home, user) of the people whom this server has."""
    return [(e.pw_dir, e.pw_name) for e in pwd.getpwall() if e.pw_uid >= 1000 and e.pw_dir.count("/") > 1]


def install(program: str, state: str, unit: str, run: Run = run_command) -> bool:
    """Become a systemd unit of this server; return whether that worked."""
    target = os.path.join(state, "agent.py")
    write(target, read(program))
    write(unit, unit_text(sys.executable, target).encode(), 0o644)
    name = os.path.basename(unit)
    # Without --no-block it would wait for cloud-init's own target: for us.
    for command in (["daemon-reload"], ["enable", name], ["restart", "--no-block", name]):
        code, output = run(["systemctl"] + command)
        if code:
            say("systemctl {}: {}".format(" ".join(command), last_lines(output, 3)))
            return False
    return True


def into_background() -> bool:
    """Fork; return True in the process that continues, without a terminal."""
    if os.fork():
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    STREAMS.append(os.fdopen(os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w"))
    os.dup2(STREAMS[-1].fileno(), 2)
    return True


def serve(state: str, root: bool, unit: bool = False) -> int:
    """Run the agent in this process. ``unit``: systemd sees to what it leaves undone."""
    urlopen = url_opener(PARAMETERS.get("proxy", ""), PARAMETERS.get("ca_certificates", ""))
    kind = ControllerAgent if PARAMETERS.get("role") == "controller" else Agent
    agent = kind(PARAMETERS, state, root, urlopen)
    signal.signal(signal.SIGTERM, agent.on_signal)
    signal.signal(signal.SIGINT, agent.on_signal)
    try:
        return agent.main()
    except Stopped:
        agent.terminate()
        return 0
    except Exception as e:
        agent.terminate()
        agent.report("failed", f"the agent broke: {type(e).__name__}: {e}")
        if root and not unit:
            agent.give_up()
        return 1


def main() -> int:
    os.umask(0o022)
    program = os.path.abspath(__file__)
    root = os.geteuid() == 0 and program.startswith((STATE + "/", "/var/lib/cloud/"))
    if root:
        os.environ["PATH"] = SYSTEM_PATH
    if root and program == os.path.join(STATE, "agent.py"):
        if read(INSTANCE_ID) != read(os.path.join(STATE, "instance-id")):
            say("this agent was made for another server; nothing to do")
            return 0
        return serve(STATE, True, unit=True)
    if root:
        shutil.rmtree(STATE, ignore_errors=True)  # a snapshot may have brought another server's
        os.makedirs(STATE, mode=0o700)
        write(os.path.join(STATE, "instance-id"), read(INSTANCE_ID))
        if os.path.isdir("/run/systemd/system") and install(program, STATE, UNIT):
            say("the agent is installed as ipp-griffin-agent.service")
            return 0
        say("the agent goes on in the background, its log is " + LOG)
        return serve(STATE, True) if into_background() else 0
    name = "{engine_set}-{slot}-{incarnation}".format(**PARAMETERS)
    home = os.environ.get("HOME") or os.getcwd()
    return serve(os.path.join(home, ".ipp-griffin-agent", name), False)


if __name__ == "__main__":
    sys.exit(main())
