"""Servers that reach the object store through a proxy only."""

import ipyparallel as ipp
import pytest

from ..forward_proxy import forward_proxy

pytestmark = pytest.mark.needs("devcloud")
ADDRESS = "127.0.0.2"  # the controller's


@pytest.fixture
def proxy():
    with forward_proxy() as proxy:
        yield proxy


def test_agents_and_engines_use_it_but_not_towards_the_controller(shell, proxy):
    settings = [f"--GriffinCloud.proxy={proxy.url}", f"--GriffinControllerLauncher.ip={ADDRESS}"]
    shell.run("ipcluster", "start", "--profile=griffin", "-n", "1", "--daemonize", *settings)
    with ipp.Client(str(shell.profile() / "security" / "ipcontroller-client.json")) as rc:
        # execute(block=True) would wait for output, too, which is lost if it comes before the client has subscribed to it.
        found = rc[0].apply_sync(eval, "dict(__import__('os').environ)")
    shell.run("ipcluster", "stop", "--profile=griffin")
    assert {found[name] for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")} == {proxy.url}
    assert found["no_proxy"].split(",") == ["localhost", "127.0.0.1", "::1", ADDRESS]
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
