"""The door to compute, network and image (`ipp_griffin.cloud.cloud`), without a cloud."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ipp_griffin.cloud.floating_ips import FloatingIp
from ipp_griffin.cloud.ports import Port
from ipp_griffin.cloud.security_groups import CONTROLLER, ENGINES, SecurityGroup, group_name
from ipp_griffin.model.names import Place, server_tags
from ipp_griffin.model.plan import Catalogue, Flavor, Image, Limits, Network, Plan, ServerPlan, make_plan
from ipp_griffin.model.server import Server

from .door import Call, Door

UID, SET = "0123456789ab", "aaaa1111"


def make_server(slot: int, *, uid: str = UID, engine_set: str = SET, status: str = "ACTIVE", fault: str = "") -> Server:
    """A server of an engine set, with all its tags."""
    name = f"griffin-{uid}-{engine_set}-{slot}"
    return Server(f"id-{name}", name, status, fault=fault, tags=server_tags(uid, Place(engine_set, slot)))


def plan_of(n: int, **more: Any) -> Plan:
    """A plan of ``n`` servers, each for one engine. ``more``: arguments of `make_plan`."""
    return make_plan(
        n=n,
        uid=UID,
        engine_set=SET,
        image=Image("i1", "snapshot1"),
        flavor=Flavor("f1", "small", 1, 1024),
        network=Network("n1", "net"),
        **more,
    )


class FakePorts(Door):
    """``left``: the port that Nova leaves of each server, by its id."""

    name = "cloud.ports"

    def __init__(self, calls: list[Call]) -> None:
        super().__init__(calls)
        self.left: dict[str, str] = {}

    def head(self, address: str, macs: Iterable[str]) -> Port | None:
        return None

    def of_server_at(self, address: str) -> Port | None:
        return None

    def of_servers(self, server_ids: Iterable[str]) -> list[Port]:
        wanted = set(server_ids)
        return [Port(port, server=server) for server, port in self.left.items() if server in wanted]

    def delete(self, port_id: str) -> None:
        self.left = {server: port for server, port in self.left.items() if port != port_id}


class FakeGroups(Door):
    """``there``: the security groups of all clusters; they are g-1, g-2 ... in the order of their making."""

    name = "cloud.groups"

    def __init__(self, calls: list[Call]) -> None:
        super().__init__(calls)
        self.there: list[SecurityGroup] = []
        self._numbers = itertools.count(1)

    def all(self) -> list[SecurityGroup]:
        return list(self.there)

    def of(self, uid: str) -> list[SecurityGroup]:
        return [group for group in self.there if group.uid == uid]

    def exist(self, uid: str) -> bool:
        return any(group.uid == uid for group in self.there)

    def has_controller(self, uid: str) -> bool:
        return any((group.uid, group.part) == (uid, CONTROLLER) for group in self.there)

    def make(self, uid: str, head: Port | None, ports: tuple[int, int]) -> SecurityGroup:
        return self._ensure(uid, ENGINES)

    def make_for_server(self, uid: str) -> SecurityGroup:
        self._ensure(uid, ENGINES)
        return self._ensure(uid, CONTROLLER)

    def let_in(
        self,
        uid: str,
        *,
        engines: Iterable[tuple[int, int]] = (),
        clients: Iterable[tuple[int, int]] = (),
        client: str = "",
        made: list[str] | None = None,
    ) -> None:
        pass

    def shut(self, rules: Iterable[str]) -> None:
        pass

    def remove(
        self,
        uid: str,
        *,
        timeout: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.there = [group for group in self.there if group.uid != uid]

    def _ensure(self, uid: str, part: str) -> SecurityGroup:
        for group in self.there:
            if (group.uid, group.part) == (uid, part):
                return group
        made = SecurityGroup(f"g-{next(self._numbers)}", group_name(uid, part), uid, part)
        self.there.append(made)
        return made


class FakeFloatingIps(Door):
    """``there``: those that were allocated for clusters."""

    name = "cloud.floating_ips"

    def __init__(self, calls: list[Call]) -> None:
        super().__init__(calls)
        self.there: list[FloatingIp] = []

    def all(self) -> list[FloatingIp]:
        return list(self.there)

    def of(self, uid: str) -> list[FloatingIp]:
        return [floating for floating in self.there if floating.uid == uid]

    def reserve(self, uid: str, wanted: str, pool: str) -> FloatingIp:
        made = FloatingIp(f"f-{len(self.there) + 1}", f"203.0.113.{len(self.there) + 5}", uid, "", "u1", "")
        self.there.append(made)
        return made

    def attach(self, floating: FloatingIp, server_id: str) -> None:
        pass

    def release(self, uid: str) -> None:
        self.there = [floating for floating in self.there if floating.uid != uid]


class FakeCloud(Door):
    """A project with one of everything. ``there``: its servers by id; they are id-0, id-1 ... in the order of their creation.

    ``offers``: what servers can be made of; ``address``, ``status`` and ``fault``: of what is created; ``before_landing``: called in a
    creation, before its server is there. ``shows``: what a listing makes of each server; ``hidden``: ids that no listing shows;
    ``stuck``: ids that outlive their deletion; ``leaves_ports``: Nova leaves the port of each that is deleted; ``consoles``: by id.
    """

    name = "cloud"
    region, project_id, user_id = "north", "p1", "u1"
    session = None
    address, status, fault = "", "ACTIVE", ""
    leaves_ports = False
    retries = 4
    before_landing: Callable[[], object] = staticmethod(lambda: None)
    shows: Callable[[Server], Server] = staticmethod(lambda server: server)

    def __init__(self, *servers: Server) -> None:
        super().__init__()
        self.there = {server.id: server for server in servers}
        self.hidden: set[str] = set()
        self.stuck: set[str] = set()
        self.consoles: dict[str, str] = {}
        self.offers = Catalogue(
            networks=[Network("n1", "net", ("10.0.0.0/16",))],
            images=[Image("i1", "snapshot1")],
            flavors=[Flavor("f1", "small", 1, 1024)],
            limits=Limits(10, 0, -1, 0, -1, 0),
        )
        self.groups = FakeGroups(self.calls)
        self.floating_ips = FakeFloatingIps(self.calls)
        self.ports = FakePorts(self.calls)
        self._numbers = itertools.count()
        self._numbered: Plan | None = None
        self._lock = threading.Lock()

    @property
    def plans(self) -> list[Plan]:
        """What servers were asked for, a plan each time."""
        return [plan for _, (plan, *_) in itertools.groupby(self.asked("create_server", "plan"), key=id)]

    @property
    def deleted(self) -> list[list[str]]:
        """The ids that each deletion named."""
        return [list(ids) for ids in self.asked("delete_servers", "ids")]

    @staticmethod
    def sleep(seconds: float) -> None:
        """No time passes."""

    def connect(self, name: str = "", *, region: str = "") -> FakeCloud:
        return self

    def check_services(self, servers_interface: str = "") -> None:
        pass

    def object_store_url(self, interface: str = "") -> str:
        return "https://store/v1/AUTH_p1"

    def ca_file(self) -> str | None:
        return ""

    def local_address(self) -> str:
        return "198.51.100.7"

    def networks(self) -> list[Network]:
        return list(self.offers.networks)

    def images(self, pattern: str = "") -> list[Image]:
        return list(self.offers.images)

    def flavors(self) -> list[Flavor]:
        return list(self.offers.flavors)

    def limits(self) -> Limits:
        return self.offers.limits

    def key_names(self) -> list[str]:
        return list(self.offers.key_names)

    def security_groups(self) -> Mapping[str, str]:
        return dict(self.offers.security_groups)

    def zones(self) -> list[str]:
        return list(self.offers.zones)

    def servers(self, *tags: str) -> list[Server]:
        shown = [self.shows(server) for server in self.there.values() if server.id not in self.hidden]
        return [server for server in shown if set(tags) <= set(server.tags)]

    def console_output(self, id: str, length: int = 100) -> str:
        return self.consoles.get(id, "")

    def create_server(self, plan: Plan, server: ServerPlan, user_data: bytes) -> Server:
        self.before_landing()
        made = Server(
            self._id_of(plan, server),
            server.name,
            self.status,
            fault=self.fault,
            address=self.address,
            tags=server.tags,
            metadata=dict(server.metadata),
            user_id=self.user_id,
        )
        self.there[made.id] = made
        if self.leaves_ports:
            self.ports.left[made.id] = f"port-of-{made.id}"
        return made

    def _id_of(self, plan: Plan, server: ServerPlan) -> str:
        """In the order of the plan, whichever of its servers is asked for first."""
        with self._lock:
            if self._numbered is not plan:
                self._numbered, self._ids = plan, {one.name: f"id-{next(self._numbers)}" for one in plan.servers}
            id = self._ids[server.name]
            return f"id-{next(self._numbers)}" if id in self.there else id

    def delete_servers(self, ids: Iterable[str], parallel: int = 10) -> None:
        for id in ids:
            if id not in self.stuck:
                self.there.pop(id, None)
