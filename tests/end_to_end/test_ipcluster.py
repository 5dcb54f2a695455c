"""`ipcluster start`, `stop`, `list`, `engines` and `clean` with the griffin profile, as a user types them."""

import json
import os
import signal
import subprocess

import ipyparallel as ipp
import pytest

from ..clouds import OnDevCloud
from ..conftest import running_cloud
from .conftest import Shell

START = ("ipcluster", "start", "--profile=griffin")
STOP = ("ipcluster", "stop", "--profile=griffin")


def connect(shell, profile="griffin", cluster_id="") -> ipp.Client:
    name = f"ipcontroller-{cluster_id}-client.json" if cluster_id else "ipcontroller-client.json"
    return ipp.Client(str(shell.profile(profile) / "security" / name))


def test_daemonize_comes_back_to_a_cluster_that_works_and_stop_leaves_nothing(shell):
    shell.run(*START, "-n", "3", "--daemonize")
    with connect(shell) as rc:
        assert rc.ids == [0, 1, 2]
        assert rc[:].map_sync(abs, [-1, -2, -3]) == [1, 2, 3]
        names = rc[:].apply_sync(os.getenv, "GRIFFIN_SERVER")
    assert sorted(set(names)) == sorted(shell.cloud.servers())
    listing = shell.run("ipcluster", "list", "--profile=griffin")
    assert listing.splitlines()[1].split() == ["griffin", "''", "True", "3", "Griffin"]
    shell.run(*STOP)
    assert len(shell.run("ipcluster", "list", "--profile=griffin").splitlines()) == 1


def test_ctrl_c_ends_a_foreground_cluster(shell, eventually):
    process = shell.start(*START, "-n", "2")
    eventually(lambda: len(shell.cloud.servers()) == 2, "two servers")
    eventually(lambda: len(shell.engine_sets()) == 1, "a set")
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_sighup_ends_a_foreground_cluster_as_ctrl_c_does(shell, eventually):
    process = shell.start(*START, "-n", "1")
    eventually(lambda: len(shell.cloud.servers()) == 1, "a server")
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=60)
    assert process.returncode == 0


@pytest.mark.needs("faults")
def test_a_create_in_flight_while_stopping_leaks_nothing(shell, eventually):
    """Ctrl-C while Nova takes its time over the POSTs: those that land afterwards are deleted, too."""
    shell.cloud.faults.set({"service": "compute", "methods": ["POST"], "path": "/servers$", "delay": 2.0})
    process = shell.start(*START, "-n", "4")
    eventually(lambda: shell.cloud.containers(), "the cluster's container")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0


def test_two_clusters_in_one_profile(shell):
    shell.run(*START, "-n", "1", "--daemonize", "--cluster-id=x")
    shell.run(*START, "-n", "2", "--daemonize")
    assert len(shell.cloud.containers()) == 2
    with connect(shell) as one, connect(shell, cluster_id="x") as other:
        assert (len(one.ids), len(other.ids)) == (2, 1)
    shell.run(*STOP)
    assert len(shell.cloud.servers()) == 1
    with connect(shell, cluster_id="x") as other:
        assert other[:].apply_sync(os.getpid)
    shell.run(*STOP, "--cluster-id=x")


def test_any_profile_name(shell):
    shell.make_profile("physics")
    shell.run("ipcluster", "start", "--profile=physics", "-n", "1", "--daemonize")
    with connect(shell, "physics") as rc:
        assert rc.ids == [0]
    shell.run("ipcluster", "stop", "--profile=physics")


def test_any_profile_dir(shell, tmp_path):
    folder = tmp_path / "elsewhere"
    shell.profile().rename(folder)
    shell.run("ipcluster", "start", f"--profile-dir={folder}", "-n", "1", "--daemonize")
    with ipp.Client(str(folder / "security" / "ipcontroller-client.json")) as rc:
        assert rc.ids == [0]
    shell.run("ipcluster", "stop", f"--profile-dir={folder}")


def test_engines_join_a_running_cluster_and_stop_ends_them_all(shell):
    """ipyparallel alone forgets the controller and the first engine set in the cluster file."""
    shell.run(*START, "-n", "1", "--daemonize")
    shell.run("ipcluster", "engines", "--profile=griffin", "-n", "2", "--daemonize")
    content = shell.read_json("cluster-.json")
    assert sorted(s["n"] for s in content["engines"]["sets"].values()) == [1, 2]
    assert content["controller"]["state"]["pid"] > 0
    assert shell.run("ipcluster", "list", "--profile=griffin").splitlines()[1].split()[3] == "3"
    with connect(shell) as rc:
        assert len(rc.ids) == 3
    shell.run(*STOP)


def test_foreground_engines_leave_without_ending_the_cluster(shell, eventually):
    shell.run(*START, "-n", "1", "--daemonize")
    process = shell.start("ipcluster", "engines", "--profile=griffin", "-n", "1")
    with connect(shell) as rc:
        eventually(lambda: len(rc.ids) == 2, "the second engine")
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
        assert process.returncode == 0, output
        eventually(lambda: len(rc.ids) == 1, "the second engine has left")
        assert rc[:].apply_sync(os.getpid)
    assert len(shell.cloud.servers()) == 1
    shell.run(*STOP)


def test_stop_twice_at_the_same_time(shell):
    shell.run(*START, "-n", "2", "--daemonize")
    both = [shell.start(*STOP), shell.start(*STOP)]
    for process in both:
        output = process.communicate(timeout=60)[0]
        assert process.returncode in (0, 11), output  # 11: ipyparallel's "already stopped"
        assert "Traceback" not in output


def test_already_running_after_everything_died(shell):
    """The first start refuses and says what to do; `ipcluster stop` removes what the dead cluster left in the cloud."""
    shell.run(*START, "-n", "1", "--daemonize")
    for pid in shell.controllers():
        os.kill(pid, signal.SIGKILL)
    output = shell.run(*START, "-n", "1", "--daemonize", status=10)
    assert "ipcluster stop" in output
    shell.run(*STOP)
    assert shell.cloud.servers() == []
    shell.run(*START, "-n", "1", "--daemonize")
    shell.run(*STOP)


def test_after_the_controller_alone_was_killed_a_stop_ends_its_children_too(shell):
    """As the kernel does when memory is short: ipcontroller's schedulers go on."""
    shell.run(*START, "-n", "1", "--daemonize")
    pid = shell.read_json("cluster-.json")["controller"]["state"]["pid"]
    os.kill(pid, signal.SIGKILL)
    output = shell.run("ipcluster", "engines", "--profile=griffin", "-n", "1", status=1)
    assert "does not answer" in output
    assert len(shell.cloud.servers()) == 1
    shell.run(*STOP)
    assert shell.controllers() == []
    assert list((shell.profile() / "security").glob("ipcontroller-*.json")) == []


def test_clean_refuses_while_the_cluster_runs_and_removes_logs_afterwards(shell):
    shell.run(*START, "-n", "1", "--daemonize")
    done = subprocess.run(
        ["ipcluster", "clean", "--profile=griffin"], env=shell.env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert shell.cluster_files() != []
    shell.run(*STOP)
    shell.run("ipcluster", "clean", "--profile=griffin")


@pytest.mark.needs("address")
def test_a_users_own_ip_is_kept(shell):
    """A repeated --ip is fatal to ipcontroller."""
    address = shell.cloud.address
    shell.run(*START, "-n", "1", "--daemonize", f"--ip={address}")
    info = shell.read_json("ipcontroller-engine.json")
    assert info["interface"] == f"tcp://{address}"
    shell.run(*STOP)
    shell.run(*START, "-n", "1", "--daemonize", "--", "--ip=*", f"--location={address}")
    shell.run(*STOP)


def test_curve_and_signing_are_on_and_the_files_are_private(shell):
    shell.run(*START, "-n", "1", "--daemonize")
    for kind in ("engine", "client"):
        path = shell.profile() / "security" / f"ipcontroller-{kind}.json"
        info = json.loads(path.read_text())
        assert len(info["curve_serverkey"]) == 40
        assert len(info["key"]) == 64
        assert path.stat().st_mode & 0o777 == 0o600
    shell.run(*STOP)


def test_a_listing_and_a_stop_under_another_profiles_config(shell):
    """Without --profile, ipcluster loads the default profile's config, which knows nothing of this cloud."""
    shell.run(*START, "-n", "1", "--daemonize")
    before = (shell.profile() / "security" / "cluster-.json").read_text()
    listing = shell.run("ipcluster", "list", OS_CLOUD="")
    assert [line.split()[:4] for line in listing.splitlines()[1:]] == [["griffin", "''", "True", "1"]]
    assert (shell.profile() / "security" / "cluster-.json").read_text() == before
    shell.run("ipcluster", "stop", f"--profile-dir={shell.profile()}", OS_CLOUD="")


@pytest.mark.needs("devcloud")
def test_the_default_controller_is_restarted_under_ipcluster_too(tmp_path):
    """`ipcluster start --engines=griffin` without a profile of ours, on a cloud that can't reach this machine's loopback."""
    with running_cloud(tmp_path / "faraway", subnet="10.99.0.0/16") as cloud:
        shell = Shell(tmp_path, OnDevCloud(cloud))
        try:
            output = shell.run("ipcluster", "start", "--engines=griffin", "-n", "1", "--daemonize")
            assert output.count("restarting it as a griffin controller") == 1
            with connect(shell, "default") as rc:
                assert rc.ids == [0]
            shell.run("ipcluster", "stop")
            shell.assert_nothing_left()
        finally:
            shell.close()
