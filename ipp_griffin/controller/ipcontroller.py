"""``python -m ipp_griffin.ipcontroller ARGUMENTS``: ipcontroller, as `GriffinControllerLauncher` runs it.

It logs no keys, uses the heartbeats of `heartbeats` unless the profile or an argument sets others, and ends if its starter ended before
the cluster file could name it. The launcher starts it before address and ports are known, which depend on the cloud; it then loads
ipyparallel and waits for them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from traitlets.config import Config

from ..common.files import write_private
from ..common.processes import process_of
from .heartbeats import CONTROLLER_DEFAULTS
from .redaction import redact_this_process

STARTER = "IPP_GRIFFIN_STARTER"  # in the environment: the pid of the process that records this one in the cluster file
ARGUMENTS = "IPP_GRIFFIN_ARGUMENTS"  # in the environment: the file in which the last arguments will be
LONGEST = 600  # seconds that they may take: the launcher tries again for a while if the cloud does not answer
SECRETS = ("IPP_SESSION_KEY", "IPP_CURVE_SECRETKEY", "IPP_CURVE_PUBLICKEY")


def give_arguments(path: Path, arguments: list[str]) -> None:
    """Give the last arguments to the process that was started with `ARGUMENTS` = ``path`` and waits for them."""
    write_private(path, json.dumps(arguments))


def _wait_for_arguments(path: Path) -> list[str]:
    """Return the last arguments once they are there, and remove the file. End this process if its parent, the launcher's, has ended."""
    launcher, deadline = os.environ.get(STARTER, ""), time.monotonic() + LONGEST
    while not path.exists():
        if launcher and os.getppid() != int(launcher):
            sys.exit(f"Process {launcher}, which started this controller, has ended")
        if time.monotonic() > deadline:
            sys.exit(f"Process {launcher} gave no address to this controller within {LONGEST} s")
        time.sleep(0.02)
    arguments: list[str] = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return arguments


def _lost_starter() -> str:
    """Return the pid of the process that started this one, if it has ended; else ""."""
    starter = os.environ.get(STARTER, "")
    return starter if starter and process_of(int(starter)) is None else ""


def main() -> None:
    path = os.environ.pop(ARGUMENTS, "")
    if path:  # a stop that comes before them is no failure
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    redact_this_process(os.environ.get(name, "") for name in SECRETS)
    from ipyparallel.controller import app  # only now, because it creates its log when it is imported

    class IPController(app.IPController):  # type: ignore[misc]
        """ipyparallel's IPController with this project's defaults, which checks that its starter still lives."""

        def init_hub(self) -> None:
            """End here if the starter was killed: it may not have written the cluster file, and no stop would find this process.

            ipyparallel's method then writes the connection files; the first child process starts after it.
            """
            if lost := _lost_starter():
                self.log.critical(f"Process {lost}, which started this controller, has ended")
                self.exit(1)
            super().init_hub()

        def load_config_file(self, *args: Any, **kwargs: Any) -> None:
            """Add this project's defaults, which config files override, to the configuration, from which the heart monitor's process takes them."""
            super().load_config_file(*args, **kwargs)
            config = Config(CONTROLLER_DEFAULTS)
            config.merge(self.config)
            self.update_config(config)

    if path:
        sys.argv += _wait_for_arguments(Path(path))
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    IPController.launch_instance()


if __name__ == "__main__":
    main()
