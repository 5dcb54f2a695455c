"""What a user gets wrong, typed at `ipcluster start`: one clear line, status 1, nothing left behind.

Here is one mistake for each way in which a start can end. What is said of the others: `test_engine_sets` asks a running controller for sets
that can't be, and tests of the launchers, the plan, the settings and clouds.yaml have the rest.
"""

import re
import subprocess

import pytest
import yaml

from ipp_griffin.cloud.cloud import Cloud
from ipp_griffin.common.errors import CredentialsError

from .commands import cause

pytestmark = pytest.mark.xdist_group(__name__)

START = ("ipcluster", "start", "--profile=griffin", "-n", "2")


@pytest.fixture
def shell(shared_shell):
    """A shell that each test must leave as if nothing had been typed there."""
    yield shared_shell
    shared_shell.assert_nothing_left()


@pytest.mark.needs("catalog")
def test_a_start_that_fails_ends_the_controller_and_the_process(shell):
    """ipyparallel alone hangs for ever, with the controller running."""
    output = shell.run(*START, "--GriffinCloud.image=foo", status=1)
    assert re.search(r"No image 'foo'\. This cloud has: .*snapshot1, snapshot2, snapshot10", cause(output))


@pytest.mark.needs("devcloud")
def test_a_daemonized_start_that_fails_does_so_too(shell):
    output = shell.run("ipcluster", "start", "--profile=griffin", "--daemonize", "-n", "0", status=1)
    assert "Can't start 0 engines" in cause(output)


@pytest.mark.needs("devcloud")
def test_a_controller_that_can_not_be_started(shell):
    output = shell.run(*START, "--daemonize", "--GriffinControllerLauncher.ip=192.0.2.77", status=1)
    assert "it must be an address of this machine" in cause(output)


@pytest.mark.needs("devcloud")
def test_a_launcher_that_can_not_be_made(shell):
    """ipyparallel alone hangs with a traceback."""
    output = shell.run(*START, "--daemonize", "--GriffinControllerLauncher.stop_timeout=soon", status=1)
    assert re.search("A setting is wrong: .*'?stop_timeout", cause(output))


@pytest.mark.needs("devcloud")
def test_a_profile_that_is_broken_python_starts_no_local_engines(shell):
    path = shell.profile() / "ipcluster_config.py"
    before = path.read_text()
    try:
        path.write_text(f"{before}c.GriffinCloud.image = (\n")
        done = subprocess.run([*START], env=shell.env, capture_output=True, text=True, timeout=90)
        assert done.returncode == 1, done
        assert f"{path}, line {len(path.read_text().splitlines())}" in done.stderr  # beside traitlets' own traceback
    finally:
        path.write_text(before)


@pytest.mark.needs("devcloud")
def test_a_clouds_yaml_that_is_no_yaml(shell, tmp_path):
    broken = tmp_path / "broken.yaml"
    broken.write_text("clouds:\n  mycloud: {auth: [\n")
    assert f"{broken}, line 3: not YAML" in cause(shell.run(*START, status=1, OS_CLIENT_CONFIG_FILE=str(broken)))


def test_a_wrong_password(shell, tmp_path):
    wrong = tmp_path / "clouds.yaml"
    wrong.write_text(re.sub(r"(password|secret): .*", r"\1: wrong-one", shell.cloud.clouds_yaml.read_text()))
    output = shell.run(*START, status=1, OS_CLIENT_CONFIG_FILE=str(wrong))
    assert "wrong-one" not in output
    assert "credentials" in cause(output).lower() or "password" in cause(output).lower()
    assert "The failed request has the id req-" in output


# -- log-ins that Keystone refuses


@pytest.fixture
def log_in(shell, tmp_path, monkeypatch):
    """Log in to this cloud with other ``keys`` in its entry of clouds.yaml; ``auth``: beside address and ``project``."""

    def connect(*, project: bool = True, auth: dict, **keys) -> None:
        clouds = yaml.safe_load(shell.cloud.clouds_yaml.read_text())["clouds"]
        entry = clouds[shell.cloud.name]
        kept = {k: v for k, v in entry["auth"].items() if k == "auth_url" or project and k.startswith("project")}
        path = tmp_path / "changed.yaml"
        path.write_text(yaml.safe_dump({"clouds": {shell.cloud.name: {**entry, **keys, "auth": {**kept, **auth}}}}))
        monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(path))
        Cloud.connect(shell.cloud.name)

    return connect


def test_an_expired_token(log_in):
    """Keystone answers 404 to it, as to a page that it has not."""
    with pytest.raises(CredentialsError, match=r"Can't log in .*oken.* Check the credentials") as raised:
        log_in(auth_type="token", auth={"token": "expired-long-ago"})
    assert "expired-long-ago" not in str(raised.value)


def test_an_application_credential_that_is_gone(log_in):
    secret = {"application_credential_id": "b" * 32, "application_credential_secret": "sesame"}
    with pytest.raises(
        CredentialsError, match=r"Can't log in .* Check the credentials: they may be wrong, expired or revoked"
    ) as raised:
        log_in(project=False, auth_type="v3applicationcredential", auth=secret)
    assert "sesame" not in str(raised.value)
