"""The fakes of all doors in the places where launchers find the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ipp_griffin.cloud.cloud import Cloud
from ipp_griffin.cloud.store import store as store_module
from ipp_griffin.controller import hub as hub_module

from ..fakes import Call, Door, FakeCloud, FakeHub, FakeStore

CONNECTION = {  # of a controller on this machine, as ipcontroller writes it for engines
    "interface": "tcp://10.0.0.1",
    "registration": 20000,
    "location": "10.0.0.1",
    "key": "5ecre7" * 10,
    "curve_serverkey": "cUrVe" * 8,
}
ADDRESS = "10.0.0.9"  # of the controller's server


class Doors:
    """Whatever is asked of the cloud, the object store and the hub is in one list, ``calls``."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.cloud = FakeCloud()
        self.calls = self.cloud.calls
        self.store: FakeStore = FakeStore()
        self.store.calls = self.calls
        self.hub = FakeHub(self.cloud)
        patch.setattr(Cloud, "connect", self.cloud.connect)  # whatever the cloud's name
        patch.setattr(store_module, "Store", lambda session, url, **how: self.store)
        patch.setattr(hub_module, "Hub", self.hub)

    def __getitem__(self, name: str) -> Door:
        """The door that calls name so."""
        cloud = self.cloud
        doors = (cloud, cloud.groups, cloud.floating_ips, cloud.ports, self.store, self.hub)
        return next(door for door in doors if door.name == name)

    def left_over(self) -> list[str]:
        """What there is on the cloud and in the object store."""
        cloud = self.cloud
        found = [*cloud.there, *cloud.ports.left.values(), *cloud.groups.there, *cloud.floating_ips.there]
        return [str(thing) for thing in [*found, *self.store.there]]


class StoreWithAgent(FakeStore):
    """With an agent that runs ipcontroller as soon as it knows its address.

    ``agent``: what it reports instead of "engines"; ``forge``: what it makes of the connection files; ``addresses``: of what was
    published, in this order; ``private_object``: the last of that.
    """

    agent = "engines"
    forge: Callable[[dict[str, Any]], dict[str, Any]] = staticmethod(lambda files: files)

    def __init__(self, calls: list[Call]) -> None:
        super().__init__()
        self.calls = calls
        self.addresses: list[str] = []
        self.then = self._read

    def _read(self, uid: str, name: str, data: bytes) -> None:
        if not name.endswith("connection.json"):
            return
        self.private_object = json.loads(data)
        controller = self.private_object["controller"]
        self.addresses.append(controller["address"])
        if controller["address"]:
            keys = controller["keys"]
            info = {"ssh": "", "interface": f"tcp://{controller['address']}", "location": controller["address"]}
            info |= {"registration": 20000, "key": keys["session"], "curve_serverkey": keys["curve_public"]}
            files = {
                "engine": {**info, "mux": 20001, "hb_ping": 20002},
                "client": {**info, "mux": 20012, "task": 20014},
            }
            self.there[uid]["controller/0.0/handover"] = json.dumps(self.forge(files)).encode()
            self.there[uid][f"controller/0.0/0001-{self.agent}"] = b""
            self.contents[f"controller/0.0/0001-{self.agent}"] = {"message": "no python", "engines": []}
