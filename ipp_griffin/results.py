"""`Results`: what runs leave behind, in a container of the object store that outlives their clusters. Blocking.

All results of a project are in the container ``ipp-griffin-results``: those of a cluster below its uid, such as
``85b7916ade4a/table.csv``, others by their plain names. API: https://docs.openstack.org/api-ref/object-store/
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import swiftclient.client as swift

from . import uploader
from .calls import one_line
from .plan import SettingError
from .settings import GriffinCloud, connect, open_store
from .store import PREFIX, StoreError, container_name
from .uploader import Content, LocalFault, Uploader, local

NAME = "results"  # where a cluster's container has the uid, which it is none of
DAY = 86400


@dataclass(frozen=True)
class Result:
    """One stored file. ``cluster``: the uid of the cluster that it is of, "" for none; ``modified``: ISO 8601 in UTC."""

    name: str
    bytes: int
    modified: str
    md5: str = ""

    @property
    def cluster(self) -> str:
        head, slash, _ = self.name.partition("/")
        return head if slash and re.fullmatch("[0-9a-f]{12}", head) else ""


class Results:
    """The results of ``cluster``, an `ipyparallel.Cluster` with griffin's launchers or a cluster's uid; or of the whole project.

    ``cloud`` (its name in clouds.yaml), ``region``, ``container`` (first part of the names of containers) and ``store_url`` (how
    engines reach the object store, where that differs) are those of `GriffinCloud`; an `ipyparallel.Cluster` knows its own.

    Every method raises `GriffinError`: `SettingError` for a name that is taken, or not there, `StoreError` and `CloudError` for what
    the cloud refuses. What is wrong with a file of this machine is an `OSError`.
    """

    def __init__(
        self, cluster: Any = None, *, cloud: str = "", region: str = "", container: str = PREFIX, store_url: str = ""
    ) -> None:
        launcher = None if cluster is None or isinstance(cluster, str) else _launcher_of(cluster)
        if launcher is None:
            self.uid = cluster or ""
            if self.uid and not re.fullmatch("[0-9a-f]{12}", self.uid):
                raise SettingError(f"{cluster!r} is no cluster's uid: `ipp-griffin ps` shows them.")
            settings = GriffinCloud(cloud=cloud, region=region, container=container, store_url=store_url)
            self._cloud = connect(None, settings.cloud_name(), region)
        else:
            self.uid, container = launcher.uid, launcher.container
            settings = GriffinCloud(parent=launcher)
            self._cloud = launcher.connect()
        settings.check()
        self._ca_certificates = settings.ca_text(self._cloud.ca_file())
        self._store = open_store(self._cloud, container=container, servers_url=settings.store_url)
        self._container = container_name(NAME, container)

    def all(self) -> list[Result]:
        """What there is, by name: of the cluster, or of the project. One request per 10,000."""
        found = self._store.objects(NAME, f"{self.uid}/" if self.uid else "")
        return [Result(one.name, one.bytes, one.last_modified, one.hash) for one in found]

    def put(self, what: uploader.What, name: str = "", *, overwrite: bool = False) -> str:
        """Store bytes, or the file at a path, whose own name is the default; returns the name of the result.

        The store takes it whole or not at all: its checksum goes with it.
        """
        try:
            content = Content(what)
            return self._put(content, self._full(name or content.name), overwrite)
        except LocalFault as fault:
            raise fault.error from None

    def _put(self, content: Content, name: str, overwrite: bool) -> str:
        largest = self._largest()
        if largest and content.size > largest:
            raise SettingError(
                f"{content.path or name} has {content.size} bytes; this object store takes {largest} in one object. Split it, or "
                "store it in segments, by `swift upload --segment-size`."
            )
        digest = content.measure()
        self._store.publish(NAME, {}, quota=False)
        if not overwrite and self._at(name):
            raise _taken(name)
        headers = {"Content-Type": "application/octet-stream", **({} if overwrite else {"If-None-Match": "*"})}

        def put(*args: Any, **kwargs: Any) -> None:
            with content.reader() as reader:
                how = {"content_length": content.size, "etag": digest, "headers": headers}
                swift.put_object(*args, contents=reader, **how, **kwargs)

        try:
            self._store.account.call(f"Can't store {name}", put, self._container, name)
        except StoreError as error:
            if error.status in (422, 499):
                raise uploader.changed(content.path or name) from None
            if error.status != 412:
                raise
            # Somebody was faster; or the answer to a try of ours was lost.
            found = self._at(name)
            if found is None or found.md5 != digest:
                raise _taken(name) from None
        return name

    def get(self, name: str, path: str | os.PathLike[str] = "", *, overwrite: bool = False) -> Path:
        """Fetch a result into a file, by default one of its own name in the working directory; returns the file's path.

        ``name``: as `all` has it; without the uid where only one cluster has a result of that name. The file appears
        when all of it has come and its checksum is right.
        """
        found = self.find(name)
        target = Path(path or Path(found.name).name)
        if target.is_dir():
            target = target / Path(found.name).name
        if target.exists() and not overwrite:
            raise SettingError(f"There is a file {target} already: give another name for it, or say to overwrite it.")
        try:
            with _appearing(target) as file:
                self._fetch(found, file, target)
        except LocalFault as fault:
            raise fault.error from None
        return target

    def read(self, name: str) -> bytes:
        """The content of a result; ``name`` as for `get`."""
        file = BytesIO()
        self._fetch(self.find(name), file)
        return file.getvalue()

    def delete(self, name: str) -> None:
        """Delete a result; ``name`` as for `get`."""
        self._store.delete_objects(NAME, [self.find(name).name])

    def find(self, name: str) -> Result:
        """The result of this name; without the uid where only one cluster has one. Raises `SettingError`."""
        found = self.all()
        hits = [one for one in found if one.name in (name, self._full(name))] or [
            one for one in found if one.cluster and one.name.partition("/")[2] == name
        ]
        if len(hits) == 1:
            return hits[0]
        names = ", ".join(one_line(one.name, 100) for one in (hits or found)[:20]) or "none"
        if hits:
            raise SettingError(f"Several results are called {name!r}: say which: {names}.")
        raise SettingError(f"There is no result {name!r}. There is: {names}{', ...' if len(found) > 20 else ''}.")

    def uploader(self, name: str = "", *, seconds: float = DAY) -> Uploader:
        """A function for engines, which need no credential for it: see `Uploader`. It can be pickled, sent and pushed.

        It holds a URL that stores results of this cluster for so many seconds, by the store's clock, and opens nothing else:
        keep it as you would keep the cluster's connection file. ``name``: store this one result only, which is all that
        stores without URLs for a whole prefix (Ceph's gateway) can do.
        """
        if not self.uid:
            raise SettingError("Say which cluster the results are of: Results(cluster).uploader().")
        if name:
            uploader.check_name(name)
        self._store.publish(NAME, {}, quota=False)
        if name:
            start, _, query = self._store.put_url(NAME, self._full(name), seconds).partition("?")
        else:
            scoped = self._store.put_urls(NAME, f"{self.uid}/", seconds)
            if scoped is None:
                raise SettingError(
                    "This object store has no URLs for more than one object (Ceph's gateway has none): give each result an "
                    'uploader of its own, Results(cluster).uploader("table.csv").'
                )
            start, query = scoped
        source = Path(uploader.__file__).read_text(encoding="utf-8")
        return Uploader(start, query, self.uid, name, self._largest(), self._ca_certificates, source)

    def _full(self, name: str) -> str:
        """The name in the container. Raises `SettingError` for one that can't be a result's."""
        try:
            uploader.check_name(name)
        except ValueError as error:
            raise SettingError(str(error)) from None
        return f"{self.uid}/{name}" if self.uid and not name.startswith(f"{self.uid}/") else name

    def _largest(self) -> int:
        """The most bytes that one object may have; 0 where the store does not say."""
        return int((self._store.account.capability("swift") or {}).get("max_file_size") or 0)

    def _at(self, name: str) -> Result | None:
        found = (one for one in self._store.objects(NAME, name) if one.name == name)
        return next((Result(one.name, one.bytes, one.last_modified, one.hash) for one in found), None)

    def _fetch(self, result: Result, file: IO[bytes], where: object = "memory") -> None:
        """Write all of the result into ``file``, from its beginning. Raises `LocalFault` for what is wrong ``where`` that is."""

        def fetch(*args: Any, **kwargs: Any) -> None:
            digest, size = hashlib.new("md5", usedforsecurity=False), 0
            with local(where):
                file.seek(0)
            headers, body = swift.get_object(*args, resp_chunk_size=1 << 20, **kwargs)
            with contextlib.closing(body):
                for block in body:
                    with local(where):
                        file.write(block)
                    digest.update(block)
                    size += len(block)
            with local(where):
                file.truncate()
                file.flush()
            etag = headers.get("etag", "").strip('"')
            # That of a result in segments (`swift upload --segment-size`) is none of its content.
            segments = "x-static-large-object" in headers or "x-object-manifest" in headers
            known = re.fullmatch("[0-9a-f]{32}", etag) and not segments
            if size != int(headers.get("content-length", size)) or (known and etag != digest.hexdigest()):
                raise ValueError("less came than there is, or something else")

        self._store.account.call(f"Can't fetch {result.name}", fetch, self._container, result.name)


def _launcher_of(cluster: Any) -> Any:
    """The launcher of an `ipyparallel.Cluster` that knows where it is. Raises `SettingError` where there is none."""
    launchers = [getattr(cluster, "controller", None), *(getattr(cluster, "engines", None) or {}).values()]
    for launcher in launchers:
        if getattr(launcher, "uid", ""):
            return launcher
    raise SettingError("This cluster has nothing on a cloud: start it first, with griffin's launchers.")


def _taken(name: str) -> SettingError:
    return SettingError(f"There is a result {name} already: give another name, or say to overwrite it.")


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[IO[bytes]]:
    """A file that becomes ``target`` when all went well, and is removed otherwise. Raises `LocalFault`."""
    part = target.with_name(f".ipp-griffin-{secrets.token_hex(4)}.part")  # whatever is a long name for this folder
    try:
        with local(target):
            file = part.open("xb")
        with file:
            yield file
        with local(target):
            part.replace(target)
    finally:
        part.unlink(missing_ok=True)
