"""A whole cluster with DEBUG on everywhere shows none of its secrets, wherever one looks; and its URLs are dead when it is gone."""

import base64
import contextlib
import gzip
import json
import os
import re
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from xml.sax.saxutils import escape

import ipyparallel as ipp
import openstack
import psutil
import pytest
import requests
import yaml
import zmq

from ipp_griffin.userdata import PLACEHOLDER

from ..forward_proxy import Exchange, ForwardProxy, forward_proxy

# The requests are recorded, and the services may run on another machine, but not behind TLS: faults have the same need.
pytestmark = pytest.mark.needs("faults", "app")
DEBUG = "--Application.log_level=10"
ALL_ARGUMENTS = r"cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\0' ' '"  # of whoever's processes
PREFIX = 16  # characters of a long secret that are one already


@pytest.fixture
def proxy(shell) -> Iterator[ForwardProxy]:
    """All that the commands of the shell ask of the cloud."""
    with forward_proxy() as proxy:
        shell.env |= {"http_proxy": proxy.url}
        yield proxy


@pytest.fixture
def arguments() -> Iterator[dict[str, None]]:
    """The command lines of all processes of this machine, as any user of it can read them, as long as the test lasts."""
    seen: dict[str, None] = {}
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(0.1):
            for process in psutil.process_iter():
                with contextlib.suppress(psutil.Error):
                    seen[" ".join(process.cmdline())] = None

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
    where = (f"--container={getattr(shell.cloud, 'prefix', 'ipp-griffin')}", DEBUG)

    def logs() -> str:
        return shell.run("ipp-griffin", "logs", *where, "griffin")

    eventually(lambda: logs().count("  said by an engine\n") == 2, "what engines printed")
    shell.env["OS_CLOUD"] = shell.cloud.name  # with a password, from here on
    shown = {
        "ps": shell.run("ipp-griffin", "ps", *where, "--engines"),
        "ps --json": shell.run("ipp-griffin", "ps", *where, "--json"),
        "logs": logs(),
        "timeline": shell.run("ipp-griffin", "timeline", *where, "griffin", "--output=start.svg"),
        "timeline --json": shell.run("ipp-griffin", "timeline", *where, "griffin", "--json"),
        "the picture": (shell.folder / "start.svg").read_text(),
        "reap": shell.run("ipp-griffin", "reap", *where, "--dry-run"),
        **errors(shell, where),
        "arguments on the servers": "\n".join(on_servers),
        **seen_in_the_cloud(shell),
    }
    files = private_files(shell, security)
    shown["ipcluster stop"] = shell.run("ipcluster", "stop", "--profile=griffin", "--debug")
    shown["ipcluster start"] = foreground.communicate(timeout=60)[0]
    shown["arguments"] = "\n".join(arguments)
    shown |= {f"file {path.name}": path.read_text() for path in (shell.profile() / "log").iterdir()}

    created = [json.loads(e.body)["server"] for e in posts(proxy, "/servers")]
    shown["metadata"] = json.dumps([{**server, "user_data": ""} for server in created])
    parameters, programs = zip(*(parts_of(server["user_data"]) for server in created), strict=True)
    urls = [url for each in parameters for url in (each["rendezvous"], "{prefix}?{query}".format(**each["reports"]))]
    shown["user-data but for its URLs"] = "\n".join(programs) + json.dumps(
        [{**each, "rendezvous": "", "reports": ""} for each in parameters]
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
        place: shown[place] for place in ("metadata", "user-data but for its URLs", "arguments", "a console", "logs")
    }
    assert found_in(own, {"environment": ["value-of-lab-token"], "ipengine_config.py": ["noted-in-the-config"]}) == []
    assert [
        e.url for e in proxy.exchanges if b"value-of-lab-token" in e.body and not e.url.endswith("/connection.json")
    ] == []
    assert_dead(urls)


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


def errors(shell, where: tuple[str, ...]) -> dict[str, str]:
    """What commands say that fail, at DEBUG."""
    found = {}
    for service in ("compute", "object-store", "identity"):
        shell.cloud.faults.set({"service": service, "status": 403})
        found[f"{service} refuses"] = shell.run("ipp-griffin", "logs", *where, "griffin", status=1)
    shell.cloud.faults.clear()
    wrong = ("ipcluster", "engines", "--profile=griffin", "-n", "1", "--debug", "--GriffinCloud.image=none-such")
    process = shell.start(*wrong)  # at DEBUG with a traceback
    found["engines that can't start"] = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    return found


def seen_in_the_cloud(shell) -> dict[str, str]:
    """What members of the project see of servers and reports."""
    config = openstack.config.OpenStackConfig(config_files=[str(shell.cloud.clouds_yaml)], load_envvars=False)
    found = {}
    with openstack.connection.Connection(config=config.get_one(shell.cloud.name)) as connection:
        listing = connection.compute.get("/servers/detail", microversion="2.52").json()["servers"]
        ours = [server for server in listing if server["name"] in shell.cloud.servers()]
        assert len(ours) == 2
        found["servers"] = json.dumps([{**server, "OS-EXT-SRV-ATTR:user_data": ""} for server in ours])
        for server in ours:
            found["a console"] = connection.compute.get_server_console_output(server["id"])["output"]
        (container,) = shell.cloud.containers()
        for stored in connection.object_store.objects(container):
            if not stored.name.endswith("/connection.json"):
                found[f"report {stored.name}"] = connection.object_store.download_object(
                    stored.name, container
                ).decode()
    return found


def private_files(shell, security: Path) -> list[Path]:
    """The files with secrets, here and on servers that are processes of this machine: only their owner may read them."""
    files = [*security.glob("ipcontroller-*.json"), *(shell.profile() / "log").iterdir(), shell.cloud.clouds_yaml]
    if hasattr(shell.cloud, "running"):
        key = json.loads((security / "ipcontroller-client.json").read_text())["key"].encode()
        servers = shell.cloud.running.folder / "servers"
        on_servers = [path for path in servers.rglob("*") if path.is_file() and key in path.read_bytes()]
        assert {path.name for path in on_servers} >= {"rendezvous.json", "ipcontroller-engine.json"}
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


def posts(proxy: ForwardProxy, end: str) -> list[Exchange]:
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
    with requests.Session() as session:
        session.trust_env = False
        for url in urls:
            start, _, query = url.partition("?")
            for method, target in (("GET", url), ("PUT", f"{start}9999-agent?{query}"), ("PUT", url)):
                assert session.request(method, target, data=b"", timeout=30).status_code in (401, 404), method
