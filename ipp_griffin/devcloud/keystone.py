"""Identity: https://docs.openstack.org/api-ref/identity/v3/"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Iterable
from dataclasses import asdict, astuple
from typing import Any

from . import object_stores
from .access_rules import AccessRule
from .api import ApiError, Call, Reply, Routes
from .things import REGION, ROLES, Credential, Project, Token, User, stable_id

routes = Routes()


def render(call: Call, error: ApiError) -> Reply:
    titles = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 409: "Conflict"}
    title = titles.get(error.status, "Error")
    # The middleware in front of Keystone, which checks access rules, has another text.
    version = "" if call.state.token(call.headers.get("X-Auth-Token", "")) else "/v3"
    headers = {"WWW-Authenticate": f'Keystone uri="{call.url}/identity{version}"'} if error.status == 401 else {}
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
        token = _authenticate(call, auth["identity"], auth.get("scope"))
    except (LookupError, TypeError, AttributeError) as error:
        raise ApiError(400, f"Expecting to find {error} in request body.") from None
    return Reply(201, _token_body(call, token), {"X-Subject-Token": token.id})


@routes("GET HEAD", "/identity/v3/auth/tokens")
def validate(call: Call) -> Reply:
    token = call.state.token(call.headers.get("X-Subject-Token", ""))
    if token is None or token.project is not call.auth.project:
        raise ApiError(404, "Could not recognize Fernet token")
    if token.rules and "OpenStack-Identity-Access-Rules" not in call.headers:
        raise ApiError(404, "Failed to validate token")  # whoever asks would not respect them
    return Reply(200, _token_body(call, token), {"X-Subject-Token": token.id})


def _authenticate(call: Call, identity: dict[str, Any], scope: dict[str, Any] | None) -> Token:
    """Return a token for the owner of these credentials. Raises `ApiError` 401, or 404 for unknown ones."""
    method = identity["methods"][0]
    given = identity[method]
    if method == "application_credential":
        credential = _credential(call, given)
        if _same(given["secret"], credential.secret):
            return call.state.login(credential.user, method, credential=credential)
    parent = call.state.token(given["id"]) if method == "token" else None
    if method == "token" and parent is None:
        raise ApiError(404, "Could not recognize Fernet token")
    for user in call.state.users:
        if method == "password":
            fits = _is_user(given["user"], user) and _same(given["user"]["password"], user.password)
        else:
            fits = parent is not None and parent.user is user
        wanted = scope["project"] if scope else None
        if fits and (wanted is None or _is_project(wanted, user.project)):
            by = parent.credential if parent else None
            return call.state.login(user, method, scoped=wanted is not None, parent=parent, credential=by)
    raise ApiError(401, "The request you have made requires authentication.")


def _credential(call: Call, given: dict[str, Any]) -> Credential:
    """Return the application credential that is named; raises `ApiError` 404 if there is none."""
    for credential in call.state.credentials:
        named = given.get("name") == credential.name and _is_user(given.get("user", {}), credential.user)
        if given.get("id") == credential.id or named:
            return credential
    raise ApiError(404, f"Could not find Application Credential: {given.get('id') or given.get('name')}.")


def _same(given: object, secret: str) -> bool:
    return hmac.compare_digest(str(given).encode(), secret.encode())


def _is_user(given: dict[str, Any], user: User) -> bool:
    return bool(given.get("id") == user.id or given.get("name") == user.name and _in_default(given))


def _is_project(scope: dict[str, Any], project: Project) -> bool:
    return bool(scope.get("id") == project.id or scope.get("name") == project.name and _in_default(scope))


def _in_default(thing: dict[str, Any]) -> bool:
    domain = thing.get("domain", {})
    return bool(domain.get("id") == "default" or domain.get("name") == "Default")


def _token_body(call: Call, token: Token) -> dict[str, Any]:
    domain = {"id": "default", "name": "Default"}
    project, user = token.project, token.user
    body: dict[str, Any] = {
        "methods": list(token.methods),
        "user": {"domain": domain, "id": user.id, "name": user.name, "password_expires_at": None},
        "audit_ids": list(token.audit_ids),
        "expires_at": _time(token.expires),
        "issued_at": _time(token.issued),
    }
    if token.scoped:
        body |= {
            "project": {"domain": domain, "id": project.id, "name": project.name},
            "is_domain": False,
            "roles": _roles(token.roles),
            "catalog": _catalog(call, project),
        }
    if credential := token.credential:
        body["application_credential"] = {"id": credential.id, "name": credential.name, "restricted": True}
        if credential.rules:
            body["application_credential"]["access_rules"] = _rules(credential)
    return {"token": body}


def _rules(credential: Credential) -> list[dict[str, str]]:
    return [
        {"id": stable_id("rule", *astuple(rule)).replace("-", ""), **asdict(rule)} for rule in credential.rules or ()
    ]


def _roles(names: Iterable[str]) -> list[dict[str, str]]:
    return [{"id": stable_id("role", name).replace("-", ""), "name": name} for name in names]


# Application credentials


@routes("POST", "/identity/v3/users/{}/application_credentials")
def make_credential(call: Call, user_id: str) -> Reply:
    """One with a role that this user has, and those that it implies: member implies reader."""
    user = _own(call, user_id)
    try:
        given = call.json()["application_credential"]
        wanted = {role["name"] for role in given.get("roles") or [{"name": name} for name in ROLES]}
        rules = None if given.get("access_rules") is None else tuple(map(AccessRule.parse, given["access_rules"]))
        name, secret = str(given["name"]), str(given.get("secret") or secrets.token_urlsafe(64))
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ApiError(400, f"Invalid input for an application credential: {error}") from None
    if not wanted <= set(ROLES):
        raise ApiError(404, f"Role {min(wanted - set(ROLES))} is not defined")
    if any(known.user is user and known.name == name for known in call.state.credentials):
        duplicate = f"Duplicate entry found with name {name}."
        raise ApiError(409, f"Conflict occurred attempting to store application_credential - {duplicate}")
    roles = ("member", "reader") if "member" in wanted else ("reader",)
    made = Credential(name, user, secret, roles, rules)
    call.state.credentials.append(made)
    body = {
        "id": made.id,
        "name": name,
        "description": given.get("description"),
        "secret": secret,
        "project_id": user.project.id,
        "user_id": user.id,
        "expires_at": None,
        "unrestricted": None,
        "system": None,
        "roles": [
            {**role, "domain_id": None, "description": None, "options": {"immutable": True}} for role in _roles(roles)
        ],
        "links": {"self": f"{call.url}/identity/v3/application_credentials/{made.id}"},
    }
    if rules:
        body["access_rules"] = _rules(made)
    return Reply(201, {"application_credential": body})


@routes("DELETE", "/identity/v3/users/{}/application_credentials/{}")
def delete_credential(call: Call, user_id: str, credential_id: str) -> Reply:
    user = _own(call, user_id)
    for credential in call.state.credentials:
        if credential.user is user and credential.id == credential_id:
            call.state.credentials.remove(credential)
            return Reply(204)
    raise ApiError(404, f"Could not find Application Credential: {credential_id}.")


def _own(call: Call, user_id: str) -> User:
    """Return the caller; raises `ApiError` 403 if that is another user, or an application credential."""
    refused = "You are not authorized to perform the requested action: "
    if call.auth.credential:
        how = "Using method 'application_credential' is not allowed for managing additional application credentials."
        raise ApiError(403, f"{refused}{how}.")
    if call.auth.user.id != user_id:
        raise ApiError(403, f"{refused}identity:create_application_credential.")
    return call.auth.user


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
            "id": stable_id("service", kind).replace("-", ""),
            "type": kind,
            "name": name,
            "endpoints": [
                {
                    "id": stable_id("endpoint", kind, interface).replace("-", ""),
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
