"""What both launchers have in common."""

import subprocess
import types

import psutil
import pytest

from ipp_griffin.common.processes import has_ended


@pytest.fixture
def process():
    child = subprocess.Popen(["sleep", "600"])
    yield psutil.Process(child.pid)
    child.kill()
    child.wait()


def test_a_controller_has_ended_when_its_launcher_says_so_or_its_process_is_gone(process):
    """Nobody may be there to tell the launcher: ipyparallel's synchronous API closes its loop between calls."""
    controller = types.SimpleNamespace(state="running", process=process)
    assert not has_ended(controller)
    process.kill()
    psutil.wait_procs([process], timeout=30)
    assert has_ended(controller)


@pytest.mark.parametrize(("state", "ended"), [("before", False), ("running", False), ("after", True)])
def test_of_a_controller_without_a_process_of_its_own_its_state_counts(state, ended):
    assert has_ended(types.SimpleNamespace(state=state)) is ended


def test_no_controller_has_not_ended():
    assert has_ended(None) is False
