"""Fakes have the methods of the real doors, and their parameters; and each call of them is recorded, and can fail."""

import inspect

import pytest

from ipp_griffin.cloud.cloud import Cloud
from ipp_griffin.cloud.floating_ips import FloatingIps
from ipp_griffin.cloud.ports import Ports
from ipp_griffin.cloud.security_groups import ClusterGroups
from ipp_griffin.cloud.store.store import Store
from ipp_griffin.cluster.inventory import Clusters
from ipp_griffin.common.errors import CloudError
from ipp_griffin.controller.hub import Hub

from . import Call, FakeCloud, FakeClusters, FakeHub, FakeStore

CLOUD = FakeCloud()
DOORS = [
    (CLOUD, Cloud),
    (CLOUD.groups, ClusterGroups),
    (CLOUD.floating_ips, FloatingIps),
    (CLOUD.ports, Ports),
    (FakeStore(), Store),
    (FakeHub(), Hub),
    (FakeClusters(), Clusters),
]
MORE_OF_THE_DOOR = {"connect": {"retries", "sleep", "clock"}}  # what only tests of the door itself give


def recorded(fake):
    """The methods whose calls are; `Hub` opens its connection when it is made, and closes it when it is left."""
    names = [name for name in dir(type(fake)) if hasattr(getattr(type(fake), name), "__wrapped__")]
    return [name for name in names if (fake.name, name) not in {("hub", "open"), ("hub", "close")}]


@pytest.mark.parametrize(("fake", "door", "method"), [(f, door, name) for f, door in DOORS for name in recorded(f)])
def test_a_method_of_a_fake_is_the_doors_with_the_same_parameters(fake, door, method):
    def parameters(kind):
        named = inspect.signature(getattr(kind, method)).parameters
        return {name: p.kind for name, p in named.items() if name not in {"self", *MORE_OF_THE_DOOR.get(method, ())}}

    assert parameters(type(fake)) == parameters(door)


def test_calls_of_the_parts_of_a_cloud_are_in_its_list_with_their_arguments_by_name():
    cloud = FakeCloud()
    cloud.servers("a", "b")
    cloud.groups.remove("uid", timeout=3)
    assert [str(call) for call in cloud.calls] == ["cloud.servers", "cloud.groups.remove"]
    assert cloud.calls[0] == Call("cloud", "servers", {"tags": ("a", "b")})
    assert cloud.groups.asked("remove", "uid", "timeout") == [("uid", 3)]
    assert (cloud.methods, cloud.groups.methods) == (["servers"], ["remove"])


def test_the_call_that_a_test_chose_fails_before_or_after_it_is_done():
    store = FakeStore(uid={})
    store.fail["put"] = [None, CloudError("no")]
    store.fail_late["put"] = [None, CloudError("late")]
    store.put("uid", "first", b"")
    with pytest.raises(CloudError, match="no"):
        store.put("uid", "second", b"")
    with pytest.raises(CloudError, match="late"):
        store.put("uid", "third", b"")
    assert list(store.there["uid"]) == ["first", "third"]
    assert store.asked("put", "name") == ["first", "second", "third"]


def test_a_subclass_that_asks_the_fake_itself_is_one_call():
    class Counting(FakeStore):
        def prepare(self):
            super().prepare()
            self.containers()

    store = Counting()
    store.prepare()
    assert store.methods == ["prepare"]
