"""A forward proxy on loopback, as sites have one: it keeps what was asked of it."""

from __future__ import annotations

import contextlib
import http.server
import selectors
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import requests

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


class ForwardProxy(http.server.ThreadingHTTPServer):
    """Passes on requests of http, and by CONNECT whole connections. ``asked``: "GET http://…" without queries, "CONNECT host:port";
    ``exchanges``: those of http, with all that is in them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.exchanges: list[Exchange] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ForwardProxy

    def forward(self) -> None:
        self.server.asked.append(f"{self.command} {self.path.partition('?')[0]}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        with requests.Session() as session:
            session.trust_env = False
            answer = session.request(
                self.command, self.path, data=body, headers=headers, timeout=60, allow_redirects=False
            )
        received = {name.lower(): value for name, value in answer.headers.items()}
        sent = {name.lower(): value for name, value in headers.items()}
        self.server.exchanges.append(Exchange(self.command, self.path, sent, body, answer.status_code, received))
        self.send_response_only(answer.status_code)
        for name, value in received.items():
            if name not in _OF_A_CONNECTION:
                self.send_header(name, value)
        length = received.get("content-length", "0") if self.command == "HEAD" else str(len(answer.content))
        self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(answer.content)

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


@contextlib.contextmanager
def forward_proxy() -> Iterator[ForwardProxy]:
    with ForwardProxy() as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.shutdown()
            thread.join()
