"""Launchers over fakes of all doors: whatever they ask is in one list, ``fake_cloud.calls``."""

import socket
import types

import psutil
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


@pytest.fixture
def addresses(monkeypatch):
    """This machine has two addresses, one of them IPv6 as well."""
    found = {
        "lo": [types.SimpleNamespace(family=socket.AF_INET, address="127.0.0.1")],
        "eth0": [
            types.SimpleNamespace(family=socket.AF_INET6, address="fe80::1%eth0"),
            types.SimpleNamespace(family=psutil.AF_LINK, address="00:00:5e:00:53:01"),
            types.SimpleNamespace(family=socket.AF_INET, address="10.1.2.3"),
        ],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
