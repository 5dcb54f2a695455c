"""The errors of this project: each is one line that says what failed, which, and what to do next."""

from __future__ import annotations

import logging

from .text import one_line


class GriffinError(Exception):
    """Any failure this project explains in one line: what, which, and what to do next."""


class SettingError(GriffinError):
    """A setting is missing, ambiguous or wrong; the message lists what exists."""


class QuotaTooSmall(SettingError):  # noqa: N818 - a state of the project
    """The free part of the project's quota is too small for a plan."""


class Stopped(GriffinError):
    """A start ended because somebody stopped it."""


logger = logging.getLogger("ipp_griffin")


class CloudError(GriffinError):
    """A call to the cloud failed; one line that says what, which and what next.

    ``request_id`` is the service's id of the call ("" if there was no answer), ``status`` the HTTP status (None if there was none),
    ``retry_after`` the seconds that the service asked to wait, None if it did not.
    """

    def __init__(
        self,
        message: str,
        *,
        request_id: str = "",
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(one_line(message, 1000))
        self.request_id = request_id
        self.status = status
        self.retry_after = retry_after


class CredentialsError(CloudError):
    """No such cloud, no credentials, or the cloud refuses them."""


class QuotaError(CloudError):
    """The project's quota does not allow it."""


class Unsupported(CloudError):  # noqa: N818 - a state of the cloud
    """The cloud lacks something that this project needs."""


class Unavailable(CloudError):  # noqa: N818 - a state of the cloud
    """A service is unreachable, overloaded or broken: worth trying again later."""


class StoreError(CloudError):
    """A call to the object store failed."""


class StoreUnavailable(StoreError, Unavailable):  # noqa: N818 - a state of the store
    """The object store is unreachable, overloaded or broken: worth trying again later."""
