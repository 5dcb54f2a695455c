"""Configure heartbeats: ipyparallel's, which list and drop engines, and ZeroMQ's, which detect a peer that lost power.

Pure: returns Python code to append to a profile's configuration, or defaults that it overrides.

ipyparallel's: the hub lists an engine one to two periods after it has registered, and drops it after a number of missed heartbeats; an
engine that misses a number of the controller's ends itself. Here the period is short, so that a start does not wait for it, and the
times until a peer counts as dead are those of ipyparallel's defaults. docs/performance.md has the cost.

ZeroMQ's: a controller on a server comes back after a power loss, with its ports and keys. TCP does not tell its peers, and most of
their sockets only receive. So ZeroMQ pings each connection (PING and PONG of ZMTP 3.1, https://rfc.zeromq.org/spec/37/; options:
zmq_setsockopt(3), ZMQ_HEARTBEAT_*), and reconnects those that do not answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..model.connection import MARK

PERIOD = 500  # ms; ipyparallel's: 3000
DROPPED = 30_000  # ms without a heartbeat of an engine: 10 of ipyparallel's periods
ALONE = 150_000  # ms without a heartbeat of the controller: about 50 of ipyparallel's periods
# Seconds from an engine's registration to its first heartbeat, after which the hub forgets it, for good, though the engine believes that it
# is registered. ipyparallel's 30 are too few where engines share a core: of 128 on two cores, 34 were forgotten, and 97 where each server
# started its 8 at once; the last took 35 s and 44 s where the hub waited (docs/performance.md).
FIRST = 120
CONTROLLER_DEFAULTS = {
    "HeartMonitor": {"period": PERIOD, "max_heartmonitor_misses": DROPPED // PERIOD},
    "IPController": {"registration_timeout": FIRST},
}

ASK = 15  # seconds between two pings; the controller drops a connection that does not answer for as long
PEERS_WAIT = (
    60  # seconds until a peer does: longer, so that the controller has forgotten a connection when the next one comes
)


_DEFAULT = """
# ipp-griffin: where nothing above says otherwise.
if {name!r} not in get_config().{kind}:
    get_config().{kind}.{name} = {value!r}
"""

# The controller sends its period when an engine registers. The engine then checks for a heartbeat every period plus half a second.
_PATIENCE = f"""
# ipp-griffin: an engine ends after {ALONE // 1000} s without a heartbeat of the controller, however far apart those are.
def _griffin_patience():
    from ipyparallel.engine.app import IPEngine

    start = IPEngine.start_heartbeat

    def start_heartbeat(self, ping, pong, period, *rest):
        if "max_heartbeat_misses" not in self.config.IPEngine:
            self.max_heartbeat_misses = round({ALONE} / (period + 500))
        return start(self, ping, pong, period, *rest)

    IPEngine.start_heartbeat = start_heartbeat


_griffin_patience()
"""

_CODE = """
# ipp-griffin: this end of each connection notices when the other one has lost its power.
def _griffin():
    import zmq

    make = zmq.Context.socket

    def socket(context, kind, *args, **kwargs):
        made = make(context, kind, *args, **kwargs)
        for name, value in {options!r}.items():
            made.setsockopt(getattr(zmq, name), value)
        if kind == zmq.ROUTER:
            made.setsockopt(zmq.ROUTER_HANDOVER, 1)  # a peer that is back takes the place of its dead connection
        return made

    zmq.Context.socket = socket


_griffin()
"""


def for_controller(config: str, *, ask: float = ASK, peers_wait: float = PEERS_WAIT) -> str:
    """Return ``config``, an ipcontroller_config.py, with ZeroMQ heartbeats on all connections, which also give the other end a time limit.

    That is enough for nannies and clients. But a message cancels the limit until the next ping: a connection that had a message just
    before the power failed is noticed as dead only when something is sent over it.
    """
    options = _options(HEARTBEAT_IVL=ask, HEARTBEAT_TIMEOUT=ask, HEARTBEAT_TTL=peers_wait)
    defaults = (
        _DEFAULT.format(kind=kind, name=name, value=value)
        for kind, values in CONTROLLER_DEFAULTS.items()
        for name, value in values.items()
    )
    return config + "".join(defaults) + options


def for_engine(config: str, connection: Mapping[str, Any], *, ask: float = ASK, wait: float = PEERS_WAIT) -> str:
    """Return ``config``, an ipengine_config.py, for engines of the controller with this ``connection``, for which they wait `ALONE` ms. If the
    controller pings its connections, the engines do, too, since they may never send anything."""
    options = _options(HEARTBEAT_IVL=ask, HEARTBEAT_TIMEOUT=wait) if connection.get(MARK) else ""
    return config + _PATIENCE + options


def _options(**seconds: float) -> str:
    return _CODE.format(options={name: int(value * 1000) for name, value in seconds.items()})
