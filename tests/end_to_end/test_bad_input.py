"""What a user gets wrong: one clear line, a non-zero status, nothing left behind."""

import re
import signal
import subprocess

import pytest
import yaml

START = ("ipcluster", "start", "--profile=griffin", "-n", "2")


def cause(output: str) -> str:
    """The one line that says what is wrong; the controller's output, which ipcluster shows, has a log of its own."""
    lines = [line for line in output.splitlines() if re.search(r"\[IPCluster\w*\] (CRITICAL|ERROR)", line)]
    assert len(lines) == 1, output
    return lines[0]


@pytest.mark.needs("catalog")
@pytest.mark.parametrize("how", [(), ("--daemonize",)])
def test_a_start_that_fails_ends_the_controller_and_the_process(shell, how):
    """ipyparallel alone hangs for ever, with the controller running."""
    output = shell.run(*START, *how, "--GriffinCloud.image=foo", status=1)
    assert re.search(r"No image 'foo'\. This cloud has: .*snapshot1, snapshot2, snapshot10", cause(output))


def test_engines_that_fail_to_start_leave_the_running_cluster_alone(shell):
    shell.run(*START, "--daemonize")
    output = shell.run("ipcluster", "engines", "--profile=griffin", "-n", "1", "--GriffinCloud.image=foo", status=1)
    assert "No image 'foo'" in cause(output)
    assert len(shell.cloud.servers()) == 2
    shell.run("ipcluster", "stop", "--profile=griffin")


def local(*values):
    """What no cloud has a say in: one is enough to try it on."""
    return pytest.param(*values, marks=pytest.mark.needs("devcloud"))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--GriffinCloud.cloud=nowhere"], "{cloud.name}"),
        (["--GriffinCloud.flavor=huge"], "No flavor 'huge'"),
        (["--GriffinCloud.network=lan"], "No network 'lan'. This cloud has: "),
        (["--GriffinCloud.key_name=mine"], "No key pair 'mine'. This cloud has: "),
        (["--GriffinCloud.security_groups=web"], "No security group 'web'. This cloud has: "),
        (["--GriffinCloud.availability_zone=mars"], "No availability zone 'mars'. This cloud has: "),
        pytest.param(
            ["--GriffinCloud.flavor={cloud.too_big}"], "No valid host was found", marks=pytest.mark.needs("catalog")
        ),
        pytest.param(
            ["--GriffinCloud.cloud={cloud.name}-tiny", "-n", "8"],
            "needs 8 instances, but 0 of 2 are used",
            marks=pytest.mark.needs("tiny"),
        ),
        local(["-n", "0"], "Can't start 0 engines"),
        local(["-n", "-1"], "Can't start -1 engines"),
        local(["--GriffinEngineSetLauncher.engines_per_server=-1"], "engines_per_server"),
        local(["--GriffinControllerLauncher.ports=80"], "GriffinControllerLauncher.ports"),
    ],
)
def test_a_wrong_setting(shell, options, expected):
    options = [option.format(cloud=shell.cloud) for option in options]
    output = shell.run(
        "ipcluster", "start", "--profile=griffin", *(options if "-n" in options else [*options, "-n", "2"]), status=1
    )
    assert expected.format(cloud=shell.cloud) in cause(output)


@pytest.mark.needs("devcloud")
def test_no_credentials(shell):
    output = shell.run(*START, status=1, OS_CLOUD="", OS_CLIENT_CONFIG_FILE="/nowhere")
    assert "clouds.yaml" in cause(output)


def test_a_wrong_password(shell):
    wrong = shell.folder / "clouds.yaml"
    wrong.write_text(re.sub(r"(password|secret): .*", r"\1: wrong-one", shell.cloud.clouds_yaml.read_text()))
    output = shell.run(*START, status=1, OS_CLIENT_CONFIG_FILE=str(wrong))
    assert "wrong-one" not in output
    assert "credentials" in cause(output).lower() or "password" in cause(output).lower()
    assert "The cloud knows that request as req-" in output


@pytest.mark.needs("devcloud")
@pytest.mark.parametrize("text", ["c.GriffinCloud.image = (", "c.GriffinCloud.image = undefined_name"])
def test_a_profile_that_is_broken_python_starts_no_local_engines(shell, text):
    path = shell.profile() / "ipcluster_config.py"
    with path.open("a") as f:
        f.write(text + "\n")
    done = subprocess.run([*START], env=shell.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done
    assert f"{path}, line {len(path.read_text().splitlines())}" in done.stderr


@pytest.mark.needs("devcloud")
def test_no_controller_for_ipcluster_engines(shell):
    output = shell.run("ipcluster", "engines", "--profile=griffin", "-n", "1", status=1)
    assert "No controller is running here" in cause(output)


@pytest.mark.needs("devcloud")
@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--GriffinEngineSetLauncher.engines_per_server=abc", "engines_per_server"),
        ("--GriffinEngineSetLauncher.parallel=0", "parallel"),
        ("--GriffinControllerLauncher.ip=192.0.2.77", "it must be an address of this machine"),
        ("--GriffinCloud.ca_certificates=/nope.pem", "/nope.pem"),
    ],
)
def test_a_setting_of_the_wrong_kind(shell, option, expected):
    """ipyparallel alone hangs with a traceback where a launcher can't be made."""
    assert expected in cause(shell.run(*START, "--daemonize", option, status=1))


@pytest.mark.needs("devcloud")
def test_files_of_an_earlier_run_cannot_be_used_again(shell):
    assert "can't be used again" in cause(shell.run(*START, "--daemonize", "--", "--reuse", status=1))


@pytest.mark.needs("devcloud")
def test_a_clouds_yaml_that_is_no_yaml(shell):
    broken = shell.folder / "broken.yaml"
    broken.write_text("clouds:\n  mycloud: {auth: [\n")
    assert f"{broken}, line 3: not YAML" in cause(shell.run(*START, status=1, OS_CLIENT_CONFIG_FILE=str(broken)))


def entry_with(shell, project=True, **keys) -> str:
    """A clouds.yaml in which this cloud's entry has other ``keys``; ``auth``: beside address and ``project``."""
    clouds = yaml.safe_load(shell.cloud.clouds_yaml.read_text())["clouds"]
    entry = clouds[shell.cloud.name]
    kept = {
        key: value for key, value in entry["auth"].items() if key == "auth_url" or project and key.startswith("project")
    }
    auth = {**kept, **keys.pop("auth")}
    path = shell.folder / "changed.yaml"
    path.write_text(yaml.safe_dump({"clouds": {shell.cloud.name: {**entry, **keys, "auth": auth}}}))
    return str(path)


def test_an_expired_token(shell):
    """Keystone answers 404 to it, as to a page that it has not."""
    changed = entry_with(shell, auth_type="token", auth={"token": "expired-long-ago"})
    output = shell.run(*START, status=1, OS_CLIENT_CONFIG_FILE=changed)
    assert "expired-long-ago" not in output
    assert re.search(r"Can't log in .*oken.* Check the credentials", cause(output))


def test_an_application_credential_that_is_gone(shell):
    secret = {"application_credential_id": "b" * 32, "application_credential_secret": "sesame"}
    changed = entry_with(shell, project=False, auth_type="v3applicationcredential", auth=secret)
    output = shell.run(*START, status=1, OS_CLIENT_CONFIG_FILE=changed)
    assert "sesame" not in output
    assert re.search(r"Can't log in .* Check the credentials: wrong, expired, revoked", cause(output))


@pytest.mark.needs("other")
def test_the_credentials_of_another_project_stop_nothing_and_say_so(shell):
    """Their listing is empty: a stop that believed it would leave every server running."""
    shell.run(*START, "--daemonize", "--GriffinCloud.cloud=")
    clouds = yaml.safe_load(shell.cloud.clouds_yaml.read_text())["clouds"]
    clouds[shell.cloud.name] = clouds[f"{shell.cloud.name}-other"]
    swapped = shell.folder / "swapped.yaml"
    swapped.write_text(yaml.safe_dump({"clouds": clouds}))
    output = shell.run("ipcluster", "stop", "--profile=griffin", status=1, OS_CLIENT_CONFIG_FILE=str(swapped))
    assert "This cluster is in project" in output
    assert len(shell.cloud.servers()) == 2
    shell.run("ipcluster", "stop", "--profile=griffin")


@pytest.mark.needs("faults")
def test_a_stop_while_the_cloud_is_down_says_so_and_another_one_ends_it(shell):
    shell.run(*START, "--daemonize")
    shell.cloud.faults.set({"service": "compute", "status": 503})
    output = shell.run("ipcluster", "stop", "--profile=griffin", status=1)
    assert "Run the same stop again" in output
    shell.cloud.faults.clear()
    shell.run("ipcluster", "stop", "--profile=griffin")


@pytest.mark.needs("faults")
def test_ctrl_c_while_the_cloud_refuses_ends_the_process_with_one_line(shell, eventually):
    process = shell.start(*START)
    shell.wait_until_connected(eventually, 2)
    shell.cloud.faults.set({"service": "compute", "status": 503})
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=90)[0]
    assert process.returncode == 1, output
    assert "Traceback" not in output
    assert output.count("Run the same stop again") == 1
    shell.cloud.faults.clear()
    shell.run("ipcluster", "stop", "--profile=griffin")


@pytest.mark.needs("faults")
def test_an_outage_while_engines_are_awaited_fails_nothing(shell):
    shell.cloud.faults.set(
        {"server": ".*", "boot_time": 3},
        # So many that one look gives up, though the one for what earlier clusters left is answered 503, too.
        {"service": "compute", "methods": ["GET"], "path": "/servers/detail", "status": 503, "count": 13},
    )
    output = shell.run(*START, "--daemonize")
    assert "Can't look at the servers now, will go on trying" in output
    shell.run("ipcluster", "stop", "--profile=griffin")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_daemonize_leaves_nothing_and_is_no_success(shell, eventually, number):
    process = shell.start(*START, "--daemonize")
    eventually(lambda: len(shell.cloud.servers()) == 2, "two servers")
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1, output
    assert "Traceback" not in output


@pytest.mark.needs("faults")
@pytest.mark.parametrize("how", [(), ("--daemonize",)])
def test_a_failed_start_that_cannot_be_taken_down_says_both_and_is_no_success(shell, eventually, how):
    seconds = 4 * shell.cloud.slowness
    settings = [f"--GriffinEngineSetLauncher.start_timeout={seconds}", "--GriffinEngineSetLauncher.stop_timeout=2"]
    silent = {"server": ".*", "silent": True}
    shell.cloud.faults.set(silent)
    process = shell.start(*START, *how, *settings)
    eventually(lambda: len(shell.cloud.servers()) == 2, "two servers")
    shell.cloud.faults.set(silent, {"service": "compute", "methods": ["DELETE"], "status": 503})
    output = process.communicate(timeout=100)[0]
    assert process.returncode == 1, output
    assert "Traceback" not in output
    assert "Only 0 of 2 engines connected" in output
    assert "taking it down failed" in output
    shell.cloud.faults.clear()
    shell.run("ipcluster", "stop", "--profile=griffin")
