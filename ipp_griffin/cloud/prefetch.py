"""`Prefetch`: send requests before their answers are needed, while something else runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from functools import partial
from typing import Any

from ..common.threads import concurrently

FRESH = 30  # seconds that an answer is valid: what a cloud offers changes, but not while a controller starts

Questions = Mapping[str, Callable[[], Any]]


class Prefetch:
    """Methods may be called from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked: dict[str, tuple[float, Future[Any]]] = {}
        self._lock = threading.Lock()

    def ask(self, questions: Questions) -> None:
        """Call these in the background, each in a daemon thread. Raises none of their errors."""
        for name, question in questions.items():
            future: Future[Any] = Future()
            with contextlib.suppress(RuntimeError):  # no new thread at interpreter shutdown: `answers` will ask
                threading.Thread(target=partial(_settle, future, question), name=f"ask {name}", daemon=True).start()
                with self._lock:
                    self._asked[name] = self._clock(), future

    def answers(self, questions: Questions, once: Collection[str] = ()) -> dict[str, Any]:
        """Return the answer of each function: a recent one, or a new one if there is none or it failed.

        Calls them concurrently. ``once``: names of answers that may be used only once. Raises what a function raises.
        """
        with self._lock:
            oldest = self._clock() - FRESH
            asked = {name: future for name, (at, future) in self._asked.items() if at >= oldest}
            self._asked = {name: self._asked[name] for name in asked if name not in once or name not in questions}

        def answer(name: str) -> Any:
            if name in asked and asked[name].exception() is None:  # `exception` waits for the end
                return asked[name].result()
            return questions[name]()

        return dict(zip(questions, concurrently(*(partial(answer, name) for name in questions)), strict=True))


def _settle(future: Future[Any], question: Callable[[], Any]) -> None:
    try:
        future.set_result(question())
    except Exception as e:  # whoever needs the answer asks again, and gets the error
        future.set_exception(e)
