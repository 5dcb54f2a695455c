"""A cloud with https endpoints, whose certificates a private CA signed."""

import re

import ipyparallel as ipp
import pytest
import yaml

from ..clouds import OnDevCloud
from ..conftest import running_cloud
from ..tls import Authority, tls_in_front_of
from .conftest import Shell

pytestmark = pytest.mark.needs("devcloud")
START = ("ipcluster", "start", "--profile=griffin", "-n", "1", "--daemonize")


@pytest.fixture
def shell_on_https(tmp_path):
    """``shell_on_https(context)``: a shell on a dev cloud behind TLS; its clouds.yaml has no cacert yet."""
    with running_cloud(tmp_path / "cloud") as running:
        opened = []

        def make(context) -> Shell:
            front = tls_in_front_of(int(running.url.rpartition(":")[2]), context)
            opened.append(front)
            url = f"https://127.0.0.1:{front.__enter__()}"
            cloud = OnDevCloud(running)
            cloud.clouds_yaml = tmp_path / "https.yaml"
            cloud.clouds_yaml.write_text(running.clouds_yaml.read_text().replace(running.url, url))
            running.url = url  # in the catalog
            shell = Shell(tmp_path, cloud)
            shell.make_profile()
            opened.append(shell)
            return shell

        yield make
        front, shell = opened
        shell.close()
        front.__exit__(None, None, None)
        shell.assert_nothing_left()


def set_cacert(shell, path):
    clouds = yaml.safe_load(shell.cloud.clouds_yaml.read_text())
    clouds["clouds"]["devcloud"]["cacert"] = str(path)
    shell.cloud.clouds_yaml.write_text(yaml.safe_dump(clouds))


def critical(output):
    (line,) = [line for line in output.splitlines() if "CRITICAL" in line]
    return line


def test_cacert_is_all_that_client_and_servers_need(shell_on_https, tmp_path):
    authority = Authority(tmp_path)
    shell = shell_on_https(authority.server())
    set_cacert(shell, authority.path)
    shell.run(*START)
    with ipp.Client(str(shell.profile() / "security" / "ipcontroller-client.json")) as rc:
        assert rc.ids == [0]
    shell.run("ipcluster", "stop", "--profile=griffin")


def test_without_cacert_one_line_says_to_set_it(shell_on_https, tmp_path):
    shell = shell_on_https(Authority(tmp_path).server())
    line = critical(shell.run(*START, status=1))
    assert re.search(
        r"Can't log in to cloud 'devcloud': the cloud's certificate is not trusted: unable to get local issuer certificate. Set cacert",
        line,
    )


@pytest.mark.parametrize(
    ("certificate", "why"),
    [({"address": "192.0.2.7"}, "IP address mismatch"), ({"days": -1}, "certificate has expired")],
)
def test_a_certificate_that_is_wrong_says_why(shell_on_https, tmp_path, certificate, why):
    authority = Authority(tmp_path)
    shell = shell_on_https(authority.server(**certificate))
    set_cacert(shell, authority.path)
    assert why in critical(shell.run(*START, status=1))
