"""Keep keys out of what ipcontroller logs and prints.

At DEBUG it logs the messages that pass through, including what engines print, which at DEBUG is their configuration with the signing
key. Unlike a filter of `logging`, this can't be turned off by a profile or an argument.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterable
from typing import Any

from ..agent.text import Redactor


class RedactedStream:
    """A text stream, such as sys.stderr, that removes secrets from what is written."""

    def __init__(self, stream: Any, redactor: Redactor) -> None:
        self._stream, self._redactor = stream, redactor

    def write(self, text: str) -> int:
        self._stream.write(self._redactor.text(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def redact_this_process(secrets: Iterable[str]) -> None:
    """Keep secrets out of all log records and prints from now on, and make new files private."""
    redactor, make = Redactor(list(secrets)), logging.getLogRecordFactory()

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        made = make(*args, **kwargs)
        with contextlib.suppress(Exception):  # arguments that don't fit the message: the handler reports that
            made.msg, made.args = redactor.text(made.getMessage()), ()
        return made

    logging.setLogRecordFactory(record)
    for name in ("stdout", "stderr"):
        setattr(sys, name, RedactedStream(getattr(sys, name), redactor))
    os.umask(0o077)  # for --log-to-file, and the database of results
