"""What services answer that ends a start, or a stop. What they answer without that is in `matrix`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import ipyparallel as ipp
import pytest

from ipp_griffin.common.errors import GriffinError

from .bench import UNWATCHED, Bench, computes
from .row import FAILS, SECOND_STOP, Row, Run
from .stages import STAGES, Fault, Faults

OVER_QUOTA = {
    "NeutronError": {"type": "OverQuota", "message": "Quota exceeded for resources: ['security_group'].", "detail": ""}
}
QUOTA = {"forbidden": {"code": 403, "message": "Quota exceeded for instances: Requested 1, but already used 64 of 64."}}
LACKS_ROLE = "lack the role for it (member)."
OF_CONTROLLER = ("start: login", "start: look-ups")  # engine sets go by what their controller has asked for
# What is told at once, and not asked for again: fault, stage, answer, message.
_FINAL: tuple[tuple[str, str, Fault, str], ...] = (
    ("401: wrong credentials", "start: login", {"status": 401}, "Can't log in to cloud 'devcloud'…Check the credentials"),
    ("403", "start: look-ups", {"status": 403}, LACKS_ROLE),
    ("404", "start: look-ups", {"status": 404}, "Can't list networks: the cloud said 404"),
    ("403", "start: making the container", {"status": 403}, LACKS_ROLE),
    ("403", "start: making the security group", {"status": 403}, LACKS_ROLE),
    ("409 quota", "start: making the security group", {"status": 409, "body": OVER_QUOTA}, "Can't make security group…Quota exceeded"),
    ("403 quota", "start: creating the server", {"status": 403, "body": QUOTA}, "Quota exceeded for instances…Start fewer engines"),
    ("404: the container was deleted behind our back", "start: marking the container", {"status": 404}, "Can't mark container…404"),
    ("404: the container was deleted behind our back", "start: writing the connection file", {"status": 404}, "Can't write object…404"),
    ("404: the image was deleted behind our back", "start: creating the server", {"status": 404}, "Can't create server…404"),
    ("409", "start: creating the server", {"status": 409}, "Can't create server…409"),
    ("409", "start: making the container", {"status": 409}, "Can't make container…409"),
)  # fmt: skip


def one(stage: str, which: int = -1, **answer: Any) -> Faults:
    """One fault, of the last request of a stage, or of another one."""
    return ({**STAGES[stage][which], "count": 1, **answer},)


def _final_faults(stage: str, answer: Fault) -> Faults:
    asked = 2 if stage == "start: look-ups" else 1  # these while the controller starts, and again by whom it matters to
    return one(stage, -1 if "making" in stage else 0, **{**answer, "count": asked})


FINAL = tuple((fault, stage, _final_faults(stage, answer)) for fault, stage, answer, _ in _FINAL)


# -- what is done


def failing_start(bench: Bench, row: Row) -> None:
    """The start raises; what it had made is gone then, but for a controller beside its user, which the stop ends."""
    bench.cloud.faults.set(*row.faults)
    cluster = bench.cluster(on_server=row.on_server, **row.settings)
    with pytest.raises(GriffinError) as raised:
        cluster.start_cluster_sync()
    bench.said.append(str(raised.value))
    bench.spent()
    bench.cloud.faults.clear()
    assert bench.cloud.servers() == []
    cluster.stop_cluster_sync()


def failing_set(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    """The start of an engine set raises, and all that it had made is gone; the controller, and what is its own, stays."""
    before = bench.cloud.left_over()
    bench.cloud.faults.set(*row.faults)
    with pytest.raises(GriffinError) as raised:
        cluster.start_engines_sync(**row.settings)
    bench.said.append(str(raised.value))
    bench.spent()
    bench.cloud.faults.clear()
    assert bench.cloud.left_over() == before


def ends_of_starts(bench: Bench, run: Run) -> None:
    """Each by itself: first of whole clusters, then of engine sets with a controller that runs."""
    first = [row for row in run.rows if row.stage in OF_CONTROLLER]
    for row in first:
        with bench.proving(row):
            failing_start(bench, row)
            assert bench.cloud.left_over() == []
    cluster = bench.with_controller()
    for row in run.rows[len(first) :]:
        with bench.proving(row):
            failing_set(bench, cluster, row)
    cluster.start_engines_sync()  # nothing of all that harms the next set
    computes(cluster)
    cluster.stop_cluster_sync()


def _left(bench: Bench) -> set[str]:
    """Which of these kinds of things there are."""
    running = bench.cloud.running
    kinds = {"server": running.servers(), "container": running.containers(), "group": running.security_groups()}
    return {kind for kind, found in kinds.items() if found}


def ends_of_stops(bench: Bench, run: Run) -> None:
    """One stop after the other fails, and each ends what the one before it could not; the last one, which nothing disturbs, the rest."""
    cluster = bench.started(**UNWATCHED)
    for row, left in zip(run.rows, LEFT, strict=True):
        with bench.proving(row):
            failing_stop(bench, cluster, row)
            assert _left(bench) == left
    bench.stop(cluster)
    assert bench.cloud.left_over() == []
    cluster.stop_cluster_sync()


def failing_stop(bench: Bench, cluster: ipp.Cluster, row: Row) -> None:
    """The stop raises, and the next one will know what there is."""
    bench.cloud.faults.set(*row.faults)
    with pytest.raises(GriffinError) as raised:
        bench.stop(cluster, stop_timeout=1)
    bench.said.append(str(raised.value))
    # ipyparallel stops controller and engines at the same time: the one goes on when the other has failed, until it fails, too.
    for thread in [thread for thread in threading.enumerate() if thread.name in ("_destroy", "sweep")]:
        thread.join(300)
        assert not thread.is_alive()
    bench.cloud.faults.clear()
    assert Path(cluster.cluster_file).exists()


def stop_again(bench: Bench, row: Row) -> None:
    """The stop raises and says what is left; the next one ends it."""
    cluster = bench.started(on_server=row.on_server, **row.settings)
    failing_stop(bench, cluster, row)
    bench.stop(cluster)
    assert bench.cloud.left_over() == []
    cluster.stop_cluster_sync()


# -- the rows


def _for_good(service: str, stage: str, says: str = "Run the same stop again") -> Row:
    """Longer than anything is repeated."""
    return Row(f"503 of {service} for good", stage, SECOND_STOP, says, faults=({"service": service, "status": 503},))


IN_USE = one("stop: deleting the security group", status=409, count=1000)
ALL = {"server", "container", "group"}
LEFT = (ALL, ALL, {"container", "group"}, {"container", "group"}, {"group"})  # by which of these stops
RUNS = (
    Run("what ends a start", tuple(
        Row(fault, stage, FAILS, says, faults=_final_faults(stage, answer)) for fault, stage, answer, says in _FINAL
    ), ends_of_starts),
    Run("what ends a stop", (
        _for_good("identity", "stop: login", "Can't log in to cloud 'devcloud'…503"),
        _for_good("compute", "stop: deleting the server"),
        _for_good("object-store", "stop: deleting objects"),
        _for_good("network", "stop: deleting the security group"),
        Row("409: something else still uses it", "stop: deleting the security group", SECOND_STOP, "still in use…openstack security group delete", faults=IN_USE),
    ), ends_of_stops, slow=True),
)  # fmt: skip
