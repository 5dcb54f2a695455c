"""`ipp-griffin timeline`: how long each server took to start, by phase; as text, as JSON, and as a picture."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timezone
from pathlib import Path

from traitlets import Bool, Unicode

from ..model.timeline import as_json, as_text, timeline
from .command import ClustersCommand
from .timeline_svg import as_svg


class Timeline(ClustersCommand):
    name = "timeline"
    description = """Show when each server of a cluster was requested, built, active, and its engines connected; also of those that
    were replaced. CLUSTER is its uid, its profile, or profile/cluster id.

    If the object store has no URLs for a whole prefix (Ceph's gateway), the first report of a phase is hidden by a later one.
    """
    examples = "ipp-griffin timeline griffin\nipp-griffin timeline griffin --output start.svg"
    output = Unicode("", config=True, help="Write a picture (SVG) to this file.")
    json = Bool(False, config=True, help="Print JSON.")
    aliases = {**ClustersCommand.aliases, "output": "Timeline.output"}  # noqa: RUF012
    flags = {**ClustersCommand.flags, "json": ({"Timeline": {"json": True}}, "Print JSON.")}  # noqa: RUF012
    takes_arguments = True

    def run(self) -> None:
        if len(self.extra_args) != 1:
            self.fail("name a cluster. `ipp-griffin ps` lists them.")
        if self.output and not self.output.endswith(".svg"):
            self.fail(f"{self.output} must end in .svg: the picture is an SVG.")
        clusters = self.clusters()
        cluster = clusters.find(self.extra_args[0], everyone=self.all_owners)
        shown = timeline(clusters.records(cluster), datetime.now(timezone.utc))
        if shown is None:
            self.fail(f"no server of cluster {cluster.uid} is known.")
            return
        title = (
            f"Cluster {cluster.uid}"
            + (f" ({cluster.name})" if cluster.name else "")
            + f", from {shown.zero:%Y-%m-%d %H:%M:%S} UTC"
        )
        if self.output:
            Path(self.output).write_text(as_svg(shown, title), encoding="utf-8")
        if self.json:
            print(json.dumps({"cluster": cluster.uid, **as_json(shown)}, indent=2))
        else:
            print(title)
            print(as_text(shown, shutil.get_terminal_size().columns))
