"""What services answer: each stage of a start and of a stop, times each way in which a request can go wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from ipp_griffin.plan import GriffinError

from .bench import Bench
from .row import FAILS, SECOND_STOP, WORKS, Row

CONTAINER = r"-[0-9a-f]{12}$"
COMPUTE, STORE = {"service": "compute"}, {"service": "object-store"}
GROUPS = {"service": "network", "path": "/security-groups"}

# Which requests make up a stage: what is asked for, by whom.
START: dict[str, tuple[Mapping[str, Any], ...]] = {
    "start: login": ({"service": "identity", "methods": ["POST"]},),
    "start: look-ups": (
        {"service": "network", "path": "/networks$"},
        {"service": "network", "path": "/subnets$"},
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
    "start: writing the connection object": ({**STORE, "methods": ["PUT"], "path": "/connection.json$"},),
    "start: creating the server": ({**COMPUTE, "methods": ["POST"], "path": "/servers$"},),
    "start: listing servers": ({**COMPUTE, "methods": ["GET"], "path": "/servers/detail$"},),
    "start: the agent reads": ({**STORE, "methods": ["GET"], "path": "/connection.json$"},),
    "start: the agent reports": ({**STORE, "methods": ["PUT"], "path": r"/\d{4}-"},),
    "start: listing reports": ({**STORE, "methods": ["GET"], "path": CONTAINER},),
}
STOP: dict[str, tuple[Mapping[str, Any], ...]] = {
    "stop: login": ({"service": "identity", "methods": ["POST"]},),
    "stop: deleting the server": ({**COMPUTE, "methods": ["DELETE"]},),
    "stop: listing servers": ({**COMPUTE, "methods": ["GET"], "path": "/servers/detail$"},),
    "stop: deleting the security group": ({**GROUPS, "methods": ["GET"]}, {**GROUPS, "methods": ["DELETE"]}),
    "stop: looking for floating IPs": ({"service": "network", "methods": ["GET"], "path": "/floatingips"},),
    "stop: deleting objects": (
        {**STORE, "methods": ["GET"], "path": CONTAINER},
        {**STORE, "methods": ["POST", "DELETE"]},
    ),
    "stop: deleting the container": ({**STORE, "methods": ["DELETE"], "path": CONTAINER},),
}
AGENT = ("start: the agent reads", "start: the agent reports")
UNREAD = (  # nobody looks at the bodies of these answers
    "start: marking the container",
    "start: writing the connection object",
    "start: the agent reports",
    "stop: deleting the server",
    "stop: deleting the container",
)
SOME_UNREAD = ("start: making the container", "stop: deleting the security group")  # all but that of the first request
OVER_QUOTA = {
    "NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['security_group'].", "detail": ""}
}
QUOTA = {"forbidden": {"code": 403, "message": "Quota exceeded for instances: Requested 1, but already used 64 of 64."}}


@dataclass(frozen=True)
class Kind:
    """A way in which a request goes wrong. ``answer``: as the dev cloud's faults have it."""

    name: str
    answer: Mapping[str, Any]


PASSING = (  # what is over when it is asked again
    Kind("500, then 503", {"status": 503, "count": 2}),
    Kind("429 with Retry-After", {"status": 429, "headers": {"Retry-After": "1"}, "count": 1}),
    Kind("no answer until the time-out", {"delay": 2, "count": 1}),
    Kind("dropped connection", {"drop": True, "count": 1}),
    Kind("malformed body", {"malformed": True, "count": 1}),
    Kind("401 in the middle", {"status": 401, "count": 1}),
)
QUICK_KINDS = ("500, then 503", "dropped connection")


# -- what is done


def start_and_stop(bench: Bench, row: Row) -> None:
    """The fault passes within the start, which goes on."""
    with _patience(bench, row):
        bench.cloud.faults.set(*row.faults)
        cluster = bench.started(on_server=row.on_server, **row.settings)
        bench.spent()
        assert len(bench.cloud.servers()) == 1 + (row.on_server is not None)
        cluster.stop_cluster_sync()


def failing_start(bench: Bench, row: Row) -> None:
    """The start raises; what it had made is gone then, but for the controller, which the stop ends."""
    with _patience(bench, row):
        bench.cloud.faults.set(*row.faults)
        cluster = bench.cluster(on_server=row.on_server, **row.settings)
        with pytest.raises(GriffinError) as raised:
            cluster.start_cluster_sync()
        bench.said.append(str(raised.value))
        bench.spent()
        bench.cloud.faults.clear()
        assert bench.cloud.servers() == []
        cluster.stop_cluster_sync()


def stop_in_spite(bench: Bench, row: Row) -> None:
    """The fault passes within the stop, which goes on."""
    with _patience(bench, row):
        cluster = bench.started(on_server=row.on_server, **row.settings)
        bench.cloud.faults.set(*row.faults)
        bench.stop(cluster)
        bench.spent()
        end(bench, cluster)


def stop_again(bench: Bench, row: Row) -> None:
    """The stop raises and says what is left; the next one ends it."""
    with _patience(bench, row):
        cluster = bench.started(on_server=row.on_server, **row.settings)
        bench.cloud.faults.set(*row.faults)
        with pytest.raises(GriffinError) as raised:
            bench.stop(cluster)
        bench.said.append(str(raised.value))
        bench.cloud.faults.clear()
        bench.stop(cluster)
        end(bench, cluster)


def end(bench: Bench, cluster: Any) -> None:
    """A cluster that was stopped from elsewhere has nothing left in the cloud; the process that started it ends, too."""
    assert bench.cloud.left_over() == []
    cluster.stop_cluster_sync()


@contextlib.contextmanager
def _patience(bench: Bench, row: Row) -> Iterator[None]:
    """Requests that hang are given up soon."""
    with bench.impatient() if any("delay" in fault for fault in row.faults) else contextlib.nullcontext():
        yield


# -- the rows


Requests = tuple[Mapping[str, Any], ...]


def _answers(stage: str, answer: Mapping[str, Any]) -> Requests:
    return tuple({**request, **answer} for request in {**START, **STOP}[stage])


def passing(kind: Kind, stage: str) -> Requests:
    """The faults of this kind at this stage; none where they make no sense."""
    requests = {**START, **STOP}[stage]
    if kind.name == "401 in the middle" and "login" in stage:
        return ()  # there, it is final
    if kind.name == "malformed body":
        if stage in UNREAD:
            return ()
        if stage in SOME_UNREAD:
            requests = requests[:1]
    answer = dict(kind.answer)
    if "delay" in answer and stage in AGENT:
        answer["delay"] = 11 if stage == AGENT[0] else 6  # the agent's own time-outs
    return disturbed(requests, kind, answer)


def disturbed(requests: Requests, kind: Kind, answer: Mapping[str, Any]) -> Requests:
    """The faults that answer each of these requests so, for a time."""
    answers = [{**answer, "status": 500, "count": 1}, {**answer, "count": 1}] if "then" in kind.name else [answer]
    return tuple({**request, **one} for request in requests for one in answers)


def _passing() -> Iterator[Row]:
    for kind in PASSING:
        for stage in (*START, *STOP):
            if faults := passing(kind, stage):
                run = start_and_stop if stage in START else stop_in_spite
                yield Row(kind.name, stage, WORKS, run, faults=faults, slow=kind.name not in QUICK_KINDS)


LACKS_ROLE = "lack the role for it (member)."
# What is told at once, and not asked for again: fault, stage, answer, message.
_FINAL: tuple[tuple[str, str, Mapping[str, Any], str], ...] = (
    ("401: wrong credentials", "start: login", {"status": 401}, "Can't log in to cloud 'devcloud'…Check the credentials"),
    ("403", "start: look-ups", {"status": 403}, LACKS_ROLE),
    ("403", "start: making the container", {"status": 403}, LACKS_ROLE),
    ("403", "start: making the security group", {"status": 403}, LACKS_ROLE),
    ("409 quota", "start: making the security group", {"status": 409, "body": OVER_QUOTA}, "Can't make security group…Quota exceeded"),
    ("403 quota", "start: creating the server", {"status": 403, "body": QUOTA}, "Quota exceeded for instances…Start fewer engines"),
    ("404", "start: look-ups", {"status": 404}, "Can't list networks: the cloud said 404"),
    ("404: the container was deleted behind our back", "start: marking the container", {"status": 404}, "Can't mark container…404"),
    ("404: the container was deleted behind our back", "start: writing the connection object", {"status": 404}, "Can't write object…404"),
    ("404: the image was deleted behind our back", "start: creating the server", {"status": 404}, "Can't create server…404"),
    ("409", "start: creating the server", {"status": 409}, "Can't create server…409"),
    ("409", "start: making the container", {"status": 409}, "Can't make container…409"),
)  # fmt: skip


def _final_faults(stage: str, answer: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    asked = 2 if stage == "start: look-ups" else 1  # these while the controller starts, and again by whom it matters to
    faults = _answers(stage, {**answer, "count": asked})
    return faults[-1:] if "making" in stage else faults[:1]  # one request, which ends it


FINAL = tuple((fault, stage, _final_faults(stage, answer)) for fault, stage, answer, _ in _FINAL)


def _final() -> Iterator[Row]:
    for fault, stage, answer, says in _FINAL:
        yield Row(fault, stage, FAILS, failing_start, says, faults=_final_faults(stage, answer))


def _gone_already() -> Iterator[Row]:
    """What is asked for happens, or has happened: the answer is no failure."""
    landed = {"status": 404, "after": True, "count": 1}
    for stage in ("stop: deleting the server", "stop: deleting the security group", "stop: deleting the container"):
        for name, answer in (
            ("404: it was deleted behind our back", landed),
            ("409, once", {"status": 409, "count": 1}),
        ):
            yield Row(name, stage, WORKS, stop_in_spite, faults=_answers(stage, answer)[-1:])
    for name, status in (("403", 403), ("404: the cloud has none", 404)):
        stage = "stop: looking for floating IPs"
        yield Row(name, stage, WORKS, stop_in_spite, faults=_answers(stage, {"status": status, "count": 1}))
    for stage in ("start: the agent reads", "start: listing reports", "start: listing servers"):
        yield Row("404, once", stage, WORKS, start_and_stop, faults=_answers(stage, {"status": 404, "count": 1}))
    for stage in ("start: creating the server", "start: making the container", "start: making the security group"):
        for name, answer in (
            ("503", {"status": 503, "after": True}),
            ("dropped connection", {"drop": True, "after": True}),
        ):
            faults = _answers(stage, {**answer, "count": 1})[-1:]
            yield Row(f"{name}, though it was done", stage, WORKS, start_and_stop, faults=faults)


def _lasting() -> Iterator[Row]:
    """Longer than anything is repeated."""
    for service, stage in (
        ("compute", "stop: deleting the server"),
        ("network", "stop: deleting the security group"),
        ("object-store", "stop: deleting objects"),
    ):
        faults = ({"service": service, "status": 503},)
        yield Row(
            f"503 of {service} for good",
            stage,
            SECOND_STOP,
            stop_again,
            "Run the same stop again",
            faults=faults,
            slow=True,
        )
    yield Row(
        "409: something else is in it",
        "stop: deleting the security group",
        SECOND_STOP,
        stop_again,
        "still in use…openstack security group delete",
        faults=_answers("stop: deleting the security group", {"status": 409})[-1:],
        slow=True,
    )
    yield Row(
        "503 of identity for good",
        "stop: login",
        SECOND_STOP,
        stop_again,
        "Can't log in to cloud 'devcloud'…503",
        faults=({"service": "identity", "status": 503},),
        slow=True,
    )


ROWS = (*_passing(), *_final(), *_gone_already(), *_lasting())
