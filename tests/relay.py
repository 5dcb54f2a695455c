"""A relay on loopback: a forward proxy, as sites have one, or what stands in front of a service and changes its answers."""

from __future__ import annotations

import contextlib
import http.server
import json
import selectors
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests

Change = Callable[[str, int, dict[str, Any]], tuple[int, dict[str, Any]]]
_OF_A_CONNECTION = ("connection", "keep-alive", "transfer-encoding", "content-encoding", "content-length")


@dataclass(frozen=True)
class Exchange:
    """One request of http and its answer. Names of headers are in lower case."""

    method: str
    url: str
    sent: Mapping[str, str]
    body: bytes
    status: int
    received: Mapping[str, str]


def unchanged(path: str, status: int, answer: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return status, answer


class Relay(http.server.ThreadingHTTPServer):
    """Passes requests of http on to the service at ``behind``; without one it is a forward proxy, and by CONNECT passes on whole connections.

    ``change(path, status, answer)`` has its way with JSON answers. ``asked``: "GET /path", "GET http://…", without queries, or
    "CONNECT host:port"; ``exchanges``: those of http, with all that is in them.
    """

    daemon_threads = True

    def __init__(self, behind: str = "", change: Change = unchanged) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.change = behind, change
        self.asked: list[str] = []
        self.exchanges: list[Exchange] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Relay:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Relay

    def forward(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        url = self.server.behind + self.path
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(self.command, url, data=body, headers=headers, timeout=60, allow_redirects=False)
        status, content = answer.status_code, answer.content
        if answer.headers.get("Content-Type", "").startswith("application/json") and content:
            status, changed = self.server.change(path, status, answer.json())
            content = json.dumps(changed).encode()
        sent = {name.lower(): value for name, value in headers.items()}
        received = {name.lower(): value for name, value in answer.headers.items()}
        self.server.exchanges.append(Exchange(self.command, self.path, sent, body, status, received))
        self.send_response_only(status)
        for name, value in received.items():
            if name not in _OF_A_CONNECTION:
                self.send_header(name, value)
        length = received.get("content-length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815

    def do_CONNECT(self) -> None:  # noqa: N802
        self.server.asked.append(f"CONNECT {self.path}")
        host, _, port = self.path.rpartition(":")
        self.close_connection = True
        with socket.create_connection((host, int(port)), timeout=20) as there:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                _join(self.connection, there)

    def log_message(self, *arguments: object) -> None:
        pass


def _join(one: socket.socket, other: socket.socket) -> None:
    """Pass on what either says until one has no more to say."""
    with selectors.DefaultSelector() as ready:
        ready.register(one, selectors.EVENT_READ, other)
        ready.register(other, selectors.EVENT_READ, one)
        while found := ready.select(20):
            for key, _ in found:
                data = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                if not data:
                    return
                key.data.sendall(data)
