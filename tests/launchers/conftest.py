"""Launchers over fakes of all doors: whatever they ask is in one list, ``fake_cloud.calls``."""

import pytest

from ..fakes import FakeCluster
from .doors import Doors


@pytest.fixture
def doors(monkeypatch):
    return Doors(monkeypatch)


@pytest.fixture
def fake_cloud(doors):
    """The fake cloud that every log-in returns, whatever the cloud's name."""
    return doors.cloud


@pytest.fixture
def store(doors):
    return doors.store


@pytest.fixture
def hub(doors):
    return doors.hub


@pytest.fixture
def cluster(fake_cloud):
    return FakeCluster(fake_cloud)
