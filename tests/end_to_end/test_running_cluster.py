"""One cluster, started by `ipcluster start --daemonize`, that goes on whatever comes to it, joins it, or fails to harm it.

All tests share it, and leave it as it was. Where there is an application credential, it was started with that. What starts and ends in other
ways is in `test_ipcluster`.
"""

import json
import os
import signal
from datetime import datetime, timedelta
from pathlib import Path

import ipyparallel as ipp
import pytest
import yaml

from ipp_griffin.common.errors import GriffinError

from .commands import cause, container, griffin

pytestmark = pytest.mark.xdist_group(__name__)

START = ("ipcluster", "start", "--profile=griffin", "--daemonize")
STOP = ("ipcluster", "stop", "--profile=griffin")


def client(shell) -> ipp.Client:
    return ipp.Client(str(shell.profile() / "security" / "ipcontroller-client.json"))


@pytest.fixture(scope="module")
def started(shared_shell):
    """What its start printed. It has two engines on two servers."""
    if "app" in shared_shell.cloud.has:
        shared_shell.env["OS_CLOUD"] += "-app"
    address = [f"--ip={shared_shell.cloud.address}"] if "address" in shared_shell.cloud.has else []
    settings = ["--GriffinEngineSetLauncher.engines_per_server=1", "--GriffinEngineSetLauncher.log_interval=0.5"]
    yield shared_shell.run(*START, "-n", "2", *settings, *address)
    shared_shell.run(*STOP)


@pytest.fixture
def shell(shared_shell, started, eventually):
    """The shell that started it. Engines that a test before this one lost have been missed by now."""
    with client(shared_shell) as rc:
        eventually(lambda: rc.ids == [0, 1], "the first two engines alone")
    return shared_shell


@pytest.fixture
def elsewhere(elsewhere, shell):
    """Another machine of its owner's, with the same credential."""
    elsewhere.env["OS_CLOUD"] = shell.env["OS_CLOUD"]
    return elsewhere


@pytest.fixture
def goes_on(shell):
    """At the end of the test the cluster has the engines and the servers that it had, and they compute."""
    yield
    assert len(shell.cloud.servers()) == 2
    assert [one["n"] for one in shell.engine_sets()] == [2]
    with client(shell) as rc:
        assert rc[[0, 1]].map_sync(abs, [-1, -2]) == [1, 2]


@pytest.fixture
def cluster(shell, goes_on, monkeypatch):
    """It, as another process finds it by its file; the engine sets that the test starts end with the test."""
    for name in ("IPYTHONDIR", "OS_CLIENT_CONFIG_FILE", "OS_CLOUD"):
        monkeypatch.setenv(name, shell.env[name])
    found = ipp.Cluster.from_file(profile="griffin")
    (first,) = found.engines
    yield found
    for id in list(found.engines):
        if id != first:
            found.stop_engines_sync(id)


def test_daemonize_comes_back_to_a_cluster_that_works(shell):
    with client(shell) as rc:
        assert rc.ids == [0, 1]
        assert rc[:].map_sync(abs, [-1, -2]) == [1, 2]
        names = rc[:].apply_sync(os.getenv, "GRIFFIN_SERVER")
    assert sorted(names) == sorted(shell.cloud.servers())


@pytest.mark.needs("app")
def test_an_application_credential_is_enough(shell):
    (engine_set,) = shell.engine_sets()
    assert engine_set["cloud"] == f"{shell.cloud.name}-app"


def test_it_is_listed_and_a_listing_under_another_profiles_config_leaves_it_as_it_is(shell):
    """Without --profile, ipcluster loads the default profile's config, which knows nothing of this cloud."""
    before = (shell.profile() / "security" / "cluster-.json").read_text()
    listing = shell.run("ipcluster", "list", OS_CLOUD="")
    assert [line.split() for line in listing.splitlines()[1:]] == [["griffin", "''", "True", "2", "Griffin"]]
    assert (shell.profile() / "security" / "cluster-.json").read_text() == before


@pytest.mark.needs("address")
def test_a_users_own_ip_is_kept(shell):
    """A repeated --ip is fatal to ipcontroller."""
    assert shell.read_json("ipcontroller-engine.json")["interface"] == f"tcp://{shell.cloud.address}"


def test_curve_and_signing_are_on_and_the_files_are_private(shell):
    for kind in ("engine", "client"):
        path = shell.profile() / "security" / f"ipcontroller-{kind}.json"
        info = json.loads(path.read_text())
        assert len(info["curve_serverkey"]) == 40
        assert len(info["key"]) == 64
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.needs("catalog")
def test_servers_boot_from_the_snapshot_with_the_highest_number(shell, started, connection):
    assert "image snapshot10," in started
    assert {image for image, _ in servers_of_tests(shell, connection)} == {"snapshot10"}


def servers_of_tests(shell, connection) -> list[tuple[str, str]]:
    """Image and flavor of each server that tests made."""
    images, names = {image.id: image.name for image in connection.image.images()}, shell.cloud.servers()
    servers = [server for server in connection.compute.servers() if server.name in names]
    return sorted((images[server.image.id], server.flavor.original_name) for server in servers)


# -- who tries to harm it


def test_clean_refuses_while_it_runs(shell, goes_on):
    with pytest.raises(AssertionError, match="is still running. Use force=True"):  # a traceback of ipyparallel's
        shell.run("ipcluster", "clean", "--profile=griffin", status=1)
    assert shell.cluster_files() != []


def test_engines_that_fail_to_start_leave_it_alone(shell, goes_on):
    output = shell.run("ipcluster", "engines", "--profile=griffin", "-n", "1", "--GriffinCloud.image=foo", status=1)
    assert "No image 'foo'" in cause(output)


@pytest.mark.needs("other")
def test_the_credentials_of_another_project_stop_nothing_and_say_so(shell, goes_on, tmp_path):
    """Their listing is empty: a stop that believed it would leave every server running."""
    clouds = yaml.safe_load(shell.cloud.clouds_yaml.read_text())["clouds"]
    clouds[shell.env["OS_CLOUD"]] = clouds[f"{shell.cloud.name}-other"]
    swapped = tmp_path / "swapped.yaml"
    swapped.write_text(yaml.safe_dump({"clouds": clouds}))
    assert "This cluster is in project" in shell.run(*STOP, status=1, OS_CLIENT_CONFIG_FILE=str(swapped))


# -- from another machine, with an empty home


def test_its_servers_are_seen_from_another_machine(shell, elsewhere):
    heading, line = (text.split() for text in elsewhere.run("ipp-griffin", "ps", container(shell)).splitlines())
    assert heading == ["CLUSTER", "OWNER", "PROFILE", "ID", "SERVERS", "ENGINES", "AGE", "EXPIRES", "VCPU-HOURS"]
    assert line[2:9] == ["griffin", "-", "engines:", "2", "2", "of", "2"]
    (cluster,) = json.loads(griffin(elsewhere, "ps", container(shell), "--json"))
    assert sorted(server["name"] for server in cluster["servers"]) == sorted(shell.cloud.servers())
    assert {server["phase"] for server in cluster["servers"]} == {"engines"}
    assert [server["engine_ids"] for server in cluster["servers"]] == [None, None]  # the controller is elsewhere
    (cluster,) = json.loads(griffin(shell, "ps", container(shell), "--json"))
    assert sorted(server["engine_ids"] for server in cluster["servers"]) == [[0], [1]]
    lines = griffin(shell, "ps", container(shell), "--engines").splitlines()
    assert sorted(line.split()[5] for line in lines) == ["0", "1", "IDS"]


def test_what_servers_say_is_seen_from_another_machine(shell, elsewhere, eventually):
    def logs() -> str:
        return griffin(elsewhere, "logs", container(shell), "griffin")

    with client(shell) as rc:
        rc[:].apply_sync(os.write, 2, b"said by an engine\n")
    eventually(lambda: logs().count("said by an engine") == 2, "what they wrote after they had started")
    lines = [line.split(maxsplit=2) for line in logs().splitlines()]
    assert [time for time, _, _ in lines] == sorted(time for time, _, _ in lines)
    agents = [text for _, voice, text in lines if voice.endswith("/0/agent")]
    assert [text.partition(":")[0] for text in agents] == ["agent", "connected", "engines"]
    assert any(voice.endswith("/0/console") and text.startswith("engines use ") for _, voice, text in lines)


def test_how_servers_started_is_seen_from_another_machine(shell, elsewhere):
    picture = elsewhere.folder / "start.svg"
    found = json.loads(griffin(elsewhere, "timeline", container(shell), "griffin", "--json", f"--output={picture}"))
    phases = ["requested", "building", "active", "agent", "connected", "engines"]
    assert [list(server["times"]) for server in found["servers"]] == [phases, phases]
    assert picture.read_text().startswith("<svg ")


# -- beside another cluster


@pytest.fixture
def other(shell, goes_on, monkeypatch):
    """Another cluster of its profile, in this process; a colleague's in the same project, where there is one."""
    for name in ("IPYTHONDIR", "OS_CLIENT_CONFIG_FILE"):
        monkeypatch.setenv(name, shell.env[name])
    monkeypatch.setenv("OS_CLOUD", shell.cloud.name + ("-colleague" if "colleague" in shell.cloud.has else ""))
    listen = ["--ip=*", f"--location={shell.cloud.address}"] if "address" in shell.cloud.has else []
    made = ipp.Cluster(profile="griffin", cluster_id="x", controller_args=listen)
    try:
        made.start_cluster_sync(1)
        yield made
    finally:
        made.stop_cluster_sync()


def test_another_cluster_and_another_user_are_kept_apart_and_each_is_ended_from_another_machine(
    shell, other, elsewhere
):
    """That machine has no cluster file, as the one that started it may have lost it."""
    elsewhere.env["OS_CLOUD"] = os.environ["OS_CLOUD"]
    uid, ours = other.controller.uid, shell.engine_sets()[0]["uid"]
    assert (len(shell.cloud.containers()), len(shell.cloud.servers())) == (2, 3)
    with client(shell) as rc, other.connect_client_sync() as their_rc:
        assert (len(rc.ids), their_rc[:].apply_sync(abs, -42)) == (2, [42])

    if "colleague" in shell.cloud.has:
        seen = griffin(elsewhere, "ps", container(shell))
        assert uid in seen and ours not in seen
        assert ours in griffin(elsewhere, "ps", container(shell), "--all-owners")
        assert "belongs to somebody else" in griffin(elsewhere, "stop", container(shell), ours, status=1)
        assert len(shell.cloud.servers()) == 3

    output = elsewhere.run("ipp-griffin", "stop", container(shell), "griffin/x")
    assert f"Cluster {uid} is gone: 1 server and its container." in output
    assert (len(shell.cloud.containers()), len(shell.cloud.servers())) == (1, 2)
    assert uid not in griffin(elsewhere, "ps", container(shell), "--all-owners")
    again = griffin(elsewhere, "stop", container(shell), "griffin/x", status=1)
    assert "There is no cluster 'griffin/x'" in again


# -- more engine sets


@pytest.mark.needs("catalog")
def test_foreground_engines_of_another_image_join_it_and_leave_without_ending_it(shell, goes_on, eventually):
    process = shell.start(
        "ipcluster", "engines", "--profile=griffin", "-n", "1", "--GriffinEngineSetLauncher.image=snapshot2"
    )
    with client(shell) as rc:
        eventually(lambda: len(rc.ids) == 3, "the third engine")
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=90)[0]
        assert process.returncode == 0, output
        assert "Starting 1 engine on 1 server: image snapshot2," in output
        eventually(lambda: len(rc.ids) == 2, "the third engine has left")


@pytest.mark.needs("catalog")
def test_a_set_of_other_servers_works_beside_the_first_and_ends_alone(shell, cluster, connection):
    four_cores = shell.cloud.four_cores
    (small,) = cluster.engines
    settings = {"flavor": four_cores, "image": "snapshot2", "engines_per_server": 2, "environment": {"COLOUR": "blue"}}
    large = cluster.start_engines_sync(2, **settings)
    names = {id: cluster.engines[id].engine_set for id in (small, large)}
    ids = cluster.engines[large].engine_ids()
    assert (cluster.engines[small].engine_ids(), len(ids)) == ([0, 1], 2)

    images = servers_of_tests(shell, connection)
    ((snapshot10, one_core),) = set(images) - {("snapshot2", four_cores)}
    assert snapshot10 == "snapshot10"
    assert images == [("snapshot10", one_core)] * 2 + [("snapshot2", four_cores)]
    (found,) = json.loads(griffin(shell, "ps", container(shell), "--json"))
    assert sorted(
        (s["engine_set"], s["flavor"], s["engines"], sorted(s["engine_ids"])) for s in found["servers"]
    ) == sorted(
        [(names[small], one_core, 1, [0]), (names[small], one_core, 1, [1]), (names[large], four_cores, 2, ids)]
    )

    with cluster.connect_client_sync() as rc:
        (server,) = set(rc[ids].apply_sync(os.getenv, "GRIFFIN_SERVER"))
        assert names[large] in server
        assert rc.load_balanced_view(ids).map_sync(abs, range(-20, 0)) == [*range(20, 0, -1)]
        assert rc[:].apply_sync(os.getenv, "COLOUR") == [None, None, "blue", "blue"]
        assert rc[:].apply_sync(os.getenv, "IPP_CONNECTION_INFO") == [None] * 4
        (file,) = set(rc[ids].apply_sync(os.getenv, "GRIFFIN_CONNECTION_FILE"))
        assert file.endswith("/security/ipcontroller-engine.json")

    cluster.stop_engines_sync(large)
    assert servers_of_tests(shell, connection) == [("snapshot10", one_core)] * 2
    assert cluster.engines[small].engine_ids() == [0, 1]


@pytest.mark.needs("catalog")
def test_a_set_that_can_not_be_leaves_the_first_alone(shell, cluster):
    (first,) = cluster.engines
    for flavor, said in (
        (shell.cloud.too_big, r"can no longer get its 1 engines\. .*No valid host was found"),
        ("huge", r"^No flavor 'huge'\. .* Set GriffinEngineSetLauncher\.flavor\.$"),
    ):
        with pytest.raises(GriffinError, match=said) as raised:
            cluster.start_engines_sync(1, flavor=flavor, max_replacements=0)
        assert "\n" not in str(raised.value)
    assert len(shell.cloud.servers()) == 2
    cluster.signal_engines_sync("CONT")  # also the sets that failed, which ipyparallel keeps
    recorded = json.loads(Path(cluster.cluster_file).read_text())
    assert list(recorded["engines"]["sets"]) == [first]


# -- servers that somebody switches off, or deletes


class Later(datetime):
    """Half an hour later every start of now is over."""

    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + timedelta(minutes=30)


def test_a_server_that_is_off_or_gone_takes_only_its_engines_with_it_and_the_last_one_the_set(
    shell, elsewhere, cluster, connection, eventually, monkeypatch
):
    first = set(shell.cloud.servers())
    added = cluster.start_engines_sync(
        2, engines_per_server=1, start_timeout=600, leave_timeout=0, watch_interval=1, log_interval=0.5
    )
    engine_set, ids = cluster.engines[added], cluster.engines[added].engine_ids()
    lost, other = sorted(set(shell.cloud.servers()) - first)
    servers = {server.name: server for server in connection.compute.servers()}
    where = (container(shell), "griffin")
    with cluster.connect_client_sync() as rc:
        rc[ids].apply_sync(os.write, 2, b"said in vain\n")
        eventually(lambda: griffin(elsewhere, "logs", *where).count("said in vain") == 2, "what they wrote")
        connection.compute.stop_server(servers[lost])
        eventually(lambda: connection.compute.get_server(servers[lost]).status == "SHUTOFF", "it is off")

    # Whoever looks for what was left finds it, when its start must be over.
    reap = ("reap", container(shell))
    assert griffin(elsewhere, *reap, "--yes") == "There is nothing to reap.\n"
    monkeypatch.setattr("ipp_griffin.cluster.inventory.datetime", Later)
    assert griffin(elsewhere, *reap, "--dry-run") == f"Server {lost} is in SHUTOFF\n"
    (found,) = json.loads(griffin(elsewhere, *reap, "--json"))
    assert (found["server"]["name"], found["why"]) == (lost, "is in SHUTOFF")
    assert "Add --yes" in griffin(elsewhere, *reap, status=1)
    assert len(shell.cloud.servers()) == 4
    assert griffin(elsewhere, *reap, "--yes").endswith("Deleted: 1.\n")
    assert set(shell.cloud.servers()) == {*first, other}
    assert griffin(elsewhere, *reap, "--yes") == "There is nothing to reap.\n"

    # What it said, and how it started, is seen from another machine all the same.
    assert "said in vain" in griffin(elsewhere, "logs", *where, lost)
    lines = griffin(elsewhere, "timeline", *where).splitlines()[2:6]
    assert sorted(line.endswith("  gone") for line in lines) == [False, False, False, True]

    # The engine of the other server goes on, until that is deleted, too.
    with cluster.connect_client_sync() as rc:
        eventually(lambda: len(rc.ids) == 3, "the first engine has been missed")
        assert rc[rc.ids[-1]].apply_sync(os.getenv, "GRIFFIN_SERVER") == other
    assert engine_set.state == "running"
    # The watcher tells ipyparallel that a set has stopped, once Nova has said so twice.
    connection.compute.delete_server(servers[other])
    eventually(lambda: engine_set.state == "after", "it has stopped")
