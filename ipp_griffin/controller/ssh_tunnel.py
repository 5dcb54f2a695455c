"""Open and check SSH tunnels to a controller: one for all ports that a client needs. Blocking.

ipyparallel's own tunnelling (``Client(sshserver=...)``, or "ssh" in a connection file) does not go with CurveZMQ: seen with 9.2, whose
``Client._connect`` sets no Curve keys of the sockets that it tunnels, so that no task ever arrives. So the connection file of this machine
names local ports, and one `ssh` forwards them.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

import psutil

from ..common.errors import GriffinError, SettingError
from ..common.processes import process_of
from ..common.text import one_line
from ..model.connection import TO_SERVER, TUNNEL

PORTS = ("registration", "control", "mux", "task", "iopub", "notification", "broadcast")  # of ipyparallel's Client
# Nobody could know the key of a server that was just made. Nothing rests on it: what goes through is CurveZMQ, whose keys came by another way.
_NEW_HOST = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
FAILED = 255  # exit status: `ssh` itself has failed
SAID = 1 << 16  # bytes of what it says, at most
ANSWER = 15  # seconds that a gateway may take to let somebody in


def check_gateway(ssh_server: str, timeout: int = ANSWER) -> str:
    """Return the IPv4 address that a gateway has for whoever comes through it, "" if it does not say.

    Raises `SettingError` where it does not let this user in without a question, as tunnels need it.
    """
    arguments = _arguments(ssh_server, timeout)
    said = ""
    try:
        done = subprocess.run(
            ["ssh", *arguments, "echo $SSH_CONNECTION"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout + 5,
        )
        said = done.stdout
        # Another status is that of the command, which an account that may forward ports need not be able to run.
        why = _last_line(done.stderr) or "ssh failed" if done.returncode == FAILED else ""
    except subprocess.TimeoutExpired:
        why = f"no answer within {timeout} s"
    except OSError as e:
        why = f"can't run ssh: {e.strerror}"
    if why:
        port, host = arguments[-2:] if "-p" in arguments else ("", arguments[-1])
        command = shlex.join(["ssh", *(["-p", port] if port else []), host, "true"])
        raise SettingError(
            f"The SSH gateway {ssh_server} does not let you in: {why}. See that `{command}` works without a question."
        )
    words = said.split()[-4:]  # address and port of the client, and of the gateway; a banner may come before
    return words[2] if len(words) == 4 and is_ipv4(words[2]) else ""


def resolved(ssh_server: str) -> str:
    """Return the IPv4 address of a gateway by its name. Raises `SettingError` where it has none."""
    host = ssh_server.rpartition("@")[2].partition(":")[0]
    try:
        return socket.gethostbyname(host)
    except (OSError, UnicodeError) as e:
        raise SettingError(
            f"The SSH gateway {host} has no address that this machine knows ({getattr(e, 'strerror', '') or e}), which the controller's security group could "
            "let in: set GriffinServerControllerLauncher.client_address."
        ) from e


def is_ipv4(text: str) -> bool:
    try:
        return bool(ipaddress.IPv4Address(text))
    except ValueError:
        return False


@dataclass(frozen=True)
class Tunnel:
    """A running `ssh`, by its pid and when that process began, which tells a reused pid; it outlives whoever opened it.

    ``info``: the content of the connection file for clients on this machine; it can be used after `wait`.
    """

    pid: int
    created: float
    info: Mapping[str, Any] = field(repr=False)  # which has keys
    gateway: str
    _process: subprocess.Popen[bytes] = field(repr=False)
    _said: IO[str] = field(repr=False)

    @property
    def record(self) -> list[float]:
        """Return what `close_tunnel` ends it by."""
        return [self.pid, self.created]

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    @property
    def said(self) -> str:
        """Return what `ssh` has said last: that the gateway does not forward, perhaps."""
        # `ssh` writes where this process would have read to: they share the place in the file.
        return _last_line(os.pread(self._said.fileno(), SAID, 0).decode(errors="replace"))

    def wait(self, timeout: float) -> None:
        """Wait until it forwards. Raises `GriffinError` with the cause if it has ended, or does not within ``timeout`` seconds."""
        if _answers(self.info["registration"], self._process, timeout):
            return
        why = f"no answer within {timeout:.0f} s"
        if self.ended:
            why = self.said or f"its exit status is {self._process.returncode}"
        raise GriffinError(f"There is no tunnel through the SSH gateway {self.gateway}: {why}.")

    def close(self) -> None:
        """End it. Idempotent."""
        close_tunnel(self.pid, self.created)
        if self._process.returncode is None:
            self._process.wait()
        self._said.close()

    def leave(self) -> None:
        """Let the tunnel run on without this process: no ResourceWarning when this object goes."""
        self._process.returncode = 0
        self._said.close()


def open_tunnel(info: Mapping[str, Any]) -> Tunnel:
    """Begin to forward what a client's connection file names, through the gateway in it. It ends by itself when the gateway is gone.

    Raises `GriffinError` where `ssh` can't be run.
    """
    there, gateway = str(info["interface"]).partition("://")[2], str(info["ssh"])
    arguments = _arguments(gateway, ANSWER, new=bool(info.get(TO_SERVER)))
    here = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    forwards = [word for name in PORTS for word in ("-L", f"127.0.0.1:{here[name]}:{there}:{info[name]}")]
    options = ["-N", "-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=30", *forwards]
    said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - the tunnel's
    try:
        process = subprocess.Popen(
            ["ssh", *options, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,  # Ctrl-C, and the end of the terminal, are none of its business
        )
    except OSError as e:
        said.close()
        raise GriffinError(f"Can't run ssh for a tunnel through {gateway}: {e.strerror}.") from e
    created = psutil.Process(process.pid).create_time()
    local = {"interface": "tcp://127.0.0.1", "location": socket.gethostname(), "ssh": "", TO_SERVER: False}
    known = {TUNNEL: [process.pid, created]}
    return Tunnel(process.pid, created, {**info, **local, **here, **known}, gateway, process, said)


def is_open(pid: float, created: float) -> bool:
    """Return whether the process of that tunnel lives."""
    return process_of(pid, created) is not None


def close_tunnel(pid: float, created: float) -> None:
    """End the tunnel of that process, if it is still the one. Idempotent."""
    if process := process_of(pid, created):
        with contextlib.suppress(psutil.Error):
            process.kill()
            process.wait(5)


def _answers(port: int, process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Return whether something listens on the port before ``process`` ends, or time is up."""
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        time.sleep(0.05)
    return False


def check_name(ssh_server: str) -> str:
    """Return what is given. Raises `SettingError` for what is no gateway."""
    found = re.fullmatch(r"(?:[\w.-]+@)?[\w.-]+(?::(\d{1,5}))?", ssh_server, re.ASCII)
    if not found or ssh_server.startswith("-") or not 0 < int(found[1] or 22) < 1 << 16:
        raise SettingError(
            f"GriffinServerControllerLauncher.ssh_server {ssh_server!r} is no gateway: give it as user@host, or user@host:port."
        )
    return ssh_server


def _arguments(ssh_server: str, timeout: int, *, new: bool = False) -> list[str]:
    """Return the arguments for `ssh`; ``new``: to a host that was just made. Raises `SettingError` for what is no gateway."""
    host, _, port = check_name(ssh_server).partition(":")
    # A connection of the user's that is shared, as ControlMaster in ssh's config has it, would end with that, or outlive the tunnel.
    options = [
        "BatchMode=yes",
        f"ConnectTimeout={timeout}",
        "ControlMaster=no",
        "ControlPath=none",
        *(_NEW_HOST if new else ()),
    ]
    return [*(word for option in options for word in ("-o", option)), *(["-p", port] if port else []), host]


def _last_line(text: str) -> str:
    return one_line(text.strip().rpartition("\n")[2]).rstrip(".")


def _free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
