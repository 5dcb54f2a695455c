"""Any one call of a door fails, once, in a start, in a stop, or while a failed start is cleaned up.

Which calls there are is recorded from runs that succeed, so that a new one is tried without a word here; only what may fail without
failing the whole is written down, with the promise behind it.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ipp_griffin.cloud.security_groups import SecurityGroup
from ipp_griffin.cluster import wait as waiting
from ipp_griffin.common.errors import CloudError, GriffinError, QuotaError, Unavailable
from ipp_griffin.launchers import GriffinEngineSetLauncher, GriffinServerControllerLauncher
from ipp_griffin.launchers import local_access as attaching
from ipp_griffin.model.connection import cluster_uid

from ..fakes import Call, FakeCluster
from ..fakes.clock import without_pauses
from .doors import ADDRESS, CONNECTION, Doors, StoreWithAgent

REFUSAL, OUTAGE = CloudError, Unavailable  # final, and not
LOOKS = ("reports", "read_report", "console_output")  # what is read for people


class Stage:
    """Launchers of one kind on one cloud, with settings that have them ask for all there is to ask for."""

    def __init__(self, folder: Path, doors: Doors, patch: pytest.MonkeyPatch) -> None:
        (folder / "security").mkdir()
        self.folder, self.doors = folder, doors
        offers = replace(doors.cloud.offers, key_names=["k"], security_groups={"g": "lab"}, zones=["z"])
        doors.cloud.offers, doors.cloud.leaves_ports = offers, True
        self.cluster = FakeCluster(doors.cloud)
        self.cluster.config.GriffinCloud.update(
            key_name="k", security_groups=["lab"], availability_zone="z", manage_security_group=True
        )
        self.settings: dict[str, Any] = {
            "parent": self.cluster,
            "profile_dir": str(folder),
            "poll_interval": 0.0,
            "max_lifetime": 3600.0,
        }

    def launcher(self) -> Any:
        """A new one, as ipyparallel makes one for each start."""
        raise NotImplementedError

    async def start(self, launcher: Any) -> None:
        raise NotImplementedError

    last: str  # the call after which there is a server, and which `refuse` lets fail

    def refuse(self) -> None:
        """Let a start fail that has a server."""
        raise NotImplementedError

    @staticmethod
    def starts(call: Call, nth: int, error: type[CloudError]) -> bool:
        """Whether a start goes on where its ``nth`` call of that method fails."""
        if call.method == "limits":  # a quota that the cloud does not tell shows when servers are made
            return error is REFUSAL
        if call.method == "create_server":  # what may have been made is looked for, else asked for again
            return error is OUTAGE
        # polled again and again; what earlier clusters left is told, or not
        return call.method in ("servers", "reports")

    @staticmethod
    def stops(call: Call) -> bool:
        """Whether a stop goes on: nothing that is for the hub, or only for looks, fails it; ports are deleted until a listing shows none."""
        return call.door == "hub" or str(call) == "cloud.ports.delete" or call.method in LOOKS


class Engines(Stage):
    """An engine set beside its controller. The hub lists its engines when it is asked for the second time."""

    last = "cloud.create_server"

    def __init__(self, folder: Path, doors: Doors, patch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, doors, patch)
        patch.setattr(waiting, "TICK", 0.0)
        listed, asked = doors.hub.engines, set[str]()

        def engines(engine_set: str = "") -> dict[str, int]:
            found = listed(engine_set)
            if engine_set in asked:
                return found
            asked.add(engine_set)
            return {}

        patch.setattr(doors.hub, "engines", engines)

    def launcher(self) -> Any:
        made = GriffinEngineSetLauncher(**self.settings)
        made.environment = {"IPP_CONNECTION_INFO": json.dumps(CONNECTION)}
        Path(made.connection_files["client"]).write_text(json.dumps(CONNECTION))
        self.cluster.launcher, self.cluster.engines = made, {"1": made}
        return made

    async def start(self, launcher: Any) -> None:
        await launcher.start(2)

    def refuse(self) -> None:
        self.doors.cloud.fail["create_server"] = [None, QuotaError("Quota exceeded.")]


class MoreEngines(Engines):
    """An engine set that joins a cluster of another machine, which has security groups and another engine set, and keeps them."""

    def __init__(self, folder: Path, doors: Doors, patch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, doors, patch)
        self.cluster.config.GriffinCloud.manage_security_group = False
        self.cluster.controller = None
        uid = cluster_uid(CONNECTION)
        doors.cloud.groups.there = [SecurityGroup("g-0", "", uid, part) for part in ("engines", "controller")]
        doors.store.there[uid] = {"0123abcd/connection.json": b"{}"}


class Controller(Stage):
    """A controller on a server, with a floating IP."""

    last = "cloud.floating_ips.attach"

    def __init__(self, folder: Path, doors: Doors, patch: pytest.MonkeyPatch) -> None:
        super().__init__(folder, doors, patch)
        doors.cloud.address, doors.store = ADDRESS, StoreWithAgent(doors.calls)
        patch.setattr(attaching, "TICK", 0.0)
        patch.setattr(attaching, "why_unreachable", lambda info: "")
        patch.setattr(attaching, "own_address", lambda address: "192.0.2.1/32")

    def launcher(self) -> Any:
        made = GriffinServerControllerLauncher(floating_ip="auto", **self.settings)
        self.cluster.launcher = self.cluster.controller = made
        return made

    async def start(self, launcher: Any) -> None:
        await launcher.start()

    def refuse(self) -> None:
        self.doors.cloud.floating_ips.fail["attach"] = [QuotaError("Quota exceeded.")]

    @staticmethod
    def starts(call: Call, nth: int, error: type[CloudError]) -> bool:
        if call.door == "hub":  # it is tried until reach_timeout
            return True
        if error is OUTAGE and (call.method in ("attach", "get") or (call.method == "put" and nth == 2)):
            return True  # what a server needs on its way up is tried again with the next poll
        return Stage.starts(call, nth, error)


@contextmanager
def stage(kind: type[Stage]) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        without_pauses(patch)
        yield kind(Path(folder), Doors(patch), patch)


@dataclass(frozen=True)
class Failure:
    """The ``nth`` call of a door's method raises: before anything is done or, ``late``, after it, as if the answer was lost."""

    call: Call
    nth: int
    error: type[CloudError]
    late: bool

    @contextmanager
    def on(self, doors: Doors) -> Iterator[None]:
        """It happens meanwhile."""
        door = doors[self.call.door]
        errors: list[Exception | None] = [*[None] * (self.nth - 1), self.error("it broke")]
        (door.fail_late if self.late else door.fail)[self.call.method] = errors
        yield
        assert errors == [], "it did not happen"

    def __str__(self) -> str:
        return f"{self.call} number {self.nth}: {self.error.__name__}{', late' if self.late else ''}"


def failures(calls: list[Call], name: str) -> list[Failure]:
    """The ways in which the calls of that name can fail."""
    same = [call for call in calls if str(call) == name]
    ways = (REFUSAL, False), (OUTAGE, False), (OUTAGE, True)
    return [Failure(call, nth, *way) for nth, call in enumerate(same, 1) for way in ways]


async def calls_of_start(kind: type[Stage]) -> list[Call]:
    with stage(kind) as on:
        launcher = on.launcher()
        await on.start(launcher)
        launcher._stopping.set()  # ends the watcher
        return list(on.doors.calls)


async def calls_of_stop(kind: type[Stage]) -> list[Call]:
    with stage(kind) as on:
        launcher = await running(on)
        on.doors.calls.clear()
        await launcher.stop()
        return list(on.doors.calls)


async def calls_of_clean_up(kind: type[Stage]) -> list[Call]:
    return (await calls_of_a_failed_start(kind))[1]


async def calls_of_a_failed_start(kind: type[Stage]) -> tuple[list[Call], list[Call]]:
    """Those until it has failed, and those of its clean-up."""
    with stage(kind) as on:
        await fail_to_start(on)
        calls = list(on.doors.calls)
        refused = max(n for n, call in enumerate(calls) if str(call) == on.last)
        return calls[: refused + 1], calls[refused + 1 :]


async def running(on: Stage) -> Any:
    launcher = on.launcher()
    await on.start(launcher)
    assert launcher.state == "running"
    return launcher


async def fail_to_start(on: Stage) -> None:
    """When it has a server."""
    on.refuse()
    launcher = on.launcher()
    with pytest.raises(QuotaError, match=r"^Quota exceeded\.$"):
        await on.start(launcher)
    assert launcher.state == "after"


def each(record: Callable[[type[Stage]], Awaitable[list[Call]]]) -> pytest.MarkDecorator:
    """A test for each kind of launcher and each method of a door that it calls; of a set that joins, those that it alone calls, or more
    often. No connection to the hub fails to end."""
    counts = {kind: Counter(map(str, asyncio.run(record(kind)))) for kind in (Engines, MoreEngines, Controller)}
    counts[MoreEngines] -= counts[Engines]
    found = [(kind, call) for kind, calls in counts.items() for call in calls]
    parameters = sorted(((kind, call) for kind, call in found if call != "hub.close"), key=str)
    return pytest.mark.parametrize(("kind", "call"), parameters, ids=[f"{k.__name__}-{c}" for k, c in parameters])


@each(calls_of_start)
async def test_a_start_that_fails_at_any_stage_tells_its_cause_and_leaves_nothing_and_the_next_one_works(kind, call):
    for failure in failures(await calls_of_start(kind), call):
        with stage(kind) as on:
            before, launcher = on.doors.left_over(), on.launcher()
            with failure.on(on.doors):
                if on.starts(failure.call, failure.nth, failure.error):
                    await on.start(launcher)
                    assert launcher.state == "running", failure
                    await launcher.stop()
                else:
                    with pytest.raises(GriffinError, match="it broke") as raised:
                        await on.start(launcher)
                    assert "Cleaning up failed" not in str(raised.value), failure
            assert (launcher.state, on.doors.left_over()) == ("after", before), failure
            again = await running(on)
            await again.stop()
            assert (again.state, on.doors.left_over()) == ("after", before), failure


@each(calls_of_clean_up)
async def test_a_failed_start_is_cleaned_up_whatever_fails_once_meanwhile(kind, call):
    """What failed the start may fail its clean-up, too."""
    sooner = list(map(str, (await calls_of_a_failed_start(kind))[0])).count(call)
    for failure in failures(await calls_of_clean_up(kind), call):
        with stage(kind) as on:
            before = on.doors.left_over()
            with replace(failure, nth=sooner + failure.nth).on(on.doors):
                await fail_to_start(on)
            assert on.doors.left_over() == before, failure


@each(calls_of_stop)
async def test_a_stop_that_fails_at_any_stage_says_so_and_the_next_one_ends_it(kind, call):
    for failure in failures(await calls_of_stop(kind), call):
        with stage(kind) as on:
            before, launcher = on.doors.left_over(), await running(on)
            with failure.on(on.doors):
                if on.stops(failure.call):
                    await launcher.stop()
                else:
                    with pytest.raises(GriffinError, match=r"it broke.*Run the same stop again"):
                        await launcher.stop()
                    assert launcher.state == "running", failure
            await launcher.stop()
            assert (launcher.state, on.doors.left_over()) == ("after", before), failure


@pytest.mark.parametrize("failing", ["cloud.floating_ips.release", "store.delete_container", "cloud.groups.remove"])
async def test_all_that_a_stop_deletes_after_the_servers_is_tried_though_one_fails(failing):
    with stage(Controller) as on:
        launcher = await running(on)
        door, _, method = failing.rpartition(".")
        on.doors[door].fail[method] = [OUTAGE("it broke")]
        on.doors.calls.clear()
        with pytest.raises(OUTAGE, match="it broke"):
            await launcher.stop()
        asked = {str(call) for call in on.doors.calls}
        assert asked >= {"cloud.floating_ips.release", "store.delete_container", "cloud.groups.remove"}


async def test_a_stop_that_can_not_list_servers_deletes_those_that_it_knows():
    with stage(Engines) as on:
        launcher = await running(on)
        on.doors.cloud.fail["servers"] = [OUTAGE("it broke")]
        with pytest.raises(OUTAGE, match="it broke"):
            await launcher.stop()
        assert on.doors.cloud.there == {}
        await launcher.stop()
