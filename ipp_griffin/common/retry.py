"""Retry calls that failed, back off, and throttle calls to a service that asks for it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TypeVar

from .errors import CloudError, Unavailable, logger

LONGEST_PAUSE = 60.0  # seconds; the most that a Retry-After makes us wait

SHORT_PAUSE = 0.25  # seconds, if the service does not say how long

T = TypeVar("T")


def backoff(attempt: int, asked: float | None = None) -> float:
    """Return the seconds to wait after failure number ``attempt`` (0, 1, ...): those that the service ``asked`` for, else 0.5 s, doubled each
    time.

    Jitter keeps requests that failed together from being retried together.
    """
    if asked is not None:
        return min(asked, LONGEST_PAUSE) + random.uniform(0, 0.5)
    return min(0.5 * 2.0**attempt, 16.0) * random.uniform(0.5, 1)


class Throttle:
    """Make all threads pause when a service asks for it, not only the one that got that answer."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._clock, self._sleep = clock, sleep
        self._until = 0.0
        self._lock = threading.Lock()

    def ask(self, seconds: float | None) -> None:
        """Begin a pause of so many seconds from now (None: `SHORT_PAUSE`), unless a longer one is under way."""
        with self._lock:
            self._until = max(
                self._until, self._clock() + min(SHORT_PAUSE if seconds is None else seconds, LONGEST_PAUSE)
            )

    def take(self) -> None:
        """Wait until the pause is over, and any that begins in the meantime."""
        taken = 0.0
        while taken < self._until and (pause := self._until - self._clock()) > 0:
            taken = self._until
            self._sleep(min(pause, LONGEST_PAUSE))  # a clock may be set back


def retry(
    attempt: Callable[[], T],
    *,
    retries: int,
    sleep: Callable[[float], None],
    again: Callable[[CloudError], bool] = lambda error: isinstance(error, Unavailable),
) -> T:
    """Call ``attempt`` until it returns, at most ``1 + retries`` times. Only for calls that may be repeated.

    Raises the last `CloudError`, or the first one for which ``again`` returns False.
    """
    tries = 0
    while True:
        try:
            return attempt()
        except CloudError as error:
            if tries >= retries or not again(error):
                raise
            pause = backoff(tries, error.retry_after)
            logger.debug("will retry in %.1f s: %s", pause, error)
        tries += 1
        sleep(pause)
