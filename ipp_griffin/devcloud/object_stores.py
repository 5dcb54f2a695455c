"""Object stores that aren't today's Swift: what they do otherwise, in front of the dev cloud's Swift.

``sha1``       a Swift whose operators allow no other digest
``old-swift``  a Swift before 2.12: it takes sha1, names no digests, and has no URLs of a whole prefix
``rgw``        Ceph's gateway at ``/swift/v1/AUTH_<project id>``: keys of the account only, sha1, no such URLs
``rgw-no-account``  the same at ``/swift/v1`` (``rgw_swift_account_in_url`` is false, its default)

The gateway is as its sources have it (ceph/ceph, src/rgw): rgw_swift_auth.cc, ``TempURLEngine::authenticate``;
rgw_rest_swift.cc, ``RGWInfo_ObjStore_SWIFT``, ``dump_account_metadata`` and ``RGWCreateBucket_ObjStore_SWIFT``, which
answers 202 to a PUT of what exists, as Swift does; rgw_op.cc, ``RGWPutMetadataAccount::filter_out_temp_url``.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import replace
from typing import Any

from . import swift
from .api import ApiError, Call, Reply, Routes
from .things import Project, Token

KINDS = ("swift", "sha1", "old-swift", "rgw", "rgw-no-account")
_KEYS = ("X-Account-Meta-Temp-Url-Key", "X-Account-Meta-Temp-Url-Key-2")
_GATEWAY_INFO: dict[str, Any] = {
    "bulk_delete": {},
    "container_quotas": {},
    "swift": {
        "max_file_size": swift.LARGEST,
        "container_listing_limit": 10000,
        "version": "18.2.4",
        "policies": [{"default": True, "name": "default-placement"}],
        "max_object_name_size": 1024,
        "strict_cors_mode": True,
        "max_container_name_length": 255,
    },
    "tempurl": {"methods": ["GET", "HEAD", "PUT", "POST", "DELETE"]},
    "slo": {"max_manifest_segments": 1000},
    "account_quotas": {},
    "staticweb": {},
    "tempauth": {"account_acls": True},
}


def account_path(kind: str, project: Project) -> str:
    """Return the path of the project's account in the catalog."""
    return {"rgw": f"/swift/v1/AUTH_{project.id}", "rgw-no-account": "/swift/v1"}.get(kind, f"/v1/AUTH_{project.id}")


class _ObjectStore(Routes):
    """Answers as the kind of object store does that the cloud has."""

    def answer(self, call: Call) -> Reply:
        kind = call.state.object_store
        if kind.startswith("rgw"):
            return _gateway(call)
        if kind == "swift":
            return swift.routes.answer(call)
        if "temp_url_sig" in call.query and len(call.param("temp_url_sig")) != 40:
            raise ApiError(401, swift.INVALID)
        if kind == "old-swift" and "temp_url_prefix" in call.query:
            raise ApiError(401, swift.INVALID)
        reply = swift.routes.answer(call)
        if call.path == "/info":
            reply.body["tempurl"]["allowed_digests"] = ["sha1"]
            if kind == "old-swift":
                reply.body["swift"]["version"] = "2.10.2"
                del reply.body["tempurl"]["allowed_digests"], reply.body["tempurl"]["deprecated_digests"]
        return reply


routes = _ObjectStore()


def _gateway(call: Call) -> Reply:
    if call.path == "/swift/info":
        return Reply(200, _GATEWAY_INFO)
    if not call.path.startswith("/swift/v1"):
        raise ApiError(404, f"The dev cloud has no route {call.method} {call.path}")
    account, container, name = _parts(call)
    if "temp_url_sig" in call.query or "temp_url_expires" in call.query:
        return _by_temp_url(call, container, name)
    if not account:
        if call.token is None:
            raise ApiError(401, "")
        account = f"AUTH_{call.token.project.id}"
    inner = replace(
        call, path="/".join(["/v1", account, *([container] if container else []), *([name] if name else [])])
    )
    if container:
        return swift.routes.answer(inner)
    return _account(inner, account)


def _parts(call: Call) -> tuple[str, str, str]:
    """Account ("" if URLs bear none), container and object."""
    parts = call.path.split("/", 5 if call.state.object_store == "rgw" else 4)[3:]
    if call.state.object_store != "rgw":
        parts.insert(0, "")
    account, container, name = [*parts, "", "", ""][:3]
    return account, container, name


def _account(call: Call, account: str) -> Reply:
    """Answer for an account, whose metadata has the TempURL keys."""
    keys = call.state.account_keys.setdefault(account.removeprefix("AUTH_"), {})
    if call.method == "POST" and "bulk-delete" not in call.query:
        swift.routes.answer(replace(call, method="HEAD"))  # whether the caller may read
        if "member" not in call.auth.roles:
            raise ApiError(403, "")
        for name, value in call.headers.items():
            key = name.title().replace("X-Remove-", "X-")
            if key in _KEYS and key == name.title() and value:
                keys[key] = value
            elif key in _KEYS:
                keys.pop(key, None)
        return Reply(204)
    reply = swift.routes.answer(call)
    reply.headers.update(keys)
    return reply


def _by_temp_url(call: Call, container: str, name: str) -> Reply:
    """Answer a request with a TempURL, by the keys of the account that owns the container, not of the container."""
    owners = [user for user in call.state.users if (user.project.id, container) in call.state.containers]
    expires = call.param("temp_url_expires")
    keys = call.state.account_keys.get(owners[0].project.id) if owners and name else None
    if not keys:
        raise ApiError(403, "")  # EACCES
    if not (expires.isdigit() and int(expires) > call.state.clock()):
        raise ApiError(401, "")  # EPERM
    methods = ["HEAD", "GET", "PUT"] if call.method == "HEAD" else [call.method]
    signatures = [
        hmac.new(key.encode(), f"{method}\n{expires}\n{path}".encode(), hashlib.sha1).hexdigest()
        for key in keys.values()
        for path in (call.path, call.path.removeprefix("/swift"))
        for method in methods
    ]
    if call.param("temp_url_sig") not in signatures:
        raise ApiError(403, "")  # EACCES
    now = call.state.clock()
    token = Token(secrets.token_hex(24), owners[0], ("tempurl",), now, now + 1)
    return swift.routes.answer(
        replace(call, path=f"/v1/AUTH_{token.project.id}/{container}/{name}", query={}, token=token)
    )
