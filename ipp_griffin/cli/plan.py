"""`ipp-griffin plan`: what a start would take, without making anything."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from multiprocessing import cpu_count
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Integer, TraitError, Unicode
from traitlets.config import Config, LoggingConfigurable

from ..common.errors import SettingError
from ..launchers.profiles import profile_config
from ..model.forecast import Forecast, Quota
from ..model.plan import Plan, choose_network
from .command import Command, table

if TYPE_CHECKING:
    from ipyparallel import Cluster

    from ..launchers.cloud_settings import GriffinCloud
    from ..launchers.on_servers import OnServers

LOCAL_CONTROLLER, SERVER_CONTROLLER = "griffin", "griffin-server"


class MakePlan(Command):
    name = "plan"
    description = """Show what `ipcluster start` would take: servers, quota, requests and time. Nothing is created.

    Ends with status 1 if the project's quota is too small.
    """
    examples = (
        "ipp-griffin plan -n 2000\nipp-griffin plan -n 64 --controller=griffin-server --GriffinCloud.flavor=m1.large"
    )
    n = Integer(
        None,
        allow_none=True,
        min=1,
        config=True,
        help="Number of engines. Default: Cluster.n, else one for each core of this machine.",
    )
    profile = Unicode("griffin", config=True, help="Profile to take the settings from.")
    controller = Unicode(
        "",
        config=True,
        help='"griffin-server": also plan a server for the controller. Default: the profile\'s controller.',
    )
    json = Bool(False, config=True, help="Print JSON.")
    aliases = {"n": "MakePlan.n", "profile": "MakePlan.profile", "controller": "MakePlan.controller"}  # noqa: RUF012
    flags = {"json": ({"MakePlan": {"json": True}}, "Print JSON.")}  # noqa: RUF012

    def run(self) -> None:
        from ..launchers import GriffinEngineSetLauncher, GriffinServerControllerLauncher

        config = profile_config(self.profile)
        config.merge(self.config)
        started = self._started(config)
        n = self.n or started.n or cpu_count()
        cluster = LoggingConfigurable(config=config)  # its launchers share a login
        engines = GriffinEngineSetLauncher(parent=cluster)
        engines.check_settings()
        engines.quorum(n)
        settings = engines.settle_cloud()
        engines.record_project(settings)
        began = time.monotonic()
        limits = settings.limits(engines.connect())
        latency = time.monotonic() - began
        settings.prefetch(engines.connect())  # for both plans
        plans = [_plan(engines, settings, n=n, engines_per_server=engines.engines_per_server)]
        if issubclass(started.controller_launcher_class, GriffinServerControllerLauncher):
            controller = GriffinServerControllerLauncher(parent=cluster)
            controller.check_settings()
            plans.append(_plan(controller, controller.settle_cloud(), n=1, engines_per_server=1))
        self._show(Forecast(plans, limits, latency, engines.parallel))
        if not issubclass(started.engine_launcher_class, GriffinEngineSetLauncher):
            self.remark(
                f"profile {self.profile!r} does not start its engines with griffin. Add --engines=griffin to "
                "`ipcluster start`."
            )

    def _started(self, config: Config) -> Cluster:
        """Return the launchers that `ipcluster start` would start, as ipyparallel reads the profile."""
        from ipyparallel.cluster.cluster import Cluster

        if self.controller not in ("", LOCAL_CONTROLLER, SERVER_CONTROLLER):
            self.fail(f"--controller is {LOCAL_CONTROLLER} or {SERVER_CONTROLLER}, not {self.controller!r}.")
        own = {"controller_launcher_class": self.controller} if self.controller else {}
        try:
            return Cluster(config=config, profile=self.profile, load_profile=False, **own)
        except TraitError as e:
            raise SettingError(f"A setting is wrong: {e}") from e

    def _show(self, forecast: Forecast) -> None:
        if self.json:
            print(json.dumps(_as_json(forecast), indent=2))
        else:
            print(_as_text(forecast))
        if not forecast.enough:
            short = [kind for kind, quota in forecast.quota.items() if not quota.enough]
            self.fail(f"the project's quota is too small: {', '.join(short)}. `ipcluster start` would refuse this.")


def _plan(launcher: OnServers, settings: GriffinCloud, **request: Any) -> Plan:
    there = launcher.look_up(settings)
    network = choose_network(settings.network, there.networks, launcher.naming)
    nobody = {"uid": "0" * 12, "engine_set": "0" * 8}
    return settings.plan(there, network, labels={}, naming=launcher.naming, **nobody, **request)


def _as_text(forecast: Forecast) -> str:
    engines, *controllers = forecast.plans
    lines = [str(engines), *(f"the controller on 1 server: {plan.on}" for plan in controllers), ""]
    rows: list[tuple[str, ...]] = [("QUOTA", "NEEDED", "LEFT")]
    for kind, quota in forecast.quota.items():
        rows.append((kind, str(quota.needed), _left(quota, forecast.limits.known)))
    wait = ", besides what the controller's server takes to boot and to answer" if controllers else ""
    polls = "one or two more for each poll of all servers, which is every second at first and every five later"
    return "\n".join(
        [
            *lines,
            table(rows),
            "",
            f"Requests: about {forecast.requests} until all servers are asked for, and {polls}.",
            f"Time: about {forecast.seconds:.1f} s until all servers are asked for, {forecast.parallel} at a time, at {forecast.latency * 1000:.0f} ms a request "
            f"(measured just now){wait}; then they boot.",
        ]
    )


def _left(quota: Quota, known: bool) -> str:
    if not known:
        return "unknown"
    return "no limit" if quota.left is None else str(quota.left)


def _as_json(forecast: Forecast) -> dict[str, Any]:
    return {
        "engines": forecast.plans[0].engines,
        "servers": forecast.servers,
        "image": forecast.plans[0].image.name,
        "flavor": forecast.plans[0].flavor.name,
        "network": forecast.plans[0].network.name,
        "quota": {kind: {**asdict(quota), "left": quota.left} for kind, quota in forecast.quota.items()},
        "quota_known": forecast.limits.known,
        "enough": forecast.enough,
        "requests": forecast.requests,
        "seconds": round(forecast.seconds, 2),
        "latency": round(forecast.latency, 4),
    }
