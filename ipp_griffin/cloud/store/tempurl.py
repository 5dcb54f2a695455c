"""TempURLs: which keys a store honours, how URLs are signed, and the key that clusters share if only the account's keys count.

Swift takes a key of a container, so that each cluster has its own. Ceph's object gateway takes such a key, shows it
and ignores it: it looks for the two keys of the account that owns the container (ceph/ceph,
src/rgw/rgw_swift_auth.cc: ``TempURLEngine::get_owner_info`` and ``authenticate``, which try both keys, on the path
with and without the ``/swift`` in front of it; doc/radosgw/swift/tempurl.rst). API:
https://docs.openstack.org/swift/latest/api/temporary_url_middleware.html
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode, urlsplit

import requests

from ...common.errors import CloudError, Unsupported
from ...common.retry import retry
from ..failures import TIMEOUT, TRANSIENT, from_exception, from_status, quiet
from .account import Account, as_store_error
from .account_key import SETTLE, AccountKey

KEY = "x-container-meta-temp-url-key"
SIGNED_BY = "x-container-meta-ipp-griffin-key"  # "account" or "container", and the digest where it isn't the best
NO_SIGNED_BY = SIGNED_BY.replace("x-", "x-remove-", 1)
DIGESTS = ("sha256", "sha512", "sha1")  # best first
NEW_KEY_TRIES = 3  # of URLs signed with a new key of the account, a second apart: gateways may have cached the old one


@dataclass(frozen=True)
class Signer:
    """The key and digest that sign URLs into one container. ``digest``: sha1, sha256 or sha512."""

    key: str = field(repr=False)
    digest: str

    def sign(self, text: str) -> str:
        """Return the signature in hexadecimal; the store recognises the digest by its length."""
        return hmac.new(self.key.encode(), text.encode(), self.digest).hexdigest()


class TempUrls:
    """Make URLs into one account, for servers. ``servers_url``: how they reach the store ("": as this machine does)."""

    def __init__(self, account: Account, account_key: AccountKey, servers_url: str = "") -> None:
        self._account, self._account_key = account, account_key
        self._servers_url = _account_url(servers_url, account)

    def digests(self) -> list[str]:
        """Return the digests that the store accepts, best first; several to try if it does not show them. Raises `Unsupported` without TempURL.

        A store that has TempURL but names no digest is an old Swift or Ceph's gateway (``list_tempurl_data`` in
        src/rgw/rgw_rest_swift.cc), all of which accept sha1.
        """
        if not self._account.info():
            return ["sha256", "sha1"]  # Swift takes sha256 since 2.17 (2018), and no sha1 by default since 2.30 (2022)
        tempurl = self._account.capability("tempurl")
        if tempurl is not None and {"GET", "PUT"} <= set(tempurl.get("methods") or ("GET", "PUT")):
            allowed = tempurl.get("allowed_digests") or ["sha1"]
            if taken := [digest for digest in DIGESTS if digest in allowed]:
                return taken[:1]
        raise Unsupported(
            f"The object store at {self._account.url} has no TempURL for GET and PUT (its /info says so), so "
            "servers could not find their controller. Ask the cloud's operators to enable it."
        )

    def signer_of(self, found: Mapping[str, str]) -> Signer:
        """Return the signer for URLs into the container with these headers: by default its own key, with the best digest."""
        scope, _, digest = found.get(SIGNED_BY, "").partition(" ")
        key = self._account_key.share() if scope == "account" else found[KEY]
        return Signer(key, digest if digest in DIGESTS else self.digests()[0])

    def settle(
        self,
        signer: Signer,
        container: str,
        *,
        note: Callable[[dict[str, str]], None],
        give_back: Callable[[], None],
    ) -> Signer:
        """Return ``signer``, or another one that the store honours, for a store that is not known to be Swift.

        ``note`` sets the container's metadata, so that `signer_of` finds the same; ``give_back`` frees the account's
        slot if nobody needs it. Raises `Unsupported` if no key is honoured.
        """
        best, *others = digests = self.digests()
        if self.honours(signer, container):
            return signer
        for digest in others:
            signer = Signer(signer.key, digest)
            if self.honours(signer, container):
                note({SIGNED_BY: f"container {digest}"})
                return signer
        # Before the slots are read: whoever frees our slot checks the containers for this.
        note({SIGNED_BY: "account"})
        key = self._account_key.share()
        for digest in digests * NEW_KEY_TRIES:
            signer = Signer(key, digest)
            if self.honours(signer, container):
                if digest != best:
                    note({SIGNED_BY: f"account {digest}"})
                return signer
            self._account.sleep(SETTLE)
        note({NO_SIGNED_BY: "x"})
        give_back()
        raise Unsupported(
            f"The object store at {self._account.url} honours neither the TempURL key of a container nor one of "
            "the account, so servers could not find their controller. Ask the cloud's operators to enable "
            "TempURLs; Ceph's object gateway may need the account in its URLs (rgw_swift_account_in_url)."
        )

    def expiry(self, seconds: float) -> int:
        """Return so many seconds from now, as seconds since 1970 by the store's clock."""
        return math.ceil(self._account.now() + seconds)

    def of_object(self, signer: Signer, container: str, name: str, method: str, expires: int) -> str:
        """Return a URL for ``method`` (or HEAD) on one object."""
        path = f"/{container}/{name}"
        signature = signer.sign(f"{method}\n{expires}\n{self._signed_path()}{path}")
        return f"{self._servers_url}{quote(path)}?temp_url_sig={signature}&temp_url_expires={expires}"

    def of_prefix(self, signer: Signer, container: str, prefix: str, method: str, expires: int) -> tuple[str, str]:
        """Return the start and the query of all URLs for ``method`` on objects below ``prefix``; see `Account.is_swift`.

        Some releases of Ceph's gateway have such URLs, but don't show it.
        """
        path = f"/{container}/{prefix}"
        signature = signer.sign(f"{method}\n{expires}\nprefix:{self._signed_path()}{path}")
        query = {"temp_url_sig": signature, "temp_url_expires": str(expires), "temp_url_prefix": prefix}
        return self._servers_url + quote(path), urlencode(query)

    def honours(self, signer: Signer, container: str) -> bool:
        """Return whether the store accepts a URL of this signer, whether or not the object exists. Sent without a token, and retried while the
        store is unavailable.

        A refusal is 401 (Swift, and EPERM of Ceph's gateway) or 403 (its EACCES: src/rgw/rgw_common.cc,
        ``rgw_http_swift_errors``).
        """
        url = self.of_object(signer, container, "connection.json", "GET", self.expiry(60))
        url = self._account.url + url[len(self._servers_url) :]
        try:
            status = retry(lambda: self._status(url), retries=self._account.retries, sleep=self._account.sleep)
        except CloudError as error:
            raise as_store_error(error) from None
        return status not in (401, 403)

    def _signed_path(self) -> str:
        """Return the account's path that signatures cover: the one that the store itself sees.

        Swift does not see what a proxy in front of it, or a WSGI server, has before ``/v1``.
        """
        path = self._account.path
        return path[max(0, path.rfind("/v1/")) :] if self._account.is_swift() else path

    def _status(self, url: str) -> int:
        """Return the status of one HEAD. Raises `Unavailable` for a transient status, or if there is no answer."""
        what, session = "Can't try a TempURL", self._account.session
        try:
            with quiet():
                answer = requests.head(url, timeout=TIMEOUT, verify=session.verify, cert=session.cert)
        except requests.RequestException as error:
            raise from_exception(what, error) from None
        if answer.status_code in TRANSIENT:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            raise from_status(what, answer.status_code, answer.reason, headers)
        return answer.status_code


def _account_url(servers_url: str, account: Account) -> str:
    """Return the URL of the account for servers: ``servers_url`` may be the whole URL, or end before or within its path."""
    url = servers_url.rstrip("/")
    if not url:
        return account.url
    path = urlsplit(url).path
    if path.rpartition("/")[2] == account.path.rpartition("/")[2]:
        return url
    if path.endswith("/v1") and "/v1/" in account.path:
        return url + account.path[account.path.rfind("/v1/") + 3 :]
    if account.path.startswith(f"{path}/"):
        return url.removesuffix(path) + account.path
    return url + account.path  # behind a proxy that serves others, too


def is_signed_by_account(found: Mapping[str, str]) -> bool:
    """Return whether URLs into the container with these headers are signed with the account's key."""
    return found.get(SIGNED_BY, "").startswith("account")
