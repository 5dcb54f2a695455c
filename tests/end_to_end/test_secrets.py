"""A whole cluster with DEBUG on everywhere shows none of its secrets, wherever one looks; and its URLs are dead when it is gone."""

import base64
import contextlib
import gzip
import io
import json
import logging
import os
import re
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import ipyparallel as ipp
import psutil
import pytest
import requests
import yaml
import zmq

from ipp_griffin.agent.reports import report_url
from ipp_griffin.cloud.cloud import Cloud as Connection
from ipp_griffin.cloud.store.store import QUOTA, Store
from ipp_griffin.model.names import container_name
from ipp_griffin.model.userdata import PLACEHOLDER

from ..relay import Exchange, Relay
from .commands import container, griffin, sdk

# The requests are recorded, and the services may run on another machine, but not behind TLS: faults have the same need.
pytestmark = pytest.mark.needs("faults", "app")
DEBUG = "--Application.log_level=10"
ALL_ARGUMENTS = r"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' '"  # of whoever's processes
PREFIX = 16  # characters of a long secret that are one already


@pytest.fixture
def arguments() -> Iterator[dict[bytes, None]]:
    """The command lines of all processes of this machine, as any user of it can read them, as long as the test lasts."""
    seen: dict[bytes, None] = {}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            for pid in psutil.pids():
                with contextlib.suppress(OSError):  # it has ended
                    file = os.open(f"/proc/{pid}/cmdline", os.O_RDONLY)
                    try:
                        seen[os.read(file, 1 << 20)] = None
                    finally:
                        os.close(file)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield seen
    ended.set()
    thread.join()


def test_no_secret_of_a_run_is_shown_anywhere(shell, proxy, arguments, eventually):
    """In no log at DEBUG, argument of a process, metadata, user-data, console, report, output of a command or error."""
    keys = debug_everywhere(shell)
    shell.env["OS_CLOUD"] = f"{shell.cloud.name}-app"
    foreground = shell.start("ipcluster", "start", "--profile=griffin", "-n", "2", "--debug")
    shell.wait_until_connected(eventually, 2)
    security = shell.profile() / "security"
    connection = json.loads((security / "ipcontroller-client.json").read_text())
    with ipp.Client(str(security / "ipcontroller-client.json")) as rc:
        rc[:].apply_sync(os.write, 2, b"said by an engine\n")
        on_servers = rc[:].apply_sync(subprocess.getoutput, ALL_ARGUMENTS)
    where, svg = (container(shell), DEBUG), shell.folder / "start.svg"

    def logs() -> str:
        return at_debug(shell, "logs", *where, "griffin")

    eventually(lambda: logs().count("  said by an engine\n") == 2, "what engines printed")
    shell.env["OS_CLOUD"] = shell.cloud.name  # with a password, from here on
    shown = {
        "ps": at_debug(shell, "ps", *where, "--engines"),
        "ps --json": at_debug(shell, "ps", *where, "--json"),
        "logs": logs(),
        "timeline": at_debug(shell, "timeline", *where, "griffin", f"--output={svg}"),
        "timeline --json": at_debug(shell, "timeline", *where, "griffin", "--json"),
        "the picture": svg.read_text(),
        "reap": at_debug(shell, "reap", *where, "--dry-run"),
        **errors(shell, where),
        "arguments on the servers": "\n".join(on_servers),
        **seen_in_the_cloud(shell),
    }
    files = private_files(shell, security)
    shown["ipcluster stop"] = shell.run("ipcluster", "stop", "--profile=griffin", "--debug")
    shown["ipcluster start"] = foreground.communicate(timeout=60)[0]
    shown["arguments"] = b"\n".join(arguments).replace(b"\0", b" ").decode(errors="replace")
    shown |= {f"file {path.name}": path.read_text() for path in (shell.profile() / "log").iterdir()}

    created = [json.loads(e.body)["server"] for e in posts(proxy, "/servers")]
    shown["metadata"] = json.dumps([{**server, "user_data": ""} for server in created])
    parameters, programs = zip(*(parts_of(server["user_data"]) for server in created), strict=True)
    urls = [
        url for each in parameters for url in (each["private_object"], "{prefix}?{query}".format(**each["reports"]))
    ]
    shown["user-data but for its URLs"] = "\n".join(programs) + json.dumps(
        [{**each, "private_object": "", "reports": ""} for each in parameters]
    )

    secrets = {
        "signing key": [connection["key"]],
        "Curve server key": [connection["curve_serverkey"]],
        "Curve secret key": [keys[1]],
        "TempURL key": [key for e in proxy.exchanges if (key := e.sent.get("x-container-meta-temp-url-key"))],
        "signatures": [sig for url in urls for sig in parse_qs(urlsplit(url).query)["temp_url_sig"]],
        "tokens": [
            t for e in proxy.exchanges for t in (e.received.get("x-subject-token"), e.sent.get("x-auth-token")) if t
        ],
        **credentials(shell, proxy),
    }
    assert connection["curve_serverkey"] == keys[0]
    assert (
        len(created) == 2 and len(set(urls)) == 2 * 2 - 1
    )  # each writes below its own prefix, all read the same object
    assert [name for name, values in secrets.items() if not values or not all(len(v) >= 8 for v in values)] == []
    assert "***" in shown["logs"], "engines did not print their key at DEBUG: nothing was there to be taken out"
    assert files, "no file was looked at"
    empty = [place for place, text in shown.items() if not text and place not in ("arguments on the servers",)]
    assert empty == []
    assert found_in(shown, secrets) == []
    # What users put into the environment goes to the engines, and nowhere else.
    own = {
        place: shown[place]
        for place in (
            "metadata",
            "user-data but for its URLs",
            "arguments",
            "a console",
            "logs",
            "ipcluster start",
            "ipcluster stop",
        )
    }
    assert found_in(own, {"environment": ["value-of-lab-token"], "ipengine_config.py": ["noted-in-the-config"]}) == []
    assert [
        e.url for e in proxy.exchanges if b"value-of-lab-token" in e.body and not e.url.endswith("/connection.json")
    ] == []
    assert_dead(urls)


NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\r\n</text><script>alert(1)</script>&lt;"


def test_what_a_malicious_engine_reports_comes_harmless_out_of_every_command(shell, monkeypatch):
    """It has its server's write URL: it may name its reports, and fill them, as it likes."""
    monkeypatch.setenv("IPYTHONDIR", str(shell.ipython))
    logged, log = io.StringIO(), logging.getLogger("malicious")
    log.setLevel(logging.DEBUG)
    log.addHandler(logging.StreamHandler(logged))
    cluster = ipp.Cluster(profile="griffin", cluster_id="", n=1, log=log)
    cluster.start_cluster_sync()
    (engine_set,) = cluster.engines.values()
    reports = engine_set.open_store().report_urls(engine_set.uid, f"{engine_set.engine_set}/0.0/", 600)
    engines = [{"index": NASTY, "output": f"{NASTY}\n{'x' * 5000}\n"}, NASTY, {"output": [NASTY]}, {"output": "\ud800"}]
    body = {"message": NASTY * 50, "time": 1e300, "utc_offset": NASTY, "engines": engines, "phase": NASTY}
    bodies = (body, {"message": [NASTY], "engines": NASTY}, [NASTY], NASTY)
    for sequence, each in enumerate(bodies):
        assert write(reports, f"{9000 + sequence}-failed", json.dumps(each)) == 201
    for name in (f"9100-{NASTY}", f"9101-engines/{NASTY}", "../../connection.json", "99999-failed<b>"):
        assert write(reports, name, NASTY) in (201, 400, 401)
    assert write(reports, "9200-failed", "[" * 100_000) == 201
    where, svg = container(shell), shell.folder / "start.svg"
    shown = [
        griffin(shell, "ps", where, "--engines"),
        griffin(shell, "ps", where, "--json"),
        logs := griffin(shell, "logs", where, "griffin"),
        griffin(shell, "timeline", where, "griffin", f"--output={svg}"),
        griffin(shell, "timeline", where, "griffin", "--json"),
        griffin(shell, "reap", where, "--dry-run"),
        picture := svg.read_text(),
    ]
    for text in shown:
        assert [c for c in set(text) if not c.isprintable() and c != "\n"] == []
    assert r"failed: \x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe" in logs
    assert max(map(len, logs.splitlines())) < 2100
    tags = {element.tag.partition("}")[2] for element in ElementTree.fromstring(picture).iter()}
    assert tags <= {"svg", "title", "style", "rect", "line", "text"}
    assert "owned" in logs and "its agent reported failed" in picture
    # Reports alone delete nothing, and say nothing of other servers.
    assert len(shell.cloud.servers()) == 1
    cluster.stop_cluster_sync()
    assert "Stopping" in logged.getvalue()
    assert "\x1b]0" not in logged.getvalue()


def write(reports: dict[str, str], name: str, text: str) -> int:
    """The status of writing a report by a server's own URL."""
    return ask("PUT", f"{reports['prefix']}{quote(name)}?{reports['query']}", text)


UID, SET = "0123456789ab", "0badcafe"


@pytest.fixture
def store(cloud) -> Iterator[Store]:
    """A container with a connection file in it, as for a cluster; it is gone after the test."""
    connected = Connection.connect(cloud.name)
    store = Store(connected.session, connected.object_store_url(), prefix=getattr(cloud, "prefix", "ipp-griffin"))
    store.publish(UID, {})
    store.put(UID, f"{SET}/connection.json", b"the keys")
    yield store
    store.delete_container(UID)


def test_a_servers_urls_open_nothing_but_its_own_place_and_nothing_after_the_stop(store):
    """Neither another server's reports, nor the connection file, nor what the launcher keeps; nor do they delete."""
    read = store.get_url(UID, f"{SET}/connection.json", 600)
    own = report_url(store.report_urls(UID, f"{SET}/3.0/", 600), 0, "agent")
    store.put(UID, f"{SET}/30.0/0000-agent", b"honest")
    assert (ask("GET", read), ask("PUT", own)) == (200, 201)
    for name in (
        f"{SET}/30.0/0000-agent",
        f"{SET}/3.1/0000-agent",
        f"{SET}/connection.json",
        f"{SET}/history.json",
        "x",
    ):
        for method in ("PUT", "GET", "DELETE"):
            assert ask(method, elsewhere(own, name)) in (401, 403), f"{method} {name}"
        if not name.endswith("connection.json"):
            assert ask("GET", elsewhere(read, name)) in (401, 403), name
    for method in ("PUT", "DELETE"):
        assert ask(method, read) in (401, 403), method
    for method in ("GET", "DELETE"):
        assert ask(method, own) in (401, 403), method
    assert ask("GET", read.partition(SET)[0].rstrip("/") + "?" + read.partition("?")[2]) in (401, 403)  # a listing
    assert store.get(UID, f"{SET}/30.0/0000-agent") == b"honest"
    assert store.get(UID, f"{SET}/connection.json") == b"the keys"
    store.delete_container(UID)
    assert {ask("GET", read), ask("PUT", own)} <= {401, 403, 404}


def test_a_servers_url_can_not_fill_the_container(store, cloud):
    """It has a quota from the moment when URLs can lead into it. Here a smaller one is tried, too."""
    own = report_url(store.report_urls(UID, f"{SET}/3.0/", 600), 0, "agent")
    with sdk(cloud) as connection:
        path = f"/{container_name(UID, getattr(cloud, 'prefix', 'ipp-griffin'))}"
        made = connection.object_store.head(path).headers
        assert {name: made[name] for name in QUOTA} == QUOTA
        connection.object_store.post(path, headers={"X-Container-Meta-Quota-Bytes": "100"})
    assert ask("PUT", own, "x" * 10) == 201
    assert ask("PUT", own, "x" * 101) == 413


@pytest.mark.needs("devcloud")
def test_a_servers_urls_open_nothing_after_their_expiry(store, cloud):
    """By the object store's clock, while the cluster still runs."""
    read = store.get_url(UID, f"{SET}/connection.json", 600)
    own = report_url(store.report_urls(UID, f"{SET}/3.0/", 1200), 0, "agent")
    state = cloud.running.state
    now = state.clock()
    try:
        answers = []
        for later in (590, 610, 1190, 1210):
            state.clock = lambda later=later: now + later
            answers.append((ask("GET", read), ask("PUT", own)))
    finally:
        state.clock = time.time
    assert answers == [(200, 201), (401, 201), (401, 201), (401, 401)]


def elsewhere(url: str, name: str) -> str:
    """The same signature for another object of the container."""
    start, _, query = url.partition("?")
    return f"{start.partition(SET)[0]}{name}?{query}"


def ask(method: str, url: str, text: str = "forged") -> int:
    """The status that anybody gets who has the URL, without a token."""
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, data=text if method in ("PUT", "POST") else None, timeout=30).status_code


def debug_everywhere(shell) -> tuple[str, str]:
    """DEBUG in the profile, and Curve keys that are known here, public and secret: no file ever has the latter."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    shell.env |= {"IPP_CURVE_PUBLICKEY": public, "IPP_CURVE_SECRETKEY": secret}
    settings = {
        "ipcluster": "c.GriffinEngineSetLauncher.environment = {'LAB_TOKEN': 'value-of-lab-token'}\n"
        "c.GriffinEngineSetLauncher.log_interval = 0.5\n",
        "ipcontroller": "c.IPController.log_level = 10\n",
        "ipengine": "c.IPEngine.log_level = 10\n# noted-in-the-config\n",
    }
    for name, text in settings.items():
        with (shell.profile() / f"{name}_config.py").open("a") as f:
            f.write(text)
    return public, secret


def at_debug(shell, *command: str, status: int = 0) -> str:
    """What `ipp-griffin` says in this process, with all that a process of its own would print of what is logged."""
    logged, logger = io.StringIO(), logging.getLogger("traitlets")
    level, handler = logger.level, logging.StreamHandler(logged)
    handler.setLevel(logging.WARNING)  # as the handler of last resort, which pytest's keep from its work
    logging.getLogger().addHandler(handler)
    try:
        return griffin(shell, *command, status=status) + logged.getvalue()
    finally:
        logging.getLogger().removeHandler(handler)
        logger.setLevel(level)


def errors(shell, where: tuple[str, ...]) -> dict[str, str]:
    """What commands say that fail, at DEBUG."""
    found = {}
    for service in ("compute", "object-store", "identity"):
        shell.cloud.faults.set({"service": service, "status": 403})
        found[f"{service} refuses"] = at_debug(shell, "logs", *where, "griffin", status=1)
    found["a process that is refused"] = shell.run("ipp-griffin", "logs", *where, "griffin", status=1)
    shell.cloud.faults.clear()
    wrong = ("ipcluster", "engines", "--profile=griffin", "-n", "1", "--debug", "--GriffinCloud.image=none-such")
    process = shell.start(*wrong)  # at DEBUG with a traceback
    found["engines that can't start"] = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    return found


def seen_in_the_cloud(shell) -> dict[str, str]:
    """What members of the project see of servers and reports."""
    found = {}
    with sdk(shell.cloud) as connection:
        listing = connection.compute.get("/servers/detail", microversion="2.52").json()["servers"]
        ours = [server for server in listing if server["name"] in shell.cloud.servers()]
        assert len(ours) == 2
        found["servers"] = json.dumps([{**server, "OS-EXT-SRV-ATTR:user_data": ""} for server in ours])
        for server in ours:
            found["a console"] = connection.compute.get_server_console_output(server["id"])["output"]
        (name,) = shell.cloud.containers()
        for stored in connection.object_store.objects(name):
            if not stored.name.endswith("/connection.json"):
                content = connection.object_store.download_object(stored.name, name)
                found[f"report {stored.name}"] = content.decode()
    return found


def private_files(shell, security: Path) -> list[Path]:
    """The files with secrets, here and on servers that are processes of this machine: only their owner may read them."""
    files = [*security.glob("ipcontroller-*.json"), *(shell.profile() / "log").iterdir(), shell.cloud.clouds_yaml]
    if hasattr(shell.cloud, "running"):
        key = json.loads((security / "ipcontroller-client.json").read_text())["key"].encode()
        servers = shell.cloud.running.folder / "servers"
        on_servers = [path for path in servers.rglob("*") if path.is_file() and key in path.read_bytes()]
        assert {path.name for path in on_servers} >= {"private_object.json", "ipcontroller-engine.json"}
        files += [*on_servers, *servers.rglob("user-data")]
    assert [str(path) for path in files if stat.S_IMODE(path.stat().st_mode) & 0o077] == []
    return files


def credentials(shell, proxy) -> dict[str, list[str]]:
    """The password and the application credential's secret, both of which were used."""
    entries = yaml.safe_load(shell.cloud.clouds_yaml.read_text())["clouds"]
    password = entries[shell.cloud.name]["auth"]["password"]
    secret = entries[f"{shell.cloud.name}-app"]["auth"]["application_credential_secret"]
    logins = b"\n".join(e.body for e in posts(proxy, "/auth/tokens")).decode()
    assert f'"password": "{password}"' in logins and f'"secret": "{secret}"' in logins
    return {"password": [password], "application credential secret": [secret]}


def posts(proxy: Relay, end: str) -> list[Exchange]:
    return [e for e in proxy.exchanges if e.method == "POST" and e.url.endswith(end)]


def parts_of(user_data: str) -> tuple[dict[str, Any], str]:
    """The parameters in a server's user-data, and the rest of it."""
    program = gzip.decompress(base64.b64decode(user_data)).decode()
    (line,) = re.findall(f"^{re.escape(PLACEHOLDER.strip()[:-2])}.*$", program, re.MULTILINE)
    return json.loads(line.removeprefix(PLACEHOLDER.strip()[:-2])), program.replace(line, "")


def found_in(shown: dict[str, str], secrets: dict[str, list[str]]) -> list[str]:
    """Which secret is where, in whatever form."""
    found = []
    for name, values in secrets.items():
        for value in dict.fromkeys(values):
            start = value[:PREFIX] if len(value) >= 2 * PREFIX else value
            forms = {start, quote(start, safe=""), escape(start), json.dumps(start)[1:-1], repr(start)[1:-1]}
            found += [f"{name}: {place}" for place, text in shown.items() if any(form in text for form in forms)]
    return found


def assert_dead(urls: list[str]) -> None:
    """What had these URLs can neither read nor write with them now."""
    for url in urls:
        start, _, query = url.partition("?")
        for method, target in (("GET", url), ("PUT", f"{start}9999-agent?{query}"), ("PUT", url)):
            assert ask(method, target) in (401, 404), method
