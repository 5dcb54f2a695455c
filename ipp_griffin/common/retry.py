"""Retry calls that failed, back off, and throttle calls to a service that asks for it."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TypeVar

from .errors import CloudError, Unavailable, logger

LONGEST_PAUSE = 60.0  # seconds; a Retry-After beyond it is not waited for

SHORT_PAUSE = 0.25  # seconds, where it does not say how long

T = TypeVar("T")


def backoff(attempt: int, asked: float | None = None) -> float:
    """Return the seconds to wait after failure number ``attempt`` (0, 1, ...): those ``asked`` for, else 0.5 doubling.

    Jitter keeps those that failed together from coming back together.
    """
    if asked is not None:
        return min(asked, LONGEST_PAUSE) + random.uniform(0, 0.5)
    return min(0.5 * 2.0**attempt, 16.0) * random.uniform(0.5, 1)


class Throttle:
    """Make all threads pause when a service asks for it, not only the thread that it told."""

    def __init__(self, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._clock, self._sleep = clock, sleep
        self._until = 0.0
        self._lock = threading.Lock()

    def ask(self, seconds: float | None) -> None:
        """Begin a pause of so many seconds from now (None: `SHORT_PAUSE`). A longer one that was asked for before stays."""
        with self._lock:
            self._until = max(
                self._until, self._clock() + min(SHORT_PAUSE if seconds is None else seconds, LONGEST_PAUSE)
            )

    def take(self) -> None:
        """Wait until the pause is over, and any that begins meanwhile."""
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

    Raises its last `CloudError`, or the first one that ``again`` says no to.
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
