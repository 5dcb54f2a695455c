"""The object store: the private object is read from it, reports are written into it. Its clock is the reference."""

import contextlib
import email.utils
import http.client
import random
import ssl
import threading
import time
import urllib.parse
import urllib.request
from typing import Any, Callable, Optional

from .errors import Failure

REPORT_TIMEOUT = 5.0  # seconds


def url_opener(proxy: str, ca_certificates: str) -> Callable[..., Any]:
    """Return a function like urllib's urlopen that uses exactly this proxy ("": none), and these certificates besides the system's."""
    proxies = {"http": proxy, "https": proxy} if proxy else {}
    return urllib.request.build_opener(urllib.request.ProxyHandler(proxies), HttpsHandler(ca_certificates)).open


class HttpsHandler(urllib.request.HTTPSHandler):
    """Reads the system's certificates when the first https URL is opened: that takes as long as starting Python."""

    def __init__(self, ca_certificates: str) -> None:
        super().__init__(context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))  # which trusts nobody
        self._ca_certificates = ca_certificates
        self._lock = threading.Lock()  # the first report and the private object are on their way at the same time
        self._handler: Optional[urllib.request.HTTPSHandler] = None

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        with self._lock:
            if self._handler is None:
                context = ssl.create_default_context()
                if self._ca_certificates:
                    context.load_verify_locations(cadata=self._ca_certificates)
                self._handler = urllib.request.HTTPSHandler(context=context)
                self._handler.add_parent(self.parent)
        return self._handler.https_open(request)


class Store:
    """Reads and writes objects at signed URLs."""

    def __init__(
        self,
        urlopen: Callable[..., Any],
        sleep: Callable[[float], None],
        monotonic: Callable[[], float],
        log: Callable[[str], None],
    ) -> None:
        self._urlopen, self._sleep, self._monotonic, self._log = urlopen, sleep, monotonic, log
        self._offset: Optional[float] = None  # seconds from our monotonic clock to the store's clock

    def now(self) -> float:
        """Return the time by the store's clock, in seconds since 1970; by this server's, which may be off, until the store has answered."""
        return time.time() if self._offset is None else self._monotonic() + self._offset

    def note_time(self, response: Any) -> None:
        """Set the clock by the Date of an answer."""
        with contextlib.suppress(TypeError, ValueError, AttributeError):
            date = email.utils.parsedate_to_datetime(response.headers["Date"])
            self._offset = date.timestamp() - self._monotonic()

    def fetch(self, url: str, timeout: float, check: Callable[[bytes], Any]) -> bytes:
        """Return an object that ``check`` does not refuse by a ValueError. Retry everything: the store may need a while to be consistent.

        Raises Failure after ``timeout`` seconds.
        """
        deadline, pause = self._monotonic() + timeout, 1.0
        while True:
            try:
                with self._urlopen(url, timeout=10) as response:
                    body = response.read()
                    self.note_time(response)
                check(body)
                return bytes(body)
            except ValueError as e:
                problem = "the answer is no connection file: " + str(e)
            except (OSError, http.client.HTTPException) as e:
                problem = str(e) or type(e).__name__
            left = deadline - self._monotonic()
            if left <= 0:
                host = urllib.parse.urlsplit(url).netloc.rpartition("@")[2]
                raise Failure(
                    f"the connection file never came from {host} within {timeout} s: {problem}. See that servers reach the object "
                    "store at that address."
                )
            self._log("no connection file yet: " + problem)
            self._sleep(min(left, pause * random.uniform(0.7, 1.0)))
            pause = min(pause * 1.6, 10.0)

    def put(self, url: str, body: bytes, tries: int) -> str:
        """Write an object; return why it could not be written, "" if it was."""
        problem = ""
        for attempt in range(tries):
            if attempt:
                self._sleep(attempt)
            request = urllib.request.Request(url, data=body, method="PUT", headers={"Content-Type": "application/json"})
            try:
                with self._urlopen(request, timeout=REPORT_TIMEOUT) as response:
                    response.read()
                    self.note_time(response)
                return ""
            except (OSError, http.client.HTTPException, ValueError) as e:
                problem = str(e) or type(e).__name__
        return problem
