"""Servers as processes: what their user-data sees, and that nothing of them survives."""

import base64
import gzip
import os
import subprocess
import sys
import uuid
from pathlib import Path

import psutil
import pytest

from ipp_griffin.devcloud import DevCloud, DevCloudError
from ipp_griffin.devcloud.guests import MARKER

from ..clouds import REPO
from .conftest import connect, create, script, wait_for


def guests_of(cloud_id: str) -> list[psutil.Process]:
    """The living processes that bear the cloud's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARKER, "").startswith(cloud_id) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def sleeping(seconds: str) -> list[int]:
    """The living /bin/sleep of ``seconds``."""
    return [p.pid for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"] == ["/bin/sleep", seconds]]


def console(connection, server) -> str:
    """The console log; empty while the server is in BUILD."""
    if connection.compute.get_server(server.id).status == "BUILD":
        return ""
    return connection.compute.get_server_console_output(server.id)["output"]


def test_user_data_sees_a_home_of_its_own_and_nothing_of_the_caller(dev, connection, monkeypatch):
    monkeypatch.setenv("OS_CLOUD", "secret")
    monkeypatch.setenv("IPYTHONDIR", "/nowhere")
    made = create(connection, user_data=script("env | sort; pwd; umask; echo done"))
    lines = str(wait_for(lambda: "done" in console(connection, made) and console(connection, made))).splitlines()
    home = dev.folder / "servers" / made.id / "home"
    seen = dict(line.split("=", 1) for line in lines if "=" in line)
    assert set(seen) == {"HOME", "PATH", "LANG", "PWD", MARKER}
    assert seen["HOME"] == seen["PWD"] == str(home)
    assert seen["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert home.parent.stat().st_mode & 0o777 == 0o700
    assert (home.parent / "user-data").stat().st_mode & 0o777 == 0o700
    assert connection.compute.get_server(made.id).status == "ACTIVE"  # a VM outlives its user-data


def test_gzipped_user_data_runs_with_its_interpreter(dev, connection):
    program = f"#!{sys.executable} -I\nimport sys; print('flags', sys.flags.isolated)\n".encode()
    made = create(connection, user_data=base64.b64encode(gzip.compress(program)).decode())
    wait_for(lambda: "flags 1" in console(connection, made))


@pytest.mark.parametrize(
    "program",
    [
        b"#cloud-config\n",
        b"#!/no/such/interpreter\n",
        b"\x1f\x8bnot gzip",
        gzip.compress(b"#!x", mtime=0)[:-9] + b"~" * 9,
    ],
)
def test_user_data_that_can_not_run_leaves_a_line_on_the_console(dev, connection, program):
    made = create(connection, user_data=base64.b64encode(program).decode())
    wait_for(lambda: "[devcloud]" in console(connection, made))
    assert connection.compute.get_server(made.id).status == "ACTIVE"


def test_the_console_is_cut_to_the_lines_asked_for(dev, connection):
    made = create(connection, user_data=script("seq 100"))
    wait_for(lambda: "100" in console(connection, made))
    assert (
        connection.compute.get_server_console_output(made.id, length=3)["output"] == "99\n100\n"
    )  # Nova counts the empty end as a line


HARD_TO_KILL = """
trap '' TERM HUP
sleep 1000 &
setsid sh -c 'setsid sleep 1001 & sleep 1002' &
(setsid sleep 1003 &)
env -i /bin/sleep 1004 &
echo up
wait
"""


def test_delete_kills_the_group_and_those_who_left_it(dev, connection):
    made = create(connection, user_data=script(HARD_TO_KILL))
    other = create(connection, "other", user_data=script("sleep 1005"))
    wait_for(lambda: "up" in console(connection, made) and len(guests_of(dev.id)) == 8)
    leader = dev._guests._leaders[made.id].pid
    group = [p for p in psutil.process_iter() if os.getpgid(p.pid) == leader]
    connection.compute.delete_server(made)
    wait_for(lambda: [server["name"] for server in dev.servers()] == ["other"])
    assert [p.environ()[MARKER] for p in guests_of(dev.id)] == [f"{dev.id}:{other.id}"] * 2
    assert not [p for p in group if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert not (dev.folder / "servers" / made.id).exists()


FORKS = f"""#!{sys.executable}
import subprocess, time
print("up", flush=True)
while True:
    subprocess.Popen(["/bin/sleep", "1006"], start_new_session=True, env={{}}, preexec_fn=lambda: time.sleep(0.002))
"""


def test_delete_kills_the_last_child_of_a_process_that_forks_all_the_time(dev, connection):
    """One that is in a session of its own, without the guest's environment, is known by its parent alone."""
    made = create(connection, user_data=base64.b64encode(FORKS.encode()).decode())
    wait_for(lambda: "up" in console(connection, made) and sleeping("1006"))
    connection.compute.delete_server(made)
    wait_for(lambda: dev.servers() == [])
    assert sleeping("1006") == []


def test_delete_kills_an_orphan_that_has_nothing_but_the_guests_home(dev, connection):
    made = create(connection, user_data=script('(setsid env -i HOME="$HOME" /bin/sleep 1007 &)\necho up'))
    wait_for(lambda: "up" in console(connection, made))
    assert wait_for(lambda: sleeping("1007"))
    connection.compute.delete_server(made)
    wait_for(lambda: dev.servers() == [])
    assert sleeping("1007") == []


def test_reboot_starts_the_user_data_again_in_the_same_home(dev, connection):
    made = create(connection, user_data=script("echo boot >> boots; wc -l < boots; sleep 1000"))
    wait_for(lambda: console(connection, made).split() == ["1"])
    first = guests_of(dev.id)
    connection.compute.reboot_server(made, "HARD")
    wait_for(lambda: console(connection, made).split() == ["1", "2"])
    assert not [p for p in first if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    connection.compute.stop_server(made)
    wait_for(lambda: connection.compute.get_server(made.id).status == "SHUTOFF")
    assert guests_of(dev.id) == []
    connection.compute.start_server(made)
    wait_for(lambda: console(connection, made).split() == ["1", "2", "3"])


def test_faults_silence_a_guest_or_end_it(dev, connection):
    dev.faults.set({"server": "silent", "silent": True})
    servers = {n: create(connection, n, user_data=script("sleep 1000")) for n in ("silent", "a", "b")}
    wait_for(lambda: {server["status"] for server in dev.servers()} == {"ACTIVE"})
    wait_for(lambda: len(guests_of(dev.id)) == 4)
    dev.faults.set({"server": "^a$", "vanish_after": 0}, {"server": "^b$", "shutoff_after": 0})
    wait_for(lambda: guests_of(dev.id) == [])
    wait_for(lambda: {s["name"]: s["status"] for s in dev.servers()} == {"silent": "ACTIVE", "b": "SHUTOFF"})
    assert connection.compute.find_server(servers["a"].id) is None


def test_a_fault_puts_a_command_before_the_guests_program(dev, connection):
    dev.faults.set(server="^box", under=["env", "COLOUR=blue"])
    made = create(connection, user_data=script('echo "it is $COLOUR"'))
    wait_for(lambda: "it is blue" in console(connection, made))


def test_stop_leaves_no_process_and_no_file_but_the_folders_own(tmp_path):
    with DevCloud(tmp_path / "cloud", boot_time=0) as cloud, connect(cloud) as opened:
        for number in range(3):
            create(opened, f"s{number}", user_data=script(HARD_TO_KILL))
        wait_for(lambda: len(guests_of(cloud.id)) >= 15)
        opened.compute.delete_server(next(opened.compute.servers()))
    assert guests_of(cloud.id) == []
    assert {path.name for path in cloud.folder.iterdir()} == {"id", "lock"}
    cloud.stop()


def test_stop_does_not_wait_for_a_request_that_is_held_up(tmp_path):
    with DevCloud(tmp_path / "cloud") as cloud:
        cloud.faults.set(delay=1000)
        code = f"import urllib.request; urllib.request.urlopen('{cloud.url}/identity/v3')"
        client = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        wait_for(lambda: client.poll() is None and _connected(client.pid))
    assert client.wait(60) == 1


def _connected(pid: int) -> bool:
    return any(c.status == psutil.CONN_ESTABLISHED for c in psutil.Process(pid).net_connections())


def test_a_folder_in_use_and_a_port_in_use_are_one_clear_error(dev, tmp_path):
    with pytest.raises(DevCloudError, match=f"Another dev cloud runs in {dev.folder}"):
        DevCloud(dev.folder).start()
    with pytest.raises(DevCloudError, match="Can't listen on 127.0.0.1:.*in use"):
        DevCloud(tmp_path / "second", port=int(dev.url.rsplit(":", 1)[1])).start()
    with pytest.raises(DevCloudError, match="Can't use the folder"):
        DevCloud(dev.clouds_yaml / "x").start()
    with DevCloud(tmp_path / "second"):
        pass


def test_the_interpreters_exit_ends_the_cloud(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from ipp_griffin.devcloud import DevCloud\n"
        "from tests.devcloud.conftest import *\n"
        f"cloud = DevCloud(Path({str(tmp_path)!r}), boot_time=0).start()\n"
        "create(connect(cloud), user_data=script('echo up; setsid sleep 1000 & sleep 1000'))\n"
        "wait_for(lambda: list(cloud.folder.glob('servers/*/console.log')))\n"
        "print(cloud.id)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=REPO)
    assert ran.returncode == 0, ran.stderr
    assert uuid.UUID(ran.stdout.strip()) and guests_of(ran.stdout.strip()) == []
