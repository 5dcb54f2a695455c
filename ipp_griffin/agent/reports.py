"""Reports: what the launcher and `ipp-griffin logs` learn of this server."""

import contextlib
import json
import os
import threading
import time
from typing import Any, Callable, Iterator, Optional, Tuple

from .children import Child, Children
from .errors import Stopped
from .state import State
from .store import REPORT_TIMEOUT, Store
from .system import Json
from .text import Redactor

REPORT_TRIES = 3
REPORT_AGAIN = 30.0  # seconds until a phase that could not be reported is tried again
HEAD, TAIL, BODY = 16 << 10, 48 << 10, 256 << 10  # bytes of one child's log in a report; of a whole report


def report_url(reports: Json, sequence: int, phase: str) -> str:
    """Return the URL of a report, "" if its phase has none. A negative ``sequence``: no number in the name."""
    if "urls" in reports:
        return str(reports["urls"].get(phase, ""))
    name = phase if sequence < 0 else f"{sequence:04d}-{phase}"
    return "{}{}?{}".format(reports["prefix"], name, reports["query"])


class Reports:
    """Writes reports, to URLs that allow nothing else."""

    def __init__(
        self,
        parameters: Json,
        state: State,
        store: Store,
        children: Children,
        redactor: Redactor,
        log: Callable[[str], None],
        monotonic: Callable[[], float],
        thread: Callable[..., Any] = threading.Thread,
    ) -> None:
        self._urls, self._server = parameters["reports"], parameters.get("server", "")
        self._state, self._store, self._children, self._redactor = state, store, children, redactor
        self._log, self._monotonic, self._thread = log, monotonic, thread
        self._reported = 0  # bytes of the children's logs when a report was last written
        self._log_sequence: Optional[int] = None  # the number of this run's one report of the logs
        self._log_due: Optional[float] = None  # when the logs are to be reported if there is more in them (monotonic)
        self._log_problem = ""
        self.unsent: Optional[Tuple[int, str, str]] = None  # number, phase and message of a report that was not written
        self._unsent_due = 0.0  # when to try that again (monotonic)

    def write(self, phase: str, message: str, tries: int = REPORT_TRIES) -> None:
        """Report a phase. Where the store does not take it after a few tries, engines go on, and `retry` tries again."""
        message = " ".join(self._redactor.text(message).split())[:2000]
        self._log(f"{phase}: {message}")
        sequence = self._state.next_sequence()
        problem = self._put(sequence, phase, message, tries)
        self.unsent = (sequence, phase, message) if problem else None
        self._unsent_due = self._monotonic() + REPORT_AGAIN
        if problem:
            self._log(f"report {phase} was not written: {problem}")

    @contextlib.contextmanager
    def writing(self, phase: str, message: str) -> Iterator[None]:
        """Report a phase while the body runs: both wait for the network. The body must not start a process: a child that is forked
        beside a running thread may deadlock before it executes its program."""
        thread, timeout = self._thread(target=self.write, args=(phase, message), daemon=True), None
        thread.start()
        try:
            yield
        except Stopped:
            timeout = REPORT_TIMEOUT
            raise
        finally:
            thread.join(timeout)

    def retry(self) -> None:
        """Try the last phase again, if it could not be reported: a server that never reported would count as a dead one."""
        if self.unsent is None:
            return
        self._unsent_due = self._monotonic() + REPORT_AGAIN
        if not self._put(*self.unsent, tries=1):
            self._log(f"report {self.unsent[1]} was written at last")
            self.unsent = None

    def poll(self, interval: float, summary: Callable[[], str]) -> None:
        """Every ``interval`` seconds (0: never), report what the children have logged since the last report; and retry a phase.

        All reports of logs in one run share a name, so that the container does not grow. Each is tried once.
        """
        if self._monotonic() >= self._unsent_due:
            self.retry()
        now = self._monotonic()
        if not interval or (self._log_due is not None and now < self._log_due):
            return
        first, self._log_due = self._log_due is None, now + interval
        if first or self._children.written == self._reported:
            return
        if self._log_sequence is None:
            self._log_sequence = self._state.next_sequence()
        problem = self._put(self._log_sequence, "log", self._redactor.text(summary()), 1)
        if problem and not self._log_problem:
            self._log(f"logs can't be reported now, will go on trying: {problem}")
        self._log_problem = problem

    def _put(self, sequence: int, phase: str, message: str, tries: int) -> str:
        """Return why a report could not be written; "" if it was, or where it has no place."""
        url = report_url(self._urls, sequence, phase)
        written, problem = self._children.written, ""
        if url:
            problem = self._store.put(url, self.body(phase, message), tries)
            self._reported = self._reported if problem else written
        return problem

    def body(self, phase: str, message: str) -> bytes:
        """Return the report's JSON, at most `BODY` bytes: the more children there are, the shorter the excerpts."""
        most = HEAD + TAIL
        while True:
            engines = [
                {
                    "index": child.index,
                    "uuid": child.uuid,
                    "pid": child.process.pid if child.process else 0,
                    "alive": child.alive,
                    "exit_code": child.process.poll() if child.process else None,
                    "registered": child.registered,
                    "output": self.excerpt(child, most) if most > 100 else "",
                }
                for child in self._children.all
            ]
            report = {"version": 1, "phase": phase, "message": message, "server": self._server}
            # Engines date their lines by the server's own time zone.
            report.update(engines=engines, time=time.time(), utc_offset=time.localtime().tm_gmtoff)
            body = json.dumps(report, ensure_ascii=False).encode("utf-8", "backslashreplace")
            if len(body) <= BODY or most <= 100:
                return body
            most //= 2

    def excerpt(self, child: Child, most: int) -> str:
        """Return head and tail of a child's log, redacted, about ``most`` bytes."""
        head, tail = most // 4, most - most // 4
        margin = self._redactor.longest
        with contextlib.suppress(FileNotFoundError), open(child.log, "rb") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(0)
            if size <= most:
                return self._redactor.data(f.read())
            first = f.read(head + margin)
            f.seek(max(0, size - tail - margin))
            last = f.read()
            first = first[: self._redactor.cut(first, head, -1)]
            last = last[self._redactor.cut(last, max(0, len(last) - tail), 1) :]
            gap = f"\n[... {size - len(first) - len(last)} bytes left out ...]\n"
            return self._redactor.data(first) + gap + self._redactor.data(last)
        return ""
