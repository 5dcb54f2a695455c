"""Faults that a test or a person sets while the dev cloud runs.

A fault is a dict. One that disturbs requests has these keys, all optional:

    service    "compute", "identity", "image", "network" or "object-store"
    methods    ["POST", ...]
    path       regular expression, searched in the URL's path
    count      how often, then it is spent
    delay      seconds before the answer; what was asked is done at once
    late       true: with `delay`, it is done only after that, when the client may have given up
    status     of the answer, e.g. 503; with `headers`, e.g. {"Retry-After": "1"}, and `body`, text or JSON
    drop       true: close the connection
    malformed  true: an answer (200, or `status`) whose body is not JSON
    after      true: do what was asked first, then disturb the answer: the client can't know that it happened

One that disturbs servers has ``server``, a regular expression searched in the name, and any of:

    fail_build     reason: goes to ERROR instead of ACTIVE; its fault says "Build of instance <id> aborted: <reason>"
    boot_time      seconds in BUILD
    stuck          true: stays in BUILD
    silent         true: no guest process is started
    under          ["prlimit", "--fsize=0"]: a command that the guest's program is run by
    vanish_after   seconds after ACTIVE; for a server that is ACTIVE already, after the fault was set
    shutoff_after  the same
    count          how many servers
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Set
from typing import Any

SERVICES = ("compute", "identity", "image", "network", "object-store")
_REQUEST: dict[str, Any] = {
    "service": str,
    "methods": list,
    "path": str,
    "status": int,
    "headers": dict,
    "body": object,
}
_REQUEST |= {"count": int, "delay": (int, float), "drop": bool, "malformed": bool, "after": bool, "late": bool}
_SERVER: dict[str, Any] = {"server": str, "fail_build": str, "boot_time": (int, float), "silent": bool, "stuck": bool}
_SERVER |= {"under": list, "vanish_after": (int, float), "shutoff_after": (int, float), "count": int}
Fault = dict[str, Any]


class Faults:
    """The faults in force. Thread-safe. ``changed`` is called after each change, in the caller's thread."""

    def __init__(self, changed: Callable[[], None] = lambda: None) -> None:
        self.changed = changed
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def set(self, *faults: Mapping[str, Any], **fault: Any) -> None:
        """Replace all faults by these; one may be given by keywords. Raises ValueError if one makes no sense."""
        new = [check(f) for f in (*faults, *([fault] if fault else []))]
        with self._lock:
            self._faults = new
        self.changed()

    def clear(self) -> None:
        self.set()

    def snapshot(self) -> list[Fault]:
        """Return what is in force, with the remaining counts."""
        with self._lock:
            return [dict(f) for f in self._faults]

    def for_request(self, service: str, method: str, path: str) -> Fault | None:
        """Return the first fault that fits this request; its count goes down."""

        def fits(fault: Fault) -> bool:
            return (
                "server" not in fault
                and fault.get("service", service) == service
                and method in fault.get("methods", [method])
                and re.search(fault.get("path", ""), path) is not None
            )

        found = self._take(fits, first_only=True)
        return found[0] if found else None

    def for_server(self, name: str, keys: Set[str] = _SERVER.keys()) -> Fault:
        """Return all faults of this server that have one of ``keys``, as one dict; their counts go down."""
        merged: Fault = {}
        for fault in self._take(lambda f: "server" in f and re.search(f["server"], name) and keys & f.keys()):
            merged.update(fault)
        return merged

    def _take(self, fits: Callable[[Fault], object], first_only: bool = False) -> list[Fault]:
        taken = []
        with self._lock:
            for fault in self._faults:
                if fault.get("count", 1) > 0 and fits(fault):
                    taken.append(dict(fault))
                    if "count" in fault:
                        fault["count"] -= 1
                    if first_only:
                        break
        return taken


def check(fault: Mapping[str, Any]) -> Fault:
    """Return a copy of ``fault``; raises ValueError if a key is unknown or a value is of the wrong kind."""
    if not isinstance(fault, Mapping):
        raise ValueError(f"A fault is a JSON object, not {fault!r}.")
    known: dict[str, Any] = _SERVER if "server" in fault else _REQUEST
    for key, value in fault.items():
        if key not in known:
            raise ValueError(f"A fault has no key {key!r}; known are: {', '.join(known)}.")
        if not isinstance(value, known[key]):
            raise ValueError(f"Fault key {key!r} can't be {value!r}.")
    if fault.get("service", "compute") not in SERVICES:
        raise ValueError(f"No service {fault['service']!r}; known are: {', '.join(SERVICES)}.")
    for key in ("path", "server"):
        try:
            re.compile(fault.get(key, ""))
        except re.error as error:
            raise ValueError(f"Fault key {key!r}: {fault[key]!r} is no regular expression: {error}") from None
    return dict(fault)
