"""A start on clouds of other shapes than the dev cloud's own, which it plays; what a whole cluster shows is in end_to_end."""

import json
import re
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import yaml
from traitlets.config import Config, Configurable

from ipp_griffin.agent.reports import report_url
from ipp_griffin.agent.store import url_opener
from ipp_griffin.cloud.cloud import Cloud
from ipp_griffin.cloud.shared import open_store
from ipp_griffin.common.errors import CloudError, GriffinError, SettingError
from ipp_griffin.devcloud import DevCloud
from ipp_griffin.devcloud.object_stores import KINDS
from ipp_griffin.launchers import GriffinEngineSetLauncher

from ..access_rules import documented, limited
from ..conftest import assert_empty, named, running_cloud
from ..relay import Change, Relay, unchanged
from ..tls import Authority, tls_in_front_of

UID = "0123456789ab"
CONNECTION = {"interface": "tcp://127.0.0.1", "registration": 20000, "location": "127.0.0.1", "key": "5ecre7" * 10}


class OneCluster(Configurable):
    """As much of ipyparallel's Cluster as a launcher needs that fails."""

    controller = types.SimpleNamespace(state="running", stop_data={})
    engines: dict[str, Any] = {}  # noqa: RUF012
    cluster_file = ""

    def update_cluster_file(self) -> None:
        pass


@pytest.fixture
def make_launcher(tmp_path: Path) -> Callable[..., GriffinEngineSetLauncher]:
    """``make_launcher(setting=value, ...)``: an engine set's, with these settings of GriffinCloud."""

    def make(**settings: Any) -> GriffinEngineSetLauncher:
        cluster = OneCluster(config=Config(GriffinCloud=settings))
        launcher = GriffinEngineSetLauncher(parent=cluster, profile_dir=str(tmp_path), engine_set_id="1700000000")
        launcher.environment = {"IPP_CONNECTION_INFO": json.dumps(CONNECTION)}
        return launcher

    return make


# --- a cloud that lacks something, or leaves a choice


@pytest.fixture
def front_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Change], Relay]]:
    """``front_with(change)``: what stands before a dev cloud, the user's only cloud; its answers are changed."""
    with running_cloud(tmp_path / "cloud") as running, Relay(running.url) as front:
        changed = tmp_path / "changed.yaml"
        changed.write_text(running.clouds_yaml.read_text().replace(running.url, front.url))
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(changed))
        running.url = front.url  # in the catalog

        def make(change: Change) -> Relay:
            front.change = change
            return front

        yield make
        assert_empty(running)


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


def made(front: Relay) -> list[str]:
    return [line for line in front.asked if re.match(r"(POST|PUT) ", line) and not line.endswith("/auth/tokens")]


@pytest.mark.parametrize(
    ("change", "settings", "said"),
    [
        (
            nova("2.38"),
            {},
            r"This cloud's Nova offers microversions up to 2\.38; 2\.52 \(Pike, 2017\) or later is needed",
        ),
        (nova(""), {}, r"This cloud's Nova has no microversions; 2\.52 \(Pike, 2017\) or later is needed"),
        (only_identity_v2, {}, r"there is no Keystone v3 at http.*Identity v3 is needed"),
        (no_object_store, {}, r"no object store .*Swift, or Ceph's gateway, with TempURLs is needed"),
        (
            several_networks,
            {},
            r"several networks: campus, devnet\. Set GriffinCloud\.network \(or GriffinEngineSetLauncher\.network, .*\) to one of them",
        ),
        (
            several_regions,
            {"region": "Mars"},
            r"no region 'Mars'\. It has: RegionOne, South\. Set GriffinCloud",
        ),
    ],
    ids=["nova-2.38", "nova-without-microversions", "identity-v2", "no-object-store", "networks", "region"],
)
async def test_what_is_needed_is_said_in_one_line_before_anything_is_made(
    front_with, make_launcher, change, settings, said
):
    front = front_with(change)
    with pytest.raises(GriffinError, match=said) as error:
        await make_launcher(**settings).start(1)
    assert "\n" not in str(error.value)
    assert front.asked != [] and made(front) == []


async def test_a_cloud_that_is_only_passed_on_is_one_like_any_other(front_with, make_launcher):
    """So what the test above sees is what it changed."""

    def full(path, status, answer):
        return (
            (403, {"forbidden": {"message": "Quota exceeded", "code": 403}}) if "server" in answer else (status, answer)
        )

    front = front_with(full)
    with pytest.raises(CloudError, match="Quota exceeded"):
        await make_launcher().start(1)
    assert "POST /compute/v2.1/servers" in front.asked


async def test_a_proxy_with_a_password_is_refused_before_anything_is_asked_for(front_with, make_launcher):
    """It would be readable on every server."""
    front = front_with(unchanged)
    with pytest.raises(SettingError, match=r"GriffinCloud\.proxy has a user name or a password") as error:
        await make_launcher(proxy="http://ada:s3cr3t@127.0.0.1:1").start(1)
    assert "s3cr3t" not in str(error.value)
    assert front.asked == []


# --- credentials that may do little


@pytest.mark.parametrize(
    ("service", "method", "path", "said"),
    [
        ("compute", "POST", "/v2.1/servers", "Can't create server"),
        ("object-store", "PUT", "/v1/*/ipp-griffin-*", "Can't make container"),
    ],
)
async def test_without_one_of_the_documented_access_rules_a_start_says_what_was_refused_and_leaves_nothing(
    tmp_path, monkeypatch, make_launcher, service, method, path, said
):
    """That all of them are enough for everything is in end_to_end/test_application_credentials.py."""
    rules = documented()
    rules.remove({"service": service, "method": method, "path": path})
    with (
        running_cloud(tmp_path / "cloud") as running,
        limited(running.clouds_yaml, "devcloud", rules, tmp_path / "limited.yaml") as path,
    ):
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(path))
        with pytest.raises(CloudError, match=rf"{said} .* their access rules may forbid this\."):
            await make_launcher().start(1)
        assert_empty(running)


# --- https, with a certificate that a private CA signed


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def https(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """``https(key=value, ...)``: a dev cloud behind TLS, the user's only one, with these keys of clouds.yaml; its URL."""
    with (
        running_cloud(tmp_path / "cloud") as running,
        tls_in_front_of(int(running.url.rpartition(":")[2]), authority.server()) as port,
    ):
        url = f"https://127.0.0.1:{port}"
        clouds = yaml.safe_load(running.clouds_yaml.read_text().replace(running.url, url))
        running.url = url  # in the catalog

        def write(**keys: Any) -> str:
            clouds["clouds"]["devcloud"].update(keys)
            (tmp_path / "https.yaml").write_text(yaml.safe_dump(clouds))
            monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "https.yaml"))
            return url

        yield write


@pytest.mark.parametrize("how", ["cacert", "OS_CACERT", "verify"])
def test_the_cacert_of_clouds_yaml_or_the_environment_will_do_and_where_nothing_is_verified_nobody_is_warned(
    https, authority, monkeypatch, how
) -> None:
    https(**{"cacert": {"cacert": str(authority.path)}, "verify": {"verify": False}}.get(how, {}))
    if how == "OS_CACERT":
        monkeypatch.setenv("OS_CACERT", str(authority.path))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        cloud = Cloud.connect("devcloud")
        cloud.check_services()
        assert cloud.servers() == []
        store = open_store(cloud, container="ipp-griffin")
        store.publish(UID, {})
        assert store.delete_container(UID)
    assert [str(one.message) for one in said if "nverified" in str(one.message)] == []
    assert cloud.ca_file() == (None if how == "verify" else str(authority.path))


async def test_without_a_cacert_a_start_says_in_one_line_to_set_it(https, make_launcher) -> None:
    https()
    said = r"Can't log in to cloud 'devcloud': the cloud's certificate is not trusted: unable to get local issuer certificate. Set cacert"
    with pytest.raises(CloudError, match=said) as error:
        await make_launcher().start(1)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("through_proxy", [False, True])
def test_agents_trust_the_certificates_that_they_are_given_and_no_others(https, authority, through_proxy) -> None:
    url = f"{https()}/info"
    with Relay() as proxy:
        address = proxy.url if through_proxy else ""
        with url_opener(address, authority.pem)(url, timeout=60) as response:
            assert json.loads(response.read())["swift"]
        with pytest.raises(OSError, match="certificate verify failed"):
            url_opener(address, "")(url, timeout=60)
    assert set(proxy.asked) == ({f"CONNECT {urlsplit(url).netloc}"} if through_proxy else set())


# --- object stores


FIRST, SECOND = "X-Account-Meta-Temp-Url-Key", "X-Account-Meta-Temp-Url-Key-2"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "swift"])
def test_what_servers_need_of_an_object_store_works_with_every_kind_and_leaves_no_key(
    tmp_path: Path, kind: str
) -> None:
    with DevCloud(tmp_path / "cloud", object_store=kind) as running, named(running.clouds_yaml, "devcloud"):
        (project,) = [project for project in running.state.projects if project.name == "devcloud"]
        keys = running.state.account_keys.setdefault(project.id, {})
        store = open_store(Cloud.connect("devcloud"), container="ipp-griffin")
        store.publish(UID, {"user": "ada"})
        store.put(UID, "set/connection.json", b"{}")
        assert [name for name, value in keys.items() if value.startswith("ipp-griffin-")] == (
            [FIRST] if kind.startswith("rgw") else []
        )
        url = store.get_url(UID, "set/connection.json", 60)
        assert requests.get(url, timeout=60).content == b"{}"
        urls = store.report_urls(UID, "set/0.0/", 60)
        assert requests.put(report_url(urls, 0, "agent"), data=b"{}", timeout=60).status_code == 201
        assert [report.phase for report in store.reports(UID, "set")] == ["agent"]
        assert store.delete_container(UID)
        assert requests.get(url, timeout=60).status_code in (401, 403, 404)
        assert keys == {}
        assert running.containers() == []
