"""What servers and containers carry for people who look at the cloud, and for `ipp-griffin`: no secret, and nothing that deletes."""

from __future__ import annotations

import dataclasses
import getpass
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..common.times import iso

if TYPE_CHECKING:
    from ..launchers.on_servers import OnServers
    from .plan import ServerPlan


def labels_of(launcher: OnServers, *, started: float, expires: int) -> dict[str, str]:
    """Of an engine set, or a controller, whose start began at ``started``, and whose servers expire (0: never), in seconds since 1970."""
    labels = {
        "owner": _user_name(),
        "host": socket.gethostname(),
        "container": launcher.container,
        "profile": Path(launcher.profile_dir).name.removeprefix("profile_"),
        "cluster_id": launcher.cluster_id,
        "started": iso(started),
        "start_deadline": iso(started + launcher.start_timeout),
    }
    return {**labels, "expires": iso(expires)} if expires else labels


def labelled_anew(planned: ServerPlan, start_timeout: float) -> ServerPlan:
    """A server that takes another's slot, perhaps days later, starts now: `ipp-griffin reap` must give it its time."""
    if planned.incarnation == 0:
        return planned
    now = time.time()
    labels = {"griffin:requested": iso(now), "griffin:start_deadline": iso(now + start_timeout)}
    return dataclasses.replace(planned, metadata={**planned.metadata, **labels})


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as in some containers
        return "unknown"
