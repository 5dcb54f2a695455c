"""What `cloud` and `store` share about calling a service: errors, retries, parallel work, text safe to show.

Everything here is about one HTTP call or many of them; which calls are made is those modules' business.
"""

from __future__ import annotations

import logging
import random
import re
import shlex
import threading
import time
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from email.utils import parsedate_to_datetime
from typing import TypeVar

from keystoneauth1 import exceptions as keystone
from openstack import exceptions as sdk

from ..model.plan import GriffinError

logger = logging.getLogger("ipp_griffin")

TIMEOUT = 60  # seconds that one request may keep quiet
LONGEST_PAUSE = 60.0  # seconds; a Retry-After beyond it is not waited for
TOO_MANY = 429  # requests in a time: a service, or a proxy before it, slows its clients down
RATE_LIMITED = 498  # the same, of Swift: https://docs.openstack.org/swift/latest/ratelimit.html
BREATH = 0.25  # seconds, where it does not say how long
TRANSIENT = frozenset({408, TOO_MANY, RATE_LIMITED, 500, 502, 503, 504})

T = TypeVar("T")


class CloudError(GriffinError):
    """A call to the cloud failed; one line that says what, which and what next.

    ``request_id`` is the service's own name for the call ("" if there was no answer), ``status`` the HTTP
    status (None if there was none), ``retry_after`` the seconds that the service asked to wait, if it did.
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
    """No such cloud, no credentials, or the cloud doesn't take them (any more)."""


class QuotaError(CloudError):
    """The project's quota does not allow it."""


class Unsupported(CloudError):  # noqa: N818 - a state of the cloud
    """The cloud lacks something that this project can't do without."""


class Unavailable(CloudError):  # noqa: N818 - a state of the cloud
    """A service is unreachable, overloaded or broken: worth trying again later."""


def one_line(text: object, limit: int = 300) -> str:
    """``text`` as one printable line of at most ``limit`` characters, with secrets cut out.

    Control characters, and those that reorder or hide text, are escaped: what a service or a server says
    ends up on terminals and in logs.
    """
    line = printable(redact(" ".join(str(text).split())))
    return line if len(line) <= limit else line[: limit - 1] + "…"


def printable(text: str) -> str:
    """``text`` with control characters, also newlines, and those that reorder or hide text, escaped."""
    if text.isprintable():
        return text
    return "".join(c if _printable(c) else c.encode("unicode_escape").decode() for c in text)


def typed(name: str) -> str:
    """``name`` as one types it in a shell: exact, whatever is in it, and in one line that moves no terminal."""
    if re.fullmatch(r"[\w@%+=:,./-]+", name):
        return name
    if name.isprintable():
        return shlex.quote(name)
    safe = (c if c.isprintable() and c not in "\\'" else "".join(f"\\{byte:03o}" for byte in _bytes(c)) for c in name)
    return f"$'{''.join(safe)}'"


def _bytes(text: str) -> bytes:
    """``text`` in UTF-8; also what is none in a name of a file."""
    return text.encode(errors="surrogateescape")


def _printable(character: str) -> bool:
    return unicodedata.category(character)[0] not in "CZ" or character == " "


_SECRETS = re.compile(
    r"(?i)(temp_url_sig=)[0-9a-z%+/=:_-]+"
    r"|(x-(?:auth|subject|storage|service)-token\W{1,4}|temp-url-key(?:-2)?\W{1,4})[^\s'\",}]+"
    r"|(\"?(?:adminpass|password|secret)\"?\s*[:=]\s*)(?:\"[^\"]*\"|'[^']*'|[^\s,}]+)"
    r"|\b(gAAAA)[0-9A-Za-z_=-]{20,}"
    r"|[0-9A-Za-z+_-]{80,}={0,2}|[0-9A-Za-z+/_-]{200,}={0,2}"  # base64: user-data echoed back, other tokens
)


def redact(text: str) -> str:
    """``text`` without TempURL signatures and keys, tokens and passwords."""
    return _SECRETS.sub(lambda match: "".join(part or "" for part in match.groups()) + "[redacted]", text)


FEWER = "Start fewer engines, free what is no longer needed, or ask for more quota."


def from_status(
    what: str, status: int, text: object, headers: Mapping[str, str], *, over_quota: str = FEWER
) -> CloudError:
    """The error for an answer of HTTP ``status`` with the service's message ``text``; ``what`` failed.

    ``over_quota``: what to do where a quota, or a lack of room, is the reason.
    """
    plain = re.sub(r"<[^<>]*>|\(HTTP \d+\)|\(Request-ID: [^)]*\)", " ", str(text))  # HTML; keystoneauth's own
    said = one_line(plain).rstrip(". ") or "no explanation"
    ids = ("x-openstack-request-id", "x-compute-request-id", "x-trans-id")
    request_id = one_line(next((headers[name] for name in ids if headers.get(name)), ""), 100)
    logger.debug("%s: HTTP %d (request id %s)", what, status, request_id or "none")
    kind, advice = _kind(status, said, over_quota)
    return kind(
        f"{what}: the cloud said {status}: {said}.{advice}",
        request_id=request_id,
        status=401 if kind is CredentialsError else status,  # callers take 404 for: it is gone
        retry_after=retry_after(headers),
    )


# Keystone's answer (404) to a login with a token or an application credential that it does not know.
_UNKNOWN_LOGIN = re.compile(r"(?i)could not (find application credential|find token|recognize \w+ token)")


def _kind(status: int, said: str, over_quota: str) -> tuple[type[CloudError], str]:
    """What an HTTP status means, and what to do about it."""
    if status == 401 or (status == 404 and _UNKNOWN_LOGIN.search(said)):
        return CredentialsError, " Check the credentials: wrong, expired, revoked, or do their rules forbid this?"
    over = (
        re.search(r"(?i)quota|exceed|limit", said)
        if status in (403, 413)
        else status == 507 or (status == 409 and "Quota exceeded" in said)
    )
    if over:
        return QuotaError, f" {over_quota}"
    if status == 403:
        return CloudError, " These credentials lack the role for it (member)."
    if status == 406:
        return Unsupported, " A newer version of this service is needed (Nova: microversion 2.52 or later)."
    if status in TRANSIENT:
        return Unavailable, " Try again later."
    return CloudError, ""


def from_exception(what: str, error: Exception) -> CloudError:
    """The error for an exception of keystoneauth, openstacksdk, requests or the operating system."""
    if isinstance(error, CloudError):
        return error
    said = one_line(_cause(str(error))).rstrip(". ") or type(error).__name__
    status = getattr(error, "http_status", None) or getattr(error, "status_code", None)
    if isinstance(status, int) and status >= 400:
        headers = dict(getattr(getattr(error, "response", None), "headers", None) or {})
        headers = {key.lower(): value for key, value in headers.items()}
        headers.setdefault("x-openstack-request-id", getattr(error, "request_id", None) or "")
        return from_status(what, status, getattr(error, "message", None) or said, headers)
    if tls := _tls(error):
        return CloudError(f"{what}: {tls}")
    # The latter is a kind of ConfigException: first.
    if isinstance(error, keystone.EndpointNotFound | sdk.ServiceDisabledException):
        return Unsupported(f"{what}: {said}. Are region and interface right, and does the cloud have this service?")
    if isinstance(error, _UNUSABLE):
        return CredentialsError(
            f"{what}: {said}. Set OS_CLOUD or GriffinCloud.cloud to an entry of clouds.yaml, or the OS_* variables."
        )
    return Unavailable(f"{what}: {said}. Is the address right, and is the cloud up?")


_UNUSABLE = (
    keystone.MissingRequiredOptions,
    keystone.AuthPluginException,
    keystone.AuthorizationFailure,
    keystone.EmptyCatalog,
    sdk.ConfigException,
)


def _tls(error: Exception) -> str:
    """What is wrong between a certificate and this machine, and what next; "" if that isn't what failed.

    It may be wrapped in other errors, as deep as version discovery is: the text is all that is left of it.
    """
    text = str(error)
    if missing := re.search(r"Could not find (?:the|a suitable) TLS .*, invalid path: (.+)", text):
        return f"there is no file {one_line(missing[1])}. Set cacert (or cert and key) of this cloud in clouds.yaml."
    if re.search(r"NO_CERTIFICATE_OR_CRL_FOUND|PEM lib|NO_START_LINE", text):
        return "the file of cacert (or of cert and key) in clouds.yaml is not in PEM form."
    if "WRONG_VERSION_NUMBER" in text:
        return "the service does not speak https at this address. Is auth_url in clouds.yaml right, or is it http?"
    refused = re.search(r"certificate verify failed: (.+?)(?: \(_ssl|['\"])", text)
    if not refused:
        said = one_line(_cause(text)).rstrip(". ")
        return f"{said}. Does this cloud need cacert in clouds.yaml?" if isinstance(error, keystone.SSLError) else ""
    why = one_line(refused[1]).removesuffix(", certificate is not valid for")
    if "mismatch" in why:
        host = re.search(r"host='([^']+)'", text)
        return (
            f"the certificate of {host[1] if host else 'the cloud'} is for another name ({why}). "
            "Use the name that it is for, in auth_url of clouds.yaml, say."
        )
    if "expired" in why or "not yet valid" in why:
        return (
            f"the cloud's certificate is not valid now: {why}. Is this machine's clock right? Else it must be renewed."
        )
    return (
        f"the cloud's certificate is not trusted: {why}. "
        "Set cacert of this cloud in clouds.yaml to the file of the CA that signed it."
    )


def _cause(text: str) -> str:
    """The words of a connection failure, without the insides of urllib3 around them."""
    errno = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text)
    head = re.split(r": HTTPS?Connection|: \(", text)[0]
    return f"{head}: {errno[1]}" if errno and errno[1] not in head else text


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that ``Retry-After`` (seconds or an HTTP date) asks for; None without one that makes sense."""
    value = (headers.get("retry-after") or "").strip()
    if value.isdigit():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
        date = headers.get("date")
        now = parsedate_to_datetime(date).timestamp() if date else time.time()
        return max(0.0, at.timestamp() - now)
    except (TypeError, ValueError):
        return None


def backoff(attempt: int, asked: float | None = None) -> float:
    """Seconds to wait after failure number ``attempt`` (0, 1, ...): those ``asked`` for, else 0.5 doubling.

    Jitter keeps those that failed together from coming back together.
    """
    if asked is not None:
        return min(asked, LONGEST_PAUSE) + random.uniform(0, 0.5)
    return min(0.5 * 2.0**attempt, 16.0) * random.uniform(0.5, 1)


class Rest:
    """The pause that a service which has enough for now asks for: all threads take it, not only the one that it told."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._clock, self._sleep = clock, sleep
        self._until = 0.0
        self._lock = threading.Lock()

    def ask(self, seconds: float | None) -> None:
        """For so many seconds from now, a short while where it is None; never less than was asked for before."""
        with self._lock:
            self._until = max(self._until, self._clock() + min(BREATH if seconds is None else seconds, LONGEST_PAUSE))

    def take(self) -> None:
        """Return when it is over, and what has been asked for meanwhile."""
        taken = 0.0
        while taken < self._until and (pause := self._until - self._clock()) > 0:
            taken = self._until
            self._sleep(min(pause, LONGEST_PAUSE))  # a clock may be set back


def persist(
    attempt: Callable[[], T],
    *,
    retries: int,
    sleep: Callable[[float], None],
    again: Callable[[CloudError], bool] = lambda error: isinstance(error, Unavailable),
) -> T:
    """Call ``attempt`` until it returns, at most ``1 + retries`` times. Only for calls that may be repeated.

    Raises its last `CloudError`, or the first one that ``again`` says no to.
    """
    tries = 0
    while True:
        try:
            return attempt()
        except CloudError as error:
            if tries >= retries or not again(error):
                raise
            pause = backoff(tries, error.retry_after)
            logger.debug("trying again in %.1f s: %s", pause, error)
        tries += 1
        sleep(pause)


def in_parallel(work: Iterable[T], do: Callable[[T], None], parallel: int) -> None:
    """Run ``do`` on each of ``work`` with at most ``parallel`` threads; returns when all is done.

    ``do`` must keep its errors to itself. Plain daemon threads, because the pools of concurrent.futures
    refuse work once the interpreter is ending, and clusters are stopped just then; where no thread can be
    started at all, the caller's does the work. An interrupt begins nothing new and waits for what is in
    flight.
    """
    queue = deque(work)

    def run() -> None:
        while True:
            try:
                item = queue.popleft()
            except IndexError:
                return
            do(item)

    threads: list[threading.Thread] = []
    try:
        for _ in range(min(parallel, len(queue)) if len(queue) > 1 else 0):
            thread = threading.Thread(target=run, name="ipp-griffin-call", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                break
            threads.append(thread)
        if not threads:
            run()
    finally:
        _join(threads, queue)


def _join(threads: list[threading.Thread], queue: deque[T]) -> None:
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        queue.clear()
        for thread in threads:
            thread.join()
        raise


_ours: ContextVar[bool] = ContextVar("ipp_griffin_call", default=False)
# Filters work on the very logger that is named, not on those below it.
_TALKATIVE = (
    "keystoneauth",
    "keystoneauth.session",
    "keystoneauth.discover",
    "keystoneauth.identity.generic.base",
    "swiftclient",
    "urllib3.connectionpool",
)


class _NotOurs(logging.Filter):
    """Drops what client libraries log about our own calls: headers with keys, bodies, signed URLs."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _ours.get()


_not_ours = _NotOurs()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what client libraries say about calls made inside, by this thread, out of every log.

    What they say about anybody else's calls in this process is left alone.
    """
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_not_ours)  # adding it twice is adding it once
    before = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(before)
