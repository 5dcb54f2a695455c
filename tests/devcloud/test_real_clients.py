"""The real ``openstack`` and ``swift`` commands, unchanged, against the dev cloud."""

import json
import os
import subprocess

import pytest
import yaml

from .conftest import create, script, wait_for


@pytest.fixture
def run(dev, clients, tmp_path):
    """``run("openstack", "server", "list")``: what the command prints; it must succeed."""
    login = yaml.safe_load(dev.clouds_yaml.read_text())["clouds"]["devcloud"]["auth"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    openstack = {"OS_CLIENT_CONFIG_FILE": str(dev.clouds_yaml), "OS_CLOUD": "devcloud"}
    swift = {f"OS_{name.upper()}": value for name, value in login.items()}  # it reads no clouds.yaml
    swift["OS_IDENTITY_API_VERSION"] = "3"

    def call(command: str, *arguments: str) -> str:
        ran = subprocess.run(
            [clients / command, *arguments],
            env={**environment, **(openstack if command == "openstack" else swift)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    return call


def names(listing: str) -> list[str]:
    return sorted(row["Name"] for row in json.loads(listing))


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("image", ["debian-12", "snapshot1", "snapshot10", "snapshot2"]),
        ("flavor", ["dev.medium", "dev.small", "dev.toobig"]),
        ("network", ["devnet", "public"]),
        ("security group", ["default"]),
        ("floating ip", []),
        ("keypair", ["griffin-key"]),
        ("container", []),
        ("server", []),
    ],
)
def test_openstack_lists(run, what, expected):
    assert names(run("openstack", *what.split(), "list", "-f", "json")) == expected


def test_openstack_issues_a_token(run):
    assert json.loads(run("openstack", "token", "issue", "-f", "json"))["id"]


def test_openstack_creates_shows_and_deletes_a_server(run, dev):
    run(
        *[
            "openstack",
            "server",
            "create",
            "--wait",
            "--image",
            "snapshot10",
            "--flavor",
            "dev.small",
            "--network",
            "devnet",
        ],
        *["--key-name", "griffin-key", "--os-compute-api-version", "2.96", "--tag", "ours", "--property", "a=b", "box"],
    )
    shown = json.loads(run("openstack", "server", "show", "box", "-f", "json"))
    assert (shown["status"], shown["tags"], shown["properties"]) == ("ACTIVE", ["ours"], {"a": "b"})
    (row,) = json.loads(run("openstack", "server", "list", "-f", "json"))
    assert (row["Name"], row["Image"], row["Flavor"]) == ("box", "snapshot10", "dev.small")
    run("openstack", "server", "delete", "--wait", "box")
    assert dev.servers() == []


def test_openstack_reboots_stops_starts_and_reads_the_console(run, dev, connection):
    create(connection, user_data=script("echo boot"))
    wait_for(lambda: dev.servers()[0]["status"] == "ACTIVE")
    for command, status in (("reboot", "ACTIVE"), ("stop", "SHUTOFF"), ("start", "ACTIVE")):
        run("openstack", "server", command, "box")
        wait_for(lambda: (dev.servers()[0]["status"], dev.servers()[0]["task"]) == (status, None))  # noqa: B023
    wait_for(lambda: run("openstack", "console", "log", "show", "box").split() == ["boot"] * 3)


def test_swift_uploads_lists_shows_and_downloads(run, tmp_path):
    (tmp_path / "a file").write_bytes(os.urandom(300_000))
    run("swift", "upload", "box", "a file")
    assert run("swift", "list").split() == ["box"]
    assert run("swift", "list", "box") == "a file\n"
    assert "Content Length: 300000" in run("swift", "stat", "box", "a file")
    assert "Objects: 1" in run("swift", "stat", "box") and "Containers: 1" in run("swift", "stat")
    run("swift", "download", "box", "a file", "-o", "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "a file").read_bytes()
    assert names(run("openstack", "object", "list", "box", "-f", "json")) == ["a file"]
    run("swift", "post", "box", "-m", "Temp-URL-Key:k")
    assert "tempurl" in run("swift", "capabilities")
    run("swift", "delete", "box")
    assert run("swift", "list") == ""
