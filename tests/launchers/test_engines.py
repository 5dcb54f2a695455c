"""`GriffinEngineSetLauncher`: its lifecycle, over fakes of the cloud, the object store and the hub."""

import asyncio
import json
import logging
import re
import signal
import threading
import time
import types
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from ipyparallel.cluster.launcher import ipengine_cmd_argv
from traitlets.config import Config

from ipp_griffin.cloud.security_groups import SecurityGroup
from ipp_griffin.cluster import output
from ipp_griffin.cluster.firewall import admitting_rule
from ipp_griffin.cluster.inventory import Clusters
from ipp_griffin.common.errors import CloudError, GriffinError, QuotaError, SettingError, Stopped, Unavailable
from ipp_griffin.common.threads import in_thread
from ipp_griffin.controller import heartbeats
from ipp_griffin.launchers import GriffinEngineSetLauncher
from ipp_griffin.model.connection import cluster_uid
from ipp_griffin.model.names import set_tag, uid_tag
from ipp_griffin.model.plan import Flavor, Image, Limits, Network

from .doors import CONNECTION


@pytest.fixture
async def launcher(fake_cloud, store, hub, cluster, tmp_path, no_pauses):
    """A launcher as ipyparallel makes one, connection file in its environment, and a connection file for its hub."""
    (tmp_path / "security").mkdir()
    made = GriffinEngineSetLauncher(parent=cluster, profile_dir=str(tmp_path), engine_set_id="1700000000")
    made.environment = {"IPP_CONNECTION_INFO": json.dumps(CONNECTION)}
    Path(made.connection_files["client"]).write_text(json.dumps(CONNECTION))
    cluster.launcher = made
    yield made
    made._stopping.set()  # ends the watcher


def private_object(launcher, store):
    return json.loads(store.there[launcher.uid][f"{launcher.engine_set}/connection.json"])


# --- start


async def test_a_start_returns_with_its_servers_recorded_and_running(launcher, fake_cloud, hub):
    await launcher.start(2)
    assert launcher.state == "running"
    assert launcher.servers == ["id-0", "id-1"]
    assert launcher.uid == cluster_uid(CONNECTION)
    tags = {uid_tag(launcher.uid), set_tag(launcher.engine_set)}
    assert all(tags <= set(server.tags) for server in fake_cloud.there.values())
    assert hub.methods == ["open", "engines", "close"]


@pytest.mark.parametrize("n", [0, -1, None, 2.5, "2"])
async def test_less_than_one_engine_is_refused_before_any_request(launcher, fake_cloud, n):
    with pytest.raises(SettingError, match=f"Can't start {n} engines"):
        await launcher.start(n)
    assert fake_cloud.calls == []
    assert launcher.state == "after"


async def test_connection_info_is_read_when_the_start_begins_not_before(launcher, store):
    """ipyparallel puts it into the environment after it has made the launcher."""
    later = {**CONNECTION, "registration": 21000}
    launcher.environment = {"IPP_CONNECTION_INFO": json.dumps(later)}
    await launcher.start(1)
    assert private_object(launcher, store)["connection"] == later


async def test_what_the_user_set_for_engines_travels_and_the_connection_info_only_once(launcher, store, tmp_path):
    (tmp_path / "ipengine_config.py").write_text("c.IPEngine.timeout = 3\n")
    launcher.environment["OMP_NUM_THREADS"] = "1"
    launcher.engine_args = ["--log-level=10"]
    launcher.engine_cmd = ["/opt/bin/my-engine"]
    launcher.packages = ["numpy"]
    launcher.log_interval = 7
    await launcher.start(1)
    content = private_object(launcher, store)
    assert content["timeouts"]["log_interval"] == 7
    wanted = ("environment", "engine_args", "engine_cmd", "packages", "ipengine_config")
    assert {name: content[name] for name in wanted} == {
        "environment": {"OMP_NUM_THREADS": "1", "IPP_CLUSTER_ID": "", "IPP_PROFILE_DIR": str(tmp_path)},
        "engine_args": ["--log-level=10"],
        "engine_cmd": ["/opt/bin/my-engine"],
        "packages": ["numpy"],
        "ipengine_config": heartbeats.for_engine("c.IPEngine.timeout = 3\n", {}),
    }
    assert json.dumps(content).count(CONNECTION["key"]) == 1


async def test_engines_of_a_controller_that_asks_over_its_connections_do_so_too(launcher, store, tmp_path):
    (tmp_path / "ipengine_config.py").write_text("c.IPEngine.timeout = 3\n")
    launcher.environment = {"IPP_CONNECTION_INFO": json.dumps({**CONNECTION, heartbeats.MARK: True})}
    await launcher.start(1)
    assert private_object(launcher, store)["ipengine_config"] == heartbeats.for_engine(
        "c.IPEngine.timeout = 3\n", {heartbeats.MARK: True}
    )


async def test_the_private_object_is_put_while_servers_are_created(launcher, fake_cloud, store):
    creating, put = threading.Event(), threading.Event()

    def then(*stored):
        assert creating.wait(60)
        put.set()

    def before_landing():
        creating.set()
        assert put.wait(60)

    store.then, fake_cloud.before_landing = then, before_landing
    await launcher.start(2)
    assert private_object(launcher, store)


async def test_a_private_object_that_can_not_be_put_fails_the_start_and_leaves_no_server(launcher, fake_cloud, store):
    store.fail["put"] = [CloudError("413: Too Large")]
    with pytest.raises(CloudError, match="Too Large"):
        await launcher.start(2)
    assert fake_cloud.plans
    assert fake_cloud.there == {}


async def test_ipyparallels_own_engine_command_stays_here(launcher, store):
    """It names this machine's Python."""
    assert launcher.engine_cmd == ipengine_cmd_argv
    await launcher.start(1)
    assert private_object(launcher, store)["engine_cmd"] == []


async def test_uid_and_engine_set_are_in_the_cluster_file_before_the_first_server_is_asked_for(launcher, cluster):
    """So a crash at any point leaves nothing that can't be found."""
    await launcher.start(2)
    (first, creations_before), (last, _) = cluster.written[0], cluster.written[-1]
    assert creations_before == 0
    assert (first["uid"], first["engine_set"], first["servers"]) == (launcher.uid, launcher.engine_set, [])
    assert last["servers"] == ["id-0", "id-1"]


async def test_a_start_that_the_quota_refuses_tells_what_earlier_clusters_left(
    launcher, fake_cloud, monkeypatch, caplog
):
    """That may be what the quota is used for."""
    fake_cloud.offers = replace(fake_cloud.offers, limits=Limits(10, 10, -1, 0, -1, 0))
    server = types.SimpleNamespace(name="griffin-0000000000aa-0")
    left = types.SimpleNamespace(server=server, cluster=types.SimpleNamespace(uid="0000000000aa"), why="is in SHUTOFF")
    monkeypatch.setattr(Clusters, "servers_left", lambda self: [left])
    launcher.log = logging.getLogger("start")
    with pytest.raises(SettingError, match="quota is too small"):
        await launcher.start(1)
    assert "griffin-0000000000aa-0 is in SHUTOFF" in caplog.text
    assert fake_cloud.plans == []


# --- servers of its own


@pytest.fixture
def two_of_each(fake_cloud):
    """A cloud with a choice."""
    fake_cloud.offers = replace(
        fake_cloud.offers,
        images=[Image("i1", "snapshot1"), Image("i2", "gpu-image")],
        flavors=[Flavor("f1", "small", 1, 1024), Flavor("f2", "large", 4, 8192)],
        networks=[Network("n1", "net", ("10.0.0.0/16",)), Network("n2", "lab", ("10.7.0.0/16",))],
    )


async def test_the_servers_are_what_the_launcher_sets_not_what_griffincloud_does(
    launcher, fake_cloud, cluster, hub, two_of_each
):
    hub.engines = lambda engine_set="": {f"{engine_set}-{n // 4}-0-{n % 4}-0": n for n in range(6)}
    cluster.config.GriffinCloud.update(image="snapshot1", flavor="small", network="net")
    launcher.image, launcher.flavor, launcher.network = "gpu-image", "large", "lab"
    await launcher.start(6)
    (plan,) = fake_cloud.plans
    assert (plan.image.name, plan.flavor.name, plan.network.name) == ("gpu-image", "large", "lab")
    assert [server.engines for server in plan.servers] == [4, 2]


async def test_a_network_of_its_own_needs_no_other(launcher, fake_cloud, two_of_each):
    """With several in the project, none of which is GriffinCloud's."""
    launcher.network = "lab"
    await launcher.start(1)
    assert fake_cloud.plans[0].network.name == "lab"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"flavor": "huge"}, r"No flavor 'huge'\. .* Set GriffinEngineSetLauncher\.flavor\.$"),
        ({"image": "huge"}, r"No image 'huge'\. .* Set GriffinEngineSetLauncher\.image\.$"),
        (
            {"network": ""},
            r"several networks: lab, net\. Set GriffinCloud\.network \(or GriffinEngineSetLauncher\.network, for these servers alone\) to",
        ),
        ({"network": "wan"}, r"No network 'wan'\. .* Set GriffinEngineSetLauncher\.network\.$"),
        (
            {"security_groups": ["web"]},
            r"No security group 'web'\. .* Set GriffinEngineSetLauncher\.security_groups\.$",
        ),
        ({"key_name": "eve"}, r"No key pair 'eve'\. .* Set GriffinEngineSetLauncher\.key_name\.$"),
        (
            {"availability_zone": "mars"},
            r"No availability zone 'mars'\. .* Set GriffinEngineSetLauncher\.availability_zone\.$",
        ),
    ],
)
async def test_what_the_cloud_does_not_have_is_told_before_anything_is_made(
    launcher, fake_cloud, store, two_of_each, settings, said
):
    for name, value in {"network": "net", **settings}.items():
        setattr(launcher, name, value)
    with pytest.raises(SettingError, match=said):
        await launcher.start(1)
    assert (launcher.state, fake_cloud.plans, store.there) == ("after", [], {})


async def test_a_set_is_stopped_whatever_another_configuration_says_of_its_servers(launcher, fake_cloud, two_of_each):
    launcher.network, launcher.flavor = "lab", "large"
    await launcher.start(1)
    other = Config({"GriffinEngineSetLauncher": {"flavor": "none-such", "network": "nowhere", "image": "gone"}})
    restored = GriffinEngineSetLauncher.from_dict(json.loads(json.dumps(launcher.to_dict())), config=other)
    await restored.stop()
    assert (restored.state, fake_cloud.there) == ("after", {})


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (Network("n1", "net", ("10.0.0.0/16",)), "GriffinCloud.manage_security_group = True."),
        (
            Network("n2", "lab", ("10.7.0.0/16",)),
            "GriffinCloud.manage_security_group = True. If 10.0.0.1 is on another network, network 'lab' needs a router to it.",
        ),
    ],
)
def test_the_rule_that_lets_engines_in_is_for_the_network_of_the_set(fake_cloud, network, said):
    rule = admitting_rule(fake_cloud, CONNECTION, network)
    assert f"--dst-port 20000:20000 --remote-ip {network.subnets[0]} GROUP`" in rule
    assert rule.endswith(said)


async def test_an_unreachable_controller_is_told_with_the_rule_that_lets_engines_in(launcher, fake_cloud, store, hub):
    """As the agent says it: tests/agent/test_agent_process.py."""
    hub.listed = {}

    def agent_gives_up():
        name = f"{launcher.engine_set}/0.0/0001-failed"
        store.there[launcher.uid][name] = b""
        said = "controller port unreachable for 1 s: address 10.0.0.1 port 20000 (Connection refused). "
        store.contents[name] = {"message": said, "engines": []}

    fake_cloud.before_landing = agent_gives_up
    with pytest.raises(GriffinError) as raised:
        await launcher.start(1)
    assert "gave up: controller port unreachable for 1 s: address 10.0.0.1 port 20000 (Conn" in str(raised.value)
    assert f" {admitting_rule(fake_cloud, CONNECTION, fake_cloud.networks()[0])}" in str(raised.value)
    assert fake_cloud.there == {}


# --- security groups of its own


async def test_servers_are_in_the_clusters_own_security_group(launcher, fake_cloud, cluster):
    """It is made when the private_object is there, and before the first server."""
    cluster.config.GriffinCloud.manage_security_group = True
    await launcher.start(1)
    assert fake_cloud.groups.asked("make", "uid", "head", "ports") == [(launcher.uid, None, (20000, 20000))]
    assert fake_cloud.plans[0].security_groups == ("g-1",)
    await launcher.stop()
    assert fake_cloud.groups.asked("remove", "uid") == [launcher.uid]


async def test_groups_that_can_not_be_made_fail_the_start_before_any_server(launcher, fake_cloud, cluster, store):
    cluster.config.GriffinCloud.manage_security_group = True
    fake_cloud.groups.fail["make"] = [QuotaError("Can't make security group griffin-x-engines: Quota exceeded")]
    with pytest.raises(QuotaError, match="Can't make security group"):
        await launcher.start(1)
    assert (fake_cloud.plans, store.there) == ([], {})


async def test_without_them_neutron_is_not_asked(launcher, fake_cloud):
    await launcher.start(1)
    await launcher.stop()
    assert fake_cloud.groups.methods == []


@pytest.mark.parametrize("how", ["ipcluster engines", "another set", "the controller's launcher knows"])
async def test_a_set_that_joins_a_cluster_with_groups_is_in_them_whatever_is_set_here(
    launcher, fake_cloud, cluster, how
):
    """It was started with another profile, or on another machine, and its controller lets in nobody else."""
    if how != "the controller's launcher knows":
        fake_cloud.groups.there = [SecurityGroup("g-1", "", cluster_uid(CONNECTION), "engines")]
    if how == "ipcluster engines":
        cluster.controller = None
    elif how == "another set":
        cluster.engines = {"first": object(), "second": launcher}
    else:
        cluster.controller.has_groups = True
    await launcher.start(1)
    assert fake_cloud.groups.asked("make", "uid", "head", "ports") == [(launcher.uid, None, (20000, 20000))]
    assert fake_cloud.plans[0].security_groups == ("g-1",)
    assert launcher.has_groups
    await launcher.stop()


# --- state


async def test_the_state_is_json_and_holds_no_secret(launcher):
    await launcher.start(2)
    state = launcher.to_dict()
    text = json.dumps(state)
    assert json.loads(text) == state
    assert type(state["servers"]) is list
    assert CONNECTION["key"] not in text
    assert CONNECTION["curve_serverkey"] not in text


async def test_restoring_asks_nothing_and_changes_nothing(launcher, fake_cloud):
    """ipyparallel rewrites the cluster file where the state differs, and calls this from its event loop."""
    await launcher.start(2)
    state = json.loads(json.dumps(launcher.to_dict()))
    fake_cloud.calls.clear()
    restored = GriffinEngineSetLauncher.from_dict(state)
    try:
        assert restored.to_dict() == state
        assert restored.running
    finally:
        restored._stopping.set()
    assert fake_cloud.calls == []


async def test_a_restored_set_is_stopped_by_its_own_cloud_whatever_the_config_says(launcher, fake_cloud):
    launcher.config = Config({"GriffinCloud": {"cloud": "mine", "region": "north"}})
    await launcher.start(1)
    other = Config({"GriffinCloud": {"cloud": "theirs", "region": "south"}})
    restored = GriffinEngineSetLauncher.from_dict(json.loads(json.dumps(launcher.to_dict())), config=other)
    fake_cloud.calls.clear()
    await restored.stop()
    assert set(fake_cloud.asked("connect", "name", "region")) == {("mine", "north")}
    assert fake_cloud.there == {}


# --- stop


async def test_stop_leaves_nothing_and_can_be_repeated(launcher, fake_cloud, store, hub):
    await launcher.start(2)
    await launcher.stop()
    await launcher.stop()
    assert launcher.state == "after"
    assert launcher.stop_data == {"exit_code": 0, "identifier": launcher.identifier}
    assert fake_cloud.deleted == [["id-0", "id-1"]]
    assert (fake_cloud.there, store.there) == ({}, {})
    assert hub.methods == ["open", "engines", "close", "open", "engines", "shut_down", "close"]


async def test_stops_at_the_same_time_delete_once(launcher, fake_cloud):
    await launcher.start(2)
    await asyncio.gather(*[launcher.stop() for _ in range(3)])
    assert fake_cloud.deleted == [["id-0", "id-1"]]


async def test_a_set_that_never_started_stops_without_a_request(launcher, fake_cloud):
    await launcher.stop()
    assert fake_cloud.calls == []


@pytest.mark.parametrize("error", [TimeoutError("no answer"), GriffinError("no file"), OSError("gone")])
async def test_stop_does_without_a_controller(launcher, fake_cloud, hub, error):
    await launcher.start(1)
    hub.fail["open"] = [error]
    await launcher.stop()
    assert (launcher.state, fake_cloud.there) == ("after", {})


async def test_stop_while_servers_are_being_created_waits_and_deletes_what_lands(launcher, fake_cloud, store):
    creating, touched = threading.Event(), threading.Event()
    seen = []

    def before_landing():
        creating.set()
        seen.append(launcher._stopping.wait(60))
        # A stop that does not wait for the creation looks at the cloud right now; one that does, never.
        seen.append(touched.wait(0.3))

    def servers(*tags):
        touched.set()
        return listed(*tags)

    listed = fake_cloud.servers
    fake_cloud.before_landing, fake_cloud.servers = before_landing, servers
    starting = asyncio.ensure_future(launcher.start(1))
    assert await in_thread(lambda: creating.wait(60))
    await launcher.stop()
    assert seen == [True, False]
    assert (fake_cloud.there, store.there) == ({}, {})
    assert launcher.state == "after"
    with pytest.raises(Stopped):
        await starting


async def test_stop_while_engines_are_awaited_is_no_failure_of_the_servers(launcher, fake_cloud, hub):
    """The start sees its servers disappear, and must not call it that."""
    hub.listed = {}
    awaiting = threading.Event()
    look = hub.engines

    def engines(engine_set=""):
        awaiting.set()
        return look(engine_set)

    hub.engines = engines
    launcher.poll_interval = 0.0
    starting = asyncio.ensure_future(launcher.start(2))
    assert await in_thread(lambda: awaiting.wait(60))
    await launcher.stop()
    with pytest.raises(Stopped, match="stopped while it was starting"):
        await starting
    assert (launcher.state, fake_cloud.there) == ("after", {})


async def test_a_start_that_is_cancelled_leaves_nothing(launcher, fake_cloud, store, hub):
    """As by `asyncio.wait_for`."""
    hub.listed = {}
    awaiting = threading.Event()
    hub.engines = lambda engine_set="": awaiting.set() or {}
    starting = asyncio.ensure_future(launcher.start(2))
    assert await in_thread(lambda: awaiting.wait(60))
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert (launcher.state, fake_cloud.there) == ("after", {})


# --- a start that fails


async def test_a_start_that_fails_before_anything_was_made_asks_for_no_deletion(launcher, fake_cloud, store):
    launcher.config = Config({"GriffinCloud": {"image": "nope"}})
    with pytest.raises(SettingError, match="No image 'nope'. This cloud has: snapshot1"):
        await launcher.start(1)
    assert (launcher.state, fake_cloud.deleted, store.there) == ("after", [], {})


async def test_a_set_has_nothing_of_one_of_its_id_that_was_refused(launcher, cluster):
    """ipyparallel makes ids of seconds: somebody who is refused, and starts another set at once, may get the same."""
    given = {"parent": cluster, "profile_dir": launcher.profile_dir, "engine_set_id": launcher.engine_set_id}
    wrong = GriffinEngineSetLauncher(**given, image="nope")
    wrong.environment = launcher.environment
    with pytest.raises(SettingError, match="No image 'nope'"):
        await wrong.start(1)
    assert GriffinEngineSetLauncher(**given).image == ""


async def test_a_set_that_started_has_its_settings_for_a_restart(launcher, cluster):
    given = {"parent": cluster, "profile_dir": launcher.profile_dir, "engine_set_id": launcher.engine_set_id}
    first = GriffinEngineSetLauncher(**given, image="snapshot1")
    first.environment = launcher.environment
    await first.start(1)
    await first.stop()
    assert GriffinEngineSetLauncher(**given).image == "snapshot1"


async def test_a_start_that_failed_when_there_were_servers_has_ended_with_status_1(launcher, fake_cloud):
    fake_cloud.fail_late["create_server"] = [QuotaError("Quota exceeded")]
    with pytest.raises(QuotaError):
        await launcher.start(2)
    assert launcher.stop_data == {"exit_code": 1, "identifier": launcher.identifier}


async def test_servers_that_fail_are_named_and_the_others_deleted_too(launcher, fake_cloud, hub):
    hub.listed = {}
    fake_cloud.shows = lambda server: replace(server, status="ERROR", fault="No valid host")
    with pytest.raises(GriffinError) as raised:
        await launcher.start(4)
    names = ", ".join(f"griffin-{launcher.uid}-{launcher.engine_set}-{slot}" for slot in range(4))
    assert str(raised.value) == (
        f"The engine set can no longer get its 4 engines. Each of the servers {names} (building) went to ERROR: No valid host. "
        "All servers of this start are deleted."
    )
    assert fake_cloud.there == {}


async def test_a_failed_start_whose_clean_up_fails_says_both_and_can_be_stopped(launcher, fake_cloud, store):
    fake_cloud.fail_late["create_server"] = [QuotaError("Quota exceeded.")]
    fake_cloud.fail["delete_servers"] = [Unavailable("Can't delete.")]
    launcher.stop_timeout = 0
    with pytest.raises(QuotaError) as raised:
        await launcher.start(2)
    assert str(raised.value) == ("Quota exceeded. Cleaning up failed, too: Can't delete. Run the same stop again.")
    assert launcher.state == "running"
    launcher.stop_timeout = 60
    await launcher.stop()
    assert (launcher.state, fake_cloud.there, store.there) == ("after", {}, {})


async def test_engines_that_never_connect_end_the_start_at_its_deadline(launcher, fake_cloud, hub):
    hub.listed = {}
    launcher.start_timeout, launcher.poll_interval = 1.0, 0.0
    with pytest.raises(GriffinError) as raised:
        await launcher.start(1)
    assert str(raised.value) == (
        "Only 0 of 1 engines connected within 1 s; servers: 1 active. "
        f"Never reported: griffin-{launcher.uid}-{launcher.engine_set}-0 (can they reach the object store?). "
        "All servers of this start are deleted. If the cloud is only slow, increase GriffinEngineSetLauncher.start_timeout."
    )
    assert fake_cloud.there == {}


async def test_the_clean_up_of_a_failed_start_outlasts_an_outage(launcher, fake_cloud, store):
    """An outage of the cloud may be what failed the start."""
    fake_cloud.fail_late["create_server"] = [QuotaError("Quota exceeded.")]
    fake_cloud.fail["delete_servers"] = [Unavailable("the cloud said 503")] * 3
    launcher.stop_timeout = 60
    with pytest.raises(QuotaError, match=r"^Quota exceeded\.$"):
        await launcher.start(2)
    assert (launcher.state, fake_cloud.there, store.there) == ("after", {}, {})


@pytest.mark.parametrize(("door", "method"), [("cloud", "servers"), ("store", "reports")])
async def test_an_outage_while_engines_are_awaited_fails_nothing_and_is_told_once(
    launcher, fake_cloud, store, hub, monkeypatch, door, method
):
    fails = [Unavailable("the cloud said 503"), Unavailable("the cloud said 503")]
    {"cloud": fake_cloud, "store": store}[door].fail[method] = fails
    look = hub.engines
    hub.engines = lambda engine_set="": {} if fails else look(engine_set)
    launcher.poll_interval = 0.0
    told = []
    monkeypatch.setattr(launcher.log, "warning", told.append)
    await launcher.start(2)
    assert launcher.state == "running"
    assert told == ["Can't list the servers now; will retry: the cloud said 503"]


async def test_a_setting_of_a_wrong_type_is_told_by_the_start(cluster, tmp_path, fake_cloud):
    """ipcluster can't handle an exception while launchers are made."""
    cluster.config = Config({"GriffinEngineSetLauncher": {"parallel": "many"}})
    launcher = GriffinEngineSetLauncher(parent=cluster, profile_dir=str(tmp_path))
    cluster.launcher = launcher
    with pytest.raises(SettingError, match="A setting is wrong: .*'parallel' trait"):
        await launcher.start(1)
    assert fake_cloud.calls == []


# --- another project, and a cluster without its controller


async def test_credentials_for_another_project_are_refused(launcher, fake_cloud):
    """Its emptiness is no success."""
    await launcher.start(1)
    assert launcher.to_dict()["project"] == "p1"
    fake_cloud.project_id = "p2"
    launcher._doors = None
    with pytest.raises(SettingError) as raised:
        await launcher.stop()
    assert str(raised.value).startswith(
        "This cluster is in project p1, but these credentials are for project p2. Use those that it was started with"
    )
    assert str(raised.value).endswith("Run the same stop again.")
    assert (launcher.state, list(fake_cloud.there)) == ("running", ["id-0"])
    fake_cloud.project_id = "p1"
    await launcher.stop()
    assert fake_cloud.there == {}


async def test_the_error_of_a_stop_names_the_file_to_delete_where_the_cloud_is_gone(launcher, fake_cloud, cluster):
    await launcher.start(1)
    cluster.cluster_file = "/x/cluster-.json"
    fake_cloud.fail["delete_servers"] = [Unavailable("the cloud said 503.")]
    with pytest.raises(Unavailable) as raised:
        await launcher.stop()
    assert str(raised.value) == (
        "the cloud said 503. Run the same stop again; if that cloud is gone for good, delete /x/cluster-.json."
    )


@pytest.mark.parametrize(("controller", "swept"), [(None, True), (types.SimpleNamespace(state="running"), False)])
async def test_the_last_restored_set_without_a_controller_sweeps_up(launcher, cluster, monkeypatch, controller, swept):
    """The controller died: nobody else will."""
    await launcher.start(1)
    restored = GriffinEngineSetLauncher.from_dict(json.loads(json.dumps(launcher.to_dict())), parent=cluster)
    cluster.controller, cluster.engines = controller, {"1": restored}
    sweeps = []
    monkeypatch.setattr(restored, "sweep", lambda: sweeps.append(restored.uid))
    await restored.stop()
    assert sweeps == ([launcher.uid] if swept else [])
    assert restored.state == "after"


async def test_a_restored_set_leaves_the_sweep_to_the_last_one(launcher, cluster, monkeypatch):
    await launcher.start(1)
    restored = GriffinEngineSetLauncher.from_dict(json.loads(json.dumps(launcher.to_dict())), parent=cluster)
    cluster.controller, cluster.engines = None, {"1": restored, "2": launcher}
    monkeypatch.setattr(restored, "sweep", lambda: pytest.fail("swept while another set runs"))
    await restored.stop()


# --- signals, output, the end


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL, "SIGTERM", "SIGKILL", "TERM", "KILL", 15, 9])
async def test_a_signal_that_ends_engines_stops_the_set(launcher, fake_cloud, sig):
    await launcher.start(1)
    await launcher.signal(sig)
    assert (launcher.state, fake_cloud.there) == ("after", {})


async def test_any_other_signal_goes_to_the_engines(launcher, fake_cloud, hub, caplog):
    await launcher.start(1)
    await launcher.signal(signal.SIGINT)
    assert hub.asked("signal", "sig") == [signal.SIGINT]
    await launcher.signal("USR1")
    assert hub.asked("signal", "sig")[1:] == ["SIGUSR1"]
    assert (launcher.state, len(fake_cloud.there)) == ("running", 1)


async def test_a_signal_that_reached_nobody_is_told(launcher, hub, monkeypatch):
    await launcher.start(1)
    hub.listed = {}
    told = []
    monkeypatch.setattr(launcher.log, "warning", told.append)
    await launcher.signal(signal.SIGINT)
    assert told == [f"No engine of {launcher.identifier} is connected: signal 2 reached none."]


async def test_a_set_that_failed_before_it_had_servers_signals_nobody_and_lists_no_engines(launcher, fake_cloud, hub):
    """It stays in `Cluster.engines`; to the hub, no name means all sets."""
    launcher.network = "none-such"
    with pytest.raises(SettingError):
        await launcher.start(1)
    hub.listed = {"cafe0001-0-0-0-0": 0}
    await launcher.signal(signal.SIGINT)
    assert launcher.engine_ids() == []
    assert hub.methods == []


async def test_the_ids_of_its_engines_are_what_the_controller_lists_now(launcher, hub):
    await launcher.start(2)
    assert launcher.engine_ids() == [0, 1]
    hub.listed = {f"{launcher.engine_set}-1-0-0-0": 7}
    assert launcher.engine_ids() == [7]


def write_report(launcher, store, output):
    name = f"{launcher.engine_set}/0.0/0004-gone"
    store.there[launcher.uid][name] = b""
    store.contents[name] = {"engines": [{"index": 0, "output": output}, {"index": 1, "output": ""}]}


async def test_output_is_there_while_it_runs_and_after_the_stop(launcher, store):
    await launcher.start(1)
    assert launcher.get_output() == ""
    write_report(launcher, store, "hello\nworld\n")
    assert launcher.get_output() == "Output for engine 0.0\n  hello\n  world\n"
    write_report(launcher, store, "bye")
    await launcher.stop()
    assert store.there == {}
    assert launcher.get_output(remove=True) == "Output for engine 0.0\n  bye"


async def test_output_is_kept_in_a_private_file_for_whoever_did_not_stop_it(launcher, store, cluster):
    await launcher.start(1)
    state = launcher.to_dict()
    write_report(launcher, store, "bye")
    await launcher.stop()
    kept = Path(launcher.profile_dir, "log", f"ipengine-{launcher.engine_set}.log")
    assert (kept.read_text(), kept.stat().st_mode & 0o777) == ("Output for engine 0.0\n  bye\n", 0o600)
    other = GriffinEngineSetLauncher(parent=cluster, profile_dir=state["profile_dir"])
    other.uid, other.engine_set = state["uid"], state["engine_set"]
    assert other.get_output() == "Output for engine 0.0\n  bye\n"


async def test_the_consoles_are_there_after_the_stop(launcher, fake_cloud, store):
    await launcher.start(2)
    fake_cloud.consoles = {"id-0": "booting\n", "id-1": "kernel panic\n"}
    write_report(launcher, store, "bye")
    names = sorted(server.name for server in fake_cloud.there.values())
    await launcher.stop()
    assert launcher.get_output() == (
        f"Output for engine 0.0\n  bye\nConsole of server {names[0]}\n  booting\nConsole of server {names[1]}\n  kernel panic"
    )


@pytest.fixture
def time_is_over(monkeypatch):
    """``time_is_over(so)``: what reads output is given up as soon as that is ``so``. Returns the times that it was given, in seconds."""
    given = []

    def over_when(so):
        def within(seconds, function):
            given.append(seconds)
            thread = threading.Thread(target=function, daemon=True)
            thread.start()
            while thread.is_alive() and not so():
                time.sleep(0.005)
            return not thread.is_alive()

        monkeypatch.setattr(output, "within", within)
        return given

    return over_when


async def test_consoles_that_hang_hold_up_a_stop_for_a_bounded_time_and_what_was_read_counts(
    launcher, fake_cloud, time_is_over
):
    await launcher.start(2)
    woken = threading.Event()
    fake_cloud.console_output = lambda id, length: "booting" if id == "id-0" else str(woken.wait())
    given = time_is_over(lambda: "booting" in str(launcher._output))
    await launcher.stop()
    assert (launcher.state, fake_cloud.there) == ("after", {})
    assert launcher.get_output().endswith("-0\n  booting")
    assert given[-1] == output.CONSOLE_TIMEOUT
    woken.set()


async def test_output_that_cannot_be_read_does_not_keep_servers_alive(launcher, fake_cloud, store):
    await launcher.start(1)
    store.fail["reports"] = [Unavailable("the store said 503")]
    await launcher.stop()
    assert (launcher.state, fake_cloud.there, launcher.get_output()) == ("after", {}, "")


async def test_a_store_that_hangs_holds_up_a_stop_for_a_bounded_time_and_what_was_read_counts(
    launcher, fake_cloud, store, time_is_over
):
    await launcher.start(2)
    launcher.leave_timeout = 3.0
    for slot in range(2):
        store.there[launcher.uid][f"{launcher.engine_set}/{slot}.0/0004-log"] = b""
    woken, read = threading.Event(), []

    def read_report(uid, report):
        read.append(report.place.slot)
        if report.place.slot == 1:
            woken.wait()
        return {"engines": [{"index": 0, "output": f"of {report.place.slot}"}]}

    store.read_report = read_report
    given = time_is_over(lambda: 1 in read)
    await launcher.stop()
    assert (launcher.state, fake_cloud.there, read) == ("after", {}, [0, 1])
    assert launcher.get_output() == "Output for engine 0.0\n  of 0"
    assert given[0] == 3 + output.OUTPUT_TIMEOUT
    woken.set()


async def test_servers_carry_when_their_start_began(launcher, fake_cloud):
    before = time.time()
    await launcher.start(1)
    (plan,) = fake_cloud.plans
    started = plan.servers[0].metadata["griffin:started"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", started)
    moment = datetime.fromisoformat(started.replace("Z", "+00:00")).timestamp()
    assert before - 0.001 <= moment <= time.time()


async def test_an_object_store_that_is_down_does_not_keep_servers_alive(launcher, fake_cloud, store):
    await launcher.start(1)
    store.fail["reports"] = [Unavailable("the store said 503"), Unavailable("the store said 503")]
    store.fail["delete_prefix"] = [Unavailable("the store said 503")]
    with pytest.raises(Unavailable, match="Run the same stop again"):
        await launcher.stop()
    assert (launcher.state, fake_cloud.there) == ("running", {})
    await launcher.stop()
    assert (launcher.state, store.there) == ("after", {})


async def test_when_all_servers_have_gone_the_rest_is_deleted_and_ipyparallel_told(launcher, fake_cloud, store):
    await launcher.start(2)
    told = asyncio.Event()
    launcher.on_stop(lambda data: told.set())
    assert await in_thread(launcher._all_gone) is True
    await asyncio.wait_for(told.wait(), 60)
    assert (launcher.state, fake_cloud.there, store.there) == ("after", {}, {})
    assert launcher.stop_data == {"exit_code": 1, "identifier": launcher.identifier}


async def test_all_servers_gone_and_a_cloud_that_fails_leaves_the_set_to_the_next_stop(launcher, fake_cloud, store):
    await launcher.start(1)
    store.fail["delete_prefix"] = [Unavailable("the store said 503")]
    assert await in_thread(launcher._all_gone) is False
    assert launcher.state == "running"
    await launcher.stop()
    assert (launcher.state, store.there) == ("after", {})


async def test_a_server_that_takes_anothers_slot_has_a_start_deadline_of_its_own(launcher, fake_cloud, hub):
    """Else `ipp-griffin reap` would take it for one that never reported."""
    fake_cloud.shows = lambda server: replace(server, status="ERROR") if server.name.endswith("-0") else server
    hub.listed, launcher.poll_interval = {}, 0.0
    start = asyncio.ensure_future(launcher.start(1))
    while len(fake_cloud.plans) < 2:
        await asyncio.sleep(0.01)
    hub.listed = {f"{launcher.engine_set}-0-1-0-0": 0}
    await start
    first, second = (plan.servers[0] for plan in fake_cloud.plans)
    assert (second.name, second.place.incarnation) == (f"{first.name}-1", 1)
    assert second.metadata["griffin:start_deadline"] >= first.metadata["griffin:start_deadline"]
    assert "griffin:requested" in second.metadata
    assert "griffin:requested" not in first.metadata
