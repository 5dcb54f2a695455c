"""The connection to an object store: swiftclient's functions with the cloud's session, retries and clear errors.

Nothing here knows about clusters: that is `store`.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote, urlsplit

import requests
import swiftclient.client as swift
from keystoneauth1 import exceptions as keystone
from urllib3.exceptions import HTTPError

from ...common.errors import CloudError, StoreError, StoreUnavailable, Unavailable, logger
from ...common.retry import Throttle, retry
from ...common.text import one_line
from ...common.threads import in_parallel
from ..failures import RATE_LIMITED, TIMEOUT, TOO_MANY, from_exception, from_status, quiet

PAGE = 10_000  # Swift's own limit of a listing
SHORT_PAGE = 1000  # entries after which another store may have more
MOST_LISTED = 100_000  # entries of one listing: without quotas, servers can write any number
MAKE_ROOM = "Delete results that nobody needs (`ipp-griffin results --delete`), or ask for more quota."
_FAILURES = (keystone.ClientException, requests.RequestException, HTTPError, OSError, ValueError)


class Account:
    """The project's account in an object store. All methods may be called from several threads.

    ``session``: the cloud's keystoneauth session, whose token is used and renewed. ``url``: the account's URL.
    """

    def __init__(
        self,
        session: Any,
        url: str,
        *,
        retries: int,
        sleep: Callable[[float], None],
        clock: Callable[[], float],
    ) -> None:
        self.session = session
        self.url = url.rstrip("/")
        self.path = urlsplit(self.url).path
        self.retries, self.sleep = retries, sleep
        self._clock = clock
        self._idle: deque[_Connection] = deque()
        self._info: dict[str, Any] | None = None
        self._rest = Throttle(clock, sleep)
        self._clock_difference: float | None = None  # seconds that the store's clock is ahead of ours

    def now(self) -> float:
        """Return the seconds since 1970 by the store's clock, which decides when a TempURL expires."""
        if self._clock_difference is None:
            self.info()
        return self._clock() + (self._clock_difference or 0.0)

    def info(self) -> dict[str, Any]:
        """Return the store's capabilities (``/info``); empty if it does not show them. Asked once."""
        if self._info is None:
            try:
                found = self.call("Can't ask the object store what it can do", _get_info)
            except Unavailable:
                raise
            except CloudError:  # 401, 403, 404: an operator may hide it
                found = {}
            self._info = found if isinstance(found, dict) else {}
        return self._info

    def capability(self, name: str) -> dict[str, Any] | None:
        """Return one section of `info`, None if it is missing."""
        found = self.info().get(name)
        return found if isinstance(found, dict) else None

    def is_swift(self) -> bool:
        """Return whether this is known to be a Swift with URLs of a whole prefix, which came with 2.12 (2017).

        Only the version in /info shows that. Ceph's object gateway has a section of that name too, with its own version, such as 18.2.0
        (ceph/ceph, src/rgw/rgw_rest_swift.cc: ``RGWInfo_ObjStore_SWIFT::list_swift_data``): those before 2014 were 0.x, and those since
        2015 begin with 9.
        """
        found = re.match(r"(\d+)\.(\d+)", str((self.capability("swift") or {}).get("version") or ""))
        return found is not None and (2, 12) <= (int(found[1]), int(found[2])) < (9, 0)

    def listing(
        self,
        what: str,
        function: Callable[..., Any],
        *args: Any,
        prefix: str,
        go_on: Callable[[list[dict[str, Any]]], str] = lambda found: str(found[-1]["name"]),
    ) -> list[dict[str, Any]]:
        """Return all entries of a listing whose names start with ``prefix``; one request per page (10,000 in Swift).

        It ends after `MOST_LISTED` of them, or a few more. ``go_on``: returns the name after which the next page begins, given what was
        found so far. Ceph's gateway may cut pages shorter than it says (``rgw_max_listing_results``: 5000, often 1000).
        """
        limits = self.capability("swift") or {}
        size = min(PAGE, int(limits.get("container_listing_limit") or PAGE))
        if not self.is_swift():
            size = min(size, SHORT_PAGE)
        found: list[dict[str, Any]] = []
        marker = None
        while len(found) < MOST_LISTED:
            _, page = self.call(what, function, *args, prefix=prefix or None, marker=marker, limit=PAGE)
            if not isinstance(page, list) or not all(isinstance(e, dict) and e.get("name") for e in page):
                raise StoreUnavailable(f"{what}: the answer is not a listing.")
            found += page
            if len(page) < max(size, 1):
                return found
            marker = go_on(found)
        logger.warning("%s: there are more than %d entries; the rest was not read.", what, len(found))
        return found

    def get_object(self, container: str, name: str, limit: int) -> bytes:
        """Return the first ``limit`` bytes of an object. Raises `StoreError` with ``status`` 404 if there is none."""
        try:
            return bytes(self.call(f"Can't read object {container}/{name}", _get_object, container, name, limit))
        except StoreError as error:
            if error.status == 416:  # an empty object has no range of bytes
                return b""
            raise

    def delete_objects(self, container: str, names: Sequence[str]) -> None:
        """Delete these objects, many with one request if the store can; objects that are gone are no error.

        Anybody may have chosen the names. In a URL, one with ``..`` would name another object, since libraries resolve that. API:
        https://docs.openstack.org/swift/latest/middleware.html#bulk-delete
        """
        treacherous = {name for name in names if {".", ".."} & set(name.split("/"))}
        bulk = self.capability("bulk_delete") if len(names) > 1 or treacherous else None
        if bulk is not None:
            size = min(int(bulk.get("max_deletes_per_request") or 1000), 1000)
            chunks = [names[start : start + size] for start in range(0, len(names), size)]
            names = [name for chunk in chunks for name in self._bulk_delete(container, chunk)]
        failed: list[CloudError] = []

        def delete(name: str) -> None:
            what = f"Can't delete object {one_line(f'{container}/{name}')}"
            try:
                if name in treacherous:
                    raise StoreError(f"{what}: its name can't be part of a URL, and bulk deletion did not delete it.")
                self.call(what, swift.delete_object, container, name)
            except CloudError as error:
                if error.status != 404:
                    failed.append(error)

        in_parallel(names, delete, 10)
        if failed:
            raise failed[0]

    def _bulk_delete(self, container: str, names: Sequence[str]) -> Sequence[str]:
        """Delete ``names`` with one request; return those to delete one by one, so that each gives its own error."""
        body = "".join(f"{quote(container)}/{quote(name)}\n" for name in names).encode()
        headers = {"Content-Type": "text/plain", "Accept": "application/json"}
        what = f"Can't delete objects of {container}"
        _, answer = self.call(what, swift.post_account, headers, data=body, query_string="bulk-delete")
        try:
            result = json.loads(answer)
            done = str(result["Response Status"]).startswith("200") and not result.get("Errors")
        except (ValueError, TypeError, KeyError):
            done = False
        return [] if done else names

    def call(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call one of swiftclient's functions, with retries while the store is unavailable. Only for calls that may be repeated.

        Raises `StoreError` (with the HTTP ``status``), `StoreUnavailable`, `CredentialsError` or `QuotaError`.
        """
        try:
            return retry(lambda: self._once(what, function, *args, **kwargs), retries=self.retries, sleep=self.sleep)
        except CloudError as error:
            raise as_store_error(error) from None

    def call_once(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Do what `call` does, but without retries: for calls that must not be repeated before their result is known."""
        try:
            return self._once(what, function, *args, **kwargs)
        except CloudError as error:
            raise as_store_error(error) from None

    def _once(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._rest.take()
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = _Connection(self.url, self.session, self._heard)
        try:
            # The libraries would log the headers of requests and answers, including TempURL keys.
            with quiet():
                result = self._authorized(connection, function, *args, **kwargs)
        except swift.ClientException as error:
            connection.close()
            answer = _from_answer(what, error)
            if answer.status in (TOO_MANY, RATE_LIMITED):
                self._rest.ask(answer.retry_after)
            raise answer from None
        except _FAILURES as error:
            connection.close()
            raise from_exception(what, error) from None
        except BaseException:  # an interrupt, or an error of the body's reader: half a request has been sent
            connection.close()
            raise
        self._idle.append(connection)
        logger.debug("object store: %s", function.__name__)
        return result

    def _authorized(self, connection: _Connection, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call with the session's token; if the store refuses it, once more with a new one."""
        kwargs["http_conn"] = (urlsplit(self.url), connection)
        try:
            return function(self.url, self.session.get_token(), *args, **kwargs)
        except swift.ClientException as error:
            if error.http_status != 401 or not self.session.invalidate():
                raise
        return function(self.url, self.session.get_token(), *args, **kwargs)

    def _heard(self, headers: Mapping[str, str]) -> None:
        """Learn the store's clock from the headers of any answer."""
        try:
            self._clock_difference = parsedate_to_datetime(headers["date"]).timestamp() - self._clock()
        except (KeyError, TypeError, ValueError):
            return


class _Session(swift.SwiftClientRequestsSession):  # type: ignore[misc]
    """Leave URLs as they are: requests would resolve a ``..``, which an object's name may have."""

    def prepare_request(self, request: Any) -> Any:
        prepared = super().prepare_request(request)
        if re.search(r"/\.\.?(/|$)", urlsplit(request.url).path):
            prepared.url = request.url  # quoted by swiftclient
        return prepared


class _Connection(swift.HTTPConnection):  # type: ignore[misc]
    """One kept-alive connection, with the session's TLS settings. For one thread at a time."""

    def __init__(self, url: str, session: Any, heard: Callable[[Mapping[str, str]], None]) -> None:
        verify, cert = session.verify, session.cert
        cert, key = cert if isinstance(cert, tuple) else (cert, None)
        super().__init__(
            url,
            cacert=verify if isinstance(verify, str) else None,
            insecure=verify is False,
            cert=cert,
            cert_key=key,
            timeout=session.timeout or TIMEOUT,  # api_timeout of clouds.yaml
        )
        self.request_session = _Session()
        self.request_session.headers = None  # as swiftclient has it: none of requests' own
        self._heard = heard

    def getresponse(self) -> Any:
        response = super().getresponse()
        self._heard(response.headers)
        return response


def _get_info(url: str, token: str, http_conn: tuple[Any, _Connection]) -> Any:
    """Read ``/info`` of the store with the account's ``url``: the part before ``/v1``, plus ``/info``."""
    parsed, connection = http_conn
    path = re.sub(r"/v\d+(\.\d+)?(/.*)?$", "", parsed.path) + "/info"
    return swift.get_capabilities((parsed._replace(path=path), connection))


def _get_object(url: str, token: str, container: str, name: str, limit: int, **kwargs: Any) -> bytes:
    """Read at most ``limit`` bytes of an object, which may come in pieces, whatever its size."""
    headers = {"Range": f"bytes=0-{limit - 1}"}
    _, body = swift.get_object(url, token, container, name, resp_chunk_size=1 << 16, headers=headers, **kwargs)
    data = b""
    try:
        while len(data) < limit and (piece := body.read(limit - len(data))):
            data += piece
    finally:
        body.close()
    return data


def _from_answer(what: str, error: swift.ClientException) -> CloudError:
    """Return the error for an answer that swiftclient raised as one."""
    if not error.http_status:
        return Unavailable(f"{what}: {one_line(error)}.")
    headers = {str(key).lower(): str(value) for key, value in (error.http_response_headers or {}).items()}
    said = error.http_response_content or error.http_reason or ""
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return from_status(what, error.http_status, text, headers, over_quota=MAKE_ROOM)


def as_store_error(error: CloudError) -> CloudError:
    """Return ``error`` as a `StoreError`, unless it is of a more specific kind (credentials, quota)."""
    kind = {CloudError: StoreError, Unavailable: StoreUnavailable}.get(type(error))
    if kind is None:
        return error
    return kind(str(error), request_id=error.request_id, status=error.status, retry_after=error.retry_after)
