"""Made-up answers of OpenStack services for unit tests, with `responses`: nothing leaves the process."""

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import responses
from requests import PreparedRequest
from requests.exceptions import ConnectionError as Dropped

AUTH = "http://127.0.0.1:5000/v3"
COMPUTE = "http://127.0.0.1:8774/v2.1"
IMAGE = "http://127.0.0.1:9292/v2"
NETWORK = "http://127.0.0.1:9696"
STORE = "http://127.0.0.1:8080"
ACCOUNT = f"{STORE}/v1/AUTH_p1"
TOKEN = "gAAAAABtokenTOKENtokenTOKENtokenTOKENtoken"
PASSWORD = "correct-horse-battery"

Answer = tuple[int, dict[str, str], Any]


def write_clouds_yaml(folder: Path, **auth: str) -> Path:
    """A clouds.yaml with the clouds ``fake`` and ``other``; ``auth`` changes what ``fake`` logs in with."""
    details = {
        "auth_url": AUTH,
        "username": "ada",
        "password": PASSWORD,
        "project_name": "p",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    } | auth
    cloud = {"auth": {k: v for k, v in details.items() if v}, "region_name": "R1", "identity_api_version": 3}
    path = folder / "clouds.yaml"
    path.write_text(json.dumps({"clouds": {"fake": cloud, "other": cloud}}))
    return path


def serve_identity(mock: responses.RequestsMock, *, without: str = "", project: bool = True) -> None:
    """Keystone: its version, and a token for whoever asks. The catalog lacks the service type ``without``."""
    version = {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": AUTH}]}
    mock.get(AUTH, json={"version": version})
    mock.post(
        f"{AUTH}/auth/tokens", json={"token": token(without, project)}, headers={"X-Subject-Token": TOKEN}, status=201
    )


def serve_services(mock: responses.RequestsMock, *, latest: str | None = "2.96") -> None:
    """All services, empty; compute with that latest microversion."""
    version = {"id": "v2.1", "status": "CURRENT", "links": [{"rel": "self", "href": COMPUTE}]}
    if latest:
        version |= {"version": latest, "min_version": "2.1"}
    mock.get(re.compile(re.escape(COMPUTE) + "/?$"), json={"version": version})
    for url, key in (
        (f"{COMPUTE}/servers/detail", "servers"),
        (f"{COMPUTE}/flavors/detail", "flavors"),
        (f"{IMAGE}/images", "images"),
        (f"{NETWORK}/v2.0/networks", "networks"),
        (f"{NETWORK}/v2.0/subnets", "subnets"),
    ):
        mock.get(url, json={key: []})


def token(without: str = "", project: bool = True) -> dict[str, Any]:
    services = {"compute": COMPUTE, "image": IMAGE, "network": NETWORK, "object-store": ACCOUNT, "identity": AUTH}
    catalog = [
        {
            "type": kind,
            "name": kind,
            "id": kind,
            "endpoints": [{"interface": "public", "region": "R1", "region_id": "R1", "url": url, "id": kind}],
        }
        for kind, url in services.items()
        if kind != without
    ]
    scope = {"project": {"id": "p1", "name": "p", "domain": {"id": "default", "name": "Default"}}} if project else {}
    return {
        "methods": ["password"],
        "user": {"id": "u1", "name": "ada", "domain": {"id": "default", "name": "Default"}},
        "issued_at": "2026-01-01T00:00:00.000000Z",
        "expires_at": "2126-01-01T00:00:00.000000Z",
        "catalog": catalog,
        "roles": [{"id": "member", "name": "member"}],
        **scope,
    }


def regions(*names: str) -> dict[str, Any]:
    """A token whose catalog has every service in each of these regions, with internal endpoints as well."""
    content = token()
    for service in content["catalog"]:
        url = service["endpoints"][0]["url"]
        service["endpoints"] = [
            {
                "interface": interface,
                "region": name,
                "region_id": name,
                "id": name,
                "url": f"{url}{suffix}".replace("//127", f"//{name.lower()}.127"),
            }
            for name in names
            for interface, suffix in (("public", ""), ("internal", "/internal"))
        ]
    return content


def lines(mock: responses.RequestsMock, start: int = 0) -> list[str]:
    """The requests made since number ``start``, as ``METHOD path?query``."""
    return [
        f"{call.request.method} {urlsplit(call.request.url or '')._replace(scheme='', netloc='').geturl()}"
        for call in mock.calls
    ][start:]


class Nova:
    """A compute service with state. ``outcomes`` says what becomes of the next POSTs of servers; then all is well.

    An outcome: ``"ok"``; ``"lost"``: the server is made, but the connection drops before the answer;
    ``"dropped"``: it is not made, either; ``"late"``: as lost, but seen only after one listing; or an answer.
    """

    def __init__(self, mock: responses.RequestsMock, *outcomes: str | Answer) -> None:
        self.outcomes = list(outcomes)
        self.servers: dict[str, dict[str, Any]] = {}
        self.late: list[dict[str, Any]] = []
        self.posts: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.on_post: Callable[[], None] = lambda: None
        self._numbers = itertools.count(1)
        mock.add_callback(responses.POST, f"{COMPUTE}/servers", self._create)
        mock.add_callback(responses.GET, re.compile(re.escape(f"{COMPUTE}/servers/detail")), self._list)
        mock.add_callback(responses.DELETE, re.compile(re.escape(f"{COMPUTE}/servers/")), self._delete)

    def _create(self, request: PreparedRequest) -> Answer:
        self.on_post()
        wanted = json.loads(request.body or b"")["server"]
        self.posts.append(wanted)
        outcome = self.outcomes.pop(0) if self.outcomes else "ok"
        if isinstance(outcome, tuple):
            return outcome
        if outcome == "dropped":
            return 0, {}, Dropped("Remote end closed connection without response")  # type: ignore[return-value]
        number = next(self._numbers)
        server = {
            "id": f"id{number}",
            "name": wanted["name"],
            "status": "BUILD",
            "tags": wanted["tags"],
            "metadata": wanted["metadata"],
            "created": f"2026-01-01T00:00:{number:02d}Z",
            "addresses": {},
        }
        if outcome == "late":
            self.late.append(server)
        else:
            self.servers[server["id"]] = server
        if outcome != "ok":
            return 0, {}, Dropped("Remote end closed connection without response")  # type: ignore[return-value]
        return 202, {}, json.dumps({"server": {"id": server["id"], "links": [], "adminPass": "s3cr3t"}})

    def _list(self, request: PreparedRequest) -> Answer:
        wanted = set(parse_qs(urlsplit(request.url or "").query).get("tags", [""])[0].split(","))
        found = [server for server in self.servers.values() if wanted <= set(server["tags"])]
        for server in self.late:
            self.servers[server["id"]] = server
        self.late.clear()
        return 200, {}, json.dumps({"servers": found})

    def _delete(self, request: PreparedRequest) -> Answer:
        id = (request.url or "").rsplit("/", 1)[1]
        self.deleted.append(id)
        return (
            (204, {}, "")
            if self.servers.pop(id, None)
            else (404, {}, json.dumps({"itemNotFound": {"message": "gone"}}))
        )
