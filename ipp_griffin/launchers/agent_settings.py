"""What a user sets of servers that an agent runs on, whatever it runs: traits that both launchers of servers have."""

from __future__ import annotations

from typing import Any

from traitlets import Float, HasTraits, Integer, List, Unicode


class AgentSettings(HasTraits):
    """Configured as ``c.GriffinEngineSetLauncher.<name>`` and ``c.GriffinServerControllerLauncher.<name>``. Times in seconds."""

    start_timeout = Float(
        1200,
        min=1,
        config=True,
        help="""Seconds from the start until the controller answers, or until all engines, or min_engines of them, are connected; then
        the start fails and all is deleted. Servers may take minutes to boot: ipyparallel's Cluster.engine_timeout does not matter here.""",
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
        help="""Seconds that an agent may take to find or install what it is to run, and to reach the controller. Then the server is
        deleted and its slot filled again. Packages that pip builds on the server may need more.""",
    )
    max_replacements = Integer(
        -1,
        min=-1,
        config=True,
        help="""How many servers that failed may be replaced in an hour. Default: -1, one in ten, and at least 3. 0: none.""",
    )
    max_lifetime = Float(
        0,
        min=0,
        config=True,
        help="""Seconds after which each server ends what it runs and powers itself off, whatever became of this machine: a
        guard of the bill. Many clouds bill servers that are off, until `ipp-griffin reap` deletes them. Default: 0, never.""",
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
    controller_gone_timeout = Float(
        300,
        min=0,
        config=True,
        help="""Seconds without a controller after which a server that lost all its engines powers itself off; the same after
        an agent has given up, where nobody deletes its server.""",
    )
    restarts = Integer(
        5, min=0, config=True, help="How many crashed engines, or controllers, a server starts anew in an hour."
    )
    log_interval = Float(
        60,
        min=0,
        config=True,
        help="""Seconds between two looks of a server at the logs of what it runs: what was written since goes to the object store,
        for `get_output` and `ipp-griffin logs`. 0: only when something starts or ends.""",
    )
    poll_interval = Float(
        1.0,
        min=0,
        config=True,
        help="""Seconds between two looks at the servers of a start while something happens; five times as many, at most, while nothing
        does. At a controller's own server it is looked four times as often.""",
    )
    watch_interval = Float(
        10.0,
        min=0.1,
        config=True,
        help="""Seconds between two looks at the running servers, by ONE request for all of them. Only while the process
        lives that started them: nobody looks after `ipcluster start --daemonize`.""",
    )

    def for_every_agent(self) -> dict[str, Any]:
        """What agents go by, whatever they run; see `model.connection`."""
        names = ("packages", "pip_args", "restarts", "log_interval", "controller_gone_timeout")
        return {name: getattr(self, name) for name in names}

    def replacements(self, servers: int) -> int:
        """How many of so many servers may be replaced in an hour."""
        return self.max_replacements if self.max_replacements >= 0 else max(3, servers // 10)
