"""Settings of a launcher's servers: traits that users configure, for engine sets and for a controller on a server."""

from __future__ import annotations

from typing import Any

from traitlets import Bool, Float, HasTraits, Integer, List, Unicode

from ..common.errors import SettingError
from ..model.plan import shared_setting
from ..model.slots import Deadlines


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
        help="""Seconds between two polls of the servers of a start while something happens; five times as many, at most, while nothing
        does. At a controller's own server it is looked four times as often.""",
    )
    watch_interval = Float(
        10.0,
        min=0.1,
        config=True,
        help="""Seconds between two polls of the running servers, by ONE request for all of them. Only while the process
        lives that started them: nobody looks after `ipcluster start --daemonize`.""",
    )

    def for_every_agent(self) -> dict[str, Any]:
        """Return what agents go by, whatever they run; see `model.connection`."""
        names = ("packages", "pip_args", "restarts", "log_interval", "controller_gone_timeout")
        return {name: getattr(self, name) for name in names}

    def replacements(self, servers: int) -> int:
        """Return how many of so many servers may be replaced in an hour."""
        return self.max_replacements if self.max_replacements >= 0 else max(3, servers // 10)


class ServerSettings(HasTraits):
    """Configured as ``c.<the launcher's class>.<name>``. One that is empty means `GriffinCloud`'s of the same name."""

    image = Unicode(
        "",
        config=True,
        help="""Image of these servers alone: a name, an id, or a pattern such as "snapshot*". Default: GriffinCloud.image.""",
    )
    flavor = Unicode(
        "", config=True, help="Flavor (size) of these servers alone: a name or an id. Default: GriffinCloud.flavor."
    )
    network = Unicode(
        "",
        config=True,
        help="""Network of these servers alone: a name or an id. From there they must reach the controller's address and the
        object store. Default: GriffinCloud.network.""",
    )
    key_name = Unicode("", config=True, help="Key pair for ssh to these servers alone. Default: GriffinCloud.key_name.")
    security_groups = List(
        Unicode(),
        config=True,
        help="""Security groups of these servers alone, by name or id, in place of the others'; with
        GriffinCloud.manage_security_group, besides the cluster's own. Default: GriffinCloud.security_groups.""",
    )
    availability_zone = Unicode(
        "", config=True, help="Availability zone of these servers alone. Default: GriffinCloud.availability_zone."
    )

    def own_settings(self) -> dict[str, Any]:
        """Return those that are set: what is to take the place of GriffinCloud's."""
        values = {name: getattr(self, name) for name in ServerSettings.class_own_traits(config=True)}
        return {name: value for name, value in values.items() if value}

    def naming(self, name: str) -> str:
        """Return what errors call the setting of this name: the launcher's own, if that is what counts, else both."""
        own = f"{type(self).__name__}.{name}"
        return own if getattr(self, name) else f"{shared_setting(name)} (or {own}, for these servers alone)"


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
        """Return what agents go by; see `model.connection.build`."""
        names = ("engine_user", "engine_python", "controller_timeout", "register_timeout")
        return {**self.for_every_agent(), **{name: getattr(self, name) for name in names}}

    def deadlines(self) -> Deadlines:
        """Return how long a server may stay in each phase."""
        return Deadlines(self.build_timeout, self.agent_timeout, self.connection_timeout, self.engines_timeout)

    def quorum(self, n: int) -> int:
        """Return how many of ``n`` engines a start can't do without. Raises `SettingError` where that is more than there are."""
        if self.min_engines > n:
            raise SettingError(
                f"GriffinEngineSetLauncher.min_engines is {self.min_engines}, of {n} engines: it must be {n} or less, or 0 for all."
            )
        return self.min_engines or n


class ControllerSettings(AgentSettings):
    """Configured as ``c.GriffinServerControllerLauncher.<name>``. Times in seconds."""

    ports = Unicode(
        "20000-20019",
        config=True,
        help="""The ports of its server that the controller listens on, at least 20: what security groups must let in.""",
    )
    floating_ip = Unicode(
        "",
        config=True,
        help="""The floating IP by which clients reach the controller: "auto", one that is allocated for the cluster and released
        with it; or the address of one that the project has. Default: none, clients use the server's own address.""",
    )
    floating_ip_pool = Unicode(
        "",
        config=True,
        help="""The external network, by name or id, that a floating IP is allocated from. Default: the only one.""",
    )
    ssh_server = Unicode(
        "",
        config=True,
        help="""An SSH gateway by which clients reach the controller, "user@host" or "user@host:port"; "user@": the controller's
        own server, at its floating IP or its own address, which lets in who has the key of GriffinCloud.key_name. It must let you in
        without a question, so its host key must be known. One `ssh` then forwards the ports that clients on this machine use, until
        the stop. Default: none.""",
    )
    client_address = Unicode(
        "",
        config=True,
        help="""What security groups made by GriffinCloud.manage_security_group let in to the clients' ports, e.g.
        "203.0.113.7/32": this machine as the cloud sees it, or the SSH gateway. Default: the address that this machine uses towards the
        controller, which is not it behind a router that translates addresses; or that of the gateway.""",
    )
    controller_user = Unicode(
        "ipp", config=True, help="The user on the server that ipcontroller runs as; made where it does not exist."
    )
    controller_python = Unicode(
        "", config=True, help="The Python on the server. Default: the first one with ipyparallel that is found."
    )
    controller_timeout = Float(
        60, min=1, config=True, help="Seconds that ipcontroller may take from its start until its ports answer."
    )
    reach_timeout = Float(
        60,
        min=1,
        config=True,
        help="Seconds that a controller which runs may take until this machine reaches it: a floating IP takes a moment.",
    )
    idle_timeout = Float(
        0,
        min=0,
        config=True,
        help="""Seconds without a task on any engine after which the engines end and the controller's server powers itself off; the
        engines' servers do so controller_gone_timeout later. More than a start takes. Many clouds bill servers that are off, until
        `ipp-griffin reap` deletes them. Default: 0, never.""",
    )

    def deadlines(self) -> Deadlines:
        """Return how long the controller's server may stay in each phase."""
        answer = self.controller_timeout + 30  # its agent gives up first, and says why
        return Deadlines(self.build_timeout, self.agent_timeout, self.connection_timeout, answer, "controller_timeout")
