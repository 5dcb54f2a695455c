"""The one door to the object store, through python-swiftclient.

Each cluster has one private container of its own, ``ipp-griffin-<uid>``, with a random TempURL key in its metadata. Servers only get
URLs into it, signed with that key, or with one of the account if the store honours no other (see `tempurl`). Once the container is
gone, all of them are dead. API: https://docs.openstack.org/api-ref/object-store/ and
https://docs.openstack.org/swift/latest/api/temporary_url_middleware.html
"""

from __future__ import annotations

import contextlib
import re
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import swiftclient.client as swift

from ...common.errors import CloudError, StoreError, logger
from ...common.retry import backoff
from ...common.text import one_line
from ...model.names import PREFIX, container_name
from ...model.reports import KINDS, LOG, REPORT_LIMIT, Report, content
from .account import MOST_LISTED, Account
from .account_key import AccountKey
from .tempurl import KEY, Signer, TempUrls, is_signed_by_account

MARKER = "x-container-meta-ipp-griffin"  # its value is the uid; only containers with it may be changed and deleted
NO_KEY = "x-remove-container-meta-temp-url-key"
MARKER_WAIT = 10  # seconds for another process to finish making the container
# Whoever has a server's write URL can fill the container, at the project's cost, up to this. A server writes about five objects
# in its life, of at most 256 KiB, and a few more after each restart: this is enough for a thousand servers.
# API: https://docs.openstack.org/swift/latest/api/container_quotas.html; Ceph's gateway has the same (src/rgw/rgw_op.cc:
# ``filter_out_quota_info``). Both say so in /info.
QUOTA = {"x-container-meta-quota-count": "20000", "x-container-meta-quota-bytes": str(4 << 30)}
REPORTS_LISTED = 1000  # of one server, after which a listing continues with the next server's
ROUNDS = 50  # listings of a container that is being emptied


@dataclass(frozen=True)
class StoredObject:
    """One entry of a listing. ``last_modified``: ISO 8601 in UTC; ``hash``: the MD5 of its content, in hexadecimal."""

    name: str
    bytes: int
    last_modified: str
    hash: str = field(default="", compare=False)


class Store:
    """The containers of this project in one object store. Methods may be called from several threads.

    ``session``: the cloud's keystoneauth session. ``url``: the account's URL. ``prefix``: what the names of the containers start with.
    ``servers_url``: how servers reach the store if that differs, with all, part or none of the account's path (signatures cover the
    path that the store itself sees). ``clock``: seconds since 1970; URLs still expire by the store's clock.

    Every method raises `StoreError` (`StoreUnavailable` after retries), `CredentialsError` or `QuotaError`.
    """

    def __init__(
        self,
        session: Any,
        url: str,
        *,
        prefix: str = PREFIX,
        servers_url: str = "",
        retries: int = 4,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.account = Account(session, url, retries=retries, sleep=sleep, clock=clock)
        self._prefix = prefix
        self._account_key = AccountKey(self.account, prefix)
        self._urls = TempUrls(self.account, self._account_key, servers_url)
        self._retries, self._sleep = retries, sleep
        self._signers: dict[str, Signer] = {}
        self._made: set[str] = set()  # uids whose container this object made

    def prepare(self) -> None:
        """Ask for the store's capabilities ahead of use. Raises `Unsupported` without TempURL."""
        self._urls.digests()

    def largest(self) -> int:
        """Return the maximum size of an object in bytes; 0 if the store does not say."""
        return int((self.account.capability("swift") or {}).get("max_file_size") or 0)

    # -- the container ---------------------------------------------------------------------------------

    def publish(self, uid: str, labels: Mapping[str, str], *, quota: bool = True) -> None:
        """Make the container of cluster ``uid``, or check that it exists and is ours, with its TempURL key.

        ``labels`` go into its metadata, for people; ``quota``: set its quota. Two processes may do this at once: the one whose PUT made
        the container sets the key, the other waits for it. Raises `StoreError` for somebody else's container of that name, which is
        left unchanged, and `Unsupported` without TempURL or a key that is honoured.
        """
        self._urls.digests()  # without TempURL, make nothing
        if self.account.is_swift():
            self._make(uid, labels, quota)
        else:
            # Only Swift is known, in every release, to answer differently to a PUT of an existing container.
            if not self._head(uid):
                self._make(uid, labels, quota)
            self._await_marker(uid, labels, quota)
            self._signers[uid] = self._urls.settle(
                self._signers[uid],
                self._name(uid),
                note=lambda headers: self._note(uid, headers),
                give_back=self._give_back_account_key,
            )

    def _make(self, uid: str, labels: Mapping[str, str], quota: bool) -> None:
        name = self._name(uid)
        answer: dict[str, Any] = {}
        tries = 0

        def put(*args: Any, **kwargs: Any) -> None:
            nonlocal tries
            tries += 1
            swift.put_container(*args, **kwargs)

        # Without headers, which would change an existing container.
        self._call(f"Can't make container {name}", put, name, response_dict=answer)
        if answer.get("status") == 201:
            self._made.add(uid)
            self._mark(uid, labels, quota)
        else:
            if tries > 1 and self._is_bare(uid):  # an earlier attempt of ours made it, and its answer was lost
                self._made.add(uid)
                self._mark(uid, labels, quota)
            self._await_marker(uid, labels, quota)

    def _mark(self, uid: str, labels: Mapping[str, str], quota: bool) -> None:
        headers = {MARKER: uid, KEY: secrets.token_hex(32)}
        if quota and self.account.capability("container_quotas") is not None:
            headers |= QUOTA
        for label, value in labels.items():
            headers[f"{MARKER}-{re.sub('[^A-Za-z0-9]', '-', label)}"] = _header(value)
        self._note(uid, headers)
        self._signers[uid] = Signer(headers[KEY], self._urls.digests()[0])

    def _note(self, uid: str, headers: Mapping[str, str]) -> None:
        self._call(f"Can't mark container {self._name(uid)}", swift.post_container, self._name(uid), headers)

    def _is_bare(self, uid: str) -> bool:
        """Return whether the container is empty and nobody marks it within a second."""
        for _ in range(2):
            if MARKER in self._head(uid) or self.objects(uid):
                return False
            self._sleep(0.5)
        return True

    def _await_marker(self, uid: str, labels: Mapping[str, str], quota: bool) -> None:
        """Wait for the process that made the container to mark it; if that process was killed, mark it here."""
        for _ in range(MARKER_WAIT * 2 + 4):
            found = self._head(uid)
            if found.get(MARKER) == uid and found.get(KEY):
                self._signers[uid] = self._urls.signer_of(found)
                return
            made_at = _made_at(found)
            if made_at is not None and made_at + MARKER_WAIT < self.account.now():
                self._mark(uid, labels, quota)  # then checked again: another process may do the same now
            elif found.get(MARKER, uid) != uid:
                break
            self._sleep(0.5)
        raise self._foreign(uid)

    def delete_container(self, uid: str) -> bool:
        """Delete the container and everything in it; return whether it is gone: False if something remains in it.

        A container without our marker is left alone, unless it is empty: then its process was killed before it could mark it.
        """
        found = self._head(uid)
        if not found:
            return True
        if found.get(MARKER) != uid:
            if MARKER in found or not self._delete_container(uid, found):
                logger.warning("%s", self._foreign(uid))
            return True
        for attempt in range(self._retries + 1):
            self.delete_prefix(uid, "")
            if self._delete_container(uid, found):
                return True
            if attempt == 0:
                # Something was written in the meantime, perhaps by an agent: invalidate all URLs, then try again.
                what = f"Can't invalidate the URLs of container {self._name(uid)}"
                self._call(what, swift.post_container, self._name(uid), {NO_KEY: "x"})
            self._sleep(backoff(attempt))
        logger.warning("container %s is still there: something in it can't be deleted", self._name(uid))
        return False

    def remove_if_empty(self, uid: str) -> bool:
        """Delete the container if it is ours and empty; return whether it is gone.

        One without a marker is ours if this object made it: then marking it failed.
        """
        found = self._head(uid)
        if not found:
            return True
        ours = found.get(MARKER) == uid or (uid in self._made and MARKER not in found)
        return ours and self._delete_container(uid, found)

    def labels(self, uid: str) -> dict[str, str]:
        """Return the labels that `publish` wrote; empty for a container that is not ours."""
        found = self._head(uid)
        if found.get(MARKER) != uid:
            return {}
        return {name.removeprefix(f"{MARKER}-"): text for name, text in found.items() if name.startswith(f"{MARKER}-")}

    def made_at(self, uid: str) -> float | None:
        """Return when the container was made, in seconds since 1970, if it is empty and unmarked: its process was killed just after making it.
        None for any other."""
        return _made_at(self._head(uid))

    def containers(self) -> list[str]:
        """Return the uids of all clusters that have a container with our prefix."""
        prefix = self._name("")
        found = self.account.listing("Can't list containers", swift.get_account, prefix=prefix)
        # Old releases of Ceph's gateway list all of them (before its pull request 12047, 2016).
        names = [str(entry["name"]) for entry in found]
        return [name.removeprefix(prefix) for name in names if name.startswith(prefix)]

    def _delete_container(self, uid: str, found: Mapping[str, str]) -> bool:
        """Delete the container; return whether it is gone: False if something is in it. ``found``: its headers.

        If it is the last one that needs the account's key, free that.
        """
        name = self._name(uid)
        try:
            self._call(f"Can't delete container {name}", swift.delete_container, name)
        except StoreError as error:
            if error.status == 409:
                return False
            if error.status != 404:
                raise
        self._signers.pop(uid, None)
        if is_signed_by_account(found):
            self._give_back_account_key()
        return True

    def _head(self, uid: str) -> dict[str, str]:
        """Return the container's headers, in lower case; empty if there is none."""
        name = self._name(uid)
        try:
            found = self._call(f"Can't read container {name}", swift.head_container, name)
        except StoreError as error:
            if error.status == 404:
                return {}
            raise
        return {str(key).lower(): str(value) for key, value in found.items()}

    # -- objects ---------------------------------------------------------------------------------------

    def put(self, uid: str, name: str, data: bytes) -> None:
        """Write an object, replacing an existing one."""
        container = self._name(uid)
        what = f"Can't write object {container}/{name}"
        self._call(what, swift.put_object, container, name, contents=data, content_length=len(data))

    def get(self, uid: str, name: str, limit: int = 1 << 20) -> bytes:
        """Return the first ``limit`` bytes of an object. Raises `StoreError` with ``status`` 404 if there is none."""
        return self.account.get_object(self._name(uid), name, limit)

    def head(self, uid: str, name: str) -> dict[str, str] | None:
        """Return the headers of an object, with names in lower case; None if there is none. One request, not a listing, which may be outdated."""
        try:
            found = self._call(f"Can't read {name}", swift.head_object, self._name(uid), name)
        except StoreError as error:
            if error.status == 404:
                return None
            raise
        return {str(key).lower(): str(value) for key, value in found.items()}

    def upload(
        self, uid: str, name: str, reader: Callable[[], AbstractContextManager[Any]], headers: Mapping[str, str]
    ) -> None:
        """Write an object from the stream that ``reader`` opens for each attempt. ``headers``: for instance a checksum, or the condition that it
        does not exist yet."""

        def put(*args: Any, **kwargs: Any) -> None:
            with reader() as contents:
                swift.put_object(*args, contents=contents, headers=headers, **kwargs)

        self._call(f"Can't store {name}", put, self._name(uid), name)

    def download(
        self, uid: str, name: str, receive: Callable[[Mapping[str, str], Iterable[bytes]], None], block: int = 1 << 20
    ) -> None:
        """Call ``receive`` with the headers of an object and an iterable of its content; call it again for each retry.

        Raises what ``receive`` raises, except ValueError, which counts as a truncated answer and is retried.
        """

        def get(*args: Any, **kwargs: Any) -> None:
            headers, body = swift.get_object(*args, resp_chunk_size=block, **kwargs)
            with contextlib.closing(body):
                receive(headers, body)

        self._call(f"Can't fetch {name}", get, self._name(uid), name)

    def objects(self, uid: str, prefix: str = "", **how: Any) -> list[StoredObject]:
        """Return the objects in the container, by name, up to `account.MOST_LISTED`. One request per 10,000; none if there is no container.

        ``how``: further arguments of `Account.listing`.
        """
        name = self._name(uid)
        what = f"Can't list container {name}"
        try:
            found = self.account.listing(what, swift.get_container, name, prefix=prefix, **how)
        except StoreError as error:
            if error.status == 404:
                return []
            raise
        return [
            StoredObject(
                str(entry["name"]),
                int(entry.get("bytes") or 0),
                str(entry.get("last_modified") or ""),
                str(entry.get("hash") or ""),
            )
            for entry in found
        ]

    def delete_prefix(self, uid: str, prefix: str) -> None:
        """Delete all objects whose names start with ``prefix``, however many. Idempotent."""
        for _ in range(ROUNDS):
            names = [stored.name for stored in self.objects(uid, prefix)]
            self.delete_objects(uid, names)
            if len(names) < MOST_LISTED:
                return

    def delete_objects(self, uid: str, names: list[str]) -> None:
        """Delete these objects. Idempotent."""
        self.account.delete_objects(self._name(uid), names)

    # -- reports ---------------------------------------------------------------------------------------

    def reports(self, uid: str, engine_set: str = "", *, logs: bool = False) -> list[Report]:
        """Return all reports of an engine set's agents, or of all sets, by place and age. ONE listing, no content.

        Only those of phases; with ``logs`` also those with nothing but engines' output. Their numbers give the order of phases. If each
        phase has a fixed name (`report_urls`), which is overwritten, only the store's times do.

        A server that writes thousands hides only its own.
        """
        stored = self.objects(uid, engine_set and f"{engine_set}/", go_on=_past_a_flood)
        found = (Report.parse(one.name, one.last_modified) for one in stored)
        reports = [report for report in found if report is not None and (logs or report.phase != LOG)]
        numbered = not reports or self.account.is_swift()

        def rank(report: Report) -> tuple[object, ...]:
            age = (report.sequence,) if numbered else (report.written, report.sequence)
            return report.place, *age, report.phase

        return sorted(reports, key=rank)

    def read_report(self, uid: str, report: Report) -> dict[str, Any]:
        """Return what a report says, as `reports.content` has it; empty if it is gone."""
        try:
            return content(self.get(uid, report.name, REPORT_LIMIT))
        except StoreError as error:
            if error.status != 404:
                raise
            return {}

    def expiry(self, seconds: float) -> int:
        """Return so many seconds from now, as seconds since 1970 by the store's clock, which agents can read, too."""
        return self._urls.expiry(seconds)

    # -- URLs for servers ------------------------------------------------------------------------------

    def get_url(self, uid: str, name: str, seconds: float) -> str:
        """Return a URL with which anybody can GET the object, for so many seconds from now by the store's clock."""
        return self._url(uid, name, "GET", seconds)

    def put_url(self, uid: str, name: str, seconds: float) -> str:
        """Return a URL with which anybody can PUT the object, and check whether it exists."""
        return self._url(uid, name, "PUT", seconds)

    def put_urls(self, uid: str, prefix: str, seconds: float) -> tuple[str, str] | None:
        """Return the start and the query of URLs to PUT objects below ``prefix`` (which ends in ``/``); None if the store does not have such URLs."""
        if not self.account.is_swift():
            return None
        return self._urls.of_prefix(self._signer(uid), self._name(uid), prefix, "PUT", self._urls.expiry(seconds))

    def _url(self, uid: str, name: str, method: str, seconds: float) -> str:
        expires = self._urls.expiry(seconds)
        return self._urls.of_object(self._signer(uid), self._name(uid), name, method, expires)

    def report_urls(self, uid: str, prefix: str, seconds: float, more: Iterable[str] = ()) -> dict[str, Any]:
        """Return URLs with which an agent can PUT its reports below ``prefix`` (which ends in ``/``), and do nothing else.

        ``{"prefix": ..., "query": ...}``: any URL of the form prefix, name, ``?``, query. If the store has no prefix-scoped URLs,
        ``{"urls": {phase: url}}``: a fixed name for each phase, and for each name in ``more``.
        """
        if scoped := self.put_urls(uid, prefix, seconds):
            return dict(zip(("prefix", "query"), scoped, strict=True))
        names = {kind: f"{prefix}{number:04d}-{kind}" for number, kind in enumerate(KINDS)}
        names |= {name: f"{prefix}{name}" for name in more}
        return {"urls": {kind: self.put_url(uid, name, seconds) for kind, name in names.items()}}

    def _signer(self, uid: str) -> Signer:
        if uid not in self._signers:
            found = self._head(uid)
            if not found:
                raise StoreError(f"There is no container {self._name(uid)}.", status=404)
            if found.get(MARKER) != uid or not found.get(KEY):
                raise self._foreign(uid)
            self._signers[uid] = self._urls.signer_of(found)
        return self._signers[uid]

    def _give_back_account_key(self) -> None:
        """Free the account's slot if no container of ours needs it. A failure is only logged: the next cluster uses the key."""
        try:
            self._account_key.give_back(lambda: any(self._needs_account_key(uid) for uid in self.containers()))
        except CloudError as error:
            logger.warning("a TempURL key stays in the object store's account, for the next cluster: %s", error)

    def _needs_account_key(self, uid: str) -> bool:
        found = self._head(uid)
        return found.get(MARKER) == uid and is_signed_by_account(found)

    def _foreign(self, uid: str) -> StoreError:
        return StoreError(
            f"Container {self._name(uid)} exists, but does not belong to this cluster: it has no "
            f"{MARKER.title()} marker of this cluster, or no TempURL key that these credentials see. Delete it if "
            "nobody needs it."
        )

    def _name(self, uid: str) -> str:
        return container_name(uid, self._prefix)

    def _call(self, what: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.account.call(what, function, *args, **kwargs)


def _made_at(found: Mapping[str, str]) -> float | None:
    """See `Store.made_at`. ``found``: the container's headers."""
    if MARKER in found or found.get("x-container-object-count") != "0":
        return None
    try:
        return float(found["x-timestamp"])
    except (KeyError, ValueError):
        return None


def _past_a_flood(found: list[dict[str, Any]]) -> str:
    """Return the name after which a listing of reports continues: the last one, or, if its server has very many, all names of that server.

    ``0`` is the character after ``/``: everything that starts with ``set/3.0/`` sorts before ``set/3.00``.
    """
    last = str(found[-1]["name"])
    server = re.match("[^/]+/[^/]+(?=/)", last)
    many = server and sum(str(entry["name"]).startswith(f"{server[0]}/") for entry in found) >= REPORTS_LISTED
    return f"{server[0]}0" if server and many else last


def _header(value: str) -> str:
    """Return ``value`` in a form for a metadata header: one line, at most 256 bytes of UTF-8."""
    return one_line(value).encode()[:256].decode(errors="ignore")
