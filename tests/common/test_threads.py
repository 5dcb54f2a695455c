"""Blocking calls beside an event loop."""

import asyncio
import subprocess
import sys
import threading

import pytest

from ipp_griffin.common.threads import in_thread, within


async def test_the_loop_goes_on_while_a_function_blocks():
    released = threading.Event()
    waiting = asyncio.ensure_future(in_thread(lambda: released.wait(30)))
    await asyncio.sleep(0)  # the loop runs this line although the function has not returned
    released.set()
    assert await waiting is True


async def test_what_a_function_raises_is_raised():
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 // 0)


async def test_where_no_thread_can_be_started_the_function_runs_in_place(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert await in_thread(threading.get_ident) == threading.get_ident()


def test_it_works_while_the_interpreter_exits():
    """run_in_executor raises there: cannot schedule new futures after shutdown."""
    program = (
        "import asyncio, atexit\n"
        "from ipp_griffin.common.threads import in_thread\n"
        "async def late(): print(await in_thread(lambda: 'done'))\n"
        "atexit.register(lambda: asyncio.run(late()))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.stdout, result.stderr) == ("done\n", "")


def test_what_ends_in_time_has_ended_and_what_it_raises_is_raised():
    done = []
    assert within(30, lambda: done.append(1)) is True
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        within(30, lambda: 1 // 0)


def test_what_hangs_is_left_behind():
    released, ended = threading.Event(), threading.Event()

    def hang():
        released.wait(60)
        ended.set()

    assert within(0.05, hang) is False
    released.set()
    assert ended.wait(30)


def test_what_nothing_could_end_is_not_begun(monkeypatch):
    def refuse(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert within(30, pytest.fail) is False
