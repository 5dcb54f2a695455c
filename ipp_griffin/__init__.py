"""ipyparallel clusters on OpenStack: a controller and engines on VMs that find each other in the object store."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["Results"]


def __getattr__(name: str) -> Any:  # when it is asked for: ipyparallel imports this package for its launchers
    if name == "Results":
        from .api.results import Results

        return Results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
