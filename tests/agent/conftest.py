"""Fixtures of the agent's tests: see `world`."""

import os

import pytest

from ipp_griffin.agent import children
from ipp_griffin.agent.children import Child

from .world import Processes, World


@pytest.fixture
def world(tmp_path):
    return lambda *args, **kwargs: World(tmp_path / "state", *args, **kwargs)


@pytest.fixture
def processes(monkeypatch):
    processes = Processes()
    monkeypatch.setattr(children, "subprocess", processes)
    return processes


@pytest.fixture
def watched(world, processes):
    """A world whose two engines registered; `story` maps seconds to what happens then, and ends the watch."""
    w = world()
    w.agent.runtime.home = "/"
    w.agent.children.all += [Child(k, w.agent.state.path(f"engine-{k}.log")) for k in range(2)]
    for engine in w.agent.engines:
        w.agent.start_engine(engine, "/p")

    class Over(Exception):
        pass

    def watch(story, seconds):
        story = dict(story)

        def on_sleep():
            for when in [t for t in story if w.clock.now >= 1000 + t]:
                story.pop(when)()
            if w.clock.now >= 1000 + seconds:
                raise Over

        w.clock.then = on_sleep
        with pytest.raises(Over):
            w.agent.watch("/p")

    w.watch, w.processes = watch, processes
    return w


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
