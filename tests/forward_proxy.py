"""A forward proxy on loopback, as sites have one: it keeps what was asked of it."""

from __future__ import annotations

import contextlib
import http.server
import selectors
import socket
import threading
from collections.abc import Iterator

import requests


class ForwardProxy(http.server.ThreadingHTTPServer):
    """Passes on requests of http, and by CONNECT whole connections. ``asked``: "GET http://…" without queries, "CONNECT host:port"."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ForwardProxy

    def forward(self) -> None:
        self.server.asked.append(f"{self.command} {self.path.partition('?')[0]}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        answer = requests.request(self.command, self.path, data=body, headers=headers, timeout=20)
        self.send_response(answer.status_code)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_PUT = forward  # noqa: N815

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
