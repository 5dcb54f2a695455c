"""Servers that fail or stay silent are replaced, a quorum is enough, and what is lost later is replaced where one says so."""

import re

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


def test_a_server_in_error_is_replaced_and_its_fault_told_once(shell):
    shell.cloud.faults.set({"server": "-1$", "fail_build": "No valid host was found.", "count": 1})
    output = shell.run(*START, "-n", "2")
    told = re.findall(
        r"Server (\S+-1) \(building\) went to ERROR: .*No valid host.* It is deleted, and (\S+) takes", output
    )
    assert [successor for _, successor in told] == [f"{told[0][0]}-1"]
    assert sorted(name.split("-", 3)[3] for name in shell.cloud.servers()) == ["0", "1-1"]
    with ipp.Client(str(shell.profile() / "security" / "ipcontroller-client.json")) as rc:
        assert len(rc.ids) == 2
    stop(shell)


def test_a_silent_server_is_replaced_after_its_deadline_and_the_end_of_its_console_told(shell):
    shell.cloud.faults.set({"server": "-0$", "silent": True, "count": 1})
    output = shell.run(*START, "-n", "1", f"{SET}.agent_timeout=2")
    assert "never reported (can it reach the object store?) within 2 s (agent_timeout)" in output
    assert "console:" in output
    stop(shell)


def test_replacements_have_an_end_and_the_error_names_phase_and_cause_of_each(shell):
    shell.cloud.faults.set({"server": ".*", "fail_build": "No valid host was found."})
    output = shell.run(*START, "-n", "1", f"{SET}.max_replacements=1", status=1)
    names = r"griffin-\w+-\w+-0, griffin-\w+-\w+-0-1"
    assert re.search(rf"CRITICAL.* Servers {names} \(building\) went to ERROR: .*No valid host was found", output)


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


def test_a_server_that_is_lost_later_is_replaced_where_one_says_so(engine_set, cloud, eventually):
    cluster = engine_set(2, replace=True)
    lost = sorted(cloud.servers())[0]
    cloud.faults.set({"server": f"{lost}$", "vanish_after": 0})
    eventually(lambda: lost not in cloud.servers(), "the server is gone")
    eventually(lambda: len(cloud.servers()) == 2, "another one")
    with cluster.connect_client_sync() as rc:
        eventually(lambda: len(rc.ids) == 2, "its engine")


def test_a_cluster_that_is_stopped_from_elsewhere_is_not_built_up_again(engine_set, cloud, eventually):
    """The servers vanish, as those that are lost do: but so does the connection object."""
    cluster = engine_set(1, replace=True)
    (launcher,) = cluster.engines.values()
    ipp.Cluster.from_file(cluster.cluster_file).stop_cluster_sync()
    eventually(lambda: launcher.state == "after", "the process that would replace them sees that the set is gone")
    assert cloud.left_over() == []
