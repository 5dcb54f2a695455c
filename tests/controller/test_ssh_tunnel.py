"""`ssh`: gateways, with a stand-in for the program where what it says is rare, and tunnels, with the real one towards a real SSH server."""

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from ipp_griffin.common.errors import GriffinError, SettingError
from ipp_griffin.controller import ssh_tunnel as module
from ipp_griffin.controller.ssh_tunnel import (
    PORTS,
    check_gateway,
    close_tunnel,
    is_open,
    local_end,
    open_tunnel,
    resolved,
    said,
)
from ipp_griffin.model.connection import TO_SERVER, TUNNEL

from ..ssh_gateway import ssh_gateway


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
    assert not_opened() == (
        "There is no tunnel through the SSH gateway me@gate:2222: can't run ssh: No such file or directory."
    )


def not_opened() -> str:
    """What is told of a tunnel that can't be opened, of which nothing is left."""
    info = {"interface": "tcp://10.0.0.9", "ssh": "me@gate:2222", **dict.fromkeys(PORTS, 9)}
    local = local_end(info)
    with pytest.raises(GriffinError) as raised:
        open_tunnel(info, local, 60)
    close_tunnel(local[TUNNEL])
    assert not Path(local[TUNNEL]).exists()
    return str(raised.value)


def test_a_tunnel_that_does_not_open_without_a_word_is_told(ssh):
    ssh("sys.exit(255)")
    assert not_opened() == "There is no tunnel through the SSH gateway me@gate:2222: its exit status is 255."


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


# --- a real one


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    with ssh_gateway(tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture
def folder(monkeypatch):
    """The temporary folder of whoever opens tunnels."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def through(gateway, folder, monkeypatch):
    """``through(**whose)``: the real `ssh` is used, with the files of that user; see `Gateway.path`. Nothing of a tunnel is left at the end."""
    path = os.environ["PATH"]

    def use(**whose):
        monkeypatch.setenv("PATH", f"{gateway.path(**whose)}{os.pathsep}{path}")

    use()
    yield use
    assert (gateway.tunnels(), list(folder.iterdir())) == ([], [])


@pytest.fixture
def controller():
    """What says on each of a controller's ports which one that is; ``controller(gateway)``: the clients' connection file of it."""
    with contextlib.ExitStack() as stack:
        listening = {name: stack.enter_context(socket.create_server(("127.0.0.1", 0))) for name in PORTS}

        def serve(name):
            with contextlib.suppress(OSError):  # closed: the end of the test
                while True:
                    with listening[name].accept()[0] as connection:
                        connection.sendall(name.encode())

        for name in listening:
            threading.Thread(target=serve, args=(name,), daemon=True).start()
        ports = {name: one.getsockname()[1] for name, one in listening.items()}
        yield lambda gateway: {"interface": "tcp://127.0.0.1", "ssh": gateway.name, "key": "5ecre7", **ports}
        for one in listening.values():
            one.shutdown(socket.SHUT_RDWR)


def answer_of(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        return connection.recv(100).decode()


@pytest.fixture
def tunnel(gateway, through, controller):
    """``tunnel()``: the connection file of this machine, with a tunnel that is open until the end."""
    info, opened = controller(gateway), []

    def make(**more):
        local = local_end({**info, **more})
        opened.append(local)
        open_tunnel({**info, **more}, local, 60)
        return local

    yield make
    for local in opened:
        close_tunnel(local[TUNNEL])


def test_a_tunnel_forwards_all_ports_and_is_found_and_ended_by_its_record_alone(tunnel, gateway, folder):
    local = tunnel()
    assert {name: answer_of(local[name]) for name in PORTS} == {name: name for name in PORTS}
    assert (local["interface"], local["ssh"], local[TO_SERVER]) == ("tcp://127.0.0.1", "", False)
    assert local["key"] == "5ecre7"
    assert Path(local[TUNNEL]).parent == folder
    assert stat.S_IMODE(Path(local[TUNNEL]).stat().st_mode) == 0o700
    assert is_open(local[TUNNEL])
    (pid,) = gateway.tunnels()
    assert {"ServerAliveInterval=30", "ControlPersist=no"} <= {*psutil.Process(pid).cmdline()}
    close_tunnel(local[TUNNEL])
    assert not is_open(local[TUNNEL])
    assert gateway.tunnels() == []
    close_tunnel(local[TUNNEL])


OPENS = """
import json, sys
from ipp_griffin.controller.ssh_tunnel import close_tunnel, local_end, open_tunnel
info = json.loads(sys.argv[1])
local = local_end(info)
try:
    open_tunnel(info, local, 60)
except BaseException:
    close_tunnel(local["tunnel"])
    raise
print(local["tunnel"])
"""


def test_it_outlives_whoever_opened_it_and_ends_neither_with_a_terminal_nor_keeps_a_capture_waiting(
    through, gateway, controller
):
    command = [sys.executable, "-c", OPENS, json.dumps(controller(gateway))]
    record = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    (pid,) = gateway.tunnels()
    assert os.getsid(pid) not in (os.getsid(0), 0)
    assert is_open(record)
    close_tunnel(record)


def test_each_of_two_at_once_ends_by_itself(tunnel):
    opened = []
    threads = [threading.Thread(target=lambda: opened.append(tunnel())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one, other = opened
    close_tunnel(one[TUNNEL])
    assert is_open(other[TUNNEL])
    assert answer_of(other["mux"]) == "mux"


def test_what_the_user_set_for_shared_connections_counts_for_none_of_it(tunnel, through, gateway, tmp_path):
    through(config=f"ControlMaster yes\nControlPath {tmp_path}/shared\nControlPersist 1\n")
    host = ["-p", str(gateway.port), "me@127.0.0.1"]
    subprocess.run(["ssh", "-fN", "-o", "ControlPersist=no", *host], timeout=60, check=True)
    assert (tmp_path / "shared").exists()
    local = tunnel()
    assert check_gateway(gateway.name) == "127.0.0.1"
    subprocess.run(["ssh", "-o", "ControlMaster=no", "-O", "exit", *host], timeout=60, capture_output=True, check=True)
    assert answer_of(local["mux"]) == "mux"
    assert is_open(local[TUNNEL])


def test_a_server_that_was_just_made_is_taken_as_it_is(tunnel, through):
    """Nobody could know its host key; what goes through the tunnel has keys of its own."""
    through(known=False)
    with pytest.raises(
        GriffinError, match=r"no tunnel through the SSH gateway me@127.*: Host key verification failed\."
    ):
        tunnel()
    assert answer_of(tunnel(**{TO_SERVER: True})["mux"]) == "mux"


@pytest.mark.parametrize("name", ["x" * 80, "100%", "${HOME}", "a b"])
def test_a_temporary_folder_that_has_no_room_for_a_socket_or_that_ssh_would_expand_is_not_used(
    tunnel, folder, monkeypatch, name
):
    monkeypatch.setattr(tempfile, "tempdir", f"{folder}/{name}")
    local = tunnel()
    assert Path(local[TUNNEL]).parent == Path("/tmp")
    assert is_open(local[TUNNEL])


# --- what goes wrong


def test_one_that_does_not_let_in_is_told_by_what_ssh_says(tunnel, through, gateway):
    through(key="stranger")
    with pytest.raises(
        GriffinError,
        match=rf"^There is no tunnel through the SSH gateway {gateway.name}: me@127\.0\.0\.1: Permission denied \(publickey\)\.$",
    ):
        tunnel()


def test_a_port_of_this_machine_that_was_taken_meanwhile_is_told(through, gateway, controller):
    info = controller(gateway)
    local = {**local_end(info), "mux": info["mux"]}
    with pytest.raises(GriffinError, match="no tunnel through .*: Could not request local forwarding"):
        open_tunnel(info, local, 60)
    close_tunnel(local[TUNNEL])


def test_one_that_never_answers_ends_with_the_time(through, gateway, controller, monkeypatch):
    monkeypatch.setattr(gateway, "answers", False)
    info = controller(gateway)
    local = local_end(info)
    with pytest.raises(GriffinError, match="no answer within 1 s"):
        open_tunnel(info, local, 1)
    assert gateway.tunnels() == []
    close_tunnel(local[TUNNEL])


def test_an_attempt_that_is_interrupted_leaves_nothing(through, gateway, controller, eventually, monkeypatch):
    monkeypatch.setattr(gateway, "answers", False)
    command = [sys.executable, "-c", OPENS, json.dumps(controller(gateway))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        eventually(gateway.tunnels, "an attempt")
        assert os.getsid(gateway.tunnels()[0]) != os.getsid(process.pid)  # whose terminal's Ctrl-C is not for it
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]
    assert gateway.tunnels() == []


def test_one_that_is_closed_while_it_connects_does_not_open(through, gateway, controller, eventually, monkeypatch):
    """By a stop, of this or another process: whoever opens it may be gone already. Here the gateway lets in just then."""
    monkeypatch.setattr(gateway, "answers", False)
    info, told, ask = controller(gateway), [], module._ask
    local = local_end(info)

    def attempt():
        with pytest.raises(GriffinError) as raised:
            open_tunnel(info, local, 60)
        told.append(str(raised.value))

    def then_it_lets_in(folder, what):
        obeyed = ask(folder, what)
        gateway.answers = True
        thread.join(60)
        return obeyed

    monkeypatch.setattr(module, "_ask", then_it_lets_in)
    thread = threading.Thread(target=attempt)
    thread.start()
    eventually(gateway.tunnels, "an attempt")
    close_tunnel(local[TUNNEL])
    assert len(told) == 1
    assert gateway.tunnels() == []


def test_of_one_that_was_killed_the_socket_is_left_and_another_is_opened(tunnel, gateway):
    first = tunnel()
    (pid,) = gateway.tunnels()
    os.kill(pid, signal.SIGKILL)
    assert (Path(first[TUNNEL]) / "s").exists()
    assert not is_open(first[TUNNEL])
    second = tunnel()
    close_tunnel(first[TUNNEL])
    assert not Path(first[TUNNEL]).exists()
    assert answer_of(second["mux"]) == "mux"


def test_it_ends_when_the_gateway_does(tunnel, gateway, eventually):
    record = tunnel()[TUNNEL]
    gateway.hang_up()
    eventually(lambda: not is_open(record), "the end of the tunnel")
    assert gateway.tunnels() == []


def test_one_that_does_not_forward_is_told_by_what_ssh_says(tunnel, gateway, monkeypatch, eventually):
    local = tunnel()
    monkeypatch.setattr(gateway, "forwards", False)
    assert answer_of(local["registration"]) == ""
    eventually(lambda: "open failed" in said(local[TUNNEL]), "what ssh says")
    assert is_open(local[TUNNEL])


@pytest.mark.parametrize(
    ("whose", "why"),
    [
        ({"key": "stranger"}, r"me@127\.0\.0\.1: Permission denied \(publickey\)\. See that `ssh -p \d+ me@127"),
        ({"known": False}, r"Host key verification failed\. See that"),
    ],
)
def test_one_that_refuses_or_whose_key_is_not_known_is_told_before_there_is_a_tunnel(through, gateway, whose, why):
    through(**whose)
    with pytest.raises(SettingError, match=f"The SSH gateway {gateway.name} does not let you in: {why}"):
        check_gateway(gateway.name)


# --- what is on record


def test_a_tunnel_of_an_earlier_version_is_ended_by_its_pid_and_start_time():
    with subprocess.Popen(["sleep", "60"]) as process:
        created = psutil.Process(process.pid).create_time()
        assert is_open([process.pid, created])
        assert not is_open([process.pid, created + 60])  # another process with that pid
        close_tunnel([process.pid, created + 60])
        assert process.poll() is None
        close_tunnel([process.pid, created])
    assert not is_open([process.pid, created])
    close_tunnel([process.pid, created])


@pytest.mark.parametrize("record", ["", "/nowhere", [], [1], ["a", "b"], {"a": 1}, 7, None])
def test_what_is_no_record_is_no_tunnel(record):
    assert not is_open(record)
    close_tunnel(record)


def test_a_folder_that_is_no_tunnels_stays(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "s").touch()
    close_tunnel(str(tmp_path / "mine"))
    assert (tmp_path / "mine" / "s").exists()
