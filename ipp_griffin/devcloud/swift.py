"""Object store: https://docs.openstack.org/api-ref/object-store/

It lives at ``/v1/AUTH_<project id>`` without a prefix: a TempURL's signature covers the path as requested.
"""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import replace
from email.utils import formatdate
from typing import Any
from urllib.parse import quote, unquote

from . import temp_urls
from .api import ApiError, Call, Reply, Routes
from .things import Container, Project, StoredObject

routes = Routes(public=True)  # TempURLs need no token: `_project` and `_open` check the caller
LARGEST = 100 << 20  # bytes of an object: all of them are in this process's memory
_MOST = 10000
_PAGES = {
    202: ("Accepted", "The request is accepted for processing."),
    400: ("Bad Request", "The server could not comply with the request since it is malformed or incorrect."),
    401: (
        "Unauthorized",
        "This server could not verify that you are authorized to access the document you requested.",
    ),
    403: ("Forbidden", "Access was denied to this resource."),
    404: ("Not Found", "The resource could not be found."),
    409: ("Conflict", "There was a conflict when trying to complete your request."),
    422: ("Unprocessable Entity", "Unable to process the contained instructions"),
    412: ("Precondition Failed", "A precondition for this request was not met."),
    416: ("Requested Range Not Satisfiable", "The Range requested is not available."),
}
_HTML = {"Content-Type": "text/html; charset=UTF-8"}


INVALID = "401 Unauthorized: Temp URL invalid\n"


def render(call: Call, error: ApiError) -> Reply:
    """``error.kind``: the answer's content type, where it is none of Swift's pages."""
    headers = {"Content-Type": error.kind} if error.kind else dict(_HTML)
    realm = call.path.split("/")[2:3]
    if error.message == INVALID or (error.status == 401 and not realm):  # /info is of no account
        headers["Www-Authenticate"] = 'Swift realm="unknown"'
    elif error.status == 401:
        headers["Www-Authenticate"] = f'Swift realm="{realm[0]}", Keystone uri="{call.url}/identity"'
    return Reply(error.status, error.message or _page(error.status), headers)


def _page(status: int) -> str:
    title, text = _PAGES.get(status, ("Error", "An error occurred."))
    return f"<html><h1>{title}</h1><p>{text}</p></html>"


@routes("GET", "/info")
def info(call: Call) -> Reply:
    digests = ["sha1", "sha256", "sha512"]
    methods = ["GET", "HEAD", "PUT", "POST", "DELETE"]
    limits = {"max_object_name_length": 1024, "max_container_name_length": 256, "max_meta_value_length": 256}
    limits |= {
        "max_file_size": LARGEST,
        "container_listing_limit": _MOST,
        "account_listing_limit": _MOST,
    }
    return Reply(
        200,
        {
            "swift": {"version": "2.38.3", "policies": [{"name": "Policy-0", "default": True}], **limits},
            "tempurl": {"methods": methods, "allowed_digests": digests, "deprecated_digests": ["sha1"]},
            "bulk_delete": {"max_deletes_per_request": 10000, "max_failed_deletes": 1000},
            "container_quotas": {},
        },
        {"Content-Type": "application/json; charset=UTF-8"},
    )


# Who may do it


def _project(call: Call, account: str) -> Project:
    """Return the account's project, if the token is one of it, with the role that the request needs."""
    if "temp_url_sig" in call.query:  # opens objects only
        raise ApiError(401, INVALID)
    if call.token is None:
        raise ApiError(401, "")
    needed = "reader" if call.method in ("GET", "HEAD") else "member"
    if account != f"AUTH_{call.token.project.id}" or needed not in call.token.roles or not call.token.scoped:
        raise ApiError(403, "")
    return call.token.project


def _stored(call: Call, project_id: str, name: str) -> Container | None:
    return call.state.containers.get((project_id, name))


def _container(call: Call, account: str, name: str) -> Container:
    found = _stored(call, account.removeprefix("AUTH_"), name)
    if found is None:
        raise ApiError(404, "")
    return found


# Accounts


def _account_headers(call: Call, project: Project) -> dict[str, str]:
    own = [c for (owner, _), c in call.state.containers.items() if owner == project.id]
    objects = [o for c in own for o in c.objects.values()]
    return {
        "X-Account-Container-Count": str(len(own)),
        "X-Account-Object-Count": str(len(objects)),
        "X-Account-Bytes-Used": str(sum(len(o.data) for o in objects)),
        "X-Timestamp": "1767225600.00000",
        "Accept-Ranges": "bytes",
    }


@routes("HEAD", "/v1/{}")
def account_head(call: Call, account: str) -> Reply:
    headers = _account_headers(call, _project(call, account))
    return Reply(204, None, {**headers, "Vary": "Accept"})


@routes("GET", "/v1/{}")
def account_list(call: Call, account: str) -> Reply:
    project = _project(call, account)
    rows: dict[str, dict[str, Any]] = {}
    for (owner, name), stored in call.state.containers.items():
        if owner == project.id:
            size = sum(len(o.data) for o in stored.objects.values())
            row = {"name": name, "count": len(stored.objects), "bytes": size}
            rows[name] = {**row, "last_modified": _iso(stored.created), "storage_policy": "Policy-0"}
    return _listing(call, rows, _account_headers(call, project))


@routes("POST", "/v1/{}")
def account_post(call: Call, account: str) -> Reply:
    if "bulk-delete" not in call.query:
        raise ApiError(404, f"The dev cloud has no route {call.method} {call.path} without bulk-delete")
    done, missing, errors = 0, 0, []
    for line in call.body.decode(errors="replace").splitlines():
        container, _, name = unquote(line.strip()).lstrip("/").partition("/")
        if not container:
            continue
        of_it = call.token and call.token.within_rules("object-store", "DELETE", f"/v1/{account}/{container}/{name}")
        try:
            project = _project(replace(call, token=of_it), account)
        except ApiError as error:  # each object has an answer of its own
            errors.append([line.strip(), f"{error.status} {_PAGES[error.status][0]}"])
            continue
        stored = _stored(call, project.id, container)
        if stored is None or (name and name not in stored.objects):
            missing += 1
        elif name:
            del stored.objects[name]
            done += 1
        elif stored.objects:
            errors.append([line.strip(), "409 Conflict"])
        else:
            del call.state.containers[project.id, container]
            done += 1
    body = {"Response Status": "400 Bad Request" if errors else "200 OK", "Response Body": ""}
    answer = {**body, "Number Deleted": done, "Number Not Found": missing, "Errors": errors}
    return Reply(200, answer, {"Content-Type": "application/json"})


# Containers


def _listing(call: Call, rows: dict[str, dict[str, Any]], headers: dict[str, str]) -> Reply:
    """One page of ``rows`` by name, as JSON or plain text."""
    prefix, delimiter = call.param("prefix"), call.param("delimiter")
    limit = call.number("limit", _MOST)
    if limit > _MOST:
        raise ApiError(412, f"Maximum limit is {_MOST}")
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(rows):
        if not name.startswith(prefix):
            continue
        cut = name.find(delimiter, len(prefix)) if delimiter else -1
        shown = name if cut < 0 else name[: cut + len(delimiter)]
        if shown <= call.param("marker"):
            continue
        if len(found) == limit and shown not in found:
            break
        found[shown] = rows[name] if cut < 0 else {"subdir": shown}
    if "format" not in call.query:
        headers = {**headers, "Vary": "Accept"}
    if call.param("format") == "json" or "application/json" in call.headers.get("Accept", ""):
        return Reply(200, list(found.values()), {**headers, "Content-Type": "application/json; charset=utf-8"})
    text = "".join(f"{name}\n" for name in found)
    return Reply(200 if text else 204, text, {**headers, "Content-Type": "text/plain; charset=utf-8"})


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f"{seconds % 1:.6f}"[1:]


def _container_headers(call: Call, stored: Container) -> dict[str, str]:
    """TempURL keys are only for those who may write."""
    owner = call.token is not None and "member" in call.token.roles
    return {
        "X-Container-Object-Count": str(len(stored.objects)),
        "X-Container-Bytes-Used": str(sum(len(o.data) for o in stored.objects.values())),
        "X-Timestamp": f"{stored.created:.5f}",
        "Last-Modified": formatdate(stored.created, usegmt=True),
        "X-Storage-Policy": "Policy-0",
        "Accept-Ranges": "bytes",
        **{name: value for name, value in stored.headers.items() if owner or "-Temp-Url-Key" not in name},
    }


def _check_quota(headers: Any) -> None:
    """Raises `ApiError` 400 for a quota that is no number."""
    for kind in ("Bytes", "Count"):
        value = headers.get(f"X-Container-Meta-Quota-{kind}")
        if value and not value.isdigit():
            raise ApiError(400, f"Invalid {kind.lower()} quota.")


def _check_use(call: Call, stored: Container) -> None:
    """Raises `ApiError` 413 if the container's quota does not allow the object of this request, whatever it replaces.

    As openstack/swift has it: swift/common/middleware/container_quotas.py.
    """
    size = sum(len(o.data) for o in stored.objects.values()) + len(call.body)
    for kind, use in (("Bytes", size), ("Count", len(stored.objects) + 1)):
        quota = stored.headers.get(f"X-Container-Meta-Quota-{kind}", "")
        if quota.isdigit() and int(quota) < use:
            raise ApiError(413, "Upload exceeds quota.")


def _check(headers: Any, kind: str) -> None:
    """Raises `ApiError` 400 for metadata that is too long."""
    prefix = f"x-{kind.lower()}-meta-"
    for name, value in headers.items():
        if name.lower().startswith(prefix) and len(value) > 256:
            raise ApiError(400, f"Metadata value longer than 256: {prefix}{name[len(prefix) :]}", "text/plain")


def _update(stored: dict[str, str], headers: Any, kind: str) -> None:
    """Put the request's metadata into ``stored``; an empty value, or X-Remove-, removes."""
    for name, value in headers.items():
        title = name.title()
        if title.startswith(f"X-Remove-{kind}-"):
            stored.pop(title.replace("X-Remove-", "X-", 1), None)
        elif title.startswith(f"X-{kind}-Meta-") or title in (f"X-{kind}-Read", f"X-{kind}-Write"):
            if value:
                stored[title] = value
            else:
                stored.pop(title, None)


@routes("PUT", "/v1/{}/{}")
def container_put(call: Call, account: str, name: str) -> Reply:
    project = _project(call, account)
    if len(name) > 256:
        raise ApiError(400, f"Container name length of {len(name)} longer than 256")
    _check_quota(call.headers)
    _check(call.headers, "Container")
    stored = _stored(call, project.id, name)
    status = 202 if stored else 201
    if stored is None:
        stored = call.state.containers[project.id, name] = Container(call.state.clock(), {})
    _update(stored.headers, call.headers, "Container")
    return Reply(status, _page(202) if status == 202 else None, _HTML)


@routes("POST", "/v1/{}/{}")
def container_post(call: Call, account: str, name: str) -> Reply:
    _project(call, account)
    _check_quota(call.headers)
    _check(call.headers, "Container")
    _update(_container(call, account, name).headers, call.headers, "Container")
    return Reply(204)


@routes("HEAD", "/v1/{}/{}")
def container_head(call: Call, account: str, name: str) -> Reply:
    _project(call, account)
    headers = _container_headers(call, _container(call, account, name))
    return Reply(204, None, {**headers, "Vary": "Accept"})


@routes("GET", "/v1/{}/{}")
def container_list(call: Call, account: str, name: str) -> Reply:
    _project(call, account)
    stored = _container(call, account, name)
    rows = {
        key: {
            "bytes": len(o.data),
            "hash": o.etag,
            "name": key,
            "content_type": o.content_type,
            "last_modified": _iso(o.modified),
        }
        for key, o in stored.objects.items()
    }
    return _listing(call, rows, _container_headers(call, stored))


@routes("DELETE", "/v1/{}/{}")
def container_delete(call: Call, account: str, name: str) -> Reply:
    project = _project(call, account)
    if _container(call, account, name).objects:
        raise ApiError(409, "")
    del call.state.containers[project.id, name]
    return Reply(204)


# Objects


def _open(call: Call, account: str, container: str, name: str) -> Container:
    """Return the container, if a TempURL or a token gives the caller access to this object."""
    if "temp_url_sig" in call.query or "temp_url_expires" in call.query:
        if not temp_urls.fits(call, account, container, name):
            raise ApiError(401, INVALID)
    else:
        _project(call, account)
    return _container(call, account, container)


def _object(call: Call, account: str, container: str, name: str) -> StoredObject:
    found = _open(call, account, container, name).objects.get(name)
    if found is None:
        raise ApiError(404, "")
    return found


@routes("GET HEAD", "/v1/{}/{}/{*}")
def object_get(call: Call, account: str, container: str, name: str) -> Reply:
    found = _object(call, account, container, name)
    headers = {
        "Content-Type": found.content_type,
        "Etag": found.etag,
        "Last-Modified": formatdate(found.modified, usegmt=True),
        "X-Timestamp": f"{found.modified:.5f}",
        "Accept-Ranges": "bytes",
    }
    if "temp_url_sig" in call.query:
        shown = name.rpartition("/")[2]
        headers["Expires"] = formatdate(temp_urls.expiry(call.param("temp_url_expires")) or 0, usegmt=True)
        quoted = f"filename=\"{quote(shown, safe=' ')}\"; filename*=UTF-8''{quote(shown)}"
        headers["Content-Disposition"] = f"attachment; {quoted}"
    else:
        headers |= found.headers
    if call.method == "HEAD":
        return Reply(200, None, {**headers, "Content-Length": str(len(found.data))})
    return _ranged(call.headers.get("Range", ""), found.data, headers)


def _ranged(wanted: str, data: bytes, headers: dict[str, str]) -> Reply:
    """Return the object, or the bytes that are ``wanted``: "bytes=FIRST-LAST" only."""
    match = re.fullmatch(r"bytes=(\d+)-(\d+)", wanted)
    if match is None:
        return Reply(200, data, headers)
    if int(match[1]) >= len(data):
        return Reply(416, _page(416), {**headers, "Content-Range": f"bytes */{len(data)}"})
    part = data[int(match[1]) : int(match[2]) + 1]
    found = f"bytes {match[1]}-{int(match[1]) + len(part) - 1}/{len(data)}"
    return Reply(206, part, {**headers, "Content-Range": found})


@routes("PUT", "/v1/{}/{}/{*}")
def object_put(call: Call, account: str, container: str, name: str) -> Reply:
    stored = _open(call, account, container, name)
    if call.headers.get("If-None-Match") == "*" and name in stored.objects:
        raise ApiError(412, "")
    _check_use(call, stored)
    if len(call.body) > LARGEST:
        raise ApiError(413, "Your request is too large.", "text/plain")
    if len(name.encode()) > 1024:
        raise ApiError(400, f"Object name length of {len(name)} longer than 1024", "text/plain")
    _check(call.headers, "Object")
    etag = hashlib.md5(call.body, usedforsecurity=False).hexdigest()
    now = call.state.clock()
    if call.headers.get("ETag", etag).strip('"') != etag:
        return Reply(422, _page(422), {**_HTML, "Last-Modified": formatdate(now, usegmt=True)})
    content_type = call.headers.get("Content-Type", "application/octet-stream")
    stored.objects[name] = kept = StoredObject(call.body, etag, content_type, now, {})
    _update(kept.headers, call.headers, "Object")
    return Reply(201, None, {**_HTML, "Etag": etag, "Last-Modified": formatdate(now, usegmt=True)})


@routes("DELETE", "/v1/{}/{}/{*}")
def object_delete(call: Call, account: str, container: str, name: str) -> Reply:
    _object(call, account, container, name)
    del _container(call, account, container).objects[name]
    return Reply(204)
