"""The ipyparallel launchers: traits and lifecycle. What happens on the cloud is in `ipp_griffin.cluster.engine_set` and below.

ipcluster imports this package in every run, whatever launcher it uses, so nothing here imports an SDK before a
launcher starts or stops something. The contract is ipyparallel's ``docs/source/reference/launchers.md``.
"""

from .controller import GriffinControllerLauncher
from .engines import GriffinEngineSetLauncher
from .server_controller import GriffinServerControllerLauncher

__all__ = ["GriffinControllerLauncher", "GriffinEngineSetLauncher", "GriffinServerControllerLauncher"]
