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
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from ..agent import uploader
from ..agent.uploader import Content, LocalFault, Uploader, local
from ..cloud.shared import connect, open_store
from ..common.errors import SettingError, StoreError
from ..common.text import typed
from ..common.times import iso, timestamp
from ..launchers.cloud_settings import GriffinCloud
from ..model.names import PREFIX

NAME = "results"  # in place of the uid in a cluster's container's name; it is not a valid uid
DAY = 86400
UID = "[0-9a-f]{12}"  # a cluster's uid


@dataclass(frozen=True)
class Result:
    """One stored file. ``cluster``: the uid of the cluster that it belongs to, "" for none; ``bytes``: its size; ``modified``: ISO 8601, in
    UTC; ``md5``: of its content, in hexadecimal, "" if unknown.

    ``name`` is exact. The holder of an uploader may have chosen it, so it may contain anything.
    """

    name: str
    bytes: int
    modified: str
    md5: str = ""

    @property
    def cluster(self) -> str:
        head, slash, _ = self.name.partition("/")
        return head if slash and re.fullmatch(UID, head) else ""


class Results:
    """The results of ``cluster``, an `ipyparallel.Cluster` with griffin's launchers or a cluster's uid; or of the whole project.

    ``cloud`` (its name in clouds.yaml), ``region``, ``container`` (first part of the names of containers) and ``store_url`` (how
    engines reach the object store, if that differs) are those of `GriffinCloud`; an `ipyparallel.Cluster` knows its own.

    Every method raises `GriffinError`: `SettingError` for a name that is taken or does not exist, `StoreError` and `CloudError` for
    what the cloud refuses. Problems with a file of this machine raise `OSError`; a wrong type raises `TypeError`.
    """

    def __init__(
        self, cluster: Any = None, *, cloud: str = "", region: str = "", container: str = PREFIX, store_url: str = ""
    ) -> None:
        launcher = None if cluster is None or isinstance(cluster, str) else _launcher_of(cluster)
        if launcher is None:
            self.uid = cluster or ""
            if cluster is not None and not re.fullmatch(UID, self.uid):
                raise SettingError(f"{cluster!r} is not the uid of a cluster. `ipp-griffin ps` shows them.")
            settings = GriffinCloud(cloud=cloud, region=region, container=container, store_url=store_url)
            self._cloud = connect(None, settings.cloud_name(), region)
        else:
            self.uid, container = launcher.uid, launcher.container
            settings = GriffinCloud(parent=launcher)
            self._cloud = launcher.connect()
        settings.check()
        self._ca_certificates = settings.ca_text(self._cloud.ca_file())
        self._store = open_store(self._cloud, container=container, servers_url=settings.store_url)

    def all(self) -> list[Result]:
        """Return the results of the cluster, or of the project, by name. One request per 10,000."""
        return self._listed(f"{self.uid}/" if self.uid else "")

    def put(self, what: uploader.What, name: str = "", *, overwrite: bool = False) -> str:
        """Store bytes, or the file at a path, and return the name of the result. Default: the name of the file.

        The store takes it whole or not at all: its checksum goes with it.
        """
        try:
            content = Content(what)
            return self._put(content, self._full(name or content.name), overwrite)
        except uploader.TooLarge as error:
            raise SettingError(str(error)) from None
        except LocalFault as fault:
            raise fault.error from None

    def _put(self, content: Content, name: str, overwrite: bool) -> str:
        headers = content.prepare(self._store.largest(), overwrite)
        self._store.publish(NAME, {}, quota=False)
        if not overwrite and self._at(name):
            raise _taken(name)
        try:
            self._store.upload(NAME, name, content.reader, headers)
        except StoreError as error:
            if error.status in (422, 499):
                raise uploader.changed(content.path or name) from None
            if error.status != 412:
                raise
            # Somebody was faster, or the answer to an earlier attempt was lost.
            found = self._at(name)
            if found is None or found.md5 != content.digest:
                raise _taken(name) from None
        return name

    def get(self, name: str, path: str | os.PathLike[str] = "", *, overwrite: bool = False) -> Path:
        """Fetch a result into a file, by default one of its name in the working directory, and return the file's path.

        ``name``: as in `all`; without the uid if only one cluster has a result of that name. ``path``: of a file, or of an existing
        folder. The file appears when it is complete and its checksum is right. ``overwrite``: replace an existing file, and keep its
        permissions.
        """
        found = self.find(name)
        target = _target(os.fspath(path), found.name, overwrite)
        try:
            with _appearing(target, overwrite) as file:
                self._fetch(found, file, target)
        except LocalFault as fault:
            raise fault.error from None
        return target

    def read(self, name: str) -> bytes:
        """Return the content of a result; ``name`` as for `get`."""
        file = BytesIO()
        self._fetch(self.find(name), file)
        return file.getvalue()

    def delete(self, *names: str | Result) -> None:
        """Delete results: those that `all` or `find` returned, or names as for `get`, all of which must exist."""
        self._store.delete_objects(
            NAME, [one.name if isinstance(one, Result) else self.find(one).name for one in names]
        )

    def find(self, name: str) -> Result:
        """Return the result of this name; without the uid if only one cluster has one. Raises `SettingError`."""
        if not isinstance(name, str):
            raise TypeError(f"The name of a result is text, not {type(name).__name__}.")
        if any("\ud800" <= character <= "\udfff" for character in name):
            raise SettingError(f"{name!r} can't be the name of a result: it is not UTF-8.")
        full = name if not self.uid or name.startswith(f"{self.uid}/") else f"{self.uid}/{name}"
        if name and (exact := self._at(full)):
            return exact
        found = self.all()
        hits = [one for one in found if one.cluster and one.name.partition("/")[2] == name]
        if len(hits) == 1:
            return hits[0]
        names = ", ".join(typed(one.name) for one in (hits or found)[:20]) or "none"
        more = ", ..." if len(hits or found) > 20 else ""
        if hits:
            raise SettingError(f"Several results are called {name!r}. Name one of them: {names}{more}.")
        raise SettingError(f"There is no result {name!r}{self._of()}. Existing results: {names}{more}.")

    def uploader(self, name: str = "", *, seconds: float = DAY) -> Uploader:
        """Return a function with which engines store results without a credential: see `Uploader`. It can be pickled, sent and pushed.

        It holds a URL that for so many seconds, by the store's clock, stores results of this cluster, and opens nothing else. Keep it
        as secret as the cluster's connection file. ``name``: store only this one result; necessary for stores without URLs for a whole
        prefix (Ceph's gateway).
        """
        if not self.uid:
            raise SettingError("Name the cluster that the results belong to: Results(cluster).uploader().")
        if not isinstance(seconds, (int, float)) or seconds is True or not 0 < seconds < 100 * 365 * DAY:
            raise SettingError(
                f"An uploader can't be good for {seconds!r} seconds: give a number, such as 86400 for a day."
            )
        full = self._full(name) if name else ""
        self._store.publish(NAME, {}, quota=False)
        if full:
            start, _, query = self._store.put_url(NAME, full, seconds).partition("?")
        else:
            scoped = self._store.put_urls(NAME, f"{self.uid}/", seconds)
            if scoped is None:
                raise SettingError(
                    "This object store has no URLs for more than one object (Ceph's gateway has none). Give each "
                    'result its own uploader: Results(cluster).uploader("table.csv").'
                )
            start, query = scoped
        source = Path(uploader.__file__).read_text(encoding="utf-8")
        return Uploader(
            start, query, self.uid, full[len(self.uid) + 1 :], self._store.largest(), self._ca_certificates, source
        )

    def _full(self, name: str) -> str:
        """Return the name in the container. Raises `SettingError` for one that a new result can't have."""
        try:
            name = uploader.check_name(name, self.uid)
        except ValueError as error:
            raise SettingError(str(error)) from None
        return f"{self.uid}/{name}" if self.uid else name

    def _of(self) -> str:
        """Return " of cluster ..." for errors, "" for the whole project."""
        return f" of cluster {self.uid}" if self.uid else ""

    def _listed(self, prefix: str) -> list[Result]:
        found = self._store.objects(NAME, prefix)
        return [Result(one.name, one.bytes, _in_utc(one.last_modified), one.hash) for one in found]

    def _at(self, name: str) -> Result | None:
        """Return the result of exactly this name in the container. One request, not a listing, which may be outdated."""
        if not _is_plain(name):
            return next((one for one in self._listed(name) if one.name == name), None)
        found = self._store.head(NAME, name)
        if found is None:
            return None
        return Result(name, int(found.get("content-length") or 0), _modified(found), _md5(found))

    def _fetch(self, result: Result, file: IO[bytes], where: object = "memory") -> None:
        """Write all of the result into ``file``, from its beginning. Raises `LocalFault` for a problem with the file, named ``where``."""

        def receive(headers: Mapping[str, str], body: Iterable[bytes]) -> None:
            digest, size = hashlib.new("md5", usedforsecurity=False), 0
            with local(where):
                file.seek(0)
            for block in body:
                with local(where):
                    file.write(block)
                digest.update(block)
                size += len(block)
            with local(where):
                file.truncate()
                file.flush()
            md5 = _md5(headers) if _is_plain(result.name) else result.md5
            if size != int(headers.get("content-length", size)) or md5 not in ("", digest.hexdigest()):
                raise ValueError("the content is incomplete, or damaged")

        self._store.download(NAME, result.name, receive)


def _launcher_of(cluster: Any) -> Any:
    """Return a launcher of an `ipyparallel.Cluster` that has something on a cloud. Raises `SettingError` if there is none."""
    launchers = [getattr(cluster, "controller", None), *(getattr(cluster, "engines", None) or {}).values()]
    for launcher in launchers:
        if getattr(launcher, "uid", ""):
            return launcher
    raise SettingError("This cluster has nothing on a cloud. Start it first, with griffin's launchers.")


def _taken(name: str) -> SettingError:
    return SettingError(
        f"There is a result {name} already. Give another name, or overwrite it (--overwrite; in "
        "Python, overwrite=True)."
    )


def _is_plain(name: str) -> bool:
    """Return whether a URL with this name reaches the object: some programs on the way resolve ``..`` and ``.``."""
    return not {".", ".."} & set(name.split("/"))


def _md5(headers: Mapping[str, str]) -> str:
    """Return the MD5 of an object's content; "" if its ETag is something else, as for an object in segments (`swift upload --segment-size`)."""
    etag = headers.get("etag", "").strip('"')
    segments = "x-static-large-object" in headers or "x-object-manifest" in headers
    return etag if re.fullmatch("[0-9a-f]{32}", etag) and not segments else ""


def _modified(headers: Mapping[str, str]) -> str:
    try:
        return iso(float(headers["x-timestamp"]))
    except (KeyError, ValueError):
        return ""


def _in_utc(listed: str) -> str:
    """Return a listing's time, which has no zone, in UTC."""
    when = timestamp(listed)
    return iso(when) if when else ""


def _target(path: str, name: str, overwrite: bool) -> Path:
    """Return the file to fetch the result ``name`` into. Raises `SettingError` if it is invalid, or exists already.

    The file is named after the last part of ``name`` only if that is a valid name of a result: somebody else may have chosen it.
    """
    target = Path(path)
    if not path or target.is_dir():
        try:
            target = target / uploader.check_name(name.rpartition("/")[2])
        except ValueError:
            raise SettingError(f"{typed(name)} does not end in a valid file name. Name the file to write.") from None
    elif path.endswith("/"):
        raise SettingError(f"There is no folder {path}. Create it first.")
    if not target.parent.is_dir():
        raise SettingError(f"There is no folder {target.parent}. Create it first.")
    if len(os.fsencode(target.name)) > os.pathconf(target.parent, "PC_NAME_MAX"):
        raise SettingError(f"{typed(target.name)} is too long for a file name. Name the file to write.")
    if os.path.lexists(target):
        if not target.is_file():
            raise SettingError(f"{target} is not a regular file. Give another name.")
        if not overwrite:
            raise _there(target)
    return target


def _there(target: Path) -> SettingError:
    return SettingError(
        f"There is a file {target} already. Give another file name, or overwrite it (--overwrite; "
        "in Python, overwrite=True)."
    )


@contextlib.contextmanager
def _appearing(target: Path, overwrite: bool) -> Iterator[IO[bytes]]:
    """Open a file that becomes ``target`` (or the target of that link) on success, and is removed otherwise. Raises `LocalFault`."""
    real = Path(os.path.realpath(target))
    part = real.with_name(f".ipp-griffin-{secrets.token_hex(4)}.part")  # a short name, which fits any file system
    try:
        with local(target):
            file = part.open("xb")
        with file:
            yield file
        with local(target):
            if real.exists():
                if not overwrite:  # it appeared in the meantime
                    raise _there(target)
                shutil.copymode(real, part)
            part.replace(real)
    finally:
        part.unlink(missing_ok=True)
