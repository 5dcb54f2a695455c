"""``python -m ipp_griffin.ipcontroller ARGUMENTS``: ipcontroller, as `GriffinControllerLauncher` runs it.

Without keys in what it logs, and with the heartbeats of `heartbeats` where neither the profile nor an argument says otherwise.
"""

from __future__ import annotations

import os
from typing import Any

from traitlets.config import Config

from .heartbeats import CONTROLLER_DEFAULTS
from .redaction import redact_this_process

SECRETS = ("IPP_SESSION_KEY", "IPP_CURVE_SECRETKEY", "IPP_CURVE_PUBLICKEY")


def main() -> None:
    redact_this_process(os.environ.get(name, "") for name in SECRETS)
    from ipyparallel.controller import app  # after that: it makes its log as it is imported

    class IPController(app.IPController):  # type: ignore[misc]
        """Puts our defaults below the files. In its configuration, as that is what its heart monitor gets, a process of its own."""

        def load_config_file(self, *args: Any, **kwargs: Any) -> None:
            super().load_config_file(*args, **kwargs)
            config = Config(CONTROLLER_DEFAULTS)
            config.merge(self.config)
            self.update_config(config)

    IPController.launch_instance()


if __name__ == "__main__":
    main()
