"""What the agent of a controller's server asks the hub, to know an idle cluster: with real engines."""

import contextlib
import io
import json
import subprocess
import sys
import time
from unittest import mock

import ipyparallel as ipp
import pytest

from ipp_griffin.agent.controller import ACTIVITY_PROGRAM


@pytest.fixture(params=[[], ["--nodb"]], ids=["DictDB", "NoDB"])
def cluster(request, tmp_path):
    cluster = ipp.Cluster(n=1, profile_dir=str(tmp_path), controller_args=request.param)
    with cluster as rc:
        rc.wait_for_engines(1, timeout=60)
        yield cluster, rc


def ask(cluster, program=ACTIVITY_PROGRAM):
    """What had been done before and after the question; "": somebody is at work. In this process: another one takes a second."""
    said = io.StringIO()
    argv = ["-c", cluster.controller.connection_files["client"]]
    with contextlib.redirect_stdout(said), mock.patch.object(sys, "argv", argv):
        exec(program, {"__name__": "__main__"})
    return json.loads(said.getvalue())


def ask_as_agents_do(cluster):
    argv = [sys.executable, "-c", ACTIVITY_PROGRAM, cluster.controller.connection_files["client"]]
    return json.loads(subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=60).stdout)


def work_until_told(folder):
    import time
    from pathlib import Path

    Path(folder, "begun").touch()
    while not Path(folder, "over").exists():
        time.sleep(0.05)


work_until_told.__module__ = "__main__"


def test_work_of_any_kind_is_seen_and_the_question_itself_is_none(cluster, tmp_path):
    cluster, rc = cluster
    (_, last), (before, after) = ask_as_agents_do(cluster), ask(cluster)
    assert before == last
    for work in (
        lambda: rc[:].apply_async(pow, 2, 5),
        lambda: rc.load_balanced_view().apply_async(pow, 2, 5),
        lambda: rc[:].execute("a = 1", block=False),
    ):
        work().get(60)
        last = after
        before, after = ask(cluster)
        assert before != last
    # A broadcast, of which the hub says nothing while it runs, and little afterwards.
    running = rc.broadcast_view().apply_async(work_until_told, str(tmp_path))
    deadline = time.monotonic() + 60
    while not (tmp_path / "begun").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    impatient = ACTIVITY_PROGRAM.replace("asked.wait(10)", "asked.wait(0.5)")
    assert impatient != ACTIVITY_PROGRAM
    assert ask(cluster, impatient)[1] == ""
    (tmp_path / "over").touch()
    running.get(60)
    while not (after := ask(cluster)[1]):  # the hub may hear of that end later than its client
        assert time.monotonic() < deadline
    assert ask(cluster)[0] == after
