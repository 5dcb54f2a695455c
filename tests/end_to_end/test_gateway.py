"""A controller on a server that this machine reaches through an SSH gateway only: a real `ssh` towards a real SSH server, on loopback."""

import asyncio
import json
import os
import re
import shutil
import signal
import threading
from pathlib import Path

import asyncssh
import ipyparallel as ipp
import psutil
import pytest

from .conftest import Shell
from .test_server_controller import clusters, container, rules, suspended

START = ("ipcluster", "start", "--profile=griffin", "--controller=griffin-server", "--daemonize", "-n", "1")
STOP = ("ipcluster", "stop", "--profile=griffin")


class Gateway(asyncssh.SSHServer):
    """Lets one key in, runs commands, and forwards to wherever it is asked to, while it ``forwards``."""

    forwards = True

    def connection_requested(self, dest_host, dest_port, orig_host, orig_port):
        return self.forwards


async def run_command(process):
    """As OpenSSH does: with the addresses and ports of both ends in the environment."""
    ends = (*process.get_extra_info("peername")[:2], *process.get_extra_info("sockname")[:2])
    done = await asyncio.create_subprocess_shell(
        process.command or "true",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "SSH_CONNECTION": " ".join(map(str, ends))},
    )
    output, _ = await done.communicate()
    process.stdout.write(output.decode())
    process.exit(done.returncode)


@pytest.fixture
def gateway(tmp_path):
    """``user@host:port`` of a gateway that an `ssh` in ``tmp_path / "bin"`` gets in to without a question."""
    keys = {name: asyncssh.generate_private_key("ssh-ed25519") for name in ("host", "user")}
    for name, key in keys.items():
        key.write_private_key(str(tmp_path / name))
        (tmp_path / name).chmod(0o600)
    admitted = tmp_path / "authorized_keys"
    admitted.write_bytes(keys["user"].export_public_key())
    loop, ready, port = asyncio.new_event_loop(), threading.Event(), []

    async def serve():
        server = await asyncssh.create_server(
            Gateway,
            "127.0.0.1",
            0,
            server_host_keys=[keys["host"]],
            authorized_client_keys=str(admitted),
            process_factory=run_command,
        )
        port.append(server.get_port())
        ready.set()
        return server

    server = loop.create_task(serve())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    assert ready.wait(10)
    known = tmp_path / "known_hosts"
    known.write_bytes(f"[127.0.0.1]:{port[0]} ".encode() + keys["host"].export_public_key())
    config = tmp_path / "ssh_config"
    config.write_text(
        f"Host *\n IdentityFile {tmp_path}/user\n IdentitiesOnly yes\n UserKnownHostsFile {known}\n StrictHostKeyChecking yes\n"
    )
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n'
    )  # ssh reads the files of the user, not of HOME
    program.chmod(0o755)
    yield f"me@127.0.0.1:{port[0]}"

    async def end():
        server.result().close()
        await server.result().wait_closed()

    asyncio.run_coroutine_threadsafe(end(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def shells(shell, gateway, tmp_path):
    """A shell here, and one of another machine: both have that `ssh`."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    other = Shell(folder, shell.cloud)
    for each in (shell, other):
        each.env["PATH"] = f"{tmp_path / 'bin'}{os.pathsep}{each.env['PATH']}"
    yield shell, other
    other.close()
    assert tunnels(gateway) == []


def tunnels(gateway) -> list[int]:
    """The processes that forward through it."""
    port = gateway.rpartition(":")[2]
    found = (process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"])
    return [p.pid for p in found if Path(p.info["cmdline"][0]).name == "ssh" and port in p.info["cmdline"]]


def client_file(shell) -> Path:
    return shell.profile() / "security" / "ipcontroller-client.json"


def test_clients_here_and_elsewhere_reach_it_through_the_gateway_until_the_stop(shells, gateway):
    """CurveZMQ is on: with ipyparallel's own tunnels no task would arrive."""
    shell, elsewhere = shells
    shell.run(*START, f"--GriffinServerControllerLauncher.ssh_server={gateway}")
    info = json.loads(client_file(shell).read_text())
    assert (info["interface"], info["ssh"]) == ("tcp://127.0.0.1", "")
    with ipp.Client(str(client_file(shell))) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32]
    for _ in range(2):  # the second time, the first tunnel is replaced
        elsewhere.run("ipp-griffin", "connect", container(shell), "griffin")
        with ipp.Client(str(client_file(elsewhere))) as rc:
            assert rc[:].apply_sync(pow, 2, 5) == [32]
        assert len(tunnels(gateway)) == 2
    for path in (elsewhere.profile() / "security").glob("ipcontroller-*"):
        path.unlink()
    script = 'import ipyparallel as ipp; print(ipp.Cluster.from_file(profile="griffin").connect_client_sync().ids)'
    assert "[0]" in elsewhere.run("python", "-c", script)  # fetches the files, with another tunnel
    assert len(tunnels(gateway)) == 2
    elsewhere.run(*STOP)
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_with_security_groups_it_is_the_gateway_that_is_let_in(shells, gateway, neutron):
    shell, elsewhere = shells
    gate = f"--GriffinServerControllerLauncher.ssh_server={gateway}"
    shell.run(*START, gate, "--GriffinCloud.manage_security_group=True")
    before = rules(neutron, "-controller")
    assert {address for _, _, address, _ in before if address} == {"127.0.0.1/32"}
    elsewhere.run("ipp-griffin", "connect", "griffin")
    assert rules(neutron, "-controller") == before  # it was let in before
    shell.run(*STOP)
    elsewhere.run(*STOP)


@pytest.mark.needs("devcloud")
def test_the_controllers_own_server_is_a_gateway_whose_key_nobody_could_know(shells, gateway, tmp_path):
    """Servers of the dev cloud have no SSH server: their addresses lead to the one that is there, from which ports are forwarded all the same."""
    shell, elsewhere = shells
    (tmp_path / "known_hosts").write_text("")
    with (tmp_path / "ssh_config").open("a") as config:
        config.write(f"Host 127.80.*\n HostName 127.0.0.1\n Port {gateway.rpartition(':')[2]}\n")
    shell.run(*START, "--GriffinServerControllerLauncher.ssh_server=me@", "--GriffinCloud.key_name=griffin-key")
    elsewhere.run("ipp-griffin", "connect", "griffin")
    used = []
    for each in (shell, elsewhere):
        with ipp.Client(str(client_file(each))) as rc:
            assert rc[:].apply_sync(pow, 2, 5) == [32]
        state = each.read_json("cluster-.json")["controller"]["state"]
        used.append(psutil.Process(state["tunnels"][0][0]))
    assert all("me@127.80." in tunnel.cmdline()[-1] for tunnel in used)
    for each in (shell, elsewhere):
        each.run(*STOP)
    assert not any(tunnel.is_running() for tunnel in used)


@pytest.mark.needs("devcloud")
def test_a_connect_that_is_interrupted_leaves_no_tunnel_and_no_file(shells, gateway, eventually):
    """Ctrl-C, SIGTERM or a closed terminal, while the hub does not answer."""
    shell, elsewhere = shells
    shell.run(*START, f"--GriffinServerControllerLauncher.ssh_server={gateway}")
    before = tunnels(gateway)
    (cluster,) = clusters(shell)
    with suspended(cluster["uid"]):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            connecting = elsewhere.start("ipp-griffin", "connect", "griffin", "--timeout=60")
            eventually(lambda: len(tunnels(gateway)) == 2, "a tunnel that waits")
            connecting.send_signal(number)
            assert connecting.wait(30) == 128 + number
            assert tunnels(gateway) == before
            assert not elsewhere.profile().exists()
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_a_stop_while_it_connects_again_is_not_undone(shells, gateway, eventually):
    shell, elsewhere = shells
    shell.run(*START, f"--GriffinServerControllerLauncher.ssh_server={gateway}")
    elsewhere.run("ipp-griffin", "connect", "griffin")
    with suspended(clusters(shell)[0]["uid"]):
        again = elsewhere.start("ipp-griffin", "connect", "griffin", "--timeout=5")
        eventually(lambda: len(tunnels(gateway)) == 3, "another tunnel")
        elsewhere.run(*STOP)
        assert again.wait(90) == 1
        assert re.search("does not reach it|was stopped meanwhile", "".join(again.stdout))
    assert elsewhere.cluster_files() == []
    assert not list(elsewhere.ipython.glob("profile_*/security/*.json"))
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_after_a_tunnel_has_ended_the_cluster_opens_another(shells, gateway):
    """This machine was rebooted, or moved."""
    shell, elsewhere = shells
    shell.run(*START, f"--GriffinServerControllerLauncher.ssh_server={gateway}")
    for pid in tunnels(gateway):
        psutil.Process(pid).kill()
    script = 'import ipyparallel as ipp; print(ipp.Cluster.from_file(profile="griffin").connect_client_sync().ids)'
    assert "[0]" in shell.run("python", "-c", script)
    assert len(tunnels(gateway)) == 1
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_a_gateway_that_refuses_is_told_before_anything_is_made(shells, gateway, tmp_path):
    shell, _ = shells
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(tmp_path / "user"))
    output = shell.run(*START, f"--GriffinServerControllerLauncher.ssh_server={gateway}", status=1)
    assert f"The SSH gateway {gateway} does not let you in: me@127.0.0.1: Permission denied (publickey)." in output
    assert ("POST", "/servers") not in {(method, path[-8:]) for _, method, path, _ in shell.cloud.running.requests}


@pytest.mark.needs("devcloud")
def test_a_gateway_that_does_not_forward_is_told_by_what_ssh_says(shells, gateway, monkeypatch):
    shell, _ = shells
    monkeypatch.setattr(Gateway, "forwards", False)
    options = {"ssh_server": gateway, "reach_timeout": 1}
    output = shell.run(*START, *(f"--GriffinServerControllerLauncher.{k}={v}" for k, v in options.items()), status=1)
    assert re.search(rf"does not reach it at .* through {gateway} \(.* ssh says: .*open failed: .*\)", output)
    assert shell.cloud.left_over() == []


@pytest.mark.needs("devcloud")
def test_a_gateway_whose_key_is_not_known_is_told(shells, gateway, tmp_path):
    shell, _ = shells
    (tmp_path / "known_hosts").write_text("")
    output = shell.run(*START, f"--GriffinServerControllerLauncher.ssh_server={gateway}", status=1)
    assert "does not let you in: Host key verification failed." in output
