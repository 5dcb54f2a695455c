"""Read the engines' connection file, and refuse a controller that servers can't reach. Blocking."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from ipyparallel.cluster.launcher import LocalControllerLauncher

from ..common.errors import GriffinError, SettingError
from ..common.threads import in_thread
from ..controller.ssh_tunnel import is_open
from ..model.connection import TUNNEL, controller_address, parse_connection, unreachable_from
from ..model.plan import Network
from .controller import GriffinControllerLauncher

PROBE_TIMEOUT = 10  # seconds


async def engine_connection(launcher: Any, network: Network) -> dict[str, Any]:
    """Return the content of ipcontroller-engine.json, for engines on ``network``.

    If servers can't reach it, ipyparallel's own default controller, which listens on loopback, is restarted as a griffin controller.
    Raises `SettingError`, before anything is created, if there is no usable controller.
    """
    connection = _connection_file(launcher)
    address = controller_address(connection)
    if unreachable_from(address, network.subnets):
        if not await _may_restart(launcher):
            raise SettingError(_unreachable(launcher, address, network))
        return await _restart(launcher, address)
    if getattr(launcher.parent, "controller", None) is None:  # the files may be of a controller that died
        await in_thread(lambda: _probe(launcher))
    return connection


def _connection_file(launcher: Any) -> dict[str, Any]:
    """Return the connection file, from the environment (which ipyparallel sets after construction) or, under `ipcluster engines`, from the
    profile."""
    text = launcher.environment.get("IPP_CONNECTION_INFO")
    if text:
        return parse_connection(text, "IPP_CONNECTION_INFO")
    path = launcher.connection_files["engine"]
    try:
        return parse_connection(Path(path).read_text(), path)
    except OSError as e:
        raise SettingError(
            f"No controller is running here: {path} does not exist. Start one with `ipcluster start`."
        ) from e


def _probe(launcher: Any) -> None:
    """Raise `GriffinError` if the hub does not answer. Open ports prove nothing: the children of a killed ipcontroller keep them open."""
    if _has_lost_tunnel(Path(launcher.connection_files["client"])):
        raise GriffinError(
            "The SSH tunnel from this machine to the controller has ended. Open a new one with `ipp-griffin "
            "connect CLUSTER`."
        )
    try:
        with launcher.open_hub(timeout=PROBE_TIMEOUT):
            pass
    except GriffinError as e:
        raise GriffinError(f"{e} If not, run `ipcluster stop`, then `ipcluster start`.") from e


def _has_lost_tunnel(path: Path) -> bool:
    """Return whether the clients' connection file uses a tunnel that has ended, as after a reboot of this machine."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        tunnel = json.loads(path.read_text()).get(TUNNEL)
        return bool(tunnel) and not is_open(tunnel)
    return False


def _unreachable(launcher: Any, address: str, network: Network) -> str:
    text = f"The controller listens on {address}, where servers on network {network.name!r} can't reach it. "
    if isinstance(getattr(launcher.parent, "controller", None), GriffinControllerLauncher):
        return text + "Remove --ip from the controller's arguments, or set GriffinControllerLauncher.ip."
    return text + 'Use controller="griffin" (ipcluster: --controller=griffin).'


async def _may_restart(launcher: Any) -> bool:
    """Return whether the controller is ipyparallel's default one, not configured by the user, and has no engine yet."""
    cluster: Any = launcher.parent
    controller: Any = getattr(cluster, "controller", None)
    if type(controller) is not LocalControllerLauncher or len(cluster.engines) > 1:
        return False
    if cluster.controller_args or cluster.controller_ip or cluster.controller_location or controller.controller_args:
        return False

    def nobody_connected() -> bool:
        with launcher.open_hub() as hub:
            return not hub.engines()

    return await in_thread(nobody_connected)


async def _restart(launcher: Any, address: str) -> dict[str, Any]:
    launcher.log.warning(f"Servers can't reach the controller at {address}: restarting it as a griffin controller.")
    cluster = launcher.parent
    await cluster.stop_controller()
    cluster.controller_launcher_class = GriffinControllerLauncher
    await cluster.start_controller()
    connection = dict((await cluster.controller.get_connection_info())["engine"])
    launcher.environment["IPP_CONNECTION_INFO"] = json.dumps(connection)
    return connection
