"""`ipp.Cluster` from Python: scripts, notebooks, other processes, and the one-liner with the default controller.

Each test has a cluster of its own, and no profile of ours; that of a profile, and what comes to a running one, is in `test_engine_sets`.
"""

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path

import ipyparallel as ipp
import pytest
from traitlets.config import Config

from ..clouds import OnDevCloud
from ..conftest import assert_empty, running_cloud

HELD = {"service": "object-store", "methods": ["GET"], "path": "/connection.json$", "status": 503}  # no engine connects


@pytest.fixture
def profile(cloud, tmp_path, monkeypatch):
    """An IPython folder without a profile of ours: only OS_CLOUD is set, and what the cloud can't do without."""
    folder = tmp_path / "ipython" / "profile_default"
    folder.mkdir(parents=True)
    (folder / "ipcontroller_config.py").write_text("c.HeartMonitor.period = 200  # for speed\n")
    if cloud.settings:
        (folder / "ipcluster_config.py").write_text("c = get_config()\n" + cloud.settings)
    monkeypatch.setenv("IPYTHONDIR", str(folder.parent))
    return tmp_path


@pytest.mark.needs("devcloud")
async def test_the_event_loop_goes_on_while_servers_start_and_an_expired_token_is_renewed(profile, tmp_path):
    with running_cloud(tmp_path / "shortlived", token_lifetime=1.5) as cloud:
        cloud.faults.set(HELD)

        async def let_them_connect():  # which a loop that is blocked by the start would not
            while not cloud.servers() or len([r for r in cloud.requests if r[:2] == ("identity", "POST")]) < 2:
                await asyncio.sleep(0.05)
            cloud.faults.clear()

        going_on = asyncio.ensure_future(let_them_connect())
        async with ipp.Cluster(engines="griffin", controller="griffin", n=1) as rc:
            assert going_on.done()
            assert rc.ids == [0]
        assert_empty(cloud)


@pytest.mark.needs("devcloud")
@pytest.mark.parametrize("then", ["stopped", "left to itself"])
def test_an_interrupted_sync_start_goes_on_in_ipyparallels_thread_until_it_is_stopped(profile, cloud, eventually, then):
    """As a notebook's "interrupt" does it, where a loop runs. What is asked for next decides about the servers; none is forgotten.

    The controller is ipyparallel's own: servers of the dev cloud can reach it on loopback.
    """
    cloud.faults.set(HELD)
    cluster = ipp.Cluster(engines="griffin", n=1)

    def interrupt_the_start():
        eventually(cloud.servers, "a server")
        # Of a process, any thread may get it, and this one waits in a call that only a signal of its own ends.
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    interrupt = threading.Thread(target=interrupt_the_start, daemon=True)

    async def as_in_a_notebook():  # a running loop: then ipyparallel's coroutines have a thread of their own
        cluster.start_controller_sync()
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            cluster.start_engines_sync()
        assert len(cloud.servers()) == 1
        if then == "left to itself":
            cloud.faults.clear()
            eventually(
                lambda: Path(cluster.cluster_file).exists() and cluster.engines, "the set, as if nothing had been"
            )
            eventually(lambda: ids(cluster) == [0], "its engine")
            with cluster.connect_client_sync() as rc:
                assert rc[:].apply_sync(str, "here") == ["here"]
            assert type(cluster.controller).__name__ == "LocalControllerLauncher"
        cluster.stop_cluster_sync()

    loop = asyncio.new_event_loop()  # not asyncio.run, which handles SIGINT itself
    try:
        loop.run_until_complete(as_in_a_notebook())
    finally:
        loop.close()
    assert cloud.left_over() == []


def ids(cluster):
    """Of the engines that the controller lists now, which a Client that waits can miss."""
    with cluster.connect_client_sync() as rc:
        return rc.ids


# -- the one-liner


@pytest.fixture
def faraway(profile, cloud, tmp_path):
    """A cloud whose servers are (on the dev cloud: so it says) on a network that can't reach this machine's loopback."""
    if not isinstance(cloud, OnDevCloud):
        yield cloud
        return
    with running_cloud(tmp_path / "faraway", subnet="10.99.0.0/16") as far:
        yield far
        assert_empty(far)


def test_the_one_liner_restarts_the_default_controller_where_servers_cannot_reach_loopback(faraway):
    """ipyparallel's time-out for engines counts from the end of the start, when they are all there."""
    config = Config({"Cluster": {"engine_timeout": 0}})
    with ipp.Cluster(engine_launcher_class="griffin", n=1, config=config) as rc:
        assert rc.ids == [0]
        assert rc[:].apply_sync(abs, -42) == [42]
        assert type(rc.cluster.controller).__name__ == "GriffinControllerLauncher"


# -- scripts

SCRIPT = """
import ipyparallel as ipp
rc = ipp.Cluster(engines="griffin", controller="griffin", n=1).start_and_connect_sync()
print(rc.ids, flush=True)
input()
"""


@pytest.fixture
def script(profile):
    """A script that starts a cluster, says which engines it has, waits for a line, and never stops the cluster."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_script_that_never_stops_its_cluster_leaves_nothing(script):
    """ipyparallel stops it at interpreter exit, where executors take no more work."""
    assert script.stdout.readline() == "[0]\n"
    _, printed = script.communicate("\n", timeout=90)
    assert script.returncode == 0, printed
    assert "Traceback" not in printed


@pytest.mark.needs("devcloud")
def test_one_whose_cluster_can_not_be_stopped_at_its_end_is_no_success_and_another_process_stops_it(
    script, profile, cloud
):
    assert script.stdout.readline() == "[0]\n"
    cloud.faults.set({"service": "compute", "methods": ["DELETE"], "status": 503})
    _, printed = script.communicate("\n", timeout=90)
    assert script.returncode == 1
    assert "Servers that may still be there" in printed
    assert "Run the same stop again" in printed
    cloud.faults.clear()
    (path,) = profile.glob("ipython/profile_default/security/cluster-*.json")
    ipp.Cluster.from_file(str(path)).stop_cluster_sync()
    assert cloud.left_over() == []
