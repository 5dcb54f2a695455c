"""`Progress`: show the progress of a start, as a bar on terminals and in notebooks, else as log lines."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

IN_WORDS = {"agent": "with an agent", "connected": "with a way to the controller", "engines": "with engines"}
FORMAT = "{desc}: {n_fmt}/{total_fmt} |{bar}| {elapsed}{postfix}"


class Progress:
    """A context manager. ``bar``: True, False, or None for "if there is a terminal or a notebook".

    ipyparallel's own bars are tqdm's, too: in a notebook with ipywidgets it is a widget.
    """

    def __init__(self, engines: int, log: Any, bar: bool | None = None) -> None:
        self._engines, self._log = engines, log
        self._logger: logging.Logger = getattr(log, "logger", log)  # traitlets may give an adapter
        self._wanted = _has_terminal() or _in_kernel() if bar is None else bar
        self._bar: Any = None
        self._told = ""

    def __enter__(self) -> Progress:
        if self._wanted:
            from ipyparallel.util import progress

            self._bar = progress(
                total=self._engines, desc="Engines", unit="engine", file=sys.stderr, bar_format=FORMAT, leave=False
            )
            self._logger.addFilter(self._make_room)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._logger.removeFilter(self._make_room)
            self._bar.close()

    def _make_room(self, record: logging.LogRecord) -> bool:
        """Clear the bar before something is logged, so that the log line does not follow it on the same line; it is drawn again later."""
        self._bar.clear()
        return True

    def show(self, connected: int, phases: Mapping[str, int]) -> None:
        """Show ``connected`` (engines that the controller lists) and ``phases`` (how many servers are in which phase)."""
        servers = ", ".join(f"{count} {IN_WORDS.get(phase, phase)}" for phase, count in phases.items())
        if self._bar is not None:
            self._bar.n = connected
            self._bar.set_postfix_str(f"servers: {servers}")
            return
        text = f"{connected} of {self._engines} engines connected; servers: {servers}"
        if text != self._told:
            self._log.info(text)
        self._told = text


def _has_terminal() -> bool:
    """Return whether there is a terminal with room for a bar: a container's may have no columns."""
    try:
        return sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):  # no file descriptor, or none of a terminal
        return False


def _in_kernel() -> bool:
    """Return whether this is a notebook's (or another Jupyter front end's) kernel."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return getattr(shell, "kernel", None) is not None
