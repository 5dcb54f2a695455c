"""Several engine sets in one cluster, each with a flavor, an image and a number of engines a server of its own."""

import json
import os
import re
import zipfile
from pathlib import Path

import ipyparallel as ipp
import pytest

from ipp_griffin.plan import GriffinError

START = ("ipcluster", "start", "--profile=griffin", "--daemonize")
ENGINES = ("ipcluster", "engines", "--profile=griffin", "--daemonize")
STOP = ("ipcluster", "stop", "--profile=griffin")


@pytest.fixture
def cluster(shell, monkeypatch):
    """A running controller, in this process; its end takes all engine sets along."""
    for name in ("IPYTHONDIR", "OS_CLIENT_CONFIG_FILE", "OS_CLOUD"):
        monkeypatch.setenv(name, shell.env[name])
    made = ipp.Cluster(profile_dir=str(shell.profile()))
    made.start_controller_sync()
    yield made
    made.stop_cluster_sync()


@pytest.fixture
def sets(shell):
    """Of each engine set of the only cluster, by its name: the flavor, the engines, and the engine ids of its servers."""

    def list_servers() -> dict:
        container = getattr(shell.cloud, "prefix", "ipp-griffin")
        (found,) = json.loads(shell.run("ipp-griffin", "ps", f"--container={container}", "--json"))
        by_set = {}
        for server in found["servers"]:
            one = (server["flavor"], server["engines"], server["engine_ids"])
            by_set.setdefault(server["engine_set"], []).append(one)
        return by_set

    return list_servers


def servers_on_cloud(shell, openstack_client) -> list[tuple[str, str]]:
    """Image and flavor of each server that tests made, as the plain client shows them."""
    listed = json.loads(openstack_client("server", "list", "-f", "json"))
    names = shell.cloud.servers()
    return sorted((server["Image"], server["Flavor"]) for server in listed if server["Name"] in names)


@pytest.mark.needs("catalog")
def test_the_controllers_server_has_a_flavor_and_an_image_of_its_own(shell, openstack_client):
    four_cores = shell.cloud.four_cores
    own = {"flavor": four_cores, "image": "snapshot2"}
    options = [f"--GriffinServerControllerLauncher.{name}={value}" for name, value in own.items()]
    shell.run(
        "ipcluster", "start", "--profile=griffin", "--controller=griffin-server", "-n", "1", "--daemonize", *options
    )
    (of_controller,) = (one for one in servers_on_cloud(shell, openstack_client) if one == ("snapshot2", four_cores))
    (of_engine,) = set(servers_on_cloud(shell, openstack_client)) - {of_controller}
    assert of_engine[0] == "snapshot10"
    assert len(shell.engine_ids()) == 1
    shell.run("ipcluster", "stop", "--profile=griffin")
    shell.assert_nothing_left()


@pytest.mark.needs("catalog")
def test_two_sets_of_different_servers_work_side_by_side_and_one_ends(shell, cluster, sets, openstack_client):
    four_cores = shell.cloud.four_cores
    small = cluster.start_engines_sync(2)
    large = cluster.start_engines_sync(3, flavor=four_cores, image="snapshot2", engines_per_server=2)
    names = {id: cluster.engines[id].engine_set for id in (small, large)}
    ids = {id: cluster.engines[id].engine_ids() for id in (small, large)}
    assert (ids[small], ids[large]) == ([0, 1], [2, 3, 4])

    images = servers_on_cloud(shell, openstack_client)
    ((snapshot10, one_core),) = set(images) - {("snapshot2", four_cores)}
    assert snapshot10 == "snapshot10"
    assert images == sorted([("snapshot10", one_core)] * 2 + [("snapshot2", four_cores)] * 2)
    listed = sets()
    assert [(flavor, engines) for flavor, engines, _ in listed[names[small]]] == [(one_core, 1)] * 2
    assert [(flavor, engines) for flavor, engines, _ in listed[names[large]]] == [(four_cores, 2), (four_cores, 1)]
    assert sorted(id for _, _, on_server in listed[names[large]] for id in on_server) == ids[large]

    with cluster.connect_client_sync() as rc:
        on = rc[ids[large]].apply_sync(os.getenv, "GRIFFIN_SERVER")
        assert sorted(map(on.count, set(on))) == [1, 2]
        assert all(names[large] in server for server in on)
        assert rc.load_balanced_view(ids[small]).map_sync(abs, range(-20, 0)) == [*range(20, 0, -1)]

    cluster.stop_engines_sync(large)
    assert servers_on_cloud(shell, openstack_client) == [("snapshot10", one_core)] * 2
    assert list(sets()) == [names[small]]
    assert cluster.engines[small].engine_ids() == ids[small]
    with cluster.connect_client_sync() as rc:
        assert rc[ids[small]].apply_sync(abs, -42) == [42, 42]


@pytest.mark.needs("catalog")
def test_a_restarted_set_has_the_same_servers_as_before(shell, cluster, sets):
    """ipyparallel starts it by its id alone."""
    added = cluster.start_engines_sync(2, flavor=shell.cloud.four_cores, engines_per_server=2)
    before = cluster.engines[added].engine_set
    cluster.restart_engines_sync(added)
    after = cluster.engines[added].engine_set
    assert after != before
    assert {name: [one[:2] for one in servers] for name, servers in sets().items()} == {
        after: [(shell.cloud.four_cores, 2)]
    }


def package(folder: Path, name: str) -> str:
    """Put a wheel with one module into a folder; returns the option that has pip look there and nowhere else."""
    folder.mkdir()
    metadata = f"{name}-1.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "answer = 42\n")
        wheel.writestr(f"{metadata}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        wheel.writestr(f"{metadata}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{metadata}/RECORD", "")
    return f"--no-index --find-links={folder}"


@pytest.mark.needs("devcloud")  # whose servers have this machine's files
def test_each_set_has_packages_of_its_own(shell, cluster, tmp_path):
    where = package(tmp_path / "wheels", "griffin_probe").split()
    plain = cluster.start_engines_sync(1)
    more = cluster.start_engines_sync(2, engines_per_server=2, packages=["griffin-probe"], pip_args=where)
    ids = {id: cluster.engines[id].engine_ids() for id in (plain, more)}

    def answer():
        try:
            return __import__("griffin_probe").answer
        except ImportError:
            return None

    answer.__module__ = "__main__"
    with cluster.connect_client_sync() as rc:
        assert rc[ids[more]].apply_sync(answer) == [42, 42]
        assert rc[ids[plain]].apply_sync(answer) == [None]


@pytest.mark.needs("devcloud")
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"flavor": "huge"}, r"^No flavor 'huge'\. This cloud has: .*\. Set GriffinEngineSetLauncher\.flavor\.$"),
        ({"image": "cuda*"}, r"^No image 'cuda\*'\. This cloud has: .*\. Set GriffinEngineSetLauncher\.image\.$"),
        ({"network": "lan"}, r"^No network 'lan'\. This cloud has: .*\. Set GriffinEngineSetLauncher\.network\.$"),
        ({"flavour": "huge"}, r"^GriffinEngineSetLauncher has no setting 'flavour'\. Did you mean 'flavor'\?$"),
        ({"flavor": 3}, r"^A setting is wrong: The 'flavor' trait .* not the int 3\.$"),
        ({"engines_per_server": -1}, r"engines_per_server is -1: it must be 1 or more"),
        pytest.param(
            {"flavor": "{cloud.too_big}", "max_replacements": 0},
            r"can't have its 1 engines any more\. .*No valid host was found",
            marks=pytest.mark.needs("catalog"),
        ),
    ],
    ids=["flavor", "image", "network", "a typo", "a wrong type", "engines", "too big"],
)
def test_a_second_set_that_can_not_be_is_one_line_and_the_first_goes_on(shell, cluster, sets, given, said):
    first = cluster.start_engines_sync(1)
    servers = shell.cloud.servers()
    given = {
        name: value.format(cloud=shell.cloud) if isinstance(value, str) else value for name, value in given.items()
    }
    with pytest.raises(GriffinError, match=said) as raised:
        cluster.start_engines_sync(1, **given)
    assert "\n" not in str(raised.value)
    assert shell.cloud.servers() == servers
    assert list(sets()) == [cluster.engines[first].engine_set]
    cluster.signal_engines_sync("CONT")  # also the set that failed, which ipyparallel keeps
    with cluster.connect_client_sync() as rc:
        assert rc[:].apply_sync(abs, -42) == [42]
    recorded = json.loads(Path(cluster.cluster_file).read_text())
    assert list(recorded["engines"]["sets"]) == [first]


@pytest.mark.needs("catalog")
def test_engines_of_another_flavor_join_a_running_cluster_and_one_stop_ends_them_all(shell, sets, openstack_client):
    shell.run(*START, "-n", "1")
    four_cores = shell.cloud.four_cores
    flavor = f"--GriffinEngineSetLauncher.flavor={four_cores}"
    output = shell.run(*ENGINES, "-n", "4", flavor, "--GriffinEngineSetLauncher.image=snapshot2")
    assert re.search(rf"Starting 4 engines on 1 server: image snapshot2, flavor {four_cores} \(4 vCPU\)", output)
    assert ("snapshot2", four_cores) in servers_on_cloud(shell, openstack_client)
    assert sorted(len(ids) for servers in sets().values() for _, _, ids in servers) == [1, 4]
    output = shell.run(*ENGINES, "-n", "1", "--GriffinEngineSetLauncher.flavor=huge", status=1)
    (line,) = [line for line in output.splitlines() if re.search("CRITICAL|ERROR", line)]
    assert re.search(r"No flavor 'huge'\. .* Set GriffinEngineSetLauncher\.flavor\.$", line)
    assert len(shell.engine_ids()) == 5
    # Whatever the configuration says when it is stopped:
    with (shell.profile() / "ipcluster_config.py").open("a") as f:
        f.write("c.GriffinEngineSetLauncher.flavor = 'gone'\nc.GriffinEngineSetLauncher.network = 'nowhere'\n")
    shell.run(*STOP)


@pytest.mark.needs("catalog")
def test_the_profiles_own_engine_settings_are_those_of_its_first_set(shell, sets):
    """`ipcluster start` with a flavor for engines alone."""
    with (shell.profile() / "ipcluster_config.py").open("a") as f:
        f.write(f"c.GriffinEngineSetLauncher.flavor = {shell.cloud.four_cores!r}\nc.GriffinCloud.flavor = 'unused'\n")
    shell.run(*START, "-n", "4")
    assert [[one[:2] for one in servers] for servers in sets().values()] == [[(shell.cloud.four_cores, 4)]]
    shell.run(*STOP)
