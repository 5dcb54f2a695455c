"""Make the answers of two clouds comparable, and compare them field by field.

What differs in every cloud (ids, times, its own URL, the names of its flavors) becomes a word like ``<uuid>``; the
rules that are particular, each with its reason, are in requests.yaml: ``ignored_headers``, ``lists``, ``not_compared``,
``changing`` and ``left_out``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from .send import Answer, Cloud, Step

_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_GENERAL = [  # (what it looks like, what stands for it); the shape of a time is compared
    (re.compile(rf"(?<![0-9a-f]){_UUID}(?![0-9a-f])"), "<uuid>"),
    (re.compile(r"\d{4}-\d\d-\d\d([T ])\d\d:\d\d:\d\d(\.\d+)?"), lambda m: f"<time{m[1]}{'0' * len(m[2] or '')}>"),
    (re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"), "<date>"),
    (re.compile(r"\btx[0-9a-f]{21}-[0-9a-f]{10}\b"), "<transaction>"),
    (re.compile(r"\b\d{10}(\.\d+)?\b"), lambda m: f"<epoch{'0' * len(m[1] or '')}>"),
    (re.compile(r"\b([0-9a-f]{2}:){5}[0-9a-f]{2}\b"), "<mac>"),
    (re.compile(r"\b\d{1,3}(\.\d{1,3}){3}\b"), "<ip>"),
    (re.compile(r"\b[0-9a-f]{32}([0-9a-f]{24})?\b"), "<hex>"),
]
_HASHES = re.compile(r"headers\.Etag|.*\.hash")  # of contents that are the same on both
Plain = dict[str, Any]


class Rules:
    """The rules of requests.yaml; they note which of them were of use."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._headers = {name: rule.get("services") for name, rule in spec["ignored_headers"].items()}
        self._lists = [(_pattern(path), path, rule) for rule in spec["lists"] for path in rule["in"]]
        self._values = [(_pattern(path), path) for rule in spec["not_compared"] for path in rule["fields"]]
        self._left = [
            (_pattern(place), name, f"{place}.{name}")
            for rule in spec["left_out"]
            for place in rule["in"]
            for name in rule["fields"]
        ]
        self._changing = [(_pattern(path), rule["values"]) for rule in spec["changing"] for path in rule["fields"]]
        self.rules = {
            *self._headers,
            *(path for _, path, _ in self._lists),
            *(path for _, path in self._values),
            *(rule for _, _, rule in self._left),
        }
        self.used: set[str] = set()

    def keeps_header(self, name: str, service: str) -> bool:
        services = self._headers.get(name, ())
        if services is None or service in services:
            self.used.add(name)
        return services is not None and service not in services

    def of_list(self, path: str) -> dict[str, Any]:
        """``by``: the fields that a list is put in order by; ``only``: "named", or the values of the first that count."""
        found: dict[str, Any] = {}
        for pattern, rule, what in self._lists:
            if pattern.fullmatch(path):
                self.used.add(rule)
                found = what
        return found

    def hides(self, path: str) -> bool:
        hits = {rule for pattern, rule in self._values if pattern.fullmatch(path)}
        self.used |= hits
        return bool(hits)

    def leaves_out(self, place: str, name: str) -> bool:
        """Whether the dev cloud has no field ``name`` in the mapping at ``place``."""
        hits = {rule for pattern, field, rule in self._left if field == name and pattern.fullmatch(place)}
        self.used |= hits
        return bool(hits)

    def on_the_way(self, path: str) -> list[Any]:
        """What a field of something that changes by itself may be in between."""
        return [value for pattern, values in self._changing if pattern.fullmatch(path) for value in values]


def _pattern(path: str) -> re.Pattern[str]:
    """``compute:body.servers[].id``; ``[]`` is any place in a list, ``*`` any text."""
    return re.compile(re.escape(path).replace(r"\[\]", r"\[\d+\]").replace(r"\*", ".*"), re.DOTALL)


class Normaliser:
    """Makes the answers of one cloud comparable. ``real``: fields may be left out of its bodies."""

    def __init__(self, cloud: Cloud, rules: Rules, *, real: bool) -> None:
        self._cloud, self._rules, self._real = cloud, rules, real

    def plain(self, step: Step, answer: Answer) -> Plain:
        """The answer as JSON: status, headers, body; nothing in it is particular to this cloud."""
        dropped = set()
        if answer.body:
            dropped.add("Content-Length")  # follows from the body, which is compared
        if answer.status == 204:
            dropped |= {"Content-Length", "Content-Type"}  # of nothing
        headers = {
            name: value
            for name, value in sorted(answer.headers.items())
            if name not in dropped and self._rules.keeps_header(name, step.service)
        }
        found = {"status": answer.status, "headers": headers, "body": answer.body}
        plain = self._value(found, f"{step.service}:", self._words())
        assert isinstance(plain, dict)
        return plain

    def _words(self) -> list[tuple[re.Pattern[str], str]]:
        """What this cloud calls things, longest first, and the word for each."""
        cloud = self._cloud
        known = {value: f"<{name.removeprefix('tiny_')}>" for name, value in {**cloud.names, **cloud.saved}.items()}
        known |= {root: f"<{service}>" for service, root in cloud.roots.items()}
        for who in ("tiny", "other", "app-reader", "app", "member"):  # the last three are one user of one project
            login = cloud.logins.get(who, {})
            whose = f" of {who}" if who in ("tiny", "other") else ""
            known |= {
                value: f"<{name}{whose}>" for name, value in login.items() if name in ("project", "user", "token")
            }
        return [
            (re.compile(rf"(?:(?<![\w.-])|(?<=AUTH_)){re.escape(value)}(?![\w-])"), known[value])
            for value in sorted(known, key=len, reverse=True)
        ]

    def _value(self, value: Any, path: str, words: list[tuple[re.Pattern[str], str]]) -> Any:
        if isinstance(value, dict):
            return self._mapping(value, path, words)
        if isinstance(value, list):
            return self._list([self._value(each, f"{path}[{n}]", words) for n, each in enumerate(value)], path)
        if self._rules.hides(path):
            return f"<any {type(value).__name__}>"
        if not isinstance(value, str):
            return value
        for pattern, word in words:
            value = pattern.sub(lambda m, word=word: word, value)  # type: ignore[misc]
        hashes = _HASHES.fullmatch(path.partition(":")[2])
        for pattern, word in _GENERAL[: -1 if hashes else None]:
            value = pattern.sub(word, value)
        return re.sub(r"(.)\1{59,}", lambda m: f"<{len(m[0])} times {m[1]}>", value)

    def _list(self, value: list[Any], path: str) -> list[Any]:
        """The entries that both clouds have, in an order that both can have."""
        rule = self._rules.of_list(path)
        if not rule:
            return value
        by, only = rule["by"], rule.get("only")
        if only == "named":
            value = [each for each in value if each[by[0]].startswith("<")]
        elif only:
            value = [each for each in value if each[by[0]] in only]
        return sorted(value, key=lambda each: [str(each[field]) for field in by] or str(each))

    def _mapping(self, value: dict[str, Any], path: str, words: list[tuple[re.Pattern[str], str]]) -> dict[str, Any]:
        dot = "" if path.endswith(":") else "."
        return {
            self._value(name, "", words): self._value(each, f"{path}{dot}{name}", words)
            for name, each in value.items()
            if not (self._real and self._rules.leaves_out(path, name))
        }


class Absent:
    """Stands for a field that an answer has not."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT = Absent()


def differences(real: Any, dev: Any, path: str = "", excused: Callable[..., bool] | None = None) -> Iterator[str]:
    """``path: real X, dev Y`` for each field that is not the same in kind and value.

    ``excused(path, real, dev)`` says where that is right all the same.
    """
    if _same(real, dev) or (excused and excused(path, real, dev)):
        return
    if isinstance(real, dict) and isinstance(dev, dict):
        for name in [*real, *(n for n in dev if n not in real)]:
            where = f"{path}.{name}" if path else name
            yield from differences(real.get(name, ABSENT), dev.get(name, ABSENT), where, excused)
    elif isinstance(real, list) and isinstance(dev, list):
        if len(real) != len(dev):
            yield f"{path}: real has {len(real)}, dev {len(dev)}: {real!r:.300} / {dev!r:.300}"
        for number, (left, right) in enumerate(zip(real, dev, strict=False)):
            yield from differences(left, right, f"{path}[{number}]", excused)
    else:
        yield f"{path}: real {real!r:.300}, dev {dev!r:.300}"


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and not isinstance(one, (dict, list)) and one == other


class Change:
    """What may be answered, besides what was asked for in time, to a request for something that changes by itself.

    ``later``: what was answered, in time, to the later request about the same. Each field may have that value already, or one of
    those that it has ``on_the_way``. ``late``: who may have been asked late, "real" or "dev".
    """

    def __init__(self, later: Plain, on_the_way: Callable[[str], list[Any]], *, late: str) -> None:
        self._later, self._on_the_way, self._late = later, on_the_way, late

    def excuses(self, path: str, real: Any, dev: Any) -> bool:
        found = real if self._late == "real" else dev
        return found == _at(self._later, path) or found in self._on_the_way(path)


def _at(answer: Any, path: str) -> Any:
    """The field at the path, of mappings only."""
    for name in path.split(".") if path else []:
        if not isinstance(answer, dict) or name not in answer:
            return ABSENT
        answer = answer[name]
    return answer
