"""Requests of all services on one port: which service, latency and faults, then the answer; and ``/devcloud``."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
import uuid
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qs, unquote

from tornado.web import RequestHandler, stream_request_body

from . import floating_ips, glance, keystone, neutron, nova, nova_servers, object_stores, swift
from .api import ApiError, Call, Reply, Routes
from .faults import Fault

if TYPE_CHECKING:
    from .faults import Faults
    from .state import CloudState

log = logging.getLogger(__name__)
_Render = Callable[[Call, ApiError], Reply]
_SERVICES: dict[str, tuple[str, Routes, _Render]] = {
    "identity": ("identity", keystone.routes, keystone.render),
    "compute": ("compute", nova_servers.routes, nova.render),
    "image": ("image", glance.routes, glance.render),
    "network": ("network", floating_ips.routes, neutron.render),
    "v1": ("object-store", object_stores.routes, swift.render),
    "info": ("object-store", object_stores.routes, swift.render),
    "swift": ("object-store", object_stores.routes, swift.render),
}
_NO_SERVICE = ("none", Routes(), keystone.render)


class Cloud(Protocol):
    """What requests need of the dev cloud, see `app.DevCloud`."""

    url: str
    latency: float
    faults: Faults
    state: CloudState

    def turn(self) -> None: ...
    def note(self, service: str, method: str, path: str, status: int) -> None: ...
    def servers(self) -> list[dict[str, Any]]: ...
    def containers(self) -> list[str]: ...


@stream_request_body
class Handler(RequestHandler):
    """Turn a request into a `Call`, apply latency and faults, and answer with the `Reply`.

    Keep one byte more of a body than an object may have: enough to refuse it after all of it was read, so that the client gets the
    answer.
    """

    SUPPORTED_METHODS = (*RequestHandler.SUPPORTED_METHODS, "COPY")

    def initialize(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self._body = bytearray()

    def data_received(self, chunk: bytes) -> None:
        self._body += chunk[: swift.LARGEST + 1 - len(self._body)]

    def compute_etag(self) -> None:
        return None

    def set_default_headers(self) -> None:
        for name in ("Server", "Date", "Content-Type"):
            self.clear_header(name)

    async def _answer(self) -> None:
        cloud, request = self.cloud, self.request
        path, method = unquote(request.path), request.method or ""
        service, routes, render = _SERVICES.get(path.split("/")[1], _NO_SERVICE)
        query = parse_qs(request.query, keep_blank_values=True)
        call = Call(cloud.state, cloud.url, method, path, query, request.headers, bytes(self._body))
        if path == "/devcloud" or path.startswith("/devcloud/"):
            self._send(_control(cloud, call), {"Content-Type": "application/json"})
            return
        await asyncio.sleep(cloud.latency)
        fault = cloud.faults.for_request(service, method, path) or {}
        answers = any(key in fault for key in ("status", "body", "drop", "malformed"))
        reply = _disturbed(fault, call, render)
        if fault.get("late"):
            await asyncio.sleep(fault.get("delay", 0))
        if not answers or fault.get("after"):
            done = self._reply(call, service, routes, render)
            reply = reply if answers else done
        if not fault.get("late"):
            await asyncio.sleep(fault.get("delay", 0))
        cloud.note(service, method, path, 0 if fault.get("drop") else reply.status)
        if fault.get("drop"):
            self.detach().close()
        else:
            self._send(reply, _common_headers(service, call, reply))

    get = head = post = put = delete = patch = options = copy = _answer

    def _reply(self, call: Call, service: str, routes: Routes, render: _Render) -> Reply:
        self.cloud.turn()
        call.token = call.state.token(call.headers.get("X-Auth-Token", ""))
        if "bulk-delete" not in call.query:  # Swift asks for each object of it: `swift.account_post`
            call.token = call.token and call.token.within_rules(service, call.method, call.path)
        try:
            reply = routes.answer(call)
        except ApiError as error:
            reply = render(call, error)
        except Exception as error:
            log.exception("The dev cloud failed at %s %s", call.method, call.path)
            message = f"The dev cloud failed at {call.method} {call.path}: {type(error).__name__}: {error}"
            reply = render(call, ApiError(500, message))
        self.cloud.turn()
        return reply

    def _send(self, reply: Reply, common: dict[str, str]) -> None:
        # Of an error Swift gives no length to a HEAD.
        content = b"" if reply.status >= 400 and self.request.method == "HEAD" else reply.content()
        self.set_status(reply.status)
        for name, value in {**common, **reply.headers}.items():
            self.set_header(name, value)
        if content:
            self.write(content)


def _common_headers(service: str, call: Call, reply: Reply) -> dict[str, str]:
    """Return what every answer of a service bears."""
    if service == "object-store":
        trans_id = f"tx{uuid.uuid4().hex[:21]}-{int(time.time()):010x}"
        date = {"Date": formatdate(call.state.clock(), usegmt=True)}
        return {"X-Trans-Id": trans_id, "x-openstack-request-id": trans_id, **date}
    request_id = f"req-{uuid.uuid4()}"
    common = {"Content-Type": "application/json"}
    if service == "compute":
        return common | nova.headers(call, request_id, reply)
    if service == "identity":
        common["Vary"] = "X-Auth-Token"
    root = call.path.strip("/") in ("image", "network")
    if not root and not (service == "image" and reply.status == 401):
        common["x-openstack-request-id"] = request_id
    return common


def _disturbed(fault: Fault, call: Call, render: _Render) -> Reply:
    """Return the answer that ``fault`` asks for, in the service's own form where it gives no body."""
    status = fault.get("status", 200 if "malformed" in fault or "body" in fault else 500)
    reply = render(call, ApiError(status, "A fault of the dev cloud."))
    if fault.get("malformed"):
        reply = Reply(status, '{"not": json')
    elif "body" in fault:
        reply = Reply(status, fault["body"])
    reply.headers.update({name: str(value) for name, value in fault.get("headers", {}).items()})
    return reply


def _control(cloud: Cloud, call: Call) -> Reply:
    """``/devcloud/faults``: GET, POST (a fault or a list of them: replaces all), DELETE. ``/devcloud``: GET."""
    if call.path == "/devcloud" and call.method == "GET":
        servers = [server["name"] for server in cloud.servers()]
        return Reply(200, {"pid": os.getpid(), "servers": servers, "containers": cloud.containers()})
    if call.path != "/devcloud/faults" or call.method not in ("GET", "POST", "DELETE"):
        return Reply(404, {"error": f"The dev cloud has no route {call.method} {call.path}"})
    # A web page can't send this type to another origin without asking first.
    if call.method == "POST" and not call.headers.get("Content-Type", "").startswith("application/json"):
        return Reply(415, {"error": "Send it with Content-Type: application/json"})
    try:
        if call.method != "GET":
            given = json.loads(call.body) if call.method == "POST" else []
            cloud.faults.set(*(given if isinstance(given, list) else [given]))
    except ValueError as error:
        return Reply(400, {"error": str(error)})
    return Reply(200, {"faults": cloud.faults.snapshot()})
