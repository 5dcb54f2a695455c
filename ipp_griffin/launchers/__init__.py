"""The ipyparallel launchers: traits and lifecycle. The work on the cloud is in `ipp_griffin.cluster`.

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


def __getattr__(name: str) -> Any:  # lazily: the settings and profiles in this package need no ipyparallel
    if name in _MODULES:
        return getattr(import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
