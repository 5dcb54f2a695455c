"""``griffin.py N POLL_INTERVAL``: this project, by ipyparallel's Python API. It is ended from outside: its guests are silent."""

from __future__ import annotations

import logging
import sys
import threading

import ipyparallel as ipp
from marks import mark, wait_for_a_line
from traitlets.config import Config

N = int(sys.argv[1])


class Progress(logging.Handler):
    """Marks the moment at which all servers were seen ACTIVE."""

    def emit(self, record: logging.LogRecord) -> None:
        if f"servers: {N} active" in record.getMessage():
            mark("active")


def main() -> None:
    log = logging.getLogger("bench")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(Progress())
    traits = {"engines_per_server": 1, "progress": False, "poll_interval": float(sys.argv[2])}
    settings = {"GriffinEngineSetLauncher": traits}
    cluster = ipp.Cluster(
        engines="griffin", controller="griffin", n=N, cluster_id="", profile="griffin", log=log, config=Config(settings)
    )
    cluster.shutdown_atexit = False
    cluster.start_controller_sync()
    mark("begin")
    threading.Thread(target=cluster.start_engines_sync, args=(N,), daemon=True).start()
    wait_for_a_line()


if __name__ == "__main__":
    main()
