"""What a user sets of an engine set: the traits of `GriffinEngineSetLauncher`."""

from __future__ import annotations

from typing import Any

from traitlets import Bool, Float, HasTraits, Integer, List, Unicode

from ..plan import SettingError
from ..roster import Deadlines


class EngineSettings(HasTraits):
    """Configured as ``c.GriffinEngineSetLauncher.<name>``. Times in seconds."""

    engines_per_server = Integer(
        0,
        config=True,
        help="""Engines on each server; the last server may hold fewer. Default: 0, one for each vCPU of the flavor.""",
    )
    start_timeout = Float(
        1200,
        min=1,
        config=True,
        help="""Seconds from the start until all engines, or min_engines of them, must be connected; then the start fails and
        all is deleted. Servers may take minutes to boot: ipyparallel's Cluster.engine_timeout does not matter here.""",
    )
    build_timeout = Float(
        300,
        min=1,
        config=True,
        help="""Seconds that Nova may take to build a server. One that takes longer is deleted and its slot filled again.""",
    )
    agent_timeout = Float(
        300,
        min=1,
        config=True,
        help="""Seconds that a server which is ACTIVE may take until its agent writes the first report: the boot, and the way
        to the object store. One that stays silent is deleted and its slot filled again.""",
    )
    connection_timeout = Float(
        900,
        min=1,
        config=True,
        help="""Seconds that an agent may take to find or install what engines need and to reach the controller. Then the server is
        deleted and its slot filled again. Packages that pip builds on the server may need more.""",
    )
    engines_timeout = Float(
        180,
        min=1,
        config=True,
        help="""Seconds that a server which reaches the controller may take until the controller lists all of its engines.
        Then it is deleted and its slot filled again.""",
    )
    max_replacements = Integer(
        -1,
        min=-1,
        config=True,
        help="""How many servers that failed may be replaced in an hour. Default: -1, one in ten, and at least 3. 0: none.""",
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
    max_lifetime = Float(
        0,
        min=0,
        config=True,
        help="""Seconds after which each server ends its engines and powers itself off, whatever became of this machine: a
        guard of the bill. Many clouds bill servers that are off, until `ipp-griffin reap` deletes them. Default: 0, never.""",
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
    packages = List(
        Unicode(),
        config=True,
        help="""Packages to install with pip into an environment of their own on each server, e.g. ["numpy", "pandas>=2"].
        ipyparallel itself is installed where the image has none. A snapshot with all in it starts faster.""",
    )
    pip_args = List(
        Unicode(), config=True, help="""More arguments for that pip, e.g. ["--index-url", "http://10.0.0.1/simple"]."""
    )
    controller_timeout = Float(
        60, config=True, help="Seconds that a server keeps trying to reach the controller's port."
    )
    register_timeout = Float(
        120, config=True, help="Seconds that an engine keeps trying to register with the controller."
    )
    controller_gone_timeout = Float(
        300,
        config=True,
        help="""Seconds without a controller after which a server that lost all its engines powers itself off; the same after
        its agent has given up, where nobody deletes it.""",
    )
    restarts = Integer(5, config=True, help="How many crashed engines a server starts anew in an hour.")
    log_interval = Float(
        60,
        min=0,
        config=True,
        help="""Seconds between two looks of a server at its engines' logs: what they wrote since goes to the object store,
        for `get_output` and `ipp-griffin logs`. 0: only when an engine starts or ends.""",
    )
    parallel = Integer(10, min=1, config=True, help="Requests to Nova in flight at the same time, at most.")
    poll_interval = Float(1.0, min=0, config=True, help="Seconds between two looks at the servers while they start.")
    watch_interval = Float(
        10.0,
        min=0.1,
        config=True,
        help="""Seconds between two looks at the running servers, by ONE request for all of them. Only while the process
        lives that started them: nobody looks after `ipcluster start --daemonize`.""",
    )
    leave_timeout = Float(
        5.0, config=True, help="Seconds that engines get to leave the controller before their servers are deleted."
    )
    output_servers = Integer(
        16,
        config=True,
        help="From how many servers, at most, the engines' output and the console are fetched for `get_output` at the end.",
    )

    def for_agents(self) -> dict[str, Any]:
        """What agents go by; see `rendezvous.build`."""
        names = ("engine_user", "engine_python", "packages", "pip_args", "restarts", "log_interval")
        timeouts = ("controller_timeout", "register_timeout", "controller_gone_timeout")
        return {name: getattr(self, name) for name in (*names, *timeouts)}

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

    def replacements(self, servers: int) -> int:
        """How many of so many servers may be replaced in an hour."""
        return self.max_replacements if self.max_replacements >= 0 else max(3, servers // 10)
