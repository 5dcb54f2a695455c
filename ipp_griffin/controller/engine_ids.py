"""Find which engine ids are on which server, by asking controllers whose connection files are on this machine. Blocking, bounded.

A controller whose connection file is on another machine can't be reached, and its engines are left out.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ..common.threads import in_parallel, within
from ..model.connection import cluster_uid
from ..model.names import Place, place_of_engine
from .hub import Hub

MOST_FILES = 1000
FILE_LIMIT = 1 << 16  # bytes of a connection file
ANSWER_TIMEOUT = 3.0  # seconds for a controller to answer

EngineIds = Mapping[Place, list[int]]  # of the engines on each server


def controllers(ipython_dir: Path) -> dict[str, dict[str, Any]]:
    """Return the uid of each cluster with a client's connection file in a profile of this IPython folder -> what is in it."""
    found = {}
    for path in islice(ipython_dir.glob("profile_*/security/ipcontroller*-client.json"), MOST_FILES):
        try:
            if path.is_file() and path.stat().st_size <= FILE_LIMIT:
                info = json.loads(path.read_bytes())
                found[cluster_uid(info)] = dict(info)
        except (OSError, ValueError, TypeError, AttributeError):  # not readable, or not a connection file
            continue
    return found


def engine_ids(uids: Iterable[str], ipython_dir: Path, timeout: float = ANSWER_TIMEOUT) -> dict[str, EngineIds]:
    """Return what the controllers of these clusters list, leaving out those that can't be reached from here. Takes at most twice ``timeout``
    seconds, however many there are."""
    known = controllers(ipython_dir)
    answers: dict[str, EngineIds] = {}

    def ask(uid: str) -> None:
        # A tunnel might ask for a password.
        if not known[uid].get("ssh") and (engines := _ask(known[uid], timeout)) is not None:
            answers[uid] = by_server(engines)

    asked = [uid for uid in uids if uid in known]
    if asked:
        within(2 * timeout, lambda: in_parallel(asked, ask, len(asked)))
    return dict(answers)


def by_server(engines: Mapping[str, int]) -> EngineIds:
    """Group the ids of engines (by uuid) by the place of the server that they are on."""
    found: dict[Place, list[int]] = {}
    for uuid, id in sorted(engines.items(), key=lambda item: item[1]):
        if at := place_of_engine(uuid):
            found.setdefault(at[0], []).append(id)
    return found


def _ask(info: Mapping[str, Any], timeout: float) -> dict[str, int] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the controller is on another machine, say
            with Hub(info, timeout=timeout) as hub:
                return hub.engines()
    except Exception:  # anything may be in that file, or wrong with that controller
        return None
