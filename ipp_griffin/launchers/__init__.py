"""The ipyparallel launchers: traits and lifecycle. What happens on the cloud is in `ipp_griffin.cluster.engine_set` and below.

ipcluster imports this package in every run, whatever launcher it uses, so nothing here imports an SDK before a
launcher starts or stops something. The contract is ipyparallel's ``docs/source/reference/launchers.md``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .controller import GriffinControllerLauncher
    from .engines import GriffinEngineSetLauncher
    from .server_controller import GriffinServerControllerLauncher

__all__ = ["GriffinControllerLauncher", "GriffinEngineSetLauncher", "GriffinServerControllerLauncher"]
_MODULES = {
    "GriffinControllerLauncher": "controller",
    "GriffinEngineSetLauncher": "engines",
    "GriffinServerControllerLauncher": "server_controller",
}


def __getattr__(name: str) -> Any:  # when it is asked for: the settings and profiles beside them need no ipyparallel
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
