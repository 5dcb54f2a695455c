"""ipyparallel clusters on OpenStack: a controller and engines on VMs that find each other in the object store."""

from typing import Any

__all__ = ["Results", "__version__"]


def __getattr__(name: str) -> Any:  # when it is asked for: ipyparallel imports this package for its launchers
    if name == "Results":
        from .api import Results

        return Results
    if name == "__version__":
        from importlib.metadata import version

        return version("ipp-griffin")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
