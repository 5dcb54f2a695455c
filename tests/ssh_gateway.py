"""A real SSH server on loopback, as gateways to clouds are, and a real `ssh` that gets in to it without a question."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import psutil


class _Server(asyncssh.SSHServer):
    """Lets one key in, while its gateway ``answers``, runs commands, and forwards to wherever it is asked to, while that ``forwards``."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def connection_made(self, conn):
        self._gateway.connections.append(conn)

    async def begin_auth(self, username):
        while not self._gateway.answers:
            await asyncio.sleep(0.02)
        return True

    def connection_requested(self, dest_host, dest_port, orig_host, orig_port):
        return self._gateway.forwards


async def _run_command(process):
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


class Gateway:
    """``name``: user@host:port; ``answers``, ``forwards``: whether it does; ``folder``: where its keys are."""

    answers = forwards = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.connections: list[asyncssh.SSHServerConnection] = []
        self._keys = {name: asyncssh.generate_private_key("ssh-ed25519") for name in ("host", "user", "stranger")}
        for name, key in self._keys.items():
            key.write_private_key(str(folder / name))
            (folder / name).chmod(0o600)
        self._admitted = folder / "authorized_keys"
        self._admitted.write_bytes(self._keys["user"].export_public_key())
        self.port = 0

    @property
    def name(self) -> str:
        return f"me@127.0.0.1:{self.port}"

    async def serve(self) -> asyncssh.SSHAcceptor:
        self._loop = asyncio.get_running_loop()
        server = await asyncssh.create_server(
            lambda: _Server(self),
            "127.0.0.1",
            0,
            server_host_keys=[self._keys["host"]],
            authorized_client_keys=str(self._admitted),
            process_factory=_run_command,
        )
        self.port = server.get_port()
        return server

    def hang_up(self) -> None:
        """End all connections, as a gateway does that is shut down."""
        for connection in self.connections:
            self._loop.call_soon_threadsafe(connection.abort)

    def path(self, *, key: str = "user", known: bool = True, config: str = "") -> str:
        """Return a PATH whose `ssh` uses that ``key``; ``known``: it also knows the gateway's host key; ``config``: more settings of the user's.

        Servers of the dev cloud have no SSH server: it finds this one at all their addresses.
        """
        folder = self.folder / f"{key}-{known}{'-more' if config else ''}"
        folder.mkdir(exist_ok=True)
        (folder / "known_hosts").write_bytes(
            f"[127.0.0.1]:{self.port} ".encode() + self._keys["host"].export_public_key() if known else b""
        )
        (folder / "config").write_text(
            f"{config}Host 127.80.*\n HostName 127.0.0.1\n Port {self.port}\n"
            f"Host *\n IdentityFile {self.folder / key}\n IdentitiesOnly yes\n"
            f" UserKnownHostsFile {folder / 'known_hosts'}\n StrictHostKeyChecking yes\n"
        )
        program = folder / "ssh"  # which reads the files of the user, not of HOME
        program.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder / "config"} "$@"\n')
        program.chmod(0o755)
        return str(folder)

    def tunnels(self) -> list[int]:
        """The processes that forward through it by its name."""
        found = (process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"])
        return [
            p.pid for p in found if Path(p.info["cmdline"][0]).name == "ssh" and str(self.port) in p.info["cmdline"]
        ]


@contextlib.contextmanager
def ssh_gateway(folder: Path) -> Iterator[Gateway]:
    """A gateway that runs, in a thread of this process."""
    gateway, loop = Gateway(folder), asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        server = asyncio.run_coroutine_threadsafe(gateway.serve(), loop).result(60)

        async def end() -> None:
            server.close()
            await server.wait_closed()

        yield gateway
        asyncio.run_coroutine_threadsafe(end(), loop).result(60)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
