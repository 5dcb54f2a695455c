"""Turn failed calls into `CloudError`, one line each, and keep client libraries' logs free of secrets.

Other modules decide which calls are made.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from email.utils import parsedate_to_datetime

from keystoneauth1 import exceptions as keystone
from openstack import exceptions as sdk

from ..common.errors import CloudError, CredentialsError, QuotaError, Unavailable, Unsupported, logger
from ..common.text import one_line

TIMEOUT = 60  # seconds of silence after which a request fails
TOO_MANY = 429  # too many requests: a service, or a proxy in front of it, throttles its clients
RATE_LIMITED = 498  # the same, from Swift: https://docs.openstack.org/swift/latest/ratelimit.html
TRANSIENT = frozenset({408, TOO_MANY, RATE_LIMITED, 500, 502, 503, 504})


FEWER = "Start fewer engines, free what is no longer needed, or ask for more quota."


def from_status(
    what: str, status: int, text: object, headers: Mapping[str, str], *, over_quota: str = FEWER
) -> CloudError:
    """Return the error for an answer of HTTP ``status`` with the service's message ``text``; ``what`` failed.

    ``over_quota``: advice if a quota, or a lack of space, is the reason.
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
        status=401 if kind is CredentialsError else status,  # callers take 404 to mean that it is gone
        retry_after=retry_after(headers),
    )


# Keystone's answer (404) to a login with an unknown token or application credential.
_UNKNOWN_LOGIN = re.compile(r"(?i)could not (find application credential|find token|recognize \w+ token)")


def _kind(status: int, said: str, over_quota: str) -> tuple[type[CloudError], str]:
    """Return the kind of error for an HTTP status, and advice."""
    if status == 401 or (status == 404 and _UNKNOWN_LOGIN.search(said)):
        return (
            CredentialsError,
            " Check the credentials: they may be wrong, expired or revoked, or their access rules may forbid this.",
        )
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
    """Return the error for an exception of keystoneauth, openstacksdk, requests or the operating system."""
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
    # First, since the latter is a kind of ConfigException.
    if isinstance(error, keystone.EndpointNotFound | sdk.ServiceDisabledException):
        return Unsupported(f"{what}: {said}. Are region and interface right, and does the cloud have this service?")
    if isinstance(error, _UNUSABLE):
        return CredentialsError(
            f"{what}: {said}. Set OS_CLOUD or GriffinCloud.cloud to an entry of clouds.yaml, or set the OS_* variables."
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
    """Return what is wrong with a certificate, and advice; "" if that is not what failed.

    Version discovery wraps it in other errors, so only its text is left.
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
            f"the certificate of {host[1] if host else 'the cloud'} is for another name ({why}). Use the name "
            "in the certificate, in auth_url of clouds.yaml for instance."
        )
    if "expired" in why or "not yet valid" in why:
        return f"the cloud's certificate is not valid now: {why}. Check this machine's clock; if it is right, the certificate must be renewed."
    return (
        f"the cloud's certificate is not trusted: {why}. "
        "Set cacert of this cloud in clouds.yaml to the file of the CA that signed it."
    )


def _cause(text: str) -> str:
    """Return the text of a connection failure, without urllib3's internals."""
    errno = re.search(r"\[Errno -?\d+\] ([^'\")]+)", text)
    head = re.split(r": HTTPS?Connection|: \(", text)[0]
    return f"{head}: {errno[1]}" if errno and errno[1] not in head else text


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that ``Retry-After`` (seconds or an HTTP date) asks for; None without a valid one."""
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


_ours: ContextVar[bool] = ContextVar("ipp_griffin_call", default=False)
# A filter works only on the named logger, not on its children.
_TALKATIVE = (
    "keystoneauth",
    "keystoneauth.session",
    "keystoneauth.discover",
    "keystoneauth.identity.generic.base",
    "swiftclient",
    "urllib3.connectionpool",
)


class _NotOurs(logging.Filter):
    """Drop what client libraries log about our own calls: headers with keys, bodies, signed URLs."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _ours.get()


_not_ours = _NotOurs()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep messages of client libraries about calls that this thread makes inside out of every log.

    Their messages about other calls in this process are not affected.
    """
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_not_ours)  # adding it twice has no effect
    before = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(before)
