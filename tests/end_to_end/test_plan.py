"""`ipp-griffin plan`: what a start would take is shown, and nothing is made."""

import json
import re

import pytest

from .test_ipcluster import START, STOP


def changes(cloud) -> list:
    """Requests that changed anything; logging in is none."""
    made = [(method, path) for _, method, path, _ in cloud.running.requests]
    return [(method, path) for method, path in made if method not in ("GET", "HEAD") and "/auth/tokens" not in path]


@pytest.mark.needs("devcloud")
def test_two_thousand_engines_are_planned_without_a_server(shell):
    cores = "--GriffinCloud.flavor=dev.small"
    output = shell.run("ipp-griffin", "plan", "-n", "2000", cores, "--GriffinEngineSetLauncher.engines_per_server=100")
    assert "2000 engines on 20 servers: image snapshot10, flavor dev.small (1 vCPU), network devnet" in output
    lines = [line.split() for line in output.splitlines()]
    assert ["servers", "20", "64"] in lines
    assert "33 until all servers are asked for" in output
    assert changes(shell.cloud) == []


@pytest.mark.needs("devcloud")
def test_what_the_quota_can_not_hold_is_shown_and_is_status_1(shell):
    output = shell.run("ipp-griffin", "plan", "-n", "2000", "--controller=griffin-server", status=1)
    assert "2000 engines on 2000 servers" in output
    assert "the controller on 1 server: image snapshot10" in output
    assert ["servers", "2001", "64"] in [line.split() for line in output.splitlines()]
    assert (
        "ipp-griffin plan: the project's quota is too small: servers, vCPUs, RAM (MiB). `ipcluster start` would refuse this."
        in output
    )
    assert changes(shell.cloud) == []


@pytest.mark.needs("devcloud")
def test_a_quota_that_the_cloud_does_not_tell_is_unknown_and_no_failure(shell):
    """As with an application credential whose access rules leave it out."""
    shell.cloud.faults.set({"service": "compute", "path": "/limits$", "status": 403})
    output = shell.run("ipp-griffin", "plan", "-n", "2")
    assert ["servers", "2", "unknown"] in [line.split() for line in output.splitlines()]
    found = json.loads(shell.run("ipp-griffin", "plan", "-n", "2", "--json"))
    assert (found["quota_known"], found["quota"]["servers"]["left"]) == (False, None)


@pytest.mark.needs("devcloud")
def test_programs_read_json(shell):
    found = json.loads(shell.run("ipp-griffin", "plan", "-n", "3", "--json"))
    assert (found["engines"], found["servers"], found["enough"]) == (3, 3, True)
    assert found["quota"]["servers"] == {"needed": 3, "most": 64, "used": 0, "left": 64}


LOOKS = r"GET \S+/servers/detail|GET \S+/ipp-griffin-[0-9a-f]{12}"
AGENTS = r"GET \S+/connection\.json|PUT \S+/\d+\.\d+/[\w-]+"


@pytest.mark.needs("devcloud")
@pytest.mark.parametrize("options", [(), ("--GriffinCloud.key_name=griffin-key",), ("--controller=griffin-server",)])
def test_a_start_asks_as_often_as_it_says(shell, options):
    forecast = json.loads(shell.run("ipp-griffin", "plan", "-n", "3", "--json", *options))["requests"]
    shell.cloud.running.clear_requests()
    shell.run(*START, "-n", "3", "--daemonize", *options)
    made = [f"{method} {path}" for _, method, path, _ in shell.cloud.running.requests]
    assert len([line for line in made if not re.fullmatch(f"{LOOKS}|{AGENTS}", line)]) == forecast
    shell.run(*STOP)


@pytest.mark.needs("devcloud")
def test_what_a_start_would_refuse_is_refused(shell):
    output = shell.run("ipp-griffin", "plan", "-n", "2", "--GriffinEngineSetLauncher.min_engines=3", status=1)
    assert "GriffinEngineSetLauncher.min_engines is 3, of 2 engines" in output
    with (shell.profile() / "ipcluster_config.py").open("a") as profile:
        profile.write('c.GriffinServerControllerLauncher.restarts = "soon"\n')
    output = shell.run("ipp-griffin", "plan", "-n", "2", "--controller=griffin-server", status=1)
    assert "A setting is wrong: The 'restarts' trait of a GriffinServerControllerLauncher instance" in output


@pytest.mark.needs("devcloud")
def test_the_profile_says_how_many_and_where_the_controller_is(shell):
    with (shell.profile() / "ipcluster_config.py").open("a") as profile:
        profile.write("from ipp_griffin.launchers import GriffinServerControllerLauncher\n")
        profile.write("c.Cluster.n = 5\nc.Cluster.controller_launcher_class = GriffinServerControllerLauncher\n")
    found = json.loads(shell.run("ipp-griffin", "plan", "--json"))
    assert (found["engines"], found["servers"]) == (5, 6)


@pytest.mark.needs("devcloud")
def test_a_profile_that_starts_its_engines_elsewhere_is_told(shell):
    shell.run("ipython", "profile", "create", "plain")
    output = shell.run("ipp-griffin", "plan", "-n", "2", "--profile=plain", "--GriffinCloud.network=devnet")
    assert (
        "profile 'plain' does not start its engines with griffin: say --engines=griffin to `ipcluster start`." in output
    )


@pytest.mark.needs("devcloud")
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ("--profile=nobodys",),
            "There is no profile 'nobodys' yet: make it with `ipp-griffin init --profile=nobodys`.",
        ),
        (("-n", "0"), "The value of the 'n' trait of a MakePlan instance should not be less than 1"),
        (("--controller=slurm",), "--controller is griffin or griffin-server, not 'slurm'."),
        (("--GriffinCloud.flavor=huge",), "No flavor 'huge'. This cloud has:"),
        (("--GriffinCloud.cloud=nowhere",), "Can't use cloud 'nowhere'"),
    ],
)
def test_what_can_not_be_is_one_line(shell, options, line):
    output = shell.run("ipp-griffin", "plan", *options, status=1)
    assert line in output
    assert "Traceback" not in output
