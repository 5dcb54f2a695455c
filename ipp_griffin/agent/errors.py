"""How the agent's work can end."""


class Failure(Exception):
    """The agent gives up; the message is for a person."""


class ControllerGone(Exception):
    """The controller did not come back."""


class Expired(Exception):
    """This server's life is over; the message says why, "" for `max_lifetime`."""


class Stopped(BaseException):
    """SIGTERM came."""
