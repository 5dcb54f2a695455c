"""The TempURL key of an account, which clusters share on stores that don't honour keys of containers (Ceph's object gateway)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping

import swiftclient.client as swift

from ...common.errors import Unavailable, Unsupported, logger
from ...common.retry import backoff
from .account import Account

SLOTS = ("x-account-meta-temp-url-key", "x-account-meta-temp-url-key-2")

SETTLE = 1.0  # seconds after which another program that saw the slot free at the same time has set it, too

TRIES = 5  # to get a slot of the account

POLICIES = "x-account-storage-policy-"  # a HEAD of an account that has these headers also shows TempURL keys: see `AccountKey.share`


class AccountKey:
    """The TempURL key of the account that all clusters with one ``prefix`` of container names share.

    An account has two slots, which others may use: a slot with another key is never changed. Ours is recognised by its value,
    ``<prefix>-<64 hexadecimal digits>``. No request reads and writes at once, so every write is checked afterwards.
    """

    def __init__(self, account: Account, prefix: str) -> None:
        self._account, self._prefix, self._sleep = account, prefix, account.sleep

    def share(self) -> str:
        """Return our key; put it into a free slot if it is in none. Raises `Unsupported` if others have both slots, or may have.

        A slot that looks free may be in use: old releases of Ceph's gateway show no keys. Those that have /info, or that show an
        account's storage policies, show the keys (src/rgw/rgw_rest_swift.cc: ``swift_info``, ``dump_account_metadata``) to all users of
        Keystone (rgw_auth_keystone.cc: ``get_creds_info``), as Swift does.
        """
        made = f"{self._prefix}-{secrets.token_hex(32)}"  # the same for all attempts: a POST that takes effect late changes nothing
        for attempt in range(TRIES):
            headers = self._headers()
            slots = self._slots(headers)
            if ours := [key for key in slots.values() if self._is_ours(key)]:
                return ours[0]
            if not slots and not any(name.startswith(POLICIES) for name in headers) and not self._account.info():
                raise Unsupported(
                    f"The object store at {self._account.url} honours TempURL keys of the account only, and does "
                    "not show whether they are in use (old releases of Ceph's gateway don't). Ask the cloud's "
                    "operators, or use another cloud, or another object store of it "
                    "(object_store_endpoint_override)."
                )
            free = [slot for slot in SLOTS if slot not in slots]
            if not free:
                raise Unsupported(
                    # Nothing after the name of a key: `redact` would take it for the key.
                    f"The object store at {self._account.url} honours TempURL keys of the account only (as Ceph's "
                    "gateway does), and both of them are in use. Use another project, or free a key that nobody needs: "
                    "`openstack object store account unset --property Temp-URL-Key`"
                )
            try:
                self._post({free[0]: made})
                self._sleep(SETTLE)
            except Unavailable:
                # It may have taken effect. Repeating it could overwrite what somebody else has set since.
                if attempt == TRIES - 1:
                    raise
                self._sleep(backoff(attempt))
        raise Unsupported(
            f"The object store at {self._account.url} does not keep a TempURL key of the account, or does not "
            "show it to these credentials, so servers could not find their controller. Use credentials that own "
            "the account."
        )

    def give_back(self, needed: Callable[[], bool]) -> None:
        """Free our slot, unless a cluster needs the key. Put it back if a new cluster needs it in the meantime."""
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
        """Return the account's headers, with names in lower case."""
        found = self._account.call("Can't read the account", swift.head_account)
        return {str(name).lower(): str(value) for name, value in found.items()}

    def _slots(self, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the contents of the slots in use."""
        headers = self._headers() if headers is None else headers
        return {slot: headers[slot] for slot in SLOTS if headers.get(slot)}

    def _post(self, headers: dict[str, str]) -> None:
        self._account.call_once("Can't change the TempURL keys of the account", swift.post_account, headers)
