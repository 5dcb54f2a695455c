"""The processes that the agent keeps running."""

import pytest

from ipp_griffin.agent.children import Child, restart_pause
from ipp_griffin.agent.errors import Failure


@pytest.mark.parametrize(
    ("crashes", "now", "pause"),
    [([100], 100, 1), ([90, 100], 100, 2), ([80, 90, 100], 100, None), ([0, 10, 5000], 5000, 1)],
)
def test_restarts_wait_longer_each_time_and_end_at_the_hourly_limit(crashes, now, pause):
    assert restart_pause(crashes, now, 2) == pause


def test_old_output_is_not_taken_for_the_next_generations(world, processes):
    w = world()
    w.agent.runtime.home = "/"
    engine = Child(0, w.agent.state.path("engine-0.log"))
    w.agent.children.all += [engine]
    w.agent.start_engine(engine, "/p")
    w.agent.poll()
    assert engine.registered
    processes.log = b""
    w.agent.start_engine(engine, "/p")
    w.agent.poll()
    assert not engine.registered


def test_a_command_that_can_not_be_run_is_a_failure(world, processes):
    w = world()
    w.agent.runtime.home = "/"
    processes.error = FileNotFoundError(2, "No such file")
    with pytest.raises(Failure, match="could not run "):
        w.agent.start_engine(Child(0, w.agent.state.path("engine-0.log")), "/p")
