"""What services answer: each stage of a start and of a stop, times each way in which a request can go wrong, and all is well.

All faults of one kind, or of kinds that disturb different stages, are set in one start and in one stop. Each stage has to meet its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .bench import UNWATCHED, Bench
from .disturbance import Disturbance
from .row import WORKS, Row, Run
from .stages import MALFORMED, PASSING, SERVER_START, SERVER_STOP, START, STOP, Fault, Faults, Kind, passing

REACHED: Mapping[str, Any] = {"floating_ip": "auto"}
# A creation whose answer was lost is settled before the agent begins.
SLOW_SERVER = ({"server": ".*", "boot_time": 2.0},)

# What is no failure: it happens, or has happened.
NOT_YET = Kind("404, once", ({"status": 404},))
NOT_NOW = Kind("409, once", ({"status": 409},))
GONE = Kind("404: it was deleted behind our back", ({"status": 404, "after": True},))
FORBIDDEN = Kind("403", ({"status": 403},))
NONE = Kind("404: the cloud does not offer them", ({"status": 404},))
ANSWERED_503 = Kind("503, but the request was carried out", ({"status": 503, "after": True},))
DROPPED = Kind("dropped connection, but the request was carried out", ({"drop": True, "after": True},))
DONE = (NOT_YET, NOT_NOW, GONE, FORBIDDEN, NONE, ANSWERED_503, DROPPED)

CREATING = ("start: creating the server", "start: making the container", "start: making the security group")
SERVER_CREATING = (
    "start: allocating the floating IP",
    "start: attaching the floating IP",
    "start: admitting clients and engines",
)
DELETING = ("stop: deleting the server", "stop: deleting the security group", "stop: deleting the container")
READING = ("start: the agent reads", "start: listing reports", "start: listing servers")
LOOKING, RELEASING = "stop: listing floating IPs", "stop: releasing the floating IP"


def disturbed(bench: Bench, run: Run) -> None:
    """A start that meets all faults of its stages goes on, and so does a stop of another process."""
    starting = [row for row in run.rows if row.stage.startswith("start")]
    stopping = [row for row in run.rows if row.stage.startswith("stop")]
    on_server = run.rows[0].on_server
    with _patience(bench, run.rows):
        with bench.proving(*starting), met(bench, starting, *SLOW_SERVER):
            # Nobody lists servers but the start, and the stop.
            cluster = bench.started(
                on_server=on_server if on_server is None else {**on_server, **UNWATCHED}, **UNWATCHED
            )
            assert len(bench.cloud.servers()) == 1 + (on_server is not None)
        with bench.proving(*stopping), met(bench, stopping):
            bench.stop(cluster)
            assert bench.cloud.left_over() == []
    cluster.stop_cluster_sync()  # the process that has started it ends, too


@contextlib.contextmanager
def met(bench: Bench, rows: Iterable[Row], *beside: Fault) -> Iterator[None]:
    """Disturb what is done in it by the faults of all ``rows``, and fail unless each stage meets its own. ``beside``: of servers."""
    faults: dict[str, Faults] = {}
    for row in rows:
        faults[row.stage] = (*faults.get(row.stage, ()), *row.faults)
    with Disturbance(bench.cloud.running, faults, beside=beside) as disturbance:
        yield
        disturbance.check()


@contextlib.contextmanager
def _patience(bench: Bench, rows: Iterable[Row]) -> Iterator[None]:
    """Requests that hang are given up soon."""
    hang = any("delay" in fault for row in rows for fault in row.faults)
    with bench.impatient() if hang else contextlib.nullcontext():
        yield


def marks(kind: Kind, stages: Iterable[str], **options: Any) -> tuple[Row, ...]:
    """A row for each of these stages whose last request is answered so."""
    return tuple(mark(kind, stage, kind.at(stage, slice(-1, None)), **options) for stage in stages)


def mark(kind: Kind, stage: str, faults: Faults, **options: Any) -> Row:
    return Row(kind.name, stage, WORKS, faults=faults, marked=True, **options)


def _passing(kind: Kind, stages: Iterable[str], **options: Any) -> tuple[Row, ...]:
    return tuple(mark(kind, stage, faults, **options) for stage in stages if (faults := passing(kind, stage)))


QUICK = ("dropped connection",)
RUNS = (
    *(
        Run(f"{kind.name}, at every stage", _passing(kind, (*START, *STOP)), disturbed, slow=kind.name not in QUICK)
        for kind in PASSING
    ),
    Run(
        "not yet, or done though it was not said",
        (*marks(NOT_YET, READING), *marks(DROPPED, CREATING), *marks(NOT_NOW, DELETING), *marks(FORBIDDEN, [LOOKING])),
        disturbed,
    ),
    Run(
        "done before, or though it was not said",
        (*marks(ANSWERED_503, CREATING), *marks(GONE, DELETING), *marks(NONE, [LOOKING])),
        disturbed,
    ),
)
SERVER_RUNS = (
    *(
        Run(
            f"{kind.name}, at every stage",
            _passing(kind, (*SERVER_START, *SERVER_STOP), on_server=REACHED),
            disturbed,
            slow=kind.name not in QUICK,
        )
        for kind in PASSING
        if kind is not MALFORMED
    ),
    *(
        Run(kind.name, marks(kind, (*SERVER_CREATING, RELEASING), on_server=REACHED), disturbed, slow=kind is DROPPED)
        for kind in (ANSWERED_503, DROPPED)
    ),
)
