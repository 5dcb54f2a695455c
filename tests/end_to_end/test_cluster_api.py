"""`ipp.Cluster` from Python: scripts, notebooks, other processes, and the one-liner with the default controller."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from pathlib import Path

import ipyparallel as ipp
import openstack
import pytest
from traitlets.config import Config

from ipp_griffin.plan import GriffinError

from ..clouds import OnDevCloud
from ..conftest import assert_empty, running_cloud


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


def ids(cluster):
    """Of the engines that the controller lists now, which a Client that waits can miss."""
    with cluster.connect_client_sync() as rc:
        return rc.ids


def test_a_sync_context_manager_without_any_profile(profile):
    with ipp.Cluster(engines="griffin", controller="griffin", n=2) as rc:
        assert rc.ids == [0, 1]
        assert rc[:].apply_sync(abs, -42) == [42, 42]


@pytest.mark.needs("devcloud")
@pytest.mark.parametrize(("engines", "asked"), [("griffin", True), ("local", False)])
def test_what_engines_need_is_asked_once_while_the_controller_starts(profile, cloud, engines, asked):
    """And only where they are to be on servers."""
    cluster = ipp.Cluster(engines=engines, controller="griffin", n=1)
    cluster.start_controller_sync()
    try:
        if asked:
            cluster.start_engines_sync()
        looked_up = Counter(path.rsplit("/", 1)[-1] for _, method, path, _ in cloud.running.requests if method == "GET")
        kinds = {kind: looked_up[kind] for kind in ("networks", "subnets", "images", "info", "limits")}
        assert kinds == {
            **dict.fromkeys(("networks", "subnets"), 1),
            **dict.fromkeys(("images", "info", "limits"), int(asked)),
        }
    finally:
        cluster.stop_cluster_sync()


async def test_an_async_context_manager_without_any_profile(profile):
    async with ipp.Cluster(engines="griffin", controller="griffin", n=2) as rc:
        assert rc[:].apply_sync(os.getpid)


@pytest.mark.needs("faults")
async def test_the_event_loop_goes_on_while_servers_start(profile, cloud):
    cloud.faults.set({"server": ".*", "boot_time": 1.5})
    beats, running = 0, True

    async def beat():
        nonlocal beats
        while running:
            await asyncio.sleep(0.01)
            beats += 1

    cluster = ipp.Cluster(engines="griffin", controller="griffin", n=1)
    await cluster.start_controller()
    beating = asyncio.ensure_future(beat())
    await cluster.start_engines()
    running = False
    await beating
    await cluster.stop_cluster()
    assert beats > 20  # a blocked loop would have had a few, in the second and a half of the boot and more


def test_in_a_notebook_the_sync_api_works_inside_a_running_loop(profile):
    async def cell():
        cluster = ipp.Cluster(engines="griffin", controller="griffin", n=1)
        rc = cluster.start_and_connect_sync()
        try:
            return rc[:].apply_sync(str, "here")
        finally:
            rc.close()
            cluster.stop_cluster_sync()

    assert asyncio.run(cell()) == ["here"]


@pytest.mark.needs("devcloud")
def test_the_one_liner_with_ipyparallels_own_controller(profile):
    """On the dev cloud servers can reach a controller on loopback, so it stays as it is."""
    with ipp.Cluster(engine_launcher_class="griffin", n=1) as rc:
        assert rc.ids == [0]
        assert type(rc.cluster.controller).__name__ == "LocalControllerLauncher"


@pytest.fixture
def faraway(profile, cloud, tmp_path):
    """A cloud whose servers are (on the dev cloud: so it says) on a network that can't reach this machine's loopback."""
    if not isinstance(cloud, OnDevCloud):
        yield cloud
        return
    with running_cloud(tmp_path / "faraway", subnet="10.99.0.0/16") as far:
        yield far
        assert_empty(far)


def test_where_servers_cannot_reach_loopback_the_default_controller_is_restarted(faraway):
    with ipp.Cluster(engine_launcher_class="griffin", n=1) as rc:
        assert rc.ids == [0]
        assert type(rc.cluster.controller).__name__ == "GriffinControllerLauncher"


@pytest.mark.needs("devcloud")
def test_a_controller_that_the_user_set_up_on_loopback_is_an_error_before_any_server(faraway):
    cluster = ipp.Cluster(engines="griffin", controller="local", controller_args=["--nodb"], n=1)
    try:
        with pytest.raises(GriffinError, match='can\'t reach it. Use controller="griffin"'):
            cluster.start_cluster_sync()
    finally:
        cluster.stop_cluster_sync()
    assert not [r for r in faraway.requests if r[1] == "POST" and r[2].endswith("/servers")]


@pytest.mark.needs("faults")
@pytest.mark.parametrize("then", ["stopped", "left to itself"])
def test_an_interrupted_sync_start_goes_on_in_ipyparallels_thread_until_it_is_stopped(profile, cloud, eventually, then):
    """As a notebook's "interrupt" does it. What is asked for next decides about the servers; none is forgotten."""
    cloud.faults.set({"server": ".*", "boot_time": 4})
    cluster = ipp.Cluster(engines="griffin", controller="griffin", n=1)

    def interrupt_the_start():
        eventually(cloud.servers, "a server")
        os.kill(os.getpid(), signal.SIGINT)

    interrupt = threading.Thread(target=interrupt_the_start, daemon=True)

    async def as_in_a_notebook():  # a running loop: then ipyparallel's coroutines have a thread of their own
        cluster.start_controller_sync()
        interrupt.start()
        with pytest.raises(KeyboardInterrupt):
            cluster.start_engines_sync()
        assert len(cloud.servers()) == 1
        if then == "left to itself":
            eventually(
                lambda: Path(cluster.cluster_file).exists() and cluster.engines, "the set, as if nothing had been"
            )
            eventually(lambda: ids(cluster) == [0], "its engine")
        cluster.stop_cluster_sync()

    loop = asyncio.new_event_loop()  # not asyncio.run, which handles SIGINT itself
    try:
        loop.run_until_complete(as_in_a_notebook())
    finally:
        loop.close()
    assert cloud.left_over() == []


def test_another_process_stops_it_from_its_file(profile, run_python):
    with ipp.Cluster(engines="griffin", controller="griffin", n=1, cluster_id="far") as rc:
        run_python(
            """
            import ipyparallel as ipp
            cluster = ipp.Cluster.from_file(cluster_id="far")
            with cluster.connect_client_sync() as rc:
                print(rc.ids)
            cluster.stop_cluster_sync()
            """,
            prints="[0]\n",
        )
        rc.close()


def test_a_script_that_never_stops_its_cluster_leaves_nothing(profile, run_python):
    """ipyparallel stops it at interpreter exit, where executors take no more work."""
    run_python(
        """
        import ipyparallel as ipp
        rc = ipp.Cluster(engines="griffin", controller="griffin", n=1).start_and_connect_sync()
        print(rc.ids)
        """,
        prints="[0]\n",
    )


@pytest.mark.needs("faults")
def test_a_script_whose_cluster_can_not_be_stopped_at_its_end_is_no_success(profile, cloud):
    script = """
        import ipyparallel as ipp
        cluster = ipp.Cluster(engines="griffin", controller="griffin", n=1)
        cluster.start_cluster_sync()
        print("up", flush=True)
        input()
        """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "up\n"
        cloud.faults.set({"service": "compute", "methods": ["DELETE"], "status": 503})
        _, printed = process.communicate("\n", timeout=90)
    assert process.returncode == 1
    assert "Servers that may still be there" in printed
    assert "Run the same stop again" in printed
    cloud.faults.clear()
    (path,) = profile.glob("ipython/profile_default/security/cluster-*.json")
    ipp.Cluster.from_file(str(path)).stop_cluster_sync()


@pytest.mark.needs("faults")
def test_a_failed_start_raises_its_cause_and_leaves_no_server(profile, cloud):
    cloud.faults.set({"server": "-[0-9a-f]{8}-1(-[0-9]+)?$", "fail_build": "No valid host was found. "})
    cluster = ipp.Cluster(engines="griffin", controller="griffin", n=2)
    with pytest.raises(
        GriffinError,
        match=r"can't have its 2 engines any more\. Each of the servers griffin-\w+-\w+-1\b.* went to ERROR: .*No valid host",
    ):
        cluster.start_cluster_sync()
    assert cloud.servers() == []
    cluster.stop_cluster_sync()


@pytest.mark.needs("faults")
def test_servers_that_take_longer_than_ipyparallels_timeout_just_work(profile, cloud):
    """ipyparallel's engine_timeout counts from the end of start()."""
    cloud.faults.set({"server": ".*", "boot_time": 4})
    config = {"Cluster": {"engine_timeout": 2}}
    with ipp.Cluster(engines="griffin", controller="griffin", n=1, config=Config(config)) as rc:
        assert rc.ids == [0]


@pytest.mark.needs("faults")
def test_a_silent_server_ends_the_start_at_its_deadline(profile, cloud):
    cloud.faults.set({"server": ".*", "silent": True})
    seconds = 3 * cloud.slowness
    config = Config({"GriffinEngineSetLauncher": {"start_timeout": seconds}})
    cluster = ipp.Cluster(engines="griffin", controller="griffin", n=1, config=config)
    with pytest.raises(
        GriffinError,
        match=rf"Only 0 of 1 engines connected within {seconds} s; servers: 1 active\. Never reported: griffin-",
    ):
        cluster.start_cluster_sync()
    cluster.stop_cluster_sync()


async def test_servers_deleted_behind_our_back_are_noticed(profile, cloud, openstack_client):
    """The watcher tells ipyparallel that the set has stopped, once Nova has said so twice."""
    config = Config({"GriffinEngineSetLauncher": {"watch_interval": 0.2}})
    cluster = ipp.Cluster(engines="griffin", controller="griffin", n=1, config=config)
    await cluster.start_cluster()
    openstack_client("server", "delete", *cloud.servers())
    for _ in range(200):
        if cluster.engine_set.state == "after":
            break
        await asyncio.sleep(0.1)
    assert cluster.engine_set.state == "after"
    await cluster.stop_cluster()


@pytest.fixture
def run_python(profile):
    """Run a script in a process of its own; it must print exactly this and end with status 0."""

    def run(source: str, prints: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(source)], capture_output=True, text=True, timeout=90, env=os.environ
        )
        assert (done.returncode, done.stdout) == (0, prints), done.stderr
        assert "Traceback" not in done.stderr, done.stderr

    return run


def test_the_profile_by_name(profile, cloud):
    """`ipp.Cluster(profile="griffin")` takes launchers and settings from the profile that `ipp-griffin init` made."""
    subprocess.run([Path(sys.executable).with_name("ipp-griffin"), "init"], check=True, capture_output=True)
    with (profile / "ipython" / "profile_griffin" / "ipcluster_config.py").open("a") as file:
        file.write(cloud.settings)
    with ipp.Cluster(profile="griffin", n=2) as rc:
        assert type(rc.cluster.engine_set).__name__ == "GriffinEngineSetLauncher"
        assert sorted(rc[:].apply_sync(os.getenv, "GRIFFIN_SLOT")) == ["0", "1"]


def test_the_environment_and_the_connection_file_reach_the_engines(profile):
    config = Config({"GriffinEngineSetLauncher": {"environment": {"COLOUR": "blue"}}})
    with ipp.Cluster(engines="griffin", controller="griffin", n=1, config=config) as rc:
        assert rc[0].apply_sync(os.getenv, "COLOUR") == "blue"
        assert rc[0].apply_sync(os.getenv, "GRIFFIN_CONNECTION_FILE").endswith("/security/ipcontroller-engine.json")
        assert rc[0].apply_sync(os.getenv, "IPP_CONNECTION_INFO") is None


@pytest.mark.needs("devcloud")
def test_a_token_that_expires_in_the_middle_is_renewed(profile, tmp_path):
    with running_cloud(tmp_path / "shortlived", token_lifetime=1.5) as cloud:
        cloud.faults.set({"server": ".*", "boot_time": 3})
        with ipp.Cluster(engines="griffin", controller="griffin", n=1) as rc:
            assert rc.ids == [0]
        assert_empty(cloud)
        assert len([r for r in cloud.requests if r[:2] == ("identity", "POST")]) > 1


async def test_a_container_that_is_not_ours_is_an_error_and_stays_as_it_is(profile, cloud):
    """Somebody else's container, which happens to have the name that this cluster's would have."""
    connection = openstack.connect(cloud=cloud.name)
    cluster = ipp.Cluster(engines="griffin", controller="griffin", n=1)
    await cluster.start_controller()
    name = f"{cluster.controller.container}-{cluster.controller.uid}"
    connection.object_store.create_container(name)
    connection.object_store.upload_object(name, "thesis.txt", data=b"years of work")
    monkey = pytest.MonkeyPatch()
    monkey.setattr("ipp_griffin.store.MARKER_WAIT", 1)  # it could be another process's, about to be marked
    try:
        with pytest.raises(GriffinError, match=f"{name}.* not ours"):
            await cluster.start_engines()
    finally:
        monkey.undo()
    await cluster.stop_cluster()
    assert connection.object_store.download_object("thesis.txt", container=name) == b"years of work"
    assert cloud.servers() == []
    connection.object_store.delete_object("thesis.txt", container=name)
    connection.object_store.delete_container(name)
