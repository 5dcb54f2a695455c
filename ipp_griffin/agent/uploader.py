"""`Uploader`: a function that stores one run's output from wherever it is sent, without a credential.

Its source travels with it, since engines have no ipp_griffin: standard library only, one file, no import of this package, and any
Python from 3.9 on. API: https://docs.openstack.org/swift/latest/api/temporary_url_middleware.html
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import io
import os
import random
import ssl
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Union

# What unpickling evaluates where there is no ipp_griffin: the source, run in a namespace of its own, and its class.
_REBUILD = "[exec(source, namespace), namespace['Uploader'](source=source, **state)][-1]"
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
What = Union[bytes, bytearray, memoryview, str, "os.PathLike[str]"]  # noqa: UP007 - for Python 3.9, when it is evaluated


class Uploader:
    """``upload(what, name="")`` stores ``what`` as a result, and returns the name by which `Results.get` finds it.

    ``what``: bytes, or the path of a file, whose own name is the default of ``name``. The store takes it whole or not at all
    (its checksum goes with it), and replaces nothing unless ``overwrite`` says so. Repeated while the store is unavailable.

    Raises `FileExistsError` for a name that is taken, `PermissionError` once the URL has expired, `ValueError` for a name that is
    none, `TypeError` for what is neither bytes nor a path, and `OSError` for the rest, also for what is wrong with the file. Only what
    Python itself has: it must be unpickled where there is no ipp_griffin, too.

    It can be called, pickled, and sent to engines as an argument or by ``push``. Whoever has it may store results of this cluster
    until it expires, and read, list or delete none.
    """

    def __init__(
        self,
        start: str,
        query: str,
        folder: str,
        name: str = "",
        largest: int = 0,
        ca_certificates: str = "",
        source: str = "",
    ) -> None:
        # ``start``, the result's name, "?" and ``query`` are a URL; with a ``name``, the start has it, and no other can be stored.
        self._state: dict[str, Any] = {
            "start": start,
            "query": query,
            "folder": folder,
            "name": name,
            "largest": largest,
            "ca_certificates": ca_certificates,
        }
        self._source = source
        self._sleep = time.sleep

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, (_REBUILD, {"source": self._source, "state": self._state, "namespace": {"__name__": "uploader"}})

    def __repr__(self) -> str:
        return f"<Uploader of results {self._state['folder']}/{self._state['name'] or '...'}>"

    def __call__(
        self, what: What, name: str = "", overwrite: bool = False, timeout: float = 60, retries: int = 4
    ) -> str:
        """``timeout``: seconds without any answer; ``retries``: how often it is tried again, with pauses of 0.5 s, 1 s, 2 s, ..."""
        if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
            raise ValueError(f"retries: a whole number, 0 or more, not {retries!r}.")
        if not isinstance(timeout, (int, float)) or not timeout > 0:
            raise ValueError(f"timeout: a number of seconds, more than 0, not {timeout!r}.")
        try:
            content = Content(what)
            return self._put(
                content, self._checked(name or self._state["name"] or content.name), overwrite, timeout, retries
            )
        except LocalFault as fault:
            raise fault.error from None

    def _put(self, content: Content, name: str, overwrite: bool, timeout: float, retries: int) -> str:
        stored: str = self._state["folder"] + "/" + name
        headers = content.prepare(self._state["largest"], overwrite)
        for attempt in range(retries + 1):
            if attempt:
                self._sleep(2**attempt * random.uniform(0.25, 0.5))
            status, said = self._send("HEAD", name, {}, None, timeout)  # before gigabytes are on their way
            if status == 200 and not overwrite:
                if attempt and said == content.digest:  # the answer to the try before was lost
                    return stored
                raise _error(stored, 412, "")
            if status in (200, 404):
                with content.reader() as reader:
                    status, said = self._send("PUT", name, headers, reader, timeout)
            if status == 201:
                return stored
            if status not in (0, 412, *_TRANSIENT):
                break
        raise _error(stored, status, said)

    def _checked(self, name: str) -> str:
        name, fixed = check_name(name, self._state["folder"]), self._state["name"]
        if fixed and name not in (fixed, fixed.rpartition("/")[2]):
            raise ValueError(f"This uploader stores {fixed!r} only, not {name!r}.")
        return fixed or name

    def _send(
        self, method: str, name: str, headers: dict[str, str], content: Reader | None, timeout: float
    ) -> tuple[int, str]:
        """Return (HTTP status, ETag of the answer), or (0, why) where there was no answer. The URL is never shown: it opens the store."""
        state = self._state
        url = state["start"] + ("" if state["name"] else urllib.parse.quote(name)) + "?" + state["query"]
        context = ssl.create_default_context()
        if state["ca_certificates"]:
            context.load_verify_locations(cadata=state["ca_certificates"])
        request = urllib.request.Request(url, data=content, headers=headers, method=method)
        opener = urllib.request.build_opener(_Http(), _Https(context=context))
        try:
            with opener.open(request, timeout=timeout) as answer:
                answer.read()
                return answer.status, answer.headers.get("ETag", "").strip('"')
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.reason
        except (OSError, http.client.HTTPException) as error:
            return 0, str(getattr(error, "reason", "") or error or type(error).__name__)


class _HearsOut:
    """A connection on which the store may answer, and close, before it has all of a request: that it is over quota, say."""

    def request(self, *args: Any, **kwargs: Any) -> None:
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
        except (BrokenPipeError, ConnectionResetError):
            if getattr(self, "sock", None) is None:  # it was never connected
                raise


class _Connection(_HearsOut, http.client.HTTPConnection):
    pass


class _SecureConnection(_HearsOut, http.client.HTTPSConnection):
    pass


class _Http(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_Connection, request)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(_SecureConnection, request, context=self._context)  # type: ignore[attr-defined]


class LocalFault(Exception):  # noqa: N818 - a carrier
    """Carries the ``error`` of a file of this machine past libraries that take an `OSError` for one of their connection."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


@contextlib.contextmanager
def local(path: object) -> Iterator[None]:
    """Turn what the system refuses inside into a `LocalFault` about the file at ``path``."""
    try:
        yield
    except OSError as error:
        raise LocalFault(OSError(error.errno, error.strerror or str(error), str(path))) from None


class TooLarge(OSError):
    """A file has more bytes than the object store takes in one object."""


class Content:
    """What is to be stored: bytes, or a regular file of this machine. ``name``: the file's own, "" for bytes; ``digest``: see `prepare`.

    Raises `TypeError` for anything else, and `LocalFault` for a file that can't be read: at once, a pipe keeps nobody waiting.
    """

    def __init__(self, what: What) -> None:
        self.path: Path | None = None
        self._data = b""
        if isinstance(what, (bytes, bytearray, memoryview)):
            self._data = bytes(what)
        elif isinstance(what, (str, os.PathLike)):
            self.path = Path(what)
        else:
            raise TypeError(f"Give bytes, or the path of a file, to be stored, not {type(what).__name__}.")
        self.name = self.path.name if self.path else ""
        self.digest = ""
        with self._open() as file:
            self._size = os.fstat(file.fileno()).st_size if self.path else len(self._data)

    def prepare(self, largest: int, overwrite: bool) -> dict[str, str]:
        """Measure the content as it is now; return the headers to PUT it with. ``digest`` is its MD5 then, which stores call ETag.

        Raises `TooLarge` for more than ``largest`` bytes (0: any number will do) before it reads them.
        """
        if largest and self._size > largest:
            raise TooLarge(
                f"{self.path or 'This'} has {self._size} bytes; this object store takes {largest} in one object. Split it, or store "
                "it in segments, by `swift upload --segment-size`."
            )
        self._measure()
        headers = {"Content-Length": str(self._size), "ETag": self.digest, "Content-Type": "application/octet-stream"}
        return headers if overwrite else {**headers, "If-None-Match": "*"}

    def _measure(self) -> None:
        digest, size = hashlib.new("md5", usedforsecurity=False), 0
        with self._open() as file, local(self.path):
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
        self._size, self.digest = size, digest.hexdigest()

    @contextlib.contextmanager
    def reader(self) -> Iterator[Reader]:
        """Open what was measured, from its beginning, for one try."""
        with self._open() as file:
            yield Reader(file, self._size, self.path)

    def _open(self) -> IO[bytes]:
        if self.path is None:
            return io.BytesIO(self._data)
        with local(self.path):
            # Without O_NONBLOCK this would wait for somebody to write into a pipe of that name.
            file = open(self.path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK))  # noqa: SIM115
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file
            file.close()
            raise OSError(errno.EINVAL, "Not a regular file")


class Reader:
    """The next ``size`` bytes of an open file, for libraries that send what they read. Raises `LocalFault`, also for fewer:

    a server would wait minutes for the rest.
    """

    def __init__(self, file: IO[bytes], size: int, path: Path | None) -> None:
        self._file, self._left, self._path = file, size, path

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        with local(self._path):
            block = self._file.read(wanted)
        if wanted and not block:
            raise LocalFault(changed(self._path))
        self._left -= len(block)
        return block


def changed(what: object) -> OSError:
    """Return the error for a file that is not the same any more as when it was measured."""
    return OSError(f"{what} changed while it was read, or on its way: nothing is stored. Try again.")


def check_name(name: str, folder: str = "") -> str:
    """Return ``name``, if it can be one of a result, without the ``folder`` (a cluster's uid) that it may begin with.

    Raises `TypeError`, or `ValueError`: "..", say, would be another object's in a URL, and what can't be seen can't be typed.
    """
    if not isinstance(name, str):
        raise TypeError(f"The name of a result is text, not {type(name).__name__}.")
    name = name[len(folder) + 1 :] if folder and name.startswith(folder + "/") else name
    parts = name.split("/")
    if not name or {"", ".", ".."} & set(parts) or not name.isprintable() or len(name.encode()) > 900:
        raise ValueError(f'{name[:100]!r} can\'t be the name of a result: give it as "table.csv" or "run1/table.csv".')
    return name


def _error(stored: str, status: int, said: str) -> OSError:
    if status == 412:
        return FileExistsError(f"There is a result {stored} already. Add overwrite=True to replace it.")
    if status in (401, 403):
        return PermissionError(f"Can't store {stored}: this uploader has expired, or the results' container is gone.")
    if status in (413, 507):
        return OSError(
            f"Can't store {stored}: it is larger than the object store, or its quota, allows. Delete results that nobody needs, "
            "or ask for more quota."
        )
    if status in (422, 499):
        return changed(stored)
    return OSError(f"Can't store {stored}: {f'the object store said {status}: {said}' if status else said}.")
