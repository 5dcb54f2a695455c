"""What a user gets wrong: one clear line, a non-zero status, nothing left behind."""

import re

import pytest

START = ("ipcluster", "start", "--profile=griffin", "-n", "2")


def cause(output: str) -> str:
    """The one line that says what is wrong; the controller's output, which ipcluster shows, has a log of its own."""
    lines = [line for line in output.splitlines() if re.search(r"\[IPCluster\w*\] (CRITICAL|ERROR)", line)]
    assert len(lines) == 1, output
    return lines[0]


@pytest.mark.parametrize("how", [(), ("--daemonize",)])
def test_a_start_that_fails_ends_the_controller_and_the_process(shell, how):
    """ipyparallel alone hangs for ever, with the controller running."""
    output = shell.run(*START, *how, "--GriffinCloud.image=foo", status=1)
    assert "No image 'foo'. This cloud has: debian-12, snapshot1, snapshot2, snapshot10" in cause(output)


def test_engines_that_fail_to_start_leave_the_running_cluster_alone(shell):
    shell.run(*START, "--daemonize")
    output = shell.run("ipcluster", "engines", "--profile=griffin", "-n", "1", "--GriffinCloud.image=foo", status=1)
    assert "No image 'foo'" in cause(output)
    assert len(shell.cloud.servers()) == 2
    shell.run("ipcluster", "stop", "--profile=griffin")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--GriffinCloud.cloud=nowhere"], "devcloud"),
        (["--GriffinCloud.flavor=huge"], "No flavor 'huge'"),
        (["--GriffinCloud.network=lan"], "No network 'lan'. This cloud has: devnet"),
        (["--GriffinCloud.key_name=mine"], "No key pair 'mine'. This cloud has: griffin-key"),
        (["--GriffinCloud.security_groups=web"], "No security group 'web'. This cloud has: default"),
        (["--GriffinCloud.availability_zone=mars"], "No availability zone 'mars'. This cloud has: nova"),
        (["--GriffinCloud.flavor=dev.toobig"], "No valid host was found"),
        (["--GriffinCloud.cloud=devcloud-tiny", "-n", "8"], "needs 8 instances, but 0 of 2 are used"),
        (["-n", "0"], "Can't start 0 engines"),
        (["-n", "-1"], "Can't start -1 engines"),
        (["--GriffinEngineSetLauncher.engines_per_server=-1"], "engines_per_server"),
        (["--GriffinControllerLauncher.ports=80"], "GriffinControllerLauncher.ports"),
    ],
)
def test_a_wrong_setting(shell, options, expected):
    output = shell.run(
        "ipcluster", "start", "--profile=griffin", *(options if "-n" in options else [*options, "-n", "2"]), status=1
    )
    assert expected in cause(output)


def test_no_credentials(shell):
    output = shell.run(*START, status=1, OS_CLOUD="", OS_CLIENT_CONFIG_FILE="/nowhere")
    assert "clouds.yaml" in cause(output)


def test_a_wrong_password(shell):
    clouds = shell.cloud.clouds_yaml.read_text()
    wrong = shell.folder / "clouds.yaml"
    wrong.write_text(re.sub(r"password: .*", "password: wrong-one", clouds))
    output = shell.run(*START, status=1, OS_CLIENT_CONFIG_FILE=str(wrong))
    assert "wrong-one" not in output
    assert "credentials" in cause(output).lower() or "password" in cause(output).lower()


@pytest.mark.parametrize("text", ["c.GriffinCloud.image = (", "c.GriffinCloud.image = undefined_name"])
def test_a_profile_that_is_broken_python_starts_no_local_engines(shell, text):
    path = shell.profile() / "ipcluster_config.py"
    with path.open("a") as f:
        f.write(text + "\n")
    done = __import__("subprocess").run([*START], env=shell.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done
    assert f"{path}, line {len(path.read_text().splitlines())}" in done.stderr


def test_no_controller_for_ipcluster_engines(shell):
    output = shell.run("ipcluster", "engines", "--profile=griffin", "-n", "1", status=1)
    assert "No controller is running here" in cause(output)
