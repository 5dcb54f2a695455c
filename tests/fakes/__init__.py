"""What unit tests have instead of the world: one fake of each door (cloud, store, hub), and one clock.

Each call of a door is recorded, and any can be made to fail: see `Door`. Tests that need more set an attribute, or subclass.
"""

from .clock import Clock
from .cloud import FakeCloud
from .cluster import FakeCluster
from .clusters import FakeClusters
from .door import Call, Door
from .hub import FakeHub
from .store import FakeStore

__all__ = ["Call", "Clock", "Door", "FakeCloud", "FakeCluster", "FakeClusters", "FakeHub", "FakeStore"]
