"""Which requests a TempURL lets through: https://docs.openstack.org/swift/latest/api/temporary_url_middleware.html"""

from __future__ import annotations

import base64
import binascii
import calendar
import hmac
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import Call

_ISO = "%Y-%m-%dT%H:%M:%SZ"


def fits(call: Call, account: str, container: str, name: str) -> bool:
    """Return whether the TempURL parameters allow the request, by this cloud's clock and the container's keys."""
    stored = call.state.containers.get((account.removeprefix("AUTH_"), container))
    given, expires = call.param("temp_url_sig"), expiry(call.param("temp_url_expires"))
    prefix = call.query.get("temp_url_prefix")
    if stored is None or expires is None or expires < call.state.clock() or "temp_url_ip_range" in call.query:
        return False
    path = call.path
    if prefix is not None:
        if not name.startswith(prefix[-1]):
            return False
        path = f"prefix:/v1/{account}/{container}/{prefix[-1]}"
    keys = [stored.headers.get(f"X-Container-Meta-Temp-Url-Key{suffix}") for suffix in ("", "-2")]
    methods = ["HEAD", "GET", "PUT", "POST"] if call.method == "HEAD" else [call.method]
    digest, signature = _signature(given)
    return any(
        hmac.compare_digest(hmac.new(key.encode(), f"{m}\n{expires}\n{path}".encode(), digest).digest(), signature)
        for key in keys
        if key and digest
        for m in methods
    )


def expiry(text: str) -> int | None:
    """Return the seconds since 1970 that ``text`` says, as a number or in ISO 8601; None for anything else."""
    if text.isdigit():
        return int(text)
    try:
        return calendar.timegm(time.strptime(text, _ISO))
    except ValueError:
        return None


def _signature(text: str) -> tuple[str, bytes]:
    """Return the digest's name ("" if it makes no sense) and the raw signature: hex, or ``digest:base64``."""
    digest, colon, encoded = text.partition(":")
    try:
        if colon and digest in ("sha1", "sha256", "sha512"):
            return digest, base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
        return {40: "sha1", 64: "sha256", 128: "sha512"}.get(len(text), ""), bytes.fromhex(text)
    except (binascii.Error, ValueError):
        return "", b""
