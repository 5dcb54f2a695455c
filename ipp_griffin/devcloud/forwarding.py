"""What a floating IP does: connections to it reach the server that it is attached to, if the server's security groups admit them.

A server is a process of this machine, which listens on ports of its own loopback address. While a floating IP is attached to a running
server, the dev cloud also listens at the floating IP on each of these ports that a rule opens, and forwards connections. It closes a
connection from an address that no rule admits, and refuses one to a port that no rule opens (a real cloud drops both, so that they time
out). Rules that admit members of a group admit nobody here, since every connection to a floating IP comes from outside. TCP over IPv4
only.

All of it happens in the event loop of the dev cloud, and nothing while no floating IP is attached.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import sys
from collections.abc import Collection, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .state import CloudState
    from .things import Server

log = logging.getLogger(__name__)
PERIOD = 0.2  # seconds between two scans of the ports that guests listen on
CHUNK = 1 << 16  # bytes that are passed on at a time
TABLE, LISTENING = Path("/proc/net/tcp"), "0A"

Rule = Mapping[str, Any]  # as Neutron has it


class Forwarding:
    """All floating IPs of one dev cloud. To be used from its event loop only."""

    def __init__(self, state: CloudState) -> None:
        self._state = state
        self._attached: dict[str, _Attached] = {}  # by the floating address
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def update(self) -> None:
        """Start forwarding if a floating IP is attached. Call it after any change that may matter."""
        if self._timer is None and not self._closed and any(f.port_id for f in self._state.floating_ips.values()):
            self._tick()

    def _tick(self) -> None:
        self._timer = None
        servers = self._running()
        for address, attached in list(self._attached.items()):
            if servers.get(address) is not attached.server:
                del self._attached[address]
                attached.close()
        ports = listening({server.address for server in servers.values()}) if servers else {}
        for address, server in servers.items():
            attached = self._attached.setdefault(address, _Attached(self._state, address, server))
            attached.listen(ports.get(server.address, ()))
        if any(floating.port_id for floating in self._state.floating_ips.values()):
            self._timer = asyncio.get_running_loop().call_later(PERIOD, self._tick)

    def _running(self) -> dict[str, Server]:
        """Return the running servers that have a floating IP, by its address."""
        servers = {s.port_id: s for s in self._state.servers.values() if s.address and s.status == "ACTIVE"}
        attached = self._state.floating_ips.values()
        return {f.address: servers[f.port_id] for f in attached if f.port_id in servers}

    async def close(self) -> None:
        """Close all connections and listening sockets, for good."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = [task for attached in self._attached.values() for task in attached.close()]
        self._attached.clear()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Attached:
    """One floating IP while it is attached to one server."""

    def __init__(self, state: CloudState, address: str, server: Server) -> None:
        self._state, self._address, self.server = state, address, server
        self._sockets: dict[int, socket.socket] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def _rules(self) -> Iterable[Rule]:
        groups = self._state.security_groups
        return [rule for id in self.server.security_groups if id in groups for rule in groups[id].rules.values()]

    def listen(self, ports: Collection[int]) -> None:
        """Listen on those of ``ports`` that a rule opens, and on no others; connections that are there stay."""
        rules = self._rules()
        wanted = {port for port in ports if any(opens(rule, port) for rule in rules)}
        for port in self._sockets.keys() - wanted:
            self._close(port)
        for port in wanted - self._sockets.keys():
            try:
                made = socket.create_server((self._address, port), backlog=128)
            except OSError as error:  # something else of this machine listens there; it may end
                log.debug("Can't listen on %s:%d: %s", self._address, port, error)
                continue
            made.setblocking(False)
            self._sockets[port] = made
            asyncio.get_running_loop().add_reader(made, partial(self._accept, made, port))

    def close(self) -> list[asyncio.Task[None]]:
        """Close everything, and return tasks that end soon."""
        for port in list(self._sockets):
            self._close(port)
        for task in self._tasks:
            task.cancel()
        return list(self._tasks)

    def _close(self, port: int) -> None:
        listening = self._sockets.pop(port)
        asyncio.get_running_loop().remove_reader(listening)
        listening.close()

    def _accept(self, listening: socket.socket, port: int) -> None:
        try:
            connection, (client, _) = listening.accept()
        except OSError as error:  # it was closed before it was accepted
            if error.errno in (errno.EMFILE, errno.ENFILE):
                self._close(port)  # until the next scan; otherwise it would be tried again and again
            return
        if not any(opens(rule, port, client) for rule in self._rules()):
            connection.close()
            return
        connection.setblocking(False)
        task = asyncio.get_running_loop().create_task(_relay(connection, self.server.address, port))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _relay(outer: socket.socket, address: str, port: int) -> None:
    """Forward bytes between ``outer`` and the guest, in both directions, until both have closed."""
    writers: list[asyncio.StreamWriter] = []
    try:
        from_client, to_client = await asyncio.open_connection(sock=outer)
        writers.append(to_client)
        from_guest, to_guest = await asyncio.open_connection(address, port)
        writers.append(to_guest)
        await asyncio.gather(_pump(from_client, to_guest), _pump(from_guest, to_client))
        for writer in writers:
            writer.close()  # which sends what is still to be sent
            await writer.wait_closed()
    except OSError:  # one of them is gone: so is the other
        pass
    finally:
        for writer in writers:
            writer.transport.abort()
        if not writers:
            outer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()


def opens(rule: Rule, port: int, client: str = "") -> bool:
    """Return whether a security group's rule admits an IPv4 address to a TCP port; without ``client``: any address. Pure."""
    if rule.get("direction") != "ingress" or rule.get("ethertype") not in (None, "IPv4"):
        return False
    if str(rule.get("protocol")).lower() not in ("none", "any", "tcp", "6", "0") or rule.get("remote_group_id"):
        return False
    first, last = rule.get("port_range_min"), rule.get("port_range_max")
    if (first is not None and port < int(first)) or (last is not None and port > int(last)):
        return False
    prefix = rule.get("remote_ip_prefix")
    return not prefix or not client or ipaddress.ip_address(client) in ipaddress.ip_network(prefix, strict=False)


def listening(addresses: Collection[str]) -> dict[str, set[int]]:
    """Return the TCP ports with a listener on exactly these IPv4 addresses of this machine; none without /proc."""
    names = {_as_in_proc(address): address for address in addresses}
    found: dict[str, set[int]] = {}
    try:
        with TABLE.open() as table:
            next(table)
            for line in table:
                _, local, _, state, _ = line.split(None, 4)
                if state != LISTENING:
                    break  # these come first, and of the others there may be many
                name, _, port = local.partition(":")
                if name in names:
                    found.setdefault(names[name], set()).add(int(port, 16))
    except (OSError, StopIteration):
        return {}
    return found


def _as_in_proc(address: str) -> str:
    return f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}"
