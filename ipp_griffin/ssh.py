"""SSH gateways to a controller: whether one lets this user in, and one tunnel for all ports that a client needs. Blocking.

ipyparallel's own tunnelling (``Client(sshserver=...)``, or "ssh" in a connection file) does not go with CurveZMQ: seen with 9.2, whose
``Client._connect`` sets no Curve keys of the sockets that it tunnels, so that no task ever arrives. So the connection file of this machine
names local ports, and one `ssh` forwards them.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from .calls import one_line
from .plan import GriffinError, SettingError

PORTS = ("registration", "control", "mux", "task", "iopub", "notification", "broadcast")  # of ipyparallel's Client


def check_gateway(ssh_server: str, timeout: int = 15) -> None:
    """Raise `SettingError` where an SSH gateway does not let this user in without a question, as tunnels need it."""
    arguments = _arguments(ssh_server, timeout)
    try:
        done = subprocess.run(
            ["ssh", *arguments, "true"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout + 5
        )
        why = _last_line(done.stderr) or f"its exit status is {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"no answer within {timeout} s"
    except OSError as e:
        why = f"can't run ssh: {e.strerror}"
    if why:
        raise SettingError(
            f"The SSH gateway {ssh_server} does not let you in: {why}. See that `ssh {shlex.join(arguments[4:])} true` works without a question."
        )


def gateway_address(ssh_server: str) -> str:
    """The IPv4 address of a gateway, as a CIDR of one. Raises `SettingError` where it has none."""
    host = ssh_server.rpartition("@")[2].partition(":")[0]
    try:
        return f"{socket.gethostbyname(host)}/32"
    except OSError as e:
        raise SettingError(
            f"The SSH gateway {host} has no address that this machine knows ({e.strerror or e}), which the controller's security group could "
            "let in: set GriffinServerControllerLauncher.client_address."
        ) from e


@dataclass(frozen=True)
class Tunnel:
    """A running `ssh`, by its pid and when that process began, which tells a reused pid; it outlives whoever opened it.

    ``info``: the content of the connection file for clients on this machine.
    """

    pid: int
    created: float
    info: Mapping[str, Any]

    def close(self) -> None:
        close_tunnel(self.pid, self.created)


def open_tunnel(info: Mapping[str, Any], *, timeout: float) -> Tunnel:
    """Forward what a client's connection file names, through the gateway in it. It ends by itself when the gateway is gone.

    Raises `GriffinError` where there is no way within ``timeout`` seconds.
    """
    there, gateway = str(info["interface"]).partition("://")[2], str(info["ssh"])
    here = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    forwards = [word for name in PORTS for word in ("-L", f"127.0.0.1:{here[name]}:{there}:{info[name]}")]
    options = ["-N", "-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=30", *forwards]
    with tempfile.TemporaryFile("w+") as said:
        try:
            process = subprocess.Popen(
                ["ssh", *options, *_arguments(gateway, max(1, int(timeout)))],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                start_new_session=True,  # Ctrl-C, and the end of the terminal, are none of its business
            )
        except OSError as e:
            raise GriffinError(f"Can't run ssh for a tunnel through {gateway}: {e.strerror}.") from e
        try:
            created = psutil.Process(process.pid).create_time()
            if not _answers(here["registration"], process, timeout):
                ended = process.poll() is not None
                said.seek(0)
                why = _last_line(said.read()) if ended else f"no answer within {timeout:.0f} s"
                raise GriffinError(f"There is no tunnel through the SSH gateway {gateway}: {why}.")
        except BaseException:
            process.kill()
            process.wait()
            raise
    process.returncode = 0  # it is left alone from now on: no ResourceWarning when this object goes
    local = {"interface": "tcp://127.0.0.1", "location": socket.gethostname(), "ssh": ""}
    return Tunnel(process.pid, created, {**info, **local, **here})


def close_tunnel(pid: int, created: float) -> None:
    """End the tunnel of that process, if it is still the one. Idempotent."""
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        if abs(process.create_time() - created) < 1:
            process.kill()
            process.wait(5)


def _answers(port: int, process: subprocess.Popen[bytes], timeout: float) -> bool:
    """Whether something listens on the port before ``process`` ends, or time is up."""
    deadline = time.monotonic() + timeout
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return True
        time.sleep(0.05)
    return False


def _arguments(ssh_server: str, timeout: int) -> list[str]:
    """For `ssh`. Raises `SettingError` for what is no gateway."""
    host, _, port = ssh_server.partition(":")
    if not host or host.startswith("-") or any(c.isspace() for c in ssh_server) or (port and not port.isdigit()):
        raise SettingError(
            f"GriffinServerControllerLauncher.ssh_server {ssh_server!r} is no gateway: give it as user@host, or user@host:port."
        )
    return ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={timeout}", *(["-p", port] if port else []), host]


def _last_line(text: str) -> str:
    return one_line(text.strip().rpartition("\n")[2]).rstrip(".")


def _free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
