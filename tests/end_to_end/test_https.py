"""A cloud with https endpoints, whose certificates a private CA signed."""

import re

import ipyparallel as ipp
import pytest
import yaml

from ..clouds import OnDevCloud
from ..conftest import running_cloud
from ..forward_proxy import forward_proxy
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


def set_entry(shell, **keys):
    clouds = yaml.safe_load(shell.cloud.clouds_yaml.read_text())
    clouds["clouds"]["devcloud"].update(keys)
    shell.cloud.clouds_yaml.write_text(yaml.safe_dump(clouds))


def critical(output):
    (line,) = [line for line in output.splitlines() if "CRITICAL" in line]
    return line


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path)


def whole_cluster(shell, *arguments, **env):
    """From its start to its stop, with one engine; what both printed."""
    output = shell.run(*START, *arguments, **env)
    with ipp.Client(str(shell.profile() / "security" / "ipcontroller-client.json")) as rc:
        assert rc.ids == [0]
    return output + shell.run("ipcluster", "stop", "--profile=griffin", **env)


def test_cacert_is_all_that_client_and_servers_need(shell_on_https, authority):
    shell = shell_on_https(authority.server())
    set_entry(shell, cacert=str(authority.path))
    whole_cluster(shell)


def test_os_cacert_will_do_where_the_entry_has_none(shell_on_https, authority):
    whole_cluster(shell_on_https(authority.server()), OS_CACERT=str(authority.path))


def test_servers_connect_through_the_proxy(shell_on_https, authority):
    shell = shell_on_https(authority.server())
    set_entry(shell, cacert=str(authority.path))
    with forward_proxy() as proxy:
        whole_cluster(shell, f"--GriffinCloud.proxy={proxy.url}")
    assert set(proxy.asked) == {f"CONNECT {shell.cloud.running.url.removeprefix('https://')}"}


def test_where_nothing_is_verified_servers_need_the_certificate_all_the_same(shell_on_https, authority):
    shell = shell_on_https(authority.server())
    set_entry(shell, verify=False)
    output = whole_cluster(shell, f"--GriffinCloud.ca_certificates={authority.path}")
    assert "Warning" not in output and "Unverified" not in output


def test_without_cacert_one_line_says_to_set_it(shell_on_https, authority):
    line = critical(shell_on_https(authority.server()).run(*START, status=1))
    assert re.search(
        r"Can't log in to cloud 'devcloud': the cloud's certificate is not trusted: unable to get local issuer certificate. Set cacert",
        line,
    )


@pytest.mark.parametrize(
    ("certificate", "why"),
    [
        (
            {"address": "192.0.2.7"},
            r"the certificate of 127\.0\.0\.1 is for another name \(IP address mismatch\)\. Use the name",
        ),
        (
            {"days": -1},
            r"the cloud's certificate is not valid now: certificate has expired\. Is this machine's clock right",
        ),
    ],
)
def test_a_certificate_that_is_wrong_says_why(shell_on_https, authority, certificate, why):
    shell = shell_on_https(authority.server(**certificate))
    set_entry(shell, cacert=str(authority.path))
    assert re.search(why, critical(shell.run(*START, status=1)))


def test_a_cacert_too_large_for_user_data_says_so(shell_on_https, authority):
    authority.path.write_text(authority.pem + "".join(Authority(authority.folder).pem for _ in range(300)))
    shell = shell_on_https(authority.server())
    set_entry(shell, cacert=str(authority.path))
    line = critical(shell.run(*START, status=1))
    assert re.search(
        r"The user-data is \d{5,} bytes, Nova takes 49149; .* Set GriffinCloud\.ca_certificates to a file", line
    )
