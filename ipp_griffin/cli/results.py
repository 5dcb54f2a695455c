"""`ipp-griffin put`, `get` and `results`: what runs leave behind, in the object store."""

from __future__ import annotations

import json
import re
import signal
import sys
from dataclasses import asdict
from typing import Any

from traitlets import Bool, Unicode

from ..api.results import UID, Result, Results
from ..common.text import printable, typed
from .command import ClustersCommand, table


class ResultsCommand(ClustersCommand):
    """Base of the subcommands about results."""

    takes_arguments = True

    def results(self, uid: str | None = None) -> Results:
        return Results(uid, cloud=self.cloud, region=self.region, container=self.container)


OVERWRITE = "Replace a result of that name."


class Put(ResultsCommand):
    name = "put"
    description = """Store files in the object store, where they outlive the cluster.

    Nothing is replaced without --overwrite, and a file is stored whole or not at all.
    """
    examples = """ipp-griffin put table.csv figure.png
ipp-griffin put table.csv --name monday/table.csv
ipp-griffin put table.csv --of griffin"""
    of = Unicode(
        "",
        config=True,
        help="The cluster that the results belong to: its uid (also after it has ended), its profile, or "
        "profile/cluster id.",
    )
    rename = Unicode("", config=True, help="Name of the result, for a single file. Default: the file's name.")
    overwrite = Bool(False, config=True, help=OVERWRITE)
    aliases = {**ClustersCommand.aliases, "of": "Put.of", "name": "Put.rename"}  # noqa: RUF012
    flags: dict[str, Any] = {  # noqa: RUF012
        **ClustersCommand.flags,
        "overwrite": ({"Put": {"overwrite": True}}, OVERWRITE),
    }

    def run(self) -> None:
        if not self.extra_args or not all(self.extra_args):
            self.fail("name the files to store.")
        if self.has_option("rename") and (len(self.extra_args) > 1 or not self.rename):
            self.fail("--name needs exactly one file.")
        results = self.results(self._uid() if self.has_option("of") else None)
        for path in self.extra_args:
            print(results.put(path, self.rename, overwrite=self.overwrite))

    def _uid(self) -> str:
        """Return the uid of the cluster that the results belong to. A cluster that has ended is only known by its uid."""
        return self.of if re.fullmatch(UID, self.of) else self.clusters().find(self.of, everyone=self.all_owners).uid


class Get(ResultsCommand):
    name = "get"
    description = (
        "Fetch a result, named as `ipp-griffin results` shows it. Leave out the cluster's uid if the name is unique."
    )
    examples = "ipp-griffin get table.csv\nipp-griffin get 85b7916ade4a/table.csv --output /data/monday.csv"
    output = Unicode(
        "", config=True, help="File or folder to write to. Default: a file of the result's name, in this folder."
    )
    overwrite = Bool(False, config=True, help="Replace an existing file.")
    aliases = {**ClustersCommand.aliases, "output": "Get.output"}  # noqa: RUF012
    flags = {"overwrite": ({"Get": {"overwrite": True}}, "Replace an existing file.")}  # noqa: RUF012

    def run(self) -> None:
        if len(self.extra_args) != 1 or not self.extra_args[0]:
            self.fail("name a result. `ipp-griffin results` lists them.")
        if self.has_option("output") and not self.output:
            self.fail("--output needs a file or a folder.")
        for number in (signal.SIGTERM, signal.SIGHUP):  # so that half a file is removed, as after Ctrl-C
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, lambda number, _: sys.exit(128 + number))
        print(printable(str(self.results().get(self.extra_args[0], self.output, overwrite=self.overwrite))))


class ListResults(ResultsCommand):
    name = "results"
    description = """List the results in this project: all of them, or those of one cluster, given its uid.

    With --delete: delete results, named as for `ipp-griffin get`. A name that ends in "/" means all results below it.
    Shows what it found, and asks.
    """
    examples = """ipp-griffin results
ipp-griffin results 85b7916ade4a --json
ipp-griffin results --delete table.csv 85b7916ade4a/"""
    json = Bool(False, config=True, help="Print JSON; deletes only with --yes.")
    delete = Bool(False, config=True, help="Delete the named results.")
    yes = Bool(False, config=True, help="Delete without asking.")
    flags = {  # noqa: RUF012
        "json": ({"ListResults": {"json": True}}, "Print JSON; deletes only with --yes."),
        "delete": ({"ListResults": {"delete": True}}, "Delete the named results."),
        "yes": ({"ListResults": {"yes": True}}, "Delete without asking."),
    }

    def run(self) -> None:
        if self.delete:
            self._delete()
        elif len(self.extra_args) > 1:
            self.fail("give the uid of one cluster, or none.")
        elif not self._show((results := self.results(*self.extra_args)).all()):
            of = f" of cluster {results.uid}" if results.uid else ""
            print(f"There is no result{of} in this project.")

    def _delete(self) -> None:
        if not self.extra_args:
            self.fail("name the results to delete. `ipp-griffin results` lists them.")
        results = self.results()
        found = list({one.name: one for name in self.extra_args for one in self._named(results, name)}.values())
        self._show(found)
        if self.may_delete(len(found), yes=self.yes, ask=not self.json, dry_run="--json"):
            results.delete(*found)
            if not self.json:
                print(f"Deleted: {len(found)}.")

    def _named(self, results: Results, name: str) -> list[Result]:
        below = [one for one in results.all() if one.name.startswith(name)] if name.endswith("/") else []
        return below or [results.find(name)]

    def _show(self, found: list[Result]) -> bool:
        """Print the results; return whether there were any."""
        if self.json:
            print(json.dumps([{**asdict(one), "cluster": one.cluster or None} for one in found], indent=2))
        elif found:
            rows = [(typed(one.name), str(one.bytes), one.modified[:19] + "Z" * bool(one.modified)) for one in found]
            print(table([("NAME", "BYTES", "STORED"), *rows]))
        return self.json or bool(found)
