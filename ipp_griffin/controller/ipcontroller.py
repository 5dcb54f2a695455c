"""``python -m ipp_griffin.ipcontroller ARGUMENTS``: ipcontroller, as `GriffinControllerLauncher` runs it.

Without keys in what it logs, with the heartbeats of `heartbeats` where neither the profile nor an argument says otherwise, and not
without whoever started it, before the cluster file can name it.
"""

from __future__ import annotations

import os
from typing import Any

from traitlets.config import Config

from ..common.processes import process_of
from .heartbeats import CONTROLLER_DEFAULTS
from .redaction import redact_this_process

STARTER = "IPP_GRIFFIN_STARTER"  # in the environment: the pid of the process that notes this one in the cluster file
SECRETS = ("IPP_SESSION_KEY", "IPP_CURVE_SECRETKEY", "IPP_CURVE_PUBLICKEY")


def main() -> None:
    redact_this_process(os.environ.get(name, "") for name in SECRETS)
    from ipyparallel.controller import app  # after that: it makes its log as it is imported

    class IPController(app.IPController):  # type: ignore[misc]
        """Defaults of ours, and a look at who started it."""

        def init_hub(self) -> None:
            """End here if the starter was killed: it may not have written the cluster file, and no stop would find this process.

            Connection files are written later in this, and the first process of its own started after it.
            """
            starter = os.environ.get(STARTER, "")
            if starter and process_of(int(starter)) is None:
                self.log.critical(f"Process {starter}, which started this controller, has ended")
                self.exit(1)
            super().init_hub()

        def load_config_file(self, *args: Any, **kwargs: Any) -> None:
            """Put this project's defaults below the files, in the configuration, from which its heart monitor, a process of its own, takes them."""
            super().load_config_file(*args, **kwargs)
            config = Config(CONTROLLER_DEFAULTS)
            config.merge(self.config)
            self.update_config(config)

    IPController.launch_instance()


if __name__ == "__main__":
    main()
