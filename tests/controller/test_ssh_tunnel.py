"""`ssh`: gateways and tunnels, with a stand-in for the program; tests/end_to_end/test_gateway.py has the real one."""

import os
import sys

import psutil
import pytest

from ipp_griffin.common.errors import GriffinError, SettingError
from ipp_griffin.controller import ssh_tunnel as module
from ipp_griffin.controller.ssh_tunnel import PORTS, check_gateway, close_tunnel, is_open, open_tunnel, resolved
from ipp_griffin.model.connection import TO_SERVER

INFO = {"interface": "tcp://10.0.0.9", "ssh": "me@gate:2222", **{name: 20000 + n for n, name in enumerate(PORTS)}}
LISTENS = """
import socket, sys, time
forwards = [word for word in sys.argv if word.startswith("127.0.0.1:")]
sockets = [socket.create_server(("127.0.0.1", int(f.split(":")[1]))) for f in forwards]
time.sleep(600)
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


def test_a_gateway_that_lets_in_is_asked_without_questions_and_without_a_shared_connection(ssh):
    asked = ssh("")
    check_gateway("me@gate:2222", timeout=9)
    options = "-o BatchMode=yes -o ConnectTimeout=9 -o ControlMaster=no -o ControlPath=none"
    assert asked() == [f"{options} -p 2222 me@gate echo $SSH_CONNECTION"]


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("198.51.100.4 55120 10.0.0.2 22", "10.0.0.2"),
        ("Welcome to the gate\n198.51.100.4 55120 10.0.0.2 22", "10.0.0.2"),
        ("2001:db8::7 55120 2001:db8::1 22", ""),
        ("$SSH_CONNECTION", ""),
        ("", ""),
        ("please be kind here", ""),
    ],
)
def test_the_address_that_it_has_for_the_cloud_is_what_it_says_of_itself(ssh, said, address):
    """Another one than its name's, where there is a floating IP in between."""
    ssh(f"print({said!r})")
    assert check_gateway("me@gate") == address


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("print('banner\\nme@gate: Permission denied.', file=sys.stderr); sys.exit(255)", "me@gate: Permission denied"),
        ("sys.exit(255)", "ssh failed"),
        ("print('\\x1b[2J', file=sys.stderr); sys.exit(255)", r"\\x1b\[2J"),
    ],
)
def test_one_that_does_not_is_told_with_what_it_said_and_what_to_try(ssh, program, why):
    ssh(program)
    with pytest.raises(
        SettingError, match=f"does not let you in: {why}. See that `ssh me@gate true` works without a question"
    ):
        check_gateway("me@gate")


def test_an_account_that_may_run_nothing_may_forward_ports_all_the_same(ssh):
    ssh("print('This account is currently not available.'); sys.exit(1)")
    assert check_gateway("me@gate") == ""


def test_without_ssh_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingError, match="can't run ssh: No such file or directory"):
        check_gateway("me@gate")
    with pytest.raises(GriffinError, match="Can't run ssh for a tunnel through me@gate:2222"):
        open_tunnel(INFO)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "@gate",
        "-oProxyCommand=evil",
        "me@gate:http",
        "me@gate;evil x",
        ":22",
        "me@g:0",
        "me@g:99999",
        "me@g:\u00b2",
        "x@$(id)",
        "a\x1b",
    ],
)
def test_what_is_no_gateway_is_refused_before_anything_runs(ssh, name):
    asked = ssh("")
    with pytest.raises(SettingError, match="is no gateway"):
        check_gateway(name)
    assert asked() == []


def test_a_tunnel_forwards_all_ports_and_outlives_whoever_opened_it(ssh):
    asked = ssh(LISTENS)
    tunnel = open_tunnel(INFO)
    tunnel.wait(60)
    tunnel.leave()
    assert psutil.Process(tunnel.pid).is_running()
    assert (tunnel.info["tunnel"], is_open(*tunnel.record)) == (tunnel.record, True)
    assert str(INFO["mux"]) not in repr(tunnel)  # nor the keys that are in it
    assert tunnel.info["interface"] == "tcp://127.0.0.1"
    assert tunnel.info["ssh"] == ""
    (arguments,) = asked()
    for name in PORTS:
        assert f"-L 127.0.0.1:{tunnel.info[name]}:10.0.0.9:{INFO[name]}" in arguments
    assert "StrictHostKeyChecking" not in arguments
    close_tunnel(tunnel.pid, tunnel.created + 60)  # another process with that pid
    assert psutil.Process(tunnel.pid).is_running()
    tunnel.close()
    tunnel.close()
    assert not is_open(*tunnel.record)
    assert not psutil.pid_exists(tunnel.pid) or psutil.Process(tunnel.pid).status() == psutil.STATUS_ZOMBIE


def test_a_server_that_was_just_made_is_taken_as_it_is(ssh):
    """Nobody could know its host key; what goes through the tunnel has keys of its own."""
    asked = ssh(LISTENS)
    tunnel = open_tunnel({**INFO, TO_SERVER: True})
    tunnel.wait(60)
    tunnel.close()
    (arguments,) = asked()
    assert "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null" in arguments
    assert not tunnel.info[TO_SERVER]


def test_one_that_ends_or_never_listens_is_told(ssh):
    ssh("print('Connection refused', file=sys.stderr); sys.exit(255)")
    tunnel = open_tunnel(INFO)
    with pytest.raises(GriffinError, match="no tunnel through the SSH gateway me@gate:2222: Connection refused"):
        tunnel.wait(60)
    assert tunnel.ended
    tunnel.close()
    ssh("import time; time.sleep(600)")
    tunnel = open_tunnel(INFO)
    with pytest.raises(GriffinError, match="no answer within 1 s"):
        tunnel.wait(1)
    assert not tunnel.ended
    tunnel.close()


def test_the_address_of_a_gateways_name(monkeypatch):
    def resolve(host):
        if host != "gate":
            raise OSError("Name or service not known")
        return "192.0.2.7"

    monkeypatch.setattr(module.socket, "gethostbyname", resolve)
    assert resolved("me@gate:2222") == "192.0.2.7"
    with pytest.raises(SettingError, match="set GriffinServerControllerLauncher.client_address"):
        resolved("me@elsewhere")


def test_a_name_that_can_not_be_one_has_no_address():
    with pytest.raises(SettingError, match="has no address"):
        resolved("me@a..b")
