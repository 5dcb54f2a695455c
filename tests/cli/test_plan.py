"""`ipp-griffin plan`: what a start would take is shown, and nothing is made."""

import json
import re

import ipyparallel as ipp
import pytest
from traitlets.config import Config

from ipp_griffin.launchers import GriffinEngineSetLauncher

from ..conftest import assert_empty, running_cloud
from ..fakes import FakeHub


@pytest.fixture
def own_cloud(tmp_path):
    with running_cloud(tmp_path / "devcloud") as cloud:
        yield cloud
        assert_empty(cloud)


@pytest.fixture
def plan(griffin, ipython, own_cloud):
    """``plan(argument, ...)``: status and what was printed to both streams; nothing in the cloud has changed. The profile is there."""
    assert griffin("init")[0] == 0
    own_cloud.clear_requests()

    def plan(*arguments):
        status, out, err = griffin("plan", *arguments)
        made = [(method, path) for _, method, path, _ in own_cloud.requests if method not in ("GET", "HEAD")]
        assert [path for _, path in made if "/auth/tokens" not in path] == []
        return status, out, err

    return plan


@pytest.fixture
def profile(plan, ipython):
    """``profile(line, ...)``: more lines for the profile."""

    def add(*lines):
        with (ipython / "profile_griffin" / "ipcluster_config.py").open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    return add


def rows(text):
    return [line.split() for line in text.splitlines()]


def test_two_thousand_engines_are_planned_without_a_server(plan):
    engines = "--GriffinEngineSetLauncher.engines_per_server=100"
    status, out, err = plan("-n", "2000", "--GriffinCloud.flavor=dev.small", engines)
    assert (status, err) == (0, "")
    assert "2000 engines on 20 servers: image snapshot10, flavor dev.small (1 vCPU), network devnet" in out
    assert ["servers", "20", "64"] in rows(out)
    assert "33 until all servers are asked for" in out


def test_what_the_quota_can_not_hold_is_shown_and_is_status_1(plan):
    status, out, err = plan("-n", "2000", "--controller=griffin-server")
    assert status == 1
    assert "2000 engines on 2000 servers" in out
    assert "the controller on 1 server: image snapshot10" in out
    assert ["servers", "2001", "64"] in rows(out)
    assert err == (
        "ipp-griffin plan: the project's quota is too small: servers, vCPUs, RAM (MiB). `ipcluster start` would refuse this.\n"
    )


def test_a_quota_that_the_cloud_does_not_tell_is_unknown_and_no_failure(plan, own_cloud):
    """As with an application credential whose access rules leave it out."""
    own_cloud.faults.set({"service": "compute", "path": "/limits$", "status": 403})
    status, out, _ = plan("-n", "2")
    assert status == 0
    assert ["servers", "2", "unknown"] in rows(out)
    status, out, _ = plan("-n", "2", "--json")
    found = json.loads(out)
    assert (status, found["quota_known"], found["quota"]["servers"]["left"]) == (0, False, None)


def test_programs_read_json(plan):
    status, out, err = plan("-n", "3", "--json")
    found = json.loads(out)
    assert (status, err) == (0, "")
    assert (found["engines"], found["servers"], found["enough"]) == (3, 3, True)
    assert found["quota"]["servers"] == {"needed": 3, "most": 64, "used": 0, "left": 64}


def test_what_a_start_would_refuse_is_refused(plan, profile):
    status, _, err = plan("-n", "2", "--GriffinEngineSetLauncher.min_engines=3")
    assert (status, "GriffinEngineSetLauncher.min_engines is 3, but only 2 engines" in err) == (1, True)
    profile('c.GriffinServerControllerLauncher.restarts = "soon"')
    status, _, err = plan("-n", "2", "--controller=griffin-server")
    assert status == 1
    assert "A setting is wrong: The 'restarts' trait of a GriffinServerControllerLauncher instance" in err


def test_the_profile_says_how_many_and_where_the_controller_is(plan, profile):
    profile(
        "from ipp_griffin.launchers import GriffinServerControllerLauncher",
        "c.Cluster.n = 5",
        "c.Cluster.controller_launcher_class = GriffinServerControllerLauncher",
    )
    found = json.loads(plan("--json")[1])
    assert (found["engines"], found["servers"]) == (5, 6)


def test_a_profile_that_starts_its_engines_elsewhere_is_told(plan, ipython):
    (ipython / "profile_plain").mkdir()
    status, _, err = plan("-n", "2", "--profile=plain", "--GriffinCloud.network=devnet")
    assert status == 0
    assert "profile 'plain' does not start its engines with griffin. Add --engines=griffin to `ipcluster start`." in err


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            ("--profile=nobodys",),
            "There is no profile 'nobodys' yet. Create it with `ipp-griffin init --profile=nobodys`.",
        ),
        (("-n", "0"), "The value of the 'n' trait of a MakePlan instance should not be less than 1"),
        (("--controller=slurm",), "--controller is griffin or griffin-server, not 'slurm'."),
        (("--GriffinCloud.flavor=huge",), "No flavor 'huge'. This cloud has:"),
        (("--GriffinCloud.cloud=nowhere",), "Can't use cloud 'nowhere'"),
    ],
)
def test_what_can_not_be_is_one_line(plan, options, line):
    status, out, err = plan(*options)
    assert (status, out) == (1, "")
    assert line in err
    assert "Traceback" not in err


LOOKS = r"GET \S+/servers/detail|GET \S+/ipp-griffin-[0-9a-f]{12}"
AGENTS = r"GET \S+/connection\.json|PUT \S+/\d+\.\d+/[\w-]+"


class Lists(FakeHub):
    """Lists an engine of each of three servers, as soon as it is asked."""

    def engines(self, engine_set=""):
        return {f"{engine_set}-{slot}-0-0-0": slot for slot in range(3)}


@pytest.mark.parametrize("options", [("--GriffinCloud.key_name=griffin-key",), ("--controller=griffin-server",)])
async def test_a_start_asks_as_often_as_it_says(plan, own_cloud, tmp_path, monkeypatch, options):
    """With the controller on this machine, and on a server. Nothing runs on the engines' servers: their part comes after these requests."""
    forecast = json.loads(plan("-n", "3", "--json", *options)[1])["requests"]
    given = dict(option.lstrip("-").split("=") for option in options)
    cluster = ipp.Cluster(
        n=3,
        controller=given.pop("controller", "griffin"),
        engines="griffin",
        profile_dir=str(tmp_path / "profile"),
        load_profile=False,
        config=Config({"GriffinCloud": {name.partition(".")[2]: value for name, value in given.items()}}),
    )
    own_cloud.faults.set({"server": r"(?<!-controller)-\d+$", "silent": True})
    monkeypatch.setattr(GriffinEngineSetLauncher, "open_hub", lambda self, timeout=10: Lists())
    own_cloud.clear_requests()
    try:
        await cluster.start_cluster()
        made = [f"{method} {path}" for _, method, path, _ in own_cloud.requests]
        assert len([line for line in made if not re.fullmatch(f"{LOOKS}|{AGENTS}", line)]) == forecast
    finally:
        await cluster.stop_cluster()
