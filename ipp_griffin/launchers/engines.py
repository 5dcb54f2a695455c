"""`GriffinEngineSetLauncher`: engines on OpenStack servers that it creates, watches and deletes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import secrets
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ipyparallel.cluster.launcher import EngineLauncher, ipengine_cmd_argv
from traitlets import Bool, List, Unicode

from .. import ipcluster
from ..plan import GriffinError, Network, Plan, QuotaTooSmall, ServerPlan, SettingError, Stopped, choose_network
from ..rendezvous import build, cluster_uid
from ..roster import Roster
from ..threads import in_thread
from .admission import UNREACHABLE, admit_engines, admitting_rule
from .common import OnCloud, has_ended
from .connection import engine_connection
from .engine_settings import EngineSettings
from .keeper import Created, Keeper
from .labels import labelled_anew, labels_of
from .leftovers import Leftovers
from .output import Output
from .progress import Progress
from .waiting import WaitForEngines, check_not_stopped
from .watch import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..engine_set import EngineSet
    from ..hub import Hub
    from ..settings import GriffinCloud

WEEK = 7 * 24 * 3600
HOUR = 3600
CLEAN_UP_PAUSE = 3.0  # seconds between two tries to take down a failed start


class GriffinEngineSetLauncher(OnCloud, EngineSettings, EngineLauncher):  # type: ignore[misc]
    """Start engines on servers, and return when the controller lists all of them."""

    engine_set = Unicode(help="Names this start of engines; random").tag(to_dict=True)
    servers = List(Unicode(), help="Ids of the servers").tag(to_dict=True)
    has_groups = Bool(False, help="Whether the cluster has security groups of its own").tag(to_dict=True)

    state: str  # ipyparallel's traits
    engine_set_id: str

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._stopping = threading.Event()
        self._cloud_work = threading.Lock()  # held while servers are created, and while they are deleted
        self._output = Output()
        self._started = time.time()  # when `start` began
        self._gone = False
        self._restored = False
        self._doors: EngineSet | None = None
        self._expires = 0
        self._shared_file: ipcluster.SharedClusterFile | None = None

    def find_args(self) -> list[str]:
        """For ipyparallel's log lines only: there is no local process."""
        return ["griffin engine set"]

    # --- start

    async def start(self, n: int) -> None:
        """Create servers for ``n`` engines; returns when the controller lists all of them.

        Raises `GriffinError` with the cause, after taking down what it made. Under ipcluster, which can't
        handle an exception here, it ends the application with status 1 instead.
        """
        self.n = n
        self._started = time.time()
        try:
            ipcluster.guard(self)
            ipcluster.check_profile(self)
            self.check_settings()
            await self._start(n)
        except asyncio.CancelledError:
            await self._clean_up_after(Stopped("The start of the engine set was cancelled."))
            raise
        except Exception as e:
            error = e
            if self._stopping.is_set() and not isinstance(e, Stopped):
                # `stop` takes servers and controller away from under a start: they did not fail.
                error = Stopped("The engine set was stopped while it was starting.")
                error.__cause__ = e
            await self._clean_up_after(error)
            await ipcluster.end_failed_start(self, error)

    async def _start(self, n: int) -> None:
        deadline = time.monotonic() + self.start_timeout
        if n is None or n < 1:
            raise SettingError(f"Can't start {n} engines: -n (Cluster.n) must be 1 or more.")
        quorum = self.quorum(n)
        settings = self.settle_cloud()
        await in_thread(lambda: self.record_project(settings))
        network = await in_thread(lambda: choose_network(settings.network, self.connect().networks()))
        connection = await engine_connection(self, network)
        self.uid, self.engine_set = cluster_uid(connection), secrets.token_hex(4)
        try:
            plan = await in_thread(lambda: self._plan(n, settings, network))
        except QuotaTooSmall:
            await Leftovers(self.connect(), self.container, uid=self.uid, log=self.log).tell()
            raise
        self.has_groups = settings.manage_security_group
        self._shared_file = ipcluster.SharedClusterFile.take_over(self.parent)
        if self._shared_file is not None:
            self.engine_set_id = self._shared_file.free_id(self.engine_set_id)
        self.notify_start(self.engine_set)
        self._record()  # uid and engine set: enough to find whatever is made from here on
        self.log.info(f"Starting {plan}")
        await in_thread(lambda: self._publish(connection, settings))
        if self.has_groups:
            plan = await in_thread(lambda: self._admit(plan, connection))
        keeper = self._make_keeper(
            Roster.of_plan(
                plan.servers,
                time.monotonic(),
                deadlines=self.deadlines(),
                quorum=quorum,
                replacements=self.replacements(len(plan.servers)),
            ),
            create=lambda servers, created: self._create(plan, servers, settings, created),
        )
        await in_thread(lambda: keeper.create(plan.servers))
        self._record()
        try:
            await self._wait_for_engines(keeper, n, deadline)
        except Stopped:
            raise
        except GriffinError as e:
            if any(UNREACHABLE in failure.cause for failure in keeper.roster.failures):
                rule = await in_thread(lambda: admitting_rule(self.connect(), connection, network))
                e.args = (f"{e} {rule}",)
            raise
        self._record()
        self.log.info(str(keeper.roster))
        self._watch(keeper)

    async def _wait_for_engines(self, keeper: Keeper, n: int, deadline: float) -> None:
        """Until the quorum is there, or can't be; and tell of what earlier clusters left, looked for meanwhile."""
        leftovers = Leftovers(self.connect(), self.container, uid=self.uid, log=self.log)
        waiting = WaitForEngines(
            keeper,
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

    def _plan(self, n: int, settings: GriffinCloud, network: Network) -> Plan:
        """Which servers. Blocking."""
        self._expires = self._on_cloud(settings.store_url).store.expiry(self.max_lifetime) if self.max_lifetime else 0
        return settings.plan(
            self.connect(),
            network,
            n=n,
            uid=self.uid,
            engine_set=self.engine_set,
            engines_per_server=self.engines_per_server,
            labels=self._labels(),
        )

    def _lives_on(self) -> bool:
        """Whether this process goes on after the start, and may see to stragglers."""
        app = ipcluster.application(self)
        return not (app is not None and app.daemonize) and getattr(self.parent, "shutdown_atexit", True)

    def _labels(self) -> dict[str, str]:
        return labels_of(self, started=self._started, expires=self._expires)

    def _publish(self, connection: dict[str, Any], settings: GriffinCloud) -> None:
        """Put the rendezvous into the object store. Blocking; `stop` waits for it."""
        import ipyparallel

        with self._cloud_work:
            check_not_stopped(self._stopping)
            engine_set = self._on_cloud(settings.store_url)
            rendezvous = build(
                connection,
                ipyparallel_version=ipyparallel.__version__,
                ipengine_config=self._ipengine_config(),
                environment={**self.cluster_env, **self.environment},
                engine_cmd=[] if self.engine_cmd == ipengine_cmd_argv else self.engine_cmd,
                engine_args=self.engine_args,
                **self.for_agents(),
            )
            engine_set.publish(rendezvous, {**self._labels(), "user": engine_set.cloud.user_id})

    def _admit(self, plan: Plan, connection: dict[str, Any]) -> Plan:
        """Make the cluster's security groups; its plan with that for servers. Blocking; `stop` waits for it.

        After the rendezvous: while that is there, no stop of another set takes them away.
        """
        with self._cloud_work:
            check_not_stopped(self._stopping)
            group = admit_engines(self.connect(), self.uid, connection, plan.network, self.log)
            return dataclasses.replace(plan, security_groups=(*plan.security_groups, group))

    def _create(self, plan: Plan, servers: Sequence[ServerPlan], settings: GriffinCloud, created: Created) -> None:
        """Create servers: those of the plan, or those that take the slots of failed ones. Blocking; `stop` waits for it."""
        from ..engine_set import UserDataSettings

        with self._cloud_work:
            check_not_stopped(self._stopping)
            engine_set = self._on_cloud(settings.store_url)
            engine_set.create(
                dataclasses.replace(plan, servers=tuple(labelled_anew(s, self.start_timeout) for s in servers)),
                UserDataSettings(
                    read_seconds=int(self.start_timeout) + HOUR,
                    report_seconds=int(self.max_lifetime) + HOUR if self.max_lifetime else WEEK,
                    fetch_timeout=int(self.start_timeout),
                    proxy=settings.proxy,
                    ca_certificates=settings.ca_text(engine_set.cloud.ca_file()),
                    expires=self._expires,
                ),
                on_created=lambda planned, server: created(planned, server.id),
                stop=self._stopping,
                parallel=self.parallel,
            )

    def _ipengine_config(self) -> str:
        """The profile's ipengine_config.py, which travels with the connection info; "" where there is none."""
        path = Path(self.profile_dir, "ipengine_config.py")
        return path.read_text() if path.is_file() else ""

    async def _clean_up_after(self, error: Exception) -> None:
        """Take down what a failed start made; the error that counts is the first one.

        An outage of the cloud may be what failed the start: it gets ``stop_timeout`` seconds to end.
        """
        if self.state == "before":
            self.state = "after"  # nothing was made
            return
        self._stopping.set()
        deadline = time.monotonic() + self.stop_timeout
        while True:
            try:
                await in_thread(self._destroy)
            except Exception as e:  # whatever it is: the start's error must be told, and ipcluster must end
                if isinstance(e, GriffinError) and time.monotonic() < deadline:
                    await asyncio.sleep(CLEAN_UP_PAUSE)
                    continue
                error.args = (f"{error} And taking it down failed: {e} {self.try_again()}",)
            else:
                self._finish({"exit_code": 1, "identifier": self.identifier})
            return

    # --- state in the cluster file

    def _record(self) -> None:
        self.servers = list(self.servers)
        if self._shared_file is not None:
            self._shared_file.put(self.engine_set_id, self.to_dict())
        elif self.parent is not None and hasattr(self.parent, "update_cluster_file"):
            self.parent.update_cluster_file()

    @classmethod
    def from_dict(cls, d: dict[str, Any], **kwargs: Any) -> GriffinEngineSetLauncher:
        """Restore from the cluster file, as running, without a request: the watcher finds out what is true."""
        launcher: GriffinEngineSetLauncher = super().from_dict(d, **kwargs)
        launcher._restored = True
        nobody = Roster([], launcher.deadlines(), quorum=0)  # the first look fills it
        launcher._watch(launcher._make_keeper(nobody, create=None))
        return launcher

    # --- watching

    def _make_keeper(self, roster: Roster, create: Callable[[Sequence[ServerPlan], Created], None] | None) -> Keeper:
        def on_change() -> None:
            self.servers = keeper.servers

        keeper = Keeper(
            self._on_cloud,
            roster,
            create=create,
            on_change=on_change,
            goes_on=self._goes_on,
            stopping=self._stopping,
            log=self.log,
        )
        return keeper

    def _goes_on(self) -> bool:
        """Whether the cluster is to live on, so that a new server makes sense."""
        ended = has_ended(getattr(self.parent, "controller", None))
        return not ended and not (self._expires and time.time() > self._expires)

    def _watch(self, keeper: Keeper) -> None:
        _ = self.loop  # the thread needs it, and only this thread can find it
        Watcher(
            keeper,
            open_hub=self.open_hub,
            on_gone=self._all_gone,
            replace=self.replace,
            stop=self._stopping,
            interval=self.watch_interval,
            poll_interval=self.poll_interval,
            log=self.log,
        ).start()

    def _all_gone(self) -> bool:
        """No server of the set lives any more: delete what is left of them (a powered-off server costs money).

        Returns whether that worked; the watcher tries again where it did not.
        """
        try:
            self._destroy(through_hub=False)
        except GriffinError as e:
            self.log.error(str(e))
            return False
        self._stopping.set()
        data = {"exit_code": 1, "identifier": self.identifier}
        loop = getattr(self.loop, "asyncio_loop", None)
        if loop is None or loop.is_closed():  # ipyparallel's synchronous API closes the loop it started us in
            self._finish(data)
        else:
            self.loop.add_callback(self._finish, data)
        return True

    # --- stop

    async def stop(self) -> None:
        """Delete the servers and objects of this set; returns when a listing shows none. Idempotent.

        Raises `CloudError` naming what is left; then the set still counts as running, and can be stopped again.
        """
        ipcluster.guard(self)
        try:
            await self.take_down()
        except GriffinError as e:
            await ipcluster.end_failed_stop(self, e)

    async def take_down(self) -> None:
        """`stop`, as the controller's launcher uses it: raises under ipcluster, too."""
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
        """Whether nobody else will sweep up what the cluster's uid still has: the controller died, say.

        Only of a cluster that came out of its file: what `ipcluster engines` adds has a controller elsewhere.
        """
        if not self._restored or self.parent is None or self.parent.controller is not None:
            return False
        others = [e for e in self.parent.engines.values() if e is not self and getattr(e, "uid", "") == self.uid]
        return bool(self.uid) and all(getattr(e, "_gone", True) for e in others)

    def _finish(self, data: dict[str, Any]) -> None:
        if self._shared_file is not None:
            self._shared_file.remove(self.engine_set_id)
        self.notify_stop(data)

    def _destroy(self, *, through_hub: bool = True) -> None:
        """Shut the engines down, keep their output and the consoles, delete the servers. Blocking; at most one at a time."""
        with self._cloud_work:
            if self._gone or not self.engine_set:
                return
            engine_set = self._on_cloud()
            left = through_hub and self._leave_hub()
            self._output.read(engine_set, self.output_servers, wait=self.leave_timeout if left else 0)
            engine_set.destroy(
                self.servers,
                timeout=self.stop_timeout,
                groups=self.has_groups,
                farewell=lambda there: self._output.read_consoles(engine_set, there[: self.output_servers]),
            )
            self._output.keep(self._output_file)
            self._gone = True

    @property
    def _output_file(self) -> Path:
        """Where the output is after the end, beside the controller's; `ipcluster clean` removes it."""
        return Path(self.profile_dir, "log", f"ipengine-{self.engine_set}.log")

    def _leave_hub(self) -> bool:
        """Shut the engines down through the hub, which otherwise keeps their ids for many heartbeats; whether any was told."""
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
        try:
            with self.open_hub() as hub:
                reached = hub.signal(self.engine_set, sig)
        except GriffinError as e:
            self.log.warning(f"Signal {sig} was not sent: {e}")
            return
        if reached == 0:
            self.log.warning(f"No engine of {self.identifier} is connected: signal {sig} reached none.")

    def get_output(self, remove: bool = False) -> str:
        """The engines' output as their servers last reported it; after `stop`, as it was at the end, and with the last lines
        of the servers' consoles, also where another process on this machine stopped them. That is in log/ of the profile, too."""
        if self.running and not self._stopping.is_set() and self.engine_set:
            with contextlib.suppress(GriffinError):
                self._output.read(self._on_cloud(), self.output_servers)
        text = str(self._output)
        if not text and self.engine_set:
            with contextlib.suppress(OSError):
                text = self._output_file.read_text()
        return text

    # --- doors

    def _on_cloud(self, servers_url: str = "") -> EngineSet:
        from ..engine_set import EngineSet

        if self._doors is None:
            self._doors = EngineSet(self.connect(), self.open_store(servers_url), self.uid, self.engine_set)
        return self._doors

    def open_hub(self, timeout: float = 30) -> Hub:
        """A client connection to the controller. Blocking. Raises `GriffinError` where there is none to be had."""
        from ..hub import Hub

        path = self.connection_files["client"]
        try:
            info = json.loads(Path(path).read_text())
        except (OSError, ValueError) as e:
            raise GriffinError(f"No controller is running here: can't read {path}.") from e
        return Hub(info, timeout=timeout)
