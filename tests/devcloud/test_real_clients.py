"""The real ``openstack`` and ``swift`` commands, unchanged, against the dev cloud."""

import json
import os
import subprocess

import pytest
import yaml

from .conftest import create, script, wait_for

LISTS = {
    "image": ["debian-12", "snapshot1", "snapshot10", "snapshot2"],
    "flavor": ["dev.medium", "dev.small", "dev.toobig"],
    "network": ["devnet", "public"],
    "security group": ["default"],
    "floating ip": [],
    "keypair": ["griffin-key"],
    "container": [],
    "server": [],
}


class Shell:
    """One ``openstack`` that is typed into: each command in a process of its own would take two seconds."""

    def __init__(self, program, environment, folder):
        self._errors = (folder / "errors").open("w+")
        self._process = subprocess.Popen(
            [program], env=environment, cwd=folder, stdin=-1, stdout=-1, stderr=self._errors, text=True
        )

    def type(self, *lines):
        self._process.stdin.write("".join(f"{line}\n" for line in lines))
        self._process.stdin.flush()

    def end(self):
        """What was printed: each a value that was JSON, or a line that was not. Nothing may have gone wrong."""
        try:
            printed = self._process.communicate("quit\n", timeout=120)[0]
        finally:
            self._process.kill()
            self._process.wait()
            self._errors.seek(0)
            said = self._errors.read()
            self._errors.close()
        assert said == ""
        found, decoder = [], json.JSONDecoder()
        while printed := printed.lstrip():
            if printed[0] in "[{":
                value, end = decoder.raw_decode(printed)
            else:
                value, _, _ = printed.partition("\n")
                end = len(value)
            found.append(value)
            printed = printed[end:]
        return found


@pytest.fixture
def openstack(dev, clients, tmp_path):
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"}
    environment |= {"OS_CLIENT_CONFIG_FILE": str(dev.clouds_yaml), "OS_CLOUD": "devcloud"}
    return Shell(clients / "openstack", {**environment, "OS_COMPUTE_API_VERSION": "2.96"}, tmp_path)


def test_openstack_lists_creates_shows_and_deletes(openstack, dev, tmp_path):
    openstack.type(*(f"{what} list -f json" for what in LISTS), "token issue -f json")
    server = "--image snapshot10 --flavor dev.small --network devnet --key-name griffin-key --tag ours --property a=b"
    openstack.type(f"server create --wait {server} -f json box", "server show box -f json", "server list -f json")
    openstack.type("server delete --wait box")
    (tmp_path / "a-file").write_bytes(b"x")
    openstack.type("container create box -f json", "object create box a-file -f json", "object list box -f json")
    openstack.type("object delete box a-file", "container delete box")
    *lists, token, created, shown, servers, _, _, objects = openstack.end()
    assert [sorted(row["Name"] for row in found) for found in lists] == list(LISTS.values())
    assert token["id"]
    assert created["name"] == "box"
    assert (shown["status"], shown["tags"], shown["properties"]) == ("ACTIVE", ["ours"], {"a": "b"})
    assert [(row["Name"], row["Image"], row["Flavor"]) for row in servers] == [("box", "snapshot10", "dev.small")]
    assert [row["Name"] for row in objects] == ["a-file"]
    assert (dev.servers(), dev.containers()) == ([], [])


def test_openstack_reboots_stops_starts_and_reads_the_console(openstack, dev, connection):
    made = create(connection, user_data=script("echo boot"))
    console = dev.folder / "servers" / made.id / "console.log"
    for times, (command, status) in enumerate((("", "ACTIVE"), ("reboot", "ACTIVE"), ("start", "ACTIVE")), 1):
        if command == "start":
            openstack.type("server stop box")
            wait_for(lambda: dev.servers()[0]["status"] == "SHUTOFF")
        if command:
            openstack.type(f"server {command} box")
        wait_for(lambda: console.exists() and console.read_text().split() == ["boot"] * times)  # noqa: B023
        wait_for(lambda: (dev.servers()[0]["status"], dev.servers()[0]["task"]) == (status, None))  # noqa: B023
    openstack.type("console log show box")
    assert openstack.end() == ["boot"] * 3


SWIFT = """
import json, sys
from swiftclient.shell import main
for arguments in json.loads(sys.argv[1]):
    main(["swift", *arguments])
    print("-- ", flush=True)
"""


def test_swift_uploads_lists_shows_and_downloads(dev, clients, tmp_path):
    login = yaml.safe_load(dev.clouds_yaml.read_text())["clouds"]["devcloud"]["auth"]  # it reads no clouds.yaml
    environment = {f"OS_{name.upper()}": value for name, value in {**login, "identity_api_version": "3"}.items()}
    (tmp_path / "a file").write_bytes(os.urandom(300_000))
    commands = [
        ["upload", "box", "a file"],
        ["list"],
        ["list", "box"],
        ["stat", "box", "a file"],
        ["stat", "box"],
        ["stat"],
        ["download", "box", "a file", "-o", "copy"],
        ["post", "box", "-m", "Temp-URL-Key:k"],
        ["capabilities"],
        ["delete", "box"],
        ["list"],
    ]
    ran = subprocess.run(
        [clients / "python", "-c", SWIFT, json.dumps(commands)],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8", **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    _, containers, objects, of_object, of_container, of_account, _, _, capabilities, _, left, _ = ran.stdout.split(
        "-- \n"
    )
    assert (containers, objects, left) == ("box\n", "a file\n", "")
    assert "Content Length: 300000" in of_object
    assert "Objects: 1" in of_container and "Containers: 1" in of_account
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "a file").read_bytes()
    assert "tempurl" in capabilities
