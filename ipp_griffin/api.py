"""The connection to a cloud: logging in, and one request or one listing at a time, with clear errors.

`cloud` says which requests are made; nothing here knows about servers or images.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import openstack.config
import openstack.connection
import requests
import yaml
from keystoneauth1 import exceptions as keystone
from openstack import exceptions as sdk

from . import __version__
from .calls import (
    TIMEOUT,
    CredentialsError,
    Unavailable,
    Unsupported,
    from_exception,
    from_status,
    logger,
    one_line,
    persist,
    quiet,
)

FAILURES = (keystone.ClientException, sdk.SDKException, requests.RequestException, OSError)

ONLY_V2 = "this cloud's identity service offers v2.0 only. Identity v3 (OpenStack of 2014 or later) is needed."
PAGE = 1000  # items asked for per page; services cut it to their own limit
_ODD = (KeyError, TypeError, ValueError, AttributeError, IndexError)  # of JSON that isn't what it should be

T = TypeVar("T")


class Api:
    """One authenticated connection to one project of one cloud. Methods may be called from several threads.

    ``retries``: how often a call that may be repeated is, while its service is unavailable.
    """

    def __init__(
        self,
        connection: openstack.connection.Connection,
        *,
        retries: int,
        sleep: Callable[[float], None],
    ) -> None:
        self._connection = connection
        self.retries = retries
        self.sleep = sleep
        self._adapters: dict[str, Any] = {}
        self._lock = threading.Lock()
        self.session = connection.session
        self.region = str(connection.config.get_region_name() or "")
        self.auth_url = str(connection.config.get_auth_args().get("auth_url") or "")
        self.project_id = ""
        self.user_id = ""

    @classmethod
    def connect(
        cls,
        name: str = "",
        *,
        region: str = "",
        retries: int = 4,
        sleep: Callable[[float], None] = time.sleep,
    ) -> Api:
        """Log in as the entry ``name`` of clouds.yaml; "": as OS_CLOUD says, else the OS_* variables.

        Raises `CredentialsError`, `Unavailable`, or another `CloudError`.
        """
        wanted = name or os.environ.get("OS_CLOUD", "")
        label = f"cloud {wanted!r}" if wanted else "the cloud of the OS_* variables"
        connection = _configure(name, region, label)
        try:
            api = cls(connection, retries=retries, sleep=sleep)
            persist(lambda: api._authenticate(label), retries=retries, sleep=sleep)
        except FAILURES as error:
            raise from_exception(f"Can't log in to {label}", error) from None
        return api

    def _authenticate(self, label: str) -> None:
        what = f"Can't log in to {label}"
        auth: Any = self.session.auth
        try:
            with quiet():
                access = auth.get_access(self.session)
        except keystone.NotFound as error:
            raise Unsupported(
                f"{what}: there is no Keystone v3 at {self.auth_url} ({one_line(error)}). Is auth_url right? Identity v3 is needed."
            ) from None
        except FAILURES as error:
            if isinstance(error, keystone.DiscoveryFailure) and "v2" in str(error):
                raise Unsupported(f"{what}: {ONLY_V2}") from None
            raise from_exception(what, error) from None
        if access.version == "v2.0":
            raise Unsupported(f"{what}: {ONLY_V2}")
        if not access.project_id:
            raise CredentialsError(f"{what}: these credentials are for no project. Set project_name in clouds.yaml.")
        self.project_id = access.project_id
        self.user_id = access.user_id or ""
        self._check_region(access, what)

    def _check_region(self, access: Any, what: str) -> None:
        """Services of several regions must not be mixed, and a wrong region is no missing service."""
        endpoints = [e for service in access.service_catalog.catalog for e in service.get("endpoints", ())]
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
        """The latest microversion of compute, "" without any; out of what making the connection asked for anyway."""
        adapter = self._adapter("compute")
        try:
            with quiet():
                data = adapter.get_endpoint_data()
        except FAILURES as error:
            raise from_exception("Can't ask compute for its versions", error) from None
        latest = data.max_microversion if data else None
        return ".".join(str(number) for number in latest) if latest else ""

    def endpoint(self, service_type: str, interface: str = "") -> str:
        """URL of a service, from clouds.yaml or the catalog (no request); "" if there is none.

        ``interface``: of the catalog; "": what clouds.yaml says, an endpoint of its own or an interface.
        """
        if not interface:
            override = self._connection.config.get_endpoint(service_type)
            if override:
                return str(override)
            interface = str(self._connection.config.get_interface(service_type) or "public")
        try:
            url = self.session.get_endpoint(
                service_type=service_type,
                interface=interface,
                region_name=self.region or None,
                skip_discovery=True,
            )
        except keystone.EndpointNotFound:
            return ""
        except FAILURES as error:
            raise from_exception(f"Can't find {service_type} in the catalog", error) from None
        return str(url or "")

    def _adapter(self, service: str) -> Any:
        """The SDK's proxy of a service. Made once: making it may ask the service for its versions."""
        with self._lock:
            if service not in self._adapters:
                self._adapters[service] = getattr(self._connection, service)
            return self._adapters[service]

    def send(self, what: str, service: str, method: str, path: str, **kwargs: Any) -> requests.Response:
        """One request, one answer below 400; else a `CloudError`, which begins with ``what``."""
        # Not logged by the libraries: that would show user-data, and in it the URLs that open the object store.
        # Nor repeated by them, whatever clouds.yaml says: what was lost may have landed.
        options = {"log": False, "skip_cache": True, "connect_retries": 0, "status_code_retries": 0}
        with quiet():
            try:
                response: requests.Response = self._adapter(service).request(path, method, **options, **kwargs)
            except FAILURES as error:
                raise from_exception(what, error) from None
        logger.debug("%s %s %s: %d", method, service, path, response.status_code)
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
        """What ``make`` makes of the JSON object that a repeatable call answers with."""
        return persist(
            lambda: parse(what, self.send(what, service, method, path, **kwargs), make),
            retries=self.retries,
            sleep=self.sleep,
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
        """What ``make`` makes of each item of a listing, of all its pages.

        Of a "next" link only the fact counts: behind a proxy, its host may be one that can't be reached.
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


def _configure(name: str, region: str, label: str) -> openstack.connection.Connection:
    """A connection that has made no request yet."""
    options: dict[str, Any] = {"cloud": name or None, **({"region_name": region} if region else {})}
    have = ""
    try:
        with quiet():
            config = openstack.config.OpenStackConfig(app_name="ipp-griffin", app_version=__version__)
        have = _what_is_there(config)
        cloud = config.get_one(**options)
        # Which versions are spoken is this program's business, whatever other programs need there.
        for service in ("compute", "image", "network", "object_store"):
            cloud.config.pop(f"{service}_api_version", None)
            cloud.config.pop(f"{service}_default_microversion", None)
        if not cloud.config.get("api_timeout"):
            cloud.config["api_timeout"] = TIMEOUT
        connection = openstack.connection.Connection(config=cloud)
        _ = connection.session
        return connection
    except Exception as error:  # a broken clouds.yaml can end in any kind of error there
        why = "its entry is empty or broken" if isinstance(error, TypeError | AttributeError) else one_line(error)
        raise CredentialsError(
            f"Can't use {label}: {why.rstrip('. ')}. {have}"
            "Set OS_CLOUD or GriffinCloud.cloud to one of clouds.yaml, or the OS_* variables."
        ) from None


def _what_is_there(config: Any) -> str:
    """Which clouds there are to choose from, or why there are none, as a sentence."""
    names = ", ".join(sorted(set(config.get_cloud_names()) - {"defaults"})) or "no cloud"
    if config.config_filename:
        return f"{config.config_filename} has: {names}. "
    asked = os.environ.get("OS_CLIENT_CONFIG_FILE")
    files = [path for path in dict.fromkeys([asked, *config._config_files]) if path and path.endswith(".yaml")]
    for path in files:
        try:
            yaml.safe_load(Path(path).read_text())
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}" if mark else ""
            return f"{path}{where}: not YAML ({one_line(getattr(error, 'problem', error))}). "
        except (OSError, UnicodeDecodeError):
            continue
    return f"There is no {' nor '.join(files)}. "


def parse(what: str, response: requests.Response, make: Callable[[dict[str, Any]], T]) -> T:
    """What ``make`` makes of the JSON object in an answer.

    An answer that is cut off, or not what it should be, says nothing about what the service did: `Unavailable`.
    """
    try:
        answer = response.json()
        if isinstance(answer, dict):
            return make(answer)
    except _ODD:
        pass
    raise Unavailable(f"{what}: the answer is not what it should be: {one_line(response.text, 100)!r}.")


def _message(response: requests.Response) -> str:
    """What a service's error says: ``{"badRequest": {"message": ...}}`` and the like, else its page's text."""
    try:
        return str(next(iter(response.json().values()))["message"])
    except (*_ODD, StopIteration):
        return response.text
