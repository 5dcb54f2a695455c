"""`OnServers`: the life of a launcher whose processes run on servers: plan, create, watch, tear down."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import getpass
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Float, List, Unicode

from ..cluster.output import Output
from ..cluster.reconciler import Created, Reconciler
from ..cluster.wait import check_not_stopped
from ..cluster.watcher import Watcher
from ..common.errors import GriffinError, SettingError, Stopped
from ..common.threads import concurrently, in_thread
from ..model.labels import labelled_anew, labels
from ..model.plan import Catalogue, Network, Plan, ServerPlan, check_quota
from ..model.slots import Deadlines, Roster
from . import ipcluster
from .arguments import check_environment, check_user
from .on_cloud import OnCloud
from .settings import AgentSettings, ServerSettings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..cluster.engine_set import EngineSet
    from .cloud_settings import GriffinCloud

WEEK = 7 * 24 * 3600
HOUR = 3600
MOST_SECONDS = 10 * 365 * 24 * HOUR
CLEAN_UP_PAUSE = 3.0  # seconds between two tries to clean up after a failed start


class OnServers(OnCloud, ServerSettings, AgentSettings):
    """What the launchers of engine sets and of a controller's server have in common, from the plan to the watcher."""

    servers = List(Unicode(), help="Ids of the servers").tag(to_dict=True)
    has_groups = Bool(False, help="Whether the cluster has security groups of its own").tag(to_dict=True)

    state: str  # ipyparallel's
    profile_dir: str
    cluster_id: str
    identifier: str
    environment: dict[str, str]
    running: bool
    log: Any
    loop: Any
    notify_stop: Callable[[Any], Any]
    deadlines: Callable[[], Deadlines]  # how long a server may stay in each phase

    role = ""  # what agents run: "controller", or "" for engines

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._stopping = threading.Event()
        self._cloud_work = threading.Lock()  # held while servers are created, and while they are deleted
        self._output = Output(self.role)
        self._started = time.time()  # when `start` began
        self._gone = False
        self._restored = False
        self._doors: EngineSet | None = None
        self._expires = 0

    # --- what differs

    def _open(self, servers_url: str) -> EngineSet:
        """Return access to the servers' part of the cloud. Blocking."""
        raise NotImplementedError

    def _tear_down(self, *, through_hub: bool = True) -> None:
        """Delete everything that this launcher created. Blocking; called by one thread at a time, until it does not raise."""
        raise NotImplementedError

    def _replaces(self) -> bool:
        """Return whether lost servers are replaced while the launcher runs."""
        return False

    def _finish(self, data: dict[str, Any]) -> None:
        self.notify_stop(data)

    def _record(self) -> None:
        """Write what exists into the cluster file, for a stop by another process."""
        if self.parent is not None and hasattr(self.parent, "update_cluster_file"):
            self.parent.update_cluster_file()

    def check_settings(self) -> None:
        super().check_settings()
        kind = type(self).__name__
        user = "controller_user" if self.role else "engine_user"
        check_environment(f"{kind}.environment", self.environment)
        check_user(f"{kind}.{user}", getattr(self, user))
        for name in (name for name, trait in self.traits(config=True).items() if isinstance(trait, Float)):
            if not getattr(self, name) <= MOST_SECONDS:  # nan, too
                raise SettingError(
                    f"{kind}.{name} can't be {getattr(self, name)} seconds: set it to {MOST_SECONDS} or less."
                )

    # --- start

    async def _start_safely(self, start: Callable[[], Awaitable[None]]) -> None:
        """Run ``start``. If it fails, delete what it created and raise `GriffinError` with the cause.

        Under ipcluster, which can't handle an exception here, it ends the application with status 1 instead.
        """
        self._started = time.time()
        try:
            ipcluster.guard(self)
            ipcluster.check_profile(self)
            self.check_settings()
            await start()
        except asyncio.CancelledError:
            await self._clean_up_after(Stopped(f"The start of {self._what} was cancelled."))
            raise
        except Exception as e:
            error = e
            if self._stopping.is_set():
                # `stop` deleted servers and controller during the start; they did not fail.
                error = Stopped(f"{self._what.capitalize()} was stopped while it was starting.")
                error.__cause__ = e
            await self._clean_up_after(error)
            await ipcluster.end_failed_start(self, error)

    @property
    def _what(self) -> str:
        return "the controller" if self.role else "the engine set"

    async def _clean_up_after(self, error: Exception) -> None:
        """Delete what a failed start created. The error to report is the start's.

        Retry for ``stop_timeout`` seconds: an outage of the cloud may have caused the failure.
        """
        if self.state == "before":
            self.state = "after"  # nothing was created
            return
        self._stopping.set()
        deadline = time.monotonic() + self.stop_timeout
        while True:
            try:
                await in_thread(self._destroy)
            except Exception as e:  # any error: the start's error must be reported, and ipcluster must end
                if isinstance(e, GriffinError) and time.monotonic() < deadline:
                    await asyncio.sleep(CLEAN_UP_PAUSE)
                    continue
                error.args = (f"{error} Cleaning up failed, too: {e} {self.try_again()}",)
            else:
                self._finish({"exit_code": 1, "identifier": self.identifier})
            return

    def look_up(self, settings: GriffinCloud) -> Catalogue:
        """Return what the cloud offers, after checking that its object store can be used. Blocking."""
        there: Catalogue
        there, _ = concurrently(
            lambda: settings.look_up(self.connect()),
            lambda: self.open_store(settings.store_url).prepare(),
        )
        return there

    def _plan_servers(self, n: int, settings: GriffinCloud, there: Catalogue, network: Network, **request: Any) -> Plan:
        """Return the plan of the servers. Blocking. Raises `SettingError` if a name does not exist or the quota is too small."""
        self._expires = self._on_cloud(settings.store_url).store.expiry(self.max_lifetime) if self.max_lifetime else 0
        plan = settings.plan(there, network, n=n, uid=self.uid, labels=self._labels(), naming=self.naming, **request)
        check_quota(plan, there.limits, role=self.role)
        return plan

    def _labels(self) -> dict[str, str]:
        return labels(
            owner=_user_name(),
            host=socket.gethostname(),
            container=self.container,
            profile=Path(self.profile_dir).name.removeprefix("profile_"),
            cluster_id=self.cluster_id,
            started=self._started,
            start_timeout=self.start_timeout,
            expires=self._expires,
        )

    def _open_container(self, settings: GriffinCloud) -> None:
        """Make the cluster's container if it does not exist yet. Blocking; `stop` waits for it."""
        with self._cloud_work:
            check_not_stopped(self._stopping)
            engine_set = self._on_cloud(settings.store_url)
            engine_set.open_container({**self._labels(), "user": engine_set.cloud.user_id})

    def _create(
        self,
        plan: Plan,
        servers: Sequence[ServerPlan],
        settings: GriffinCloud,
        created: Created,
        *beside: Callable[[], None],
    ) -> None:
        """Create servers, those of the plan or replacements. Blocking; `stop` waits for it.

        ``beside``: functions to run concurrently.
        """
        from ..model.userdata import UserDataSettings

        with self._cloud_work:
            check_not_stopped(self._stopping)
            engine_set = self._on_cloud(settings.store_url)
            now = time.time()
            wanted = dataclasses.replace(
                plan, servers=tuple(labelled_anew(s, self.start_timeout, now) for s in servers)
            )
            for_all = UserDataSettings(
                read_seconds=int(self.start_timeout) + HOUR,
                report_seconds=int(self.max_lifetime) + HOUR if self.max_lifetime else WEEK,
                fetch_timeout=int(self.start_timeout),
                proxy=settings.proxy,
                ca_certificates=settings.ca_text(engine_set.cloud.ca_file()),
                expires=self._expires,
                role=self.role,
            )

            def create() -> None:
                engine_set.create(
                    wanted,
                    for_all,
                    on_created=lambda planned, server: created(planned, server.id),
                    stop=self._stopping,
                )

            concurrently(*beside, create)

    # --- watching

    @classmethod
    def from_dict(cls, d: dict[str, Any], **kwargs: Any) -> Any:
        """Restore from the cluster file, as running, without a request: the watcher finds out the actual state."""
        launcher = super().from_dict(d, **kwargs)  # type: ignore[misc]  # ipyparallel's
        launcher._restored = True
        nobody = Roster([], launcher.deadlines(), quorum=0, role=launcher.role)  # the first poll fills it
        launcher._watch(launcher._make_reconciler(nobody, create=None))
        return launcher

    def _reconciler_of(self, plan: Plan, settings: GriffinCloud, **limits: Any) -> Reconciler:
        """Return a reconciler that creates the servers of ``plan`` and their replacements. ``limits``: further arguments of the roster."""
        roster = Roster.of_plan(
            plan.servers,
            time.monotonic(),
            deadlines=self.deadlines(),
            replacements=self.replacements(len(plan.servers)),
            **limits,
        )
        return self._make_reconciler(
            roster, lambda servers, created, *beside: self._create(plan, servers, settings, created, *beside)
        )

    def _make_reconciler(self, roster: Roster, create: Callable[..., None] | None) -> Reconciler:
        def on_change() -> None:
            self.servers = reconciler.servers

        reconciler = Reconciler(
            self._on_cloud,
            roster,
            create=create,
            on_change=on_change,
            goes_on=self._goes_on,
            stopping=self._stopping,
            log=self.log,
        )
        return reconciler

    def _goes_on(self) -> bool:
        """Return whether the cluster is not stopping, so that a new server makes sense."""
        return not (self._expires and time.time() > self._expires)

    def _watch(self, reconciler: Reconciler) -> None:
        _ = self.loop  # the watcher's thread needs it, and only this thread can find it
        Watcher(
            reconciler,
            open_hub=self.open_hub,
            on_gone=self._all_gone,
            replace=self._replaces(),
            stop=self._stopping,
            interval=self.watch_interval,
            poll_interval=self.poll_interval,
            log=self.log,
        ).start()

    def _all_gone(self) -> bool:
        """Delete what is left of a set whose servers are all gone or off (a powered-off server costs money).

        Return whether that worked; if not, the watcher tries again.
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

    # --- the end

    def _destroy(self, *, through_hub: bool = True) -> None:
        """Call `_tear_down` once. Blocking; one thread at a time."""
        with self._cloud_work:
            if self._gone or not self.uid:
                return
            self._tear_down(through_hub=through_hub)
            self._output.keep(self._output_file)
            self._gone = True

    @property
    def _output_file(self) -> Path:
        """Return the file that keeps the output after the end; `ipcluster clean` removes it."""
        name = f"ipcontroller-{self.uid}" if self.role else f"ipengine-{self._on_cloud().engine_set}"
        return Path(self.profile_dir, "log", f"{name}.log")

    def _read_output(self, servers: int) -> str:
        """Return the output as agents last reported it. After the end, whichever process of this machine stopped the servers, it is the last
        output, with the last lines of consoles."""
        if self.running and not self._stopping.is_set() and self.uid:
            with contextlib.suppress(GriffinError):
                self._output.read(self._on_cloud(), servers)
        text = str(self._output)
        if not text and self.uid:
            with contextlib.suppress(OSError, GriffinError):
                text = self._output_file.read_text()
        return text

    def _on_cloud(self, servers_url: str = "") -> EngineSet:
        if self._doors is None:
            self._doors = self._open(servers_url)
        return self._doors


def _user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return "unknown"
