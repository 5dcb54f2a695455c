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
        help="""Seconds until the controller answers, or until all engines (or min_engines) are connected. Then the start fails, and
        everything is deleted. Counts instead of ipyparallel's Cluster.engine_timeout.""",
    )
    build_timeout = Float(
        300,
        min=1,
        config=True,
        help="Seconds for Nova to build a server. After that the server is replaced.",
    )
    agent_timeout = Float(
        300,
        min=1,
        config=True,
        help="""Seconds from ACTIVE until the first report of a server's agent: time to boot and to reach the object store. After that
        the server is replaced.""",
    )
    connection_timeout = Float(
        900,
        min=1,
        config=True,
        help="""Seconds for an agent to find or install ipyparallel and `packages`, and to reach the controller. After that the server
        is replaced. Increase it if pip has to build packages.""",
    )
    max_replacements = Integer(
        -1,
        min=-1,
        config=True,
        help="""How many failed servers may be replaced in an hour; 0: none. Default: -1, a tenth of the servers, but at least 3.""",
    )
    max_lifetime = Float(
        0,
        min=0,
        config=True,
        help="""Seconds after which each server ends its processes and powers itself off, whatever happened to this machine: it limits
        the bill. Many clouds bill servers that are off until `ipp-griffin reap` deletes them. Default: 0, never.""",
    )
    packages = List(
        Unicode(),
        config=True,
        help="""Packages that pip installs into a new environment on each server, e.g. ["numpy", "pandas>=2"]; ipyparallel is added if
        the image has none. A snapshot that has them starts faster.""",
    )
    pip_args = List(
        Unicode(), config=True, help="""Further arguments for pip, e.g. ["--index-url", "http://10.0.0.1/simple"]."""
    )
    controller_gone_timeout = Float(
        300,
        min=0,
        config=True,
        help="""Seconds without a controller after which a server whose engines have all ended powers itself off. Also applies after
        an agent gave up, if nobody deletes its server.""",
    )
    restarts = Integer(
        5, min=0, config=True, help="How many crashed engines or controllers a server restarts in an hour."
    )
    log_interval = Float(
        60,
        min=0,
        config=True,
        help="""Seconds between two uploads of new output from a server to the object store, for `get_output` and `ipp-griffin logs`.
        0: only when a process starts or ends.""",
    )
    poll_interval = Float(
        1.0,
        min=0,
        config=True,
        help="""Seconds between two polls of the servers during a start; up to five times as long while nothing changes, a quarter of
        it for a controller's server.""",
    )
    watch_interval = Float(
        10.0,
        min=0.1,
        config=True,
        help="""Seconds between two polls of the running servers, one request for all of them. Only the process that started them
        polls: nobody does after `ipcluster start --daemonize`.""",
    )

    def for_every_agent(self) -> dict[str, Any]:
        """Return the settings for agents that do not depend on what they run; see `model.connection`."""
        names = ("packages", "pip_args", "restarts", "log_interval", "controller_gone_timeout")
        return {name: getattr(self, name) for name in names}

    def replacements(self, servers: int) -> int:
        """Return how many of ``servers`` servers may be replaced in an hour."""
        return self.max_replacements if self.max_replacements >= 0 else max(3, servers // 10)


class ServerSettings(HasTraits):
    """Configured as ``c.<the launcher's class>.<name>``. An empty one means `GriffinCloud`'s of the same name."""

    image = Unicode(
        "",
        config=True,
        help="""Image of these servers: a name, an id, or a pattern such as "snapshot*". Default: GriffinCloud.image.""",
    )
    flavor = Unicode(
        "", config=True, help="Flavor (size) of these servers: a name or an id. Default: GriffinCloud.flavor."
    )
    network = Unicode(
        "",
        config=True,
        help="""Network of these servers: a name or an id. It must have a route to the controller's address and the object store.
        Default: GriffinCloud.network.""",
    )
    key_name = Unicode("", config=True, help="Key pair for ssh to these servers. Default: GriffinCloud.key_name.")
    security_groups = List(
        Unicode(),
        config=True,
        help="""Security groups of these servers, by name or id; with GriffinCloud.manage_security_group, in addition to the cluster's
        own. Default: GriffinCloud.security_groups.""",
    )
    availability_zone = Unicode(
        "", config=True, help="Availability zone of these servers. Default: GriffinCloud.availability_zone."
    )

    def own_settings(self) -> dict[str, Any]:
        """Return those that are set, which override GriffinCloud's."""
        values = {name: getattr(self, name) for name in ServerSettings.class_own_traits(config=True)}
        return {name: value for name, value in values.items() if value}

    def naming(self, name: str) -> str:
        """Return the full name of a setting, for errors: the launcher's own if that is set, else both."""
        own = f"{type(self).__name__}.{name}"
        return own if getattr(self, name) else f"{shared_setting(name)} (or {own}, for these servers alone)"


class EngineSettings(AgentSettings):
    """Configured as ``c.GriffinEngineSetLauncher.<name>``. Times in seconds."""

    engines_per_server = Integer(
        0,
        config=True,
        help="""Engines on each server; the last server may have fewer. Default: 0, one for each vCPU of the flavor.""",
    )
    # Of 128 engines on two cores, which all started at the same time, the last was listed after 63 to 75 s; of 16, after 9 s (docs/performance.md).
    engines_timeout = Float(
        180,
        min=1,
        config=True,
        help="""Seconds from when a server reaches the controller until the controller lists all of its engines. After that the server
        is replaced.""",
    )
    min_engines = Integer(
        0,
        min=0,
        config=True,
        help="""The quorum: a start succeeds with this many engines. The others follow in the background; with `ipcluster start
        --daemonize`, or without shutdown_atexit, the start first waits until each server has its engines or has
        failed. Default: 0, all engines.""",
    )
    replace = Bool(
        False,
        config=True,
        help="""Replace servers that are deleted, switched off or in ERROR while the set runs, up to max_replacements. Only the
        process that started the set does so. Default: log them, and continue without them.""",
    )
    progress = Bool(
        None,
        allow_none=True,
        config=True,
        help="""Show a progress bar while servers come up. Default: in a terminal or a notebook; elsewhere, lines in the log.""",
    )
    engine_user = Unicode(
        "ipp",
        config=True,
        help="""User on the servers that engines run as; created if it does not exist. Use e.g. "ubuntu" if that user owns the
        packages of your snapshot.""",
    )
    engine_python = Unicode(
        "",
        config=True,
        help="""Python on the servers, e.g. "/opt/conda/bin/python". Default: the first one that has ipyparallel: the system's,
        /opt/*/bin, then the environments in the homes of the usual cloud users.""",
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
        help="How many servers are created, deleted, or asked for their console at the same time.",
    )
    # 16 engines on two cores have left after 0.2 s, half of 128 after 4 s. Waiting longer gains nothing: their servers are deleted anyway.
    leave_timeout = Float(
        5.0,
        min=0,
        config=True,
        help="Seconds for engines to leave the controller before their servers are deleted.",
    )
    output_servers = Integer(
        16,
        min=0,
        config=True,
        help="""From how many servers, at most, `get_output` fetches the engines' output and the console.""",
    )

    def for_agents(self) -> dict[str, Any]:
        """Return the settings for agents of engines; see `model.connection.build`."""
        names = ("engine_user", "engine_python", "controller_timeout", "register_timeout")
        return {**self.for_every_agent(), **{name: getattr(self, name) for name in names}}

    def deadlines(self) -> Deadlines:
        """Return how long a server may stay in each phase."""
        return Deadlines(self.build_timeout, self.agent_timeout, self.connection_timeout, self.engines_timeout)

    def quorum(self, n: int) -> int:
        """Return how many of ``n`` engines a start needs. Raises `SettingError` if that is more than ``n``."""
        if self.min_engines > n:
            raise SettingError(
                f"GriffinEngineSetLauncher.min_engines is {self.min_engines}, but only {n} engines are to "
                f"start: set it to {n} or less, or to 0 for all."
            )
        return self.min_engines or n


class ControllerSettings(AgentSettings):
    """Configured as ``c.GriffinServerControllerLauncher.<name>``. Times in seconds."""

    ports = Unicode(
        "20000-20019",
        config=True,
        help="""Ports of its server that the controller listens on, FIRST-LAST, at least 20. Security groups must admit them.""",
    )
    floating_ip = Unicode(
        "",
        config=True,
        help="""Floating IP by which clients reach the controller: "auto" allocates one and releases it with the cluster; an address
        uses one that the project has. Default: none; clients use the server's own address.""",
    )
    floating_ip_pool = Unicode(
        "",
        config=True,
        help="""External network, by name or id, to allocate a floating IP from. Default: the only one.""",
    )
    ssh_server = Unicode(
        "",
        config=True,
        help="""SSH gateway by which clients reach the controller: "user@host" or "user@host:port", or "user@" for the controller's
        own server (then set GriffinCloud.key_name). `ssh` must get in without asking for anything, so a gateway's
        host key must be known. Default: none.""",
    )
    client_address = Unicode(
        "",
        config=True,
        help="""Address that manage_security_group admits to the clients' ports, e.g. "203.0.113.7/32": this machine's as the cloud
        sees it, or the SSH gateway's. Default: the address that this machine uses to reach the controller, which is
        wrong behind a router that translates addresses.""",
    )
    controller_user = Unicode(
        "ipp", config=True, help="User on the server that ipcontroller runs as; created if it does not exist."
    )
    controller_python = Unicode(
        "", config=True, help="Python on the server. Default: the first one that has ipyparallel."
    )
    controller_timeout = Float(
        60, min=1, config=True, help="Seconds from the start of ipcontroller until its ports answer."
    )
    reach_timeout = Float(
        60,
        min=1,
        config=True,
        help="""Seconds until this machine reaches a running controller: a new floating IP takes some seconds.""",
    )
    idle_timeout = Float(
        0,
        min=0,
        config=True,
        help="""Seconds without a task on any engine after which the engines end and the controller's server powers itself off; the
        engines' servers follow controller_gone_timeout later. Must be longer than a start. Many clouds bill servers
        that are off until `ipp-griffin reap` deletes them. Default: 0, never.""",
    )

    def deadlines(self) -> Deadlines:
        """Return how long the controller's server may stay in each phase."""
        answer = self.controller_timeout + 30  # its agent gives up first, and says why
        return Deadlines(self.build_timeout, self.agent_timeout, self.connection_timeout, answer, "controller_timeout")
