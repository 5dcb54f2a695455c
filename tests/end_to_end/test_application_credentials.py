"""An application credential with one role, and the access rules that docs/clouds.md lists, is all that a cluster needs.

What a start says that lacks one of them is in tests/launchers/test_other_clouds.py.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import ipyparallel as ipp
import pytest
from traitlets.config import Config

from ipp_griffin import Results
from ipp_griffin.api.results import NAME
from ipp_griffin.common.errors import GriffinError
from ipp_griffin.devcloud.access_rules import AccessRule

from ..access_rules import documented, limited
from .commands import griffin
from .conftest import address_of
from .server_controllers import suspended

# The answers are looked at, so that a request which is refused and then done without is seen, too: not behind TLS.
pytestmark = pytest.mark.needs("faults", "app", "address")
GROUPS = {"manage_security_group": True}


@pytest.fixture
def prefix(shell) -> str:
    """Of the names of containers."""
    return str(getattr(shell.cloud, "prefix", "ipp-griffin"))


@pytest.fixture
def rules(shell, prefix) -> Iterator[list[dict[str, str]]]:
    """The documented ones: the shell's credential has these and no other."""
    rules, path = documented(prefix), shell.folder / "limited.yaml"
    with limited(shell.cloud.clouds_yaml, shell.cloud.name, rules, path):
        shell.env["OS_CLIENT_CONFIG_FILE"] = str(path)
        yield rules
        shell.env["OS_CLIENT_CONFIG_FILE"] = str(shell.cloud.clouds_yaml)


@pytest.fixture
def cluster(shell, proxy, rules, monkeypatch) -> Iterator[Callable[..., ipp.Cluster]]:
    """``cluster(settings, ...)``: one of the shell's profile, with these settings by class, in this process."""
    for name, value in shell.env.items():
        monkeypatch.setenv(name, value)
    made = []

    def make(settings: dict[str, Any], **more: Any) -> ipp.Cluster:
        here = str(shell.profile())
        made.append(ipp.Cluster(profile_dir=here, cluster_id="", config=Config(settings), n=1, **more))
        return made[-1]

    yield make
    for each in made:
        each.stop_cluster_sync()


def test_the_documented_rules_are_enough_for_everything(shell, cluster, proxy, prefix, rules, neutron, head):
    """No request is refused: what the rules lack would be asked for in vain, or again with a new token."""
    where = (f"--container={prefix}",)

    # Whatever a start may ask for by its name, and the groups that let engines in to a controller on this machine.
    named = {"key_name": "griffin-key", "security_groups": ["default"], "availability_zone": "nova"}
    address = {"ip": address_of(shell.cloud)}
    local = cluster({"GriffinCloud": {**named, **GROUPS}, "GriffinControllerLauncher": address})
    local.start_cluster_sync()
    (found,) = json.loads(griffin(shell, "ps", *where, "--json"))
    assert [server["phase"] for server in found["servers"]] == ["engines"]
    assert "/agent  engines: " in (logs := griffin(shell, "logs", *where, "griffin"))
    assert "/console  " in logs and "can't be read" not in logs
    griffin(shell, "timeline", *where, "griffin")
    assert "nothing to reap" in griffin(shell, "reap", *where)
    assert "1 server and its container" in griffin(shell, "stop", *where, "griffin")
    neutron.network.delete_port(head)
    assert shell.cloud.left_over() == []
    local.stop_cluster_sync()

    # A controller on a server, at a floating IP; no security group lets this machine in to it.
    reach = {"floating_ip": "auto", "reach_timeout": 1}
    with pytest.raises(GriffinError, match="does not reach it at"):
        cluster({"GriffinServerControllerLauncher": reach}, controller="griffin-server").start_controller_sync()
    assert shell.cloud.left_over() == []

    # With its own security groups, to which `connect` from another machine adds a rule.
    remote = cluster({"GriffinCloud": GROUPS}, controller="griffin-server")
    remote.start_controller_sync()
    (found,) = json.loads(griffin(shell, "ps", *where, "--json"))
    with suspended(found["uid"]):
        connecting = ("--profile=other", "--client-address=203.0.113.7", "--timeout=1")
        assert "does not reach it" in griffin(shell, "connect", *where, "griffin", *connecting, status=1)
    remote.stop_cluster_sync()

    # Results.
    griffin(shell, "put", *where, str(shell.folder / "limited.yaml"))
    griffin(shell, "get", *where, "limited.yaml", "--output", str(shell.folder / "copy"))
    assert "Deleted: 1" in griffin(shell, "results", *where, "--delete", "--yes", "limited.yaml")
    Results(container=prefix)._store.remove_if_empty(NAME)

    refused = {f"{e.status} {e.method} {e.url.partition('?')[0]}" for e in proxy.exchanges if e.status in (401, 403)}
    assert refused == set()
    # And none is there for nothing. (Nova leaves no port.)
    parsed = [
        rule
        for rule in map(AccessRule.parse, rules)
        if not (rule.method == "DELETE" and rule.path.endswith("/ports/*"))
    ]
    made = [(e.method, re.sub("^/(compute|image|network)(?=/v)", "", urlsplit(e.url).path)) for e in proxy.exchanges]
    assert [rule for rule in parsed if not any(rule.fits(rule.service, *request) for request in made)] == []
