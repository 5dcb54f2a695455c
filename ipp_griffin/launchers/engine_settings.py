"""What a user sets of an engine set: the traits of `GriffinEngineSetLauncher`."""

from __future__ import annotations

from typing import Any

from traitlets import Bool, Float, Integer, Unicode

from ..common.errors import SettingError
from ..model.slots import Deadlines
from .agent_settings import AgentSettings


class EngineSettings(AgentSettings):
    """Configured as ``c.GriffinEngineSetLauncher.<name>``. Times in seconds."""

    engines_per_server = Integer(
        0,
        config=True,
        help="""Engines on each server; the last server may hold fewer. Default: 0, one for each vCPU of the flavor.""",
    )
    # Of 128 engines on two cores, which all started at the same time, the last was listed after 63 to 75 s; of 16, after 9 s (docs/performance.md).
    engines_timeout = Float(
        180,
        min=1,
        config=True,
        help="""Seconds that a server which reaches the controller may take until the controller lists all of its engines.
        Then it is deleted and its slot filled again.""",
    )
    min_engines = Integer(
        0,
        min=0,
        config=True,
        help="""The quorum: with so many engines a start succeeds. While this process lives, the rest goes on in the background;
        under `ipcluster start --daemonize`, and without shutdown_atexit, the start returns when it is known of every server
        whether it got its engines. Default: 0, all of them.""",
    )
    replace = Bool(
        False,
        config=True,
        help="""Replace servers that are deleted, switched off or in ERROR while the set runs. Only while the process lives that
        started them, and as often as max_replacements says. Default: they are told of, and the set goes on without.""",
    )
    progress = Bool(
        None,
        allow_none=True,
        config=True,
        help="""Show a progress bar while servers come up. Default: where there is a terminal or a notebook; else lines in the log.""",
    )
    engine_user = Unicode(
        "ipp",
        config=True,
        help="""The user on the servers that engines run as; it is made where it does not exist. Set it to "ubuntu", say,
        to run as the user that owns the packages of your snapshot.""",
    )
    engine_python = Unicode(
        "",
        config=True,
        help="""The Python on the servers, e.g. "/opt/conda/bin/python". Default: the first one with ipyparallel out of the
        system's, /opt/*/bin, and the environments in the homes of the usual cloud users.""",
    )
    controller_timeout = Float(
        60, min=1, config=True, help="Seconds that a server keeps trying to reach the controller's port."
    )
    # Of 128 engines that shared two cores with the controller, the last waited 11 s for its answer; of 16, 0.03 s (docs/performance.md).
    register_timeout = Float(
        120, min=1, config=True, help="Seconds that an engine keeps trying to register with the controller."
    )
    parallel = Integer(
        10,
        min=1,
        config=True,
        help="Servers that are created, deleted, or asked for their consoles at the same time, at most.",
    )
    # 16 engines on two cores have left after 0.2 s, half of 128 after 4 s: longer is not worth a wait, as their servers go all the same.
    leave_timeout = Float(
        5.0,
        min=0,
        config=True,
        help="Seconds that engines get to leave the controller before their servers are deleted.",
    )
    output_servers = Integer(
        16,
        min=0,
        config=True,
        help="From how many servers, at most, the engines' output and the console are fetched for `get_output` at the end.",
    )

    def for_agents(self) -> dict[str, Any]:
        """What agents go by; see `model.connection.build`."""
        names = ("engine_user", "engine_python", "controller_timeout", "register_timeout")
        return {**self.for_every_agent(), **{name: getattr(self, name) for name in names}}

    def deadlines(self) -> Deadlines:
        """How long a server may stay in each phase."""
        return Deadlines(self.build_timeout, self.agent_timeout, self.connection_timeout, self.engines_timeout)

    def quorum(self, n: int) -> int:
        """How many of ``n`` engines a start can't do without. Raises `SettingError` where that is more than there are."""
        if self.min_engines > n:
            raise SettingError(
                f"GriffinEngineSetLauncher.min_engines is {self.min_engines}, of {n} engines: it must be {n} or less, or 0 for all."
            )
        return self.min_engines or n
