"""`ipp-griffin put`, `get` and `results`: what runs leave behind, in the object store."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

from traitlets import Bool, Unicode

from ..calls import one_line
from ..results import Results
from .clusters import ClustersCommand, table


class ResultsCommand(ClustersCommand):
    """Base of what looks at results."""

    takes_arguments = True

    def results(self, uid: str = "") -> Results:
        cloud = self.cloud or os.environ.get("OS_CLOUD", "")
        return Results(uid or None, cloud=cloud, region=self.region, container=self.container)


OVERWRITE = "Replace what is there under that name."


class Put(ResultsCommand):
    name = "put"
    description = """Store files in the object store, where they outlive the clusters.

    Nothing is replaced without --overwrite, and a file that did not come whole is not there.
    """
    examples = "ipp-griffin put table.csv figure.png\nipp-griffin put table.csv --of griffin"
    of = Unicode(
        "", config=True, help="The cluster whose results they are: its uid, its profile, or profile/cluster id."
    )
    overwrite = Bool(False, config=True, help=OVERWRITE)
    aliases = {**ClustersCommand.aliases, "of": "Put.of"}  # noqa: RUF012
    flags: dict[str, Any] = {  # noqa: RUF012
        **ClustersCommand.flags,
        "overwrite": ({"Put": {"overwrite": True}}, OVERWRITE),
    }

    def run(self) -> None:
        if not self.extra_args:
            self.fail("say which files.")
        results = self.results(self.clusters().find(self.of, everyone=self.all_owners).uid if self.of else "")
        for path in self.extra_args:
            print(results.put(path, overwrite=self.overwrite))


class Get(ResultsCommand):
    name = "get"
    description = "Fetch a result, named as `ipp-griffin results` shows it, or without its cluster where that is clear."
    examples = "ipp-griffin get table.csv\nipp-griffin get 85b7916ade4a/table.csv --output /data/monday.csv"
    output = Unicode("", config=True, help="The file, or the folder, to write. Default: its own name, here.")
    overwrite = Bool(False, config=True, help="Replace a file of that name.")
    aliases = {**ClustersCommand.aliases, "output": "Get.output"}  # noqa: RUF012
    flags = {"overwrite": ({"Get": {"overwrite": True}}, "Replace a file of that name.")}  # noqa: RUF012

    def run(self) -> None:
        if len(self.extra_args) != 1:
            self.fail("say which result: `ipp-griffin results` lists them.")
        print(self.results().get(self.extra_args[0], self.output, overwrite=self.overwrite))


class ListResults(ResultsCommand):
    name = "results"
    description = "List what is stored in this project: all of it, or the results of one cluster, by its uid."
    examples = "ipp-griffin results\nipp-griffin results 85b7916ade4a --json"
    json = Bool(False, config=True, help="Print JSON.")
    flags = {"json": ({"ListResults": {"json": True}}, "Print JSON.")}  # noqa: RUF012

    def run(self) -> None:
        if len(self.extra_args) > 1:
            self.fail("say one cluster's uid, or none.")
        found = self.results(*self.extra_args).all()
        if self.json:
            print(json.dumps([{**asdict(one), "cluster": one.cluster or None} for one in found], indent=2))
        elif found:
            rows = [(one_line(one.name, 200), str(one.bytes), f"{one.modified[:19]}Z") for one in found]
            print(table([("NAME", "BYTES", "STORED"), *rows]))
        else:
            print("There is no result in this project.")
