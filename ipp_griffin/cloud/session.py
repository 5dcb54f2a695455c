"""Log in to a cloud, and send one request or read one listing at a time.

`cloud` decides which requests are sent; nothing here knows about servers or images.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import openstack.connection
import requests
from keystoneauth1 import exceptions as keystone
from openstack import exceptions as sdk

from ..common.errors import CloudError, CredentialsError, Unavailable, Unsupported, logger
from ..common.retry import Throttle, retry
from ..common.text import one_line
from .clouds_yaml import configure
from .failures import TOO_MANY, from_exception, from_status, quiet, retry_after

FAILURES = (keystone.ClientException, sdk.SDKException, requests.RequestException, OSError)

ONLY_V2 = "this cloud's identity service offers v2.0 only. Identity v3 (OpenStack of 2014 or later) is needed."
UNAUTHORIZED = 401
PAGE = 1000  # items asked for per page; services cut it to their own limit
_ODD = (KeyError, TypeError, ValueError, AttributeError, IndexError)  # from unexpected JSON

T = TypeVar("T")
A = TypeVar("A", bound="Api")


class Api:
    """One authenticated connection to one project of one cloud. Methods may be called from several threads.

    ``name``: of its entry in clouds.yaml, as `connect` was given it; ``retries``: how often a repeatable call is repeated while its
    service is unavailable.
    """

    def __init__(
        self,
        connection: openstack.connection.Connection,
        *,
        name: str,
        retries: int,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self.name = name
        self.retries = retries
        self.sleep = sleep
        self._clock = clock
        self._throttles: dict[str, Throttle] = {}
        self._adapters: dict[str, Any] = {}
        self._making: dict[str, threading.Lock] = {}
        self.session = connection.session
        self.region = str(connection.config.get_region_name() or "")
        self.auth_url = str(connection.config.get_auth_args().get("auth_url") or "")
        self.project_id = ""
        self.user_id = ""

    @classmethod
    def connect(
        cls: type[A],
        name: str = "",
        *,
        region: str = "",
        retries: int = 4,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> A:
        """Log in as the entry ``name`` of clouds.yaml; "": as OS_CLOUD says, else the OS_* variables.

        Raises `CredentialsError`, `Unavailable`, or another `CloudError`.
        """
        wanted = name or os.environ.get("OS_CLOUD", "")
        label = f"cloud {wanted!r}" if wanted else "the cloud of the OS_* variables"
        connection = configure(name, region, label)
        try:
            api = cls(connection, name=name, retries=retries, sleep=sleep, clock=clock)
            retry(lambda: api._authenticate(label), retries=retries, sleep=sleep)
        except FAILURES as error:
            raise from_exception(f"Can't log in to {label}", error) from None
        return api

    def _authenticate(self, label: str) -> None:
        what = f"Can't log in to {label}"
        auth: Any = self.session.auth
        try:
            with quiet():
                access = auth.get_access(self.session)
        except FAILURES as error:
            known = from_exception(what, error)
            if isinstance(known, CredentialsError):
                raise known from None
            undiscovered = isinstance(error, keystone.DiscoveryFailure)
            if undiscovered and "v2" in str(error):
                raise Unsupported(f"{what}: {ONLY_V2}") from None
            if isinstance(error, keystone.NotFound) or (undiscovered and "HTTP 404" in str(error)):
                raise Unsupported(
                    f"{what}: there is no Keystone v3 at {self.auth_url} ({one_line(error)}). "
                    "Is auth_url right? Identity v3 is needed."
                ) from None
            raise known from None
        except Exception as error:  # keystoneauth raises a bare Exception for a missing password
            raise CredentialsError(
                f"{what}: {one_line(error).rstrip('. ')}. Set it in clouds.yaml or secure.yaml, or by the OS_* variables."
            ) from None
        if access.version == "v2.0":
            raise Unsupported(f"{what}: {ONLY_V2}")
        if not access.project_id:
            raise CredentialsError(f"{what}: these credentials are for no project. Set project_name in clouds.yaml.")
        self.project_id = access.project_id
        self.user_id = access.user_id or ""
        self._check_region(access, what)

    def _check_region(self, access: Any, what: str) -> None:
        """Refuse a region that is not in the catalog, and a catalog of several regions if none is chosen: their services must not be mixed."""
        # Identity is used at auth_url; in some clouds, it has a region of its own.
        services = [service for service in access.service_catalog.catalog if service.get("type") != "identity"]
        endpoints = [endpoint for service in services for endpoint in service.get("endpoints", ())]
        regions = sorted({str(e.get("region_id") or e.get("region")) for e in endpoints} - {"None"})
        if self.region and regions and self.region not in regions:
            raise CredentialsError(
                f"{what}: it has no region {self.region!r}. It has: {', '.join(regions)}. "
                "Set GriffinCloud.region, or region_name in clouds.yaml."
            )
        if not self.region and len(regions) > 1:
            raise CredentialsError(
                f"{what}: it has several regions: {', '.join(regions)}. Set GriffinCloud.region to one of them."
            )

    def compute_microversion(self) -> str:
        """Return the latest microversion of compute, "" without any. The connection has asked for it already."""
        try:
            with quiet():
                data = self._adapter("compute").get_endpoint_data()
        except FAILURES as error:
            raise from_exception("Can't ask compute for its versions", error) from None
        latest = data.max_microversion if data else None
        # The library takes an outage for a service without microversions.
        return ".".join(str(number) for number in latest) if latest else self._ask_for_microversion()

    def _ask_for_microversion(self) -> str:
        """Return the same from Nova's version document: https://docs.openstack.org/api-ref/compute/#api-versions"""
        found = re.match(r"(.*?/v2(\.\d+)?)(/|$)", self.endpoint("compute"))
        if not found:
            return ""
        what = "Can't ask compute for its versions"
        try:
            return self.ask(what, "compute", f"{found[1]}/", lambda answer: str(answer["version"].get("version") or ""))
        except Unavailable:
            raise
        except CloudError:
            return ""

    def endpoint(self, service_type: str, interface: str = "") -> str:
        """Return the URL of a service, from clouds.yaml or the catalog (no request); "" if there is none.

        ``interface``: of the catalog; "": what clouds.yaml says, an endpoint of its own or an interface.
        """
        if not interface:
            override = self._connection.config.get_endpoint(service_type)
            if override:
                return str(override)
            wanted: Any = (
                self._connection.config.get_interface(service_type) or "public"
            )  # may be a list, in order of preference
        try:
            url = self.session.get_endpoint(
                service_type=service_type,
                interface=interface or wanted,
                region_name=self.region or None,
                skip_discovery=True,
            )
        except keystone.EndpointNotFound:
            return ""
        except FAILURES as error:
            raise from_exception(f"Can't find {service_type} in the catalog", error) from None
        return str(url or "")

    def _adapter(self, service: str) -> Any:
        """Return the SDK's proxy of a service. It is made only once, since that may ask the service for its versions.

        That takes a request, during which other services can be asked.
        """
        with self._making.setdefault(service, threading.Lock()):
            if service not in self._adapters:
                self._adapters[service] = getattr(self._connection, service)
            return self._adapters[service]

    def send(self, what: str, service: str, method: str, path: str, **kwargs: Any) -> requests.Response:
        """Send one request; return the answer if its status is below 400, else raise a `CloudError` that begins with ``what``."""
        # The libraries must not log it: that would show user-data, with the URLs that open the object store.
        # Nor may they repeat it, whatever clouds.yaml says: a request whose answer was lost may have succeeded.
        options = {"log": False, "skip_cache": True, "connect_retries": 0, "status_code_retries": 0}
        throttle = self._throttles.setdefault(service, Throttle(self._clock, self.sleep))
        throttle.take()

        def request() -> requests.Response:
            with quiet():
                try:
                    response: requests.Response = self._adapter(service).request(path, method, **options, **kwargs)
                    return response
                except FAILURES as error:
                    raise from_exception(what, error) from None

        response = request()
        if response.status_code == UNAUTHORIZED:
            # The session retries with a new token, except if another thread has just discarded the old one.
            response = request()
        logger.debug("%s %s %s: %d", method, service, path, response.status_code)
        if response.status_code == TOO_MANY:
            throttle.ask(retry_after(response.headers))
        if response.status_code >= 400:
            raise from_status(what, response.status_code, _message(response), response.headers)
        return response

    def ask(
        self,
        what: str,
        service: str,
        path: str,
        make: Callable[[dict[str, Any]], T],
        *,
        method: str = "GET",
        **kwargs: Any,
    ) -> T:
        """Send a repeatable request, with retries; return what ``make`` makes of the JSON object in the answer."""
        return self.retry(lambda: parse(what, self.send(what, service, method, path, **kwargs), make))

    def delete(self, what: str, service: str, path: str, *also: int) -> None:
        """Delete what is at ``path``; 404 is success: it is gone. ``also``: see `retry`."""
        try:
            self.retry(lambda: self.send(what, service, "DELETE", path), *also)
        except CloudError as error:
            if error.status != 404:
                raise

    def retry(self, attempt: Callable[[], T], *also: int) -> T:
        """Call ``attempt`` until it returns, again while its service is unavailable. ``also``: other HTTP statuses to retry."""
        return retry(
            attempt,
            retries=self.retries,
            sleep=self.sleep,
            again=lambda error: isinstance(error, Unavailable) or error.status in also,
        )

    def listing(
        self,
        service: str,
        path: str,
        key: str,
        make: Callable[[dict[str, Any]], T],
        *,
        params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[T]:
        """Read all pages of a listing; return what ``make`` makes of each item.

        A "next" link only tells that there is another page: behind a proxy, its host may be unreachable.
        """
        what = f"Can't list {key.replace('_', ' ')}"
        found: dict[str, T] = {}
        query = dict(params or {})

        def page(answer: dict[str, Any]) -> tuple[dict[str, T], str]:
            items = answer[key]
            made = {str(item.get("id") or len(found) + i): make(item) for i, item in enumerate(items)}
            links = answer.get(f"{key}_links") or ()
            more = answer.get("next") or any(link.get("rel") == "next" for link in links)
            return made, str(items[-1]["id"]) if more and items else ""

        while True:
            made, marker = self.ask(what, service, path, page, params=query, **kwargs)
            new = made.keys() - found.keys()
            found |= made
            if not marker or not new:
                return list(found.values())
            query["marker"] = marker


def parse(what: str, response: requests.Response, make: Callable[[dict[str, Any]], T]) -> T:
    """Return what ``make`` makes of the JSON object in an answer.

    A truncated or malformed answer says nothing about what the service did: raises `Unavailable`.
    """
    try:
        answer = response.json()
        if isinstance(answer, dict):
            return make(answer)
    except _ODD:
        pass
    raise Unavailable(f"{what}: the cloud's answer is malformed: {one_line(response.text, 100)!r}.")


def _message(response: requests.Response) -> str:
    """Return the message of a service's error: from ``{"badRequest": {"message": ...}}`` and the like, else the text of the page."""
    try:
        return str(next(iter(response.json().values()))["message"])
    except (*_ODD, StopIteration):
        return response.text
