"""`ipcluster start`, `engines` and `stop`, as a user types them, when they are interrupted, and when the controller or the cloud is gone.

Each test has clusters of its own. What is seen of one that just runs is in `test_running_cluster`.
"""

import contextlib
import json
import os
import signal
from pathlib import Path

import ipyparallel as ipp
import pytest

from ..clouds import OnDevCloud
from ..conftest import running_cloud
from .commands import cause
from .conftest import Shell

START = ("ipcluster", "start", "--profile=griffin")
STOP = ("ipcluster", "stop", "--profile=griffin")


def has_an_engine(security: Path) -> bool:
    """Whether the controller whose connection files are in this folder lists one engine now."""
    with contextlib.suppress(OSError, ValueError), ipp.Client(str(security / "ipcontroller-client.json")) as rc:
        return rc.ids == [0]
    return False


@pytest.mark.needs("catalog")
def test_engines_join_a_cluster_and_one_stop_ends_them_all(shell, tmp_path):
    """ipyparallel alone forgets the controller and the first engine set in the cluster file."""
    folder = tmp_path / "a profile anywhere"
    shell.profile().rename(folder)
    where, config = f"--profile-dir={folder}", folder / "ipcluster_config.py"
    with config.open("a") as f:  # the engines' own settings are those of the first set
        f.write(f"c.GriffinEngineSetLauncher.flavor = {shell.cloud.four_cores!r}\nc.GriffinCloud.flavor = 'unused'\n")
    output = shell.run("ipcluster", "start", where, "-n", "1", "--daemonize")
    assert f"Starting 1 engine on 1 server: image snapshot10, flavor {shell.cloud.four_cores} (4 vCPU)" in output
    shell.run("ipcluster", "engines", where, "-n", "1", "--daemonize")
    content = json.loads((folder / "security" / "cluster-.json").read_text())
    assert [s["n"] for s in content["engines"]["sets"].values()] == [1, 1]
    assert content["controller"]["state"]["pid"] > 0
    with ipp.Client(str(folder / "security" / "ipcontroller-client.json")) as rc:
        assert len(set(rc[:].apply_sync(os.getenv, "GRIFFIN_SERVER"))) == 2

    # A stop that the cloud refuses says so.
    if "faults" in shell.cloud.has:
        shell.cloud.faults.set({"service": "compute", "status": 403})
        assert "Run the same stop again" in shell.run("ipcluster", "stop", where, status=1)
        shell.cloud.faults.clear()

    # Then two at the same time end it, whatever the configuration says by now.
    with config.open("a") as f:
        f.write("c.GriffinEngineSetLauncher.flavor = 'gone'\nc.GriffinEngineSetLauncher.network = 'nowhere'\n")
    both = [shell.start("ipcluster", "stop", where) for _ in range(2)]
    for process in both:
        output = process.communicate(timeout=120)[0]
        assert process.returncode in (0, 11), output  # 11: ipyparallel's "already stopped"
        assert "Traceback" not in output
    shell.assert_nothing_left()
    assert list((folder / "security").glob("*.json")) == []
    shell.run("ipcluster", "clean", where)


# -- interrupted


def test_ctrl_c_during_a_create_leaks_nothing(shell, eventually):
    """While Nova takes its time over the POSTs: those that land afterwards are deleted, too."""
    if "faults" in shell.cloud.has:
        slow = {"service": "compute", "methods": ["POST"], "path": "/servers$", "delay": 2.0}
        shell.cloud.faults.set(slow, {"server": ".*", "boot_time": 20})
    process = shell.start(*START, "-n", "4")
    eventually(lambda: shell.cloud.containers(), "the cluster's container")
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=90)[0]
    assert process.returncode == 0, output
    assert "Traceback" not in output


@pytest.mark.needs("devcloud")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_daemonize_leaves_nothing_and_is_no_success(shell, eventually, number):
    shell.cloud.faults.set({"server": ".*", "stuck": True})
    process = shell.start(*START, "-n", "2", "--daemonize")
    eventually(lambda: len(shell.cloud.servers()) == 2, "two servers")
    process.send_signal(number)
    output = process.communicate(timeout=90)[0]
    assert process.returncode == 1, output
    assert "Traceback" not in output


@pytest.mark.needs("devcloud")
def test_ctrl_c_while_the_cloud_refuses_is_one_line_and_another_stop_ends_all_though_the_controller_was_killed(
    shell, eventually
):
    """The profile may have any name."""
    shell.make_profile("physics")
    security = shell.profile("physics") / "security"
    process = shell.start("ipcluster", "start", "--profile=physics", "-n", "1")
    eventually(lambda: has_an_engine(security), "the engine")
    shell.cloud.faults.set({"service": "compute", "status": 403})
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=90)[0]
    assert process.returncode == 1, output
    assert "Traceback" not in output
    assert output.count("Run the same stop again") == 1
    shell.cloud.faults.clear()

    # The controller alone is killed, as the kernel does when memory is short: ipcontroller's schedulers go on.
    os.kill(json.loads((security / "cluster-.json").read_text())["controller"]["state"]["pid"], signal.SIGKILL)
    output = shell.run("ipcluster", "engines", "--profile=physics", "-n", "1", status=1)
    assert "does not answer" in cause(output)
    assert len(shell.cloud.servers()) == 1

    # The next start refuses, and says what to do.
    assert "ipcluster stop" in shell.run("ipcluster", "start", "--profile=physics", "-n", "1", status=10)
    shell.run("ipcluster", "stop", f"--profile-dir={shell.profile('physics')}", OS_CLOUD="")
    shell.assert_nothing_left()
    assert list(security.glob("ipcontroller-*.json")) == []


@pytest.mark.needs("devcloud")
def test_a_failed_start_that_cannot_be_taken_down_says_both_and_is_no_success(shell):
    settings = [f"--GriffinEngineSetLauncher.{setting}" for setting in ("start_timeout=4", "stop_timeout=2")]
    shell.cloud.faults.set(
        {"server": ".*", "silent": True}, {"service": "compute", "methods": ["DELETE"], "status": 403}
    )
    output = shell.run(*START, "-n", "1", *settings, status=1, timeout=150)
    assert "Only 0 of 1 engines connected" in output
    assert "Cleaning up failed" in output
    shell.cloud.faults.clear()
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_without_a_profile_the_default_controller_is_restarted_and_a_closed_terminal_ends_all(tmp_path, eventually):
    """`ipcluster start --engines=griffin` in the foreground, on a cloud that can't reach this machine's loopback."""
    with running_cloud(tmp_path / "faraway", subnet="10.99.0.0/16") as cloud:
        shell = Shell(tmp_path, OnDevCloud(cloud))
        try:
            process = shell.start("ipcluster", "start", "--engines=griffin", "-n", "1")
            eventually(lambda: has_an_engine(shell.profile("default") / "security"), "the engine")
            process.send_signal(signal.SIGHUP)  # nobody reads what it prints from then on
            output = process.communicate(timeout=90)[0]
            assert process.returncode == 0, output
            assert output.count("restarting it as a griffin controller") == 1
            shell.assert_nothing_left()
        finally:
            shell.close()
