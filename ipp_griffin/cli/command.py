"""What the subcommands of `ipp-griffin` have in common."""

from __future__ import annotations

import os
import sys

from traitlets.config import Application

from .. import __version__
from ..plan import GriffinError


class Command(Application):
    """Base of the subcommands: an error is one line and status 1."""

    version = __version__
    takes_arguments = False

    def start(self) -> None:
        if self.subapp is not None:
            self.subapp.start()
            return
        if self.extra_args and not self.takes_arguments:
            self.fail(f"don't know {' '.join(self.extra_args)!r}. See `{self.called} --help`.")
        try:
            self.run()
            sys.stdout.flush()
        except GriffinError as e:
            self.fail(str(e))
        except BrokenPipeError:  # who reads, such as `head`, has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except OSError as e:
            self.fail(f"{e.strerror or e}: {e.filename}" if e.filename else str(e))

    @property
    def called(self) -> str:
        """What the user typed to get here."""
        return "ipp-griffin" if self.name == "ipp-griffin" else f"ipp-griffin {self.name}"

    def run(self) -> None:
        raise NotImplementedError

    def remark(self, message: str) -> None:
        print(f"{self.called}: {message}", file=sys.stderr)

    def fail(self, message: str) -> None:
        self.remark(message)
        self.exit(1)
