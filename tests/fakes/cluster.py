"""ipyparallel's Cluster, as far as launchers use it."""

from __future__ import annotations

import json
import types
from typing import Any as AnyObject

from traitlets import Any, Dict, List
from traitlets.config import Configurable

from .cloud import FakeCloud


class FakeCluster(Configurable):
    """``launcher``: the one whose state goes into the cluster file; ``written``: what that got, each time, and for how many plans
    servers had been asked for by then."""

    written = List()
    launcher = Any()
    controller = Any()
    engines = Dict()
    cluster_file = ""

    def __init__(self, cloud: FakeCloud, **kwargs: AnyObject) -> None:
        super().__init__(**kwargs)
        self._cloud = cloud
        self.controller = types.SimpleNamespace(state="running", stop_data={})

    def update_cluster_file(self) -> None:
        self.written.append((json.loads(json.dumps(self.launcher.to_dict())), len(self._cloud.plans)))
