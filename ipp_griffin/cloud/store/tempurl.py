"""TempURLs: what a store honours, how they are signed, and the key that clusters share where only an account has keys.

Swift takes a key of a container, so that each cluster has its own. Ceph's object gateway takes such a key, shows it
and ignores it: it looks for the two keys of the account that owns the container (ceph/ceph,
src/rgw/rgw_swift_auth.cc: ``TempURLEngine::get_owner_info`` and ``authenticate``, which try both keys, on the path
with and without the ``/swift`` in front of it; doc/radosgw/swift/tempurl.rst). API:
https://docs.openstack.org/swift/latest/api/temporary_url_middleware.html
"""

from __future__ import annotations

import hmac
import math
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode, urlsplit

import requests
import swiftclient.client as swift

from ..failures import (
    TIMEOUT,
    TRANSIENT,
    CloudError,
    Unavailable,
    Unsupported,
    backoff,
    from_exception,
    from_status,
    logger,
    persist,
    quiet,
)
from .account import Account, as_store_error

KEY = "x-container-meta-temp-url-key"
SIGNED_BY = "x-container-meta-ipp-griffin-key"  # "account" or "container", and the digest where it isn't the best
NO_SIGNED_BY = SIGNED_BY.replace("x-", "x-remove-", 1)
DIGESTS = ("sha256", "sha512", "sha1")  # best first
SLOTS = ("x-account-meta-temp-url-key", "x-account-meta-temp-url-key-2")
SETTLE = 1.0  # seconds after which whoever saw the slot free at the same time as we has set it too
TRIES = 5  # to get a slot of the account
POLICIES = "x-account-storage-policy-"  # what a HEAD of an account has that shows TempURL keys, too: `AccountKey.share`
NEW_KEY_TRIES = 3  # of URLs signed with a new key of the account, a second apart: gateways may have cached the old


@dataclass(frozen=True)
class Signer:
    """What signs URLs into one container. ``digest``: sha1, sha256 or sha512."""

    key: str = field(repr=False)
    digest: str

    def sign(self, text: str) -> str:
        """The signature in hexadecimal, by whose length the store tells the digest."""
        return hmac.new(self.key.encode(), text.encode(), self.digest).hexdigest()


class TempUrls:
    """URLs into one account, for servers. ``servers_url``: how they reach the store ("": as this machine does)."""

    def __init__(self, account: Account, account_key: AccountKey, servers_url: str = "") -> None:
        self._account, self._account_key = account, account_key
        self._servers_url = _account_url(servers_url, account)

    def digests(self) -> list[str]:
        """What the store takes, best first: all to be tried if it hides that. Raises `Unsupported` without TempURL.

        A store that has TempURL and names no digest is an old Swift or Ceph's gateway (``list_tempurl_data`` in
        src/rgw/rgw_rest_swift.cc): sha1 is what all of those take.
        """
        if not self._account.info():
            return ["sha256", "sha1"]  # Swift takes sha256 since 2.17 (2018), and no sha1 by default since 2.30 (2022)
        tempurl = self._account.capability("tempurl")
        if tempurl is not None and {"GET", "PUT"} <= set(tempurl.get("methods") or ("GET", "PUT")):
            allowed = tempurl.get("allowed_digests") or ["sha1"]
            if taken := [digest for digest in DIGESTS if digest in allowed]:
                return taken[:1]
        raise Unsupported(
            f"The object store at {self._account.url} has no TempURL for GET and PUT (its /info says so): servers "
            "could not find their controller. Ask the cloud's operators to enable it."
        )

    def signer_of(self, found: Mapping[str, str]) -> Signer:
        """What signs URLs into the container with these headers: by default its own key, with the best digest."""
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
        """``signer``, or another that the store honours, for a store that isn't known to be Swift.

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
        # Before the slots are looked at: whoever frees ours looks at the containers for this.
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
            f"The object store at {self._account.url} honours neither the TempURL key of a container nor one of the "
            "account: servers could not find their controller. Ask the cloud's operators to enable TempURLs; Ceph's "
            "object gateway may need the account in its URLs (rgw_swift_account_in_url)."
        )

    def expiry(self, seconds: float) -> int:
        """So many seconds from now, as seconds since 1970 by the store's clock."""
        return math.ceil(self._account.now() + seconds)

    def of_object(self, signer: Signer, container: str, name: str, method: str, expires: int) -> str:
        """A URL for ``method`` (or HEAD) on one object."""
        path = f"/{container}/{name}"
        signature = signer.sign(f"{method}\n{expires}\n{self._signed_path()}{path}")
        return f"{self._servers_url}{quote(path)}?temp_url_sig={signature}&temp_url_expires={expires}"

    def of_prefix(self, signer: Signer, container: str, prefix: str, method: str, expires: int) -> tuple[str, str]:
        """The start and the query of all URLs for ``method`` on objects below ``prefix``; see `Account.is_swift`.

        Ceph's gateway has such URLs since some release, and doesn't say so.
        """
        path = f"/{container}/{prefix}"
        signature = signer.sign(f"{method}\n{expires}\nprefix:{self._signed_path()}{path}")
        query = {"temp_url_sig": signature, "temp_url_expires": str(expires), "temp_url_prefix": prefix}
        return self._servers_url + quote(path), urlencode(query)

    def honours(self, signer: Signer, container: str) -> bool:
        """Whether the store lets a URL of this signer in, whatever it then finds there. Without a token; repeated while
        the store is unavailable, since that is neither.

        A refusal is 401 (Swift, and EPERM of Ceph's gateway) or 403 (its EACCES: src/rgw/rgw_common.cc,
        ``rgw_http_swift_errors``).
        """
        url = self.of_object(signer, container, "connection.json", "GET", self.expiry(60))
        url = self._account.url + url[len(self._servers_url) :]
        try:
            status = persist(lambda: self._status(url), retries=self._account.retries, sleep=self._account.sleep)
        except CloudError as error:
            raise as_store_error(error) from None
        return status not in (401, 403)

    def _signed_path(self) -> str:
        """The account's path that signatures are over: the one that the store itself sees.

        Swift sees none of what a proxy in front of it, or a WSGI server, has before ``/v1``.
        """
        path = self._account.path
        return path[max(0, path.rfind("/v1/")) :] if self._account.is_swift() else path

    def _status(self, url: str) -> int:
        """That of one HEAD. Raises `Unavailable` for one that says only that, and for none."""
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
    """The URL of the account for servers: ``servers_url`` may be all of it, or end before its path or within that."""
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


class AccountKey:
    """The TempURL key of the account that all clusters with one ``prefix`` of container names share.

    An account has two slots, which others may use: one that holds something else is never changed. Ours is known by
    its value, ``<prefix>-<64 hexadecimal digits>``. No call reads and writes at once, so whatever is written is
    looked at again.
    """

    def __init__(self, account: Account, prefix: str) -> None:
        self._account, self._prefix, self._sleep = account, prefix, account.sleep

    def share(self) -> str:
        """Our key, in a free slot if it is in none yet. Raises `Unsupported` if others have both slots, or may have.

        A slot that isn't shown may be taken all the same: old releases of Ceph's gateway show no key. Those that have
        /info, or that show an account's storage policies, show the keys (src/rgw/rgw_rest_swift.cc: ``swift_info``,
        ``dump_account_metadata``) to all users of Keystone (rgw_auth_keystone.cc: ``get_creds_info``), as Swift does.
        """
        made = f"{self._prefix}-{secrets.token_hex(32)}"  # one for all tries: a POST that lands late changes nothing
        for attempt in range(TRIES):
            headers = self._headers()
            slots = self._slots(headers)
            if ours := [key for key in slots.values() if self._is_ours(key)]:
                return ours[0]
            if not slots and not any(name.startswith(POLICIES) for name in headers) and not self._account.info():
                raise Unsupported(
                    f"The object store at {self._account.url} honours TempURL keys of the account only, and does not "
                    "tell whether others have set them (old releases of Ceph's gateway don't). Ask the cloud's "
                    "operators; use another cloud, or another object store of it (object_store_endpoint_override)."
                )
            free = [slot for slot in SLOTS if slot not in slots]
            if not free:
                raise Unsupported(
                    f"The object store at {self._account.url} honours TempURL keys of the account only (Ceph's "
                    "gateway does so), and others have both (X-Account-Meta-Temp-URL-Key and -Key-2). Free one that "
                    "nobody needs (openstack object store account unset --property Temp-URL-Key-2), or use another "
                    "project."
                )
            try:
                self._post({free[0]: made})
                self._sleep(SETTLE)
            except Unavailable:
                # It may have landed all the same. Repeated blindly, it could change what somebody has set since.
                if attempt == TRIES - 1:
                    raise
                self._sleep(backoff(attempt))
        raise Unsupported(
            f"The object store at {self._account.url} does not keep a TempURL key of the account, or does not show it "
            "to these credentials: servers could not find their controller. Use credentials that own the account."
        )

    def give_back(self, needed: Callable[[], bool]) -> None:
        """Free our slot, unless a cluster needs the key. It is put back for one that came meanwhile."""
        if needed():
            return
        removed = {slot: key for slot, key in self._slots().items() if self._is_ours(key)}
        for slot in removed:
            if self._is_ours(self._slots().get(slot, "")):
                self._post({slot.replace("x-", "x-remove-", 1): "x"})
        if removed and needed():
            slots = self._slots()
            again = {slot: key for slot, key in removed.items() if slot not in slots}
            if again and not any(self._is_ours(key) for key in slots.values()):
                self._post(again)
        logger.debug("object store: gave back %d TempURL keys of the account", len(removed))

    def _is_ours(self, key: str) -> bool:
        return re.fullmatch(re.escape(self._prefix) + "-[0-9a-f]{64}", key) is not None

    def _headers(self) -> dict[str, str]:
        """What the store says of the account, with names in lower case."""
        found = self._account.call("Can't look at the account", swift.head_account)
        return {str(name).lower(): str(value) for name, value in found.items()}

    def _slots(self, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """What is in the slots that aren't free."""
        headers = self._headers() if headers is None else headers
        return {slot: headers[slot] for slot in SLOTS if headers.get(slot)}

    def _post(self, headers: dict[str, str]) -> None:
        self._account.call_once("Can't change the TempURL keys of the account", swift.post_account, headers)


def is_signed_by_account(found: Mapping[str, str]) -> bool:
    """Whether URLs into the container with these headers are signed with the account's key."""
    return found.get(SIGNED_BY, "").startswith("account")
