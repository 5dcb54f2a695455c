"""The tests' own manners on somebody's cloud: a dev cloud plays it, under another name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import openstack
import pytest
import yaml

from .clouds import REPO

ONE_TEST = "tests/end_to_end/test_ipcluster.py::test_any_profile_name"


@pytest.fixture
def run_tests(devcloud, tmp_path):
    """``run_tests(argument, ...)``: pytest on the cloud ``mine`` of this user's clouds.yaml; status and output."""
    entries = yaml.safe_load(devcloud.clouds_yaml.read_text())["clouds"]
    path = tmp_path / "clouds.yaml"
    auth = {**entries["devcloud"]["auth"], "password": "wrong"}
    path.write_text(
        yaml.safe_dump({"clouds": {"mine": entries["devcloud"], "locked": {**entries["devcloud"], "auth": auth}}})
    )

    def run(*arguments: str) -> tuple[int, str]:
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "0", *arguments],
            cwd=REPO,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OS_CLIENT_CONFIG_FILE": str(path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=150,
        )
        return ran.returncode, ran.stdout

    return run


@pytest.fixture
def somebodys_server(devcloud):
    with openstack.connect(cloud="devcloud") as connection:
        image = connection.image.find_image("debian-12")
        flavor = connection.compute.find_flavor("dev.small")
        network = connection.network.find_network("devnet")
        server = connection.compute.create_server(
            name="thesis", image_id=image.id, flavor_id=flavor.id, networks=[{"uuid": network.id}]
        )
        yield server
        connection.compute.delete_server(server)
        connection.compute.wait_for_delete(server)


def test_they_say_what_they_will_create_and_leave_nothing(run_tests, devcloud):
    status, output = run_tests("--cloud=mine", ONE_TEST)
    assert status == 0, output
    assert "On cloud mine, these tests create and delete: up to 8 servers at a time" in output
    assert re.search(r"Projects: devcloud \(\d+ things are there now\)\. They try a wrong password", output)
    assert "1 passed" in output
    assert devcloud.servers() == []


def test_where_others_have_servers_they_refuse_with_one_line(run_tests, somebodys_server):
    status, output = run_tests("--cloud=mine", ONE_TEST)
    assert status != 0
    assert "Cloud mine has server thesis: these tests delete what they make" in output
    assert "passed" not in output
    assert len(output.strip().splitlines()) == 1, output


def test_where_others_have_servers_they_run_when_told_so_and_touch_none_of_theirs(
    run_tests, somebodys_server, devcloud
):
    status, output = run_tests("--cloud=mine", "--cloud-shared", ONE_TEST)
    assert status == 0, output
    assert [server["name"] for server in devcloud.servers()] == ["thesis"]


def test_what_a_cloud_lacks_is_left_out_and_said(run_tests):
    status, output = run_tests("--cloud=mine", "--collect-only", "-q", "tests/end_to_end")
    assert status == 0, output
    for what in ("faults", "catalog", "colleague"):
        assert f"tests that need of the cloud: {what}" in output


def test_an_unknown_cloud_is_one_line(run_tests):
    status, output = run_tests("--cloud=yours", ONE_TEST)
    assert status != 0
    assert output == "ERROR: clouds.yaml has no cloud 'yours'. It has: locked, mine.\n\n"


def test_wrong_credentials_are_one_line(run_tests):
    status, output = run_tests("--cloud=locked", ONE_TEST)
    assert status != 0
    assert output.startswith("ERROR: Can't use cloud 'locked': ")
    assert len(output.strip().splitlines()) == 1, output


def test_on_a_cloud_with_other_names_they_run_by_the_settings(run_tests, devcloud, tmp_path: Path):
    """A flavor of four vCPUs, and an image that is no snapshot; nothing of it is in the tests themselves."""
    settings = tmp_path / "settings.py"
    settings.write_text("c.GriffinCloud.flavor = 'dev.medium'\nc.GriffinCloud.image = 'debian-12'\n")
    devcloud.clear_requests()
    some = ["tests/end_to_end/test_whole_clusters.py", "tests/end_to_end/test_cluster_api.py", "-k", "later or by_name"]
    status, output = run_tests("--cloud=mine", f"--cloud-settings={settings}", *some)
    assert status == 0, output
    assert "2 passed" in output
    made = {path.split("/")[3] for _, method, path, _ in devcloud.requests if method == "PUT" and path.count("/") == 3}
    assert made and all(re.fullmatch("griffin-test-[0-9a-f]{6}-[0-9a-f]{12}", container) for container in made)


def test_settings_reach_the_cluster(run_tests, tmp_path: Path):
    settings = tmp_path / "settings.py"
    settings.write_text("c.GriffinCloud.flavor = 'no-such-flavor'\n")
    status, output = run_tests("--cloud=mine", f"--cloud-settings={settings}", ONE_TEST)
    assert status == 1
    assert "No flavor 'no-such-flavor'" in output
