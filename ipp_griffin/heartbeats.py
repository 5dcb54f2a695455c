"""Connections that notice that the other end has lost its power. Pure: Python that goes below that of a profile's configuration.

A controller on a server comes back after a power loss, with its ports and keys. TCP tells its peers nothing of that, and most of their
sockets only receive: so ZeroMQ asks over each connection whether it lives (PING and PONG of ZMTP 3.1, https://rfc.zeromq.org/spec/37/;
options: zmq_setsockopt(3), ZMQ_HEARTBEAT_*), and makes those anew that don't. What ipyparallel calls heartbeats ends engines instead.
"""

from __future__ import annotations

ASK = 15  # seconds between two questions; the controller takes a connection for dead that answers none for as long
PEERS_WAIT = (
    60  # seconds until a peer does: longer, so that the controller has forgotten a connection when the next one comes
)

MARK = "griffin_heartbeats"  # in the engines' connection file, where the controller has them

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
    """``config``, an ipcontroller_config.py, with heartbeats of all its connections, which set their other end a time limit, too.

    That does for nannies and clients. But a message takes the limit back until the next question: a connection that had one just before
    the power went is noticed when something is sent over it.
    """
    return _with(config, HEARTBEAT_IVL=ask, HEARTBEAT_TIMEOUT=ask, HEARTBEAT_TTL=peers_wait)


def for_engine(config: str, *, ask: float = ASK, wait: float = PEERS_WAIT) -> str:
    """``config``, an ipengine_config.py, for engines of such a controller: they ask, too, since they may never send anything."""
    return _with(config, HEARTBEAT_IVL=ask, HEARTBEAT_TIMEOUT=wait)


def _with(config: str, **seconds: float) -> str:
    return f"{config}\n{_CODE.format(options={name: int(value * 1000) for name, value in seconds.items()})}"
