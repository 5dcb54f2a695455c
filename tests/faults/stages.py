"""The stages of a start and of a stop, by the requests that each makes; and the kinds of answers that disturb them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Fault = Mapping[str, Any]  # as `ipp_griffin.devcloud.faults` has them
Faults = tuple[Fault, ...]

CONTAINER = r"-[0-9a-f]{12}$"
COMPUTE, STORE, NETWORK = {"service": "compute"}, {"service": "object-store"}, {"service": "network"}
GROUPS = {**NETWORK, "path": "/security-groups($|/)"}
FLOATING = {**NETWORK, "path": "/floatingips"}

# Which requests make up a stage: what is asked for, by whom.
START: dict[str, Faults] = {
    "start: login": ({"service": "identity", "methods": ["POST"]},),
    "start: look-ups": (
        {**NETWORK, "path": "/networks$"},
        {**NETWORK, "path": "/subnets$"},
        {"service": "image", "path": "/images$"},
        {**COMPUTE, "path": "/flavors/detail$"},
        {**COMPUTE, "path": "/limits$"},
    ),
    "start: making the container": (
        {**STORE, "path": "^/info$"},
        {**STORE, "methods": ["PUT"], "path": CONTAINER},
    ),
    "start: marking the container": ({**STORE, "methods": ["POST"], "path": CONTAINER},),
    "start: making the security group": ({**GROUPS, "methods": ["GET"]}, {**GROUPS, "methods": ["POST"]}),
    "start: writing the connection file": ({**STORE, "methods": ["PUT"], "path": "/connection.json$"},),
    "start: creating the server": ({**COMPUTE, "methods": ["POST"], "path": "/servers$"},),
    "start: listing servers": ({**COMPUTE, "methods": ["GET"], "path": "/servers/detail$"},),
    "start: the agent reads": ({**STORE, "methods": ["GET"], "path": "/connection.json$"},),
    "start: the agent reports": ({**STORE, "methods": ["PUT"], "path": r"/\d{4}-"},),
    "start: listing reports": ({**STORE, "methods": ["GET"], "path": CONTAINER},),
}
STOP: dict[str, Faults] = {
    "stop: login": ({"service": "identity", "methods": ["POST"]},),
    "stop: deleting the server": ({**COMPUTE, "methods": ["DELETE"]},),
    "stop: listing servers": ({**COMPUTE, "methods": ["GET"], "path": "/servers/detail$"},),
    "stop: deleting the security group": ({**GROUPS, "methods": ["GET"]}, {**GROUPS, "methods": ["DELETE"]}),
    "stop: listing floating IPs": ({**FLOATING, "methods": ["GET"]},),
    "stop: deleting objects": (
        {**STORE, "methods": ["GET"], "path": CONTAINER},
        {**STORE, "methods": ["POST"], "path": "/AUTH_[^/]+$"},  # many with one request
    ),
    "stop: deleting the container": ({**STORE, "methods": ["DELETE"], "path": CONTAINER},),
}
# Further stages of a controller on a server.
SERVER_START: dict[str, Faults] = {
    "start: allocating the floating IP": ({**FLOATING, "methods": ["GET"]}, {**FLOATING, "methods": ["POST"]}),
    "start: attaching the floating IP": ({**NETWORK, "path": "/ports$"}, {**FLOATING, "methods": ["PUT"]}),
    "start: the controller's agent writes the connection files": ({**STORE, "methods": ["PUT"], "path": "/handover$"},),
    "start: reading the connection files": ({**STORE, "methods": ["GET"], "path": "/handover$"},),
    "start: storing the clients' connection file": ({**STORE, "methods": ["PUT"], "path": "/client.json$"},),
    "start: admitting clients and engines": ({**NETWORK, "methods": ["POST"], "path": "/security-group-rules"},),
}  # fmt: skip
SERVER_STOP: dict[str, Faults] = {
    "stop: releasing the floating IP": ({**FLOATING, "methods": ["GET"]}, {**FLOATING, "methods": ["DELETE"]}),
}
STAGES = {**START, **STOP, **SERVER_START, **SERVER_STOP}

# The same requests are made before these stages, too, by creations whose answer was lost and by the engines' last reports: their faults
# are set when another request has been answered, from which on only the stage itself makes them.
_AGENT_HAS_READ = {**STORE, "methods": ["GET"], "path": "/connection.json$"}
_SERVER_IS_DELETED = {**COMPUTE, "methods": ["DELETE"]}
AFTER: dict[str, Fault] = {
    "start: listing servers": _AGENT_HAS_READ,
    "start: listing reports": _AGENT_HAS_READ,
    "stop: listing servers": _SERVER_IS_DELETED,
    "stop: deleting objects": _SERVER_IS_DELETED,
}

HANDOVER = "start: the controller's agent writes the connection files"
# Seconds: more than the agents' own time-outs.
PATIENCE = {"start: the agent reads": 11, "start: the agent reports": 6, HANDOVER: 31}
UNREAD = (  # nobody looks at the bodies of these answers
    "start: marking the container",
    "start: writing the connection file",
    "start: the agent reports",
    "stop: deleting the server",
    "stop: deleting the container",
)
SOME_UNREAD = ("start: making the container", "stop: deleting the security group")  # all but that of the first request


@dataclass(frozen=True)
class Kind:
    """A way in which requests go wrong. ``answers``: one after the other, as the dev cloud's faults have them."""

    name: str
    answers: Faults

    def at(self, stage: str, requests: slice = slice(None)) -> Faults:
        """The faults of this kind at a stage, for all its ``requests`` or some of them."""
        answers = self.answers
        if stage in PATIENCE:
            answers = tuple({**one, "delay": PATIENCE[stage]} if "delay" in one else one for one in answers)
        return tuple({**request, **answer, "count": 1} for request in STAGES[stage][requests] for answer in answers)


MALFORMED = Kind("malformed body", ({"malformed": True},))
REFUSED = Kind("401 after the login", ({"status": 401},))
PASSING = (  # what is over when it is asked again
    Kind("500, then 503", ({"status": 500}, {"status": 503})),
    Kind("429 with Retry-After", ({"status": 429, "headers": {"Retry-After": "1"}},)),
    Kind("no answer until the time-out", ({"delay": 2},)),
    Kind("dropped connection", ({"drop": True},)),
    MALFORMED,
    REFUSED,
)


def passing(kind: Kind, stage: str) -> Faults:
    """The faults of this kind at this stage; none where they make no sense."""
    if kind is REFUSED and "login" in stage:
        return ()  # there, it is final
    if kind is MALFORMED and stage in UNREAD:
        return ()
    return kind.at(stage, slice(1) if kind is MALFORMED and stage in SOME_UNREAD else slice(None))
