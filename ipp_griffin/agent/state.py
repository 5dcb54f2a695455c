"""What the agent remembers on this server, also after a reboot."""

import contextlib
import json
import os
from typing import Any, Callable

from .system import Json, read, write


class State:
    """The agent's folder, which only it can read: the private object, logs and counters.

    ``kept``: the number of the next report, engines' generations, whether engines have run here, and of a controller its connection
    files, whether the launcher has them, and what its hub knew of its engines.
    """

    def __init__(self, folder: str, log: Callable[[str], None]) -> None:
        self._folder, self._log = folder, log
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self.kept: Json = {"sequence": 0, "generations": [], "ran": False, "connection_files": {}, "hub": {}}
        with contextlib.suppress(ValueError):
            self.kept.update(json.loads(read(self.path("state.json")).decode() or "{}"))

    def path(self, name: str) -> str:
        return os.path.join(self._folder, name)

    def keep(self, **changes: Any) -> None:
        """Remember this. Where the disk is full, engines go on, and reports come, all the same."""
        self.kept.update(changes)
        try:
            write(self.path("state.json"), json.dumps(self.kept).encode())
        except OSError as e:
            self._log(f"what a reboot needs was not kept: {e.strerror or e}")

    def next_sequence(self) -> int:
        """Return the number of the next report. None is used twice."""
        sequence = int(self.kept["sequence"])
        self.keep(sequence=sequence + 1)
        return sequence
