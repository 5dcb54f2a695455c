"""An application credential with one role, and the access rules that docs/clouds.md lists, is all that a cluster needs."""

import json
import re
import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import openstack
import pytest
import yaml

from ipp_griffin import Results
from ipp_griffin.devcloud.access_rules import AccessRule
from ipp_griffin.results import NAME

from ..clouds import REPO
from ..forward_proxy import ForwardProxy, forward_proxy
from .conftest import address_of
from .test_server_controller import suspended

# The answers are looked at, so that a request which is refused and then done without is seen, too: not behind TLS.
pytestmark = pytest.mark.needs("faults", "app", "address")
DOCUMENT = REPO / "docs" / "clouds.md"


@pytest.fixture
def proxy(shell) -> Iterator[ForwardProxy]:
    """All that the commands of the shell ask of the cloud."""
    with forward_proxy() as proxy:
        shell.env |= {"http_proxy": proxy.url}
        yield proxy


@pytest.fixture
def make_credential(shell) -> Iterator[Any]:
    """``make_credential(access_rules)``: the shell uses an application credential with the role member and these rules."""
    config = openstack.config.OpenStackConfig(config_files=[str(shell.cloud.clouds_yaml)], load_envvars=False)
    entry = yaml.safe_load(shell.cloud.clouds_yaml.read_text())["clouds"][shell.cloud.name]
    made = []
    with openstack.connection.Connection(config=config.get_one(shell.cloud.name)) as connection:
        identity, user = connection.identity, connection.current_user_id

        def make(access_rules: list[dict[str, str]]) -> None:
            secret = secrets.token_urlsafe(16)
            name = f"griffin-test-{secrets.token_hex(4)}"
            found = identity.create_application_credential(
                user, name, secret=secret, roles=[{"name": "member"}], access_rules=access_rules
            )
            made.append(found)
            auth = {
                "auth_url": entry["auth"]["auth_url"],
                "application_credential_id": found.id,
                "application_credential_secret": secret,
            }
            limited = {**entry, "auth_type": "v3applicationcredential", "auth": auth}
            path = shell.folder / "limited.yaml"
            path.write_text(yaml.safe_dump({"clouds": {shell.cloud.name: limited}}))
            shell.env["OS_CLIENT_CONFIG_FILE"] = str(path)

        yield make
        shell.env["OS_CLIENT_CONFIG_FILE"] = str(shell.cloud.clouds_yaml)
        for each in made:
            identity.delete_application_credential(user, each)


def documented(shell) -> list[dict[str, str]]:
    """The rules as they are in the documentation, for containers of this cloud's tests."""
    (text,) = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    rules: list[dict[str, str]] = json.loads(text)
    prefix = getattr(shell.cloud, "prefix", "ipp-griffin")
    return [{**rule, "path": rule["path"].replace("/ipp-griffin-", f"/{prefix}-")} for rule in rules]


def test_the_documented_rules_are_enough_for_everything(shell, proxy, make_credential, neutron, head):
    """No request is refused: what the rules lack would be asked for in vain, or again with a new token."""
    make_credential(documented(shell))
    where = (f"--container={getattr(shell.cloud, 'prefix', 'ipp-griffin')}",)
    named = ["--GriffinCloud.key_name=griffin-key", "--GriffinCloud.security_groups=default"]
    shell.run("ipcluster", "start", "--profile=griffin", "-n", "2", "--daemonize", *named)
    (cluster,) = json.loads(shell.run("ipp-griffin", "ps", *where, "--json"))
    assert [server["phase"] for server in cluster["servers"]] == ["engines", "engines"]
    assert "/agent  engines: " in (logs := shell.run("ipp-griffin", "logs", *where, "griffin"))
    assert "/console  " in logs and "can't be read" not in logs
    shell.run("ipp-griffin", "timeline", *where, "griffin")
    assert "nothing to reap" in shell.run("ipp-griffin", "reap", *where)
    shell.run("ipcluster", "stop", "--profile=griffin")
    address = f"--GriffinControllerLauncher.ip={address_of(shell.cloud)}"
    others = ["--GriffinCloud.availability_zone=nova", "--GriffinCloud.manage_security_group=True", address]
    shell.run("ipcluster", "start", "--profile=griffin", "-n", "1", "--daemonize", *others)
    assert "1 server and its container" in shell.run("ipp-griffin", "stop", *where, "griffin")
    neutron.network.delete_port(head)
    assert shell.cloud.left_over() == []
    shell.run("ipcluster", "stop", "--profile=griffin")
    controller = ["floating_ip=auto", "reach_timeout=1"]  # that no security group lets this machine in to
    on_server = [f"--GriffinServerControllerLauncher.{setting}" for setting in controller]
    command = ("ipcluster", "start", "--profile=griffin", "-n", "1", "--controller=griffin-server", *on_server)
    assert "does not reach it at" in shell.run(*command, status=1)
    assert shell.cloud.left_over() == []
    command = ("ipcluster", "start", "--profile=griffin", "-n", "1", "--daemonize", "--controller=griffin-server")
    shell.run(*command, "--GriffinCloud.manage_security_group=True")
    (cluster,) = json.loads(shell.run("ipp-griffin", "ps", *where, "--json"))
    with suspended(cluster["uid"]):
        connecting = ("--profile=other", "--client-address=203.0.113.7", "--timeout=1")
        assert "does not reach it" in shell.run("ipp-griffin", "connect", *where, "griffin", *connecting, status=1)
    shell.run("ipcluster", "stop", "--profile=griffin")
    shell.run("ipp-griffin", "put", *where, "limited.yaml")
    shell.run("ipp-griffin", "get", *where, "limited.yaml", "--output", "copy")
    assert "Deleted: 1" in shell.run("ipp-griffin", "results", *where, "--delete", "--yes", "limited.yaml")
    Results(container=where[0].partition("=")[2])._store.remove_if_empty(NAME)
    refused = {f"{e.status} {e.method} {e.url.partition('?')[0]}" for e in proxy.exchanges if e.status in (401, 403)}
    assert refused == set()
    # And none is there for nothing. (Nova leaves no port.)
    rules = [
        rule
        for rule in map(AccessRule.parse, documented(shell))
        if not (rule.method == "DELETE" and rule.path.endswith("/ports/*"))
    ]
    made = [(e.method, re.sub("^/(compute|image|network)(?=/v)", "", urlsplit(e.url).path)) for e in proxy.exchanges]
    assert [rule for rule in rules if not any(rule.fits(rule.service, *request) for request in made)] == []


@pytest.mark.parametrize(
    ("service", "method", "path"),
    [("compute", "POST", "/v2.1/servers"), ("object-store", "PUT", "/v1/*/ipp-griffin-*")],
)
def test_without_one_of_them_a_start_says_what_was_refused_and_leaves_nothing(
    shell, make_credential, service, method, path
):
    lacking = {"service": service, "method": method, "path": path}
    given = documented(shell)
    kept = [rule for rule in given if {**rule, "path": undo(shell, rule["path"])} != lacking]
    assert len(kept) == len(given) - 1
    make_credential(kept)
    output = shell.run("ipcluster", "start", "--profile=griffin", "-n", "1", status=1)
    (line,) = [line for line in output.splitlines() if "CRITICAL" in line]
    assert re.search(r"Can't (create server|make container) .* do their rules forbid this\?", line)


def undo(shell, path: str) -> str:
    return path.replace(f"/{getattr(shell.cloud, 'prefix', 'ipp-griffin')}-", "/ipp-griffin-")
