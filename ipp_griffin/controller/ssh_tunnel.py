"""Open and check SSH tunnels to a controller: one for all ports that a client needs. Blocking.

ipyparallel's own tunnelling (``Client(sshserver=...)``, or "ssh" in a connection file) does not go with CurveZMQ: seen with 9.2, whose
``Client._connect`` sets no Curve keys of the sockets that it tunnels, so that no task ever arrives. So the connection file of this machine
names local ports, and one `ssh` forwards them. It runs in the background, and any process asks and ends it by its control socket.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from ..common.errors import GriffinError, SettingError
from ..common.processes import process_of
from ..common.text import one_line
from ..model.connection import TO_SERVER, TUNNEL

PORTS = ("registration", "control", "mux", "task", "iopub", "notification", "broadcast")  # of ipyparallel's Client
# Nobody could know the key of a server that was just made. Nothing rests on it: what goes through is CurveZMQ, whose keys came by another way.
_NEW_HOST = ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
FAILED = 255  # exit status: `ssh` itself has failed
ANSWER = 15  # seconds that a gateway may take to let somebody in
CONTROL = 5  # seconds that a running `ssh` may take to answer at its control socket, or to end
FOLDER = "griffin-ssh-"  # how the name of a tunnel's folder begins
SOCKET, LOG = "s", "log"  # in that folder: the control socket, and what `ssh` says

Record = str | list[float]  # by which any process finds a tunnel: its folder; of one of 0.1, see `_process_of`


def check_gateway(ssh_server: str, timeout: int = ANSWER) -> str:
    """Return the IPv4 address that a gateway has for whoever comes through it, "" if it does not say.

    Raises `SettingError` where it does not let this user in without a question, as tunnels need it.
    """
    # A connection of the user's that is shared, as ControlMaster in ssh's config has it, would hide what the gateway says now.
    arguments = _arguments(ssh_server, timeout, "ControlMaster=no", "ControlPath=none")
    printed = ""
    try:
        done = _run([*arguments, "echo $SSH_CONNECTION"], timeout + 5, capture_output=True)
        printed = done.stdout
        # Another status is that of the command, which an account that may forward ports need not be able to run.
        why = _last_line(done.stderr) or "ssh failed" if done.returncode == FAILED else ""
    except GriffinError as e:
        why = str(e)
    if why:
        port, host = arguments[-2:] if "-p" in arguments else ("", arguments[-1])
        command = shlex.join(["ssh", *(["-p", port] if port else []), host, "true"])
        raise SettingError(
            f"The SSH gateway {ssh_server} does not let you in: {why}. See that `{command}` works without a question."
        )
    words = printed.split()[-4:]  # address and port of the client, and of the gateway; a banner may come before
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


def local_end(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a client's connection file that names a gateway is on this machine: with local ports, and with the record of a tunnel.

    It can be used when `open_tunnel` has opened that. Makes the private folder of the tunnel, which `close_tunnel` removes.
    """
    # A socket's path has about 100 bytes, of which `ssh` needs 17 for a moment; % and ${ in it are expanded. The user's runtime folder would
    # not do: it is removed at a logout, which tunnels outlive.
    temporary = tempfile.gettempdir()
    parent = temporary if re.fullmatch(r"[\w./+-]{1,60}", temporary, re.ASCII) else "/tmp"
    local = {"interface": "tcp://127.0.0.1", "location": socket.gethostname(), "ssh": "", TO_SERVER: False}
    ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
    return {**info, **local, **ports, TUNNEL: tempfile.mkdtemp(prefix=FOLDER, dir=parent)}


def open_tunnel(info: Mapping[str, Any], local: Mapping[str, Any], timeout: float) -> None:
    """Forward the ports of ``local``, which `local_end` made of ``info``, through its gateway; return when that is so.

    The tunnel outlives this process, and ends by itself when the gateway is gone. Raises `GriffinError` with what `ssh` says where it does not
    forward within ``timeout`` seconds, 20 at most: `close_tunnel` is to follow then, as it is after Ctrl-C.
    """
    there, gateway, folder = str(info["interface"]).partition("://")[2], str(info["ssh"]), Path(local[TUNNEL])
    forwards = [word for name in PORTS for word in ("-L", f"127.0.0.1:{local[name]}:{there}:{info[name]}")]
    # `ssh -M -S`, whatever the user's config says.
    options = ["ControlMaster=yes", f"ControlPath={folder / SOCKET}", "ControlPersist=no"]
    options += ["ExitOnForwardFailure=yes", "ServerAliveInterval=30", *(_NEW_HOST if info.get(TO_SERVER) else ())]
    arguments = ["-f", "-N", "-E", str(folder / LOG), *forwards, *_arguments(gateway, ANSWER, *options)]
    try:
        with (folder / LOG).open("ab") as log:  # no pipe: what runs in the background would keep it open
            done = _run(arguments, min(timeout, ANSWER + 5), stdout=log, stderr=log)
        why = (said(local[TUNNEL]) or f"its exit status is {done.returncode}") if done.returncode else ""
    except (GriffinError, OSError) as e:
        why = str(e)
    if why:
        raise GriffinError(f"There is no tunnel through the SSH gateway {gateway}: {why}.")


def is_open(record: Record) -> bool:
    """Return whether the `ssh` of that tunnel lives."""
    return _process_of(record) is not None or _ask(Path(str(record)), "check")


def said(record: str) -> str:
    """Return what the `ssh` of that tunnel has said last: that the gateway does not forward, perhaps."""
    with contextlib.suppress(OSError):
        return _last_line(Path(record, LOG).read_text(encoding="utf-8", errors="replace"))
    return ""


def close_tunnel(record: Record) -> None:
    """End that tunnel, whichever process opened it, and return when it has ended. Idempotent."""
    if process := _process_of(record):
        with contextlib.suppress(psutil.Error):
            process.kill()
            process.wait(CONTROL)
    folder, deadline = Path(str(record)), time.monotonic() + CONTROL
    if not folder.name.startswith(FOLDER):
        return
    ending = folder.with_name(f"{folder.name}-")
    with contextlib.suppress(OSError):
        folder.rename(ending)  # an `ssh` that is still connecting can't put its socket there any more, and ends
    while _ask(ending, "exit") and time.monotonic() < deadline:
        pass
    shutil.rmtree(ending, ignore_errors=True)


def _process_of(record: Record) -> psutil.Process | None:
    """Return the process of a tunnel of 0.1, whose record is its pid and start time in seconds since 1970; None for any other."""
    return process_of(*record) if isinstance(record, list) and len(record) == 2 else None


def _ask(folder: Path, what: str) -> bool:
    """Return whether the `ssh` of the tunnel in that folder obeys: "check" that it lives, or "exit", which it may still be doing then."""
    with contextlib.suppress(GriffinError, OSError):
        if (folder / SOCKET).exists():  # without a config, and for no host: only the socket counts
            command = ["-F", os.devnull, "-S", str(folder / SOCKET), "-O", what, "tunnel"]
            return _run(command, CONTROL, capture_output=True).returncode == 0
    return False


def _run(arguments: list[str], timeout: float, **streams: Any) -> subprocess.CompletedProcess[str]:
    """Run `ssh` in a session of its own, which neither Ctrl-C nor the end of the terminal reaches. Raises `GriffinError` with why it can't."""
    how: dict[str, Any] = {"stdin": subprocess.DEVNULL, "text": True, "errors": "replace", "start_new_session": True}
    try:
        return subprocess.run(["ssh", *arguments], timeout=timeout, **how, **streams)
    except subprocess.TimeoutExpired:
        raise GriffinError(f"no answer within {timeout:.0f} s") from None
    except OSError as e:
        raise GriffinError(f"can't run ssh: {e.strerror}") from e


def check_name(ssh_server: str) -> str:
    """Return what is given. Raises `SettingError` for what is no gateway."""
    found = re.fullmatch(r"(?:[\w.-]+@)?[\w.-]+(?::(\d{1,5}))?", ssh_server, re.ASCII)
    if not found or ssh_server.startswith("-") or not 0 < int(found[1] or 22) < 1 << 16:
        raise SettingError(
            f"GriffinServerControllerLauncher.ssh_server {ssh_server!r} is no gateway: give it as user@host, or user@host:port."
        )
    return ssh_server


def _arguments(ssh_server: str, timeout: int, *options: str) -> list[str]:
    """Return the arguments for `ssh`. Raises `SettingError` for what is no gateway."""
    host, _, port = check_name(ssh_server).partition(":")
    options = ("BatchMode=yes", f"ConnectTimeout={timeout}", *options)
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
