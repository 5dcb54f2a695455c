"""A quorum is enough, for a start that ends and for one that goes on in the background. What is replaced, and when: `tests.faults`."""

import ipyparallel as ipp
import openstack
import pytest
from traitlets.config import Config

from .conftest import Shell

pytestmark = pytest.mark.needs("devcloud")  # its servers fail as they are told

START = ("ipcluster", "start", "--profile=griffin", "--daemonize")
SET = "--GriffinEngineSetLauncher"


def stop(shell: Shell) -> None:
    shell.run("ipcluster", "stop", "--profile=griffin")


def test_with_a_quorum_a_daemonized_start_settles_every_straggler(shell):
    shell.cloud.faults.set({"server": "-1$", "stuck": True})
    output = shell.run(*START, "-n", "2", f"{SET}.min_engines=1", f"{SET}.build_timeout=3", f"{SET}.max_replacements=0")
    assert "1 of 2 engines are connected: enough for min_engines." in output
    assert len(shell.cloud.servers()) == 1
    stop(shell)


def test_more_than_there_are_is_no_quorum(shell):
    output = shell.run(*START, "-n", "1", f"{SET}.min_engines=2", status=1)
    assert "GriffinEngineSetLauncher.min_engines is 2, of 1 engines" in output


@pytest.fixture
def engine_set(cloud, tmp_path, monkeypatch):
    """``engine_set(n, **settings)``: a running cluster of this process, its engine set's settings as given."""
    folder = tmp_path / "ipython" / "profile_default"
    folder.mkdir(parents=True)
    (folder / "ipcontroller_config.py").write_text("c.HeartMonitor.period = 200\n")
    monkeypatch.setenv("IPYTHONDIR", str(folder.parent))
    clusters = []

    def start(n, **settings):
        config = Config({"GriffinEngineSetLauncher": {"watch_interval": 0.3, "poll_interval": 0.2, **settings}})
        cluster = ipp.Cluster(engines="griffin", controller="griffin", n=n, config=config)
        clusters.append(cluster)
        cluster.start_cluster_sync()
        return cluster

    yield start
    for cluster in clusters:
        cluster.stop_cluster_sync()
    assert cloud.left_over() == []


def test_with_a_quorum_the_rest_goes_on_in_the_background_while_the_process_lives(engine_set, cloud, eventually):
    cloud.faults.set({"server": "-1$", "stuck": True, "count": 1})
    cluster = engine_set(2, min_engines=1)
    (straggler,) = (server for server in cloud.running.servers() if server["status"] == "BUILD")
    with cluster.connect_client_sync() as rc:
        assert len(rc.ids) == 1
        openstack.connect(cloud="devcloud").compute.delete_server(straggler["id"])
        eventually(lambda: len(rc.ids) == 2, "the engine of the server that takes its slot")


def test_a_cluster_that_is_stopped_from_elsewhere_is_not_built_up_again(engine_set, cloud, eventually):
    """The servers vanish, as those that are lost do: but so does the connection object."""
    cluster = engine_set(1, replace=True)
    (launcher,) = cluster.engines.values()
    ipp.Cluster.from_file(cluster.cluster_file).stop_cluster_sync()
    eventually(lambda: launcher.state == "after", "the process that would replace them sees that the set is gone")
    assert cloud.left_over() == []
