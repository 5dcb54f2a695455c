"""What the services share: a request (`Call`), an answer (`Reply`), a table of routes, errors."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

if TYPE_CHECKING:
    from .state import CloudState
    from .things import Token


class ApiError(Exception):
    """An answer other than success. ``kind``: Neutron's error type or Nova's fault name where it matters."""

    def __init__(self, status: int, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.kind = kind


@dataclass
class Reply:
    """``body``: bytes and str go out as they are, None is empty, anything else is JSON."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def content(self) -> bytes:
        if self.body is None:
            return b""
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@dataclass
class Call:
    """One request. ``path`` is unquoted; ``url``: the cloud's own base URL; ``token``: None without a valid one."""

    state: CloudState
    url: str
    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    token: Token | None = None

    def param(self, name: str, default: str = "") -> str:
        return self.query[name][-1] if name in self.query else default

    def number(self, name: str, default: int) -> int:
        """Return a query parameter that is a count; raises `ApiError` 400 if it isn't one."""
        text = self.param(name, str(default))
        if not text.isdigit():
            raise ApiError(400, f"Invalid input for query parameters {name}. Value: {text}.")
        return int(text)

    def json(self) -> dict[str, Any]:
        try:
            value = json.loads(self.body)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ApiError(400, "Malformed request body")
        return value

    @property
    def auth(self) -> Token:
        """Return the caller's token; raises `ApiError` 401 if there is none."""
        if self.token is None:
            raise ApiError(401, "The request you have made requires authentication.")
        return self.token


Handler = Callable[..., Reply]


class Routes:
    """The routes of one service: ``{}`` in a pattern stands for one path segment, ``{*}`` for all the rest.

    A route that is not ``public`` needs a valid token. ``check`` sees every call first, and may raise `ApiError`.
    """

    def __init__(self, *, public: bool = False, check: Callable[[Call], object] = lambda call: None) -> None:
        self._check = check
        self._public = public
        self._routes: list[tuple[str, re.Pattern[str], Handler, bool]] = []

    def __call__(self, methods: str, pattern: str, *, public: bool = False) -> Callable[[Handler], Handler]:
        regex = re.escape(pattern).replace(r"\{\}", "([^/]+)").replace(r"\{\*\}", "(.+)")
        compiled = re.compile(regex if "{*}" in pattern else regex + "/?", re.DOTALL)

        def add(handler: Handler) -> Handler:
            for method in methods.split():
                self._routes.append((method, compiled, handler, public or self._public))
            return handler

        return add

    def answer(self, call: Call) -> Reply:
        """Raises `ApiError` 404 that names the route if there is none, 401 if it needs a token and has none."""
        for method, regex, handler, public in self._routes:
            if method == call.method and (match := regex.fullmatch(call.path)):
                if call.token is None and not public:
                    raise ApiError(401, "The request you have made requires authentication.")
                self._check(call)
                return handler(call, *match.groups())
        raise ApiError(404, f"The dev cloud has no route {call.method} {call.path}")


_CONTROL = {"fields", "limit", "marker", "sort_key", "sort_dir", "page_reverse"}


def fits(call: Call, body: dict[str, Any]) -> bool:
    """Return whether the query's filters let this thing through, as Glance and Neutron filter: any of several values is enough."""
    for name, values in call.query.items():
        if name in _CONTROL or name not in body:
            continue
        own = body[name] if isinstance(body[name], list) else [body[name]]
        wanted = {w for value in values for w in value.lower().removeprefix("in:").split(",")}
        parts = [f"{k}={v}" for one in own if isinstance(one, dict) for k, v in one.items()]  # of fixed_ips
        if not {str(one).lower() for one in (*own, *parts)} & wanted:
            return False
    return True


def page(call: Call, things: list[Any], key: Callable[[Any], str], most: int = 1000) -> tuple[list[Any], str]:
    """One page of ``things`` after the marker, and the query string of the next page ("" after one that is not full)."""
    limit = min(call.number("limit", most), most)
    marker = call.param("marker")
    start = 0
    if marker:
        keys = [key(thing) for thing in things]
        if marker not in keys:
            raise ApiError(400, f"marker [{marker}] not found")
        start = keys.index(marker) + 1
    part = things[start : start + limit]
    if not part or len(part) < limit:  # a full page has a next one, although that may be empty
        return part, ""
    others = [(k, v) for k, values in call.query.items() for v in values if k != "marker"]
    return part, urlencode([*others, ("marker", key(part[-1]))])
