"""What the subcommands of `ipp-griffin` have in common."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any

from traitlets import Bool, Unicode
from traitlets.config import Application
from traitlets.config.loader import KVArgParseConfigLoader

from ..cluster.inventory import Clusters
from ..common.errors import GriffinError


def agreed(question: str) -> bool:
    """Return whether the person at the terminal agrees; the end of the input means no."""
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


class Options(KVArgParseConfigLoader):
    """Read a command line; call ``unknown`` with the name of an unknown option.

    traitlets only warns of an unknown option with a value: `reap --yes` would delete what a misspelt option was meant to spare.
    """

    unknown: Callable[[str], None]
    refuse: Callable[[str], None]

    def _create_parser(self) -> None:
        super()._create_parser()
        # argparse prints its usage, and ends with another status
        self.parser.error = self.refuse  # type: ignore[method-assign,assignment]

    def _handle_unrecognized_alias(self, arg: str) -> None:
        self.unknown(arg)


class Command(Application):
    """Base of the subcommands: an error is one line and status 1."""

    version = metadata.version("ipp-griffin")
    takes_arguments = False

    def _create_loader(self, argv: Any, aliases: Any, flags: Any, classes: Any) -> Options:
        options = Options(
            argv,
            aliases,
            flags,
            classes=classes,
            log=self.log,
            subcommands=self.subcommands,
            prog=self.called,
            allow_abbrev=False,
        )
        options.refuse = lambda message: self.fail(f"{message}. See `{self.called} --help`.")
        options.unknown = lambda name: self._unknown(f"--{name}")
        return options

    def _unknown(self, what: str) -> None:
        self.fail(f"unknown option or argument {what!r}. See `{self.called} --help`.")

    def start(self) -> None:
        if self.subapp is not None:
            self.subapp.start()
            return
        if self.extra_args and not self.takes_arguments:
            self._unknown(" ".join(self.extra_args))
        try:
            self.run()
        except GriffinError as e:
            self.fail(str(e))
        except BrokenPipeError:
            raise  # `main` ends quietly
        except OSError as e:
            self.fail(f"{e.strerror or e}: {e.filename}" if e.filename else str(e))

    @property
    def called(self) -> str:
        """Return what the user typed to get here."""
        return "ipp-griffin" if self.name == "ipp-griffin" else f"ipp-griffin {self.name}"

    def run(self) -> None:
        raise NotImplementedError

    def has_option(self, option: str) -> bool:
        """Return whether the command line has this option of this command, even with an empty value."""
        return option in self.cli_config.get(type(self).__name__, {})

    def may_delete(self, count: int, *, yes: bool, ask: bool, dry_run: str) -> bool:
        """Return whether the user agrees to delete what was just shown. ``dry_run``: the option that only shows it."""
        if yes or not ask:
            return yes
        if not sys.stdin.isatty():
            self.fail(
                f"there is no terminal to ask on. Add --yes to delete, or {dry_run} to only show what would be deleted."
            )
        return agreed(f"Delete {'it' if count == 1 else f'these {count}'}?")

    def remark(self, message: str) -> None:
        sys.stdout.flush()  # earlier output comes first
        print(f"{self.called}: {message}", file=sys.stderr)

    def fail(self, message: str) -> None:
        self.remark(message)
        self.exit(1)


class ClustersCommand(Command):
    """Base of the subcommands about the clusters of a project."""

    cloud = Unicode(
        "", config=True, help="Name of the cloud in clouds.yaml. Default: OS_CLOUD, else the OS_* variables."
    )
    region = Unicode("", config=True, help="Region of the cloud. Default: the one that clouds.yaml names.")
    container = Unicode(
        "ipp-griffin", config=True, help="Prefix of the names of containers, if it was changed. Default: ipp-griffin."
    )
    all_owners = Bool(False, config=True, help="Include other users' clusters in this project.")
    aliases: dict[str, Any] = {  # noqa: RUF012
        "cloud": "ClustersCommand.cloud",
        "region": "ClustersCommand.region",
        "container": "ClustersCommand.container",
    }
    flags: dict[str, Any] = {  # noqa: RUF012
        "all-owners": ({"ClustersCommand": {"all_owners": True}}, "Include other users' clusters in this project.")
    }

    def clusters(self) -> Clusters:
        """Return the clusters of the project that the credentials are for. Raises `CloudError`."""

        from ..cloud.cloud import Cloud
        from ..cloud.shared import open_store

        cloud = Cloud.connect(self.cloud or os.environ.get("OS_CLOUD", ""), region=self.region)
        return Clusters(cloud, lambda prefix: open_store(cloud, container=prefix), self.container)


def table(rows: list[tuple[str, ...]]) -> str:
    """Return the rows as text, with columns two spaces apart."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
