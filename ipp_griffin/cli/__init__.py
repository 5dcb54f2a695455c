"""`ipp-griffin`: the command beside ipcluster. One module for each subcommand, a thin layer over the modules it imports."""

from __future__ import annotations

import os
import sys

from .command import Command

__all__ = ["main"]


class Griffin(Command):
    name = "ipp-griffin"
    description = "ipyparallel clusters on OpenStack. The clusters themselves are started and stopped by ipcluster."
    examples = """ipp-griffin init
ipcluster start --profile=griffin -n 8
ipcluster stop --profile=griffin"""
    # By name, so that each is imported only when it is called.
    subcommands = {  # noqa: RUF012
        "init": ("ipp_griffin.cli.init.Init", "Put the griffin profile into the IPython folder."),
        "plan": ("ipp_griffin.cli.plan.MakePlan", "Show what a start would take, without creating anything."),
        "ps": ("ipp_griffin.cli.ps.Ps", "List your clusters in the cloud project."),
        "logs": ("ipp_griffin.cli.logs.Logs", "Show the logs of a cluster's servers: agents, engines, consoles."),
        "timeline": (
            "ipp_griffin.cli.timeline.Timeline",
            "Show how long each server of a cluster took to start, by phase.",
        ),
        "connect": (
            "ipp_griffin.cli.connect.Connect",
            "Use, from this machine, a cluster whose controller runs on a server.",
        ),
        "put": ("ipp_griffin.cli.results.Put", "Store files in the object store, where they outlive the cluster."),
        "get": ("ipp_griffin.cli.results.Get", "Fetch a result."),
        "results": ("ipp_griffin.cli.results.ListResults", "List results, or delete them."),
        "stop": ("ipp_griffin.cli.stop.Stop", "Delete a cluster's servers and container, from any machine."),
        "reap": ("ipp_griffin.cli.reap.Reap", "Delete leftovers of clusters."),
        "devcloud": ("ipp_griffin.cli.devcloud.DevCloud", "Run an OpenStack look-alike on this machine."),
    }

    def run(self) -> None:
        self.print_help()
        self.exit(1)


def main() -> None:
    """Run the console script."""
    try:
        try:
            Griffin.launch_instance()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has enough; also of a help text
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
