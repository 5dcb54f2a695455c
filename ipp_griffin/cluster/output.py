"""Save the output of engines and servers, while a set runs and after it ended, for `get_output`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

from ..common.errors import GriffinError
from ..common.files import write_private
from ..common.threads import within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model.server import Server
    from .engine_set import EngineSet

OUTPUT_TIMEOUT = 15.0  # seconds that reading the engines' output may take
CONSOLE_TIMEOUT = 5.0  # seconds that reading the servers' consoles may take


class Output:
    """Deleting the servers matters more: a cloud that fails or hangs does not delay it, and what was read until then is kept. Blocking.
    ``role``: what the servers run, "" for engines."""

    def __init__(self, role: str = "") -> None:
        self._what = role or "engine"
        self._engines: dict[str, str] = {}
        self._consoles: dict[str, str] = {}

    def read(self, engine_set: EngineSet, servers: int, wait: float = 0) -> None:
        """Read the output of the engines of at most ``servers`` servers, after up to ``wait`` seconds for those servers to report their end."""

        def read() -> None:
            if wait:
                engine_set.wait_until_gone(timeout=wait)
            self._engines.update(engine_set.output(servers))

        with contextlib.suppress(GriffinError):
            within(wait + OUTPUT_TIMEOUT, read)

    def read_consoles(self, engine_set: EngineSet, servers: Sequence[Server]) -> None:
        """Read the last lines of these servers' consoles, which are lost with them."""
        with contextlib.suppress(GriffinError):
            within(CONSOLE_TIMEOUT, lambda: engine_set.read_consoles(servers, self._consoles.__setitem__))

    def keep(self, path: Path) -> None:
        """Write the output, if any, into a file that only its owner can read, because another process than the one that started the engines may
        stop them. A folder that can't be written does not fail the stop."""
        text = str(self)
        if text:
            with contextlib.suppress(OSError):
                write_private(path, text + "\n")

    def __str__(self) -> str:
        texts = [(f"Output for {self._what} {name}", text) for name, text in sorted(self._engines.copy().items())]
        texts += [(f"Console of server {name}", text) for name, text in sorted(self._consoles.copy().items())]
        return "\n".join(f"{title}\n{indent(text, '  ')}" for title, text in texts if text)
