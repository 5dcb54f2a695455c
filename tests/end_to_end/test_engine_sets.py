"""Engine sets that can't be, asked of one running controller, which is of this process: each is one line, and nothing is left of it."""

import copy
import re
import threading

import ipyparallel as ipp
import pytest

from ipp_griffin.common.errors import GriffinError

pytestmark = pytest.mark.xdist_group(__name__)


@pytest.fixture(scope="module")
def controller(shared_shell):
    """A cluster of the profile, by its name, that has a controller only."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("IPYTHONDIR", "OS_CLIENT_CONFIG_FILE", "OS_CLOUD"):
            patch.setenv(name, shared_shell.env[name])
        made = ipp.Cluster(profile="griffin")
        try:
            made.start_controller_sync()
            yield made
        finally:
            made.stop_cluster_sync()


@pytest.fixture
def cluster(controller, shared_cloud):
    """That cluster; all engine sets that the test starts end with it, and so do faults."""
    yield controller
    if "faults" in shared_cloud.has:
        shared_cloud.faults.clear()
    controller.stop_engines_sync()


@pytest.fixture
def shell(shared_shell):
    return shared_shell


def on_entry(cluster, entry: str) -> dict:
    """The settings of this cluster with another entry of clouds.yaml, for one engine set."""
    config = copy.deepcopy(cluster.config)
    config.GriffinCloud.cloud = entry
    return {"config": config}


def refused(cluster, n: int, **given) -> str:
    """Return the one line that says why this engine set can't be."""
    with pytest.raises(GriffinError) as raised:
        cluster.start_engines_sync(n, **given)
    assert "\n" not in str(raised.value)
    return str(raised.value)


HAS = r"This cloud has: .*\. Set GriffinEngineSetLauncher"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"flavor": "huge"}, rf"^No flavor 'huge'\. {HAS}\.flavor\.$"),
        ({"image": "cuda*"}, rf"^No image 'cuda\*'\. {HAS}\.image\.$"),
        ({"network": "lan"}, rf"^No network 'lan'\. {HAS}\.network\.$"),
        ({"key_name": "mine"}, rf"^No key pair 'mine'\. {HAS}\.key_name\.$"),
        ({"security_groups": ["web"]}, rf"^No security group 'web'\. {HAS}\.security_groups\.$"),
        ({"availability_zone": "mars"}, rf"^No availability zone 'mars'\. {HAS}\.availability_zone\.$"),
        ({"flavour": "huge"}, r"^GriffinEngineSetLauncher has no setting 'flavour'\. Did you mean 'flavor'\?$"),
        ({"flavor": 3}, r"^A setting is wrong: The 'flavor' trait .* not the int 3\.$"),
        ({"engines_per_server": -1}, r"engines_per_server is -1: it must be 1 or more"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_set_that_can_not_be_is_one_line_before_anything_is_made(shell, cluster, given, said):
    assert re.search(said, refused(cluster, 1, **given))
    assert shell.cloud.left_over() == []


@pytest.mark.needs("tiny")
def test_a_set_that_the_quota_can_not_hold_is_one_line_before_anything_is_made(shell, cluster):
    said = refused(cluster, 8, engines_per_server=1, **on_entry(cluster, f"{shell.cloud.name}-tiny"))
    assert "needs 8 instances, but 0 of 2 are used" in said
    assert shell.cloud.left_over() == []


@pytest.mark.needs("app-reader")
def test_a_credential_that_may_only_read_is_told_which_role_it_lacks(shell, cluster):
    said = refused(cluster, 1, **on_entry(cluster, f"{shell.cloud.name}-app-reader"))
    assert "lack the role for it (member)" in said
    assert shell.cloud.left_over() == []


def test_a_container_that_is_not_ours_is_an_error_and_stays_as_it_is(shell, cluster, connection, monkeypatch):
    """Somebody else's container, which happens to have the name that this cluster's would have."""
    name = f"{cluster.controller.container}-{cluster.controller.uid}"
    connection.object_store.create_container(name)
    connection.object_store.upload_object(name, "thesis.txt", data=b"years of work")
    monkeypatch.setattr(
        "ipp_griffin.cloud.store.store.MARKER_WAIT", 1
    )  # it could be another process's, about to be marked
    assert re.search(f"{name}.* does not belong to this cluster", refused(cluster, 1))
    assert connection.object_store.download_object("thesis.txt", container=name) == b"years of work"
    assert shell.cloud.servers() == []
    connection.object_store.delete_object("thesis.txt", container=name)
    connection.object_store.delete_container(name)


@pytest.mark.needs("faults")
def test_a_server_that_is_deleted_during_the_start_ends_it_without_replacements(shell, cluster, connection, eventually):
    shell.cloud.faults.set({"server": ".*-1$", "boot_time": 20})

    def delete_one():
        eventually(lambda: len(shell.cloud.servers()) == 2, "two servers")
        first = min(shell.cloud.servers())
        (server,) = (server for server in connection.compute.servers() if server.name == first)
        connection.compute.delete_server(server)

    somebody = threading.Thread(target=delete_one, daemon=True)
    somebody.start()
    said = refused(cluster, 2, engines_per_server=1, max_replacements=0)
    somebody.join(60)
    assert re.search(r"can no longer get its 2 engines\. Server griffin-\S+ \(\w+\) is gone: somebody deleted it", said)
    assert shell.cloud.servers() == []
