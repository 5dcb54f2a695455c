"""`Reconciler`: poll the servers of one engine set, and replace or delete those that fail."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from textwrap import indent
from typing import TYPE_CHECKING, Any

from ..common.errors import GriffinError, QuotaError, Stopped
from ..common.text import one_line
from ..common.times import iso
from ..model.slots import Failure, Roster, Slot, tell

if TYPE_CHECKING:
    from ..controller.hub import Hub
    from ..model.names import Place
    from ..model.plan import ServerPlan
    from .engine_set import EngineSet, Survey

MOST_EXPLAINED = 10  # failures per poll whose cause and console are fetched, with one request each
CONSOLE_LINES = 20

Created = Callable[["ServerPlan", str], None]


class Reconciler:
    """The wait for a start uses it first, then the watcher of the running set. Blocking.

    ``create``: makes servers, calls back with the id of each, and runs the extra callables concurrently; None for a set that another
    process made: then nothing is replaced. ``on_change``: called when there are other servers than before. ``goes_on``: returns whether
    the cluster is not stopping, so that a server may be replaced.
    """

    def __init__(
        self,
        open_engine_set: Callable[[], EngineSet],
        roster: Roster,
        *,
        create: Callable[..., None] | None,
        on_change: Callable[[], None],
        goes_on: Callable[[], bool],
        stopping: threading.Event,
        log: Any,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open_engine_set, self.roster, self.clock = open_engine_set, roster, clock
        self._create, self._on_change, self._goes_on = create, on_change, goes_on
        self._stopping, self._log = stopping, log
        self._doomed: set[str] = set()  # ids of servers to delete, until no listing shows them
        self._history: list[dict[str, str | int]] = []
        self.survey: Survey | None = None  # of the last poll that the cloud answered
        self._unreachable_since: float | None = None

    @property
    def engine_set(self) -> EngineSet:
        """Return the engine set on the cloud. Opening it may ask the cloud, and raise `GriffinError`."""
        return self._open_engine_set()

    @property
    def servers(self) -> list[str]:
        """Return the ids of the set's servers."""
        return [slot.id for slot in self.roster.slots if slot.id and not slot.given_up]

    def create(self, servers: Sequence[ServerPlan], *beside: Callable[[], None]) -> None:
        """Create these servers of the roster, and run the functions ``beside`` concurrently. Raises what the cloud raises."""

        slots = {slot.place: slot for slot in self.roster.slots}

        def created(planned: ServerPlan, id: str) -> None:
            slots[planned.place].created(id, self.clock())

        assert self._create is not None
        try:
            self._create(servers, created, *beside)
        finally:
            self._on_change()  # once, since it copies all servers

    def poll(
        self, registered: Mapping[Place, int], *, reports: bool, replace_settled: bool, hub: Hub | None = None
    ) -> bool:
        """Poll the servers, delete those that failed, and fill their slots again. Return whether the cloud answered.

        An outage fails nothing, and is logged once. ``replace_settled``: also replace servers that had their engines; else those are
        only logged, and kept. ``hub``: to shut down the engines that a failed server still has.
        """
        try:
            survey = self.engine_set.survey(reports=reports)
            if self._create is None:
                self.roster.adopt(survey.servers, self.clock())
            survey = self.engine_set.delete_spares(survey, self.servers)
        except GriffinError as e:
            if self._unreachable_since is None:
                self._log.warning(f"Can't list the servers now; will retry: {e}")
                self._unreachable_since = self.clock()
            return False
        if self._unreachable_since is not None:
            self.roster.excuse(self.clock() - self._unreachable_since)
            self._unreachable_since = None
        self.survey = survey
        failures = self.roster.observe(survey.by_name, survey.reports, registered, self.clock())
        self._see_to([self._explained(f, n) for n, f in enumerate(failures)], replace_settled, hub)
        self._delete_doomed(survey)
        self._fill(survey)
        return True

    def give_up_stragglers(self, cause: str) -> None:
        """Delete every server that does not have its engines."""
        for slot in self.roster.unsettled:
            self._doomed |= {slot.id} - {""}
            self._log.warning(tell([self.roster.fail(slot, cause)]))
        self._on_change()
        self._delete_doomed()

    def check_quorum(self) -> None:
        """Raise `GriffinError`, with the phase and the cause of each failed server, if the set can no longer get enough engines."""
        roster = self.roster
        if roster.possible < roster.quorum and roster.role:
            raise GriffinError(
                f"The controller got no server. {tell(roster.failures)} Everything that this start created is deleted."
            )
        if roster.possible < roster.quorum:
            quorum = (
                f"{roster.quorum} of its {roster.engines}"
                if roster.quorum < roster.engines
                else f"its {roster.engines}"
            )
            raise GriffinError(
                f"The engine set can no longer get {quorum} engines. {tell(roster.failures)} All servers of "
                "this start are deleted."
            )

    # -- failures

    def _explained(self, failure: Failure, number: int) -> Failure:
        """Return the failure with the cause that the agent's report gives; only the first few reports are read."""
        if failure.report is None:
            return failure
        cause = "gave up"
        if number < MOST_EXPLAINED:
            with contextlib.suppress(GriffinError):
                cause = f"gave up: {self.engine_set.why(failure.report)}"
        return self.roster.explain(failure, cause)

    def _see_to(self, failures: Sequence[Failure], replace_settled: bool, hub: Hub | None) -> None:
        """Delete these servers and give their slots to others; those that are only logged stay as they are."""
        only_told = [f for f in failures if self._create is None or (f.settled and not replace_settled)]
        if only_told and len(only_told) == len(self.roster.slots) and all(f.server is None for f in only_told):
            which = "The controller's server is" if self.roster.role else "All servers of this engine set are"
            self._log.warning(f"{which} gone: stopped from elsewhere, or deleted.")
            return
        for failure in only_told:
            self._log.warning(tell([failure]))
        failures = [f for f in failures if f not in only_told]
        if not failures:
            return
        successors = [self.roster.replace(failure, self.clock()) for failure in failures]
        for failure, successor in zip(failures, successors, strict=True):
            if successor is None:
                self.roster.give_up(failure)
        hopeless = self.roster.possible < self.roster.quorum  # the whole set will be deleted
        for number, (failure, successor) in enumerate(zip(failures, successors, strict=True)):
            then = f" It is deleted, and {successor.name} takes its slot." if successor else " It is deleted."
            self._log.warning(tell([failure]) + ("" if hopeless else then))
            if number < MOST_EXPLAINED:
                self._tell_console(failure)
            self._history.append(_remembered(failure, successor is not None))
            self._doomed |= {failure.id} - {""}
            if not hopeless:
                self._leave_hub(failure, hub)
        with contextlib.suppress(GriffinError):  # it only serves `ipp-griffin timeline`
            self.engine_set.write_history(self._history)
        self._on_change()

    def _tell_console(self, failure: Failure) -> None:
        """Log the end of the console of a server that reported nothing."""
        if failure.server is None or failure.report is not None or failure.server.status == "ERROR":
            return
        with contextlib.suppress(GriffinError):
            lines = self.engine_set.cloud.console_output(failure.server.id, CONSOLE_LINES).splitlines()
            text = "\n".join(one_line(line, 200) for line in lines[-CONSOLE_LINES:]) or "(nothing)"
            self._log.warning(f"The end of {failure.planned.name}'s console:\n{indent(text, '  ')}")

    def _leave_hub(self, failure: Failure, hub: Hub | None) -> None:
        """Shut the engines down through the hub, which would list those of a deleted server for many heartbeats more."""
        if hub is None:
            return
        with contextlib.suppress(Exception):  # the hub will notice by missing heartbeats
            hub.shut_down(failure.planned.place.uuid_prefix, timeout=1.0)

    def _delete_doomed(self, survey: Survey | None = None) -> None:
        """Delete the doomed servers; repeat it for as long as a ``survey`` lists them."""
        if not self._doomed:
            return
        try:
            self.engine_set.cloud.delete_servers(sorted(self._doomed), self.engine_set.parallel)
        except GriffinError as e:
            self._log.warning(f"Will retry: {e}")
            return
        if survey is not None:
            gone = self._doomed - {server.id for server in survey.servers}
            self._doomed -= gone
            try:
                if gone:
                    self.engine_set.delete_ports(gone)
            except GriffinError as e:
                self._log.warning(str(e))

    def _fill(self, survey: Survey) -> None:
        """Create the servers that take the slots of failed ones, once those are gone: quota counts them until then."""
        if self._create is None or self._stopping.is_set():
            return
        vacant, there = self.roster.vacant(server.id for server in survey.servers), survey.by_name
        for slot in vacant:
            if slot.planned.name in there:  # it was requested before, and the answer was lost
                slot.created(there[slot.planned.name].id, self.clock())
        vacant = [slot for slot in vacant if not slot.id]
        if not vacant:
            return
        try:
            if not (self._goes_on() and self.engine_set.is_published()):
                self._give_up_on(vacant, "gets no other server, because the cluster is ending")
                return
            self.create([slot.planned for slot in vacant])
            if not self.engine_set.is_published():  # stopped from elsewhere while these were being created
                self._doomed |= {slot.id for slot in vacant if slot.id}
                self._delete_doomed()
        except QuotaError as e:  # final: retrying would not help
            self._give_up_on([slot for slot in vacant if not slot.id], f"could not be created: {e}")
        except Stopped:
            raise
        except GriffinError as e:
            self._log.warning(f"Will retry: {e}")

    def _give_up_on(self, slots: Sequence[Slot], cause: str) -> None:
        for slot in slots:
            self._log.warning(tell([self.roster.fail(slot, cause)]))


def _remembered(failure: Failure, replaced: bool) -> dict[str, str | int]:
    """Return a failure as `ipp-griffin timeline` reads it."""
    return {
        "name": failure.planned.name,
        "slot": failure.planned.place.slot,
        "incarnation": failure.planned.place.incarnation,
        "created": failure.server.created if failure.server else "",
        "launched": failure.server.launched if failure.server else "",
        "replaced": replaced,
        "ended": iso(time.time()),
        "why": f"({failure.phase}) {failure.cause}",
    }
