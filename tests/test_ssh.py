"""`ssh`: gateways and tunnels, with a stand-in for the program; tests/end_to_end/test_gateway.py has the real one."""

import os
import sys

import psutil
import pytest

from ipp_griffin import ssh as module
from ipp_griffin.plan import GriffinError, SettingError
from ipp_griffin.ssh import PORTS, check_gateway, close_tunnel, gateway_address, open_tunnel

INFO = {"interface": "tcp://10.0.0.9", "ssh": "me@gate:2222", **{name: 20000 + n for n, name in enumerate(PORTS)}}
LISTENS = """
import socket, sys, time
forwards = [word for word in sys.argv if word.startswith("127.0.0.1:")]
sockets = [socket.create_server(("127.0.0.1", int(f.split(":")[1]))) for f in forwards]
time.sleep(60)
"""


@pytest.fixture
def ssh(tmp_path, monkeypatch):
    """``ssh(program)``: what runs as `ssh`, in Python; the arguments of each run are in the list that it returns."""
    program, log = tmp_path / "ssh", tmp_path / "log"
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def make(text):
        code = f"#!{sys.executable}\nimport sys\nopen({str(log)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n{text}"
        program.write_text(code)
        program.chmod(0o755)
        return lambda: log.read_text().splitlines() if log.exists() else []

    yield make
    assert [p for p in psutil.process_iter(["cmdline"]) if str(program) in (p.info["cmdline"] or ())] == []


def test_a_gateway_that_lets_in_is_asked_without_questions(ssh):
    asked = ssh("")
    check_gateway("me@gate:2222", timeout=9)
    assert asked() == ["-o BatchMode=yes -o ConnectTimeout=9 -p 2222 me@gate true"]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("print('banner\\nme@gate: Permission denied.', file=sys.stderr); sys.exit(255)", "me@gate: Permission denied"),
        ("sys.exit(1)", "its exit status is 1"),
        ("print('\\x1b[2J', file=sys.stderr); sys.exit(255)", r"\\x1b\[2J"),
    ],
)
def test_one_that_does_not_is_told_with_what_it_said_and_what_to_try(ssh, program, why):
    ssh(program)
    with pytest.raises(SettingError, match=f"does not let you in: {why}. See that `ssh me@gate true` works"):
        check_gateway("me@gate")


def test_without_ssh_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingError, match="can't run ssh: No such file or directory"):
        check_gateway("me@gate")
    with pytest.raises(GriffinError, match="Can't run ssh for a tunnel through me@gate:2222"):
        open_tunnel(INFO, timeout=1)


@pytest.mark.parametrize("name", ["", "-oProxyCommand=evil", "me@gate:http", "me@gate;evil x", ":22"])
def test_what_is_no_gateway_is_refused_before_anything_runs(ssh, name):
    asked = ssh("")
    with pytest.raises(SettingError, match="is no gateway"):
        check_gateway(name)
    assert asked() == []


def test_a_tunnel_forwards_all_ports_and_outlives_whoever_opened_it(ssh):
    asked = ssh(LISTENS)
    tunnel = open_tunnel(INFO, timeout=20)
    assert psutil.Process(tunnel.pid).is_running()
    assert tunnel.info["interface"] == "tcp://127.0.0.1"
    assert tunnel.info["ssh"] == ""
    (arguments,) = asked()
    for name in PORTS:
        assert f"-L 127.0.0.1:{tunnel.info[name]}:10.0.0.9:{INFO[name]}" in arguments
    close_tunnel(tunnel.pid, tunnel.created + 60)  # another process with that pid
    assert psutil.Process(tunnel.pid).is_running()
    tunnel.close()
    tunnel.close()
    assert not psutil.pid_exists(tunnel.pid) or psutil.Process(tunnel.pid).status() == psutil.STATUS_ZOMBIE


def test_one_that_ends_or_never_listens_is_told_and_leaves_no_process(ssh):
    ssh("print('Connection refused', file=sys.stderr); sys.exit(255)")
    with pytest.raises(GriffinError, match="no tunnel through the SSH gateway me@gate:2222: Connection refused"):
        open_tunnel(INFO, timeout=20)
    ssh("import time; time.sleep(60)")
    with pytest.raises(GriffinError, match="no answer within 1 s"):
        open_tunnel(INFO, timeout=1)


def test_the_address_of_a_gateway(monkeypatch):
    def resolve(host):
        if host != "gate":
            raise OSError("Name or service not known")
        return "192.0.2.7"

    monkeypatch.setattr(module.socket, "gethostbyname", resolve)
    assert gateway_address("me@gate:2222") == "192.0.2.7/32"
    with pytest.raises(SettingError, match="set GriffinServerControllerLauncher.client_address"):
        gateway_address("me@elsewhere")
