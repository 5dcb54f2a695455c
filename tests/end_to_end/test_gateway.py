"""A controller on a server that this machine reaches through an SSH gateway only: a real `ssh` towards a real SSH server, on loopback."""

import asyncio
import json
import os
import shutil
import threading
from pathlib import Path

import asyncssh
import ipyparallel as ipp
import psutil
import pytest

from .conftest import Shell

START = ("ipcluster", "start", "--profile=griffin", "--controller=griffin-server", "--daemonize", "-n", "1")
STOP = ("ipcluster", "stop", "--profile=griffin")


class Gateway(asyncssh.SSHServer):
    """Lets one key in, runs commands, and forwards to wherever it is asked to."""

    def connection_requested(self, dest_host, dest_port, orig_host, orig_port):
        return True


async def run_command(process):
    done = await asyncio.create_subprocess_shell(process.command or "true", stdin=asyncio.subprocess.DEVNULL)
    process.exit(await done.wait())


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


@pytest.mark.needs("devcloud")
def test_clients_here_and_elsewhere_reach_it_through_the_gateway_until_the_stop(shells, gateway):
    """CurveZMQ is on: with ipyparallel's own tunnels no task would arrive."""
    shell, elsewhere = shells
    shell.run(*START, f"--GriffinServerControllerLauncher.ssh_server={gateway}")
    info = json.loads(client_file(shell).read_text())
    assert (info["interface"], info["ssh"]) == ("tcp://127.0.0.1", "")
    with ipp.Client(str(client_file(shell))) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32]
    elsewhere.run("ipp-griffin", "connect", "griffin")
    with ipp.Client(str(client_file(elsewhere))) as rc:
        assert rc[:].apply_sync(pow, 2, 5) == [32]
    assert len(tunnels(gateway)) == 2
    elsewhere.run(*STOP)
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_a_gateway_that_refuses_is_told_before_anything_is_made(shells, gateway, tmp_path):
    shell, _ = shells
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(tmp_path / "user"))
    output = shell.run(*START, f"--GriffinServerControllerLauncher.ssh_server={gateway}", status=1)
    assert f"The SSH gateway {gateway} does not let you in: me@127.0.0.1: Permission denied (publickey)." in output
    assert ("POST", "/servers") not in {(method, path[-8:]) for _, method, path, _ in shell.cloud.running.requests}


@pytest.mark.needs("devcloud")
def test_a_gateway_whose_key_is_not_known_is_told(shells, gateway, tmp_path):
    shell, _ = shells
    (tmp_path / "known_hosts").write_text("")
    output = shell.run(*START, f"--GriffinServerControllerLauncher.ssh_server={gateway}", status=1)
    assert "does not let you in: Host key verification failed." in output
