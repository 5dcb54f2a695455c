"""Servers that reach the object store through a proxy only."""

import http.server
import threading

import pytest
import requests

pytestmark = pytest.mark.needs("devcloud")


@pytest.fixture
def proxy():
    """A forward proxy on loopback; ``asked`` has what came."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def forward(self):
            server.asked.append(f"{self.command} {self.path.partition('?')[0]}")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {
                name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")
            }
            answer = requests.request(self.command, self.path, data=body, headers=headers, timeout=20)
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_PUT = forward  # noqa: N815

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_agents_fetch_and_report_through_it(shell, proxy):
    url = f"http://127.0.0.1:{proxy.server_port}"
    shell.run("ipcluster", "start", "--profile=griffin", "-n", "1", "--daemonize", f"--GriffinCloud.proxy={url}")
    shell.run("ipcluster", "stop", "--profile=griffin")
    assert [line for line in proxy.asked if line.startswith("GET ") and line.endswith("/connection.json")]
    assert [line for line in proxy.asked if line.startswith("PUT ") and "-engines" in line]


def test_one_with_a_password_is_refused_before_anything_is_made(shell):
    output = shell.run(
        "ipcluster",
        "start",
        "--profile=griffin",
        "-n",
        "1",
        "--GriffinCloud.proxy=http://ada:s3cr3t@127.0.0.1:1",
        status=1,
    )
    assert "GriffinCloud.proxy has a user name or a password in it" in output
    assert "s3cr3t" not in output
