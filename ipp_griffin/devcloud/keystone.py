"""Identity: https://docs.openstack.org/api-ref/identity/v3/"""

from __future__ import annotations

import hmac
import time
from typing import Any

from . import object_stores
from .api import ApiError, Call, Reply, Routes
from .state import REGION, Project, Token, stable_id

routes = Routes()


def render(call: Call, error: ApiError) -> Reply:
    titles = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found"}
    title = titles.get(error.status, "Error")
    headers = {"WWW-Authenticate": f'Keystone uri="{call.url}/identity/v3"'} if error.status == 401 else {}
    return Reply(error.status, {"error": {"code": error.status, "message": error.message, "title": title}}, headers)


def _version(call: Call) -> dict[str, Any]:
    return {
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{"rel": "self", "href": f"{call.url}/identity/v3/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


@routes("GET", "/identity", public=True)
def versions(call: Call) -> Reply:
    return Reply(300, {"versions": {"values": [_version(call)]}}, {"Location": f"{call.url}/identity/v3/"})


@routes("GET", "/identity/v3", public=True)
def version(call: Call) -> Reply:
    return Reply(200, {"version": _version(call)})


@routes("POST", "/identity/v3/auth/tokens", public=True)
def issue(call: Call) -> Reply:
    try:
        auth = call.json()["auth"]
        project, method = _authenticate(call, auth["identity"])
        scope = auth.get("scope")
        if isinstance(scope, dict) and "project" in scope and not _is_project(scope["project"], project):
            raise ApiError(401, "The request you have made requires authentication.")
    except (LookupError, TypeError, AttributeError) as error:
        raise ApiError(400, f"Invalid input: 'auth' lacks {error}.") from None
    token = call.state.login(project, method)
    return Reply(201, _token_body(call, token), {"X-Subject-Token": token.id})


@routes("GET HEAD", "/identity/v3/auth/tokens")
def validate(call: Call) -> Reply:
    token = call.state.token(call.headers.get("X-Subject-Token", ""))
    if token is None or token.project is not call.auth.project:
        raise ApiError(404, "Failed to validate token")
    return Reply(200, _token_body(call, token), {"X-Subject-Token": token.id})


def _authenticate(call: Call, identity: dict[str, Any]) -> tuple[Project, str]:
    """Whose credentials these are, and by which method. Raises `ApiError` 401."""
    method = identity["methods"][0]
    given = identity[method]
    for project in call.state.projects:
        if method == "password":
            user = given["user"]
            fits = _is_user(user, project) and _same(user["password"], project.password)
        elif method == "application_credential":
            named = given.get("id") == project.credential_id or (
                given.get("name") == project.name and _is_user(given.get("user", {}), project)
            )
            fits = named and _same(given["secret"], project.password)
        elif method == "token":
            token = call.state.token(given["id"])
            fits = token is not None and token.project is project
        else:
            fits = False
        if fits:
            return project, method
    raise ApiError(401, "The request you have made requires authentication.")


def _same(given: object, secret: str) -> bool:
    return hmac.compare_digest(str(given).encode(), secret.encode())


def _is_user(user: dict[str, Any], project: Project) -> bool:
    return bool(user.get("id") == project.user_id or user.get("name") == project.name and _in_default(user))


def _is_project(scope: dict[str, Any], project: Project) -> bool:
    return bool(scope.get("id") == project.id or scope.get("name") == project.name and _in_default(scope))


def _in_default(thing: dict[str, Any]) -> bool:
    domain = thing.get("domain", {})
    return bool(domain.get("id") == "default" or domain.get("name") == "Default")


def _token_body(call: Call, token: Token) -> dict[str, Any]:
    domain = {"id": "default", "name": "Default"}
    project = token.project
    return {
        "token": {
            "methods": [token.method],
            "user": {
                "domain": domain,
                "id": project.user_id,
                "name": project.name,
                "password_expires_at": None,
            },
            "audit_ids": [token.id[:22]],
            "expires_at": _time(token.expires),
            "issued_at": _time(token.issued),
            "project": {"domain": domain, "id": project.id, "name": project.name},
            "is_domain": False,
            "roles": [{"id": stable_id("role", "member"), "name": "member"}],
            "catalog": _catalog(call, project),
        }
    }


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(seconds))


def _catalog(call: Call, project: Project) -> list[dict[str, Any]]:
    # The object store is at the root: clients sign TempURLs over /v1/ACCOUNT/CONTAINER/OBJECT
    # (https://docs.openstack.org/swift/latest/api/temporary_url_middleware.html).
    services = {
        ("identity", "keystone"): "/identity/v3",
        ("compute", "nova"): "/compute/v2.1",
        ("image", "glance"): "/image",
        ("network", "neutron"): "/network",
        ("object-store", "swift"): object_stores.account_path(call.state.object_store, project),
    }
    return [
        {
            "id": stable_id("service", kind),
            "type": kind,
            "name": name,
            "endpoints": [
                {
                    "id": stable_id("endpoint", kind, interface),
                    "interface": interface,
                    "region_id": REGION,
                    "region": REGION,
                    "url": call.url + path,
                }
                for interface in ("public", "internal", "admin")
            ],
        }
        for (kind, name), path in services.items()
    ]
