"""`Row`: one line, or one mark, of the tables of faults. `Run`: a test, which shows one row or many. Both are data; see `table`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import ipyparallel as ipp

from .bench import Bench

WORKS = "it works"
FAILS = "the start fails"
SECOND_STOP = "the stop fails; repeating it succeeds"
NOTHING = "nothing"


@dataclass(frozen=True)
class Row:
    """A fault at a stage, what its user sees, and what is left when all is over.

    ``says``: what the user is told ("…": anything), "" where nothing need be. ``faults``: those that are set for it, as
    `ipp_griffin.devcloud.faults` has them; ``settings``: of the engine set's launcher; ``on_server``: the settings of the controller's
    launcher, where the controller is on a server, too. ``marked``: it is a mark of a matrix, not a line.
    """

    fault: str
    stage: str
    sees: str
    says: str = ""
    left: str = NOTHING
    faults: tuple[Mapping[str, Any], ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    on_server: Mapping[str, Any] | None = None
    marked: bool = False

    def __str__(self) -> str:
        return f"{self.fault}, {self.stage}"

    def having(self, **settings: Any) -> Row:
        """The same with more settings of the engine set's launcher."""
        return replace(self, settings={**self.settings, **settings})


@dataclass(frozen=True)
class Run:
    """What one test does: one cluster or a few, in which each of ``rows`` is met and proved by `Bench.proving`.

    ``slow``: by `make test-faults` only. ``needs``: of the cloud, see `tests.clouds`.
    """

    name: str
    rows: tuple[Row, ...]
    do: Callable[[Bench, Run], None]
    slow: bool = False
    needs: tuple[str, ...] = ("devcloud",)

    def __str__(self) -> str:
        return self.name


def alone(row: Row, do: Callable[[Bench, Row], None], **options: Any) -> Run:
    """A run of one row, of that name."""

    def run(bench: Bench, run: Run) -> None:
        with bench.proving(row):
            do(bench, row)

    return Run(str(row), (row,), run, **options)


Step = tuple[Row, Callable[[Bench, ipp.Cluster, Row], None]]


def on_one_cluster(name: str, *steps: Step, on_server: Mapping[str, Any] | None = None, **options: Any) -> Run:
    """A run of rows with one controller, which the run stops at its end; the steps start and stop their engine sets."""

    def run(bench: Bench, run: Run) -> None:
        cluster = bench.with_controller(on_server)
        for row, do in steps:
            with bench.proving(row):
                do(bench, cluster, row)
        cluster.stop_cluster_sync()

    return Run(name, tuple(row for row, _ in steps), run, **options)


def one_by_one(name: str, *steps: tuple[Row, Callable[[Bench, Row], None]], **options: Any) -> Run:
    """A run of rows of one start each, one after the other; the cloud has nothing of each when it is over."""

    def run(bench: Bench, run: Run) -> None:
        for row, do in steps:
            with bench.proving(row):
                do(bench, row)
                assert bench.cloud.left_over() == []

    return Run(name, tuple(row for row, _ in steps), run, **options)
