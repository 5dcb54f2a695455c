"""Run blocking calls in threads: beside an event loop, within a time limit, or several at a time."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(function: Callable[[], T]) -> T:
    """Run ``function`` in a daemon thread of its own and return what it returns, or raise what it raises.

    Not ``run_in_executor``: at interpreter exit, when ipyparallel stops the remaining clusters, executors refuse work ("cannot schedule
    new futures"). If not even a thread can be started any more, ``function`` runs in this one.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, error = None, None
        try:
            result = function()
        except Exception as e:  # handed to the awaiting coroutine
            error = e
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is waiting any more
            loop.call_soon_threadsafe(settle, result, error)

    try:
        threading.Thread(target=run, name=getattr(function, "__name__", "in_thread"), daemon=True).start()
    except RuntimeError:  # can't start new thread at interpreter shutdown
        return function()
    return await future


def within(seconds: float, function: Callable[[], object]) -> bool:
    """Run ``function`` for at most so many seconds; return whether it ended. Raises what ``function`` raises in that time.

    A ``function`` that hangs is left in a daemon thread, which does not keep the process alive. If no thread can be started any more,
    ``function`` is not run, since nothing could end it.
    """
    errors: list[Exception] = []

    def run() -> None:
        try:
            function()
        except Exception as e:  # raised where it was asked for
            errors.append(e)

    thread = threading.Thread(target=run, name=getattr(function, "__name__", "within"), daemon=True)
    try:
        thread.start()
    except RuntimeError:  # can't start new thread at interpreter shutdown
        return False
    thread.join(seconds)
    if errors:
        raise errors[0]
    return not thread.is_alive()


def concurrently(*functions: Callable[[], Any]) -> list[Any]:
    """Run ``functions`` concurrently; when all have ended, return what each returned, or raise the first error in their order."""
    results: dict[int, Any] = {}
    errors: dict[int, Exception] = {}

    def run(number: int) -> None:
        try:
            results[number] = functions[number]()
        except Exception as e:  # raised below
            errors[number] = e

    in_parallel(range(len(functions)), run, len(functions))
    if errors:
        raise errors[min(errors)]
    return [results[number] for number in range(len(functions))]


def in_parallel(work: Iterable[T], do: Callable[[T], None], parallel: int) -> None:
    """Run ``do`` on each of ``work`` with at most ``parallel`` threads; return when all is done.

    ``do`` must not raise. Uses plain daemon threads, because the pools of concurrent.futures refuse work while the interpreter is
    ending, which is when clusters are stopped. If no thread can be started, the caller's does the work. After an interrupt, no new work
    begins, and work in flight is waited for.
    """
    queue = deque(work)

    def run() -> None:
        while True:
            try:
                item = queue.popleft()
            except IndexError:
                return
            do(item)

    threads: list[threading.Thread] = []
    try:
        for _ in range(min(parallel, len(queue)) if len(queue) > 1 else 0):
            thread = threading.Thread(target=run, name="ipp-griffin-call", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                break
            threads.append(thread)
        if not threads:
            run()
    finally:
        _join(threads, queue)


def _join(threads: list[threading.Thread], queue: deque[T]) -> None:
    try:
        for thread in threads:
            thread.join()
    except BaseException:
        queue.clear()
        for thread in threads:
            thread.join()
        raise
