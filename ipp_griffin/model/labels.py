"""Labels of servers and containers, for `ipp-griffin` and for people. Pure.

They hold no secret, and nothing is deleted because of a label alone.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from ..common.times import iso

if TYPE_CHECKING:
    from .plan import ServerPlan


def labels(
    *,
    owner: str,
    host: str,
    container: str,
    profile: str,
    cluster_id: str,
    started: float,
    start_timeout: float,
    expires: int = 0,
) -> dict[str, str]:
    """Return the labels of an engine set, or of a controller's server.

    ``owner`` and ``host``: user and machine that start it; ``started``: when the start began, and ``expires``: when the servers power
    themselves off (0: never), in seconds since 1970; ``start_timeout``: in seconds.
    """
    labels = {
        "owner": owner,
        "host": host,
        "container": container,
        "profile": profile,
        "cluster_id": cluster_id,
        "started": iso(started),
        "start_deadline": iso(started + start_timeout),
    }
    return {**labels, "expires": iso(expires)} if expires else labels


def labelled_anew(planned: ServerPlan, start_timeout: float, now: float) -> ServerPlan:
    """Return ``planned``, a replacement, with the times of a start that begins at ``now`` (seconds since 1970).

    A replacement may start days after its set, and `ipp-griffin reap` must not take it for a failed one.
    """
    if planned.place.incarnation == 0:
        return planned
    labels = {"griffin:requested": iso(now), "griffin:start_deadline": iso(now + start_timeout)}
    return dataclasses.replace(planned, metadata={**planned.metadata, **labels})
