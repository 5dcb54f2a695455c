"""`GriffinEngineSetLauncher`: engines on OpenStack servers that it creates, watches and deletes."""

from __future__ import annotations

import dataclasses
import operator
import secrets
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipyparallel.cluster.launcher import EngineLauncher, ipengine_cmd_argv
from traitlets import Unicode

from ..cluster.firewall import UNREACHABLE, admit_engines, admitting_rule
from ..cluster.reconciler import Reconciler
from ..cluster.wait import WaitForEngines, check_not_stopped
from ..common.errors import GriffinError, QuotaTooSmall, SettingError, Stopped
from ..common.processes import has_ended
from ..common.threads import in_thread
from ..controller import heartbeats
from ..model.connection import build, cluster_uid
from ..model.plan import Plan, choose_network
from . import ipcluster
from .arguments import as_before, check_not_running, remembering
from .engine_connection import engine_connection
from .leftovers import Leftovers
from .on_servers import OnServers
from .progress import Progress
from .settings import EngineSettings

if TYPE_CHECKING:
    from ..cluster.engine_set import EngineSet


class GriffinEngineSetLauncher(OnServers, EngineSettings, EngineLauncher):  # type: ignore[misc]
    """Start engines on servers, and return when the controller lists all of them."""

    engine_set = Unicode(help="Names this start of engines; random").tag(to_dict=True)

    engine_set_id: str  # ipyparallel's trait

    def __init__(self, **kwargs: Any) -> None:
        check_not_running(kwargs)
        before = as_before(type(self), kwargs)
        super().__init__(**kwargs, **before)
        self._remember = remembering(type(self), kwargs)
        if before:
            self.log.info(f"Engine set {self.engine_set_id} starts with its earlier settings: {', '.join(before)}")
        self._shared_file: ipcluster.SharedClusterFile | None = None

    def find_args(self) -> list[str]:
        """Return a text for ipyparallel's log lines: there is no local process."""
        return ["griffin engine set"]

    # --- start

    async def start(self, n: int) -> None:
        """Create servers for ``n`` engines; returns when the controller lists all of them.

        Raises `GriffinError` with the cause, after deleting what it created. Under ipcluster, which can't handle an exception here, it
        ends the application with status 1 instead.
        """
        await self._start_safely(lambda: self._start(n))

    async def _start(self, given: Any) -> None:
        deadline = time.monotonic() + self.start_timeout
        self.n = n = _count(given)
        quorum = self.quorum(n)
        settings = self.settle_cloud()
        await in_thread(lambda: self.record_project(settings))
        there = await in_thread(lambda: self.look_up(settings))
        network = choose_network(settings.network, there.networks, self.naming)
        connection = await engine_connection(self, network)
        self.uid, self.engine_set = cluster_uid(connection), secrets.token_hex(4)
        private_object = self._private_object(connection)
        try:
            plan = await in_thread(
                lambda: self._plan_servers(
                    n, settings, there, network, engine_set=self.engine_set, engines_per_server=self.engines_per_server
                )
            )
        except QuotaTooSmall:
            await Leftovers(self.connect(), self.container, uid=self.uid, log=self.log).tell()
            raise
        self.has_groups = settings.manage_security_group or await in_thread(self._cluster_has_groups)
        self._shared_file = ipcluster.SharedClusterFile.take_over(self.parent)
        if self._shared_file is not None:
            self.engine_set_id = self._shared_file.free_id(self.engine_set_id)
        self.notify_start(self.engine_set)
        self._record()  # uid and engine set: enough to find whatever is created from here on
        self.log.info(f"Starting {plan}")
        await in_thread(lambda: self._open_container(settings))
        if self.has_groups:
            plan = await in_thread(lambda: self._admit(plan, connection, private_object))
        publish = [] if self.has_groups else [lambda: self._on_cloud().publish(private_object)]
        reconciler = self._reconciler_of(plan, settings, quorum=quorum)
        await in_thread(lambda: reconciler.create(plan.servers, *publish))
        self._record()
        try:
            await self._wait_for_engines(reconciler, n, deadline)
        except GriffinError as e:
            if any(UNREACHABLE in failure.cause for failure in reconciler.roster.failures) and not isinstance(
                e, Stopped
            ):
                rule = await in_thread(lambda: admitting_rule(self.connect(), connection, network))
                e.args = (f"{e} {rule}",)
            raise
        self._record()
        self.log.info(str(reconciler.roster))
        self._remember()
        self._watch(reconciler)

    async def _wait_for_engines(self, reconciler: Reconciler, n: int, deadline: float) -> None:
        """Wait until the quorum is reached, or can't be; then report leftovers of earlier clusters, which are searched for during the wait."""
        leftovers = Leftovers(self.connect(), self.container, uid=self.uid, log=self.log)
        waiting = WaitForEngines(
            reconciler,
            settle=not self._lives_on(),
            controller=getattr(self.parent, "controller", None),
            stopping=self._stopping,
            timeout=self.start_timeout,
            deadline=deadline,
            poll_interval=self.poll_interval,
            progress=Progress(n, self.log, self.progress),
        )
        try:
            try:
                await in_thread(lambda: waiting.run(self.open_hub))
            except Stopped:
                raise
            except GriffinError:
                await leftovers.tell()
                raise
            await leftovers.tell()
        finally:
            leftovers.cancel()

    def _lives_on(self) -> bool:
        """Return whether this process lives on after the start, and so can handle stragglers."""
        app = ipcluster.application(self)
        return not (app is not None and app.daemonize) and getattr(self.parent, "shutdown_atexit", True)

    def _cluster_has_groups(self) -> bool:
        """Return whether the cluster that this set joins has security groups of its own, whatever the settings here say. Blocking.

        If it has, its controller admits only their members. It may have been started with another profile, or on another machine.
        """
        controller = getattr(self.parent, "controller", None)
        if getattr(controller, "has_groups", False):
            return True
        joins = controller is None or len(self.parent.engines) > 1
        return joins and self.connect().groups.exist(self.uid)

    def _private_object(self, connection: dict[str, Any]) -> bytes:
        """Return the content of the private object, which agents read."""
        import ipyparallel

        return build(
            connection,
            ipyparallel_version=ipyparallel.__version__,
            ipengine_config=self._ipengine_config(connection),
            environment={**self.cluster_env, **self.environment},
            engine_cmd=[] if self.engine_cmd == ipengine_cmd_argv else self.engine_cmd,
            engine_args=self.engine_args,
            **self.for_agents(),
        )

    def _admit(self, plan: Plan, connection: dict[str, Any], private_object: bytes) -> Plan:
        """Make the cluster's security groups; return the plan with the group for its servers. Blocking; `stop` waits for it.

        Call it after the private object is stored: while that exists, no stop of another set deletes the groups.
        """
        with self._cloud_work:
            check_not_stopped(self._stopping)
            self._on_cloud().publish(private_object)
            group = admit_engines(self.connect(), self.uid, connection, plan.network, self.log)
            return dataclasses.replace(plan, security_groups=(*plan.security_groups, group))

    def _ipengine_config(self, connection: dict[str, Any]) -> str:
        """Return the profile's ipengine_config.py, which travels with the connection file; "" where there is none."""
        path = Path(self.profile_dir, "ipengine_config.py")
        config = path.read_text() if path.is_file() else ""
        return heartbeats.for_engine(config, connection)

    # --- state in the cluster file

    def _record(self) -> None:
        self.servers = list(self.servers)
        if self._shared_file is not None:
            self._shared_file.put(self.engine_set_id, self.to_dict())
        else:
            super()._record()

    # --- watching

    def _replaces(self) -> bool:
        return bool(self.replace)

    def _goes_on(self) -> bool:
        """Return whether the cluster is not stopping, so that a new server makes sense."""
        return super()._goes_on() and not has_ended(getattr(self.parent, "controller", None))

    # --- stop

    async def stop(self) -> None:
        """Delete the servers and objects of this set, and return when a listing shows none. Idempotent.

        Raises `CloudError` naming what is left; then the set still counts as running, and can be stopped again.
        """
        ipcluster.guard(self)
        try:
            await self.take_down()
        except GriffinError as e:
            await ipcluster.end_failed_stop(self, e)

    async def take_down(self) -> None:
        """Do what `stop` does, for the controller's launcher, but raise under ipcluster, too."""
        self._stopping.set()
        try:
            await in_thread(self._destroy)
        except GriffinError as e:
            e.args = (f"{e} {self.try_again()}",)
            raise
        if self._is_last_without_controller():
            await in_thread(self.sweep)
            self.remove_connection_files()
        self._finish({"exit_code": 0, "identifier": self.identifier})

    def _is_last_without_controller(self) -> bool:
        """Return whether nobody else will delete what the cluster's uid still has, for instance because the controller died.

        True only for a cluster restored from its file: a set that `ipcluster engines` adds has its controller elsewhere.
        """
        if not self._restored or self.parent is None or self.parent.controller is not None:
            return False
        others = [e for e in self.parent.engines.values() if e is not self and getattr(e, "uid", "") == self.uid]
        return bool(self.uid) and all(getattr(e, "_gone", True) for e in others)

    def _finish(self, data: dict[str, Any]) -> None:
        if self._shared_file is not None:
            self._shared_file.remove(self.engine_set_id)
        self.notify_stop(data)

    def _tear_down(self, *, through_hub: bool = True) -> None:
        """Shut the engines down, keep their output and the consoles, delete the servers."""
        engine_set = self._on_cloud()
        left = through_hub and self._leave_hub()
        self._output.read(engine_set, self.output_servers, wait=self.leave_timeout if left else 0)
        engine_set.destroy(
            self.servers,
            timeout=self.stop_timeout,
            groups=self.has_groups,
            before_deletion=lambda there: self._output.read_consoles(engine_set, there[: self.output_servers]),
        )

    def _leave_hub(self) -> bool:
        """Shut the engines down through the hub, which otherwise keeps their ids for many heartbeats; return whether there were any."""
        try:
            with self.open_hub(timeout=self.leave_timeout) as hub:
                if not hub.engines(self.engine_set):
                    return False
                hub.shut_down(self.engine_set, timeout=self.leave_timeout)
        except Exception as e:  # no controller any more, or one that does not answer
            self.log.debug(f"Engines were not shut down through the controller: {type(e).__name__}: {e}")
            return False
        return True

    # --- what ipyparallel asks of a running set

    def signal(self, sig: int | str) -> Any:
        """Send a signal to every engine, through its nanny. SIGTERM and SIGKILL stop the set: its servers go, too.

        Returns an awaitable.
        """
        if isinstance(sig, str):  # "INT" or "SIGINT": the engines' system looks it up
            sig = sig if sig.startswith("SIG") else f"SIG{sig}"
        if sig in (signal.SIGTERM, signal.SIGKILL, "SIGTERM", "SIGKILL"):
            return self.stop()
        return in_thread(lambda: self._signal(sig))

    def _signal(self, sig: int | str) -> None:
        if not self.engine_set:  # it failed before it had a name, and to the hub an empty name means all sets
            return
        try:
            with self.open_hub() as hub:
                reached = hub.signal(self.engine_set, sig)
        except GriffinError as e:
            self.log.warning(f"Signal {sig} was not sent: {e}")
            return
        if reached == 0:
            self.log.warning(f"No engine of {self.identifier} is connected: signal {sig} reached none.")

    def engine_ids(self) -> list[int]:
        """Return the ids of this set's engines that the controller lists now, as for ``rc[engine_set.engine_ids()]``. Blocking.

        Raises `GriffinError` where no controller answers.
        """
        if not self.engine_set:
            return []
        with self.open_hub() as hub:
            return sorted(hub.engines(self.engine_set).values())

    def get_output(self, remove: bool = False) -> str:
        """Return the engines' output as their servers last reported it. After `stop`, also by another process on this machine, it is the output at
        the end, with the last lines of the servers' consoles; the profile's log/ has it, too."""
        return self._read_output(self.output_servers)

    # --- doors

    def _open(self, servers_url: str) -> EngineSet:
        from ..cluster.engine_set import EngineSet

        return EngineSet(self.connect(), self.open_store(servers_url), self.uid, self.engine_set, self.parallel)


def _count(given: Any) -> int:
    """Return the number of engines. Raises `SettingError` if it is not a positive integer."""
    try:
        n = operator.index(given)
    except TypeError:  # 2.5, or "2"
        n = 0
    if n < 1:
        raise SettingError(f"Can't start {given} engines: -n (Cluster.n) must be 1 or more.")
    return n
