"""Servers that reach the object store through a proxy only."""

import re

import ipyparallel as ipp
import pytest

from ..forward_proxy import forward_proxy

pytestmark = pytest.mark.needs("devcloud")


@pytest.fixture
def proxy():
    with forward_proxy() as proxy:
        yield proxy


def test_agents_and_engines_use_it_but_not_towards_the_controller(shell, proxy):
    shell.run("ipcluster", "start", "--profile=griffin", "-n", "1", "--daemonize", f"--GriffinCloud.proxy={proxy.url}")
    with ipp.Client(str(shell.profile() / "security" / "ipcontroller-client.json")) as rc:
        rc[:].execute("import os; environment = dict(os.environ)", block=True)
        found = rc[0]["environment"]
    shell.run("ipcluster", "stop", "--profile=griffin")
    assert {found[name] for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")} == {proxy.url}
    assert re.match(r"localhost,127\.0\.0\.1,::1(,[\d.]+)?$", found["no_proxy"])
    assert found["NO_PROXY"] == found["no_proxy"]
    assert [line for line in proxy.asked if line.startswith("GET ") and line.endswith("/connection.json")]
    assert [line for line in proxy.asked if line.startswith("PUT ") and "-engines" in line]


def test_one_with_a_password_is_refused_before_anything_is_made(shell):
    output = shell.run(
        "ipcluster",
        "start",
        "--profile=griffin",
        "-n",
        "1",
        "--GriffinCloud.proxy=http://ada:s3cr3t@127.0.0.1:1",
        status=1,
    )
    assert "GriffinCloud.proxy has a user name or a password in it" in output
    assert "s3cr3t" not in output
