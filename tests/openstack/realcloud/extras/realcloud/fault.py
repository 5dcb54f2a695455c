"""WSGI middleware that disturbs requests while the file $REALCLOUD_FAULTS exists.

The file holds a JSON list of faults as the dev cloud takes them (ipp_griffin/devcloud/faults.py), with these keys,
all optional:

  service  "compute", "identity", "image", "network", "object-store" or "placement"
  methods  only these methods
  path     only paths in which this regular expression is found
  count    how often, counted over all workers; then it is spent
  delay    seconds to wait first
  status   of the answer, instead of the service's own; with headers and body
  after    true: let the service do what was asked, and answer with `status` all the same

and, with `server`, a regular expression for names of servers: `boot_time` (seconds in BUILD), `fail_build` (why it goes
to ERROR), `silent` (true: it runs, but not its user-data).
"""

import fcntl
import http.client
import json
import os
import pathlib
import re
import time

SERVICES = {"nova": "compute", "keystone": "identity", "glance": "image", "neutron": "network", "swift": "object-store"}


def take(file, fits):
    """The first fault in force that ``fits``, or None; its count goes down."""
    try:
        with pathlib.Path(file).open("r+") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            faults = json.load(f)
            for fault in faults:
                if fault.get("count", 1) > 0 and fits(fault):
                    if "count" in fault:
                        fault["count"] -= 1
                        f.seek(0)
                        f.truncate()
                        json.dump(faults, f)
                    return fault
    except (OSError, ValueError):
        pass
    return None


def for_server(file, name, key):
    """The value of ``key`` in the first fault of this server that has it; None without one."""
    fault = take(file, lambda fault: key in fault and re.search(fault.get("server", "(?!)"), name))
    return fault and fault[key]


class FaultMiddleware:
    def __init__(self, app, service, file):
        self.app, self.file = app, file
        self.service = SERVICES.get(service, service)

    def __call__(self, environ, start_response):
        method = environ["REQUEST_METHOD"]
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        fault = take(
            self.file,
            lambda fault: (
                "server" not in fault
                and fault.get("service", self.service) == self.service
                and method in fault.get("methods", [method])
                and re.search(fault.get("path", ""), path)
            ),
        )
        if fault is None:
            return self.app(environ, start_response)
        time.sleep(fault.get("delay", 0))
        if "status" not in fault:
            return self.app(environ, start_response)
        if fault.get("after"):
            answer = self.app(environ, lambda *_: None)
            for _ in answer:
                pass
            getattr(answer, "close", lambda: None)()
        status = fault["status"]
        body = str(fault.get("body", "injected fault\n")).encode()
        headers = {"Content-Type": "text/plain", "Content-Length": str(len(body)), **fault.get("headers", {})}
        start_response(f"{status} {http.client.responses.get(status, 'Fault')}", list(headers.items()))
        return [body]


def filter_factory(global_conf, service="swift", file=None, **local_conf):
    return lambda app: FaultMiddleware(app, service, file or os.environ["REALCLOUD_FAULTS"])
