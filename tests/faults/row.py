"""`Row`: one line of the table of faults, as data; see `table`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .bench import Bench

WORKS = "it works"
FAILS = "the start fails"
SECOND_STOP = "the stop fails, and another one ends it"
NOTHING = "nothing"


@dataclass(frozen=True)
class Row:
    """A fault at a stage, what its user sees, and what is left when all is over.

    ``says``: what the user is told ("…": anything), "" where nothing need be. ``run``: what is done, with the fault in it;
    ``faults``: those that it sets, as `ipp_griffin.devcloud.faults` has them; ``settings``: of the engine set's launcher.
    ``on_server``: the settings of the controller's launcher, where the controller is on a server, too.
    ``slow``: run by `make test-faults` only. ``needs``: of the cloud, see `tests.clouds`.
    """

    fault: str
    stage: str
    sees: str
    run: Callable[[Bench, Row], None]
    says: str = ""
    left: str = NOTHING
    faults: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    on_server: Mapping[str, Any] | None = None
    slow: bool = False
    needs: tuple[str, ...] = ("devcloud",)

    def __str__(self) -> str:
        return f"{self.fault}, {self.stage}"
