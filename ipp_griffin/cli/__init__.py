"""`ipp-griffin`: the command beside ipcluster. One module a subcommand, each thin over the modules it names."""

from __future__ import annotations

import sys

from .command import Command
from .connect import Connect
from .devcloud import DevCloud
from .init import Init
from .logs import Logs
from .plan import MakePlan
from .ps import Ps
from .reap import Reap
from .results import Get, ListResults, Put
from .stop import Stop
from .timeline import Timeline

__all__ = ["main"]


class Griffin(Command):
    name = "ipp-griffin"
    description = "ipyparallel clusters on OpenStack. The clusters themselves are started and stopped by ipcluster."
    examples = """ipp-griffin init
ipcluster start --profile=griffin -n 8
ipcluster stop --profile=griffin"""
    subcommands = {  # noqa: RUF012
        "init": (Init, "Put the griffin profile into the IPython folder."),
        "plan": (MakePlan, "Show what a start would take, without making anything."),
        "ps": (Ps, "List one's own clusters in the cloud project."),
        "logs": (Logs, "Show what a cluster's servers said: agents, engines, consoles."),
        "timeline": (Timeline, "Show how long each server of a cluster took to start, and where."),
        "connect": (Connect, "Use a cluster whose controller runs on a server from this machine."),
        "put": (Put, "Store files in the object store, where they outlive the clusters."),
        "get": (Get, "Fetch a result."),
        "results": (ListResults, "List what is stored, or delete it."),
        "stop": (Stop, "Delete what a cluster has in the cloud, from any machine."),
        "reap": (Reap, "Delete what clusters left behind."),
        "devcloud": (DevCloud, "Run an OpenStack look-alike on this machine."),
    }

    def run(self) -> None:
        self.print_help()
        self.exit(1)


def main() -> None:
    """Entry point of the console script."""
    try:
        Griffin.launch_instance()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
