"""Whole clusters as people use them: several engines a server, engine sets that come and go, several users, other credentials."""

import math
import os
import re

import ipyparallel as ipp
import pytest

from .conftest import Shell

START = ("ipcluster", "start", "--profile=griffin", "--daemonize")
STOP = ("ipcluster", "stop", "--profile=griffin")


def client(shell, profile="griffin") -> ipp.Client:
    return ipp.Client(str(shell.profile(profile) / "security" / "ipcontroller-client.json"))


@pytest.mark.needs("catalog")
def test_eight_engines_on_two_servers_compute_and_engine_sets_come_and_go(shell, monkeypatch):
    flavor = shell.cloud.four_cores
    shell.run(*START, "-n", "8", f"--GriffinCloud.flavor={flavor}")
    assert len(shell.cloud.servers()) == 2
    with client(shell) as rc:
        by_server = rc[:].apply_sync(os.getenv, "GRIFFIN_SERVER")
        assert sorted(map(by_server.count, set(by_server))) == [4, 4]
        assert rc.load_balanced_view().map_sync(math.factorial, range(80)) == [math.factorial(n) for n in range(80)]
    for name in ("IPYTHONDIR", "OS_CLIENT_CONFIG_FILE", "OS_CLOUD"):
        monkeypatch.setenv(name, shell.env[name])
    cluster = ipp.Cluster.from_file(profile_dir=str(shell.profile()))
    added = cluster.start_engines_sync(n=4)
    assert len(shell.cloud.servers()) > 2
    with client(shell) as rc:
        assert len(rc.ids) == 12
    cluster.stop_engines_sync(added)
    assert len(shell.cloud.servers()) == 2
    with client(shell) as rc:
        rc.wait_for_engines(8, timeout=60, interactive=False)
        assert len(rc[:8].apply_sync(os.getpid)) == 8
    shell.run(*STOP)


@pytest.mark.needs("catalog")
def test_servers_boot_from_the_snapshot_with_the_highest_number(shell, openstack_client):
    output = shell.run(*START, "-n", "1")
    assert "image snapshot10," in output
    shown = openstack_client("server", "show", *shell.cloud.servers(), "-f", "value", "-c", "image")
    assert shown.startswith("snapshot10 ")
    shell.run(*STOP)


@pytest.mark.needs("app")
def test_an_application_credential_is_enough(shell):
    shell.env["OS_CLOUD"] = f"{shell.cloud.name}-app"
    shell.run(*START, "-n", "1")
    with client(shell) as rc:
        assert rc.ids == [0]
    shell.run(*STOP)


@pytest.mark.needs("app-reader")
def test_a_credential_that_may_only_read_is_told_which_role_it_lacks(shell):
    output = shell.run(*START, "-n", "1", status=1, OS_CLOUD=f"{shell.cloud.name}-app-reader")
    assert re.search(r"CRITICAL.*lack the role for it \(member\)", output)


def test_a_server_that_somebody_deletes_during_the_start_ends_it_without_replacements(
    shell, openstack_client, eventually
):
    if "faults" in shell.cloud.has:
        shell.cloud.faults.set({"server": ".*-1$", "boot_time": 20})
    process = shell.start(*START, "-n", "2", "--GriffinEngineSetLauncher.max_replacements=0")
    eventually(lambda: len(shell.cloud.servers()) == 2, "two servers")
    openstack_client("server", "delete", sorted(shell.cloud.servers())[0])
    output = process.communicate(timeout=120)[0]
    if process.returncode == 0 and "faults" not in shell.cloud.has:  # the engines were faster
        shell.run(*STOP)
    else:
        assert re.search(
            r"can't have its 2 engines any more\. Server griffin-\S+ \(\w+\) is gone: somebody deleted it", output
        ), output
    assert "Traceback" not in output


def test_a_server_that_somebody_deletes_later_takes_only_its_engines_with_it(shell, openstack_client, eventually):
    shell.run(*START, "-n", "2")
    lost = sorted(shell.cloud.servers())[0]
    openstack_client("server", "delete", "--wait", lost)
    shell.wait_until_connected(eventually, 1)
    with client(shell) as rc:
        assert rc[:].apply_sync(os.getenv, "GRIFFIN_SERVER") == sorted(shell.cloud.servers())
    shell.run(*STOP)


@pytest.mark.needs("colleague")
def test_two_users_in_one_project_stop_only_what_is_theirs(shell, tmp_path):
    folder = tmp_path / "colleague"
    folder.mkdir()
    colleague = Shell(folder, shell.cloud)
    colleague.env["OS_CLOUD"] = f"{shell.cloud.name}-colleague"
    try:
        colleague.make_profile()
        shell.run(*START, "-n", "1")
        colleague.run(*START, "-n", "2")
        assert len(shell.cloud.servers()) == 3
        shell.run(*STOP)
        with client(colleague) as rc:
            assert len(rc[:].apply_sync(os.getpid)) == 2
        assert len(shell.cloud.servers()) == 2
        colleague.run(*STOP)
    finally:
        colleague.close()
