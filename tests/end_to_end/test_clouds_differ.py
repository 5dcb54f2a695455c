"""A cloud that lacks something, or leaves a choice: one line before anything is made, exit 1, nothing left."""

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator

import pytest
import requests

from ..clouds import OnDevCloud
from ..conftest import running_cloud
from .conftest import Shell

pytestmark = pytest.mark.needs("devcloud")
Change = Callable[[str, int, dict], tuple[int, dict]]


class Front(http.server.ThreadingHTTPServer):
    """Passes all on to the service at ``url``; ``change(path, status, answer)`` makes its JSON answers those of another cloud."""

    daemon_threads = True

    def __init__(self, url: str, change: Change) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.change, self.asked = url, change, []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Front

    def forward(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        url = self.server.behind + self.path
        answer = requests.request(self.command, url, data=body, headers=headers, timeout=20, allow_redirects=False)
        status, content = answer.status_code, answer.content
        if answer.headers.get("Content-Type", "").startswith("application/json") and content:
            status, changed = self.server.change(path, status, json.loads(content))
            content = json.dumps(changed).encode()
        self.send_response(status)
        for name, value in answer.headers.items():
            if name.lower() not in ("content-length", "content-encoding", "transfer-encoding", "connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = forward  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def shell_on(tmp_path) -> Iterator[Callable[[Change], tuple[Shell, Front]]]:
    """``shell_on(change)``: a shell on a dev cloud whose answers are changed, and what stands before that cloud."""
    opened = []
    with running_cloud(tmp_path / "cloud") as running:

        def make(change: Change) -> tuple[Shell, Front]:
            front = Front(running.url, change)
            threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
            opened.append(front)
            cloud = OnDevCloud(running)
            cloud.clouds_yaml = tmp_path / "changed.yaml"
            cloud.clouds_yaml.write_text(running.clouds_yaml.read_text().replace(running.url, front.url))
            running.url = front.url  # in the catalog
            shell = Shell(tmp_path, cloud)
            opened.append(shell)
            shell.make_profile()
            return shell, front

        yield make
        front, shell = opened
        shell.close()
        front.shutdown()
        front.server_close()
        shell.assert_nothing_left()


def nova(version: str) -> Change:
    """The latest microversion."""

    def change(path, status, answer):
        for found in [answer.get("version"), *answer.get("versions", [])] if path.startswith("/compute") else []:
            if isinstance(found, dict) and "min_version" in found:
                found["version"], found["min_version"] = version, version and "2.1"
        return status, answer

    return change


def only_identity_v2(path, status, answer):
    if path.startswith("/identity/v3"):
        return 404, {"error": {"code": 404, "message": "Not Found", "title": "Not Found"}}
    return status, answer


def no_object_store(path, status, answer):
    if "catalog" in answer.get("token", {}):
        answer["token"]["catalog"] = [s for s in answer["token"]["catalog"] if s["type"] != "object-store"]
    return status, answer


def several_networks(path, status, answer):
    if "networks" in answer:
        (one,) = [network for network in answer["networks"] if not network.get("router:external")]
        shared = {**one, "id": "1", "name": "campus", "shared": True, "project_id": "x", "tenant_id": "x"}
        external = {**one, "id": "2", "name": "public", "router:external": True}
        theirs = {**one, "id": "3", "name": "theirs", "shared": False, "project_id": "x", "tenant_id": "x"}
        answer["networks"] += [shared, external, theirs]
    return status, answer


def several_regions(path, status, answer):
    for service in answer.get("token", {}).get("catalog", []):
        south = [{**e, "region": "South", "region_id": "South", "id": "s" + e["id"]} for e in service["endpoints"]]
        service["endpoints"] += south
    return status, answer


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        (
            nova("2.38"),
            [],
            r"This cloud's Nova offers microversions up to 2\.38; 2\.52 \(Pike, 2017\) or later is needed",
        ),
        (nova(""), [], r"This cloud's Nova has no microversions; 2\.52 \(Pike, 2017\) or later is needed"),
        (only_identity_v2, [], r"there is no Keystone v3 at http.*Identity v3 is needed"),
        (no_object_store, [], r"no object store .*Swift, or Ceph's gateway, with TempURLs is needed"),
        (
            several_networks,
            [],
            r"several networks: campus, devnet\. Set GriffinCloud\.network \(or GriffinEngineSetLauncher\.network, .*\) to one of them",
        ),
        (
            several_regions,
            ["--GriffinCloud.region=Mars"],
            r"no region 'Mars'\. It has: RegionOne, South\. Set GriffinCloud",
        ),
    ],
    ids=["nova-2.38", "nova-without-microversions", "identity-v2", "no-object-store", "networks", "region"],
)
def test_one_line_says_what_is_needed_before_anything_is_made(shell_on, change, arguments, said) -> None:
    shell, front = shell_on(change)
    output = shell.run("ipcluster", "start", "--profile=griffin", "-n", "1", "--daemonize", *arguments, status=1)
    (line,) = [line for line in output.splitlines() if "CRITICAL" in line]
    assert re.search(said, line)
    made = [r for r in front.asked if re.match(r"(POST|PUT) ", r) and not r.endswith("/auth/tokens")]
    assert made == []


def test_of_several_networks_one_for_the_engines_is_enough(shell_on) -> None:
    """The controller needs none."""
    shell, _ = shell_on(several_networks)
    network = "--GriffinEngineSetLauncher.network=devnet"
    shell.run("ipcluster", "start", "--profile=griffin", "-n", "1", "--daemonize", network)
    shell.run("ipcluster", "stop", "--profile=griffin")


def test_a_cloud_that_is_only_passed_on_is_one_like_any_other(shell_on) -> None:
    """So what the tests above see is what they changed."""
    shell, front = shell_on(lambda path, status, answer: (status, answer))
    shell.run("ipcluster", "start", "--profile=griffin", "-n", "1", "--daemonize")
    shell.run("ipcluster", "stop", "--profile=griffin")
    assert "POST /compute/v2.1/servers" in front.asked
