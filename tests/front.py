"""What stands in front of a dev cloud, and makes its answers those of another cloud."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import requests

Change = Callable[[str, int, dict[str, Any]], tuple[int, dict[str, Any]]]
_OF_A_CONNECTION = ("content-length", "content-encoding", "transfer-encoding", "connection")


class Front(http.server.ThreadingHTTPServer):
    """Passes all on to the service at ``url``; ``change(path, status, answer)`` has its way with JSON answers.

    ``asked``: "GET /path" of each request, without queries.
    """

    daemon_threads = True

    def __init__(self, url: str, change: Change) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.change = url, change
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Front

    def forward(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
        url = self.server.behind + self.path
        answer = requests.request(self.command, url, data=body, headers=headers, timeout=60, allow_redirects=False)
        status, content = answer.status_code, answer.content
        if answer.headers.get("Content-Type", "").startswith("application/json") and content:
            status, changed = self.server.change(path, status, json.loads(content))
            content = json.dumps(changed).encode()
        self.send_response(status)
        for name, value in answer.headers.items():
            if name.lower() not in _OF_A_CONNECTION:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = forward  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        pass


@contextlib.contextmanager
def in_front_of(url: str, change: Change) -> Iterator[Front]:
    with Front(url, change) as front:
        thread = threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield front
        finally:
            front.shutdown()
            thread.join()
