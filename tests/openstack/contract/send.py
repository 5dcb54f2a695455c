"""Send the requests of requests.yaml to one cloud, in order, and keep the answers as they came."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import jmespath
import requests
import yaml

FILE = Path(__file__).with_name("requests.yaml")
PREFIX = "contract-"  # of the names of all that is made
_VERSION = re.compile(r"/v\d+(\.\d+)?(/.*)?$")


class _Loader(yaml.SafeLoader):
    """``!times [x, 3]`` is "xxx", ``!numbered 2`` is {"0": "x", "1": "x"}, ``!list 2`` is ["0", "1"], ``!base64 x``."""


_Loader.add_constructor("!times", lambda loader, node: _times(*loader.construct_sequence(node)))
_Loader.add_constructor("!numbered", lambda loader, node: {str(n): "x" for n in range(int(node.value))})
_Loader.add_constructor("!list", lambda loader, node: [str(n) for n in range(int(node.value))])
_Loader.add_constructor("!base64", lambda loader, node: base64.b64encode(node.value.encode()).decode())


def _times(text: str, count: str) -> str:
    return text * int(count)


@dataclass(frozen=True)
class Step:
    """One request of the file. ``credentials``: member, none, wrong, or a sibling (tiny, app, app-reader, ...)."""

    name: str
    group: str
    method: str
    service: str
    path: str
    credentials: str = "member"
    headers: dict[str, str] = field(default_factory=dict)
    json: Any = None
    data: str | None = None
    temp_url: dict[str, Any] | None = None
    save: dict[str, str] = field(default_factory=dict)
    until: str = ""
    later: bool = False
    becomes: str = ""


@dataclass
class Answer:
    """``body`` is JSON where it is said to be and is, else text."""

    status: int
    headers: dict[str, str]
    body: Any


class ContractError(Exception):
    """The file can't be sent; the message says which step and why."""


def load(file: Path = FILE) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(file.read_text(), _Loader)
    return found


def steps(spec: dict[str, Any]) -> list[Step]:
    """All steps, in order. Raises `ContractError` where two bear the same name, or one becomes a step that is none."""
    found = [_step(group, each, spec["box"]) for group, members in spec["requests"].items() for each in members]
    names = [step.name for step in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ContractError(f"requests.yaml has two steps named {', '.join(sorted(twice))}.")
    if unknown := {step.becomes for step in found} - {"", *names}:
        raise ContractError(f"requests.yaml has no step named {', '.join(sorted(unknown))}.")
    return found


def _step(group: str, each: dict[str, Any], box: dict[str, Any]) -> Step:
    given = dict(each)
    if "box" in given:
        changed = {**box, **given.pop("box")}
        given["json"] = {"server": {name: value for name, value in changed.items() if value is not None}}
    method, service, path = given.pop("send").split(" ", 2)
    headers = dict(given.pop("headers", {}))
    if "version" in given:
        headers["OpenStack-API-Version"] = f"compute {given.pop('version')}"
    given["credentials"] = given.pop("as", "member")
    return Step(given.pop("step"), group, method, service, path, headers=headers, **given)


class Cloud:
    """One cloud, as the entry ``name`` of a clouds.yaml and its siblings, and what its answers said so far.

    ``names``: what the file calls this cloud's flavors, images and networks. ``pause``: seconds between the polls
    of a step with ``until``; ``patience``: how long it may take.
    """

    def __init__(
        self,
        name: str,
        clouds_yaml: Path,
        names: dict[str, str],
        *,
        pause: float = 0.3,
        patience: float = 90.0,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        entries = yaml.safe_load(clouds_yaml.read_text())["clouds"]
        self.entries = {
            n.removeprefix(name).lstrip("-") or "member": e for n, e in entries.items() if n.startswith(name)
        }
        self.names = names
        self.saved: dict[str, str] = {}
        self._tokens: set[str] = set()
        self._pause, self._patience, self._sleep, self._clock = pause, patience, sleep, clock
        self._http = requests.Session()
        self._http.trust_env = False
        self.logins: dict[str, dict[str, str]] = {}
        self.roots: dict[str, str] = {"identity": _VERSION.sub("", self.entries["member"]["auth"]["auth_url"])}
        self._login("member")

    def run(self, todo: list[Step]) -> Iterator[tuple[Step, Answer]]:
        """Send the steps. Raises `ContractError` where an answer lacks what a later step needs, or ``until`` fails."""
        for step in todo:
            if step.later:
                self._sleep(1.1)
            answer = self._answer(step)
            for name, where in step.save.items():
                value = jmespath.search(self._fill(where), vars(answer))
                if not isinstance(value, str):
                    raise ContractError(
                        f"{step.name}: no {where} in the answer {answer.status} {str(answer.body)[:500]}"
                    )
                self.saved[name] = value
            yield step, answer

    def clean_up(self) -> None:
        """Delete what the file's requests left, if they broke off. Raises `ContractError` for what can't be deleted."""
        deletions = []
        if "made" in self.saved:  # an application credential; gone already, if all went well
            path = f"/v3/users/{self._login('member')['user']}/application_credentials/{self.saved['made']}"
            self._ask("DELETE", "identity", path, "member")
        for who in self.entries:
            if who not in self.logins:
                continue
            listing = self._ask("GET", "compute", "/v2.1/servers", who).json()
            for server in listing.get("servers", []):
                if server["name"].startswith(PREFIX):
                    path = f"/v2.1/servers/{server['id']}"
                    self._ask("POST", "compute", f"{path}/action", who, json={"unlock": None})
                    deletions.append(self._ask("DELETE", "compute", path, who))
            account = f"/v1/AUTH_{self._login(who)['project']}"
            found = self._ask("GET", "object-store", f"{account}?format=json&prefix={PREFIX}", who)
            for container in found.json() if found.status_code == 200 else []:
                path = f"{account}/{container['name']}"
                for stored in self._ask("GET", "object-store", f"{path}?format=json", who).json():
                    self._ask("DELETE", "object-store", f"{path}/{quote(stored['name'])}", who)
                deletions.append(self._ask("DELETE", "object-store", path, who))
        if left := [f"{answer.url}: {answer.status_code}" for answer in deletions if answer.status_code >= 400]:
            raise ContractError(f"Not deleted: {', '.join(left)}")

    def _answer(self, step: Step) -> Answer:
        deadline = self._clock() + self._patience
        while True:
            answer = self._send(step)
            if not step.until or jmespath.search(self._fill(step.until), vars(answer)):
                return answer
            if self._clock() > deadline:
                raise ContractError(
                    f"{step.name}: never {step.until}; at last {answer.status} {str(answer.body)[:500]}"
                )
            self._sleep(self._pause)

    def _send(self, step: Step) -> Answer:
        self._variables = self._of(step.credentials)
        path = self._fill(step.path)
        if step.temp_url is not None:
            path += self._signature(step.temp_url)
        headers = {name: self._fill(value) for name, value in step.headers.items()}
        if token := self._token(step.credentials):
            headers["X-Auth-Token"] = token
        options: dict[str, Any] = {"json": self._fill(step.json)} if step.json is not None else {}
        if step.data is not None:
            options["data"] = self._fill(step.data).encode()
        got = self._http.request(
            step.method, self.roots[step.service] + path, headers=headers, timeout=60, allow_redirects=False, **options
        )
        self._tokens.add(got.headers.get("X-Subject-Token", ""))
        body: Any = got.text
        if "json" in got.headers.get("Content-Type", ""):
            with contextlib.suppress(ValueError):  # the first bytes of an object
                body = got.json()
        return Answer(got.status_code, {name.title(): value for name, value in got.headers.items()}, body)

    def _ask(self, method: str, service: str, path: str, who: str, **options: Any) -> requests.Response:
        headers = {"X-Auth-Token": self._login(who)["token"]}
        return self._http.request(method, self.roots[service] + path, headers=headers, timeout=60, **options)

    # Credentials

    def _token(self, who: str) -> str:
        if who in ("none", "wrong"):
            return "no-such-token" if who == "wrong" else ""
        return self._login(who)["token"]

    def _of(self, who: str) -> dict[str, str]:
        login = self._login("member" if who in ("none", "wrong") else who)
        others = {"member_project": self._login("member")["project"], "long": "x" * 256}
        return {**self.names, **self.saved, **others, **login}

    def _login(self, who: str) -> dict[str, str]:
        if who not in self.logins:
            if who not in self.entries:
                raise ContractError(f"clouds.yaml has no cloud for {who!r} beside the one that is asked for.")
            auth = self.entries[who]["auth"]
            got = self._http.post(f"{self.roots['identity']}/v3/auth/tokens", json=_credentials(auth), timeout=60)
            if got.status_code != 201:
                raise ContractError(f"Can't log in as {who}: {got.status_code} {got.text}")
            self._tokens.add(got.headers["X-Subject-Token"])
            token = got.json()["token"]
            for entry in token["catalog"]:
                urls = [e["url"] for e in entry["endpoints"] if e["interface"] == "public"]
                self.roots.setdefault(entry["type"], _VERSION.sub("", urls[0].rstrip("/")))
            self.logins[who] = {
                "token": got.headers["X-Subject-Token"],
                "project": token["project"]["id"],
                "user": token["user"]["id"],
                **{k: v for k, v in auth.items() if k in ("username", "password", "project_name")},
            }
        return self.logins[who]

    def secrets(self) -> set[str]:
        """What must never be kept in an answer."""
        auths = [entry["auth"] for entry in self.entries.values()]
        given = {auth.get(key, "") for auth in auths for key in ("password", "application_credential_secret")}
        return (given | self._tokens) - {""}

    # Variables

    def _fill(self, value: Any) -> Any:
        """``value`` with all ``{name}`` of known variables replaced."""
        if isinstance(value, dict):
            return {self._fill(key): self._fill(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._fill(each) for each in value]
        if not isinstance(value, str) or len(value) > 10_000:
            return value
        try:
            return re.sub(r"\{([a-z_0-9]+)\}", lambda m: self._variables[m[1]], value)
        except KeyError as error:
            raise ContractError(f"No earlier step saved {error}, which {value!r} needs.") from None

    def _signature(self, given: dict[str, Any]) -> str:
        """The query string of a TempURL (https://docs.openstack.org/swift/latest/api/temporary_url_middleware.html)."""
        wanted = {"method": "GET", "key": "contract-key-1", "seconds": 600, "digest": "sha256", **self._fill(given)}
        expires = int(self._clock()) + int(wanted["seconds"])
        path = wanted["path"]
        query = {}
        if "prefix" in wanted:
            query["temp_url_prefix"] = wanted["prefix"]
            path = f"prefix:{path}"
        text = f"{wanted['method']}\n{expires}\n{path}".encode()
        made = hmac.new(wanted["key"].encode(), text, getattr(hashlib, wanted["digest"]))
        signature = made.hexdigest()
        if wanted.get("base64"):
            signature = f"{wanted['digest']}:{base64.urlsafe_b64encode(made.digest()).decode()}"
        shown = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires)) if wanted.get("iso8601") else str(expires)
        query |= {"temp_url_sig": signature, "temp_url_expires": shown}
        dropped = wanted.get("without", "")
        return "?" + urlencode({name: value for name, value in query.items() if name != dropped})


def _credentials(auth: dict[str, str]) -> dict[str, Any]:
    """The body that logs in as an entry of clouds.yaml."""
    domain = {"name": auth.get("user_domain_name", "Default")}
    if "application_credential_secret" in auth:
        given: dict[str, Any] = {"secret": auth["application_credential_secret"]}
        if "application_credential_id" in auth:
            given["id"] = auth["application_credential_id"]
        else:
            given |= {"name": auth["application_credential_name"], "user": {"name": auth["username"], "domain": domain}}
        return {"auth": {"identity": {"methods": ["application_credential"], "application_credential": given}}}
    user = {"name": auth["username"], "password": auth["password"], "domain": domain}
    project = {"name": auth["project_name"], "domain": {"name": auth.get("project_domain_name", "Default")}}
    identity = {"methods": ["password"], "password": {"user": user}}
    return {"auth": {"identity": identity, "scope": {"project": project}}}
