"""Keep what engines and servers wrote, while a set runs and after it ended: for `get_output`."""

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
    """It is worth less than the servers' end: a cloud that fails or hangs holds up nobody, and
    what was read till then counts. Blocking. ``role``: what the servers run, "" for engines."""

    def __init__(self, role: str = "") -> None:
        self._what = role or "engine"
        self._engines: dict[str, str] = {}
        self._consoles: dict[str, str] = {}

    def read(self, engine_set: EngineSet, servers: int, wait: float = 0) -> None:
        """Read what the engines of at most ``servers`` servers wrote, ``wait`` seconds for their servers to report their end first."""

        def read() -> None:
            if wait:
                engine_set.wait_until_gone(timeout=wait)
            self._engines.update(engine_set.output(servers))

        with contextlib.suppress(GriffinError):
            within(wait + OUTPUT_TIMEOUT, read)

    def read_consoles(self, engine_set: EngineSet, servers: Sequence[Server]) -> None:
        """Read the ends of these servers' consoles, which go with them."""
        with contextlib.suppress(GriffinError):
            within(CONSOLE_TIMEOUT, lambda: engine_set.read_consoles(servers, self._consoles.__setitem__))

    def keep(self, path: Path) -> None:
        """Write it into a file that only its owner can read, if there is anything: whoever started the engines may be another process
        than the one that stops them. A folder that can't be written is no reason to fail."""
        text = str(self)
        if text:
            with contextlib.suppress(OSError):
                write_private(path, text + "\n")

    def __str__(self) -> str:
        texts = [(f"Output for {self._what} {name}", text) for name, text in sorted(self._engines.copy().items())]
        texts += [(f"Console of server {name}", text) for name, text in sorted(self._consoles.copy().items())]
        return "\n".join(f"{title}\n{indent(text, '  ')}" for title, text in texts if text)
