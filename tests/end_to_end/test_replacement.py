"""A quorum is enough for a start. What is replaced, and when: `tests.faults`; what a quorum is: `tests/launchers/test_quorum.py`."""

import ipyparallel as ipp
import openstack
import pytest
from traitlets.config import Config

pytestmark = pytest.mark.needs("devcloud")  # its servers fail as they are told


@pytest.fixture
def cluster(cloud, tmp_path, monkeypatch):
    """Two engines, one of which is enough, in this process; not started yet."""
    folder = tmp_path / "ipython" / "profile_default"
    folder.mkdir(parents=True)
    (folder / "ipcontroller_config.py").write_text("c.HeartMonitor.period = 200\n")
    monkeypatch.setenv("IPYTHONDIR", str(folder.parent))
    settings = {"watch_interval": 0.3, "poll_interval": 0.2, "min_engines": 1, "replace": True}
    config = Config({"GriffinEngineSetLauncher": settings})
    cluster = ipp.Cluster(engines="griffin", controller="griffin", n=2, config=config)
    yield cluster
    cluster.stop_cluster_sync()
    assert cloud.left_over() == []


def test_with_a_quorum_the_rest_goes_on_in_the_background_until_somebody_stops_the_cluster(cluster, cloud, eventually):
    cloud.faults.set({"server": "-1$", "stuck": True, "count": 1})
    cluster.start_cluster_sync()
    (straggler,) = (server for server in cloud.running.servers() if server["status"] == "BUILD")
    with cluster.connect_client_sync() as rc:
        assert len(rc.ids) == 1
        openstack.connect(cloud="devcloud").compute.delete_server(straggler["id"])
        eventually(lambda: len(rc.ids) == 2, "the engine of the server that takes its slot")

    # Stopped from elsewhere it is not built up again: the servers vanish, as those that are lost do, but so does the connection file.
    (launcher,) = cluster.engines.values()
    ipp.Cluster.from_file(cluster.cluster_file).stop_cluster_sync()
    eventually(lambda: launcher.state == "after", "the process that would replace them sees that the set is gone")
    assert cloud.left_over() == []
