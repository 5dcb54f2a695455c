"""The machine that a controller runs on: its ports; and the networks of its cloud."""

import socket
import types
from dataclasses import replace

from ipp_griffin.launchers import addresses
from ipp_griffin.model.plan import Network

from ..fakes import FakeCloud


class AnySocket:
    """Binds to whatever address and port."""

    def __init__(self, *kind):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def bind(self, address):
        pass

    def close(self):
        pass


class Sockets:
    """Which (address, port) are taken. Every address is one of this machine, and every reservation succeeds."""

    def __init__(self, monkeypatch, *busy):
        self.tried = []
        names = {name: getattr(socket, name) for name in ("AF_INET", "SOCK_DGRAM")}
        monkeypatch.setattr(addresses, "socket", types.SimpleNamespace(socket=AnySocket, **names))

        def is_free(address, port):
            self.tried.append((address, port))
            return (address, port) not in busy

        monkeypatch.setattr(addresses, "_is_free", is_free)
        monkeypatch.setattr(addresses.random, "randrange", lambda n: 0)


def on(*subnets, more=()):
    """A cloud with these subnets of its network, and ``more`` networks."""
    cloud = FakeCloud()
    networks = [*more, Network("n1", "net", subnets), Network("n2", "public", ("192.0.2.0/24",), external=True)]
    cloud.offers = replace(cloud.offers, networks=networks)
    return cloud
