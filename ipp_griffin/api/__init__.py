"""What users import, by `ipp_griffin` itself: `Results`. Each is loaded when it is first asked for."""

from typing import Any

__all__ = ["Results"]


def __getattr__(name: str) -> Any:
    if name == "Results":
        from .results import Results

        return Results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
