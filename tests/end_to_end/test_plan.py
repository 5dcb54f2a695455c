"""`ipp-griffin plan`: what a start would take is shown, and nothing is made."""

import json

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
def test_programs_read_json(shell):
    found = json.loads(shell.run("ipp-griffin", "plan", "-n", "3", "--json"))
    assert (found["engines"], found["servers"], found["enough"]) == (3, 3, True)
    assert found["quota"]["servers"] == {"needed": 3, "most": 64, "used": 0, "left": 64}


@pytest.mark.needs("devcloud")
def test_a_start_asks_as_often_as_it_says(shell):
    forecast = json.loads(shell.run("ipp-griffin", "plan", "-n", "3", "--json"))["requests"]
    shell.cloud.running.clear_requests()
    shell.run(*START, "-n", "3", "--daemonize")
    made = [f"{method} {path}" for _, method, path, _ in shell.cloud.running.requests]
    last = max(
        i for i, line in enumerate(made) if line.endswith("/servers") or "PUT" in line and "connection.json" in line
    )
    assert last + 1 == forecast
    shell.run(*STOP)


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
