"""What a user sets of a controller on a server of its own: the traits of `GriffinServerControllerLauncher`."""

from __future__ import annotations

from traitlets import Float, Unicode

from ..model.slots import Deadlines
from .agent_settings import AgentSettings


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
        """How long the controller's server may stay in each phase."""
        answer = self.controller_timeout + 30  # its agent gives up first, and says why
        return Deadlines(self.build_timeout, self.agent_timeout, self.connection_timeout, answer, "controller_timeout")
